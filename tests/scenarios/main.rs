//! Scenarios: messages in, and what every open PF_KEY socket then receives.
//!
//! A scenario runs on the embedded engine in memory, on a pfkeyd over its socket, and on a real kernel's AF_KEY.
//! What a kernel answered is recorded under `tests/transcripts/KERNEL/` (`tests/kernel/check` records and compares);
//! the engine has to say the same, but for the differences that `explained.txt` names with their reason.

mod backend;
mod backpressure;
#[allow(dead_code, reason = "others need more of it")]
mod build;
mod catalogue;
mod message;
mod migrate;
mod network;
mod random;
#[path = "../support/splitmix.rs"]
mod splitmix;
mod traffic;
mod transcript;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backend::{AfKey, Machine, Memory, Served, Xfrm};

/// The kernel that the engine is held against.
const REFERENCE: &str = "7.2";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

/// Scenario name → transcript, from a file of blocks that begin with `== NAME`.
fn read(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.split("== ")
        .skip(1)
        .map(|block| {
            let (name, body) = block.split_once('\n').expect("a name and a body");
            (name.to_owned(), body.trim_end().to_owned())
        })
        .collect()
}

/// Differences from AF_KEY that stay, by scenario, with their reason: lines of `NAME: REASON` in a file of that name,
/// and in one for this kernel alone.
fn explained(name: &str, kernel: &str) -> BTreeMap<String, String> {
    let mut text = std::fs::read_to_string(directory().join(format!("{name}.txt"))).expect("explained differences");
    text += &std::fs::read_to_string(directory().join(kernel).join(format!("{name}.txt"))).unwrap_or_default();
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(": ").expect("NAME: REASON"))
        .map(|(name, reason)| (name.to_owned(), reason.to_owned()))
        .collect()
}

/// What scenarios are held against.
struct Reference {
    /// The kernel that AF_KEY was recorded on.
    kernel: String,
    /// Explained differences: a file of tests/transcripts, without `.txt`.
    explained: &'static str,
    /// Seconds pass for real, so a busy machine may be late for a timer: a scenario that waits has another chance.
    real_time: bool,
}

/// Which scenarios a backend can run.
#[derive(Clone, Copy)]
enum Whole {
    All,
    ButQueues,
    MessagesOnly,
}

/// PFKEY_ONLY is a part of the names of the scenarios to run; without it all run.
fn asked_for(scenario: &catalogue::Scenario) -> bool {
    std::env::var("PFKEY_ONLY").map_or(true, |part| scenario.name.contains(&part))
}

/// Compares transcripts with the reference; gives how many are identical and how many explained.
fn compare(
    what: &str,
    against: &Reference,
    whole: Whole,
    run: impl Fn(&catalogue::Scenario) -> String,
) -> (usize, usize) {
    let kernel = &against.kernel;
    let reference = read(&directory().join(kernel).join("afkey.txt"));
    let explained = explained(against.explained, kernel);
    let (mut identical, mut known, mut unexplained, mut differences) = (0, 0, 0, String::new());
    let scenarios: Vec<_> = catalogue::all()
        .into_iter()
        .filter(|s| match whole {
            Whole::All => true,
            Whole::ButQueues => !s.has_queues(),
            Whole::MessagesOnly => !(s.has_packets() || s.has_queues()),
        })
        .filter(asked_for)
        .collect();
    for scenario in &scenarios {
        let name = &scenario.name;
        let difference = match (reference.get(name), explained.get(name)) {
            (None, _) => format!("{name}: not recorded (tests/kernel/check --record)\n"),
            (Some(expected), reason) => {
                let mut got = run(scenario);
                if against.real_time && got.trim_end() != expected && reason.is_none() && scenario.waits() {
                    got = run(scenario);
                }
                match (got.trim_end() == expected, reason) {
                    (true, None) => {
                        identical += 1;
                        continue;
                    }
                    (false, Some(_)) => {
                        known += 1;
                        continue;
                    }
                    (true, Some(_)) => format!("{name}: explained, but there is no difference\n"),
                    (false, None) => format!("{name}\n--- AF_KEY\n{expected}\n--- {what}\n{got}\n"),
                }
            }
        };
        unexplained += 1;
        differences += &difference;
    }
    let total = scenarios.len();
    println!("{what}: {total} scenarios, {identical} identical, {known} explained, {unexplained} unexplained");
    assert!(differences.is_empty(), "differences from AF_KEY of {kernel}:\n{differences}");
    (identical, known)
}

