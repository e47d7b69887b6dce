//! The two descriptors that need more than safe wrappers: a TUN device, and a socket for ESP.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::socket::{MsgFlags, SockaddrIn, bind, recv, sendto};

/// A TUN device of this name: reading gives what the host sends there, writing is what it receives.
pub fn tun(name: &str) -> io::Result<File> {
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // struct ifreq: a name and a union, of which the flags are used.
    let mut request = [0_u8; 40];
    let place = request.get_mut(..name.len()).filter(|place| place.len() < libc::IFNAMSIZ);
    place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes a struct ifreq, which has 40 bytes and lives until the call returns.
    nix::errno::Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) })?;
    Ok(device)
}

/// A raw socket of an address for ESP.
pub struct EspSocket(pub OwnedFd);

impl EspSocket {
    pub fn open(local: Ipv4Addr) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers.
        let raw = nix::errno::Errno::result(unsafe { libc::socket(libc::AF_INET, kind, libc::IPPROTO_ESP) })?;
        // SAFETY: socket has just made it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        bind(raw, &SockaddrIn::from(std::net::SocketAddrV4::new(local, 0)))?;
        Ok(Self(fd))
    }

    /// Sends what stands behind the IP header.
    pub fn send(&self, to: Ipv4Addr, esp: &[u8]) -> io::Result<()> {
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
        sendto(self.0.as_raw_fd(), esp, &to, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }

    /// The next packet with its IP header, if one waits.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(len) => Ok(buffer.get(..len)),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}
