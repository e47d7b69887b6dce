//! Every recorded case of ipsec-tools 0.9.1's setkey on AF_KEY of Linux 7.2, against this `setkey`: what it prints on standard output and
//! on standard error, and its exit status.
//!
//! A pfkeyd with an embedded engine serves it. With `PFKEY_SETKEY_KERNEL=1` the kernel that this runs on does: `tests/kernel/setkey`.
//!
//! What differs from one run to the next is replaced on both sides ([`timeless`]). Two cases differ: `-V` says on standard error, too,
//! whose setkey this is; and why a name is unknown depends on the machine's resolver.
#![forbid(unsafe_code)]

#[path = "support/c.rs"]
mod c;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

/// Cases that were recorded with this setkey.
const TRANSCRIPT: &str = "tests/transcripts/setkey.jsonl";

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Its texts and its status; no status if it goes on for ever, and was ended after some lines.
struct Ran {
    stdout: String,
    stderr: String,
    status: Option<i64>,
}

/// With a word of `line` from `prefix` on replaced, up to a character that does not belong to it.
fn replaced(line: &str, prefix: &str, belongs: fn(char) -> bool, by: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(prefix) {
        let (before, behind) = rest.split_at(at + prefix.len());
        let end = behind.find(|c| !belongs(c)).unwrap_or(behind.len());
        out += before;
        out += if end > 0 { by } else { "" };
        rest = &behind[end..];
    }
    out + rest
}

/// Without what differs between runs: times, the seconds since an SA was made, processes' numbers, the numbers that policies get, and
/// the references to a policy, which are one more in its first second, and always on AF_KEY.
fn timeless(text: &str) -> String {
    let digit = |c: char| c.is_ascii_digit();
    let number = |c: char| c.is_ascii_digit() || c == 'N';
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let mut line = line.to_owned();
        // 20 characters from a month on.
        while let Some(at) = MONTHS.iter().filter_map(|month| line.find(&format!(" {month} "))).min() {
            line.replace_range(at + 1..at + 21, "TIME");
        }
        line = replaced(&line, "diff: ", number, "N");
        line = replaced(&line, "pid=", number, "N");
        line = replaced(&line, "spid=", number, "N");
        if line.starts_with("sadb_x_policy{ ") && !line.contains(" id=0 ") {
            line = replaced(&line, " id=", |c| c.is_ascii_hexdigit(), "ID");
        }
        if matches!(line.as_str(), "\trefcnt=1\n" | "\trefcnt=2\n") {
            line = "\trefcnt=1 or 2\n".to_owned();
        }
        // Of LIFETIME_CURRENT; a limit of as many seconds is in no case.
        if line.starts_with("  addtime=1") && line.find(',').is_some_and(|end| end > 18) {
            line = replaced(&line, "addtime=", digit, "TIME");
        }
        // The process's number, in the last four bytes of a header.
        if line.starts_with("00000000: ") && line.len() == 10 + 16 * 3 + 1 {
            line.replace_range(10 + 12 * 3..10 + 16 * 3, "PID ");
        }
        // -l: minutes and seconds, and the age.
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [time, "esp", state, spi, _, src, "->", dst] = fields.as_slice() {
            assert!(time.len() == 4 && time.chars().all(digit), "{line}");
            line = format!("TIME esp {state} {spi} AGE {src} -> {dst}\n");
        }
        out += &line;
    }
    out
}

