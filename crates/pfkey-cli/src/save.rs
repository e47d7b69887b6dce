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

/// Writes to a file that nobody else reads, or to standard output.
pub fn save(output: Option<&Path>) -> Result<(), Failure> {
    let mut channel = Channel::open()?;
    let sas = state::sas(&mut channel, SaType::UNSPEC)?;
    let policies = state::policies(&mut channel)?;
    match output {
        Some(path) => {
            let told = |error| Failure::Told(format!("{}: {error}", path.display()));
            let file = PrivateFile::create(path).map_err(told)?;
            write(&mut Out::to(file.handle().map_err(told)?), &sas, &policies).map_err(told)?;
            file.keep().map_err(told)
        }
        None => {
            if sas.iter().any(SaEntry::has_key) {
                warn();
            }
            Ok(write(&mut Out::new(), &sas, &policies)?)
        }
    }
}

/// Says if somebody else may see what goes to standard output.
fn warn() {
    let stdout = std::io::stdout();
    if stdout.is_terminal() {
        eprintln!("pfkey: warning: keys go to this terminal");
    } else if let Some(mode) = readers(&stdout) {
        eprintln!(
            "pfkey: warning: keys go to a file that others can read (mode {mode:04o}): \
             chmod 600, or 'pfkey save --output FILE'"
        );
    }
}

/// Writes SAs and policies, oldest first, because the engine tells of the newest first.
fn write(out: &mut Out, sas: &[SaEntry], policies: &[PolicyEntry]) -> std::io::Result<()> {
    writeln!(out, "# SAs and policies as pfkey save found them. It holds keys: keep it from others' eyes.")?;
    for entry in sas.iter().rev() {
        match entry.command() {
            Ok(command) => {
                out.write_all(command.as_bytes())?;
                writeln!(out)?;
            }
            Err(why) => left_out(out, &entry.sa.title(), why)?,
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
                if let Some(note) = note {
                    eprintln!("pfkey: warning: {}: {note}", entry.policy.title());
                    writeln!(out, "# {note}:")?;
                }
                writeln!(out, "{command}")?;
            }
            Err(why) => left_out(out, &entry.policy.title(), why)?,
        }
    }
    out.flush()
}

fn left_out(out: &mut Out, title: &str, why: &str) -> std::io::Result<()> {
    eprintln!("pfkey: warning: left out: {title}: {why}");
    writeln!(out, "# left out: {title}: {why}")
}
