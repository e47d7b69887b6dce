//! `top`: who talks to whom now, and how fast.

mod app;
mod details;
mod draw;
mod model;
mod once;
mod screen;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pfkey_wire::MessageType;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::channel::{Channel, Received};
use crate::failure::Failure;
use crate::monitor;
use crate::output::{Format, Out, Value, View, json_line, printable, terminal_size};
use crate::overview::{LOUD, Snapshot};
use app::{App, Asked};
use screen::Screen;

/// The part of a processor that may be spent.
const SHARE: u32 = 20;
/// Messages that are read before there is another frame.
const MOST_MESSAGES: usize = 1000;
/// Between two frames that nobody asked for.
const LEAST_PAUSE: Duration = Duration::from_millis(250);

/// How it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// One frame.
    pub once: bool,
    /// Time between two refreshes, at least.
    pub interval: Duration,
}

/// Shows it until the user has enough.
pub fn top(view: View, options: Options) -> Result<(), Failure> {
    if options.once {
        return once(view, options);
    }
    if view.format == Format::Json {
        return Err(Failure::Usage("top: JSON is of one frame: --json --once".to_owned()));
    }
    if !screen::is_there() {
        return Err(Failure::Usage("top: this is no terminal; --once prints one frame".to_owned()));
    }
    // Before signals are blocked, which a pfkeyd that is started would inherit.
    let mut watch = Watch::open(view, options)?;
    let mut screen = Screen::take()?;
    watch.run(&mut screen)
}

