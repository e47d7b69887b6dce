//! Which SAs and policies `pfkey` means: `--src`, `--spi`, … of dump, spd, monitor, flush and delete.
#![forbid(unsafe_code)]

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;

use std::io::Read as _;
use std::process::Stdio;

use daemon::Daemon;

const FILE: &str = r#"
add 192.0.2.1 198.51.100.2 esp 0x1001 -m tunnel -u 7 -E aes-cbc 0x00112233445566778899aabbccddeeff
    -A hmac-sha1 0x0001020304050607080900010203040506070809;
add 192.0.2.1 198.51.100.3 esp 0x1002 -X if_id=7 -X mark=0x1/0xff -E null;
add 192.0.2.9 198.51.100.2 ah 0x1003 -A hmac-md5 "1234567890123456";
add 2001:db8::1 2001:db8::2 ipcomp 0x100 -C deflate;
spdadd 10.0.0.0/24 10.1.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/unique:7;
spdadd 10.0.0.0/16 10.2.0.0/24 any -P out ipsec esp/transport//require;
spdadd -k 10.2.0.0/24 10.0.0.0/24 any -X if_id=9 -P in discard;
"#;

/// The SPIs that a command lists, in their order.
fn spis(daemon: &Daemon, arguments: &[&str]) -> Vec<String> {
    let text = daemon.ok(&[&["dump", "--columns", "spi"], arguments].concat());
    let mut spis: Vec<String> = text.lines().map(|line| line.replace("spi=0x0000", "")).collect();
    spis.sort();
    spis
}

/// The destinations of the policies that a command lists.
fn destinations(daemon: &Daemon, arguments: &[&str]) -> Vec<String> {
    let text = daemon.ok(&[&["spd", "--columns", "destination"], arguments].concat());
    let mut all: Vec<String> = text.lines().map(|line| line.replace("destination=", "")).collect();
    all.sort();
    all
}

#[test]
fn sas_by_every_field() {
    let daemon = Daemon::holding("filter_sas", FILE);
    for (arguments, expected) in [
        (&["--src", "192.0.2.1"][..], &["1001", "1002"][..]),
        (&["--src", "192.0.2.0/24", "--dst", "198.51.100.2"], &["1001", "1003"]),
        (&["--dst", "2001:db8::/32"], &["0100"]),
        (&["--spi", "0x1002"], &["1002"]),
        (&["--reqid", "7"], &["1001"]),
        (&["--mode", "tunnel"], &["1001"]),
        (&["--state", "mature", "esp"], &["1001", "1002"]),
        (&["--state", "dying"], &[]),
        (&["--alg", "hmac-sha1"], &["1001"]),
        (&["--alg", "deflate"], &["0100"]),
        (&["--if-id", "7"], &["1002"]),
        (&["--mark", "1"], &["1002"]),
        (&["--mark", "1/0xf"], &[]),
        (&["--age", "1h"], &[]),
        (&["--age", "-1h", "--src", "::/0"], &["0100"]),
    ] {
        assert_eq!(spis(&daemon, arguments), expected, "{arguments:?}");
    }
}

#[test]
fn policies_by_what_they_have() {
    let daemon = Daemon::holding("filter_policies", FILE);
    for (arguments, expected) in [
        (&["--src", "10.0.0.0/16"][..], &["10.1.0.0/24", "10.2.0.0/24"][..]),
        (&["--src", "10.0.0.0/24"], &["10.1.0.0/24"]),
        (&["--dst", "10.1.0.0/16", "--direction", "out"], &["10.1.0.0/24"]),
        (&["--reqid", "7"], &["10.1.0.0/24"]),
        (&["--mode", "transport"], &["10.2.0.0/24"]),
        (&["--if-id", "9"], &["10.0.0.0/24"]),
        (&["--age", "1h"], &[]),
    ] {
        assert_eq!(destinations(&daemon, arguments), expected, "{arguments:?}");
    }
    let output = daemon.run(&["spd", "--spi", "1"]);
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(2), &b"pfkey: --spi: policies have none\n"[..]));
}

#[test]
fn only_what_fits_is_removed() {
    let daemon = Daemon::holding("filter_remove", FILE);
    daemon.ok(&["delete", "--dst", "198.51.100.3"]);
    assert_eq!(spis(&daemon, &[]), ["0100", "1001", "1003"]);
    daemon.ok(&["flush", "ah", "--src", "192.0.2.0/24"]);
    assert_eq!(spis(&daemon, &[]), ["0100", "1001"]);
    daemon.ok(&["flush", "--alg", "null"]);
    assert_eq!(spis(&daemon, &[]), ["0100", "1001"], "nothing fits, and that is no failure of a flush");
    let none = daemon.run(&["delete", "--spi", "0x9999"]);
    assert_eq!((none.status.code(), none.stderr.as_slice()), (Some(1), &b"pfkey: delete: no SA matches\n"[..]));
    // Neither everything by mistake, nor two ways to say it.
    for arguments in
        [&["delete"][..], &["delete", "--all"], &["delete", "--spi", "1", "192.0.2.1", "198.51.100.2", "esp", "1"]]
    {
        assert_eq!(daemon.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(spis(&daemon, &[]), ["0100", "1001"]);
    daemon.ok(&["policy", "flush", "--dst", "10.2.0.0/24"]);
    assert_eq!(destinations(&daemon, &[]), ["10.0.0.0/24", "10.1.0.0/24"]);
    daemon.ok(&["policy", "flush", "--if-id", "9"]);
    assert_eq!(destinations(&daemon, &[]), ["10.1.0.0/24"]);
}

#[test]
fn a_monitor_shows_what_fits() {
    let daemon = Daemon::holding("filter_monitor", FILE);
    let mut monitor =
        daemon.pfkey(&["monitor", "--count", "4", "--dst", "1.2.3.0/24"]).stdout(Stdio::piped()).spawn().unwrap();
    // It may not listen yet: events go on until it has heard enough.
    while monitor.try_wait().unwrap().is_none() {
        for dst in ["1.2.3.5", "1.2.4.5"] {
            daemon.ok(&["add", "1.1.1.1", dst, "esp", "4096", "-E", "null"]);
            daemon.ok(&["delete", "1.1.1.1", dst, "esp", "4096"]);
        }
        daemon.ok(&["flush", "ah"]);
    }
    let mut text = String::new();
    monitor.stdout.unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().count(), 4);
    assert!(text.lines().all(|line| line.contains(" destination=1.2.3.5 ")), "{text}");
}

#[test]
fn columns_are_named() {
    let daemon = Daemon::holding("filter_columns", FILE);
    let line = daemon.ok(&["dump", "--spi", "0x1002", "--columns", "destination,if_id,spi"]);
    assert_eq!(line, "destination=198.51.100.3 if_id=7 spi=0x00001002\n");
    for (arguments, complaint) in [
        (&["dump", "--columns", "sip"][..], "pfkey: --columns: no field \"sip\"; did you mean \"spi\"?\n"),
        (&["--json", "spd", "--columns", "id"], "pfkey: --columns: JSON has every field\n"),
    ] {
        let output = daemon.run(arguments);
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(2), complaint));
    }
}
