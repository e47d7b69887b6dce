//! The drop-in that brings a unit's program to PF_KEY: made, shown, written.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::Findings;
use super::binary::Binary;
use super::unit::{self, Unit};
use super::way::{self, Way};
use crate::failure::Failure;
use crate::output::View;
use crate::tell::tell;

/// Whose files are replaced: those that begin with it.
const MARK: &str = "# Made by pfkey doctor --adopt, see pfkey(1).\n";

/// Where a unit's drop-in goes.
pub fn place(name: &str) -> PathBuf {
    PathBuf::from(format!("/etc/systemd/system/{name}.d/pfkey.conf"))
}

/// What the drop-in says.
///
/// # Errors
/// Why there can be none.
pub fn drop_in(unit: &Unit, way: Way) -> Result<String, String> {
    let runner = way::pfkey_run().0;
    let mut text = format!("{MARK}[Service]\n");
    match way {
        Way::Nothing | Way::Unknown => return Err("it needs none".to_owned()),
        Way::Library => {
            let own = unit.library_path.as_ref().map(|path| format!(":{path}")).unwrap_or_default();
            text.push_str(&format!("Environment=LD_LIBRARY_PATH={}{own}\n", way::library().0.display()));
        }
        Way::Run | Way::Any => {
            let runner = if way == Way::Any { format!("{runner} --any") } else { runner.to_owned() };
            text.push_str("ExecStart=\n");
            for exec in &unit.exec {
                // One that runs already under pfkey-run stays.
                let line = if exec.is_run() { exec.as_written() } else { exec.under(&runner) };
                text.push_str(&format!("ExecStart={line}\n"));
            }
        }
    }
    if unit.restricts_families {
        // These are added to the list that the unit has.
        text.push_str("RestrictAddressFamilies=AF_UNIX AF_NETLINK\n");
    }
    if unit.filters_calls {
        text.push_str("# A pfkeyd is started, and confines itself.\nSystemCallFilter=@process seccomp\n");
    }
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err("its ExecStart= or Environment= has control characters".to_owned());
    }
    Ok(text)
}

/// What of a unit no drop-in mends.
pub fn cautions(unit: &Unit) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(root) = &unit.root {
        let text = "pfkeyd, pfkey-run and the library have to be in it, or nothing is found";
        all.push(format!("its root is {root}: {text}"));
    }
    if unit.lacks_capability {
        all.push("its CapabilityBoundingSet= has no CAP_NET_ADMIN".to_owned());
    }
    all
}

/// `doctor --adopt UNIT`.
pub fn adopt(view: View, name: &str, yes: bool) -> Result<(), Failure> {
    let told = |why: &str| Failure::Told(format!("doctor: {name}: {why}"));
    let name = if name.ends_with(".service") { name.to_owned() } else { format!("{name}.service") };
    if !unit::is_name(&name) {
        return Err(Failure::Usage(format!("doctor: --adopt: {name:?} is no name of a service")));
    }
    let place = place(&name);
    let there = match place.symlink_metadata() {
        Ok(stat) if stat.is_file() => unit::read(&place),
        Ok(_) => Some(String::new()),
        Err(_) => None,
    };
    let unit = unit::find(&name, Some(&place)).ok_or_else(|| told("there is no such unit, or it is masked"))?;
    let exec = unit.exec.first().ok_or_else(|| told("it has no ExecStart="))?;
    let program = exec.path().ok_or_else(|| told(&format!("{:?}: not found", exec.program)))?;
    let binary = Binary::read(&program).map_err(|why| told(&format!("{program:?}: {why}")))?;
    let (way, why) =
        if exec.is_run() { (Way::Nothing, "it is started so already".to_owned()) } else { way::of(&binary) };
    let mut findings = Findings::default();
    findings.add("unit", "ok", unit.path.display().to_string());
    findings.add("way", if way == Way::Unknown { "failed" } else { "ok" }, format!("{}: {why}", program.display()));
    cautions(&unit).into_iter().for_each(|caution| findings.add("caution", "partly", caution));
    if let Some(lack) = way.lack() {
        findings.add("install", "missing", lack);
    }
    if way == Way::Nothing || way == Way::Unknown {
        findings.show(view)?;
        return if way == Way::Nothing { Ok(()) } else { Err(told("no drop-in can be made for it")) };
    }
    let text = drop_in(&unit, way).map_err(|why| told(&why))?;
    findings.show_with_file(view, &place, &text)?;
    match there {
        Some(there) if there == text => {
            tell(format_args!("{} says that already", place.display()));
            return Ok(());
        }
        Some(there) if !there.starts_with(MARK) => {
            return Err(told(&format!("{} is there, and not doctor's: it is left alone", place.display())));
        }
        _ => {}
    }
    let failed = |error: io::Error| told(&format!("{}: {error}", place.display()));
    if !yes && !asked(&place).map_err(failed)? {
        tell(format_args!("nothing was written; --yes writes it"));
        return Ok(());
    }
    write(&place, &text, there.is_some()).map_err(failed)?;
    tell(format_args!("written; now: systemctl daemon-reload && systemctl restart {name}"));
    Ok(())
}

/// Whether somebody at a terminal says yes.
fn asked(place: &Path) -> io::Result<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(false);
    }
    eprint!("pfkey: write {}? [y/N] ", place.display());
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Writes it whole, and over nothing but what was seen.
fn write(place: &Path, text: &str, replace: bool) -> io::Result<()> {
    let directory = place.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory)?;
    let new = directory.join(format!(".pfkey.conf.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let written =
        written.and_then(|()| if replace { std::fs::rename(&new, place) } else { std::fs::hard_link(&new, place) });
    let _ = std::fs::remove_file(&new);
    written
}
