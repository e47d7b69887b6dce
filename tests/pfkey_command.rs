//! pfkey as an operator runs it, against a pfkeyd on a socket.

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd as _;
use std::process::{Command, Output, Stdio};

use daemon::{Daemon, start, write};
use serde_json::Value;

const KEY: &str = "00112233445566778899aabbccddeeff";

const FILE: &str = r#"# Everything that PF_KEY can hold.
flush; spdflush;
add 192.0.2.1 198.51.100.2 esp 0x1001 -m tunnel -u 7 -lh 3600 -ls 3000
    -E aes-cbc 0x00112233445566778899aabbccddeeff
    -A hmac-sha1 0x0001020304050607080900010203040506070809;
add 192.0.2.1 198.51.100.2 ah 0x1002 -A hmac-md5 "1234567890123456";
add 192.0.2.1 198.51.100.2 ipcomp 0x100 -C deflate;
add 192.0.2.1[4500] 198.51.100.2[1024] esp-udp 0x1003 -m tunnel -E null;
add 2001:db8::1 2001:db8::2 esp 0x2001 -f noecn -r 32 -bh 1000000 -bs 900000 -uh 60 -us 50 -ph 9 -ps 8
    -E 3des-cbc "123456789012345678901234" -A null;
add 192.0.2.1 198.51.100.2 esp 0x1004 -proxy 10.1.0.0/16 -E aes-ctr 0x00112233445566778899aabbccddeeff00000001;
spdadd 10.0.0.0/24 10.1.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/require;
spdadd 10.1.0.0/24 10.0.0.0/24 any -P in prio high + 5 ipsec esp/tunnel/198.51.100.2-192.0.2.1/unique:7;
spdadd ::/0 ::/0 icmp6 135,0 -P in none;
spdadd 10.2.0.0/24 10.0.0.0/24 gre 70000 -lh 1000 -uh 500 -P out prio low - 3 discard;
spdadd -k 10.1.0.0/24[80] 10.0.0.0/24[any] tcp -P in discard;
spdadd 10.3.0.1 10.3.0.2 any -P out prio high + 1073741824 ipsec
    esp/transport//use ah/tunnel/192.0.2.1[4500]-198.51.100.2[4501]/unique:9;
"#;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What does not change from one load to the next. A policy has one reference more in its first second.
fn timeless(dump: &str) -> String {
    let changes = |field: &&str| ["created=", "id=", "references="].iter().any(|name| field.starts_with(name));
    let fields = |line: &str| line.split(' ').filter(|field| !changes(field)).collect::<Vec<_>>().join(" ");
    dump.lines().map(|line| fields(line) + "\n").collect()
}

