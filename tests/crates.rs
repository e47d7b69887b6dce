//! The crates keep apart what they promise to keep apart: unsafe code, and libipsec's names.
#![forbid(unsafe_code)]

#[path = "support/c.rs"]
mod c;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Crates without unsafe code.
const SAFE: [&str; 7] =
    ["pfkey", "pfkey-wire", "pfkey-model", "pfkey-hub", "pfkey-engine", "pfkey-klips", "pfkey-print"];
/// Crates, with the files of each that may have unsafe code; all others refuse it.
const MIXED: [(&str, &[&str]); 4] = [
    ("pfkey-cli", &[]),
    ("pfkey-socket", &["sys.rs"]),
    ("pfkey-xfrm", &["netlink.rs"]),
    (
        "pfkeyd",
        &[
            "bin/pfkeyd/any/sys.rs",
            "bin/pfkeyd/child.rs",
            "bin/pfkeyd/confine.rs",
            "bin/pfkeyd/guardian/clients.rs",
            "bin/pfkeyd/link.rs",
            "bin/pfkeyd/main.rs",
            "bin/pfkeyd/memory.rs",
            "bin/pfkeyd/runner.rs",
            "bin/pfkeyd/systemd.rs",
        ],
    ),
];

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn has_line(text: &str, line: &str) -> bool {
    text.lines().any(|l| l.trim() == line)
}

/// Files below a directory that allow themselves unsafe code, by their names from there on.
fn allowing(directory: &Path, below: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            allowing(&path, below, found);
        } else if path.extension().is_some_and(|e| e == "rs") && read(&path).contains("allow(unsafe_code)") {
            found.insert(path.strip_prefix(below).unwrap().to_str().unwrap().to_owned());
        }
    }
}

#[test]
fn crates_without_unsafe_code_forbid_it() {
    for name in SAFE {
        let root = c::root().join("crates").join(name).join("src/lib.rs");
        assert!(has_line(&read(&root), "#![forbid(unsafe_code)]"), "{}", root.display());
    }
}

#[test]
fn unsafe_code_stands_in_files_that_are_named() {
    for (name, files) in MIXED {
        let source = c::root().join("crates").join(name).join("src");
        let roots = ["lib.rs", "main.rs", "bin/pfkeyd/main.rs"].map(|root| source.join(root));
        for root in roots.iter().filter(|root| root.exists()) {
            let text = read(root);
            let refuses = has_line(&text, "#![deny(unsafe_code)]") || has_line(&text, "#![forbid(unsafe_code)]");
            assert!(refuses, "{}", root.display());
        }
        let mut found = BTreeSet::new();
        allowing(&source, &source, &mut found);
        assert_eq!(found, files.iter().map(|file| (*file).to_owned()).collect(), "{name}");
    }
}

#[test]
fn every_crate_is_named_here() {
    let named: BTreeSet<&str> = SAFE.into_iter().chain(MIXED.map(|(name, _)| name)).collect();
    let there = std::fs::read_dir(c::root().join("crates")).unwrap();
    let there: Vec<String> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(named, there.iter().map(String::as_str).collect());
}

#[test]
fn no_rust_program_has_a_function_of_libipsec() {
    let exports = read(&c::root().join("exports.txt"));
    let exports: BTreeSet<&str> = exports.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert!(exports.contains("pfkey_send_add"));
    for name in ["pfkeyd", "pfkey"] {
        let symbols =
            c::run(Command::new("nm").args(["--defined-only", "--format=posix"]).arg(c::program(name))).stdout;
        let symbols = String::from_utf8(symbols).unwrap();
        let symbols: BTreeSet<&str> = symbols.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(symbols.contains("main"), "{name} has symbols");
        let both: Vec<_> = exports.intersection(&symbols).collect();
        assert!(both.is_empty(), "{name}: {both:?}");
    }
}

/// Neither what serves descriptors nor what reads command lines.
#[test]
fn a_client_needs_no_hub() {
    let mut tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    tree.args(["tree", "--locked", "--offline", "--package", "pfkey", "--edges", "normal", "--prefix", "none"]);
    let tree = String::from_utf8(c::run(tree.current_dir(c::root())).stdout).unwrap();
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains("pfkey-xfrm"), "{tree}");
    for name in ["pfkey-hub", "pfkey-engine", "pfkeyd", "clap"] {
        assert!(!crates.contains(name), "{name}");
    }
}
