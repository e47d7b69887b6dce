//! The descriptor that a C program gets from `pfkey_open` behaves as a PF_KEY socket, whatever becomes of the process
//! that opened it; and a pfkeyd that listens serves many.

#[path = "support/c.rs"]
mod c;

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use pfkey_rs::request::HeaderRequest;
use pfkey_rs::socket::{self, Backend};
use pfkey_rs::wire::layout::SadbSa;
use pfkey_rs::wire::{ExtensionType as Ext, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};

/// Builds the C program once for all tests that run it.
fn program() -> &'static Path {
    static PROGRAM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(|| {
        let dir = c::scratch("descriptor");
        c::compile(&dir, "descriptor", &[c::root().join("c-tests/checks/descriptor.c")], &[])
    })
}

fn survives(test: &str, argument: &str) {
    let mut command = Command::new(program());
    command.args([test, argument]).env("PFKEY_BACKEND", "embedded").env("PFKEYD", c::program("pfkeyd"));
    if test == "chroot" {
        // LeakSanitizer reads /proc, which is not there any more.
        command.env("LSAN_OPTIONS", "detect_leaks=0");
    }
    let output = command.output().expect("it runs");
    if output.status.code() == Some(77) {
        return eprintln!("skipped: {test} needs root");
    }
    assert!(output.status.success(), "{test}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_helper_is_no_child_of_the_opener() {
    survives("reap", "");
}

#[test]
fn it_survives_fork() {
    survives("fork", "");
}

#[test]
fn it_survives_exec() {
    survives("exec", "");
}

#[test]
fn it_survives_chroot() {
    survives("chroot", &c::scratch("empty").to_string_lossy());
}

#[test]
fn it_survives_setuid() {
    survives("setuid", "");
}

#[test]
fn it_may_be_descriptor_0() {
    survives("low", "");
}

#[test]
fn pfkeyd_is_found_beside_the_library() {
    if c::tree_is_anothers() {
        return println!("skipped: the tree is another user's");
    }
    let output =
        Command::new(program()).arg("fork").env("PFKEY_BACKEND", "embedded").env_remove("PFKEYD").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn pfkeyd_is_found_in_sbin_and_libexec_beside_the_directory_of_the_library() {
    for (library, place) in [("lib", "sbin"), ("lib", "libexec"), ("lib/x86_64-linux-gnu", "libexec")] {
        let dir = c::scratch("installed");
        std::fs::create_dir_all(dir.join(library)).unwrap();
        std::fs::create_dir_all(dir.join(place)).unwrap();
        let from = c::output_dir().join("libpfkey_rs.so");
        std::fs::copy(from, dir.join(library).join("libpfkey_rs.so.0")).unwrap();
        std::os::unix::fs::symlink(c::program("pfkeyd"), dir.join(place).join("pfkeyd")).unwrap();
        let output = Command::new(program())
            .arg("fork")
            .env("PFKEY_BACKEND", "embedded")
            .env_remove("PFKEYD")
            .env("LD_LIBRARY_PATH", dir.join(library))
            .output()
            .unwrap();
        assert!(output.status.success(), "{library} {place}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_missing_pfkeyd_and_a_bad_backend_are_named() {
    for (name, value, expected) in [
        ("PFKEYD", "/nonexistent/pfkeyd", "sought /nonexistent/pfkeyd"),
        ("PFKEY_BACKEND", "kernel", "expected auto, afkey, service, private, embedded or unix:PATH"),
        ("PFKEY_BACKEND", "unix:/nonexistent/socket", "/nonexistent/socket"),
    ] {
        let output = Command::new(program())
            .arg("fork")
            .env("PFKEY_BACKEND", "embedded")
            .env("PFKEYD", c::program("pfkeyd"))
            .env(name, value)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(expected), "{text}");
    }
}

/// A pfkeyd that listens, ended when dropped.
struct Daemon {
    child: std::process::Child,
    backend: Backend,
}

impl Daemon {
    fn start(name: &str) -> Self {
        let path = c::scratch(name).join("s");
        let (ready, started) = nix::unistd::pipe().unwrap();
        let child = Command::new(c::program("pfkeyd"))
            .args(["--listen", path.to_str().unwrap(), "--status", &started.as_raw_fd().to_string()])
            .spawn()
            .unwrap();
        drop(started);
        let mut status = [1; 4];
        io::Read::read_exact(&mut std::fs::File::from(ready), &mut status).expect("pfkeyd says that it listens");
        assert_eq!(status, [0; 4]);
        Self { child, backend: Backend::Unix(path) }
    }

    fn open(&self) -> OwnedFd {
        socket::open_with(&self.backend).expect("a descriptor")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next(fd: &OwnedFd) -> Result<Vec<u8>, nix::errno::Errno> {
    let mut buffer = vec![0; 65536];
    let n = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
    buffer.truncate(n);
    Ok(buffer)
}

fn header(message: &[u8]) -> Header {
    Header::read(message).expect("a message")
}

fn send_header(fd: &OwnedFd, msg_type: MessageType) {
    let mut buffer = [0; 16];
    let len = HeaderRequest { msg_type, satype: 0 }.write(std::process::id(), &mut buffer).unwrap();
    socket::send(fd.as_raw_fd(), &buffer[..len]).unwrap();
}

fn send_add(fd: &OwnedFd, spi: u32) {
    let mut buffer = [0; 512];
    let mut w =
        Writer::new(&mut buffer, Header::new(MessageType::ADD, SaType::AH, 0, std::process::id()), Profile::Linux);
    w.sa(SadbSa { spi: spi.into(), auth: 3, ..Default::default() });
    w.address(Ext::ADDRESS_SRC, 0, 32, SockaddrBytes::new([10, 0, 0, 1].into(), 0).as_bytes());
    w.address(Ext::ADDRESS_DST, 0, 32, SockaddrBytes::new([10, 0, 0, 2].into(), 0).as_bytes());
    w.key(Ext::KEY_AUTH, 160, &[7; 20]);
    let message = w.finish().unwrap();
    socket::send(fd.as_raw_fd(), message).unwrap();
}

#[test]
fn every_answer_waits_when_send_returns() {
    let daemon = Daemon::start("synchrony");
    let fd = daemon.open();
    for round in 0..20_000 {
        send_header(&fd, MessageType::FLUSH);
        let answer = next(&fd).unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(header(&answer).msg_type, MessageType::FLUSH);
    }
}

#[test]
fn send_refuses_what_af_key_refuses() {
    let daemon = Daemon::start("framing");
    let fd = daemon.open();
    let errno = |bytes: &[u8]| socket::send(fd.as_raw_fd(), bytes).unwrap_err().raw_os_error();
    assert_eq!(errno(&[2, 9, 0, 0]), Some(libc::EMSGSIZE));
    assert_eq!(errno(&[1, 9, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Some(libc::EINVAL));
    assert_eq!(errno(&[2, 9, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Some(libc::EMSGSIZE));
    assert!(next(&fd).is_err(), "no answer either");
    // Sent past the library it is dropped, and the daemon goes on.
    nix::sys::socket::send(fd.as_raw_fd(), &[9; 5], MsgFlags::empty()).unwrap();
    nix::sys::socket::send(fd.as_raw_fd(), &[], MsgFlags::empty()).unwrap();
    send_header(&fd, MessageType::FLUSH);
    assert!(next(&fd).is_ok());
}

#[test]
fn a_dump_larger_than_the_queue_is_complete() {
    const COUNT: u32 = 20_000;
    let daemon = Daemon::start("dump");
    let (adder, reader) = (daemon.open(), daemon.open());
    for spi in 0..COUNT {
        send_add(&adder, 0x1000 + spi);
        next(&adder).unwrap();
    }
    // The reader heard of the first SAs until its queue was full; that is its own loss.
    let mut heard = 0;
    while next(&reader).is_ok() {
        heard += 1;
    }
    assert!(heard > 0 && heard < COUNT, "{heard}");
    send_header(&reader, MessageType::DUMP);
    let mut spis = HashSet::new();
    loop {
        let message = match next(&reader) {
            Ok(message) => message,
            Err(nix::errno::Errno::EAGAIN) => {
                wait_readable(&reader);
                continue;
            }
            Err(e) => panic!("{e}"),
        };
        let head = header(&message);
        assert_eq!((head.msg_type, head.errno), (MessageType::DUMP, 0));
        assert!(spis.insert(message[20..24].to_vec()), "twice");
        if head.seq == 0 {
            break;
        }
        assert_eq!(head.seq as usize, spis.len());
    }
    assert_eq!(spis.len(), COUNT as usize);
}

fn wait_readable(fd: &OwnedFd) {
    let mut polled = [PollFd::new(std::os::fd::AsFd::as_fd(fd), PollFlags::POLLIN)];
    assert_ne!(poll(&mut polled, PollTimeout::from(20_000_u16)), Ok(0), "nothing came");
}

/// The processes whose first argument is this path: the guardian, then its worker.
fn processes(argv0: &Path) -> Vec<i32> {
    let mut found: Vec<i32> = std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            line.starts_with(argv0.as_os_str().as_encoded_bytes()).then_some(pid)
        })
        .collect();
    let parents: Vec<String> = found.iter().map(|pid| status_field(*pid, "PPid:")).collect();
    if parents.first() == found.get(1).map(i32::to_string).as_ref() {
        found.reverse();
    }
    found
}

/// Runs `body` with the processes of a private helper, and the one that opened it; it says whether it killed them.
fn with_private_helper(name: &str, body: impl FnOnce(&[i32], i32) -> bool) {
    let dir = c::scratch(name);
    let link = dir.join("pfkeyd");
    std::os::unix::fs::symlink(c::program("pfkeyd"), &link).unwrap();
    // The program keeps the descriptor open until its input ends.
    let source = "#include <errno.h>\n#include <unistd.h>\n#include <stdio.h>\n#include <libpfkey.h>\n\
        int main(void)\n{\n\tchar c;\n\tint s = pfkey_open();\n\tint reads;\n\tstruct sadb_msg *m;\n\
        \tif (s < 0)\n\t\treturn 1;\n\tprintf(\"open\\n\");\n\tfflush(stdout);\n\treads = (int)read(0, &c, 1);\n\
        \tif (reads == 0)\n\t\treturn 0;\n\tm = pfkey_recv(s);\n\
        \tprintf(\"%s, %s, %s, \", m ? \"a message\" : \"none\", ipsec_strerror(), errno == EPIPE ? \"EPIPE\" : \"another errno\");\n\tprintf(\"%d\\n\", pfkey_send_flush(s, 0));\n\treturn 0;\n}\n";
    let program = c::compile_text(&dir, "holder", source, &[]);
    let mut child = Command::new(program)
        .env("PFKEY_BACKEND", "embedded")
        .env("PFKEYD", &link)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = io::BufReader::new(child.stdout.take().unwrap());
    io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "open\n");
    let helpers = processes(&link);
    let pidfds: Vec<OwnedFd> = helpers
        .iter()
        .map(|helper| {
            // SAFETY: pidfd_open takes a number and gives a new descriptor.
            let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, *helper, 0) } as i32;
            assert!(raw >= 0);
            // SAFETY: new, and nobody else's.
            unsafe { OwnedFd::from_raw_fd(raw) }
        })
        .collect();
    let killed = body(&helpers, child.id() as i32);
    if killed {
        pidfds.iter().for_each(wait_readable);
    }
    let mut input = child.stdin.take().unwrap();
    if killed {
        io::Write::write_all(&mut input, b"x").unwrap();
        line.clear();
        io::BufRead::read_line(&mut output, &mut line).unwrap();
        assert_eq!(line, "none, The pfkeyd behind the descriptor has ended, EPIPE, -1\n");
    }
    drop(input);
    child.wait().unwrap();
    pidfds.iter().for_each(wait_readable);
}

#[test]
fn the_helper_ends_with_the_last_descriptor() {
    with_private_helper("ends", |helpers, opener| {
        assert_eq!(helpers.len(), 2, "a guardian and a worker");
        assert_ne!(status_field(helpers[0], "PPid:"), opener.to_string());
        false
    });
}

/// A line of a process's status.
fn status_field(process: i32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
}

#[test]
fn the_helper_keeps_cap_net_admin_only_and_is_confined() {
    let capabilities = |process, name| u64::from_str_radix(&status_field(process, name), 16).unwrap();
    with_private_helper("capabilities", |helpers, opener| {
        // CAP_NET_ADMIN is number 12; root in a container may lack it.
        let net_admin = capabilities(opener, "CapEff:") & (1 << 12);
        let user = status_field(opener, "Uid:").replace("0\t0\t0\t0", "65533\t65533\t65533\t65533");
        for helper in helpers {
            for (set, expected) in [("CapPrm:", net_admin), ("CapEff:", net_admin), ("CapInh:", 0), ("CapAmb:", 0)] {
                assert_eq!(capabilities(*helper, set), expected, "{set}");
            }
            assert_eq!(status_field(*helper, "NoNewPrivs:"), "1");
            assert_eq!(status_field(*helper, "Seccomp:"), "2", "a filter");
            assert_eq!(status_field(*helper, "Uid:"), user);
            // What cannot be dumped or traced by its user is root's in /proc.
            let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{helper}/mem")).unwrap());
            assert_eq!(owner, 0, "undumpable");
            // CAP_SYS_RESOURCE, number 24, lowers it.
            if capabilities(opener, "CapEff:") >> 24 & 1 == 1 {
                let score = std::fs::read_to_string(format!("/proc/{helper}/oom_score_adj")).unwrap();
                assert_eq!(score.trim(), "-900");
            }
        }
        false
    });
}

#[test]
fn a_killed_helper_is_an_end_of_file_and_no_hang() {
    with_private_helper("killed", |helpers, _| {
        for helper in helpers {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(*helper), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        true
    });
}
