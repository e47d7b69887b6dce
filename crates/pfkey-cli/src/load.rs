//! `load`: a file of setkey's language.

use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use pfkey::Backend;
use pfkey_wire::{Extras, PolicyType};

use crate::carry::{Follow, carry_out};
use crate::channel::Channel;
use crate::failure::Failure;
use crate::output::{Out, View};
use crate::plan::{self, Side, Step, Subject};
use crate::script::{Script, Source};
use crate::setkey::{Action, Command};
use crate::tell::tell;
use crate::undo::Undo;
use crate::unused;

/// Commands from which on a bar shows how far the load is.
const LONG: usize = 1000;
/// Time between two looks of the bar.
const BAR_PERIOD: Duration = Duration::from_millis(100);

/// What is done with a file.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Way {
    /// Each command is carried out, whether others are refused or not.
    #[default]
    Each,
    /// Everything is undone if anything is refused.
    AllOrNothing,
    /// It is read only.
    Check,
    /// What would change if SAs and policies became those of the file is shown.
    Diff,
    /// SAs and policies become those of the file, or stay what they are.
    Replace,
}

/// How a file is loaded.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// What is done with it.
    pub way: Way,
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
    carry_into(channel, view, &Script::parse(&source, false)?)
}

fn carry_into(channel: &mut Channel, view: View, script: &Script<'_>) -> Result<(), Failure> {
    let quiet = |command: &&Command| !shows(&command.action);
    let commands: Vec<&Command> = script.commands().iter().filter(quiet).collect();
    let place = |index: usize| commands.get(index).map_or(script.name().to_owned(), |command| script.place(command.at));
    carry_out(channel, (&mut Out::new(), view), commands.iter().map(|command| &command.action), &mut IntoCopy { place })
}

/// Ends with the first refusal; whatever else was done is done to a copy.
struct IntoCopy<F: Fn(usize) -> String> {
    place: F,
}

impl<F: Fn(usize) -> String> Follow for IntoCopy<F> {
    fn may_join(&self, _: &Action) -> bool {
        true
    }

    fn next(&mut self, _: usize, _: &Action) -> Result<(), Failure> {
        Ok(())
    }

    fn failed(&mut self, index: usize, failure: Failure, _: &mut Out) -> Result<(), Failure> {
        Err(Failure::Told(format!("{}: {failure}", (self.place)(index))))
    }
}

fn load(view: View, source: &Source, options: Options) -> Result<(), Failure> {
    let script = Script::parse(source, options.kernel)?;
    script.warnings().for_each(tell);
    if options.way == Way::Check || script.commands().is_empty() {
        return Ok(());
    }
    let (mut channel, mut out) = (Channel::open()?, Out::new());
    if Backend::from_environment()? == Backend::Embedded
        && options.way != Way::Diff
        && script.commands().iter().any(|command| !shows(&command.action))
    {
        tell(
            "warning: an embedded engine ends with this command, with all that was loaded: start 'pfkeyd --listen PATH'",
        );
    }
    match options.way {
        Way::Diff => return plan::show(&mut out, view, &planned(&mut channel, view, &script)?),
        Way::Replace => {
            let steps = planned(&mut channel, view, &script)?;
            // A step says in its title what it is about, which no line of the file need do.
            let actions = steps.iter().flat_map(|step| &step.actions);
            all_or_nothing(&script, actions.map(|action| (None, action)), &mut channel, &mut out, view)?;
        }
        Way::AllOrNothing => {
            let actions = script.commands().iter().map(|Command { at, action }| (Some(*at), action));
            all_or_nothing(&script, actions, &mut channel, &mut out, view)?;
        }
        _ => each(&script, &mut channel, &mut out, view)?,
    }
    in_vain(&script, &mut channel);
    Ok(())
}

/// Whether an action changes nothing.
const fn shows(action: &Action) -> bool {
    matches!(action, Action::Dump(_) | Action::SpdDump | Action::Get(_))
}

/// Warns of SAs that no policy uses and of policies without SAs, where a file makes both: where it makes policies only, a key
/// manager makes the SAs.
fn in_vain(script: &Script<'_>, channel: &mut Channel) {
    let added = script.commands().iter().filter_map(|command| match &command.action {
        Action::Add(sa) | Action::Update(sa) => Some(sa.id()),
        _ => None,
    });
    let added: HashSet<_> = added.collect();
    let protects = |command: &Command| match &command.action {
        Action::SpdAdd(policy) | Action::SpdUpdate(policy) => policy.spec.policy_type == PolicyType::IPSEC,
        _ => false,
    };
    if !added.is_empty() && script.commands().iter().any(protects) {
        let name = script.name();
        match unused::told(channel, &added) {
            Ok(lines) => lines.iter().for_each(|what| tell(format_args!("{name}: warning: {what}"))),
            // What was loaded is loaded.
            Err(failure) => tell(format_args!("{name}: warning: SAs and policies were not compared: {failure}")),
        }
    }
}

