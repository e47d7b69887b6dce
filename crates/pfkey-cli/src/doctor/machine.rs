//! Which backend serves here, what it can do, and what the kernel lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use pfkey_socket::report::{Counted, Report};
use pfkey_socket::{Backend, SERVICE_PATH, extras, find_pfkeyd};

use super::Findings;
use super::modules::{self, Modules, State};
use super::trial::{self, NoTrial, Trial};
use super::{cases, daemons};
use crate::algorithms;
use crate::channel::Channel;
use crate::failure::Failure;
use crate::model::names;
use crate::output::{Record, Value};

/// CAP_NET_ADMIN's bit.
const NET_ADMIN: u32 = 12;

/// Finds out what serves, and what it can do. The exit status says it, too.
pub fn examine(findings: &mut Findings) -> Result<(), Failure> {
    let modules = Modules::read();
    let value = std::env::var("PFKEY_BACKEND").unwrap_or_default();
    let backend = Backend::from_environment();
    let path = match &backend {
        Ok(Backend::Service(path)) => path,
        _ => Path::new(SERVICE_PATH),
    };
    // First: afterwards it had sessions of this process.
    let mut of_service = Findings::default();
    let nobody_listens = service(path, &mut of_service);
    let trial = match (&backend, nobody_listens) {
        // A user's trial is of XFRM in its place, which this backend never asks.
        (Ok(Backend::Service(_)), Some(why)) => Err(NoTrial::Unserved(why)),
        // That pfkeyd acts where it is, not where a child goes.
        (Ok(Backend::Unix(_)), _) => {
            Err(NoTrial::Namespace("a pfkeyd that listens on a path acts where it is".to_owned()))
        }
        (Ok(backend), _) => trial::run(backend),
        (Err(error), _) => Err(NoTrial::Unserved(error.to_string())),
    };
    let opened = backend.as_ref().map_err(|error| Failure::Told(error.to_string())).and_then(|backend| {
        let mut channel = Channel::open_with(backend)?;
        let algorithms = algorithms::list(&mut channel)?;
        Ok((chosen(backend, channel.is_served(), channel.is_of_service()), algorithms))
    });
    let result = judge(&opened, &trial, &modules, findings);
    match &opened {
        Ok((chosen, _)) => findings.add("backend", "ok", chosen.as_str()),
        Err(failure) => findings.add("backend", "failed", failure.to_string()),
    }
    match &backend {
        Ok(_) if value.is_empty() => findings.add("PFKEY_BACKEND", "ok", "not set, which means auto"),
        Ok(_) => findings.add("PFKEY_BACKEND", "ok", value),
        Err(error) => findings.add("PFKEY_BACKEND", "failed", error.to_string()),
    }
    kernel(&modules, findings);
    findings.0.append(&mut of_service.0);
    match find_pfkeyd() {
        Ok(path) => findings.add("pfkeyd", "ok", path.display().to_string()),
        Err(error) => findings.add("pfkeyd", "missing", error.to_string()),
    }
    result
}

/// What serves, and why it.
fn chosen(backend: &Backend, served: bool, by_service: bool) -> String {
    match (backend, served) {
        (Backend::Auto, false) => "afkey: the kernel has AF_KEY, nothing of ours is in the way".to_owned(),
        (Backend::Auto, true) if by_service => format!("service: the machine's pfkeyd on {SERVICE_PATH}"),
        (Backend::Auto, true) if extras().is_ok_and(|extras| !extras.is_none()) => {
            "xfrm: PFKEY_ALGORITHMS asks for more than AF_KEY has; a private pfkeyd speaks XFRM".to_owned()
        }
        (Backend::Auto, true) => "xfrm: the kernel has no AF_KEY; a private pfkeyd speaks XFRM".to_owned(),
        (Backend::AfKey, _) => "afkey: asked for by PFKEY_BACKEND".to_owned(),
        (Backend::Xfrm, _) => "xfrm: asked for by PFKEY_BACKEND".to_owned(),
        (Backend::Embedded | Backend::Copy, _) => {
            "embedded: asked for by PFKEY_BACKEND; it protects no packet".to_owned()
        }
        (Backend::Service(path), _) => format!("service: the machine's pfkeyd on {}", path.display()),
        (Backend::Unix(path), _) => format!("the pfkeyd that listens on {}", path.display()),
    }
}

