//! What pfkey says on standard error: each message begins with `pfkey:`, what belongs to it is indented, and no errno stands alone.
#![forbid(unsafe_code)]

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

use daemon::{Daemon, write};
use nix::errno::Errno;

const SA: [&str; 7] = ["10.0.0.1", "10.0.0.2", "esp", "0x1000", "-E", "null", "-r8"];

/// Command lines that fail, with words of what has to be said. FILE, BAD and WARNED are files: of one good command twice, with an
/// error, and worth warnings.
const FAILING: &[(&str, &str)] = &[
    ("", "a command is missing"),
    ("dmp", "'dump'"),
    ("--jsn", "'--json'"),
    ("dump --columns nope", "no field"),
    ("dump --spi x", "a number of 32 bits"),
    ("dump quick", "esp"),
    ("spd --spi 1", "policies have none"),
    ("spd --direction up", "fwd"),
    ("add 1", "arguments:1:5: "),
    ("add 10.0.0.1 10.0.0.2 esp 0x1000 -E null", "File exists (this SPI has its SA"),
    ("add 10.0.0.1 10.0.0.2 esp 0x1001 -E aes-cbc 0x00", "this one has 8"),
    ("add 10.0.0.1 10.0.0.2 ah 0x1001 -A keyed-md5 \"1234567890123456\"", "'pfkey algorithms' lists"),
    ("get 10.0.0.1 10.0.0.2 esp 0x9999", "'pfkey dump' lists them"),
    ("get 10.0.0.1", "arguments:"),
    ("delete 10.0.0.1 10.0.0.2 esp 0x9999", "'pfkey dump' lists them"),
    ("delete", "expected SRC DST"),
    ("delete --spi 77", "no SA matches"),
    ("flush nope", "ipcomp"),
    ("policy", "a command is missing"),
    ("policy add 1", "arguments:1:8: "),
    ("policy add 10.0.0.0/8 10.0.0.0/8 any -P out bypass", "Invalid argument ("),
    ("policy get 99", "no policy has this number: 'pfkey spd' lists them"),
    ("policy get x", "invalid value"),
    ("policy delete 99", "no policy has this number: 'pfkey spd' lists them"),
    ("policy delete x", "not a policy's number"),
    ("policy delete 10.0.0.0/8 10.0.0.0/9 any -P out", "'pfkey spd' lists them"),
    ("policy flush --state dead", "policies have none"),
    ("monitor --count x", "invalid value"),
    ("top", "--once prints one frame"),
    ("--json top", "--json --once"),
    ("metrics --output /nonexistent/x", "/nonexistent/x: "),
    ("metrics --listen 203.0.113.1:1", "listen on 203.0.113.1:1: "),
    ("--json metrics", "no JSON"),
    ("graph --svg /nonexistent/x", "/nonexistent/x: "),
    ("--json graph --dot", "JSON"),
    ("load /nonexistent", "/nonexistent: "),
    ("load BAD", "BAD:2:6: unknown encryption algorithm"),
    ("load --check BAD", "BAD:3:1: unknown command"),
    ("load --diff BAD", "BAD:3:1: unknown command"),
    ("load --replace BAD", "BAD:3:1: unknown command"),
    ("load FILE", "FILE:2:1: add esp 10.0.0.1 10.0.0.2 spi 0x00003000: File exists ("),
    ("load --all-or-nothing FILE", "FILE: everything was undone"),
    ("load --replace FILE", "FILE:2:1: "),
    ("load --check --diff FILE", "cannot be used with"),
    ("save --output /nonexistent/x", "/nonexistent/x: "),
    ("explain x", "not an address"),
    ("explain 10.0.0.1 10.0.0.2 --mtu 3", "less than 68"),
    ("explain -f BAD 10.0.0.1 10.0.0.2", "BAD:2:6: "),
    ("types --profile x", "klips"),
    ("algorithms x", "unexpected"),
    ("doctor /nonexistent", "/nonexistent: "),
    ("doctor /etc/passwd", "neither ELF nor a script"),
    ("doctor --adopt nosuch", "no such unit"),
    ("doctor --adopt a/b", "no name of a service"),
    ("completion ksh", "'zsh'"),
    ("help nope", "nope"),
];

