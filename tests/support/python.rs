//! Debian's Python modules, which read what we write.
#![allow(dead_code)]

use std::io::Write as _;
use std::process::{Command, Stdio};

/// A Python that has a module.
pub struct Python {
    program: &'static str,
}

/// One that has it; says so if there is none. The system's own comes first: packages are for that one.
pub fn with(module: &str, package: &str) -> Option<Python> {
    let has = |program: &&'static str| {
        let asked = Command::new(program).args(["-c", &format!("import {module}")]).output();
        asked.is_ok_and(|output| output.status.success())
    };
    let found = ["/usr/bin/python3", "python3"].into_iter().find(has);
    if found.is_none() {
        println!("skipped: needs the Python module {module} ({package})");
    }
    found.map(|program| Python { program })
}

impl Python {
    /// What a program prints of what it reads; panics, with that, if it failed.
    pub fn run(&self, program: &str, input: &str) -> String {
        let mut child = Command::new(self.program);
        let child = child.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        // Beside it, because it may print before it has read everything; what it does not read is its affair.
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).is_ok());
        let output = child.wait_with_output().unwrap();
        let _ = writer.join();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}
