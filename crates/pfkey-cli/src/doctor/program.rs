//! `doctor BINARY`: what a program is, the unit that starts it, and the way.

use std::path::Path;

use super::binary::Binary;
use super::way::{self, Way};
use super::{Findings, adopt, unit};
use crate::failure::Failure;
use crate::output::View;

/// Tells it.
pub fn program(view: View, path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let binary = Binary::read(path).map_err(|why| Failure::Told(format!("doctor: {shown}: {why}")))?;
    let mut findings = Findings::default();
    let (way, why) = way::of(&binary);
    match way.prefix() {
        Some(prefix) => findings.add("way", "ok", format!("{prefix} {shown}: {why}")),
        None => findings.add("way", if way == Way::Nothing { "ok" } else { "unused" }, why),
    }
    if matches!(way, Way::Library | Way::Run) {
        findings.add("rebuild", "unused", "or, if it can be, link it again with -lpfkey_rs: docs/linking.md");
    }
    if let Some(lack) = way.lack() {
        findings.add("install", "missing", lack);
    }
    findings.add("binary", "ok", what_it_is(&binary));
    if !binary.needed.is_empty() {
        findings.add("links", "ok", binary.needed.join(", "));
    }
    let mut file = None;
    for unit in unit::of_program(path) {
        let started = unit.exec.iter().any(unit::Exec::is_run);
        let how = if started { ", which starts it so" } else { "" };
        findings.add("unit", "ok", format!("{} ({}){how}", unit.name, unit.path.display()));
        for caution in adopt::cautions(&unit) {
            findings.add("caution", "partly", format!("{}: {caution}", unit.name));
        }
        if started || file.is_some() || matches!(way, Way::Nothing | Way::Unknown) {
            continue;
        }
        match adopt::drop_in(&unit, way) {
            Ok(text) => {
                findings.add("adopt", "unused", format!("pfkey doctor --adopt {} writes its drop-in", unit.name));
                file = Some((adopt::place(&unit.name), text));
            }
            Err(why) => findings.add("adopt", "failed", format!("{}: {why}", unit.name)),
        }
    }
    match file {
        Some((place, text)) => findings.show_with_file(view, &place, &text)?,
        None => findings.show(view)?,
    }
    Ok(())
}

fn what_it_is(binary: &Binary) -> String {
    let kind = match (&binary.script_of, binary.is_library, binary.is_static) {
        (Some(_), ..) => "a script",
        (_, true, _) => "a library",
        (_, _, true) => "a static program",
        _ => "a dynamic program",
    };
    let facts = [
        (binary.script_of.is_none(), if binary.is_32 { "32 bits" } else { "64 bits" }),
        (binary.is_go, "Go"),
        (binary.is_musl, "musl"),
        (binary.is_set_id, "set-user-ID or set-group-ID"),
        (binary.has_capabilities, "file capabilities"),
        (binary.calls_libipsec, "calls libipsec"),
        (binary.calls_socket, "calls socket"),
    ];
    let facts = facts.iter().filter(|(is_so, _)| *is_so).map(|(_, fact)| *fact);
    std::iter::once(kind).chain(facts).collect::<Vec<_>>().join(", ")
}
