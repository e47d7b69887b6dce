//! The library in programs with threads: children that they fork, signal handlers, threads that are cancelled.

#[path = "support/c.rs"]
mod c;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the C program once for all tests that run it.
fn program() -> &'static Path {
    static PROGRAM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(|| {
        let dir = c::scratch("threads");
        let flags = ["-D_GNU_SOURCE", "-pthread"];
        c::compile(&dir, "threads", &[c::root().join("c-tests/checks/threads.c")], &flags)
    })
}

fn goes_well(test: &str) {
    let mut command = Command::new(program());
    c::run(command.arg(test).env("PFKEY_BACKEND", "embedded").env("PFKEYD", c::program("pfkeyd")));
}

#[test]
fn a_forked_child_finds_no_lock_that_another_thread_held() {
    if cfg!(sanitized) {
        return println!("skipped: AddressSanitizer has locks of its own, which a fork leaves as they are");
    }
    goes_well("fork");
}

#[test]
fn a_signal_handler_may_ask_for_the_text_in_the_middle_of_a_call() {
    goes_well("signals");
}

#[test]
fn a_thread_can_be_cancelled_while_it_waits_for_a_message() {
    goes_well("recv");
    goes_well("recv_register");
}

#[test]
fn a_thread_can_be_cancelled_between_its_requests() {
    goes_well("send");
}

#[test]
fn a_thread_that_is_cancelled_while_it_opens_leaves_no_descriptor() {
    goes_well("open");
}

#[test]
fn asynchronous_cancellation_does_no_harm() {
    if cfg!(sanitized) {
        return println!("skipped: AddressSanitizer takes a cancelled thread's stack for one in use");
    }
    goes_well("recv-asynchronous");
    goes_well("send-asynchronous");
}