/// Checks the shape of what was said, and gives it.
fn said(output: &Output, words: &str) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(text.starts_with("pfkey: ") && text.ends_with('\n'), "{words}: {text}");
    let reasons: BTreeSet<&str> = (1..134).map(|errno| Errno::from_raw(errno).desc()).collect();
    for line in text.lines() {
        let Some(message) = line.strip_prefix("pfkey: ") else {
            assert!(line.starts_with("  ") && !line.trim().is_empty(), "{words}: {line:?}");
            continue;
        };
        assert!(!message.is_empty() && !message.starts_with("pfkey"), "{words}: {line:?}");
        // The kernel's own word needs another that says what it means; that of a system call, what it was about.
        let last = message.rsplit(": ").next().unwrap();
        assert!(!reasons.contains(last), "{words}: an errno stands alone: {line:?}");
        assert!(message.contains(": ") || !message.contains("(os error"), "{words}: an errno stands alone: {line:?}");
    }
    text
}

fn daemon(name: &str) -> (Daemon, impl Fn(&str) -> String) {
    let directory = c::scratch(name);
    let daemon = Daemon::start(&directory);
    daemon.ok(&[&["add"], &SA[..]].concat());
    let twice = "add 10.0.0.1 10.0.0.2 esp 0x3000 -E null;\n".repeat(2);
    let good = write(&directory, "twice.conf", &twice);
    let bad = write(&directory, "bad.conf", "add 10.0.0.1 10.0.0.2 esp 0x1001\n  -E aes-cbx 0x00;\nflsh;\n");
    let warned =
        "add 192.0.2 10.0.0.2 esp 0x1004 -lh 10 -ls 20 -E null;\nspdadd 10.0.0.0/8 10.0.0.0/8 any -P out ipsec;\n";
    let warned = write(&directory, "warned.conf", warned);
    (daemon, move |text| text.replace("FILE", &good).replace("BAD", &bad).replace("WARNED", &warned))
}

#[test]
fn every_command_with_what_it_cannot_do() {
    let (daemon, named) = daemon("messages");
    for (words, expected) in FAILING {
        let line = named(words);
        let output = daemon.run(&line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>());
        assert_ne!(output.status.code(), Some(0), "{words}");
        assert!(output.status.code().is_some(), "{words}: {output:?}");
        let text = said(&output, words);
        assert!(text.contains(&named(expected)), "{words}: {text}");
    }
    // None is forgotten.
    let help = daemon.ok(&["--help"]);
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands: Vec<&str> = list.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(commands.len() > 15, "{help}");
    for command in commands {
        let tried = |words: &str| words.split(' ').any(|word| word == command);
        assert!(FAILING.iter().any(|(words, _)| tried(words)), "{command}");
    }
}

#[test]
fn warnings_too() {
    let (daemon, named) = daemon("messages_warnings");
    for words in
        ["load WARNED", "load --check WARNED", "add 10.0.0.1 10.0.0.2 esp 0x77 -E null", "graph --text --most 0"]
    {
        let line = named(words);
        let output = daemon.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(0), "{words}: {output:?}");
        said(&output, words);
    }
    // Standard output is a file that others can read.
    daemon.ok(&["add", "10.0.0.1", "10.0.0.2", "ah", "0x2000", "-A", "hmac-md5", "\"1234567890123456\""]);
    let saved = std::fs::File::create(c::scratch("messages_saved").join("saved")).unwrap();
    saved.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let output = daemon.pfkey(&["save"]).stdout(saved).output().unwrap();
    assert!(said(&output, "save").contains("keys go to a file that others can read"));
}

/// Standard output takes nothing more.
#[test]
fn output_that_cannot_be_written() {
    let (daemon, _) = daemon("messages_full");
    for words in ["dump", "save", "algorithms", "types", "explain 10.0.0.1 10.0.0.2", "--json dump", "metrics", "graph"]
    {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = daemon.pfkey(&words.split(' ').collect::<Vec<_>>()).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(said(&output, words).starts_with("pfkey: standard output: No space left"), "{words}");
    }
}

#[test]
fn no_backend() {
    for (name, value, expected) in [
        ("PFKEY_BACKEND", "nope", "expected auto, afkey,"),
        ("PFKEY_BACKEND", "unix:/nonexistent", "no pfkeyd listens there"),
        ("PFKEY_ALGORITHMS", "x", "expected aead"),
        ("PFKEY_XFRM", "x", "unknown name"),
    ] {
        let mut command = Command::new(c::program("pfkey"));
        command.arg("dump").env("PFKEY_BACKEND", "embedded").env(name, value).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{value}");
        let text = said(&output, value);
        assert!(text.contains(expected) && text.ends_with("\n  'pfkey doctor' says what is missing\n"), "{text}");
    }
}

/// What is loaded into an engine that ends with the command is gone with it.
#[test]
fn an_embedded_engine_ends_with_the_command() {
    let mut command = Command::new(c::program("pfkey"));
    let output = command.arg("add").args(SA).env("PFKEY_BACKEND", "embedded").output().unwrap();
    assert!(output.status.success());
    assert!(said(&output, "add").contains("ends with this command"));
}
