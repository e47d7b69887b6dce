//! The programs of this workspace, for the tests of the package at the top.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Cargo's output directory: the programs and the libraries are there, this test is in `deps` below it.
pub fn output_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    test.ancestors().nth(2).expect("a directory").to_owned()
}

/// The path of `pfkeyd` or `pfkey`: what the environment's PFKEYD or PFKEY names, otherwise the one of this workspace, which
/// is built first, as these tests were built.
pub fn program(name: &str) -> &'static str {
    static PATHS: Mutex<BTreeMap<String, &'static str>> = Mutex::new(BTreeMap::new());
    let mut paths = PATHS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = paths.get(name) {
        return path;
    }
    let path = match std::env::var(name.to_uppercase()) {
        Ok(path) if !path.is_empty() => path,
        _ => package(if name == "pfkey" { "pfkey-cli" } else { name }, name).to_str().expect("a path").to_owned(),
    };
    paths.entry(name.to_owned()).or_insert(path.leak())
}

/// Builds another package of this workspace, as these tests were built, and gives one of its files. Without cargo (a
/// test program that was started by hand) the file is what was built before.
pub fn package(package: &str, file: &str) -> PathBuf {
    build(&["--package", package], file)
}

/// The same of what the arguments of `cargo build` name.
pub fn build(what: &[&str], file: &str) -> PathBuf {
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--locked", "--quiet"]).args(what);
        build.arg("--target-dir").arg(target_dir());
        if output_dir().ends_with("release") {
            build.arg("--release");
        }
        if let Some(target) = target() {
            build.arg("--target").arg(target);
        }
        let output = build.output().unwrap_or_else(|e| panic!("{build:?}: {e}"));
        assert!(output.status.success(), "{build:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output_dir().join(file)
}

/// Where cargo builds: `target`, with a directory for each `--target` below it.
fn target_dir() -> PathBuf {
    let levels = if target().is_some() { 2 } else { 1 };
    output_dir().ancestors().nth(levels).expect("a directory").to_owned()
}

/// The `--target` that this test was built for, if one was named.
fn target() -> Option<String> {
    let above = output_dir();
    let name = above.parent().and_then(Path::file_name)?.to_str()?;
    // A triple, not the name of a target directory.
    (name.matches('-').count() >= 2 && name.contains("linux")).then(|| name.to_owned())
}
