//! Every example of the manual pages, run as it is written.

#[path = "support/c.rs"]
mod c;

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A page's literal blocks, as they are printed.
fn examples(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(c::root().join("man").join(page)).unwrap();
    let blocks = text.split(".Bd -literal -offset indent\n").skip(1);
    let blocks = blocks.map(|block| block.split("\n.Ed").next().unwrap());
    blocks.map(|block| block.replace("\\-", "-").replace("\\e", "\\").replace("\\&", "") + "\n").collect()
}

/// A shell's commands, and what they print.
fn script(example: &str) -> (String, String) {
    let (mut commands, mut output) = (String::new(), String::new());
    for line in example.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => commands += &format!("{command}\n"),
            None => output += &format!("{line}\n"),
        }
    }
    (commands, output)
}

/// A command that finds our programs, in a directory of its own.
fn command(program: &str, directory: &Path) -> Command {
    let path = format!("{}:{}", c::output_dir().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(program);
    command.env("PATH", path).env_remove("PFKEY_BACKEND").current_dir(directory).stdin(Stdio::null());
    command
}

fn check(output: &Output, expected: &str, example: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), (expected, ""), "{example}");
    assert!(output.status.success(), "{example}");
}

#[test]
fn pfkey_1() {
    let directory = c::scratch("man_pfkey");
    let mut run = 0;
    for example in examples("pfkey.1") {
        if !example.starts_with("$ ") {
            let file = directory.join("example.conf");
            std::fs::write(&file, &example).unwrap();
            check(&command("pfkey", &directory).args(["load", "-n"]).arg(file).output().unwrap(), "", &example);
            continue;
        }
        let (commands, expected) = script(&example);
        let output = command("pfkeyd", &directory).args(["--", "sh", "-e", "-c", &commands]).output().unwrap();
        check(&output, &expected, &example);
        run += 1;
    }
    assert_eq!(run, 5);
}

#[test]
fn pfkeyd_8() {
    let directory = c::scratch("man_pfkeyd");
    let all = examples("pfkeyd.8");
    assert_eq!(all.len(), 3);
    for example in all {
        let (commands, expected) = script(&example);
        let output = command("sh", &directory).args(["-e", "-c", &commands]).output().unwrap();
        check(&output, &expected, &example);
    }
}

#[test]
fn libpfkey_rs_3() {
    let directory = c::scratch("man_libpfkey_rs");
    let all = examples("libpfkey_rs.3");
    assert_eq!(all.len(), 1);
    for example in all {
        let source = directory.join("example.c");
        std::fs::write(&source, &example).unwrap();
        let program = c::compile(&directory, "example", &[source], &[]);
        let output = Command::new(program).env("PFKEY_BACKEND", "embedded").output().unwrap();
        // An empty SAD is ENOENT.
        check(&output, "errno 2\n", &example);
    }
}
