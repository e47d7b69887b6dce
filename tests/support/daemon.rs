//! A pfkeyd on a socket of its own.
#![allow(dead_code)]

use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::c::{program, scratch};

/// A daemon with the embedded engine, ended when dropped.
pub struct Daemon {
    pub child: Child,
    pub path: PathBuf,
}

impl Daemon {
    /// Starts one and waits until it listens.
    pub fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    /// The same with further arguments.
    pub fn start_with(directory: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program("pfkeyd"));
        command.args(arguments);
        Self::start_by(directory, command)
    }

    /// One that has loaded a file of this text, which may be warned of.
    pub fn holding(name: &str, text: &str) -> Self {
        let directory = scratch(name);
        let daemon = Self::start(&directory);
        daemon.loads(&write(&directory, "a.conf", text));
        daemon
    }

    /// With room for 32 clients, half of what it may have of descriptors.
    pub fn start_small(directory: &Path, stdout: Stdio, stderr: Stdio) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh", program("pfkeyd")]).stdout(stdout).stderr(stderr);
        Self::start_by(directory, command)
    }

    /// Starts a command that ends in pfkeyd's arguments.
    fn start_by(directory: &Path, mut command: Command) -> Self {
        let path = directory.join("pfkeyd.sock");
        let (ready, started) = nix::unistd::pipe().unwrap();
        let child = command
            .args(["--listen", path.to_str().unwrap(), "--status", &started.as_raw_fd().to_string()])
            .spawn()
            .unwrap();
        drop(started);
        let mut status = [0xff; 4];
        std::fs::File::from(ready).read_exact(&mut status).unwrap();
        assert_eq!(status, [0; 4]);
        Self { child, path }
    }

    /// The value of PFKEY_BACKEND that names it.
    pub fn backend(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// A `pfkey` that talks to it.
    pub fn pfkey(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("pfkey"));
        command.args(arguments).env("PFKEY_BACKEND", self.backend()).stdin(Stdio::null());
        command
    }

    /// Runs a `pfkey`.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.pfkey(arguments).output().unwrap()
    }

    /// Loads a file, which may be warned of.
    pub fn loads(&self, path: &str) {
        let output = self.run(&["load", path]);
        let errors = String::from_utf8_lossy(&output.stderr);
        let warnings_only = errors.lines().all(|line| line.contains(": warning: "));
        assert!(output.status.success() && output.stdout.is_empty() && warnings_only, "{path}: {errors}");
    }

    /// Runs a `pfkey` that must succeed without a word on standard error, and gives what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {}: {errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Starts one in a directory for one test's files.
pub fn start(name: &str) -> (Daemon, PathBuf) {
    let directory = scratch(name);
    (Daemon::start(&directory), directory)
}

/// A file's path, after it was written.
pub fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