fn engine_reference() -> Reference {
    Reference { kernel: REFERENCE.to_owned(), explained: "explained", real_time: false }
}

#[test]
fn the_engine_answers_as_af_key() {
    compare("engine", &engine_reference(), Whole::All, |scenario| {
        transcript::run(scenario, &mut Memory::new(scenario.has_packets()))
    });
}

#[test]
fn a_pfkeyd_answers_as_af_key() {
    compare("pfkeyd", &engine_reference(), Whole::MessagesOnly, |scenario| {
        transcript::run(scenario, &mut Served::new())
    });
}

/// Records what AF_KEY here answers into the directory of PFKEY_RECORD, or compares with the recording in
/// PFKEY_COMPARE; both are set by `tests/kernel/check`, inside a kernel.
#[test]
fn af_key() {
    let (record, expect) = (std::env::var_os("PFKEY_RECORD"), std::env::var_os("PFKEY_COMPARE"));
    if record.is_none() && expect.is_none() {
        return eprintln!("skipped: AF_KEY itself is run by tests/kernel/check, inside real kernels");
    }
    let scenarios = catalogue::all();
    let recorded: BTreeMap<String, String> = scenarios
        .iter()
        .map(|s| (s.name.clone(), transcript::run(s, &mut AfKey::new(s.has_packets())).trim_end().to_owned()))
        .collect();
    if let Some(dir) = record {
        let text: String = recorded.iter().map(|(name, body)| format!("== {name}\n{body}\n\n")).collect();
        std::fs::write(Path::new(&dir).join("afkey.txt"), text).expect("the recording");
    }
    if let Some(dir) = expect {
        let expected = read(&Path::new(&dir).join("afkey.txt"));
        // Seconds pass for real here, so a busy machine may be late for a timer: such a scenario has another chance.
        let again = |name: &String| {
            let scenario = scenarios.iter().find(|s| s.name == *name).expect("a scenario");
            scenario.waits() && {
                println!("again: {name}");
                let body = transcript::run(scenario, &mut AfKey::new(scenario.has_packets()));
                expected.get(name).map(String::as_str) == Some(body.trim_end())
            }
        };
        let different: Vec<&String> = recorded
            .iter()
            .filter(|(name, body)| expected.get(*name) != Some(body))
            .map(|(name, _)| name)
            .filter(|name| !again(name))
            .collect();
        println!("{} scenarios, {} as recorded", recorded.len(), recorded.len() - different.len());
        assert!(different.is_empty(), "not as recorded: {different:?}");
    }
}

/// Compares XFRM here with what AF_KEY of the kernel PFKEY_KERNEL answered; set by `tests/kernel/check`, inside a kernel
/// without AF_KEY.
#[test]
fn xfrm() {
    let Ok(kernel) = std::env::var("PFKEY_KERNEL") else {
        return eprintln!("skipped: XFRM is run by tests/kernel/check, inside real kernels");
    };
    let against = Reference { kernel, explained: "explained-xfrm", real_time: true };
    compare("xfrm", &against, Whole::All, |scenario| transcript::run(scenario, &mut Xfrm::new(scenario.has_packets())));
}

/// The same through the machine's pfkeyd, each socket opened by a process of its own. PFKEY_SERVICE is `here`, or `elsewhere` for
/// a pfkeyd in another network namespace than the programs.
#[test]
fn service() {
    let (Ok(kernel), Ok(place)) = (std::env::var("PFKEY_KERNEL"), std::env::var("PFKEY_SERVICE")) else {
        return eprintln!("skipped: the service is run by tests/kernel/service, inside real kernels");
    };
    let against = Reference { kernel, explained: "explained-xfrm", real_time: true };
    // How much waits at a descriptor depends on pfkeyd's buffer.
    compare("service", &against, Whole::ButQueues, |scenario| {
        transcript::run(scenario, &mut Machine::new(scenario.has_packets(), place == "elsewhere"))
    });
}

