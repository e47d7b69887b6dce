//! The server: one thread, few connections, each for one request and no longer than some seconds.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pfkey_wire::{ExtensionType, MessageType};

use super::families::{Heard, Wanted};
use super::{http, measure, service_path};
use crate::channel::{Channel, Received};
use crate::failure::Failure;
use crate::overview::LOUD;
use crate::tell::tell;

/// Connections at once; one more ends the oldest.
const MOST_CLIENTS: usize = 16;
/// How long a connection lasts.
const LIMIT: Duration = Duration::from_secs(10);
/// How old an answer may be, at least; at most it is four times as old as it took to make.
const FRESH: Duration = Duration::from_secs(1);
/// Messages that are read before clients have their turn again.
const MOST_MESSAGES: usize = 1000;

/// What the option says: an address with its port, or a port of this machine's own address.
///
/// # Errors
/// Why it says nothing.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    port.or_else(|_| text.parse()).map_err(|_| "expected PORT, ADDRESS:PORT or [ADDRESS]:PORT".to_owned())
}

/// Answers until it is ended, or the key engine is gone.
pub fn serve(wanted: Wanted, address: SocketAddr) -> Result<(), Failure> {
    let told = |error| Failure::Told(format!("listen on {address}: {error}"));
    let listener = TcpListener::bind(address).map_err(told)?;
    listener.set_nonblocking(true)?;
    let mut source = Source::open(wanted)?;
    tell(format_args!("http://{}/metrics", listener.local_addr().map_err(told)?));
    let mut clients: Vec<Client> = Vec::new();
    loop {
        wait(&listener, &source, &clients)?;
        source.listen()?;
        for client in &mut clients {
            client.go_on(&mut source);
        }
        clients.retain(|client| !client.is_over());
        accept(&listener, &mut clients);
    }
}

/// Until something can be done, or a connection has lasted too long.
fn wait(listener: &TcpListener, source: &Source, clients: &[Client]) -> Result<(), Failure> {
    let mut fds = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    fds.push(PollFd::new(source.events.as_fd(), PollFlags::POLLIN));
    fds.extend(clients.iter().map(|client| PollFd::new(client.stream.as_fd(), client.awaited())));
    let left = clients.iter().map(|client| client.end.saturating_duration_since(Instant::now())).min();
    // Rounded up, so that the last millisecond is slept through.
    let left = left.map(|left| left + Duration::from_millis(1));
    match poll(&mut fds, left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)))
    {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(Failure::io("poll", errno)),
    }
}

fn accept(listener: &TcpListener, clients: &mut Vec<Client>) {
    // A connection that broke off already, or no descriptor for it, is the client's trouble; each turn takes a few.
    for stream in listener.incoming().take(MOST_CLIENTS).map_while(Result::ok) {
        if stream.set_nonblocking(true).is_ok() {
            if clients.len() >= MOST_CLIENTS {
                clients.remove(0);
            }
            clients.push(Client { stream, end: Instant::now() + LIMIT, doing: Doing::Reading(Vec::new()) });
        }
    }
}

/// What a connection is at.
enum Doing {
    /// The request, so far.
    Reading(Vec<u8>),
    /// The answer, and how much of it was taken.
    Writing(Vec<u8>, usize),
    /// Everything was said; what the other side still says would reset the connection if nobody read it.
    Ending,
    /// It is gone.
    Over,
}

struct Client {
    stream: TcpStream,
    end: Instant,
    doing: Doing,
}

impl Client {
    fn is_over(&self) -> bool {
        matches!(self.doing, Doing::Over) || self.end <= Instant::now()
    }

