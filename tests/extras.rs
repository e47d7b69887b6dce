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

/// A program other than the operator's command gets them if it asks: `a_listening_pfkeyd_offers_what_it_was_started_with`.
#[test]
fn the_command_has_aead_without_a_switch() {
    let added = pfkey("embedded", "", &add(KEY));
    assert!(added.status.success(), "{}", text(&added.stderr));
    let list = text(&pfkey("embedded", "", &["algorithms"]).stdout);
    for name in ["aes-ccm-8", "aes-ccm-12", "aes-ccm-16", "aes-gcm-8", "aes-gcm-12", "aes-gcm-16", "aes-gmac"] {
        assert!(list.contains(name), "{name}:\n{list}");
    }
    assert!(list.contains("chacha20-poly1305"));
}

#[test]
fn sha2_256_has_the_bits_that_its_name_says() {
    let key = format!("0x{}", "07".repeat(32));
    let pfkey = program("pfkey");
    let mut script = String::from("set -e\n");
    for (spi, name) in
        ["hmac-sha256", "hmac-sha2-256", "hmac-sha2-256-96", "hmac-sha2-256-128", "'hmac(sha256)'"].iter().enumerate()
    {
        script += &format!("{pfkey} add 192.0.2.1 192.0.2.2 esp {} -E null -A {name} {key}\n", 0x1000 + spi);
    }
    script += &format!(
        "{pfkey} dump | sort | sed 's/.*spi=\\([^ ]*\\) .*/\\1 &/; s/ .*xfrm=\\([^ ]*\\).*/ \\1/; s/ protocol.*//'"
    );
    let output = Command::new(program("pfkeyd")).args(["--", "sh", "-c", &script]).output().unwrap();
    let expected = "0x00001000\n0x00001001 icv=128\n0x00001002 icv=96\n0x00001003 icv=128\n0x00001004\n";
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    let twice = Command::new(pfkey)
        .args([
            "add",
            "192.0.2.1",
            "192.0.2.2",
            "esp",
            "0x1",
            "-E",
            "null",
            "-X",
            "icv=96",
            "-A",
            "hmac-sha2-256",
            &key,
        ])
        .output()
        .unwrap();
    assert!(text(&twice.stderr).contains("hmac-sha2-256 and -X icv are two lengths"), "{}", text(&twice.stderr));
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