/// The verdict, the daemons, and what was tried.
fn judge(
    opened: &Result<(String, Vec<Record>), Failure>,
    trial: &Result<Trial, NoTrial>,
    modules: &Modules,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let mut verdict = Findings::default();
    match (opened, trial) {
        (Err(failure), Err(no_trial)) => {
            let why = match no_trial {
                // Who has no right hears of nothing else; the trial had it.
                NoTrial::Unserved(why) if failure.lacks_a_right() => why.clone(),
                _ => failure.to_string(),
            };
            let why = why.strip_prefix("no PF_KEY backend: ").unwrap_or(&why);
            verdict.add("verdict", "failed", format!("nothing serves PF_KEY here: {why}"));
            if let NoTrial::Namespace(why) = no_trial {
                verdict.add("trial", "unused", why.as_str());
            }
            findings.first(verdict);
            Err(Failure::Unserved)
        }
        (Ok((_, algorithms)), Err(NoTrial::Namespace(why) | NoTrial::Unserved(why))) => {
            verdict.add("verdict", "ok", "PF_KEY is served; what works was not tried");
            verdict.add("trial", "unused", why.as_str());
            verdict.add("algorithms", "ok", lacking(algorithms));
            findings.first(verdict);
            Ok(())
        }
        // What worked in the trial was another pfkeyd, and no right is missing that would change that.
        (Err(failure), Ok(_)) if has_net_admin() || !failure.lacks_a_right() => {
            verdict.add("verdict", "failed", format!("nothing serves PF_KEY here: {failure}"));
            findings.first(verdict);
            Err(Failure::Unserved)
        }
        (_, Ok(trial)) => {
            let (lacks, any_works) = daemons::judge(trial, modules, findings);
            let mut over = if trial.af_key { "over AF_KEY" } else { "over XFRM" }.to_owned();
            if matches!(Backend::from_environment(), Ok(Backend::Embedded)) {
                "in memory, where it protects no packet".clone_into(&mut over);
            }
            if opened.is_err() {
                over.push_str(" (not for this user, but for those with CAP_NET_ADMIN)");
            }
            let what =
                if lacks.is_empty() { "all that daemons commonly need".to_owned() } else { daemons::names(&lacks) };
            match (any_works, lacks.is_empty()) {
                (true, true) => verdict.add("verdict", "ok", format!("PF_KEY works here, {over}: {what}")),
                (true, false) => {
                    verdict.add("verdict", "partly", format!("PF_KEY works here, {over}; missing: {what}"))
                }
                (false, _) => {
                    let why = format!("PF_KEY is served here, {over}, but no daemon can work; missing: {what}");
                    verdict.add("verdict", "missing", why);
                }
            }
            findings.first(verdict);
            if !lacks.is_empty() {
                let each = lacks.iter().map(|lack| format!("{}: {}", lack.shown, lack.remedy));
                findings.add("missing", "missing", each.collect::<Vec<_>>().join("; "));
            }
            tried(trial, findings);
            if lacks.is_empty() { Ok(()) } else { Err(Failure::Lacking) }
        }
    }
}

/// What a trial found: protocols and policies, then algorithms.
fn tried(trial: &Trial, findings: &mut Findings) {
    for (what, algorithms) in [("tried", false), ("algorithms", true)] {
        let of_kind = || trial.results.iter().filter(|(name, _)| cases::is_algorithm(name) == algorithms);
        let works: Vec<&str> = of_kind().filter(|(_, result)| result.is_ok()).map(|(name, _)| name.as_str()).collect();
        let mut refused: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, result) in of_kind() {
            if let Err(refusal) = result {
                refused.entry(refusal.why.as_str()).or_default().insert(name);
            }
        }
        let mut text = if algorithms {
            format!("{} work: {}", works.len(), works.join(", "))
        } else {
            let whose = if trial.as_root_of_its_own { "a user and network namespace" } else { "a network namespace" };
            format!("{} of {} SAs and policies in {whose} of their own", works.len(), of_kind().count())
        };
        for (why, names) in &refused {
            text.push_str(&format!("; {}: {why}", cases::summary(names)));
        }
        findings.add(what, if refused.is_empty() { "ok" } else { "partly" }, text);
    }
}

/// The machine's pfkeyd, with the sessions that this user may know of, or why there is none. Gives back that where nobody
/// listens at all.
fn service(path: &Path, findings: &mut Findings) -> Option<String> {
    let report = match pfkey_socket::ask(path) {
        Ok(report) => report,
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(0);
            let why = match errno {
                libc::ENOENT => "not enabled (systemctl enable --now pfkeyd.socket)",
                libc::ECONNREFUSED => "nobody listens there any more",
                libc::EACCES => "whoever listens there is neither root nor this user, or the file is not for this user",
                libc::ETIMEDOUT => "it does not answer",
                libc::EPROTO | libc::ECONNRESET => "it does not say who it is",
                _ => "",
            };
            let why = format!("{}: {error}; {why}", path.display());
            let why = why.trim_end_matches("; ").to_owned();
            findings.add("service", "missing", why.as_str());
            return matches!(errno, libc::ENOENT | libc::ECONNREFUSED).then_some(why);
        }
    };
    let Report { version, pid, pids, namespace, counted, sessions, .. } = report;
    // In another pid namespace the numbers are other processes' here.
    let same = std::fs::metadata("/proc/self/ns/pid").is_ok_and(|own| own.ino() == pids);
    let elsewhere = if same { "" } else { " of another pid namespace" };
    let counted = counted.map_or_else(String::new, told_of);
    let why = format!("pfkeyd {version}, process {pid}{elsewhere}, on {}{counted}", path.display());
    findings.add("service", "ok", why);
    findings.with([("version", Value::Text(version)), ("pid", Value::Number(pid.into()))]);
    for session in sessions {
        let program = Some(session.pid).filter(|_| same).and_then(program);
        let network = if session.namespace == namespace { "" } else { ", of another network namespace" };
        let whose = program.as_deref().unwrap_or("a program that is not there any more");
        let whose = if same { whose } else { "a program" };
        let why = format!("{whose}, process {}{elsewhere}, user {}{network}", session.pid, session.uid);
        findings.add("session", "ok", why);
        findings.with(program.map(|name| ("program", Value::Text(name))));
        findings.with([
            ("pid", Value::Number(session.pid.into())),
            ("uid", Value::Number(session.uid.into())),
            ("network_namespace", Value::Number(session.namespace)),
        ]);
    }
    None
}

