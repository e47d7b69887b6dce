//! `pfkey top`: one frame for scripts, and a real terminal, which it gives back on every way out.
#![forbid(unsafe_code)]

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/tmux.rs"]
mod tmux;

use daemon::Daemon;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tmux::Terminal;

const FILE: &str = r#"
add 192.0.2.1 198.51.100.2 esp 0x1001 -m tunnel -lh 3650 -ls 3000 -E aes-cbc 0x00112233445566778899aabbccddeeff
    -A hmac-sha1 0x0001020304050607080900010203040506070809;
add 198.51.100.2 192.0.2.1 esp 0x1002 -m tunnel -lh 3650 -bh 1000 -E aes-cbc 0x00112233445566778899aabbccddeeff
    -A hmac-sha1 0x0001020304050607080900010203040506070809;
spdadd 10.0.0.0/24 10.1.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/require;
spdadd -k 10.1.0.0/24 10.0.0.0/24 any -P in ipsec esp/tunnel/198.51.100.2-192.0.2.1/require;
spdadd 10.0.0.0/24 10.7.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-198.51.100.77/require;
"#;

#[test]
fn one_frame() {
    let daemon = Daemon::holding("top_once", FILE);
    let frame = daemon.ok(&["top", "--once", "--interval", "0.1"]);
    let lines: Vec<&str> = frame.lines().collect();
    assert_eq!(lines.len(), 24, "{frame}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{frame}");
    assert_eq!(lines[0], "pfkey top  SAs 2  policies 3, 1 without SA  in 0B/s out 0B/s");
    assert_eq!(lines[3], "▾ 198.51.100.2  10.0.0.0/24 ⇄ 10.1.0.0/24      2    0B/s    0B/s          60 min");
    assert!(lines[4].starts_with("  ← esp     0x00001002 mature aes-cbc hmac-sha1    0B/s ░░░░░░"), "{frame}");
    assert!(lines[4].contains(" min ░░░░░░"), "its limit in bytes: {frame}");
    assert!(lines[6].starts_with("  198.51.100.77 10.0.0.0/24 ⇄ 10.7.0.0/24  no SA"), "{frame}");
    assert!(lines[23].starts_with("q quit"), "{frame}");
    assert!(!frame.contains('\x1b') && !frame.contains("112233"), "{frame}");
}

