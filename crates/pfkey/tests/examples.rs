//! The examples do what they say.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use pfkey::{Cipher, Client, Hmac, Limits, Sa, SaType};

mod support;
use support::Daemon;

/// An example, which `cargo test` builds unless it is told what to test.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test has a name");
    let example = test.ancestors().nth(2).expect("target/debug").join("examples").join(name);
    if !example.exists() {
        let package = env!("CARGO_PKG_NAME");
        let arguments = ["build", "--locked", "--quiet", "--package", package, "--example", name];
        assert!(Command::new(env!("CARGO")).args(arguments).status().expect("cargo").success());
    }
    Command::new(example)
}

/// An example that runs against a daemon.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts one and waits until it is registered.
    fn start(name: &str, daemon: &Daemon) -> Self {
        let pfkey::Backend::Unix(path) = daemon.backend() else { unreachable!() };
        let mut child = example(name)
            .env("PFKEY_BACKEND", format!("unix:{}", path.display()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut running = Self { child, lines };
        assert_eq!(running.line(), "registered");
        running
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn esp(spi: u32) -> Sa {
    let sa = Sa::esp([192, 0, 2, 1], [192, 0, 2, 2], spi);
    sa.encrypt(Cipher::AesCbc, &[1; 16]).authenticate(Hmac::Sha256, &[2; 32])
}

#[test]
fn add_and_dump() {
    let output = example("add_and_dump").env("PFKEY_BACKEND", "embedded").output().expect("it runs");
    assert!(output.status.success());
    let expected = "ESP 192.0.2.1 -> 192.0.2.2 spi 0x1000 TUNNEL Mature aes-cbc hmac-sha256 reqid 7\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn monitor() {
    let daemon = Daemon::start();
    let mut monitor = Running::start("monitor", &daemon);
    let mut keys = Client::open_with(&daemon.backend()).expect("a client");
    keys.add(&esp(0x1234)).expect("ADD");
    let line = monitor.line();
    assert!(line.starts_with("SaAdded(") && line.contains("spi: 4660"), "{line}");
    assert!(!line.contains("1, 1, 1"), "no key is shown");
}

#[test]
fn monitor_tokio() {
    let daemon = Daemon::start();
    let mut monitor = Running::start("monitor_tokio", &daemon);
    let mut keys = Client::open_with(&daemon.backend()).expect("a client");
    keys.add(&esp(0x1234)).expect("ADD");
    keys.flush(SaType::ESP).expect("FLUSH");
    assert!(monitor.line().starts_with("SaAdded("));
    assert_eq!(monitor.line(), "SasFlushed(ESP)");
    assert!(monitor.child.wait().expect("it ends").success());
}

#[test]
fn key_manager_renews_an_sa_whose_soft_limit_has_passed() {
    let daemon = Daemon::start();
    let mut manager = Running::start("key_manager", &daemon);
    let mut keys = Client::open_with(&daemon.backend()).expect("a client");
    let soft = Limits { add_seconds: 1, ..Limits::NONE };
    keys.add(&esp(0x1234).reqid(9).hard(Limits { add_seconds: 1000, ..Limits::NONE }).soft(soft)).expect("ADD");
    let line = manager.line();
    let spi = line.strip_prefix("renewed 0x1234: 0x").expect(&line);
    let spi = u32::from_str_radix(spi, 16).expect("an SPI");
    let renewed = keys.dump(SaType::ESP).expect("DUMP").map(|sa| sa.expect("an SA")).find(|sa| sa.spi == spi);
    assert_eq!(renewed.map(|sa| (sa.reqid, sa.encrypt_key.bits)), Some((9, 256)));
}
