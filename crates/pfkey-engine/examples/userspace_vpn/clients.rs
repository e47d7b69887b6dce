//! PF_KEY programs that fill the engine: a listening socket, and sessions of the hub.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, listen, recv, send, socket,
};
use pfkey_engine::Engine;
use pfkey_hub::{Hub, Queues, Service as _, SessionId, Time};
use pfkey_wire::MAX_MESSAGE_LEN;

/// The hub's sessions by their descriptors.
pub struct Clients {
    listener: OwnedFd,
    connected: Vec<(SessionId, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Clients {
    /// Listens on a path.
    pub fn listen(path: &Path) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&listener, nix::sys::socket::Backlog::new(16)?)?;
        Ok(Self { listener, connected: Vec::new(), buffer: vec![0; MAX_MESSAGE_LEN] })
    }

    /// What to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.listener.as_fd()).chain(self.connected.iter().map(|(_, fd)| fd.as_fd()))
    }

    /// Lets clients in and does what they ask. A request is consumed after its answers were sent: then the client knows that
    /// they are there.
    pub fn serve(&mut self, hub: &mut Hub<Engine>, queues: &mut Queues, now: Time) {
        while let Ok(raw) = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
            // SAFETY: accept4 has just made it.
            self.connected.push((hub.open(), unsafe { OwnedFd::from_raw_fd(raw) }));
        }
        for at in (0..self.connected.len()).rev() {
            let (id, raw) = (self.connected[at].0, self.connected[at].1.as_raw_fd());
            loop {
                match recv(raw, &mut self.buffer, MsgFlags::MSG_PEEK) {
                    Ok(len) if len > 0 => {
                        // A framing error is the sender's, who was told by its library.
                        let _ = hub.receive(id, &self.buffer[..len], now, queues);
                        self.flush(queues);
                        let _ = recv(raw, &mut [], MsgFlags::MSG_TRUNC);
                    }
                    // Who connects sends an empty message to know that it is served.
                    Ok(0) if !self.has_hung_up(at) => drop(recv(raw, &mut [], MsgFlags::empty())),
                    Err(Errno::EAGAIN | Errno::EINTR) => break,
                    Ok(_) | Err(_) => {
                        hub.close(id, now);
                        queues.close(id);
                        self.connected.remove(at);
                        break;
                    }
                }
            }
            if hub.is_dumping(id) {
                hub.writable(id, now, queues);
            }
        }
        self.flush(queues);
    }

    fn has_hung_up(&self, at: usize) -> bool {
        let mut polled = [PollFd::new(self.connected[at].1.as_fd(), PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO) != Ok(0)
    }

    /// Sends what waits for clients, as far as their sockets have room.
    pub fn flush(&self, queues: &mut Queues) {
        for (id, fd) in &self.connected {
            while let Some(message) = queues.first(*id) {
                match send(fd.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL) {
                    Err(Errno::EAGAIN) => break,
                    _ => drop(queues.pop(*id)),
                }
            }
        }
    }
}