/// Runs a case in a shell: what comes before, then setkey itself.
fn run(directory: &Path, case: &Value) -> Ran {
    let text = |name: &str| case[name].as_str().unwrap_or_default();
    std::fs::write(directory.join("before"), text("before")).unwrap();
    std::fs::write(directory.join("stdin"), text("stdin")).unwrap();
    let kernel = std::env::var_os("PFKEY_SETKEY_KERNEL").is_some();
    let mut command = if kernel { Command::new("sh") } else { Command::new(c::program("pfkeyd")) };
    if !kernel {
        command.args(["--", "sh"]);
    }
    let empty = if kernel { "setkey -F; setkey -FP; " } else { "" };
    let script = format!("{empty}setkey -c <before || exit 99; exec setkey \"$@\" <stdin");
    command
        .args(["-c", &script, "sh"])
        .args(case["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()));
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    command.env("PATH", path).env_remove("PFKEY_BACKEND").current_dir(directory).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(File::create(directory.join("stderr")).unwrap());
    // A group of its own, so that one that goes on for ever is ended with its pfkeyd.
    let mut child = command.process_group(0).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut printed = Vec::new();
    let endless = case["status"] == "timeout";
    let status = if endless {
        let mut byte = [0];
        while printed.iter().filter(|byte| **byte == b'\n').count() < 3 {
            stdout.read_exact(&mut byte).unwrap();
            printed.push(byte[0]);
        }
        killpg(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
        child.wait().unwrap();
        None
    } else {
        stdout.read_to_end(&mut printed).unwrap();
        child.wait().unwrap().code().map(i64::from)
    };
    let mut stderr = std::fs::read_to_string(directory.join("stderr")).unwrap();
    // What pfkeyd says where it has no filter of system calls, under an emulator.
    if stderr.starts_with("pfkeyd: confined: ") {
        stderr = stderr.split_once('\n').unwrap().1.to_owned();
    }
    Ran { stdout: String::from_utf8(printed).unwrap(), stderr, status }
}

/// Whether it shows messages (-v), which then are as the machine that was recorded has them.
fn shows_messages(case: &Value) -> bool {
    case["args"].as_array().unwrap().iter().any(|word| word.as_str().unwrap().contains('v'))
}

/// What of a file of recorded cases differs; and how many cases there are.
fn compare(name: &str, file: &str) -> (String, usize) {
    let directory = c::scratch(name);
    std::os::unix::fs::symlink(c::program("pfkey"), directory.join("setkey")).unwrap();
    let recorded = std::fs::read_to_string(c::root().join(file)).unwrap();
    let mut wrong = String::new();
    for line in recorded.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        if cfg!(target_endian = "big") && shows_messages(&case) {
            println!("skipped: case {} shows messages of a little-endian machine", case["id"]);
            continue;
        }
        let ran = run(&directory, &case);
        let mut stdout = timeless(case["stdout"].as_str().unwrap());
        let mut stderr = case["stderr"].as_str().unwrap().to_owned();
        if case["status"] == "timeout" {
            stdout = stdout.split_inclusive('\n').take(3).collect();
        }
        let (mut printed, told) = (timeless(&ran.stdout), ran.stderr);
        let of_ipsec_tools = file.contains("golden");
        match case["id"].as_u64().filter(|_| of_ipsec_tools) {
            Some(5) => {
                assert!(stderr.is_empty());
                stderr = told.clone();
                assert!(told.starts_with("setkey: this is libpfkey_rs ") && told.lines().count() == 1, "{told}");
            }
            Some(65) => {
                let reason = |text: &str| text.split_once(" at `").unwrap().1.to_owned();
                (stdout, printed) = (reason(&stdout), reason(&printed));
            }
            _ => {}
        }
        if (printed.as_str(), told.as_str(), ran.status) != (&stdout, &stderr, case["status"].as_i64()) {
            let difference = format!("{printed}{told}{:?}\n-- but recorded was\n{stdout}{stderr}", ran.status);
            wrong += &format!("== {}: {}\n{difference}{:?}\n", case["id"], case["args"], case["status"]);
        }
    }
    (wrong, recorded.lines().count())
}

#[test]
fn every_recorded_case() {
    assert_eq!(compare("golden_setkey", "tests/golden/setkey.jsonl"), (String::new(), 57));
}

/// What ipsec-tools' setkey was not asked: this one on AF_KEY of Linux 7.2 ([`record`]). AF_KEY decides what is refused, and how.
#[test]
fn more_of_the_language_as_on_af_key() {
    assert_eq!(compare("transcript_setkey", TRANSCRIPT), (String::new(), 24));
}

/// Writes what this setkey prints into the transcript, for the cases that are there: `tests/kernel/setkey --record`.
#[test]
#[ignore = "it is for AF_KEY of Linux 7.2"]
fn record() {
    let directory = c::scratch("record_setkey");
    std::os::unix::fs::symlink(c::program("pfkey"), directory.join("setkey")).unwrap();
    let path = c::root().join(TRANSCRIPT);
    let mut lines = String::new();
    for line in std::fs::read_to_string(&path).unwrap().lines() {
        let mut case: Value = serde_json::from_str(line).unwrap();
        let ran = run(&directory, &case);
        case["stdout"] = timeless(&ran.stdout).into();
        case["stderr"] = ran.stderr.into();
        case["status"] = ran.status.into();
        lines += &format!("{case}\n");
    }
    std::fs::write(path, lines).unwrap();
}

/// A text that ipsec-tools' setkey reads to its end `pfkey load` reads, too.
#[test]
fn load_reads_what_setkey_reads() {
    let recorded = std::fs::read_to_string(c::root().join("tests/golden/setkey.jsonl")).unwrap();
    let mut read = 0;
    for line in recorded.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let Some(text) = case["stdin"].as_str() else { continue };
        // What cannot be read is quoted; it quotes nothing else.
        if case["stdout"].as_str().unwrap().contains(" at `") {
            continue;
        }
        let mut command = Command::new(c::program("pfkey"));
        let mut child = command.args(["load", "-n", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        // The kernel's refusal is known before.
        if text.contains("10.0.1.0/33") {
            assert_eq!(told, "pfkey: -:1:17: '33': a prefix length goes up to 32\n");
        } else {
            assert!(output.status.success(), "{text}: {told}");
        }
        read += 1;
    }
    assert_eq!(read, 32);
}
