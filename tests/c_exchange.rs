//! Requests and answers on one descriptor of a C program's: what it left unread there, closed, or gave away.
#![forbid(unsafe_code)]

#[path = "support/c.rs"]
mod c;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the C program once for all tests that run it.
fn program() -> &'static Path {
    static PROGRAM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(|| {
        let dir = c::scratch("exchange");
        c::compile(&dir, "exchange", &[c::root().join("c-tests/checks/exchange.c")], &[])
    })
}

fn goes_well(test: &str) {
    let mut command = Command::new(program());
    c::run(command.arg(test).env("PFKEY_BACKEND", "embedded").env("PFKEYD", c::program("pfkeyd")));
}

#[test]
fn a_batch_does_not_take_an_answer_that_was_left_unread_for_its_own() {
    goes_well("stale-batch");
}

#[test]
fn a_list_is_whole_whatever_was_left_unread() {
    goes_well("stale-dump");
}

#[test]
fn a_list_is_whole_on_a_non_blocking_descriptor() {
    goes_well("non-blocking");
}

#[test]
fn a_batch_does_not_outlive_its_descriptor() {
    goes_well("closed-batch");
}

#[test]
fn at_the_end_of_file_errno_says_so_and_an_attempt_leaves_none() {
    goes_well("ended");
}

#[test]
fn a_message_that_the_program_wrote_is_kept_in_a_batch_too() {
    goes_well("raw");
}

#[test]
fn a_received_key_is_in_its_message_only() {
    goes_well("received-keys");
}
