//! Options with their value behind them, as ipsec-tools' setkey reads them: `-mtransport`, `-u4`, `-Pin`. What is no such value is
//! another option, or a slip.

use super::lexer::Kind;
use super::parse::{Parser, Result};
use super::sa::MODES;
use crate::model::names;
use crate::model::sa::FLAGS;

/// Options that take a number.
const NUMBERS: &[&str] = &["-u", "-r", "-lh", "-ls", "-bh", "-bs", "-uh", "-us", "-ph", "-ps", "-ctx"];

impl Parser<'_> {
    /// Leaves an option whose value is glued to it as a token of its own, with its value behind it.
    pub(super) fn unglue(&mut self, options: &[&str]) -> Result<()> {
        let token = self.peek()?;
        if token.kind != Kind::Word || !token.bytes.starts_with(b"-") {
            return Ok(());
        }
        let word = token.text();
        let option = options.iter().find(|option| word.strip_prefix(**option).is_some_and(|v| is_value(option, v)));
        if let Some(option) = option {
            self.cut(option.len());
        }
        Ok(())
    }
}

/// Whether a word can be the value of an option.
fn is_value(option: &str, value: &str) -> bool {
    let names = |tables| names::find(tables, value).is_some();
    match option {
        "-m" => MODES.contains(&value),
        "-f" => value == "nocyclic-seq" || FLAGS.iter().any(|(name, _)| *name == value),
        "-E" => names(names::ENCRYPT),
        "-A" => names(names::AUTH),
        "-C" => names(names::COMPRESS),
        "-P" => matches!(value, "in" | "out" | "fwd"),
        _ => NUMBERS.contains(&option) && !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()),
    }
}
