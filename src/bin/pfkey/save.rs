//! `save`: the SAD and the SPD as a file that `load` reads.

use std::collections::HashSet;
use std::io::{IsTerminal, Write};

use pfkey_rs::wire::{PolicyDirection, SaType};

use crate::channel::Channel;
use crate::failure::Failure;
use crate::model::policy::Policy;
use crate::output::Out;
use crate::state;

/// Writes the file to standard output: oldest first, because the engine tells of the newest first.
pub fn save() -> Result<(), Failure> {
    let mut channel = Channel::open()?;
    let sas = state::sas(&mut channel, SaType::UNSPEC)?;
    let policies = state::policies(&mut channel)?;
    if std::io::stdout().is_terminal() && sas.iter().any(|e| e.sa.auth_key.is_some() || e.sa.encrypt_key.is_some()) {
        eprintln!("pfkey: warning: keys go to this terminal");
    }
    let mut out = Out::new();
    writeln!(out, "# SAs and policies as pfkey save found them. It holds keys: keep it from others' eyes.")?;
    for entry in sas.iter().rev() {
        match entry.command() {
            Ok(command) => {
                out.write_all(command.as_bytes())?;
                writeln!(out)?;
            }
            Err(why) => left_out(&mut out, &entry.sa.title(), why)?,
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
            Err(why) => left_out(&mut out, &entry.policy.title(), why)?,
        }
    }
    Ok(out.flush()?)
}

fn left_out(out: &mut Out, title: &str, why: &str) -> std::io::Result<()> {
    eprintln!("pfkey: warning: left out: {title}: {why}");
    writeln!(out, "# left out: {title}: {why}")
}
