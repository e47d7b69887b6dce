//! What of others' work goes into what is installed: the crates of Cargo.lock and no others, with their licences.

#[path = "support/c.rs"]
mod c;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const NOTICES: &str = "THIRD-PARTY.md";
/// The packages of which `make install` installs something.
const INSTALLED: [&str; 4] = ["libpfkey_rs", "pfkeyd", "pfkey-cli", "pfkey_preload"];
/// Crates under MIT alone whose archives lack the file that says so: the licence's words are those of ours, behind their authors.
const WITHOUT_FILE: [&str; 1] = ["layout-rs"];
/// The programs and libraries are for Linux, whose processor makes no difference here.
const TARGET: &str = "x86_64-unknown-linux-gnu";

const HEAD: &str = "\
# Licences of others' work

What `make install` installs contains these crates. Where a crate leaves the choice, MIT is what it is used under. Made by
`make notices` from the crates' own files.

It also contains Rust's standard library (MIT OR Apache-2.0, the Rust project's contributors, https://rust-lang.org), with
crates of its own: `make install` puts the notices of the compiler in use beside this file, as `rust-library.html`.
";

/// A crate that is linked.
struct Linked {
    name: String,
    version: String,
    licence: String,
    authors: String,
    directory: PathBuf,
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = c::run(Command::new(cargo).current_dir(c::root()).args(arguments).args(["--locked", "--offline"]));
    String::from_utf8(output.stdout).unwrap()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What the packages of this workspace depend on, but for building and testing, and whatever only runs in the compiler.
fn linked() -> Vec<Linked> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--filter-platform", TARGET]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages: BTreeMap<&str, &Value> = array(&metadata["packages"]).iter().map(|p| (text(&p["id"]), p)).collect();
    let nodes: BTreeMap<&str, &Value> =
        array(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), node)).collect();
    let is_macro =
        |id: &str| array(&packages[id]["targets"]).iter().any(|t| array(&t["kind"]).contains(&"proc-macro".into()));
    let mut found = BTreeSet::new();
    let installed = |id: &&str| INSTALLED.contains(&text(&packages[id]["name"]));
    let mut next: Vec<&str> = array(&metadata["workspace_members"]).iter().map(text).filter(installed).collect();
    assert_eq!(next.len(), INSTALLED.len());
    while let Some(id) = next.pop() {
        if is_macro(id) || !found.insert(id) {
            continue;
        }
        let normal = |dep: &&Value| array(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        next.extend(array(&nodes[id]["deps"]).iter().filter(normal).map(|dep| text(&dep["pkg"])));
    }
    let others = found.into_iter().map(|id| packages[id]).filter(|package| !package["source"].is_null());
    let mut all: Vec<Linked> = others
        .map(|package| Linked {
            name: text(&package["name"]).to_owned(),
            version: text(&package["version"]).to_owned(),
            licence: text(&package["license"]).to_owned(),
            authors: array(&package["authors"]).iter().map(text).collect::<Vec<_>>().join(", "),
            directory: Path::new(text(&package["manifest_path"])).parent().unwrap().to_owned(),
        })
        .collect();
    all.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    all
}

/// The files of a crate that have to go with it: the one of the licence chosen, and every notice.
fn licence_files(linked: &Linked) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(&linked.directory).unwrap_or_else(|e| panic!("{}: {e}", linked.directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    let named = |path: &PathBuf, start: &str| {
        path.file_name().unwrap().to_string_lossy().to_ascii_uppercase().starts_with(start)
    };
    let of = |starts: &[&str]| -> Vec<PathBuf> {
        files.iter().filter(|path| starts.iter().any(|start| named(path, start))).cloned().collect()
    };
    let mit = of(&["LICENSE-MIT", "LICENCE-MIT"]);
    let mut chosen = if mit.is_empty() { of(&["LICENSE", "LICENCE", "COPYING"]) } else { mit };
    chosen.extend(of(&["NOTICE", "COPYRIGHT"]));
    chosen
}

/// MIT's words for the authors that a crate names.
fn mit_of(linked: &Linked) -> String {
    assert_eq!(linked.licence, "MIT", "{}", linked.name);
    assert!(!linked.authors.is_empty(), "{}", linked.name);
    let ours = std::fs::read_to_string(c::root().join("LICENSE-MIT")).unwrap();
    let (head, rest) = ours.split_once("Copyright (c) ").unwrap();
    let (_, words) = rest.split_once('\n').unwrap();
    format!("{head}Copyright (c) {}\n{words}", linked.authors).trim().to_owned()
}

fn notices() -> String {
    let mut text = HEAD.to_owned();
    for linked in linked() {
        let _ = write!(text, "\n## {} {}\n\n{}\n", linked.name, linked.version, linked.licence);
        let files = licence_files(&linked);
        if files.is_empty() && WITHOUT_FILE.contains(&linked.name.as_str()) {
            let _ = write!(text, "\n```text\n{}\n```\n", mit_of(&linked));
            continue;
        }
        assert!(!files.is_empty(), "{} {} has no file with its licence", linked.name, linked.version);
        for file in files {
            let licence = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let lines: Vec<&str> = licence.trim().lines().map(str::trim_end).collect();
            let _ = write!(text, "\n```text\n{}\n```\n", lines.join("\n"));
        }
    }
    text
}

#[test]
fn the_notices_are_the_crates_own() {
    let path = c::root().join(NOTICES);
    let made = notices();
    if std::env::var_os("PFKEY_WRITE_NOTICES").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == made, "{NOTICES} is not what the crates say: make notices");
}