/// Here the kernel decides what it has; what it says through the machine's pfkeyd has to be what a hub of one process says.
#[test]
fn the_machines_pfkeyd_answers_as_one_hub() {
    if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() || pfkey_rs::xfrm::Netlink::open().is_err() {
        return eprintln!("skipped: it needs root, network namespaces and XFRM");
    }
    let scenarios = catalogue::all().into_iter().filter(|s| !(s.has_packets() || s.has_queues())).filter(asked_for);
    let several = scenarios.filter(|s| s.sockets() > 1);
    // All of them take minutes, and are run in kernels (`service`).
    let about_sockets = |name: &str| ["audience", "promisc", "register", "dump"].iter().any(|part| name.contains(part));
    let named = std::env::var_os("PFKEY_ONLY").is_some();
    let (mut run, mut differences) = (0, String::new());
    for (_, scenario) in several.enumerate().filter(|(n, s)| named || n % 25 == 0 || about_sockets(&s.name)) {
        for elsewhere in [false, true] {
            run += 1;
            let mut both = || {
                let expected = transcript::run(&scenario, &mut Xfrm::new(false));
                (expected, transcript::run(&scenario, &mut Machine::new(false, elsewhere)))
            };
            // A policy is shown differently after its first second, which a busy machine may take for one of the two.
            let (expected, got) = Some(both()).filter(|(one, other)| one == other).unwrap_or_else(&mut both);
            if got != expected {
                let name = &scenario.name;
                differences +=
                    &format!("{name}, elsewhere: {elsewhere}\n--- one hub\n{expected}\n--- service\n{got}\n");
            }
        }
    }
    println!("service: {run} runs");
    assert!(run > 0 && differences.is_empty(), "{differences}");
}

/// The process that opens a socket for another; started by `service`.
#[test]
fn opener() {
    if let Ok(number) = std::env::var("PFKEY_OPENER") {
        backend::open_for_another(&number);
    }
}

/// Random sequences, PFKEY_RANDOM=FIRST-LAST of them, on AF_KEY here and on the engine in this process, or with
/// PFKEY_RANDOM_XFRM on XFRM here, which is `service` for the machine's pfkeyd, each socket opened by a process of its own. Set by `tests/kernel/random`, inside a kernel. A difference is shrunk to the steps that
/// it needs.
#[test]
fn random_sequences() {
    let Ok(range) = std::env::var("PFKEY_RANDOM") else {
        return eprintln!("skipped: random sequences are run by tests/kernel/random, inside real kernels");
    };
    let (first, last) = range.split_once('-').expect("FIRST-LAST");
    let (first, last): (u64, u64) = (first.parse().expect("a number"), last.parse().expect("a number"));
    let way = std::env::var("PFKEY_RANDOM_XFRM").ok();
    let over_xfrm = way.is_some();
    let old = std::env::var_os("PFKEY_OLD_KERNEL").is_some();
    let kernel = random::Kernel { old: old && !over_xfrm, xfrm: over_xfrm, slow_register: old };
    let differs = |scenario: &catalogue::Scenario| {
        let theirs = transcript::run(scenario, &mut AfKey::new(scenario.has_packets()));
        let packets = scenario.has_packets();
        let ours = match way.as_deref() {
            None => transcript::run(scenario, &mut Memory::new(packets)),
            Some("service") => transcript::run(scenario, &mut Machine::new(packets, false)),
            Some(_) => transcript::run(scenario, &mut Xfrm::new(packets)),
        };
        (theirs != ours).then_some((theirs, ours))
    };
    let (mut run, mut different) = (0, 0);
    for seed in first..=last {
        run += 1;
        let mut scenario = random::scenario(seed, kernel);
        // A policy's first second shows in its reference count: what a busy machine makes wait has another chance.
        let Some(mut difference) = differs(&scenario).and_then(|_| differs(&scenario)) else { continue };
        different += 1;
        if different > 10 {
            continue;
        }
        // Leave out every step that the difference does not need.
        let mut at = scenario.steps.len();
        while at > 3 {
            at -= 1;
            let step = scenario.steps.remove(at);
            match differs(&scenario) {
                Some(smaller) => difference = smaller,
                None => scenario.steps.insert(at, step),
            }
        }
        println!("{}\n--- AF_KEY\n{}--- ours\n{}", scenario.name, difference.0, difference.1);
    }
    println!("{run} sequences, {} identical, {different} different", run - different);
    assert_eq!(different, 0);
}
