//! `doctor`: what serves PF_KEY here, whether the daemons that need it can have it, and how a program is brought to it.
//!
//! | file | what |
//! |---|---|
//! | `machine` | the backend, the kernel, the machine's pfkeyd |
//! | `trial`, `cases` | SAs and policies, added in a network namespace of their own |
//! | `daemons` | what each daemon needs of that |
//! | `program`, `binary`, `way` | what a program is, and the way that brings it to PF_KEY |
//! | `unit`, `adopt` | the unit that starts it, and its drop-in |
//! | `modules` | which module a lack is of, and whether it can be had |

mod adopt;
mod binary;
mod cases;
mod daemons;
mod machine;
mod modules;
mod program;
mod trial;
mod unit;
mod way;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::output::{Format, Out, Record, Value, View, printable, show};

/// What is asked for.
#[derive(clap::Args)]
pub struct Options {
    /// Say how this program gets PF_KEY: with which library or command, and with which drop-in for its unit
    #[arg(conflicts_with = "adopt")]
    binary: Option<PathBuf>,
    /// Show the drop-in for this systemd unit, ask, and write it
    #[arg(long, value_name = "UNIT")]
    adopt: Option<String>,
    /// Write it without asking
    #[arg(long, requires = "adopt")]
    yes: bool,
    /// Add SAs and policies in a new network namespace and print what became of them: doctor's own child
    #[arg(long, hide = true)]
    trial: bool,
}

/// Shows what was found.
pub fn doctor(view: View, options: &Options) -> Result<(), Failure> {
    if options.trial {
        return trial::child(view);
    }
    if let Some(unit) = &options.adopt {
        return adopt::adopt(view, unit, options.yes);
    }
    if let Some(binary) = &options.binary {
        return program::program(view, binary);
    }
    let mut findings = Findings::default();
    let result = machine::examine(&mut findings);
    findings.show(view)?;
    result
}

/// What was found, a line each.
#[derive(Default)]
struct Findings(Vec<Record>);

impl Findings {
    fn add(&mut self, what: &str, found: &str, why: impl Into<String>) {
        self.0.push(vec![
            ("what", Value::Text(what.to_owned())),
            ("found", Value::Text(found.to_owned())),
            ("why", Value::Text(why.into())),
        ]);
    }

    /// The same of the last one, for programs.
    fn with(&mut self, fields: impl IntoIterator<Item = (&'static str, Value)>) {
        if let Some(last) = self.0.last_mut() {
            last.extend(fields);
        }
    }

    /// Puts these before what there is.
    fn first(&mut self, mut findings: Self) {
        findings.0.append(&mut self.0);
        self.0 = findings.0;
    }

    /// These, and a file that could be.
    fn show_with_file(mut self, view: View, path: &Path, text: &str) -> std::io::Result<()> {
        if view.format == Format::Json {
            self.add("drop-in", "unused", text);
            return self.show(view);
        }
        self.show(view)?;
        let mut out = Out::new();
        writeln!(out, "\n# {}", path.display())?;
        // What could repaint the terminal is in no drop-in.
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// As records, but for people as paragraphs: a reason is a sentence, and wider than a column.
    fn show(&self, view: View) -> std::io::Result<()> {
        let mut out = Out::new();
        let Format::Table { colour } = view.format else {
            return show(&mut out, view, "findings", &["what", "found", "why"], &self.0);
        };
        for record in &self.0 {
            let [what, found, why] = ["what", "found", "why"].map(|name| {
                let value = record.iter().find(|(field, _)| *field == name);
                value.map(|(_, value)| printable(&value.to_plain()).as_str().to_owned()).unwrap_or_default()
            });
            if found == "ok" && EXPECTED.contains(&what.as_str()) {
                continue;
            }
            let paint = match found.as_str() {
                "ok" => "\x1b[32m",
                "partly" | "unused" => "\x1b[33m",
                "missing" | "failed" => "\x1b[31m",
                _ => "",
            };
            let (on, off) = if colour && !paint.is_empty() { (paint, "\x1b[0m") } else { ("", "") };
            let lines = wrapped(&why, WIDTH - INDENT);
            let (first, rest) = lines.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
            writeln!(out, "{what:14}{on}{found:9}{off}{first}")?;
            for line in rest {
                writeln!(out, "{:INDENT$}{line}", "")?;
            }
        }
        out.flush()
    }
}

/// What people do not look for where it is as it should be.
const EXPECTED: [&str; 4] = ["PFKEY_BACKEND", "XFRM_USER", "CAP_NET_ADMIN", "pfkeyd"];
/// Columns of the terminals that everybody has.
const WIDTH: usize = 80;
/// Where a reason begins.
const INDENT: usize = 23;

/// A text in lines, broken at blanks.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn lines_end_at_blanks() {
        assert_eq!(wrapped("a bc def g", 4), ["a bc", "def", "g"]);
        assert_eq!(wrapped("toolong a", 3), ["toolong", "a"]);
        assert_eq!(wrapped("", 3), [""]);
    }
}
