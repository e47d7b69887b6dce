//! Compiling C programs against the library that cargo just built.
#![allow(dead_code)]

#[path = "program.rs"]
mod program;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

#[allow(unused_imports)]
pub use program::{build, output_dir, package, program};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fresh directory for one test's files.
pub fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a scratch directory");
    // Where programs look for the library by its SONAME.
    for link in ["libpfkey_rs.so", "libpfkey_rs.so.0"] {
        std::os::unix::fs::symlink(output_dir().join("libpfkey_rs.so"), dir.join(link)).expect("a link");
    }
    dir
}

/// What the preload object exports, in order.
pub fn interposers() -> Vec<String> {
    let listed = |name| std::fs::read_to_string(root().join("preload").join(name)).expect("a list of exports");
    let mut names = listed("exports.txt");
    // Where glibc has times of 32 bits.
    if cfg!(all(target_env = "gnu", target_pointer_width = "32")) {
        names.push_str(&listed("exports-time64.txt"));
    }
    let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Whether the library finds the pfkeyd beside it: root does not start what another user can have written.
pub fn tree_is_anothers() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let owner = std::fs::metadata(output_dir()).expect("the output directory").uid();
    owner != 0 && owner != nix::unistd::geteuid().as_raw()
}

/// Whether the kernel answers programs of this kind over XFRM; says so if not.
pub fn has_xfrm() -> bool {
    match pfkey_rs::socket::try_xfrm() {
        Ok(()) => return true,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            println!("skipped: this kernel has no XFRM for 32-bit programs (CONFIG_XFRM_USER_COMPAT)");
        }
        Err(error) => println!("skipped: NETLINK_XFRM: {error}"),
    }
    false
}

/// Runs a command and gives what it printed; panics, with that, if it failed.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Whether static programs can be linked, for which some systems have no C library; says so if not.
pub fn static_programs() -> bool {
    // Once for all threads, which would take away each other's files.
    static LINKED: OnceLock<bool> = OnceLock::new();
    let linked = *LINKED.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let source = dir.join(format!("static_{}.c", std::process::id()));
        std::fs::write(&source, "int main(void) { return 0; }\n").expect("a source file");
        let program = source.with_extension("");
        let mut cc = cc();
        let linked =
            cc.arg("-static").arg("-o").arg(&program).arg(&source).output().is_ok_and(|cc| cc.status.success());
        let _ = std::fs::remove_file(&source);
        let _ = std::fs::remove_file(&program);
        linked
    });
    if !linked {
        println!("skipped: no static C library");
    }
    linked
}

/// The C compiler.
pub fn cc() -> Command {
    Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
}

/// The same with the flags and headers that all programs are built with.
fn compiler() -> Command {
    let mut cc = cc();
    cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g"]);
    cc.arg("-I").arg(root().join("include")).arg("-I").arg(root().join("include/libpfkey_rs"));
    // tests/sanitize.sh
    cc.args(std::env::var("PFKEY_TEST_CFLAGS").unwrap_or_default().split_whitespace());
    cc
}

/// Compiles sources to a program linked with -lpfkey_rs from `dir`.
pub fn compile(dir: &Path, name: &str, sources: &[PathBuf], flags: &[&str]) -> PathBuf {
    let program = dir.join(name);
    let mut cc = compiler();
    cc.args(flags).arg("-o").arg(&program).args(sources);
    cc.arg("-L").arg(dir).arg("-lpfkey_rs").arg(format!("-Wl,-rpath,{}", dir.display()));
    run(&mut cc);
    program
}

/// Compiles sources to a program, or what the flags say, that is linked with nothing of ours.
pub fn compile_plain(dir: &Path, name: &str, sources: &[PathBuf], flags: &[&str]) -> PathBuf {
    let program = dir.join(name);
    run(compiler().arg("-o").arg(&program).args(sources).args(flags));
    program
}

/// Compiles a program of 32 bits that needs no C library; `None`, which it says, where that cannot be done.
pub fn compile_32(dir: &Path, name: &str, source: &Path) -> Option<PathBuf> {
    let program = dir.join(name);
    let mut cc = cc();
    cc.args(["-m32", "-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-pic", "-fno-stack-protector", "-o"]);
    if !cc.arg(&program).arg(source).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: no compiler for 32 bits");
        return None;
    }
    Some(program)
}

/// Writes a source file and compiles it.
pub fn compile_text(dir: &Path, name: &str, text: &str, flags: &[&str]) -> PathBuf {
    let source = dir.join(format!("{name}.c"));
    std::fs::write(&source, text).expect("a source file");
    compile(dir, name, &[source], flags)
}

pub fn text(output: Output) -> String {
    String::from_utf8(output.stdout).expect("text")
}

/// Compares with what was recorded, line by line.
#[track_caller]
pub fn assert_same(printed: &str, expected: &Path) {
    let recorded = std::fs::read_to_string(expected).expect("what a kernel answered");
    for (number, (our, their)) in printed.lines().zip(recorded.lines()).enumerate() {
        assert_eq!(our, their, "line {} of {}", number + 1, expected.display());
    }
    assert_eq!(printed.lines().count(), recorded.lines().count());
}
