//! A pfkeyd as the machine's is.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pfkey_rs::socket::{Backend, find_pfkeyd, open_with};

/// A pfkeyd for all, which ends with this.
pub struct Service(pub Child, pub PathBuf);

impl Service {
    pub fn start() -> Self {
        let path = std::env::temp_dir().join(format!("pfkey-bench-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a directory");
        let socket = path.join("pfkeyd.sock");
        let mut command = Command::new(find_pfkeyd().expect("a pfkeyd"));
        let child = command.arg("--service").arg(&socket).stdin(Stdio::null()).spawn().expect("it starts");
        while open_with(&Backend::Service(socket.clone())).is_err() {
            std::thread::yield_now();
        }
        Self(child, socket)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(self.1.parent().expect("a directory"));
    }
}
