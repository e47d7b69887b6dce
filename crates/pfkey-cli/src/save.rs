//! `save`: the SAD and the SPD as a file that `load` reads.

use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::path::Path;

use pfkey_wire::{PolicyDirection, SaType};

use crate::channel::Channel;
use crate::failure::Failure;
use crate::model::policy::{Policy, PolicyEntry};
use crate::model::sa::SaEntry;
use crate::output::Out;
use crate::private_file::{PrivateFile, readers};
use crate::state;
use crate::tell::tell;

/// Writes to a file that nobody else reads, or to standard output. What cannot be said is a failure unless `lossy`, after all that
/// can be said is written.
pub fn save(output: Option<&Path>, lossy: bool) -> Result<(), Failure> {
    let mut channel = Channel::open()?;
    let sas = state::sas(&mut channel, SaType::UNSPEC)?;
    let policies = state::policies(&mut channel)?;
    match output {
        Some(path) => {
            let told = |error| Failure::Told(format!("{}: {error}", path.display()));
            let file = PrivateFile::create(path).map_err(told)?;
            let lost = write(&mut Out::to(file.handle().map_err(told)?), &sas, &policies).map_err(told)?;
            file.keep().map_err(told)?;
            outcome(lost, lossy)
        }
        None => {
            if sas.iter().any(SaEntry::has_key) {
                warn();
            }
            outcome(write(&mut Out::new(), &sas, &policies)?, lossy)
        }
    }
}

/// How many SAs and policies the file lacks, or has otherwise than they are.
#[derive(Clone, Copy, Default)]
struct Lost {
    left_out: usize,
    other: usize,
}

fn outcome(lost: Lost, lossy: bool) -> Result<(), Failure> {
    let Lost { left_out, other } = lost;
    if left_out + other == 0 {
        return Ok(());
    }
    let text = format!("{left_out} left out, {other} saved otherwise than they are");
    if lossy {
        tell(text);
        return Ok(());
    }
    Err(Failure::Told(format!("{text} (--lossy: this is no failure)")))
}

/// Says if somebody else may see what goes to standard output.
fn warn() {
    let stdout = std::io::stdout();
    if stdout.is_terminal() {
        tell("warning: keys go to this terminal");
    } else if let Some(mode) = readers(&stdout) {
        tell(format_args!(
            "warning: keys go to a file that others can read (mode {mode:04o}): \
             chmod 600, or 'pfkey save --output FILE'"
        ));
    }
}

/// Writes SAs and policies, oldest first, because the engine tells of the newest first.
fn write(out: &mut Out, sas: &[SaEntry], policies: &[PolicyEntry]) -> std::io::Result<Lost> {
    let mut lost = Lost::default();
    writeln!(out, "# SAs and policies as pfkey save found them. It holds keys: keep it from others' eyes.")?;
    for entry in sas.iter().rev() {
        match entry.command() {
            Ok(command) => {
                if entry.report.partial {
                    lost.other += 1;
                    otherwise(out, &entry.sa.title(), "its selector has more than a source, which PF_KEY cannot say")?;
                }
                out.write_all(command.as_bytes())?;
                writeln!(out)?;
            }
            Err(why) => {
                lost.left_out += 1;
                left_out(out, &entry.sa.title(), why)?;
            }
        }
    }
    let forwarded: HashSet<_> = policies
        .iter()
        .map(|entry| &entry.policy)
        .filter(|policy| policy.spec.direction == PolicyDirection::FWD)
        .map(Policy::selector)
        .collect();
    for entry in policies.iter().rev().filter(|entry| !entry.is_of_socket()) {
        // An explicit copy for forwarded packets keeps load from making its own, so "-k" is needed only without.
        let copied = forwarded.contains(&entry.policy.forwarded().selector());
        match entry.command(copied) {
            Ok((command, note)) => {
                let partial = "it has an interface, limits, or details of its requests that PF_KEY cannot say";
                let partial = entry.partial.then_some(partial);
                lost.other += usize::from(note.or(partial).is_some());
                for note in note.into_iter().chain(partial) {
                    otherwise(out, &entry.policy.title(), note)?;
                }
                writeln!(out, "{command}")?;
            }
            Err(why) => {
                lost.left_out += 1;
                left_out(out, &entry.policy.title(), why)?;
            }
        }
    }
    out.flush()?;
    Ok(lost)
}

fn otherwise(out: &mut Out, title: &str, note: &str) -> std::io::Result<()> {
    tell(format_args!("warning: {title}: {note}"));
    writeln!(out, "# {note}:")
}

fn left_out(out: &mut Out, title: &str, why: &str) -> std::io::Result<()> {
    tell(format_args!("warning: left out: {title}: {why}"));
    writeln!(out, "# left out: {title}: {why}")
}
