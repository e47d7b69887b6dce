//! systemd, as a service sees it: it passes sockets, listens to what it is told, and keeps descriptors.

#![allow(dead_code)]

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen, recvmsg, socket,
};
use nix::unistd::Pid;
use pfkey_rs::socket::{Backend, open_with};

use crate::c;

/// What systemd has of a service, and the service's processes while it runs.
pub struct Systemd {
    pub directory: PathBuf,
    listener: OwnedFd,
    notified: UnixDatagram,
    /// The file descriptor store.
    pub store: Vec<(String, OwnedFd)>,
    service: Option<Child>,
}

impl Drop for Systemd {
    fn drop(&mut self) {
        self.end();
        eprint!("{}", self.log());
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Systemd {
    /// A service's socket, in a network namespace of this thread's own. `None` where that cannot be.
    pub fn new(name: &str) -> Option<Self> {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() || pfkey_rs::xfrm::Netlink::open().is_err() {
            eprintln!("skipped: it needs root, network namespaces and XFRM");
            return None;
        }
        let directory = std::env::temp_dir().join(format!("systemd-{name}-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&directory.join("s")).unwrap()).unwrap();
        listen(&listener, Backlog::new(16).unwrap()).unwrap();
        let notified = UnixDatagram::bind(directory.join("notify")).unwrap();
        std::fs::set_permissions(directory.join("notify"), std::fs::Permissions::from_mode(0o777)).unwrap();
        Some(Self { directory, listener, notified, store: Vec::new(), service: None })
    }

    /// Starts the service. `set` is what the shell sets for it, whose number is `$$`.
    pub fn start(&mut self, set: &str) {
        self.start_by(set, &[c::program("pfkeyd")]);
    }

    /// The same with a command that executes it.
    pub fn start_by(&mut self, set: &str, pfkeyd: &[&str]) {
        let mut command = Command::new("sh");
        let script = format!("export LISTEN_PID=$$ {set}; exec \"$@\"");
        command.args(["-c", &script, "sh"]).args(pfkeyd).arg("--service");
        let names = self.store.iter().map(|(name, _)| name.as_str());
        command.env("LISTEN_FDNAMES", ["pfkeyd.socket"].into_iter().chain(names).collect::<Vec<_>>().join(":"));
        let mut raw: Vec<RawFd> =
            [&self.listener].into_iter().chain(self.store.iter().map(|(_, fd)| fd)).map(AsRawFd::as_raw_fd).collect();
        command.env("LISTEN_FDS", raw.len().to_string()).env("NOTIFY_SOCKET", self.directory.join("notify"));
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.directory.join("log")).unwrap();
        command.stdin(Stdio::null()).stderr(log);
        // SAFETY: fcntl and dup2 are safe after fork. Nothing of Rust's has one of the numbers that are given.
        unsafe {
            command.pre_exec(move || {
                let check = |result| if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) };
                // Above all that are given, so that none is overwritten.
                for raw in &mut raw {
                    *raw = check(libc::fcntl(*raw, libc::F_DUPFD_CLOEXEC, 100))?;
                }
                for (at, raw) in (3..).zip(&raw) {
                    check(libc::dup2(*raw, at))?;
                }
                Ok(())
            });
        }
        self.service = Some(command.spawn().unwrap());
        assert_eq!(self.told(Duration::from_secs(20)).as_deref(), Some("READY=1"));
    }

    /// What it says next, within this time, beside what concerns the store.
    pub fn told(&mut self, within: Duration) -> Option<String> {
        let end = Instant::now() + within;
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.notified.set_read_timeout(Some(left)).unwrap();
            let (said, mut fds) = self.hear()?;
            let name = said.lines().find_map(|line| line.strip_prefix("FDNAME="));
            match said.lines().next() {
                Some("FDSTORE=1") => {
                    assert!(said.lines().any(|line| line == "FDPOLL=0"), "{said}");
                    self.store.push((name.expect("a name").to_owned(), fds.pop().expect("a descriptor")));
                    assert!(fds.is_empty());
                }
                Some("FDSTOREREMOVE=1") => self.store.retain(|(one, _)| Some(one.as_str()) != name),
                // Its other end hears the end.
                Some("BARRIER=1") => assert_eq!(fds.len(), 1),
                _ => return Some(said),
            }
        }
    }

    fn hear(&self) -> Option<(String, Vec<OwnedFd>)> {
        let mut word = [0; 256];
        let mut parts = [IoSliceMut::new(&mut word)];
        let mut space = nix::cmsg_space!([RawFd; 8]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.notified.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
        let rights = message.cmsgs().unwrap().find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        });
        // SAFETY: the kernel has just made them for this process.
        let fds = rights.into_iter().flatten().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }).collect();
        let len = message.bytes;
        Some((String::from_utf8_lossy(&word[..len]).into_owned(), fds))
    }

    /// Ends it as systemd does, and keeps what it leaves.
    pub fn end(&mut self) {
        let Some(mut service) = self.service.take() else { return };
        let _ = kill(Pid::from_raw(service.id() as i32), Signal::SIGTERM);
        while matches!(service.try_wait(), Ok(None)) {
            self.told(Duration::from_millis(20));
        }
    }

    pub fn restart(&mut self) {
        self.end();
        self.start("");
    }

    pub fn open(&self) -> OwnedFd {
        open_with(&Backend::Service(self.directory.join("s"))).unwrap()
    }

    pub fn main(&self) -> i32 {
        self.service.as_ref().expect("it runs").id() as i32
    }

    pub fn guardian(&self) -> Pid {
        Pid::from_raw(children(self.main()).pop().expect("a guardian"))
    }

    /// The guardian's worker: of its processes the one that uses epoll.
    pub fn worker(&self) -> Pid {
        let uses_epoll = |pid: &i32| {
            let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|file| file.ends_with("anon_inode:[eventpoll]"))
        };
        Pid::from_raw(children(self.guardian().as_raw()).into_iter().find(uses_epoll).expect("a worker"))
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

fn children(parent: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
