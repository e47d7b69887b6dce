//! The library where `malloc` fails: each block that a function asks for is refused once.

#[path = "support/c.rs"]
mod c;

use std::process::Command;

/// The program stands in front of glibc's `malloc`.
fn fails_with_a_code(name: &str, calls: &[&str]) {
    if cfg!(not(target_env = "gnu")) {
        return eprintln!("skipped: needs glibc's __libc_malloc");
    }
    let dir = c::scratch(name);
    let program = c::compile(&dir, name, &[c::root().join("c-tests/checks/memory.c")], &["-D_GNU_SOURCE"]);
    let mut command = Command::new(program);
    c::run(command.args(calls).env("PFKEY_BACKEND", "embedded").env("PFKEYD", c::program("pfkeyd")));
}

#[test]
fn every_function_fails_with_a_code_where_memory_is_missing() {
    fails_with_a_code("memory", &[]);
}

#[test]
fn opening_fails_with_a_code_where_memory_is_missing() {
    fails_with_a_code("memory_open", &["open"]);
}
