//! Algorithms beyond AF_KEY's: off unless asked for, and what asks for them.

#[path = "support/program.rs"]
mod program;

use program::program;
use std::process::{Command, Output};

/// Runs `pfkey` on a backend with `PFKEY_ALGORITHMS`.
fn pfkey(backend: &str, algorithms: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("pfkey"));
    command
        .args(arguments)
        .env("PFKEY_BACKEND", backend)
        .env("PFKEY_ALGORITHMS", algorithms)
        .env("PFKEYD", program("pfkeyd"));
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn add(key: &str) -> Vec<&str> {
    vec!["add", "192.0.2.1", "192.0.2.2", "esp", "0x1000", "-E", "aes-gcm-16", key]
}

/// 128 bits of key and 32 of salt.
const KEY: &str = "0x000102030405060708090a0b0c0d0e0f10111213";

#[test]
fn aead_is_refused_as_by_af_key_unless_asked_for() {
    let refused = pfkey("embedded", "", &add(KEY));
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("Function not implemented"), "{}", text(&refused.stderr));
    let list = pfkey("embedded", "", &["algorithms"]);
    assert!(!text(&list.stdout).contains("gcm"));

    let added = pfkey("embedded", "aead", &add(KEY));
    assert!(added.status.success(), "{}", text(&added.stderr));
    let list = text(&pfkey("embedded", "sha256-128,aead", &["algorithms"]).stdout);
    for name in ["aes-ccm-8", "aes-ccm-12", "aes-ccm-16", "aes-gcm-8", "aes-gcm-12", "aes-gcm-16", "aes-gmac"] {
        assert!(list.contains(name), "{name}:\n{list}");
    }
    assert!(list.contains("chacha20-poly1305"));
}

#[test]
fn a_listening_pfkeyd_offers_what_it_was_started_with() {
    let pfkey = program("pfkey");
    let script = format!("{pfkey} {} && {pfkey} --show-keys get 192.0.2.1 192.0.2.2 esp 0x1000", add(KEY).join(" "));
    let run = |algorithms: &[&str]| {
        Command::new(program("pfkeyd")).args(algorithms).args(["--", "sh", "-c", &script]).output().unwrap()
    };
    let without = run(&[]);
    assert!(text(&without.stderr).contains("Function not implemented"), "{}", text(&without.stderr));
    let with = run(&["--algorithms", "aead"]);
    let shown: String = text(&with.stdout).split_whitespace().collect();
    assert!(shown.contains("aes-gcm-16") && shown.contains(&KEY[2..]), "{}{}", text(&with.stdout), text(&with.stderr));
}

#[test]
fn an_aead_takes_its_own_lengths_of_key_and_no_authentication() {
    // 128 bits, which leave no room for the salt, are caught before they are sent; the engine judges the same.
    let short = pfkey("embedded", "aead", &add("0x000102030405060708090a0b0c0d0e0f"));
    assert!(!short.status.success());
    let mut both = add(KEY);
    both.extend(["-A", "hmac-sha1", "0x000102030405060708090a0b0c0d0e0f10111213"]);
    let both = pfkey("embedded", "aead", &both);
    assert!(text(&both.stderr).contains("Invalid argument"), "{}", text(&both.stderr));
}

#[test]
fn what_cannot_be_is_said() {
    let unknown = pfkey("embedded", "aead,gcm", &["dump"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(text(&unknown.stderr).contains("\"gcm\": expected aead or sha256-128"), "{}", text(&unknown.stderr));
    let af_key = pfkey("afkey", "aead", &["dump"]);
    assert!(text(&af_key.stderr).contains("AF_KEY has no aead"), "{}", text(&af_key.stderr));
    let daemon = Command::new(program("pfkeyd")).args(["--algorithms", "gcm", "--", "true"]).output().unwrap();
    assert_eq!(daemon.status.code(), Some(2));
}
