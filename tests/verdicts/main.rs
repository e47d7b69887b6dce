//! What becomes of packets: the errno of the sender, what leaves the host, the counters of `/proc/net/xfrm_stat`, the
//! ACQUIREs, and the path's MTU.
//!
//! A case runs on the embedded engine with its resolver, and inside real kernels, where real packets are sent. What a
//! kernel did is recorded under `tests/transcripts/KERNEL/verdicts.txt` (`tests/kernel/verdicts` records and compares);
//! the engine has to do the same, but for the differences that `explained-verdicts.txt` names with their reason.

#[path = "../scenarios/build.rs"]
#[allow(dead_code, reason = "the scenarios need more of it")]
mod build;
mod catalogue;
mod embedded;
mod kernel;
mod random;
#[path = "../support/splitmix.rs"]
mod splitmix;
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use embedded::Embedded;
use kernel::Kernel;
use pfkey_rs::engine::resolve::lookup::Resolver;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

/// Case → what happened, from a file of blocks that begin with `== NAME`.
fn read(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let block = |block: &str| {
        let (name, body) = block.split_once('\n').expect("a name and a body");
        (name.to_owned(), body.trim_end().to_owned())
    };
    text.split("== ").skip(1).map(block).collect()
}

/// Differences that stay: lines of `KERNEL NAME: REASON`.
fn explained(kernel: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(directory().join("explained-verdicts.txt")).expect("explained differences");
    let known = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.strip_prefix(kernel));
    let known = known.filter_map(|line| line.strip_prefix(' ')?.split_once(": "));
    known.map(|(name, reason)| (name.to_owned(), reason.to_owned())).collect()
}

/// Compares the engine with what a kernel did.
fn compare(kernel: &str, resolver: fn() -> Resolver) {
    let reference = read(&directory().join(kernel).join("verdicts.txt"));
    let mut explained = explained(kernel);
    let (mut identical, mut known, mut different) = (0, 0, String::new());
    for case in catalogue::all() {
        let expected = reference.get(case.name).map_or("not recorded", String::as_str);
        let got = case.run(&mut Embedded::new(resolver()));
        match (got.trim_end() == expected, explained.remove(case.name)) {
            (true, None) => identical += 1,
            (false, Some(_)) => known += 1,
            (true, Some(_)) => different += &format!("{}: explained, but there is no difference\n", case.name),
            (false, None) => different += &format!("{}\n--- {kernel}\n{expected}\n--- engine\n{got}\n", case.name),
        }
    }
    different.extend(explained.keys().map(|name| format!("{name}: explained, but there is no such case\n")));
    println!("engine, as {kernel}: {} verdicts, {identical} identical, {known} explained", catalogue::all().len());
    assert!(different.is_empty(), "differences from {kernel}:\n{different}");
}

#[test]
fn the_engine_decides_as_kernels_do() {
    for kernel in ["6.1", "6.12", "7.2"] {
        compare(kernel, Resolver::default);
    }
}

#[test]
fn without_a_flow_cache_it_decides_the_same() {
    compare("7.2", Resolver::without_cache);
}

/// Records what this kernel does into the directory of PFKEY_RECORD, or compares with the recording in PFKEY_COMPARE;
/// both are set by `tests/kernel/verdicts`, inside a kernel.
#[test]
fn kernel() {
    let (record, expect) = (std::env::var_os("PFKEY_RECORD"), std::env::var_os("PFKEY_COMPARE"));
    if record.is_none() && expect.is_none() {
        return eprintln!("skipped: a kernel's own verdicts are found out by tests/kernel/verdicts");
    }
    let done: Vec<(&str, String)> =
        catalogue::all().iter().map(|case| (case.name, case.run(&mut Kernel::new()).trim_end().to_owned())).collect();
    if let Some(dir) = record {
        let text: String = done.iter().map(|(name, body)| format!("== {name}\n{body}\n\n")).collect();
        std::fs::write(Path::new(&dir).join("verdicts.txt"), text).expect("the recording");
    }
    if let Some(dir) = expect {
        let expected = read(&Path::new(&dir).join("verdicts.txt"));
        let differs = |(name, body): &&(&str, String)| expected.get(*name) != Some(body);
        let different: Vec<&(&str, String)> = done.iter().filter(differs).collect();
        println!("{} verdicts, {} as recorded", done.len(), done.len() - different.len());
        assert!(different.is_empty(), "not as recorded: {different:#?}");
    }
}
