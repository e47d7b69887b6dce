//! Every system call of opening, sending, receiving and closing fails once, with each errno that it can have, and so does
//! every call of pfkeyd's loop: the caller gets a code, nothing hangs, no descriptor stays open, the next call works.

#[path = "support/c.rs"]
mod c;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls of one name one after the other in a process are tried up to so many.
const ALIKE: usize = 2;
/// At once. Nearly all of the time is waiting.
const WORKERS: usize = 4;
/// A case that runs on longer hangs.
const SECONDS: &str = "20";

/// The call never came: how far a process gets before another acts is chance.
const NEVER_CAME: i32 = 122;
/// It is tried so often, then.
const TRIES: usize = 3;
/// The client's session was ended.
const ENDED: i32 = 3;

struct Case {
    /// Process, call and how many such were before it, as `inject` names them.
    place: String,
    errno: String,
}

impl Case {
    fn name(&self) -> &str {
        self.place.split(':').nth(1).unwrap_or_default()
    }

    /// Whether a session may end for it: an errno that does not pass, no memory to watch the descriptor, or nobody knows
    /// whose it is.
    fn may_end_the_session(&self) -> bool {
        self.errno == "EIO" || matches!(self.name(), "epoll_ctl" | "getsockopt")
    }
}

struct Faults {
    inject: PathBuf,
    /// What of the command's calls is meant.
    flags: &'static [&'static str],
    command: Vec<PathBuf>,
}

impl Faults {
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(&self.inject)
            .args(["-m", "-t", SECONDS])
            .args(self.flags)
            .args(arguments)
            .arg("--")
            .args(&self.command)
            .env("PFKEY_BACKEND", "embedded")
            .env("PFKEYD", c::program("pfkeyd"))
            .output()
            .expect("inject runs")
    }

    /// Every call that is made, with each errno that it can have.
    fn cases(&self) -> Vec<Case> {
        let output = self.run(&["-l"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", output.status);
        let mut alike: HashMap<(String, String), usize> = HashMap::new();
        let mut cases = Vec::new();
        for line in String::from_utf8(output.stdout).expect("text").lines() {
            let mut words = line.split(' ').map(str::to_owned);
            let (Some(place), Some(mark)) = (words.next(), words.next()) else { continue };
            let name = place.rsplit_once(':').map(|(name, _)| name.to_owned()).unwrap_or_default();
            let seen = alike.entry((name, mark)).or_default();
            *seen += 1;
            if *seen <= ALIKE {
                cases.extend(words.map(|errno| Case { place: place.clone(), errno }));
            }
        }
        cases
    }

    /// Tries them all. `inject` says what went wrong, or the client does.
    fn try_all(&self, required: &[&str]) {
        let cases = self.cases();
        for name in required {
            assert!(cases.iter().any(|case| case.name() == *name), "no {name} among the calls");
        }
        let (next, came) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let wrong = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut output = self.run(&[&case.place, &case.errno]);
                        for _ in 1..TRIES {
                            if output.status.code() == Some(NEVER_CAME) {
                                output = self.run(&[&case.place, &case.errno]);
                            }
                        }
                        let status = output.status.code();
                        came.fetch_add(usize::from(status != Some(NEVER_CAME)), Ordering::Relaxed);
                        let right = match status {
                            Some(ENDED) => case.may_end_the_session(),
                            _ => matches!(status, Some(0 | NEVER_CAME)),
                        };
                        if !right {
                            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " / ");
                            let Case { place, errno } = case;
                            wrong.lock().unwrap().push(format!("{place} {errno}: {}: {said}", output.status));
                        }
                    }
                });
            }
        });
        let (came, mut wrong) = (came.into_inner(), wrong.into_inner().unwrap());
        wrong.sort();
        eprintln!("{} of {} faults injected, {} went wrong", came, cases.len(), wrong.len());
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }
}

/// The two programs.
fn built(dir: &Path) -> Option<(PathBuf, PathBuf)> {
    let sources = c::root().join("tests/faults");
    let inject = c::compile_plain(dir, "inject", &[sources.join("inject.c")], &[]);
    let client = c::compile(dir, "client", &[sources.join("client.c")], &[]);
    // Without marks nothing is listed; the answer says whether this kernel can do it at all.
    let tried = Command::new(&inject).args(["-l", "--", "true"]).output().expect("inject runs");
    if tried.status.code() == Some(125) {
        eprintln!("skipped: no faults: {}", String::from_utf8_lossy(&tried.stderr).trim());
        return None;
    }
    Some((inject, client))
}

#[test]
fn every_call_of_a_client_may_fail() {
    let Some((inject, client)) = built(&c::scratch("faults_client")) else { return };
    Faults { inject, flags: &[], command: vec![client] }.try_all(&["socketpair", "sendto", "recvmsg"]);
}

#[test]
fn every_call_of_a_private_pfkeyds_loop_may_fail() {
    let Some((inject, client)) = built(&c::scratch("faults_private")) else { return };
    let command = vec![client, "served".into()];
    Faults { inject, flags: &["-x"], command }.try_all(&["recvfrom", "sendto", "epoll_wait"]);
}

#[test]
fn every_call_of_a_listening_pfkeyds_loop_may_fail() {
    let Some((inject, client)) = built(&c::scratch("faults_listening")) else { return };
    let command = vec![c::program("pfkeyd").into(), "--".into(), client, "listened".into()];
    Faults { inject, flags: &[], command }.try_all(&["accept4", "recvfrom", "sendto", "epoll_wait"]);
}

#[test]
fn every_call_on_the_way_to_another_worker_may_fail() {
    let Some((inject, client)) = built(&c::scratch("faults_bereaved")) else { return };
    let command = vec![c::program("pfkeyd").into(), "--".into(), client, "bereaved".into()];
    Faults { inject, flags: &[], command }.try_all(&["socketpair", "sendmsg", "poll"]);
}
