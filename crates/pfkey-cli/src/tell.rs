//! What the command says on standard error: each message begins with the command's name.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use clap::error::ErrorKind;

/// Before each message.
const NAME: &str = "pfkey: ";

/// Says messages, one a line. A line that begins with a blank goes on with the message before it.
pub fn tell(text: impl fmt::Display) {
    // In one piece, so that others who write there stand before it or behind it. Nobody may be reading.
    let _ = std::io::stderr().write_all(lines(&text.to_string()).as_bytes());
}

fn lines(text: &str) -> String {
    let mut said = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let name = if line.starts_with(' ') { "" } else { NAME };
        let _ = writeln!(said, "{name}{line}");
    }
    said
}

/// Says what is wrong with the arguments; what else clap says of it is indented.
pub fn tell_usage(error: &clap::Error) {
    let text = error.render().to_string();
    let (title, rest) = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        ("a command is missing", text.as_str())
    } else {
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        text.split_once('\n').unwrap_or((text, ""))
    };
    let rest: Vec<_> = rest.lines().map(|line| format!("  {line}")).collect();
    tell(format_args!("{}\n{}", title.trim_end_matches(':'), rest.join("\n")));
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn every_message_has_the_name() {
        assert_eq!(lines("one\ntwo:\n\n  more of it\n"), "pfkey: one\npfkey: two:\n  more of it\n");
        assert_eq!(lines(""), "");
    }
}