/// Told by another command of cargo, and by the lock file.
#[test]
fn every_crate_that_is_linked_is_named() {
    let written = std::fs::read_to_string(c::root().join(NOTICES)).unwrap();
    let named: BTreeSet<String> = written.lines().filter_map(|l| l.strip_prefix("## ")).map(str::to_owned).collect();
    let mut tree = vec!["tree", "--target", TARGET, "--edges", "normal,no-proc-macro", "--prefix", "none"];
    tree.extend(INSTALLED.iter().flat_map(|package| ["--package", package]));
    let tree = cargo(&tree);
    let linked: BTreeSet<String> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        // The packages of this workspace have their directory behind them.
        .filter(|line| !line.is_empty() && !line.contains('('))
        .map(|line| line.replace(" v", " "))
        .collect();
    assert!(linked.len() > 10, "{linked:?}");
    assert_eq!(named, linked);
    let lock = std::fs::read_to_string(c::root().join("Cargo.lock")).unwrap();
    for name in named {
        let (name, version) = name.split_once(' ').unwrap();
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")), "{name} {version}");
    }
}

/// Every file and link below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

/// `make install` of what is built already.
#[test]
fn the_notices_are_installed_and_removed() {
    if Command::new("make").arg("--version").output().is_err() {
        println!("skipped: needs make");
        return;
    }
    c::package("pfkey_preload", "libpfkey_preload.so");
    c::package("pfkeyd", "pfkeyd");
    c::package("pfkey-cli", "pfkey");
    let stage = c::scratch("supply_chain_install").join("stage");
    let make = |target: &str| {
        let mut make = Command::new("make");
        make.current_dir(c::root()).args([target, "PREFIX=/usr", "CARGO=true", "SETKEY=yes"]);
        make.arg(format!("T={}", c::output_dir().display())).arg(format!("DESTDIR={}", stage.display()));
        // Of the make that may have started this test.
        c::run(make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").env_remove("MFLAGS"));
    };
    make("install");
    let documents = stage.join("usr/share/doc/libpfkey_rs");
    for name in [NOTICES, "LICENSE-MIT", "LICENSE-APACHE"] {
        let installed = std::fs::read(documents.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(installed, std::fs::read(c::root().join(name)).unwrap(), "{name}");
    }
    assert!(documents.join("pfkey.schema.json").exists());
    // pfkey's second name with its manual page, and what shells complete.
    assert_eq!(std::fs::read_link(stage.join("usr/sbin/setkey")).unwrap(), Path::new("/usr/bin/pfkey"));
    let share = stage.join("usr/share");
    let completions =
        ["bash-completion/completions/pfkey", "zsh/site-functions/_pfkey", "fish/vendor_completions.d/pfkey.fish"];
    for name in completions.into_iter().chain(["man/man8/setkey.8"]) {
        let installed = std::fs::read_to_string(share.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(installed.contains("monitor"), "{name}");
    }
    for unit in ["pfkeyd.socket", "pfkeyd.service", "pfkey-load.service"] {
        let installed = std::fs::read_to_string(stage.join("usr/lib/systemd/system").join(unit)).unwrap();
        assert!(!installed.contains("BINDIR@"), "{unit}: {installed}");
    }
    make("uninstall");
    let left = files(&stage);
    assert!(left.is_empty(), "{left:?}");
    assert!(!documents.exists());
}

/// Every file outside src/ that may call cargo.
fn scripts(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", ".git", "src", "docs", "man"].contains(&name.as_str()) {
                scripts(&path, found);
            }
        } else if !name.ends_with(".md") && name != "supply_chain.rs" {
            found.push(path);
        }
    }
}

/// Without `--locked` cargo may take newer crates than those that were looked at.
#[test]
fn every_call_of_cargo_keeps_to_the_lock_file() {
    const CALLS: [&str; 4] = ["cargo", "CARGO)", "$cargo", "\"$cargo\""];
    const COMMANDS: [&str; 10] =
        ["build", "test", "bench", "clippy", "check", "run", "install", "metadata", "tree", "rustc"];
    let mut files = Vec::new();
    scripts(c::root(), &mut files);
    let (mut calls, mut loose) = (0, Vec::new());
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        // A line that goes on is one with the next.
        for line in text.replace("\\\n", " ").lines() {
            let words = line.split([' ', '\t', '(', '`', ';', '@']);
            // A toolchain may stand between.
            let words: Vec<&str> = words.filter(|word| !word.is_empty() && !word.starts_with('+')).collect();
            let called = words.windows(2).any(|pair| CALLS.contains(&pair[0]) && COMMANDS.contains(&pair[1]));
            if called && !line.trim_start().starts_with(['#', '/']) {
                calls += 1;
                if !line.contains("--locked") {
                    loose.push(format!("{}: {}", file.display(), line.trim()));
                }
            }
            if line.contains("Command::new(cargo)") {
                calls += 1;
                if !text.contains("--locked") {
                    loose.push(format!("{}: {}", file.display(), line.trim()));
                }
            }
        }
    }
    assert!(calls > 20, "{calls} calls were found");
    assert!(loose.is_empty(), "without --locked: {loose:#?}");
}
