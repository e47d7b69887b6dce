//! `pfkey explain`: the policy, the SAs and the MTU of a packet, from a file and from a running pfkeyd.

#[path = "support/c.rs"]
mod c;

use std::process::{Command, Output};

const FILE: &str = "\
add 192.0.2.1 198.51.100.2 esp 0x1000 -m tunnel -E 3des-cbc 0x000102030405060708090a0b0c0d0e0f1011121314151617
    -A hmac-sha1 0x000102030405060708090a0b0c0d0e0f10111213;
add 10.0.0.1 10.0.0.2 ah 0x2000 -A hmac-sha1 0x000102030405060708090a0b0c0d0e0f10111213;
spdadd 10.0.1.0/24 10.0.2.0/24 any -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/require;
spdadd 10.0.1.0/24 10.0.3.0/24 any -P out discard;
spdadd 10.0.1.0/24 10.0.4.0/24 any -P out none;
spdadd 10.0.1.0/24 10.0.5.0/24 any -X dev=lo -P out discard;
spdadd 10.0.0.1 10.0.0.2[80] tcp -P out ipsec ah/transport//require;
spdadd 10.0.0.1 10.0.0.2 udp -P out ipsec esp/transport//use ah/transport//require;
spdadd 10.0.0.1 10.0.0.3 any -P out ipsec esp/transport//require;
spdadd 10.0.0.1 10.0.0.4 any -P out ipsec esp/transport//unique;
";

fn run(arguments: &[&str]) -> Output {
    Command::new(c::program("pfkey")).args(arguments).env("PFKEYD", c::program("pfkeyd")).output().unwrap()
}

/// The lines that explain a packet; ids are the engine's to choose.
fn explained(file: &str, words: &[&str]) -> Vec<String> {
    let output = run(&[&["explain", "--file", file], words].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| line.split_once("priority 0x80000000  ").map_or(line, |(_, rest)| rest).to_owned())
        .collect()
}

#[test]
fn what_becomes_of_packets() {
    let file = c::scratch("explain").join("a.conf");
    std::fs::write(&file, FILE).unwrap();
    let file = file.to_str().unwrap();
    // MTUs as real kernels have them (`engine::resolve::mtu`).
    assert_eq!(
        explained(file, &["10.0.1.7", "→", "10.0.2.9", "tcp", "dport", "443"]),
        [
            "10.0.1.0/24 → 10.0.2.0/24  ipsec",
            "├─ esp/tunnel 192.0.2.1 → 198.51.100.2  spi 0x00001000  3des-cbc hmac-sha1  (the only one)",
            "└─ route  mtu 1500 → 1446 for the packet, overhead 50..57 bytes",
            "goes out through these SAs",
        ]
    );
    assert_eq!(
        explained(file, &["10.0.0.1", "10.0.0.4"])[0],
        "10.0.0.1/32 → 10.0.0.4/32  ipsec",
        "level unique, with a reqid of the engine's own choice"
    );
    let discarded = explained(file, &["10.0.1.7", "10.0.5.9", "dev", "lo", "cpu", "0", "uid", "1000"]);
    assert_eq!(discarded, ["10.0.1.0/24 → 10.0.5.0/24  discard", "dropped: the policy discards it (EPERM)"]);
    assert_eq!(explained(file, &["10.0.1.7", "10.0.5.9"]), ["passes as it is: no policy takes it"]);
    assert_eq!(
        explained(file, &["10.0.1.7 → 10.0.2.9 tcp dport 443"]),
        explained(file, &["10.0.1.7", "10.0.2.9", "tcp", "dport", "443"]),
        "in one argument, and without the arrow"
    );
    assert_eq!(
        explained(file, &["10.0.0.1", "to", "10.0.0.2", "udp"])[1..],
        [
            "├─ esp/transport 10.0.0.1 → 10.0.0.2  no such SA: left out, level use",
            "├─ ah/transport 10.0.0.1 → 10.0.0.2  spi 0x00002000  hmac-sha1  (the only one)",
            "└─ route  mtu 1500 → 1476 for the packet, overhead 24 bytes",
            "goes out through these SAs",
        ]
    );
    let outcome = |words: &[&str]| explained(file, words).pop().unwrap();
    assert_eq!(outcome(&["10.0.1.7", "10.0.3.9"]), "dropped: the policy discards it (EPERM)");
    assert_eq!(outcome(&["10.0.1.7", "10.0.4.9"]), "passes as it is: the policy asks for nothing");
    assert_eq!(outcome(&["10.0.2.7", "10.0.1.9"]), "passes as it is: no policy takes it");
    assert_eq!(outcome(&["10.0.0.1", "10.0.0.2", "tcp", "dport", "81"]), "passes as it is: no policy takes it");
    assert_eq!(outcome(&["10.0.0.1", "10.0.0.2", "tcp", "dport", "http"]), "goes out through these SAs");
    assert!(outcome(&["10.0.0.1", "10.0.0.3"]).starts_with("dropped, or held: an SA is missing"));
}

#[test]
fn a_running_pfkeyd_is_asked_without_a_file() {
    let pfkey = c::program("pfkey");
    let script = format!(
        "{pfkey} policy add 10.0.1.0/24 10.0.2.0/24 any -P out discard && {pfkey} --json explain 10.0.1.1 10.0.2.1"
    );
    let output = Command::new(c::program("pfkeyd")).args(["--", "sh", "-c", &script]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["explanations"][0]["verdict"], "discard");
    assert_eq!(json["explanations"][0]["mtu"], 1500);
}

#[test]
fn wrong_words_are_named() {
    for (words, complaint) in [
        (&["10.0.1", "10.0.2.9"][..], "source \"10.0.1\": not an address"),
        (&["10.0.1.7"], "no destination"),
        (&["10.0.1.7", "::1"], "are of two families"),
        (&["10.0.1.7", "10.0.2.9", "tpc"], "protocol \"tpc\": unknown; did you mean \"tcp\"?"),
        (&["10.0.1.7", "10.0.2.9", "tcp", "dport", "x"], "dport \"x\": not a port"),
        (&["10.0.1.7", "10.0.2.9", "tcp", "foo"], "\"foo\": expected sport, dport, mark, if_id, dev, cpu or uid"),
        (&["10.0.1.7", "10.0.2.9", "dev", "none0"], "dev \"none0\": no such network interface"),
        (&["10.0.1.7", "10.0.2.9", "cpu"], "cpu needs a value"),
        (&["10.0.1.7", "10.0.2.9", "mark", "x"], "mark \"x\": not a number of 32 bits"),
        (&["10.0.1.7", "10.0.2.9", "dport", "80"], "a port needs a protocol"),
        (&["10.0.1.7", "10.0.2.9", "--mtu", "10"], "--mtu 10: less than 68"),
    ] {
        let output = run(&[&["explain"], words].concat());
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(complaint), "{words:?}");
    }
    let missing = run(&["explain", "--file", "/nonexistent", "10.0.1.7", "10.0.2.9"]);
    assert_eq!(missing.status.code(), Some(2));
}