fn status_and_errors(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_is_saved_loads_to_the_same() {
    let (daemon, directory) = start("pfkey_round_trip");
    daemon.loads(&write(&directory, "a.conf", FILE));
    let (sad, spd) = (daemon.ok(&["dump"]), daemon.ok(&["spd"]));
    assert_eq!((sad.lines().count(), spd.lines().count()), (6, 8));
    let saved = daemon.ok(&["save"]);
    assert!(saved.contains(KEY));
    daemon.ok(&["flush"]);
    daemon.ok(&["policy", "flush"]);
    assert_eq!(daemon.ok(&["dump"]) + &daemon.ok(&["spd"]), "");
    daemon.loads(&write(&directory, "b.conf", &saved));
    assert_eq!(daemon.ok(&["save"]), saved);
    assert_eq!(timeless(&daemon.ok(&["dump"])), timeless(&sad));
    assert_eq!(timeless(&daemon.ok(&["spd"])), timeless(&spd));
}

#[test]
fn a_request_id_of_the_kernels_cannot_be_saved() {
    let (daemon, _) = start("pfkey_reqid");
    daemon.ok(&["policy", "add", "1.2.3.4", "1.2.3.5", "any", "-P", "out", "ipsec", "esp/transport//unique"]);
    let saved = daemon.run(&["save"]);
    let errors =
        "pfkey: warning: out policy 1.2.3.4 1.2.3.5 any: a request id that the kernel chose; it will choose another\n";
    let count = "pfkey: 0 left out, 1 saved otherwise than they are";
    let failure = format!("{errors}{count} (--lossy: this is no failure)\n");
    assert_eq!(status_and_errors(&saved), (Some(1), failure));
    let lossy = daemon.run(&["save", "--lossy"]);
    assert_eq!((status_and_errors(&lossy), &lossy.stdout), ((Some(0), format!("{errors}{count}\n")), &saved.stdout));
    assert!(String::from_utf8_lossy(&saved.stdout).ends_with(" -P out prio def ipsec esp/transport//unique;\n"));
}

#[test]
fn standard_input_is_a_file_too() {
    let (daemon, directory) = start("pfkey_stdin");
    let file = write(&directory, "a.conf", "add 192.0.2.1 198.51.100.2 esp 0x1001 -E null;\n");
    let output = daemon.pfkey(&["load", "-"]).stdin(File::open(file).unwrap()).output().unwrap();
    assert_eq!(status_and_errors(&output), (Some(0), String::new()));
    assert_eq!(daemon.ok(&["dump"]).lines().count(), 1);
}

#[test]
fn keys_are_hidden_unless_asked_for() {
    let (daemon, directory) = start("pfkey_keys");
    daemon.loads(&write(&directory, "a.conf", FILE));
    let get = ["get", "192.0.2.1", "198.51.100.2", "esp", "0x1001"];
    for arguments in [&["dump"][..], &["--json", "dump"], &get, &["--json", "get", get[1], get[2], get[3], get[4]]] {
        let text = daemon.ok(arguments);
        assert!(!text.contains(KEY) && !text.contains("3132333435"), "{text}");
    }
    assert!(daemon.ok(&["dump", "--show-keys"]).contains(&format!("encryption_key=0x{KEY}")));
    let shown = json(&daemon.ok(&["--json", "--show-keys", "get", get[1], get[2], get[3], get[4]]));
    assert_eq!(shown["sas"][0]["encryption_key"], format!("0x{KEY}"));
    let hidden = json(&daemon.ok(&["--json", "get", get[1], get[2], get[3], get[4]]));
    assert_eq!(hidden["sas"][0]["encryption_key"], Value::Null);
    assert_eq!(hidden["sas"][0]["encryption_key_bits"], 128);
}

#[test]
fn a_file_with_an_error_changes_nothing() {
    let (daemon, directory) = start("pfkey_bad_file");
    daemon.loads(&write(&directory, "good.conf", FILE));
    let before = daemon.ok(&["save"]);
    let bad =
        write(&directory, "bad.conf", "flush;\nspdflush;\nadd 1.2.3.4 1.2.3.5 esp 0x1000\n  -E aes-cbx 0x00;\nflsh;\n");
    let output = daemon.run(&["load", &bad]);
    let expected = format!(
        "pfkey: {bad}:4:6: unknown encryption algorithm 'aes-cbx'; did you mean 'aes-cbc'?\n\
         pfkey: {bad}:5:1: unknown command 'flsh'; did you mean 'flush'?\n"
    );
    assert_eq!(status_and_errors(&output), (Some(2), expected));
    assert_eq!(daemon.ok(&["save"]), before);
    let missing = daemon.run(&["load", "/nonexistent"]);
    assert_eq!(
        status_and_errors(&missing),
        (Some(2), "pfkey: /nonexistent: No such file or directory (os error 2)\n".into())
    );
}

#[test]
fn what_the_engine_refuses_is_told_with_its_place() {
    let (daemon, directory) = start("pfkey_refused");
    let text = "add 1.2.3.4 1.2.3.5 esp 0x1000 -E null;\n add 1.2.3.4 1.2.3.5 esp 0x1000 -E null;\nadd 1.2.3.4 1.2.3.5 esp 0x1001 -E null;\n";
    let file = write(&directory, "twice.conf", text);
    let output = daemon.run(&["load", &file]);
    let expected = format!(
        "pfkey: {file}:2:2: warning: this SPI has its SA already, by line 1, column 1\n\
         pfkey: {file}:2:2: add esp 1.2.3.4 1.2.3.5 spi 0x00001000: File exists (this SPI has its SA: 'pfkey get' shows it)\n\
         pfkey: {file}: 1 of 3 commands refused\n"
    );
    assert_eq!(status_and_errors(&output), (Some(1), expected));
    assert_eq!(daemon.ok(&["dump"]).lines().count(), 2, "the others were carried out");
    let output = daemon.run(&["delete", "1.2.3.4", "1.2.3.5", "esp", "0x9999"]);
    let expected = "pfkey: delete esp 1.2.3.4 1.2.3.5 spi 0x00009999: No such process (there is no such SA: 'pfkey dump' lists them)\n";
    let lacking = daemon.run(&["add", "1.2.3.4", "1.2.3.5", "ah", "4096", "-A", "keyed-md5", "\"1234567890123456\""]);
    let (status, errors) = status_and_errors(&lacking);
    assert_eq!(status, Some(1));
    assert!(errors.contains("Function not implemented (the key engine lacks an algorithm: 'pfkey algorithms' lists"));
    assert_eq!(status_and_errors(&output), (Some(1), expected.to_owned()));
}

#[test]
fn all_or_nothing_puts_everything_back() {
    let (daemon, directory) = start("pfkey_undo");
    daemon.loads(&write(&directory, "a.conf", FILE));
    let before = daemon.ok(&["save"]);
    let refused = "add 192.0.2.1 198.51.100.2 esp 0x7000 -E null; add 192.0.2.1 198.51.100.2 esp 0x7000 -E null;";
    for text in [
        "flush; spdflush; add 192.0.2.1 198.51.100.2 esp 0x1001 -E null;",
        "delete 192.0.2.1 198.51.100.2 esp 0x1004; add 192.0.2.1 198.51.100.2 esp 0x1004 -E null;",
        "spdadd 1.0.0.0/8 2.0.0.0/8 any -P in none; spdflush; spdadd 1.0.0.0/8 2.0.0.0/8 any -P out none;",
        "spdupdate 10.0.0.0/24 10.1.0.0/24 any -P out discard; add 9.9.9.9 8.8.8.8 ah 0x777 -A null;",
        "flush esp; spddelete 10.3.0.1 10.3.0.2 any -P out;",
    ] {
        // AH with the null algorithm is refused by the engine itself, which is as good a failure as the other.
        let file = write(&directory, "b.conf", &format!("{text}\n{refused}"));
        let output = daemon.run(&["load", "--all-or-nothing", &file]);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(String::from_utf8_lossy(&output.stderr).ends_with("everything was undone\n"), "{output:?}");
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&daemon.ok(&["save"])), sorted(&before), "{text}");
    }
}

