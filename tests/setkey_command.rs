//! `setkey`, the second name of pfkey, beyond what was recorded of ipsec-tools' setkey (`tests/golden_setkey.rs`).
#![forbid(unsafe_code)]

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use daemon::Daemon;

const SA: &str = "add 10.0.0.1 10.0.0.2 esp 0x1000 -E null;\n";

/// A pfkeyd, and a directory in which setkey is.
fn start(name: &str) -> (Daemon, PathBuf) {
    start_with(name, &[])
}

fn start_with(name: &str, arguments: &[&str]) -> (Daemon, PathBuf) {
    let directory = c::scratch(name);
    std::os::unix::fs::symlink(c::program("pfkey"), directory.join("setkey")).unwrap();
    (Daemon::start_with(&directory, arguments), directory)
}

fn setkey(daemon: &Daemon, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(directory.join("setkey"));
    command.args(arguments).env("PFKEY_BACKEND", daemon.backend()).env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// What it says on standard output and standard error, and its status.
fn said(output: &Output) -> (String, String, i32) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

/// Gives it a text to read.
fn typed(daemon: &Daemon, directory: &Path, arguments: &[&str], text: &str) -> (String, String, i32) {
    let mut command = setkey(daemon, directory, arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    said(&child.wait_with_output().unwrap())
}

fn file(directory: &Path, text: &str) -> String {
    let path = directory.join("file.conf");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn policies(daemon: &Daemon) -> usize {
    daemon.ok(&["spd"]).lines().count()
}

#[test]
fn an_error_ends_a_file_with_its_line() {
    let (daemon, directory) = start("setkey_file");
    let path = file(&directory, &format!("{SA}\nspddelete 10.0.0.0/8 10.0.0.0/8 any -P out;\nadd 10.0.0.1;\nflush;\n"));
    let (stdout, stderr, status) = said(&setkey(&daemon, &directory, &["-f", &path]).output().unwrap());
    // What is refused goes on; what cannot be read does not.
    let told =
        format!("setkey: {path},3: No entry\nsetkey: {path},4: syntax error at `;'\nsetkey: {path},4: parse failed\n");
    assert_eq!((stdout.as_str(), stderr, status), ("", told, 1));
    assert_eq!(daemon.ok(&["dump"]).lines().count(), 1, "what stands before the error is done");
    let missing = said(&setkey(&daemon, &directory, &["-f", "no.such"]).output().unwrap());
    assert_eq!(missing, (String::new(), "setkey: Can't open `no.such': No such file or directory\n".to_owned(), 1));
    let stray = typed(&daemon, &directory, &["-f", "-"], "flush;\n$");
    assert_eq!(stray, (String::new(), "setkey: -,2: Syntax error at `$'\n".to_owned(), 1));
    assert_eq!(daemon.ok(&["dump"]), "");
}

/// As ipsec-tools' setkey says it.
#[test]
fn each_address_of_a_policy_that_is_wrong_is_told() {
    let (daemon, directory) = start("setkey_addresses");
    let path = file(&directory, "spdadd -6 10.0.0.1[70] 10.0.0.2 any -P out none;\n");
    let wrong = format!("setkey: {path},1: Address family for hostname not supported at ` out none;'\n");
    let told = format!("{wrong}{wrong}setkey: {path},1: parse failed\n");
    assert_eq!(said(&setkey(&daemon, &directory, &["-f", &path]).output().unwrap()), (String::new(), told, 1));
}

#[test]
fn an_error_ends_its_command_only_where_commands_are_typed() {
    let (daemon, directory) = start("setkey_typed");
    let text = format!(
        "ad 10.0.0.1;\n{SA}# flush;\nadd 10.0.0.1 10.0.0.2 esp 0x1001 # more\n  -E null;dump esp; quit; flush;\n"
    );
    let (stdout, stderr, status) = typed(&daemon, &directory, &["-c"], &text);
    assert!(
        stdout.starts_with("syntax error at `ad'10.0.0.1 10.0.0.2 \n\tesp mode=transport spi=4097(0x00001001)"),
        "{stdout}"
    );
    assert_eq!((stdout.matches("sadb_seq=").count(), stderr.as_str(), status), (2, "", 0));
    // A policy that is wrong spoils what follows in ipsec-tools' setkey.
    let text = "spdadd 10.0.0.0/8 10.0.0.0/8 any -P out def none;\nadd 10.0.0.1 10.0.0.3 esp 2000 -E null;\nflush";
    let (stdout, stderr, status) = typed(&daemon, &directory, &["-c"], text);
    assert_eq!(stdout, "Invalid argument at ` out def none'");
    assert_eq!((stderr.as_str(), status), ("libipsec: syntax error while parsing \"def\"\n", 0));
    assert_eq!(daemon.ok(&["dump"]).lines().count(), 3, "what has no ';' is not done");
}

#[test]
fn what_is_typed_has_no_longest_line() {
    let (daemon, directory) = start("setkey_long");
    let text = format!("{}{SA}", " ".repeat(100_000));
    assert_eq!(typed(&daemon, &directory, &["-c"], &text.repeat(2)), ("File exists.\n".to_owned(), String::new(), 0));
}

#[test]
fn values_stand_by_themselves_or_behind_their_option() {
    let (daemon, directory) = start("setkey_glued");
    let text = "add 10.0.0.1 10.0.0.2 esp 4096 -mtransport -u4 -r8 -lh100 -ls50 -Enull;\n\
        spdadd -4n 10.0.0.0/8 10.1.0.0/16[any] tcp -Pin none;";
    assert_eq!(typed(&daemon, &directory, &["-c"], text), (String::new(), String::new(), 0));
    let saved = daemon.ok(&["save"]);
    assert!(
        saved.contains("add 10.0.0.1 10.0.0.2 esp 0x1000 -m transport -u 4 -r 8 -lh 100 -ls 50 -E null;"),
        "{saved}"
    );
    assert_eq!(policies(&daemon), 2, "with the copy for forwarded packets");
    assert_eq!(said(&setkey(&daemon, &directory, &["-FP"]).output().unwrap()).2, 0);
    assert_eq!(typed(&daemon, &directory, &["-kc"], text.lines().last().unwrap()).2, 0);
    assert_eq!(policies(&daemon), 1, "without it");
}

#[test]
fn what_pfkey_saves_setkey_loads() {
    let (daemon, directory) = start_with("setkey_saved", &["--algorithms", "aead"]);
    let text = "add 2001:db8::1 2001:db8::2 esp 0x2001 -f noecn -r 32 -bh 1000000 -bs 900000 -uh 60 -us 50 -ph 9 -ps 8 -X if_id=7\n\
        -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;\n\
        add 192.0.2.1[4500] 198.51.100.2[1024] esp-udp 0x1003 -m tunnel -proxy 10.1.0.0/16 -E null;\n\
        spdadd -k 10.2.0.0/24 10.0.0.0/24 gre 70000 -lh 1000 -uh 500 -X if_id=7 -P in prio low - 3 discard;\n\
        spdadd 10.2.0.0/24 10.0.0.0/24 esp -P fwd ipsec ah/transport//require;\n";
    daemon.loads(&file(&directory, text));
    let saved = daemon.ok(&["save"]);
    daemon.ok(&["flush"]);
    daemon.ok(&["policy", "flush"]);
    let loaded = said(&setkey(&daemon, &directory, &["-f", &file(&directory, &saved)]).output().unwrap());
    assert_eq!(loaded, (String::new(), String::new(), 0));
    assert_eq!(daemon.ok(&["save"]), saved);
}

#[test]
fn policies_of_an_interface_and_of_none() {
    let (daemon, directory) = start("setkey_scope");
    let text =
        "spdadd 10.0.0.0/8 10.1.0.0/16 any -X if_id=7 -P out none;\nspdadd 10.0.0.0/8 10.2.0.0/16 any -P out none;\n";
    assert_eq!(typed(&daemon, &directory, &["-c"], text), (String::new(), String::new(), 0));
    let shown = |arguments: &[&str]| said(&setkey(&daemon, &directory, arguments).output().unwrap()).0;
    let destinations = |arguments: &[&str]| {
        let text = shown(arguments);
        let lines = text.lines().filter(|line| line.starts_with("10.0.0.0/8"));
        lines.map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(destinations(&["-DP"]), ["10.2.0.0/16[any]", "10.1.0.0/16[any]"]);
    assert_eq!(destinations(&["-DPg"]), ["10.2.0.0/16[any]"]);
    assert_eq!(destinations(&["-DPt"]), ["10.1.0.0/16[any]"]);
    assert!(shown(&["-DPt"]).contains("\tspid="));
}

#[test]
fn every_message_as_it_happens() {
    let (daemon, directory) = start("setkey_promiscuous");
    let mut command = setkey(&daemon, &directory, &["-xH"]);
    let mut child = command.stdout(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Its own request is answered when it listens.
    let time = lines.next().unwrap();
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "00:00:00.000000 ");
    let [low, high] = 2_u16.to_ne_bytes();
    assert!(lines.next().unwrap().starts_with(&format!("00000000: 02 0b 00 01 {low:02x} {high:02x} 00 00 ")));
    daemon.ok(&["flush"]);
    assert!(lines.any(|line| line.starts_with("sadb_msg{ version=2 type=9 errno=0 satype=0")));
    assert_eq!(lines.next().unwrap().split(" seq=").next(), Some("  len=2 reserved=0"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn files_of_messages_are_printed() {
    let (daemon, directory) = start("setkey_messages");
    let message = directory.join("message");
    // An empty SAD, as the key engine says it.
    let [low, high] = 2_u16.to_ne_bytes();
    std::fs::write(&message, [2, 10, 2, 0, low, high, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let path = message.to_str().unwrap();
    let shown = said(&setkey(&daemon, &directory, &[path]).output().unwrap());
    assert_eq!(shown, ("No SAD entries.\n".to_owned(), String::new(), 0));
    std::fs::write(&message, [0; 15]).unwrap();
    let shown = said(&setkey(&daemon, &directory, &[path]).output().unwrap());
    assert_eq!(shown, (String::new(), format!("setkey: {path}: Invalid argument\n"), 1));
}

#[test]
fn nothing_is_sent_without_a_backend_or_with_n() {
    let (daemon, directory) = start("setkey_nothing");
    assert_eq!(typed(&daemon, &directory, &["-nc"], SA), (String::new(), String::new(), 0));
    assert_eq!(daemon.ok(&["dump"]), "");
    let mut command = setkey(&daemon, &directory, &["-D"]);
    let (stdout, stderr, status) = said(&command.env("PFKEY_BACKEND", "unix:/no/such/socket").output().unwrap());
    assert!(stdout.is_empty() && stderr.starts_with("setkey: pfkey_open: ") && status == 1, "{stderr}");
    let (stdout, _, status) = said(&setkey(&daemon, &directory, &[]).output().unwrap());
    assert!(stdout.contains("\nusage: setkey [-vrk] file ...\n") && status == 1, "{stdout}");
}
