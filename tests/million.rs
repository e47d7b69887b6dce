//! A dump of a million SAs over a descriptor, to a reader that takes its time while another client adds and deletes.

#[path = "support/c.rs"]
mod c;

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use pfkey_rs::socket::{self, Backend};
use pfkey_rs::wire::layout::SadbSa;
use pfkey_rs::wire::{ExtensionType as Ext, Header, MessageType, Profile, SaType, SockaddrBytes, Writer};

const SAS: u32 = 1_000_000;
/// What another client does while the reader reads: one SA deleted and one added after so many messages.
const BETWEEN: u32 = 500;

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Resident bytes of a process and of those that it started, each: the engine is in the largest.
fn memory(process: u32) -> Vec<u64> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
    let pages = read("statm").split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    let children = read(&format!("task/{process}/children"));
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    std::iter::once(pages * 4096).chain(children.flat_map(memory)).collect()
}

impl Daemon {
    fn memory(&self) -> u64 {
        memory(self.0.id()).into_iter().max().unwrap_or(0)
    }
}

fn message(buffer: &mut [u8; 256], msg_type: MessageType, spi: u32) -> usize {
    let address = |n: u32| SockaddrBytes::new(std::net::Ipv4Addr::from(n).into(), 0);
    let mut w = Writer::new(buffer, Header::new(msg_type, SaType::AH, 1, 1), Profile::Linux);
    w.sa(SadbSa { spi: spi.into(), replay: 4, state: 1, auth: 2, ..Default::default() });
    w.address(Ext::ADDRESS_SRC, 0, 32, address(0xc000_0201).as_bytes());
    w.address(Ext::ADDRESS_DST, 0, 32, address(0x0a00_0000 + spi % 65_536).as_bytes());
    if msg_type == MessageType::ADD {
        w.key(Ext::KEY_AUTH, 128, &[7; 16]);
    }
    w.finish().expect("it fits").len()
}

/// Does a request and looks at its answer.
fn request(fd: &OwnedFd, msg_type: MessageType, spi: u32) {
    let mut buffer = [0; 256];
    let len = message(&mut buffer, msg_type, spi);
    socket::send(fd.as_raw_fd(), &buffer[..len]).expect("a request");
    let mut answer = [0; 512];
    let len = recv(fd.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT).expect("its answer is there");
    assert_eq!(Header::read(&answer[..len]).map(|h| h.errno), Some(0), "{msg_type:?} {spi}");
}

#[test]
fn a_slow_reader_gets_each_sa_that_lived_once() {
    let path = c::scratch("million").join("s");
    let (ready, started) = nix::unistd::pipe().unwrap();
    let child = Command::new(c::program("pfkeyd"))
        .args(["--listen", path.to_str().unwrap(), "--status", &started.as_raw_fd().to_string()])
        .spawn()
        .unwrap();
    let daemon = Daemon(child);
    drop(started);
    std::fs::File::from(ready).read_exact(&mut [0; 4]).expect("it listens");
    let backend = Backend::Unix(path);

    // The loader never reads: what it does not read is lost for it alone.
    let loader = socket::open_with(&backend).unwrap();
    let mut buffer = [0; 256];
    for spi in 1..=SAS {
        let len = message(&mut buffer, MessageType::ADD, 0x1000 + spi);
        assert_eq!(send(loader.as_raw_fd(), &buffer[..len], MsgFlags::empty()), Ok(len));
    }
    socket::settle(loader.as_raw_fd());
    drop(loader);

    let (writer, reader) = (socket::open_with(&backend).unwrap(), socket::open_with(&backend).unwrap());
    let before = daemon.memory();
    assert!(before > u64::from(SAS) * 100, "{before} bytes cannot hold so many SAs");
    let mut most = before;
    let mut header = [0; 16];
    Writer::new(&mut header, Header::new(MessageType::DUMP, SaType::AH, 9, 1), Profile::Linux).finish().unwrap();
    socket::send(reader.as_raw_fd(), &header).unwrap();

    let mut seen = vec![0_u8; SAS as usize + 1];
    let (mut read, mut changed, mut answer) = (0_u32, 0_u32, [0; 512]);
    loop {
        let len = match recv(reader.as_raw_fd(), &mut answer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            other => other.expect("the dump goes on"),
        };
        let header = Header::read(&answer[..len]).expect("a message");
        if header.msg_type != MessageType::DUMP {
            continue;
        }
        read += 1;
        assert!(header.seq == read || header.seq == 0, "message {read} has number {}", header.seq);
        let spi = u32::from_be_bytes([answer[20], answer[21], answer[22], answer[23]]) - 0x1000;
        *seen.get_mut(spi as usize).expect("an SA that was added after the dump began") += 1;
        if header.seq == 0 {
            break;
        }
        if read % BETWEEN == 0 {
            // Spread over what was dumped and what was not.
            let victim = 1 + changed.wrapping_mul(7919) % SAS;
            request(&writer, MessageType::DELETE, 0x1000 + victim);
            request(&writer, MessageType::ADD, 0x1000 + SAS + 1 + changed);
            seen[victim as usize] |= 0x80;
            changed += 1;
            most = most.max(daemon.memory());
        }
    }
    assert!(changed > 100);
    for (spi, seen) in seen.iter().enumerate().skip(1) {
        let (deleted, times) = (seen & 0x80 != 0, seen & 0x7f);
        assert!(times == 1 || (deleted && times == 0), "SA {spi}: {times} times, deleted: {deleted}");
    }
    let growth = most - before.min(most);
    eprintln!("{SAS} SAs: {read} messages, {changed} deleted and added meanwhile; pfkeyd grew by {growth} bytes");
    assert!(growth < 1 << 20, "pfkeyd grew by {growth} bytes");
}