#[test]
fn all_or_nothing_survives_an_interrupt() {
    let (daemon, directory) = start("pfkey_interrupt");
    daemon.loads(&write(&directory, "a.conf", FILE));
    let before = daemon.ok(&["save"]);
    let mut text = String::from("flush;\n");
    for i in 0..2000 {
        let _ = writeln!(text, "add 192.0.2.1 198.51.100.2 esp {:#x} -E null;", 0x1000 + i);
    }
    text += "dump;\nspdflush;\n";
    let mut load = daemon.pfkey(&["load", "--all-or-nothing", &write(&directory, "b.conf", &text)]);
    let mut load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // More is dumped than a pipe holds: with its first byte read, the load stands at "dump".
    let mut stdout = load.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(load.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    stdout.read_to_end(&mut Vec::new()).unwrap();
    let (status, errors) = status_and_errors(&load.wait_with_output().unwrap());
    assert_eq!(status, Some(1));
    assert!(errors.contains(":2003:1: ") && errors.ends_with("everything was undone\n"), "{errors}");
    assert_eq!(daemon.ok(&["save"]), before);
}

#[test]
fn single_commands() {
    let (daemon, _) = start("pfkey_single");
    let sa = |spi: &str| ["1.2.3.4", "1.2.3.5", "esp", spi].map(str::to_owned);
    for spi in ["4096", "0x1001", "0x1002"] {
        let words = sa(spi);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        daemon.ok(&[&["add"], words.as_slice(), &["-m", "tunnel", "-E", "null"]].concat());
    }
    daemon.ok(&["add", "1.2.3.4", "1.2.3.5", "ipcomp", "0x100", "-C", "deflate"]);
    daemon.ok(&["delete", "1.2.3.4", "1.2.3.5", "esp", "4096"]);
    assert_eq!(daemon.ok(&["dump"]).lines().count(), 3);
    assert_eq!(daemon.ok(&["dump", "ipcomp"]).lines().count(), 1);
    daemon.ok(&["delete", "--all", "1.2.3.4", "1.2.3.5", "esp"]);
    assert_eq!(daemon.ok(&["dump"]).lines().count(), 1);
    daemon.ok(&["flush", "ipcomp"]);
    assert_eq!(daemon.ok(&["dump"]), "");

    daemon.ok(&["policy", "add", "10.0.0.0/8", "11.0.0.0/8", "any", "-P", "in", "none"]);
    assert_eq!(daemon.ok(&["spd"]).lines().count(), 2, "with its copy for forwarded packets");
    let policies = json(&daemon.ok(&["--json", "spd", "--direction", "fwd"]));
    let id = policies["policies"][0]["id"].to_string();
    assert!(daemon.ok(&["policy", "get", &id]).starts_with("direction=fwd source=10.0.0.0/8 "));
    daemon.ok(&["policy", "delete", &id]);
    assert_eq!(daemon.run(&["policy", "delete", &id]).status.code(), Some(1));
    daemon.ok(&["policy", "delete", "10.0.0.0/8", "11.0.0.0/8", "any", "-P", "in"]);
    assert_eq!(daemon.ok(&["spd"]), "");
}

#[test]
fn every_json_text_parses() {
    let (daemon, directory) = start("pfkey_json");
    daemon.loads(&write(&directory, "a.conf", FILE));
    for (arguments, member, at_least) in [
        (&["dump"][..], "sas", 6),
        (&["spd"], "policies", 8),
        (&["types", "--profile", "klips"], "types", 17 + 30),
        (&["types"], "types", 24 + 26),
        (&["algorithms"], "algorithms", 10),
        (&["doctor"], "findings", 6),
    ] {
        let value = json(&daemon.ok(&[&["--json"], arguments].concat()));
        assert_eq!(value["schema"], 1);
        assert!(value[member].as_array().unwrap().len() >= at_least, "{arguments:?}");
    }
    assert_eq!(json(&daemon.ok(&["--json", "dump", "ah"]))["sas"][0]["authentication"], "hmac-md5");
    daemon.ok(&["flush"]);
    assert_eq!(json(&daemon.ok(&["--json", "dump"]))["sas"], json("[]"));
}

#[test]
fn the_numbers_in_the_documentation() {
    let (daemon, _) = start("pfkey_numbers");
    let text = std::fs::read_to_string(c::root().join("docs/numbers.md")).unwrap();
    let sections = text.split("\n## ").skip(1).zip(["message", "extension"]);
    let columns = [("linux", 1), ("rfc2367", 1), ("klips", 2)];
    for ((section, kind), (profile, column)) in sections.flat_map(|s| columns.map(|c| (s, c))) {
        let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| number"));
        let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
        let written: Vec<String> =
            cells.filter(|c| c[column] != "–").map(|c| format!("{} {}", c[0], c[column])).collect();
        let types = json(&daemon.ok(&["--json", "types", "--profile", profile]));
        let types = types["types"].as_array().unwrap().iter().filter(|t| t["kind"] == kind);
        let printed: Vec<String> = types
            .map(|t| {
                let bytes = t.get("fixed_bytes").map_or_else(String::new, |bytes| format!(" ({bytes})"));
                format!("{} {}{bytes}", t["number"], t["name"].as_str().unwrap())
            })
            .collect();
        assert_eq!(written, printed, "{profile} {kind}");
    }
}

/// The last tables of the documentation are what `--diff` prints.
#[test]
fn the_comparison_in_the_documentation() {
    let (daemon, _) = start("pfkey_diff");
    let text = std::fs::read_to_string(c::root().join("docs/numbers.md")).unwrap();
    let section = |name: &str| {
        let (_, rest) = text.split_once(&format!("\n## {name}\n")).unwrap();
        let rows = rest.split("\n## ").next().unwrap().lines().filter(|l| l.starts_with("| ")).skip(1);
        let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        rows.map(cells).collect::<Vec<_>>()
    };
    let types = json(&daemon.ok(&["--json", "types", "--diff"]));
    let types = types["types"].as_array().unwrap();
    let cell = |entry: &serde_json::Value, name: &str| entry[name].as_str().unwrap_or("–").to_owned();
    let handlers = types.iter().filter(|t| t["kind"] == "message");
    let handlers: Vec<_> =
        handlers.map(|t| vec![t["number"].to_string(), cell(t, "linux_handler"), cell(t, "klips_handler")]).collect();
    assert_eq!(section("Handlers"), handlers);
    let others = types.iter().filter(|t| t["kind"] != "message" && t["kind"] != "extension");
    let others: Vec<_> = others
        .map(|t| vec![format!("{} {}", t["kind"].as_str().unwrap(), t["number"]), cell(t, "linux"), cell(t, "klips")])
        .collect();
    assert_eq!(section("Other numbers"), others);
    let same = |kind: &str, number: u64| {
        types.iter().find(|t| t["kind"] == kind && t["number"] == number).unwrap()["same"].clone()
    };
    assert_eq!((same("message", 12), same("message", 13)), ("yes".into(), "no".into()));
    assert_eq!((same("extension", 1), same("extension", 5)), ("no".into(), "yes".into()), "an SA's length differs");
}

#[test]
fn exit_statuses() {
    let (daemon, _) = start("pfkey_status");
    for arguments in [&[][..], &["frobnicate"], &["dump", "tcp"], &["policy", "get", "x"], &["add", "1.2.3.4"]] {
        assert_eq!(daemon.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    for (arguments, status) in [(&["dump"][..], 3), (&["doctor"], 2), (&["algorithms"], 3), (&["save"], 3)] {
        let output = daemon.pfkey(arguments).env("PFKEY_BACKEND", "unix:/nonexistent").output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
    }
    let doctor = daemon.pfkey(&["doctor"]).env("PFKEY_BACKEND", "nonsense").output().unwrap();
    assert_eq!(doctor.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&doctor.stdout)
            .contains("expected auto, afkey, service, private, embedded or unix:PATH")
    );
}

#[test]
fn a_file_is_checked_without_any_backend() {
    let (daemon, directory) = start("pfkey_check");
    let file = write(&directory, "a.conf", FILE);
    let output = daemon.pfkey(&["load", "-n", &file]).env("PFKEY_BACKEND", "unix:/nonexistent").output().unwrap();
    assert_eq!(status_and_errors(&output), (Some(0), String::new()));
}

#[test]
fn an_embedded_engine_serves_one_process() {
    let (daemon, _) = start("pfkey_embedded");
    let output = daemon.pfkey(&["algorithms"]).env("PFKEY_BACKEND", "embedded").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("name=aes-cbc number=12"), "{output:?}");
}

#[test]
fn completion_for_the_usual_shells() {
    let (daemon, _) = start("pfkey_completion");
    for shell in ["bash", "zsh", "fish"] {
        assert!(daemon.ok(&["completion", shell]).contains("monitor"), "{shell}");
    }
}

#[test]
fn monitor_names_every_message() {
    let (daemon, _) = start("pfkey_monitor");
    let mut monitor = daemon.pfkey(&["--json", "monitor", "--count", "20"]).stdout(Stdio::piped()).spawn().unwrap();
    // It may not listen yet: events go on until it has heard enough.
    while monitor.try_wait().unwrap().is_none() {
        daemon.ok(&["add", "1.2.3.4", "1.2.3.5", "esp", "4096", "-E", "aes-cbc", &format!("0x{KEY}")]);
        daemon.ok(&["delete", "1.2.3.4", "1.2.3.5", "esp", "4096"]);
        daemon.ok(&["policy", "add", "10.0.0.0/8", "11.0.0.0/8", "any", "-P", "out", "none"]);
        daemon.ok(&["policy", "flush"]);
    }
    let mut text = String::new();
    monitor.stdout.unwrap().read_to_string(&mut text).unwrap();
    assert!(!text.contains(KEY), "{text}");
    let messages: Vec<Value> = text.lines().map(json).collect();
    assert_eq!(messages.len(), 20);
    for name in ["ADD", "DELETE", "X_SPDADD", "X_SPDFLUSH"] {
        let message = messages.iter().find(|m| m["message"] == name).unwrap_or_else(|| panic!("{name}: {text}"));
        assert!(message["time"].as_str().unwrap().ends_with('Z'));
    }
}

/// RFC 2367 section 3.1.11: a promiscuous listener gets messages behind a header of their own.
#[test]
fn monitor_looks_into_wrapped_messages() {
    let daemon = Daemon::start_with(&c::scratch("pfkey_monitor_rfc"), &["--profile", "rfc2367"]);
    let mut monitor = daemon.pfkey(&["--json", "monitor", "--count", "4"]).stdout(Stdio::piped()).spawn().unwrap();
    while monitor.try_wait().unwrap().is_none() {
        daemon.ok(&["flush"]);
    }
    let mut text = String::new();
    monitor.stdout.unwrap().read_to_string(&mut text).unwrap();
    assert!(text.lines().all(|line| json(line)["message"] == "FLUSH"), "{text}");
}

#[test]
fn twenty_thousand_lines() {
    let (daemon, directory) = start("pfkey_long");
    let mut text = String::from("flush;\n");
    for i in 0..20_000 {
        let _ = writeln!(text, "add 192.0.2.1 198.51.100.2 esp {:#x} -m tunnel -E aes-cbc 0x{KEY};", 0x1000 + i);
    }
    daemon.loads(&write(&directory, "long.conf", &text));
    let saved = daemon.ok(&["save"]);
    assert_eq!(saved.lines().count(), 20_001);
    daemon.ok(&["load", "--all-or-nothing", &write(&directory, "saved.conf", &format!("flush;\n{saved}"))]);
    assert_eq!(daemon.ok(&["save"]), saved);
}

/// Both sides of a new terminal of so many columns (0: it does not know). Not nix's, whose feature `term` asks for old versions of functions, which no static program finds.
fn terminal(columns: u16) -> (File, File) {
    let (mut master, mut slave) = (-1, -1);
    let no_name = std::ptr::null_mut();
    let size = libc::winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: two numbers are written and a size is read; no name and no settings are asked for.
    let result = unsafe { libc::openpty(&raw mut master, &raw mut slave, no_name, std::ptr::null(), &raw const size) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both are open, and nobody else's.
    unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) }
}