/// Reads twice, because how fast something goes shows between two times only.
fn once(view: View, options: Options) -> Result<(), Failure> {
    let mut channel = Channel::open()?;
    let mut app = App::new(true, options.interval);
    app.model.update(Snapshot::read(&mut channel)?, &local(), Instant::now());
    std::thread::sleep(options.interval);
    app.model.update(Snapshot::read(&mut channel)?, &local(), Instant::now());
    let mut out = Out::new();
    if view.format == Format::Json {
        app.open_all();
        for record in once::records(&app) {
            json_line(&mut out, &record, false)?;
        }
        return Ok(out.flush()?);
    }
    let size = |name: &str, usual: u16| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    let (width, height) = terminal_size().unwrap_or_else(|| (size("COLUMNS", 80), size("LINES", 24)));
    app.arrange();
    for line in once::frame(&mut app, width.clamp(1, 500), height.clamp(1, 500))? {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

/// Addresses of this machine's interfaces.
fn local() -> BTreeSet<IpAddr> {
    let addresses = getifaddrs().into_iter().flatten().filter_map(|interface| interface.address);
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    addresses.filter_map(ip).collect()
}

/// What is looked at, and for whom.
struct Watch {
    app: App,
    least: Duration,
    /// For dumps; opened again after a failure.
    channel: Option<Channel>,
    /// For what is told unasked.
    events: Option<Channel>,
    /// It is told.
    is_listening: bool,
    next: Instant,
    /// What a refresh costs, with its frame.
    cost: Duration,
}

impl Watch {
    fn open(view: View, options: Options) -> Result<Self, Failure> {
        let events = Channel::open_as_others()?;
        let is_plain = !matches!(view.format, Format::Table { colour: true });
        let app = App::new(is_plain, options.interval);
        Ok(Self {
            app,
            least: options.interval,
            channel: Some(Channel::open()?),
            events: Some(events),
            is_listening: false,
            next: Instant::now(),
            cost: Duration::ZERO,
        })
    }

    fn run(&mut self, screen: &mut Screen) -> Result<(), Failure> {
        // The library begins to look for another size of the terminal.
        event::poll(Duration::ZERO)?;
        let mut drawn: Option<Instant> = None;
        let mut is_dirty = true;
        loop {
            let now = Instant::now();
            let is_due = self.next <= now && !self.app.is_paused;
            if is_due {
                self.refresh();
            }
            let is_early = drawn.is_some_and(|drawn| now.saturating_duration_since(drawn) < LEAST_PAUSE);
            if is_due || is_dirty && !is_early {
                let began = Instant::now();
                screen.terminal.draw(|frame| draw::draw(frame, &mut self.app))?;
                (drawn, is_dirty) = (Some(began), false);
                if is_due {
                    self.rest(began.elapsed());
                }
            }
            let wait = self.next.saturating_duration_since(Instant::now());
            let wait = match (self.app.is_paused, is_dirty) {
                (_, true) => Some(LEAST_PAUSE),
                (true, false) => None,
                (false, false) => Some(wait),
            };
            self.wait(screen, wait)?;
            is_dirty |= screen.has_resumed()?;
            is_dirty |= self.hear();
            while event::poll(Duration::ZERO)? {
                let asked = match event::read()? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => self.app.key(key),
                    Event::Resize(..) => Asked::Frame,
                    _ => continue,
                };
                // Keys are answered at once.
                (drawn, is_dirty) = (None, true);
                match asked {
                    Asked::Frame => {}
                    Asked::End => return Ok(()),
                    Asked::Stop => screen::stop(),
                    Asked::Read => {
                        screen.terminal.clear()?;
                        self.next = Instant::now();
                    }
                    Asked::Details(name) => self.app.details = Some((self.details(&name), 0)),
                }
            }
        }
    }

    /// Until something can be read, or the time has come.
    fn wait(&self, screen: &Screen, limit: Option<Duration>) -> Result<(), Failure> {
        let (stdin, resumed) = (io::stdin(), screen.resumed());
        let mut fds =
            vec![PollFd::new(stdin.as_fd(), PollFlags::POLLIN), PollFd::new(resumed.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.events.as_ref().map(|events| PollFd::new(events.as_fd(), PollFlags::POLLIN)));
        // Rounded up, so that the last millisecond is slept through.
        let limit =
            limit.map(|limit| PollTimeout::try_from(limit + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX));
        match poll(&mut fds, limit.unwrap_or(PollTimeout::NONE)) {
            // Another size of the terminal is told by a signal.
            Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Failure::io("poll", errno)),
            Ok(_) => {
                let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
                let is_gone = fds.first().and_then(PollFd::revents).is_some_and(|events| events.intersects(gone));
                if is_gone { Err(io::Error::from(io::ErrorKind::BrokenPipe).into()) } else { Ok(()) }
            }
        }
    }

    /// Reads everything again.
    fn refresh(&mut self) {
        let began = Instant::now();
        self.app.trouble = self.read().err().map(|failure| {
            self.channel = None;
            failure.to_string()
        });
        self.app.arrange();
        self.cost = began.elapsed();
    }

    /// When it will be read again: reading and drawing take no more than their share.
    fn rest(&mut self, drawing: Duration) {
        self.app.interval = self.least.max((self.cost + drawing) * SHARE);
        self.next = Instant::now() + self.app.interval;
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut channel = match self.channel.take() {
            Some(channel) => channel,
            None => Channel::open()?,
        };
        let is_loud = self.app.model.sas + self.app.model.rules.len() > LOUD;
        if is_loud && self.is_listening {
            self.listen(false);
        }
        let snapshot = Snapshot::read(&mut channel);
        if !self.is_listening {
            self.listen(true);
        }
        self.app.model.update(snapshot?, &local(), Instant::now());
        channel.forget_others()?;
        self.channel = Some(channel);
        Ok(())
    }

    fn listen(&mut self, on: bool) {
        self.is_listening = on;
        if self.events.as_mut().is_some_and(|events| events.listen(on).is_err()) {
            self.deaf();
        }
    }

    /// Nobody tells anything any more; SAs and policies are read all the same.
    fn deaf(&mut self) {
        self.events = None;
        self.app.event("nothing is told any more: the key engine is gone, or has begun anew".to_owned());
    }

    /// Takes in what was told, and says whether there is something new.
    fn hear(&mut self) -> bool {
        let mut any = false;
        for _ in 0..MOST_MESSAGES {
            let Some(events) = &mut self.events else { return any };
            match events.receive(Some(Instant::now()), told) {
                Ok(Some(line)) => {
                    // Who hears everything hears what everybody hears twice.
                    let line = line.filter(|line| self.app.events.back() != Some(line));
                    any |= line.is_some();
                    line.into_iter().for_each(|line| self.app.event(line));
                }
                Ok(None) => return any,
                Err(_) => {
                    self.deaf();
                    return true;
                }
            }
        }
        any
    }

    fn details(&mut self, name: &crate::overview::Name) -> Vec<String> {
        let mut lines = details::fields(&self.app.model, name);
        if let Some(flow) = details::flow(&self.app.model, name) {
            lines.push(String::new());
            lines.push("What becomes of a packet that it could be for:".to_owned());
            let explained = match self.channel.as_mut() {
                Some(channel) => crate::explain::lines(channel, &flow, details::MTU),
                None => Ok(Vec::new()),
            };
            lines.extend(
                explained.unwrap_or_else(|failure| vec![failure.to_string()]).into_iter().map(|l| format!("  {l}")),
            );
        }
        lines
    }
}

/// A message in a line. Dumps are not news.
fn told(received: &Received<'_>) -> Option<String> {
    let header = received.header;
    let is_dump = matches!(header.msg_type, MessageType::DUMP | MessageType::X_SPDDUMP | MessageType::X_PROMISC);
    if is_dump || header.pid == std::process::id() {
        return None;
    }
    let record = monitor::record(received);
    let find = |wanted: &str| record.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value);
    let text = |wanted: &str| match find(wanted) {
        Some(Value::Text(text) | Value::Said(text, _)) => Some(printable(text).to_string()),
        _ => None,
    };
    // What a program asks for is told again with its outcome.
    if find("role").is_some() && header.errno == 0 && header.pid != 0 {
        return None;
    }
    // The time of day is enough.
    let time = text("time").and_then(|time| time.get(11..19).map(str::to_owned));
    let mut words: Vec<String> = time.into_iter().collect();
    words.extend(["message", "limit", "direction", "protocol"].into_iter().filter_map(text).filter(|w| w != "unspec"));
    words.extend(
        text("source").zip(text("destination")).map(|(source, destination)| format!("{source} → {destination}")),
    );
    if let Some(Value::Hex(spi)) = find("spi") {
        words.push(format!("spi {spi:#010x}"));
    }
    words.extend(["state", "error"].into_iter().filter_map(text));
    if header.pid != 0 {
        words.push(format!("by {}", header.pid));
    }
    let line = words.join(" ");
    Some(line)
}
