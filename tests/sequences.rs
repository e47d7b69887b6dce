//! Random calls of the C functions from threads, forked processes and cancelled threads: nothing hangs, nothing crashes.
//! `PFKEY_SEQUENCES` is for how many seconds (10), `PFKEY_SEED` repeats a run.

#[path = "support/c.rs"]
mod c;

use std::process::Command;

#[test]
fn random_calls_of_threads_and_forked_processes_end() {
    if cfg!(sanitized) {
        return println!("skipped: AddressSanitizer takes a cancelled thread's stack for one in use");
    }
    let dir = c::scratch("sequences");
    let source = c::root().join("tests/sequences/sequences.c");
    let program = c::compile(&dir, "sequences", &[source], &["-pthread"]);
    let mut command = Command::new(program);
    command.arg(std::env::var("PFKEY_SEQUENCES").unwrap_or_else(|_| "10".to_owned()));
    command.args(std::env::var("PFKEY_SEED"));
    command.env("PFKEY_BACKEND", "embedded").env("PFKEYD", c::program("pfkeyd"));
    let said = c::run(&mut command);
    eprintln!("{}", String::from_utf8_lossy(&said.stdout).trim().replace('\n', ", "));
}
