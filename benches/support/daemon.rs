//! A pfkeyd with the embedded engine that several sessions share.

#[path = "../../tests/support/program.rs"]
mod program;

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};

use pfkey_rs::socket::{self, Backend};
use program::program;

/// `PFKEYD=FILE` names another than this build's.
pub struct Daemon(Child, PathBuf);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file(&self.1);
    }
}

impl Daemon {
    pub fn start() -> Self {
        let path = std::env::temp_dir().join(format!("pfkeyd-bench-{}", std::process::id()));
        let program = std::env::var("PFKEYD").unwrap_or_else(|_| program("pfkeyd").to_owned());
        let (ready, started) = nix::unistd::pipe().expect("a pipe");
        let child = Command::new(program)
            .args(["--listen", path.to_str().expect("a path"), "--status", &started.as_raw_fd().to_string()])
            .spawn()
            .expect("pfkeyd");
        drop(started);
        std::fs::File::from(ready).read_exact(&mut [0; 4]).expect("it listens");
        Self(child, path)
    }

    pub fn open(&self) -> OwnedFd {
        socket::open_with(&Backend::Unix(self.1.clone())).expect("a session")
    }
}
