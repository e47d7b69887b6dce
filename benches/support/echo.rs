//! The least that a server of a SOCK_SEQPACKET descriptor can do: a process that receives and sends as many bytes as the answer has.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

/// A process that answers, until its descriptor is closed.
pub struct Echo {
    pub fd: Option<OwnedFd>,
    pub pid: Pid,
}

impl Echo {
    /// Answers with so many bytes; waits with epoll as a server of many clients does, or in the receive itself.
    pub fn start(answer: usize, with_epoll: bool) -> Self {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .expect("a pair of sockets");
        // SAFETY: this process has one thread.
        match unsafe { fork() }.expect("a process") {
            ForkResult::Parent { child } => Self { fd: Some(ours), pid: child },
            ForkResult::Child => {
                drop(ours);
                serve(&theirs, answer, with_epoll);
                std::process::exit(0);
            }
        }
    }

    /// A request, and its answer.
    pub fn ask(&self, request: &[u8], buffer: &mut [u8]) {
        let fd = self.fd.as_ref().expect("it is open").as_raw_fd();
        send(fd, request, MsgFlags::MSG_NOSIGNAL).expect("a request");
        recv(fd, buffer, MsgFlags::empty()).expect("an answer");
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.fd = None;
        let _ = waitpid(self.pid, None);
    }
}

fn serve(fd: &OwnedFd, answer: usize, with_epoll: bool) {
    let mut buffer = [0; 1 << 16];
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
    epoll.add(fd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0)).expect("epoll");
    loop {
        if with_epoll {
            let _ = epoll.wait(&mut [EpollEvent::empty(); 16], EpollTimeout::NONE);
        }
        match recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) | Err(_) => return,
            Ok(_) => _ = send(fd.as_raw_fd(), &buffer[..answer], MsgFlags::MSG_NOSIGNAL),
        }
    }
}
