//! `load`: a file of setkey's language.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::channel::Channel;
use crate::execute::execute;
use crate::failure::Failure;
use crate::output::{Out, View};
use crate::script::{Script, Source};
use crate::setkey::{Action, Command};
use crate::undo::Undo;

/// Commands from which on a bar shows how far the load is.
const LONG: usize = 1000;
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

/// Loads a file, or standard input for `-`.
pub fn file(view: View, path: &Path, options: Options) -> Result<(), Failure> {
    load(view, &Source::file(path)?, options)
}

/// Loads the words of a command line as one command.
pub fn words(view: View, command: &str, words: Vec<String>, kernel: bool) -> Result<(), Failure> {
    load(view, &Source::words(command, words), Options { kernel, ..Options::default() })
}

/// Carries out a file's commands on an engine that is a copy: nothing is shown, and the first refusal ends it.
pub fn into(channel: &mut Channel, view: View, path: &Path) -> Result<(), Failure> {
    let source = Source::file(path)?;
    let script = Script::parse(&source, false)?;
    for Command { at, action } in script.commands() {
        if !matches!(action, Action::Dump(_) | Action::SpdDump | Action::Get(_)) {
            execute(channel, &mut Out::new(), view, action)
                .map_err(|failure| Failure::Told(format!("{}: {failure}", script.place(*at))))?;
        }
    }
    Ok(())
}

fn load(view: View, source: &Source, options: Options) -> Result<(), Failure> {
    let script = Script::parse(source, options.kernel)?;
    script.warnings().for_each(|warning| eprintln!("{warning}"));
    if options.check || script.commands().is_empty() {
        return Ok(());
    }
    let (mut channel, mut out) = (Channel::open()?, Out::new());
    if options.all_or_nothing {
        all_or_nothing(&script, &mut channel, &mut out, view)
    } else {
        each(&script, &mut channel, &mut out, view)
    }
}

/// Carries out each command, whether others were refused or not.
fn each(script: &Script<'_>, channel: &mut Channel, out: &mut Out, view: View) -> Result<(), Failure> {
    let (name, total) = (script.name(), script.commands().len());
    let mut bar = Bar::new(total);
    let mut refused = 0_usize;
    for (done, Command { at, action }) in script.commands().iter().enumerate() {
        bar.show(done);
        let Err(failure) = execute(channel, out, view, action) else { continue };
        bar.clear();
        // Nobody may be reading any more.
        let _ = out.flush();
        if script.is_one_of_words() {
            return Err(failure);
        }
        eprintln!("{}: {failure}", script.place(*at));
        refused += 1;
        if !matches!(failure, Failure::Refused { .. }) {
            return Err(Failure::Told(format!("{name}: given up after {done} of {total} commands")));
        }
    }
    bar.clear();
    out.flush()?;
    if refused == 0 { Ok(()) } else { Err(Failure::Told(format!("{name}: {refused} of {total} commands refused"))) }
}

/// Carries out each command; undoes all that were done if one is refused.
fn all_or_nothing(script: &Script<'_>, channel: &mut Channel, out: &mut Out, view: View) -> Result<(), Failure> {
    let mut undo = Undo::new(channel)?;
    // A load that is interrupted halfway would be neither all nor nothing.
    let interrupts = interrupts().map_err(std::io::Error::from)?;
    let mut bar = Bar::new(script.commands().len());
    for (done, Command { at, action }) in script.commands().iter().enumerate() {
        bar.show(done);
        undo.note(action);
        let result = if matches!(interrupts.read_signal(), Ok(Some(_))) {
            Err(std::io::Error::from(std::io::ErrorKind::Interrupted).into())
        } else {
            execute(channel, out, view, action)
        };
        let Err(failure) = result else { continue };
        bar.clear();
        // Nobody may be reading any more; what was done is undone all the same.
        let _ = out.flush();
        let name = script.name();
        eprintln!("{}: {failure}", script.place(*at));
        let left = undo.undo(channel)?;
        left.iter().for_each(|what| eprintln!("{name}: could not be undone: {what}"));
        let done = if left.is_empty() { "everything was undone" } else { "the rest was undone" };
        return Err(Failure::Told(format!("{name}: {done}")));
    }
    bar.clear();
    Ok(out.flush()?)
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
