//! Sockets whose close() waits.

use std::io::{IoSlice, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, send, sendmsg, setsockopt, socketpair, sockopt,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// Sockets whose close() waits for an hour, and the ends that do not read. `None` without a loopback interface.
pub struct Lingering {
    sockets: Vec<TcpStream>,
    _unread: Vec<TcpStream>,
}

impl Lingering {
    pub fn new(count: usize) -> Option<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").ok()?;
        let mut lingering = Self { sockets: Vec::new(), _unread: Vec::new() };
        for _ in 0..count {
            let mut socket = TcpStream::connect(listener.local_addr().unwrap()).ok()?;
            socket.set_nonblocking(true).unwrap();
            while socket.write(&[0; 65536]).is_ok() {}
            setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 3600 }).unwrap();
            lingering.sockets.push(socket);
            lingering._unread.push(listener.accept().unwrap().0);
        }
        Some(lingering)
    }

    /// Sends a message with them; from then on nobody else has them. A process does it that ends then: no socket lingers in one,
    /// where this one could be the last to close them.
    pub fn send(&mut self, to: &OwnedFd, message: &[u8]) {
        let (go, waits) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let raw: Vec<i32> = self.sockets.iter().map(AsRawFd::as_raw_fd).collect();
        let (rights, bytes) = ([ControlMessage::ScmRights(&raw)], [IoSlice::new(message)]);
        // SAFETY: the child makes system calls, and the C library gives it an allocator that no lost thread holds.
        let child = match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let _ = recv(waits.as_raw_fd(), &mut [0], MsgFlags::empty());
                let sent = sendmsg::<()>(to.as_raw_fd(), &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None);
                // SAFETY: no pointers.
                unsafe { libc::_exit(i32::from(sent != Ok(message.len()))) }
            }
            ForkResult::Parent { child } => child,
        };
        self.sockets.clear();
        send(go.as_raw_fd(), b"x", MsgFlags::empty()).unwrap();
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
    }
}