#[test]
fn json_lines() {
    let daemon = Daemon::holding("top_json", FILE);
    let text = daemon.ok(&["--json", "top", "--once", "--interval", "0.1"]);
    let values: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = values.iter().map(|value| value["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["total", "group", "sa", "sa", "group"]);
    assert_eq!((&values[0]["sas"], &values[0]["policies_without_sa"]), (&2.into(), &1.into()));
    assert_eq!((&values[2]["spi"], &values[2]["way"]), (&0x1002.into(), &"in".into()));
    assert_eq!(values[4]["lacking"], Value::from(vec!["out"]));
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    let daemon = Daemon::holding("top_no_terminal", FILE);
    for arguments in [&["top"][..], &["--json", "top"], &["top", "--interval", "0"]] {
        let output = daemon.run(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(['-', 'e']), "{arguments:?}");
    }
}

/// A terminal with a `pfkey top` in it, after its first frame; `None`, which it says, without a tmux.
fn top(name: &str, daemon: &Daemon, variables: &str) -> Option<Terminal> {
    let (pfkey, backend) = (c::program("pfkey"), daemon.backend());
    // What it leaves behind is asked of the terminal itself.
    let command = format!(
        "env PFKEY_BACKEND={backend} {variables} {pfkey} top; echo status $?; stty -a | grep -o -- '-*icanon'; cat"
    );
    let terminal = Terminal::start(name, &command)?;
    terminal.wait_for("pfkey top");
    Some(terminal)
}

#[test]
fn in_a_real_terminal() {
    let daemon = Daemon::holding("top_terminal", FILE);
    let Some(terminal) = top("top_terminal_tmux", &daemon, "NO_COLOR=") else { return };
    // A frame may be seen while it is half drawn; the lowest line that is asked for comes last.
    let screen = terminal.wait_for("10.0.0.0/24 ⇄ 10.7.0.0/24  no SA");
    assert_eq!(screen.lines().next(), Some("pfkey top  SAs 2  policies 3, 1 without SA  in 0B/s out 0B/s"));
    assert!(terminal.colours().contains(&31), "red: {:?}", terminal.colours());
    // What happens is told.
    terminal.wait(
        || {
            daemon.ok(&["add", "192.0.2.1", "203.0.113.9", "esp", "0x7777", "-E", "null"]);
            daemon.ok(&["delete", "192.0.2.1", "203.0.113.9", "esp", "0x7777"]);
            terminal.screen().contains("DELETE esp 192.0.2.1 → 203.0.113.9 spi 0x00007777").then_some(())
        },
        "event",
    );
    // Details of an SA, and what explain says of it.
    terminal.keys(&["/", "1", "0", "0", "1", "Enter", "Down", "Enter"]);
    let details = terminal.wait_for("Esc back");
    for part in [
        "What becomes of a packet",
        "spi 0x00001001",
        "soft limit: 3000 seconds",
        "policy out 10.0.0.0/24 → 10.1.0.0/24",
        "goes out through these SAs",
    ] {
        assert!(details.contains(part), "{part}: {details}");
    }
    terminal.keys(&["Escape"]);
    terminal.wait_for("filter: 1001  Esc ends it");
    terminal.keys(&["Escape"]);
    terminal.wait_for("0x00001002");
    // Another size.
    terminal.tmux(&["resize-window", "-x", "100", "-y", "30"]);
    terminal
        .wait(|| terminal.screen().lines().nth(29).filter(|line| line.starts_with("q quit")).map(|_| ()), "30 lines");
    terminal.keys(&["q"]);
    let left = terminal.wait_for("icanon");
    assert!(left.contains("status 0\nicanon\n"), "{left}");
    assert_eq!(terminal.about("#{alternate_on} #{cursor_flag}"), "0 1");
}

#[test]
fn without_colours() {
    let daemon = Daemon::holding("top_plain", FILE);
    let Some(terminal) = top("top_plain_tmux", &daemon, "NO_COLOR=1") else { return };
    terminal.wait_for("no SA");
    assert!(terminal.colours().is_empty(), "{:?}", terminal.colours());
}

#[test]
fn signals_give_the_terminal_back() {
    let daemon = Daemon::holding("top_signals", FILE);
    for (signal, status) in
        [(Signal::SIGTERM, 143), (Signal::SIGHUP, 129), (Signal::SIGINT, 130), (Signal::SIGQUIT, 131)]
    {
        let Some(terminal) = top("top_signals_tmux", &daemon, "") else { return };
        terminal.wait_alternate("1");
        kill(terminal.pid(), signal).unwrap();
        let left = terminal.wait_for("icanon");
        assert!(left.contains(&format!("status {status}\n")) && !left.contains("-icanon"), "{signal}: {left}");
        assert_eq!(terminal.about("#{alternate_on} #{cursor_flag}"), "0 1", "{signal}");
    }
}

#[test]
fn stopped_and_continued() {
    let daemon = Daemon::holding("top_stop", FILE);
    let Some(terminal) = top("top_stop_tmux", &daemon, "") else { return };
    terminal.wait_for("10.0.0.0/24");
    let pid = terminal.pid();
    kill(pid, Signal::SIGTSTP).unwrap();
    terminal.wait_alternate("0");
    kill(pid, Signal::SIGCONT).unwrap();
    terminal.wait_alternate("1");
    terminal.wait_for("10.0.0.0/24");
    terminal.keys(&["q"]);
    terminal.wait_for("status 0");
}

/// It goes on when what it asks is gone, and ends when it is told to.
#[test]
fn the_key_engine_ends() {
    let mut daemon = Daemon::holding("top_engine", FILE);
    let Some(terminal) = top("top_engine_tmux", &daemon, "") else { return };
    terminal.wait_for("10.0.0.0/24");
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    terminal.wait_for("nothing is told any more");
    terminal.wait_for("no PF_KEY backend");
    terminal.keys(&["q"]);
    terminal.wait_for("status 0");
}
