//! setkey's file language: read whole before anything is sent.

mod glued;
mod host_name;
mod lexer;
mod parse;
mod sa;
mod silent;
mod spd;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use pfkey::policy_text::PolicySpec;
use pfkey_wire::SaType;

use crate::model::policy::Policy;
use crate::model::sa::Sa;

pub use host_name::is_host_name;
pub use parse::{Parsed, parse, parse_files};
pub use sa::{DERIVED, IV_4_BYTES, OLD, RAW_CPI};

/// One command, and where its name stands in the text, in bytes.
pub struct Command {
    /// Where.
    pub at: usize,
    /// What.
    pub action: Action,
}

/// What a command does.
pub enum Action {
    /// `add`.
    Add(Box<Sa>),
    /// `update`.
    Update(Box<Sa>),
    /// `getspi`.
    GetSpi(Box<Sa>),
    /// `get`.
    Get(Box<Sa>),
    /// `delete`.
    Delete(Box<Sa>),
    /// `deleteall`.
    DeleteAll(SaType, SocketAddr, SocketAddr),
    /// `flush`.
    Flush(SaType),
    /// `dump`.
    Dump(SaType),
    /// `spdadd`.
    SpdAdd(Box<Policy>),
    /// `spdupdate`.
    SpdUpdate(Box<Policy>),
    /// `spddelete`. True for the copy that goes with an inbound policy, which may be missing.
    SpdDelete(Box<Policy>, bool),
    /// `spdadd tagged` and `spdupdate tagged`: true for the latter. Linux has no such policies.
    SpdTagged(bool, PolicySpec),
    /// `spdflush`.
    SpdFlush,
    /// `spddump`.
    SpdDump,
}

/// Something wrong with a text, or worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where, in bytes.
    pub at: usize,
    /// What.
    pub text: String,
}

/// Turns offsets into lines and columns.
pub struct Lines<'a> {
    text: &'a [u8],
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Of this text.
    pub fn new(text: &'a [u8]) -> Self {
        let ends = text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1);
        Self { text, starts: std::iter::once(0).chain(ends).collect() }
    }

    /// Line and column, both from 1; columns count characters.
    pub fn locate(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= at);
        let start = line.checked_sub(1).and_then(|i| self.starts.get(i)).copied().unwrap_or(0);
        let before = self.text.get(start..at.min(self.text.len())).unwrap_or_default();
        // Bytes that continue a character of UTF-8 start none.
        (line, before.iter().filter(|b| **b & 0xc0 != 0x80).count() + 1)
    }
}

#[cfg(test)]
mod line_tests {
    use super::Lines;

    #[test]
    fn lines_and_columns() {
        let lines = Lines::new("ab\n\ncé d".as_bytes());
        let at = [0, 2, 3, 4, 8, 9, 99];
        assert_eq!(at.map(|at| lines.locate(at)), [(1, 1), (1, 3), (2, 1), (3, 1), (3, 4), (3, 5), (3, 5)]);
        assert_eq!(Lines::new(b"").locate(0), (1, 1));
    }
}
