//! `load`: a file of setkey's language.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use zeroize::Zeroizing;

use crate::channel::Channel;
use crate::execute::execute;
use crate::failure::Failure;
use crate::output::{Out, View};
use crate::setkey::{Action, Command, Complaint, Lines, parse};
use crate::undo::Undo;

/// Commands from which on a bar shows how far the load is.
const LONG: usize = 1000;
/// What stands for a file's name where the text is a command line's.
const WORDS: &str = "arguments";
/// Time between two looks of the bar.
const BAR_PERIOD: Duration = Duration::from_millis(100);

/// How a file is loaded.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// Parse only.
    pub check: bool,
    /// Undo everything if anything is refused.
    pub all_or_nothing: bool,
    /// No copies of inbound policies for forwarded packets.
    pub kernel: bool,
}

/// Reads a whole file. Whoever wrote it put keys into it: no buffer is left behind.
fn read(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(File::from(std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?))
    } else {
        Box::new(File::open(path)?)
    };
    let mut text = Zeroizing::new(vec![0; 64 * 1024]);
    let mut len = 0;
    loop {
        if len == text.len() {
            let mut larger = Zeroizing::new(vec![0; text.len() * 2]);
            if let Some(start) = larger.get_mut(..len) {
                start.copy_from_slice(&text);
            }
            text = larger;
        }
        match source.read(text.get_mut(len..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    text.truncate(len);
    Ok(text)
}

/// Loads a file, or standard input for `-`.
pub fn file(view: View, path: &Path, options: Options) -> Result<(), Failure> {
    let name = if path == Path::new("-") { "-".to_owned() } else { path.display().to_string() };
    let text = read(path).map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
    load(view, &name, &text, options)
}

/// Carries out a file's commands on an engine that is a copy: nothing is shown, and the first refusal ends it.
pub fn into(channel: &mut Channel, view: View, path: &Path) -> Result<(), Failure> {
    let name = if path == Path::new("-") { "-".to_owned() } else { path.display().to_string() };
    let text = read(path).map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
    let parsed = parse(&text, false);
    let lines = Lines::new(&text);
    let place = |at| {
        let (line, column) = lines.locate(at);
        format!("{name}:{line}:{column}")
    };
    if !parsed.errors.is_empty() {
        let all: Vec<_> = parsed.errors.iter().map(|e| format!("{}: {}", place(e.at), e.text)).collect();
        return Err(Failure::Usage(all.join("\n")));
    }
    for Command { at, action } in &parsed.commands {
        if matches!(action, Action::Dump(_) | Action::SpdDump | Action::Get(_)) {
            continue;
        }
        execute(channel, &mut Out::new(), view, action).map_err(|f| Failure::Told(format!("{}: {f}", place(*at))))?;
    }
    Ok(())
}

/// Loads the words of a command line as one command.
pub fn words(view: View, command: &str, words: Vec<String>, kernel: bool) -> Result<(), Failure> {
    let words = Zeroizing::new(words);
    let mut text = Zeroizing::new(String::with_capacity(16 + words.iter().map(|w| w.len() + 1).sum::<usize>()));
    text.push_str(command);
    for word in words.iter() {
        text.push(' ');
        text.push_str(word);
    }
    text.push(';');
    load(view, WORDS, text.as_bytes(), Options { kernel, ..Options::default() })
}

fn load(view: View, name: &str, text: &[u8], options: Options) -> Result<(), Failure> {
    let from_words = name == WORDS;
    let parsed = parse(text, options.kernel);
    let lines = Lines::new(text);
    let place = |at| {
        let (line, column) = lines.locate(at);
        format!("{name}:{line}:{column}")
    };
    let told = |complaint: &Complaint, kind: &str| format!("{}: {kind}{}", place(complaint.at), complaint.text);
    if !parsed.errors.is_empty() {
        let all: Vec<_> = parsed.errors.iter().map(|e| told(e, "")).collect();
        return Err(Failure::Usage(all.join("\n")));
    }
    for warning in &parsed.warnings {
        eprintln!("{}", told(warning, "warning: "));
    }
    if options.check || parsed.commands.is_empty() {
        return Ok(());
    }
    let mut channel = Channel::open()?;
    let mut out = Out::new();
    let mut undo = if options.all_or_nothing { Some(Undo::new(&mut channel)?) } else { None };
    // A load that is interrupted halfway would be neither all nor nothing.
    let interrupts = if options.all_or_nothing { Some(interrupts().map_err(std::io::Error::from)?) } else { None };
    let mut bar = Bar::new(parsed.commands.len());
    let mut refused = 0_usize;
    for (done, Command { at, action }) in parsed.commands.iter().enumerate() {
        bar.show(done);
        if let Some(undo) = &mut undo {
            undo.note(action);
        }
        let interrupted = interrupts.as_ref().is_some_and(|signals| matches!(signals.read_signal(), Ok(Some(_))));
        let result = if interrupted {
            Err(std::io::Error::from(std::io::ErrorKind::Interrupted).into())
        } else {
            execute(&mut channel, &mut out, view, action)
        };
        let Err(failure) = result else { continue };
        bar.clear();
        // Nobody may be reading any more; what was done is undone all the same.
        let _ = out.flush();
        if from_words && parsed.commands.len() == 1 {
            return Err(failure);
        }
        eprintln!("{}: {failure}", place(*at));
        refused += 1;
        if let Some(undo) = &undo {
            let left = undo.undo(&mut channel)?;
            left.iter().for_each(|what| eprintln!("{name}: could not be undone: {what}"));
            let done = if left.is_empty() { "everything was undone" } else { "the rest was undone" };
            return Err(Failure::Told(format!("{name}: {done}")));
        }
        if !matches!(failure, Failure::Refused { .. }) {
            return Err(Failure::Told(format!("{name}: given up after {done} of {} commands", parsed.commands.len())));
        }
    }
    bar.clear();
    out.flush()?;
    if refused == 0 {
        return Ok(());
    }
    Err(Failure::Told(format!("{name}: {refused} of {} commands refused", parsed.commands.len())))
}

/// SIGINT, SIGTERM and SIGHUP, held back and readable.
fn interrupts() -> nix::Result<SignalFd> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// How far a long load is, on a terminal.
struct Bar {
    total: usize,
    next: Option<Instant>,
    shown: bool,
}

impl Bar {
    fn new(total: usize) -> Self {
        let wanted = total >= LONG && std::io::stderr().is_terminal();
        Self { total, next: wanted.then(Instant::now), shown: false }
    }

    fn show(&mut self, done: usize) {
        // The clock is not read for every command.
        let Some(next) = self.next.filter(|_| done % 64 == 0) else { return };
        let now = Instant::now();
        if now < next {
            return;
        }
        self.next = Some(now + BAR_PERIOD);
        self.shown = true;
        const WIDTH: usize = 40;
        let filled = WIDTH * done / self.total.max(1);
        let percent = 100 * done / self.total.max(1);
        let _ = write!(std::io::stderr(), "\r[{:<WIDTH$}] {percent:3} %  {done} of {}", "#".repeat(filled), self.total);
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