/// What a `pfkey` writes to a terminal: everything it prints on both streams.
fn on_a_terminal(daemon: &Daemon, arguments: &[&str]) -> String {
    on_a_terminal_of(0, daemon, arguments)
}

fn on_a_terminal_of(columns: u16, daemon: &Daemon, arguments: &[&str]) -> String {
    let (mut master, slave) = terminal(columns);
    // Without the terminal of whoever runs the tests.
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(c::program("pfkey")).args(arguments).env("PFKEY_BACKEND", daemon.backend());
    command.stdin(Stdio::null()).stdout(slave.try_clone().unwrap()).stderr(slave).env_remove("NO_COLOR");
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    // The last descriptor of the other side is closed: EIO.
    while let Ok(n) = master.read(&mut buffer) {
        if n == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..n]);
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_terminal_gets_tables_colours_and_a_bar() {
    let (daemon, directory) = start("pfkey_terminal");
    let mut text = String::new();
    for i in 0..2000 {
        let _ = writeln!(text, "add 192.0.2.1 198.51.100.2 esp {:#x} -E aes-cbc 0x{KEY};", 0x1000 + i);
    }
    let bar = on_a_terminal(&daemon, &["load", &write(&directory, "a.conf", &text)]);
    assert!(bar.contains(" of 2000") && bar.ends_with("\r\x1b[K"), "{bar:?}");
    let table = on_a_terminal(&daemon, &["dump"]);
    assert!(table.starts_with("\x1b[1mPROTOCOL\x1b[0m") && table.contains("\x1b[32mmature\x1b[0m"), "{:.200}", table);
    assert!(!table.contains(KEY));
    let saved = on_a_terminal(&daemon, &["save"]);
    assert!(saved.starts_with("pfkey: warning: keys go to this terminal"), "{saved:.100}");
}

