//! The examples of docs/linking.md, built against what `make install` puts where, and run.

#[path = "support/c.rs"]
mod c;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What `make install LIBIPSEC_COMPAT=…` makes of the debug build, in a place of its own.
fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        c::program("pfkeyd");
        c::program("pfkey");
        c::package("pfkey_preload", "libpfkey_preload.so");
        c::build(&["--package", "pfkey_preload", "--example", "pfkey_compat"], "examples/libpfkey_compat.a");
        let prefix = c::scratch("linking_prefix");
        let mut make = Command::new("make");
        make.current_dir(c::root()).args(["--silent", "install-files", "install-libipsec-files"]);
        // Of the make that may have called cargo.
        make.env_remove("MAKEFLAGS").env_remove("MFLAGS").env_remove("DESTDIR");
        make.arg(format!("T={}", c::output_dir().display())).arg(format!("PREFIX={}", prefix.display()));
        make.arg(format!("LIBIPSEC_COMPAT={}/lib/libipsec-compat", prefix.display()));
        c::run(&mut make);
        prefix
    })
}

/// The examples of one kind, in their order: what is between three backquotes and the word, and three backquotes.
fn examples(kind: &str) -> Vec<String> {
    let page = std::fs::read_to_string(c::root().join("docs/linking.md")).expect("the page");
    let mut pieces = page.split("\n```");
    let mut found = Vec::new();
    while let Some(piece) = pieces.next() {
        if let Some(text) = piece.strip_prefix(&format!("{kind}\n")) {
            found.push(format!("{text}\n"));
            pieces.next();
        }
    }
    found
}

/// The only example of its kind that has this in it.
fn example(kind: &str, with: &str) -> String {
    let mut found = examples(kind);
    found.retain(|text| text.contains(with));
    assert_eq!(found.len(), 1, "{kind} with {with}: {found:?}");
    found.remove(0)
}

/// A directory with daemon.c in it.
fn project(name: &str) -> PathBuf {
    let directory = c::scratch(&format!("linking_{name}"));
    std::fs::write(directory.join("daemon.c"), example("c", "pfkey_open")).expect("a file");
    directory
}

/// Runs a shell's text there, as someone who has installed to `installed()`.
fn shell(directory: &Path, text: &str) {
    let prefix = installed();
    let mut sh = Command::new("sh");
    sh.current_dir(directory).args(["-e", "-c"]).arg(text.replace("/usr/local", &prefix.display().to_string()));
    sh.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).env("CMAKE_PREFIX_PATH", prefix);
    // pkg-config leaves out what is in the compiler's own directories; this is in none.
    sh.env_remove("MAKEFLAGS").env_remove("MFLAGS");
    c::run(&mut sh);
}

/// Runs what was built.
fn runs(program: &Path) {
    let mut command = Command::new(program);
    command.env("PFKEY_BACKEND", "embedded").env("PFKEYD", c::program("pfkeyd"));
    command.env("LD_LIBRARY_PATH", installed().join("lib"));
    assert_eq!(c::run(&mut command).stdout, b"flushed\n", "{}", program.display());
}

/// Whether there is such a program; says so if there is none.
fn there_is(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: no {tool}");
    }
    found
}

#[test]
fn pkg_config() {
    if !there_is("pkg-config") {
        return;
    }
    for (name, with) in [
        ("shared", "daemon $(pkg-config --cflags --libs pfkey_rs)"),
        ("static", "-static "),
        ("archive", "libpfkey_rs.a"),
    ] {
        if name == "static" && !c::static_programs() {
            continue;
        }
        let directory = project(name);
        shell(&directory, &example("sh", with));
        runs(&directory.join("daemon"));
        let dynamic = c::run(Command::new("readelf").arg("-d").arg(directory.join("daemon")));
        let dynamic = String::from_utf8_lossy(&dynamic.stdout).into_owned();
        assert_eq!(dynamic.contains("libpfkey_rs.so.0"), name == "shared", "{dynamic}");
        assert_eq!(dynamic.contains("libc.so"), name != "static", "{dynamic}");
    }
}

#[test]
fn the_preload_object_as_a_library() {
    if !there_is("pkg-config") {
        return;
    }
    let directory = c::scratch("linking_own");
    std::fs::write(directory.join("own.c"), example("c", "socket(PF_KEY")).expect("a file");
    shell(&directory, &example("sh", "pfkey_preload"));
    runs(&directory.join("own"));
}

#[test]
fn meson() {
    if !there_is("meson") || !there_is("ninja") || !there_is("pkg-config") {
        return;
    }
    let directory = project("meson");
    let text = example("meson", "project");
    for (kind, dependency) in [("shared", "dependency('pfkey_rs')"), ("static", "dependency('pfkey_rs', static: true)")]
    {
        assert!(text.contains("dependency('pfkey_rs')"), "{text}");
        std::fs::write(directory.join("meson.build"), text.replace("dependency('pfkey_rs')", dependency))
            .expect("a file");
        shell(&directory, &format!("meson setup {kind} && meson compile -C {kind}"));
        runs(&directory.join(kind).join("daemon"));
    }
}

#[test]
fn cmake() {
    if !there_is("cmake") {
        return;
    }
    let directory = project("cmake");
    let text = example("cmake", "project");
    for (kind, target) in [("shared", "pfkey_rs::pfkey_rs"), ("static", "pfkey_rs::static")] {
        std::fs::write(directory.join("CMakeLists.txt"), text.replace("pfkey_rs::pfkey_rs", target)).expect("a file");
        shell(&directory, &format!("cmake -S . -B {kind} && cmake --build {kind}"));
        runs(&directory.join(kind).join("daemon"));
    }
}

#[test]
fn autoconf_with_libipsec() {
    if !there_is("autoconf") || !there_is("pkg-config") {
        return;
    }
    let directory = project("autoconf");
    std::fs::write(directory.join("configure.ac"), example("autoconf", "AC_INIT")).expect("a file");
    std::fs::write(directory.join("Makefile.in"), example("make", "daemon")).expect("a file");
    shell(&directory, "autoconf");
    shell(&directory, &example("sh", "./configure"));
    runs(&directory.join("daemon"));
    let dynamic = c::run(Command::new("readelf").arg("-d").arg(directory.join("daemon")));
    let dynamic = String::from_utf8_lossy(&dynamic.stdout).into_owned();
    assert!(dynamic.contains("[libipsec.so.0]") && !dynamic.contains("libpfkey_rs.so"), "{dynamic}");
}