    fn awaited(&self) -> PollFlags {
        if matches!(self.doing, Doing::Writing(..)) { PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    /// Does what can be done without waiting.
    fn go_on(&mut self, source: &mut Source) {
        loop {
            let gone = match &mut self.doing {
                Doing::Over => return,
                Doing::Reading(request) => {
                    let mut buffer = [0; 1024];
                    let read = self.stream.read(&mut buffer);
                    if let Ok(len @ 1..) = read {
                        request.extend_from_slice(buffer.get(..len).unwrap_or_default());
                        if http::is_whole(request) {
                            let answer = http::answer(request, || source.text());
                            self.doing = Doing::Writing(answer, 0);
                        } else if request.len() > http::MOST_REQUEST {
                            self.doing = Doing::Writing(http::too_long(), 0);
                        }
                    }
                    ended(read)
                }
                Doing::Writing(answer, written) => {
                    let rest = answer.get(*written..).unwrap_or_default();
                    let wrote = self.stream.write(rest);
                    if let Ok(len) = wrote {
                        *written += len;
                        if *written >= answer.len() {
                            let _ = self.stream.shutdown(Shutdown::Write);
                            self.doing = Doing::Ending;
                        }
                    }
                    ended(wrote)
                }
                Doing::Ending => ended(self.stream.read(&mut [0; 1024])),
            };
            match gone {
                Some(true) => self.doing = Doing::Over,
                Some(false) => return,
                None => {}
            }
        }
    }
}

/// Whether a connection is gone; `None`: something was moved.
fn ended(moved: io::Result<usize>) -> Option<bool> {
    match moved {
        Ok(0) => Some(true),
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::Interrupted => None,
        Err(error) => Some(error.kind() != ErrorKind::WouldBlock),
    }
}

/// Where the numbers come from.
struct Source {
    wanted: Wanted,
    service: PathBuf,
    /// For dumps; opened again after a failure.
    channel: Option<Channel>,
    /// For what is told unasked.
    events: Channel,
    heard: Heard,
    /// SAs and policies that there were last.
    entries: usize,
    /// The last text, when it was made, and how long that took.
    made: Option<(String, Instant, Duration)>,
}

impl Source {
    fn open(wanted: Wanted) -> Result<Self, Failure> {
        let mut events = Channel::open_as_others()?;
        events.listen(true)?;
        let channel = Some(Channel::open()?);
        let (service, heard) = (service_path()?, Heard::default());
        Ok(Self { wanted, service, channel, events, heard, entries: usize::MAX, made: None })
    }

    /// Counts what was told.
    fn listen(&mut self) -> Result<(), Failure> {
        for _ in 0..MOST_MESSAGES {
            let heard = &mut self.heard;
            let next = self.events.receive(Some(Instant::now()), |received| count(received, heard))?;
            if next.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// A text that is new enough.
    fn text(&mut self) -> Result<String, String> {
        if let Some((text, at, took)) = &self.made {
            if at.elapsed() < FRESH.max(*took * 4) {
                return Ok(text.clone());
            }
        }
        let began = Instant::now();
        let text = self.measure().map_err(|failure| {
            self.channel = None;
            failure.to_string()
        })?;
        self.made = Some((text.clone(), Instant::now(), began.elapsed()));
        Ok(text)
    }

    fn measure(&mut self) -> Result<String, Failure> {
        let mut channel = match self.channel.take() {
            Some(channel) => channel,
            None => Channel::open()?,
        };
        let is_loud = self.entries > LOUD;
        if is_loud {
            self.events.listen(false)?;
        }
        let measured = measure(&mut channel, &self.service, self.wanted, Some(self.heard));
        if is_loud {
            self.events.listen(true)?;
        }
        let (text, entries) = measured?;
        self.entries = entries;
        channel.forget_others()?;
        self.channel = Some(channel);
        Ok(text)
    }
}

/// What a message means to the counters. ACQUIREs of the kernel's and EXPIREs come from no process.
fn count(received: &Received<'_>, heard: &mut Heard) {
    let header = received.header;
    if header.pid != 0 || header.errno != 0 {
        return;
    }
    let is_hard = received.message.as_ref().is_some_and(|message| message.has(ExtensionType::LIFETIME_HARD));
    match header.msg_type {
        MessageType::ACQUIRE => heard.acquires += 1,
        MessageType::EXPIRE if is_hard => heard.hard_expiries += 1,
        MessageType::EXPIRE => heard.soft_expiries += 1,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn where_it_listens() {
        assert_eq!(address("9871").unwrap(), "127.0.0.1:9871".parse().unwrap());
        assert_eq!(address("[::1]:9871").unwrap(), "[::1]:9871".parse().unwrap());
        assert!(address("localhost:9871").is_err() && address(":1").is_err());
    }
}