#[test]
fn a_table_fits_its_terminal() {
    let (daemon, directory) = start("pfkey_narrow");
    // What it warns of is meant.
    assert!(daemon.run(&["load", &write(&directory, "a.conf", FILE)]).status.success());
    let plain = |text: String| {
        let parts = text.split('\x1b').enumerate();
        let parts =
            parts.map(|(at, part)| if at == 0 { part } else { part.split_once('m').map_or(part, |(_, rest)| rest) });
        parts.collect::<String>().replace('\r', "")
    };
    let narrow = plain(on_a_terminal_of(60, &daemon, &["dump"]));
    let lines: Vec<&str> = narrow.lines().collect();
    let (note, table) = lines.split_last().unwrap();
    assert!(table.iter().all(|line| line.chars().count() <= 60), "{narrow}");
    assert!(table[0].starts_with("PROTOCOL  SPI") && !narrow.contains("STATE"), "{narrow}");
    assert!(
        note.starts_with("pfkey: ") && note.ends_with(" columns more have no room here: --columns chooses"),
        "{note}"
    );
    let wide = plain(on_a_terminal_of(300, &daemon, &["dump"]));
    for heading in ["HARD SECONDS", "SOFT SECONDS", "HARD BYTES", "SOFT BYTES"] {
        assert!(wide.lines().next().unwrap().contains(heading), "{heading}: {wide}");
    }
    let chosen =
        plain(on_a_terminal_of(60, &daemon, &["dump", "--spi", "0x2001", "--columns", "spi,soft_bytes,hard_packets"]));
    assert_eq!(chosen, "SPI         SOFT BYTES  HARD PACKETS\n0x00002001  900000      9\n");
}