/// What turns the engine's SAs and policies into those that the file makes of none, as the embedded engine has them then.
fn planned(channel: &mut Channel, view: View, script: &Script<'_>) -> Result<Vec<Step>, Failure> {
    if let Some(Command { at, .. }) =
        script.commands().iter().find(|command| matches!(command.action, Action::GetSpi(_)))
    {
        let text = "getspi asks for something, and says nothing that could be";
        return Err(Failure::Usage(format!("{}: {text}", script.place(*at))));
    }
    pfkey_socket::set_extras(Some(Extras { aead: true, ..pfkey_socket::extras()? }));
    let mut copy = Channel::open_with(&Backend::Copy)?;
    carry_into(&mut copy, view, script)?;
    let subject = Subject::of(script.commands());
    let mut wanted = Side::of(&mut copy, subject)?;
    if !channel.shows_xfrm() {
        wanted.without_xfrm();
    }
    Ok(plan::steps(&Side::of(channel, subject)?, &wanted))
}

/// Carries out each command, whether others were refused or not.
fn each(script: &Script<'_>, channel: &mut Channel, out: &mut Out, view: View) -> Result<(), Failure> {
    let (name, total) = (script.name(), script.commands().len());
    let mut follow = Each { script, bar: Bar::new(total), refused: 0 };
    carry_out(channel, (out, view), script.commands().iter().map(|command| &command.action), &mut follow)?;
    follow.bar.clear();
    out.flush()?;
    match follow.refused {
        0 => Ok(()),
        refused => Err(Failure::Told(format!("{name}: {refused} of {total} commands refused"))),
    }
}

struct Each<'s> {
    script: &'s Script<'s>,
    bar: Bar,
    refused: usize,
}

impl Follow for Each<'_> {
    fn may_join(&self, _: &Action) -> bool {
        true
    }

    fn next(&mut self, index: usize, _: &Action) -> Result<(), Failure> {
        self.bar.show(index);
        Ok(())
    }

    fn failed(&mut self, index: usize, failure: Failure, out: &mut Out) -> Result<(), Failure> {
        let script = self.script;
        self.bar.clear();
        // Nobody may be reading any more.
        let _ = out.flush();
        if script.is_one_of_words() {
            return Err(failure);
        }
        let place = script.commands().get(index).map_or(0, |command| command.at);
        tell(format_args!("{}: {failure}", script.place(place)));
        self.refused += 1;
        if matches!(failure, Failure::Refused { .. }) {
            return Ok(());
        }
        let total = script.commands().len();
        Err(Failure::Told(format!("{}: given up after {index} of {total} commands", script.name())))
    }
}

/// Carries out each action, which may have a place in the file; undoes all that were done if one is refused.
fn all_or_nothing<'c>(
    script: &Script<'_>,
    actions: impl Iterator<Item = (Option<usize>, &'c Action)>,
    channel: &mut Channel,
    out: &mut Out,
    view: View,
) -> Result<(), Failure> {
    let mut follow = AllOrNothing {
        undo: Undo::new(channel)?,
        // A load that is interrupted halfway would be neither all nor nothing.
        interrupts: interrupts().map_err(|errno| Failure::io("signalfd", errno))?,
        bar: Bar::new(script.commands().len()),
        first: None,
    };
    let (places, actions): (Vec<_>, Vec<_>) = actions.unzip();
    let ended = carry_out(channel, (out, view), actions.into_iter(), &mut follow);
    follow.bar.clear();
    // Nobody may be reading any more; what was done is undone all the same.
    let flushed = out.flush();
    let Some(index) = follow.first else { return ended.and(flushed.map_err(Failure::from)) };
    let Err(failure) = ended else { return Ok(()) };
    let name = script.name();
    let place = places.get(index).copied().flatten().map_or_else(|| name.to_owned(), |at| script.place(at));
    tell(format_args!("{place}: {failure}"));
    let left = follow.undo.undo(channel)?;
    left.iter().for_each(|what| tell(format_args!("{name}: could not be undone: {what}")));
    let done = if left.is_empty() { "everything was undone" } else { "the rest was undone" };
    Err(Failure::Told(format!("{name}: {done}")))
}

struct AllOrNothing {
    undo: Undo,
    interrupts: SignalFd,
    bar: Bar,
    /// Which of the actions was the first that failed.
    first: Option<usize>,
}

impl Follow for AllOrNothing {
    /// What is added can be done although one before it is refused: it is taken away again. What removes or replaces cannot: nothing
    /// may be without policy until it is put back.
    fn may_join(&self, action: &Action) -> bool {
        matches!(action, Action::Add(_) | Action::SpdAdd(_))
    }

    fn next(&mut self, index: usize, action: &Action) -> Result<(), Failure> {
        self.bar.show(index);
        if matches!(self.interrupts.read_signal(), Ok(Some(_))) {
            return Err(Failure::Told("interrupted by a signal".to_owned()));
        }
        self.undo.note(action);
        Ok(())
    }

    fn failed(&mut self, index: usize, failure: Failure, _: &mut Out) -> Result<(), Failure> {
        self.first = Some(index);
        Err(failure)
    }
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
