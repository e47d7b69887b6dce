//! A pfkeyd with an embedded engine, for a test.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use pfkey::Backend;

/// A program of this workspace; it is built if it is not there. `$PFKEYD` is one that was built in another way: a
/// sanitizer's flags, which cargo would inherit here, are not for it.
pub fn program(name: &str) -> PathBuf {
    if let Some(pfkeyd) = std::env::var_os("PFKEYD").filter(|_| name == "pfkeyd") {
        return pfkeyd.into();
    }
    // target/debug/deps/client-…
    let test = std::env::current_exe().expect("a test has a name");
    let program = test.ancestors().nth(2).expect("target/debug").join(name);
    if !program.exists() {
        let built = Command::new(env!("CARGO")).args(["build", "--locked", "--quiet", "--package", name]).status();
        assert!(built.expect("cargo").success());
    }
    program
}

/// One that listens; it ends when dropped.
pub struct Daemon {
    child: Child,
    directory: PathBuf,
}

impl Daemon {
    pub fn start() -> Self {
        let directory = nix::unistd::mkdtemp(&std::env::temp_dir().join("pfkey-XXXXXX")).expect("a directory");
        let mut child = Command::new(program("pfkeyd"))
            .args(["--status", "1", "--listen"])
            .arg(directory.join("s"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("pfkeyd");
        let mut status = [1; 4];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut status).expect("a word");
        assert_eq!(status, [0; 4]);
        Self { child, directory }
    }

    pub fn backend(&self) -> Backend {
        Backend::Unix(self.directory.join("s"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
