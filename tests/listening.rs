//! Who reaches a pfkeyd that listens, what it does to files, and what it takes from whoever starts it.

#[path = "support/c.rs"]
mod c;

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ended when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Starts one with a umask; `Err` is the errno of its start.
fn listen(path: &Path, umask: &str, arguments: &[&str]) -> Result<Daemon, i32> {
    let (ready, started) = nix::unistd::pipe().unwrap();
    let script = format!("umask {umask}; exec \"$@\"");
    let child = Command::new("sh")
        .args(["-c", &script, "sh", c::program("pfkeyd"), "--listen", path.to_str().unwrap()])
        .args(["--status", &started.as_raw_fd().to_string()])
        .args(arguments)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(started);
    let mut status = [0xff; 4];
    std::fs::File::from(ready).read_exact(&mut status).expect("it says how the start went");
    let daemon = Daemon(child);
    match i32::from_ne_bytes(status) {
        0 => Ok(daemon),
        errno => Err(errno),
    }
}

/// Whether a user's `pfkey` is served.
fn serves(path: &Path, user: Option<u32>) -> bool {
    let mut flush = Command::new(c::program("pfkey"));
    flush.arg("flush").env("PFKEY_BACKEND", format!("unix:{}", path.display())).stderr(Stdio::null());
    if let Some(user) = user {
        flush.uid(user).gid(user);
    }
    flush.status().unwrap().success()
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn the_sockets_mode_is_not_the_umasks() {
    let dir = c::scratch("listening_mode");
    for umask in ["000", "022", "777"] {
        let path = dir.join(umask);
        let _daemon = listen(&path, umask, &[]).unwrap();
        assert_eq!(mode(&path), 0o600, "umask {umask}");
        assert!(serves(&path, None));
    }
    let path = dir.join("chosen");
    let _daemon = listen(&path, "077", &["--mode", "660"]).unwrap();
    assert_eq!(mode(&path), 0o660);
}

#[test]
fn only_its_user_and_root_are_served_unless_a_mode_was_chosen() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: another user needs root");
    }
    // Where others can go, with a program that they can execute.
    let dir = nix::unistd::mkdtemp(&std::env::temp_dir().join("listening-XXXXXX")).unwrap();
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
    let (closed, open) = (dir.join("closed"), dir.join("open"));
    let first = listen(&closed, "022", &[]).unwrap();
    let second = listen(&open, "022", &["--mode", "666"]).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o666)).unwrap();
    let connects = |path: &Path, user: u32| {
        let source = dir.join("asks.c");
        let text = "#include <libpfkey.h>\n#include <stdio.h>\n#include <stdlib.h>\nint main(void)\n{\n\
            \tint s = pfkey_open();\n\tstruct sadb_msg *m;\n\tif (s < 0 || pfkey_send_flush(s, 0) < 0)\n\t\treturn 1;\n\
            \tm = pfkey_recv(s);\n\ts = !m || m->sadb_msg_errno;\n\tfree(m);\n\treturn s;\n}\n";
        std::fs::write(&source, text).unwrap();
        let library = dir.join("libpfkey_rs.so.0");
        if !library.exists() {
            std::fs::copy(c::output_dir().join("libpfkey_rs.so"), &library).unwrap();
            std::os::unix::fs::symlink("libpfkey_rs.so.0", dir.join("libpfkey_rs.so")).unwrap();
        }
        let program = c::compile(&dir, "asks", &[source], &[]);
        let backend = format!("unix:{}", path.display());
        Command::new(program).env("PFKEY_BACKEND", backend).uid(user).gid(user).status().unwrap().success()
    };
    let outcome = [connects(&closed, 0), connects(&closed, 64999), connects(&open, 64999)];
    drop((first, second));
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(outcome, [true, false, true]);
}

#[test]
fn no_other_file_is_replaced_or_removed() {
    let dir = c::scratch("listening_files");
    let (file, link, target) = (dir.join("file"), dir.join("link"), dir.join("target"));
    std::fs::write(&file, "mine").unwrap();
    assert_eq!(listen(&file, "022", &[]).err(), Some(libc::EADDRINUSE));
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    // A link to a socket on which nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&target).unwrap());
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert_eq!(listen(&link, "022", &[]).err(), Some(libc::EADDRINUSE));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink() && target.exists());
    // What stands at its place in the end is somebody else's.
    let path = dir.join("socket");
    let daemon = listen(&path, "022", &[]).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    drop(daemon);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn the_command_has_no_signal_blocked() {
    let output = Command::new(c::program("pfkeyd")).args(["--", "cat", "/proc/self/status"]).output().unwrap();
    let theirs = String::from_utf8(output.stdout).unwrap();
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{text}"));
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!(value(&theirs, "SigBlk:"), 0);
    // TERM, INT, HUP, QUIT, USR1: ignored if this test is started so, behind nohup for example.
    for signal in [15, 2, 1, 3, 10] {
        let is_ignored = |text| value(text, "SigIgn:") >> (signal - 1) & 1;
        assert_eq!(is_ignored(&theirs), is_ignored(&ours), "signal {signal}");
    }
    // Rust's runtime ignores PIPE, here and in pfkeyd; a command has it as it always was.
    assert_eq!(value(&theirs, "SigIgn:") >> 12 & 1, 0);
}

/// Starts a pfkeyd with a descriptor, and gives what it says about it.
fn with_descriptor(option: &str, fd: &OwnedFd) -> (Option<i32>, String) {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let mut command = Command::new(c::program("pfkeyd"));
    command.args([option, &fd.as_raw_fd().to_string()]);
    if option == "--status" {
        command.args(["--", "true"]);
    }
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn descriptors_that_were_not_made_for_it_are_refused() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket, socketpair};
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let (stream, _other) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty()).unwrap();
    let udp = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::empty(), None).unwrap();
    for fd in [&file, &stream, &udp] {
        let (status, text) = with_descriptor("--fd", fd);
        assert_eq!(status, Some(1), "{text}");
        assert!(text.contains("--fd: no AF_UNIX socket of type SOCK_SEQPACKET"), "{text}");
    }
    let (status, text) = with_descriptor("--status", &file);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("--status: no pipe"), "{text}");
}
