//! How much a server gives one client, and all of them together, before it says no or lets others go first.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, rlim_t};
use nix::sys::socket::{MsgFlags, send};

use pfkey_wire::hello::ALL_SOCKETS;
use pfkey_wire::{HEADER_LEN, Header, MessageType, Profile, SaType, Writer, split_batch};

/// Bytes of answers that may wait for one client (`SO_SNDBUF`; the kernel charges up to twice as much); the client's own
/// `SO_RCVBUF` does not matter on such a socket. Thousands of a dump's messages: the fewer, the more often it waits.
pub const SEND_BUFFER: usize = 4 << 20;
/// The same for those who come when [`ALL_SEND_BUFFERS`] are given away: 212 992 bytes are charged, what an AF_KEY socket
/// has by default.
pub const SMALL_SEND_BUFFER: usize = 106_496;
/// Bytes that the kernel may charge for the large buffers of all clients. Idle readers fill them: every ADD goes to everybody.
pub const ALL_SEND_BUFFERS: usize = 256 << 20;

/// Clients at once. A descriptor each, and 208 KiB of waiting answers: less than half a gigabyte for all.
pub const MAX_CLIENTS: usize = 1024;
/// Descriptors that clients do not get: the server's own, the engine's, and those of dumps over netlink.
const SPARE_DESCRIPTORS: usize = 64;

/// Requests of a batch that are done in one turn of a client; the library sends no larger ones.
pub const TURN_MESSAGES: usize = 64;
/// Messages that the requests of a turn may cause, a millisecond's work: with a thousand clients a single ADD causes a thousand.
pub const TURN_DELIVERIES: usize = 256;
/// Messages of a dump that leave in the turn of its request: one system call.
pub const TURN_DUMPED: usize = 64;
/// Messages of dumps that leave before requests are looked at again, divided among the dumps: a few milliseconds' work.
pub const ROUND_DUMPED: usize = 512;
/// But each dump sends so many, or a thousand dumps would do nothing but wake up.
pub const LEAST_DUMPED: usize = 8;

/// Attempts at a system call that was interrupted; a client could send signals for ever, pfkeyd's own are blocked.
pub const ATTEMPTS: u32 = 8;

/// Clients that the descriptors of this process are enough for, at most [`MAX_CLIENTS`]. It is looked up once: a process that
/// has confined itself may not ask.
pub fn clients() -> usize {
    let descriptors = descriptors();
    MAX_CLIENTS.min(descriptors - SPARE_DESCRIPTORS.min(descriptors / 2))
}

/// The same for clients that bring sockets.
pub fn sessions() -> usize {
    clients().min(descriptors() / (2 + ALL_SOCKETS))
}

fn descriptors() -> usize {
    static DESCRIPTORS: OnceLock<usize> = OnceLock::new();
    *DESCRIPTORS.get_or_init(|| {
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(rlim_t::MAX, |(soft, _)| soft);
        usize::try_from(descriptors).unwrap_or(usize::MAX)
    })
}

/// Tells a client that there are too many: a message of type 0 with the errno ENOBUFS, and whoever drops the descriptor ends
/// the connection.
pub fn refuse(fd: BorrowedFd<'_>) {
    let mut bytes = [0; HEADER_LEN];
    let report = Header::new(MessageType::RESERVED, SaType::UNSPEC, 0, 0).error_report(libc::ENOBUFS as u8);
    if let Ok(message) = Writer::new(&mut bytes, report, Profile::Linux).finish() {
        let _ = send(fd.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    }
}

/// The bytes of a batch that are done in one turn, when each message may go to `sessions`.
pub fn turn(batch: &[u8], sessions: usize) -> usize {
    let most = (TURN_DELIVERIES / sessions.max(1)).clamp(1, TURN_MESSAGES);
    let (mut bytes, mut messages) = (0, 0);
    for message in split_batch(batch) {
        if messages == most {
            break;
        }
        bytes += message.len();
        messages += 1;
        if Header::read(message).is_some_and(|header| looks_at_all(header.msg_type)) {
            break;
        }
    }
    bytes
}

/// Requests that look at every SA or policy: their time grows with the database.
const fn looks_at_all(msg_type: MessageType) -> bool {
    matches!(
        msg_type,
        MessageType::FLUSH
            | MessageType::DUMP
            | MessageType::X_SPDFLUSH
            | MessageType::X_SPDDUMP
            | MessageType::X_MIGRATE
    )
}