/// What a pfkeyd has counted, but for what is 0.
fn told_of(counted: Counted) -> String {
    let Counted { dropped, refused, workers, restarts } = counted;
    let counts = [
        (restarts, "restarts that its sessions outlived"),
        (workers, "workers replaced"),
        (dropped, "messages lost to queues that were full"),
        (refused, "clients refused"),
    ];
    counts.into_iter().filter(|(count, _)| *count != 0).map(|(count, what)| format!("; {count} {what}")).collect()
}

/// The name of the program that a process runs.
fn program(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// The algorithms that have a name here and that the engine lacks.
fn lacking(algorithms: &[Record]) -> String {
    let has = |name: &str| {
        let is_it = |(field, value): &(&str, Value)| *field == "name" && matches!(value, Value::Text(t) if t == name);
        algorithms.iter().any(|record| record.iter().any(is_it))
    };
    let mut missing: Vec<&str> = Vec::new();
    for table in [names::AUTH, names::ENCRYPT] {
        // The first of its names is the one that the list shows.
        let shown = names::all(table).filter_map(|algorithm| algorithm.names.first().copied());
        missing.extend(shown.filter(|name| !has(name)));
    }
    if missing.is_empty() {
        return algorithms.len().to_string();
    }
    format!("{}; it lacks {}", algorithms.len(), missing.join(", "))
}

/// Whether this process has CAP_NET_ADMIN.
fn has_net_admin() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    effective >> NET_ADMIN & 1 == 1
}

/// What of the kernel matters.
fn kernel(modules: &Modules, findings: &mut Findings) {
    if let Ok(name) = nix::sys::utsname::uname() {
        findings.add("kernel", "ok", name.release().to_string_lossy().into_owned());
    }
    match pfkey_socket::try_af_key() {
        Ok(_) => findings.add("AF_KEY", "ok", "socket(PF_KEY) works"),
        Err(error) => {
            let why = match error.raw_os_error().unwrap_or(0) {
                libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT => match modules.state(modules::AF_KEY) {
                    State::Absent => "the kernel is built without it (CONFIG_NET_KEY)",
                    State::Loadable => "modprobe af_key, while there is one",
                    _ => "the kernel is built without NET_KEY, or af_key is not loaded",
                },
                libc::EPERM | libc::EACCES => "it needs CAP_NET_ADMIN",
                _ => "",
            };
            findings.add("AF_KEY", "missing", format!("{error}; {why}").trim_end_matches("; "));
        }
    }
    match pfkey_socket::try_xfrm() {
        Ok(()) => findings.add("XFRM_USER", "ok", "NETLINK_XFRM sockets work"),
        Err(error) => {
            let remedy = match error.raw_os_error() {
                Some(libc::EOPNOTSUPP) => {
                    "programs of 32 bits need CONFIG_XFRM_USER_COMPAT, or a 64-bit pfkeyd (PFKEYD)".to_owned()
                }
                _ => modules.remedy(modules::XFRM_USER),
            };
            findings.add("XFRM_USER", "missing", format!("NETLINK_XFRM: {error}; {remedy}"));
        }
    }
    if has_net_admin() {
        findings.add("CAP_NET_ADMIN", "ok", "this process has it");
    } else {
        findings.add("CAP_NET_ADMIN", "missing", "AF_KEY and XFRM need it; the embedded engine does not");
    }
    let protocols = modules::protocols().filter_map(|part| {
        let state = match modules.state(part) {
            State::BuiltIn => "built in",
            State::Loaded => "loaded",
            State::Loadable => "can be loaded",
            State::Absent => "missing",
            State::Unknown => return None,
        };
        Some(format!("{} {state}", part.module))
    });
    let protocols = protocols.collect::<Vec<_>>().join(", ");
    match protocols.as_str() {
        "" => findings.add("modules", "unused", "this kernel has no directory in /lib/modules that says what it has"),
        _ => findings.add("modules", "ok", protocols),
    }
    match std::fs::read_to_string("/proc/net/xfrm_stat") {
        Ok(text) => {
            let counts = text.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|n| n != "0"));
            let counts: Vec<_> = counts.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            let why = if counts.is_empty() { "no packet was dropped".to_owned() } else { counts.join(", ") };
            findings.add("xfrm_stat", "ok", why);
        }
        Err(_) => findings.add("xfrm_stat", "missing", "no counters of dropped packets (XFRM_STATISTICS)"),
    }
}
