//! `setkey`: this program under its second name does what ipsec-tools 0.9.1's setkey does, with the same options, text and exit
//! statuses. What that one does by accident, with what lies in its memory, this one does not.

mod brief;
mod clock;
mod lexer;
mod options;
mod parser;
mod policies;
mod printer;
mod registered;
mod scope;
mod session;
mod typed;
mod words;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use pfkey_wire::MessageType;
use zeroize::Zeroizing;

use crate::output::Out;
use options::{Mode, Options, Refusal};
use parser::{Parser, Stop};
use printer::{Printer, errno_text, warn};
use session::Session;

/// Its name.
pub const NAME: &str = "setkey";
/// What `-V` and the usage begin with: scripts look for it.
const VERSION: &str = "setkey @(#) ipsec-tools 0.9.1 (https://github.com/rdratlos/racoon-ipsec-tools)\n";
const USAGE: &str = "\
usage: setkey [-vrk] file ...
       setkey [-nvrk] -c
       setkey [-nvrk] -f filename
       setkey [-PalpvNrk] -D
       setkey [-Pv] -F
       setkey [-H] -x
       setkey [-V] [-h]
";

/// The command with these words behind its name.
pub fn main(words: &[OsString]) -> ExitCode {
    let options = match options::parse(words) {
        Ok(options) => options,
        Err(refusal) => return refused(&refusal),
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::Usage) => refused(&Refusal::Usage(None)),
        Err(Ended::Told) => ExitCode::FAILURE,
        Err(Ended::Because(text)) => {
            warn(text);
            ExitCode::FAILURE
        }
        // Whoever read our output has enough.
        Err(Ended::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Ended::Output(error)) => {
            warn(error);
            ExitCode::FAILURE
        }
    }
}

/// Why it ends before its end.
enum Ended {
    Usage,
    /// For a reason that was told.
    Told,
    Because(String),
    /// Standard output cannot be written.
    Output(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn refused(refusal: &Refusal) -> ExitCode {
    let mut out = Out::new();
    let _ = out.write_all(VERSION.as_bytes());
    match refusal {
        Refusal::Version => eprintln!("{NAME}: this is libpfkey_rs {}'s", env!("CARGO_PKG_VERSION")),
        Refusal::Usage(told) => {
            told.iter().for_each(warn);
            let _ = out.write_all(USAGE.as_bytes());
        }
    }
    let _ = out.flush();
    ExitCode::FAILURE
}

fn run(mut options: Options) -> Result<(), Ended> {
    let files = std::mem::take(&mut options.files);
    if !files.is_empty() {
        return print_files(options, &files);
    }
    let mode = std::mem::take(&mut options.mode);
    let policy = options.policy;
    let text = match &mode {
        Mode::File(name) => Some(read(name)?),
        _ => None,
    };
    let mut session = Session::open(options).map_err(|failure| Ended::Because(format!("pfkey_open: {failure}")))?;
    match (mode, text) {
        (Mode::Dump, _) => session.dump(if policy { MessageType::X_SPDDUMP } else { MessageType::DUMP })?,
        (Mode::Flush, _) => {
            let msg_type = if policy { MessageType::X_SPDFLUSH } else { MessageType::FLUSH };
            session.header(msg_type, pfkey_wire::SaType::UNSPEC)?;
        }
        (Mode::File(name), Some(text)) => {
            session.register().map_err(Ended::Because)?;
            script(&mut session, &name.to_string_lossy(), &text)?;
        }
        (Mode::Stdin, _) => {
            session.register().map_err(Ended::Because)?;
            stdin(&mut session)?;
        }
        (Mode::Promiscuous, _) => session.promiscuous().map_err(Ended::Because)?,
        _ => return Err(Ended::Usage),
    }
    Ok(session.printer.out.flush()?)
}

/// The text of a file, or of standard input for `-`.
fn read(name: &OsString) -> Result<Zeroizing<Vec<u8>>, Ended> {
    crate::script::read(name.as_ref()).map_err(|error| {
        let text = error.raw_os_error().map_or_else(|| error.to_string(), errno_text);
        Ended::Because(format!("Can't open `{}': {text}", name.to_string_lossy()))
    })
}

/// Carries out a file; its first error ends it.
fn script(session: &mut Session, name: &str, text: &[u8]) -> Result<(), Ended> {
    session.printer.place = Some((name.to_owned(), 1));
    match Parser::new(text, session).run() {
        Ok(()) | Err((Stop::Exit, _)) => Ok(()),
        Err((Stop::Io(error), _)) => Err(error.into()),
        Err((stop, line)) => {
            session.printer.out.flush()?;
            if matches!(stop, Stop::Error) {
                warn(format_args!("{name},{line}: parse failed"));
            }
            Err(Ended::Told)
        }
    }
}

/// Carries out what is typed, command by command; an error ends its command only. What has no `;` is not carried out.
fn stdin(session: &mut Session) -> Result<(), Ended> {
    let mut lines = typed::Lines::new();
    let mut text = Zeroizing::new(Vec::new());
    while let Some(line) = lines.next()? {
        let line = outside(line, b'#').and_then(|at| line.get(..at)).unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        if !text.is_empty() {
            typed::append(&mut text, b" ");
        }
        typed::append(&mut text, line);
        let mut start = 0;
        while let Some(at) = outside(text.get(start..).unwrap_or_default(), b';') {
            let one = text.get(start..=start + at).unwrap_or_default();
            start += at + 1;
            let outcome = Parser::new(one, session).run();
            session.printer.out.flush()?;
            match outcome {
                Ok(()) | Err((Stop::Error, _)) => {}
                Err((Stop::Exit, _)) => return Ok(()),
                Err((Stop::Stray, _)) => return Err(Ended::Told),
                Err((Stop::Io(error), _)) => return Err(error.into()),
            }
        }
        text.drain(..start);
    }
    Ok(())
}

/// Where a byte stands outside of a key in quotes.
fn outside(text: &[u8], wanted: u8) -> Option<usize> {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let rest = text.get(at + 1..).unwrap_or_default();
        match byte {
            found if *found == wanted => return Some(at),
            // A quote that nothing closes is none.
            b'"' => at += rest.iter().position(|b| *b == b'"').map_or(0, |len| len + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Prints files of PF_KEY messages.
fn print_files(options: Options, files: &[OsString]) -> Result<(), Ended> {
    let mut printer = Printer::new(options);
    for name in files {
        let failed = |error: io::Error| {
            let text = error.raw_os_error().map_or_else(|| error.to_string(), errno_text);
            Ended::Because(format!("{}: {text}", name.to_string_lossy()))
        };
        let bytes = crate::script::read(name.as_ref()).map_err(failed)?;
        if bytes.len() < pfkey_wire::HEADER_LEN {
            return Err(failed(nix::errno::Errno::EINVAL.into()));
        }
        printer.print_all(&bytes)?;
    }
    Ok(printer.out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::outside;

    #[test]
    fn a_key_in_quotes_ends_no_command() {
        assert_eq!(outside(b"add \"a;b\" ;", b';'), Some(10));
        assert_eq!(outside(b"add \"a;b", b';'), Some(6));
        assert_eq!(outside(b"x # y", b'#'), Some(2));
        assert_eq!(outside(b"none", b';'), None);
    }
}
