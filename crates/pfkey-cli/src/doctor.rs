//! `doctor`: which backend serves here, and what the kernel lacks.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use pfkey_socket::report::Report;
use pfkey_socket::{Backend, SERVICE_PATH, extras, find_pfkeyd};

use crate::algorithms;
use crate::channel::Channel;
use crate::failure::Failure;
use crate::model::names;
use crate::output::{Out, Record, Value, View, show};

/// CAP_NET_ADMIN's bit.
const NET_ADMIN: u32 = 12;

struct Findings(Vec<Record>);

impl Findings {
    fn add(&mut self, what: &str, found: &str, why: String) {
        self.0.push(vec![
            ("what", Value::Text(what.to_owned())),
            ("found", Value::Text(found.to_owned())),
            ("why", Value::Text(why)),
        ]);
    }

    /// The same of the last one, for programs.
    fn with(&mut self, fields: impl IntoIterator<Item = (&'static str, Value)>) {
        if let Some(last) = self.0.last_mut() {
            last.extend(fields);
        }
    }
}

/// Shows what was found; fails if no backend would serve.
pub fn doctor(view: View) -> Result<(), Failure> {
    let mut findings = Findings(Vec::new());
    let value = std::env::var("PFKEY_BACKEND").unwrap_or_default();
    let backend = Backend::from_environment();
    match &backend {
        Ok(_) if value.is_empty() => findings.add("PFKEY_BACKEND", "ok", "not set, which means auto".to_owned()),
        Ok(_) => findings.add("PFKEY_BACKEND", "ok", value),
        Err(error) => findings.add("PFKEY_BACKEND", "failed", error.to_string()),
    }
    kernel(&mut findings);
    let path = match &backend {
        Ok(Backend::Service(path)) => path,
        _ => Path::new(SERVICE_PATH),
    };
    service(path, &mut findings);
    match find_pfkeyd() {
        Ok(path) => findings.add("pfkeyd", "ok", path.display().to_string()),
        Err(error) => findings.add("pfkeyd", "missing", error.to_string()),
    }
    let opened = backend.map_err(Failure::from).and_then(|backend| {
        let mut channel = Channel::open_with(&backend)?;
        let served = channel.is_served();
        let by_service = channel.is_of_service();
        let algorithms = algorithms::list(&mut channel)?;
        Ok((backend, served, by_service, algorithms))
    });
    let result = match opened {
        Ok((backend, served, by_service, algorithms)) => {
            let chosen = match (&backend, served) {
                (Backend::Auto, false) => "afkey: the kernel has AF_KEY, nothing of ours is in the way".to_owned(),
                (Backend::Auto, true) if by_service => format!("service: the machine's pfkeyd on {SERVICE_PATH}"),
                (Backend::Auto, true) if extras().is_ok_and(|extras| !extras.is_none()) => {
                    "xfrm: PFKEY_ALGORITHMS asks for more than AF_KEY has; a private pfkeyd speaks XFRM".to_owned()
                }
                (Backend::Auto, true) => "xfrm: the kernel has no AF_KEY; a private pfkeyd speaks XFRM".to_owned(),
                (Backend::AfKey, _) => "afkey: asked for by PFKEY_BACKEND".to_owned(),
                (Backend::Xfrm, _) => "xfrm: asked for by PFKEY_BACKEND".to_owned(),
                (Backend::Embedded, _) => "embedded: asked for by PFKEY_BACKEND; it protects no packet".to_owned(),
                (Backend::Service(path), _) => format!("service: the machine's pfkeyd on {}", path.display()),
                (Backend::Unix(path), _) => format!("the pfkeyd that listens on {}", path.display()),
            };
            findings.add("algorithms", "ok", lacking(&algorithms));
            findings.add("backend", "ok", chosen);
            Ok(())
        }
        Err(failure) => {
            findings.add("backend", "failed", failure.to_string().replace("\nTry 'pfkey doctor'.", ""));
            Err(match failure {
                Failure::NoBackend(_) => Failure::Unserved,
                other => other,
            })
        }
    };
    show(&mut Out::new(), view, "findings", &["what", "found", "why"], &findings.0)?;
    result
}

/// The machine's pfkeyd, with the sessions that this user may know of, or why there is none.
fn service(path: &Path, findings: &mut Findings) {
    let report = match pfkey_socket::ask(path) {
        Ok(report) => report,
        Err(error) => {
            let why = match error.raw_os_error().unwrap_or(0) {
                libc::ENOENT => "not enabled (systemctl enable --now pfkeyd.socket)",
                libc::ECONNREFUSED => "nobody listens there any more",
                libc::EACCES => "whoever listens there is neither root nor this user, or the file is not for this user",
                libc::ETIMEDOUT => "it does not answer",
                libc::EPROTO | libc::ECONNRESET => "it does not say who it is",
                _ => "",
            };
            let why = format!("{}: {error}; {why}", path.display());
            return findings.add("service", "missing", why.trim_end_matches("; ").to_owned());
        }
    };
    let Report { version, pid, pids, namespace, sessions } = report;
    // In another pid namespace the numbers are other processes' here.
    let same = std::fs::metadata("/proc/self/ns/pid").is_ok_and(|own| own.ino() == pids);
    let elsewhere = if same { "" } else { " of another pid namespace" };
    findings.add("service", "ok", format!("pfkeyd {version}, process {pid}{elsewhere}, on {}", path.display()));
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

/// What of the kernel matters.
fn kernel(findings: &mut Findings) {
    if let Ok(name) = nix::sys::utsname::uname() {
        findings.add("kernel", "ok", name.release().to_string_lossy().into_owned());
    }
    match pfkey_socket::try_af_key() {
        Ok(_) => findings.add("AF_KEY", "ok", "socket(PF_KEY) works".to_owned()),
        Err(error) => {
            let why = match error.raw_os_error().unwrap_or(0) {
                libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT => {
                    "the kernel is built without NET_KEY, or af_key is not loaded"
                }
                libc::EPERM | libc::EACCES => "it needs CAP_NET_ADMIN",
                _ => "",
            };
            findings.add("AF_KEY", "missing", format!("{error}; {why}").trim_end_matches("; ").to_owned());
        }
    }
    match pfkey_socket::try_xfrm() {
        Ok(()) => findings.add("XFRM_USER", "ok", "NETLINK_XFRM sockets work".to_owned()),
        Err(error) => findings.add("XFRM_USER", "missing", format!("NETLINK_XFRM: {error}")),
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    if effective >> NET_ADMIN & 1 == 1 {
        findings.add("CAP_NET_ADMIN", "ok", "this process has it".to_owned());
    } else {
        let why = "AF_KEY and XFRM need it; the embedded engine does not".to_owned();
        findings.add("CAP_NET_ADMIN", "missing", why);
    }
    let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    for module in ["af_key", "xfrm_user", "esp4", "esp6", "ah4", "ah6"] {
        let loaded = modules.lines().any(|line| line.split(' ').next() == Some(module));
        let built_in = std::path::Path::new("/sys/module").join(module).exists();
        let (found, why) = match (loaded, built_in) {
            (true, _) => ("ok", "loaded as a module"),
            (false, true) => ("ok", "built in"),
            (false, false) => ("unused", "not loaded; a kernel that has it loads it when it is needed"),
        };
        findings.add(module, found, why.to_owned());
    }
    match std::fs::read_to_string("/proc/net/xfrm_stat") {
        Ok(text) => {
            let counts = text.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|n| n != "0"));
            let counts: Vec<_> = counts.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            let why = if counts.is_empty() { "no packet was dropped".to_owned() } else { counts.join(", ") };
            findings.add("xfrm_stat", "ok", why);
        }
        Err(_) => findings.add("xfrm_stat", "missing", "no counters of dropped packets (XFRM_STATISTICS)".to_owned()),
    }
}