#[test]
fn an_empty_list_says_so_on_a_terminal() {
    let (daemon, _) = start("pfkey_empty");
    assert_eq!(on_a_terminal(&daemon, &["dump"]), "pfkey: no SAs\r\n");
    assert_eq!(on_a_terminal(&daemon, &["spd"]), "pfkey: no policies\r\n");
    assert_eq!(daemon.ok(&["dump"]) + &daemon.ok(&["spd"]), "");
}

/// setkey sends a label with its NUL, and the key engine puts one behind it, as Linux does.
#[test]
fn labels_are_saved_named_and_removed() {
    let file = "\
spdadd 10.3.0.0/24 10.4.0.0/24 any -ctx 1 1 \"a:b\" -P out none;
add 192.0.2.1 198.51.100.2 esp 0x1001 -ctx 1 1 \"a:b\" -E null;
";
    let daemon = Daemon::holding("pfkey_labels", file);
    let saved = daemon.ok(&["save"]);
    assert_eq!(saved.matches("-ctx 1 1 \"a:b\"").count(), 2, "{saved}");
    let path = write(&c::scratch("pfkey_labels_file"), "saved.conf", &saved);
    assert_eq!(daemon.ok(&["load", "--diff", &path]), "");
    daemon.ok(&["policy", "flush", "--src", "10.3.0.0/24"]);
    assert_eq!(daemon.ok(&["spd"]), "");
}
