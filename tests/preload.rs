//! The preload object under programs that open PF_KEY by themselves. What they print has to be what they print on a
//! kernel with AF_KEY: `c-tests/preload/*.txt` was recorded there (6.1, 6.12 and 7.2 agree).

#[path = "support/c.rs"]
mod c;

use c::{assert_same, text};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The object, built once for all tests.
fn object() -> &'static Path {
    static OBJECT: OnceLock<PathBuf> = OnceLock::new();
    OBJECT.get_or_init(|| c::package("pfkey_preload", "libpfkey_preload.so"))
}

fn source(name: &str) -> PathBuf {
    c::root().join("c-tests").join(name)
}

/// A program of `c-tests/preload`, compiled in a directory of its own.
fn program(test: &str, name: &str) -> PathBuf {
    let dir = c::scratch(test);
    let sources = [source(&format!("preload/{name}.c")), source("common.c")];
    c::compile_plain(&dir, name, &sources, &["-D_GNU_SOURCE", "-DRAW_SOCKET", "-lpthread"])
}

/// The program with the object before it, and a private engine.
fn preloaded(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", object()).env("PFKEY_BACKEND", "embedded");
    command
}

/// The program with the object before it, and one engine for all its sockets, as a kernel has.
fn preloaded_with_one_engine(program: &Path) -> Command {
    let mut command = Command::new(c::program("pfkeyd"));
    command.args(["--", "env"]).arg(format!("LD_PRELOAD={}", object().display())).arg(program);
    command
}

#[test]
fn exactly_the_listed_symbols_are_exported() {
    let output = c::run(Command::new("nm").args(["-D", "--defined-only"]).arg(object()));
    let output = text(output);
    let mut names: Vec<&str> = output.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    names.sort_unstable();
    assert_eq!(names, c::interposers());
    let output = text(c::run(Command::new("readelf").arg("-d").arg(object())));
    assert!(output.contains("Library soname: [libpfkey_preload.so.0]"), "{output}");
}

#[test]
fn each_sending_call_returns_when_its_answer_can_be_read() {
    let exchange = program("preload_exchange", "exchange");
    let printed = text(c::run(&mut preloaded_with_one_engine(&exchange)));
    assert_same(&printed, &source("preload/exchange.txt"));
}

/// glibc's headers give such a program other names for some functions, where it has times of 32 bits.
#[test]
fn programs_with_times_of_64_bits_are_served_too() {
    let dir = c::scratch("preload_time64");
    let built = |name: &str| {
        let flags = ["-D_GNU_SOURCE", "-DRAW_SOCKET", "-D_FILE_OFFSET_BITS=64", "-D_TIME_BITS=64"];
        c::compile_plain(&dir, name, &[source(&format!("preload/{name}.c")), source("common.c")], &flags)
    };
    let printed = text(c::run(&mut preloaded_with_one_engine(&built("exchange"))));
    assert_same(&printed, &source("preload/exchange.txt"));
    if c::has_xfrm() {
        if let Some(printed) = tried(&mut preloaded(&built("policies"))) {
            assert_same(&printed, &source("preload/policies.txt"));
        }
    }
}

#[test]
fn what_af_key_refuses_is_refused() {
    let refusals = program("preload_refusals", "refusals");
    assert_same(&text(c::run(&mut preloaded(&refusals))), &source("preload/refusals.txt"));
}

/// The flags that AF_KEY takes do the same; those that it refuses are the recorded ones from OOB on.
#[test]
fn a_receivers_flags_do_what_they_do_on_af_key() {
    let receive = program("preload_receive", "receive");
    let printed = text(c::run(&mut preloaded(&receive)));
    let recorded = std::fs::read_to_string(source("preload/receive.txt")).expect("what a kernel answered");
    let taken: Vec<&str> = recorded.lines().take_while(|line| !line.starts_with("OOB")).collect();
    assert_eq!(taken.len(), 12);
    assert_eq!(printed.lines().take(12).collect::<Vec<_>>(), taken);
    // A served descriptor is an AF_UNIX socket, which passes over flags that it does not know.
    assert!(recorded.lines().skip(12).all(|line| line.ends_with(": Invalid argument, stays")));
    assert!(printed.contains("OOB, room for 8: Operation not supported, stays"), "{printed}");
}

/// What a PF_KEY socket has no use for is refused with another errno than AF_KEY's, or works as on any AF_UNIX socket; poll
/// is the same, and after a shutdown sending fails with EPIPE.
#[test]
fn operations_that_pf_key_has_no_use_for() {
    let operations = program("preload_operations", "operations");
    let printed = text(c::run(&mut preloaded(&operations)));
    let recorded = std::fs::read_to_string(source("preload/operations.txt")).expect("what a kernel answered");
    assert_eq!(printed.lines().count(), recorded.lines().count());
    let different: Vec<(&str, &str)> = recorded
        .lines()
        .zip(printed.lines())
        .filter(|(af_key, ours)| af_key != ours)
        .map(|(_, ours)| ours.split_once(": ").expect("OPERATION: OUTCOME"))
        .collect();
    let refused = ["bind", "listen", "accept", "connect"].map(|what| (what, "Invalid argument"));
    let done = ["getsockname", "getpeername", "FIONREAD", "shutdown"].map(|what| (what, "done"));
    assert_eq!(different, [&refused[..], &done, &[("send afterwards", "Broken pipe")]].concat());
}

#[test]
fn other_descriptors_get_what_they_always_got() {
    let foreign = program("preload_foreign", "foreign");
    assert_eq!(text(c::run(&mut Command::new(&foreign))), "as ever\n", "without the object");
    assert_eq!(text(c::run(&mut preloaded(&foreign))), "as ever\n");
}

/// Other families' options, and sockets that another user named as served ones are.
#[test]
fn strangers_are_left_alone() {
    let strangers = program("preload_strangers", "strangers");
    for test in ["policies", "type", "user"] {
        tried(Command::new(&strangers).arg(test)).map(|_| tried(preloaded(&strangers).arg(test)));
    }
}

#[test]
fn several_messages_at_once_come_from_the_library_only() {
    let strangers = program("preload_several", "strangers");
    tried(preloaded(&strangers).arg("several"));
}

/// Runs a program that may have to give up; false if it did.
fn tried(command: &mut Command) -> Option<String> {
    let output = command.output().expect("it runs");
    if output.status.code() == Some(77) {
        eprintln!("skipped: {command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(text(output))
}

#[test]
fn a_descriptor_works_in_whatever_process_it_ends_up() {
    let travel = program("preload_travel", "travel");
    let empty = c::scratch("preload_empty");
    for test in ["fork", "exec", "zero", "small", "rights", "pass"] {
        tried(preloaded(&travel).arg(test).arg(&empty));
    }
}

#[test]
fn sockets_own_policies_are_those_that_af_key_sets() {
    if !c::has_xfrm() {
        return;
    }
    let policies = program("preload_policies", "policies");
    if let Some(printed) = tried(&mut preloaded(&policies)) {
        assert_same(&printed, &source("preload/policies.txt"));
    }
}

#[test]
fn a_program_can_be_linked_with_it() {
    let dir = c::scratch("preload_linked");
    for link in ["libpfkey_preload.so", "libpfkey_preload.so.0"] {
        std::os::unix::fs::symlink(object(), dir.join(link)).expect("a link");
    }
    let (search, path) = (format!("-L{}", dir.display()), format!("-Wl,-rpath,{}", dir.display()));
    let flags = ["-D_GNU_SOURCE", "-DRAW_SOCKET", &search, &path, "-Wl,--as-needed", "-lpfkey_preload"];
    let refusals = c::compile_plain(&dir, "refusals", &[source("preload/refusals.c"), source("common.c")], &flags);
    let mut command = Command::new(refusals);
    assert_same(&text(c::run(command.env("PFKEY_BACKEND", "embedded"))), &source("preload/refusals.txt"));
}

/// The programs of `c-tests`, built to open PF_KEY by themselves, print what they print on a kernel with AF_KEY.
#[test]
fn programs_that_open_pf_key_themselves_print_what_they_print_on_af_key() {
    let dir = c::scratch("preload_programs");
    for name in [
        "sadb_add",
        "sadb_dump",
        "sadb_register",
        "sadb_static",
        "sadb_dynamic",
        "spd",
        "two_listeners",
        "fork_and_pass",
    ] {
        let sources = [source(&format!("{name}.c")), source("common.c")];
        // They print and parse with the library, but open and send by themselves.
        c::compile(&dir, &format!("{name}-raw"), &sources, &["-DRAW_SOCKET"]);
    }
    let mut run_all = preloaded_with_one_engine(&source("run-all"));
    assert_same(&text(c::run(run_all.arg(&dir).arg("-raw"))), &source("expected.txt"));
}

/// Another object's constructor may run before this one's.
#[test]
fn it_works_before_its_constructor() {
    let dir = c::scratch("preload_early");
    std::fs::write(
        dir.join("early.c"),
        r#"
        #include <sys/socket.h>
        #include <unistd.h>
        __attribute__((constructor)) static void early(void)
        {
            static const unsigned char flush[16] = { 2, 9, 0, 0, 2, 0 };
            unsigned char answer[16];
            int s = socket(PF_KEY, SOCK_RAW | SOCK_NONBLOCK, 2);
            if (s < 0 || write(s, flush, 16) != 16 || read(s, answer, 16) != 16 || answer[1] != 9)
                _exit(9);
            if (write(1, "early\n", 6) != 6)
                _exit(8);
            close(s);
        }"#,
    )
    .expect("a source file");
    let early = c::compile_plain(&dir, "early.so", &[dir.join("early.c")], &["-shared", "-fPIC"]);
    for order in [[object(), early.as_path()], [early.as_path(), object()]] {
        let mut command = Command::new("true");
        command.env("PFKEY_BACKEND", "embedded");
        command.env("LD_PRELOAD", format!("{}:{}", order[0].display(), order[1].display()));
        assert_eq!(text(c::run(&mut command)), "early\n");
    }
}

#[test]
fn a_backend_that_cannot_be_had_is_an_errno_and_can_be_asked_why() {
    let refusals = program("preload_errors", "refusals");
    for (name, value, expected, why) in [
        (
            "PFKEY_BACKEND",
            "kernel",
            "socket, raw: Invalid argument\n",
            "expected auto, afkey, service, private, embedded or unix:PATH",
        ),
        (
            "PFKEYD",
            "/nonexistent/pfkeyd",
            "socket, raw: Address family not supported by protocol\n",
            "sought /nonexistent/pfkeyd",
        ),
        (
            "PFKEY_BACKEND",
            "unix:/nonexistent/socket",
            "socket, raw: No such file or directory\n",
            "/nonexistent/socket",
        ),
    ] {
        let output = c::run(preloaded(&refusals).arg("open").env(name, value));
        assert!(output.stderr.is_empty(), "not asked, it says nothing");
        assert!(text(output).starts_with(expected), "{name}={value}");
        let output = c::run(preloaded(&refusals).arg("open").env(name, value).env("PFKEY_DEBUG", "1"));
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{name}={value}");
    }
}

/// `pfkey-run` in a directory of its own, and the object where `place` says.
fn pfkey_run(test: &str, place: &str) -> Command {
    let dir = c::scratch(test);
    let script = dir.join("bin/pfkey-run");
    std::fs::create_dir_all(dir.join("bin")).expect("a directory");
    std::fs::create_dir_all(dir.join("lib")).expect("a directory");
    std::fs::copy(c::root().join("preload/pfkey-run"), &script).expect("a copy");
    if !place.is_empty() {
        std::os::unix::fs::symlink(object(), dir.join(place)).expect("a link");
    }
    let mut command = Command::new(script);
    command.env("PFKEY_BACKEND", "embedded");
    command
}

#[test]
fn pfkey_run_finds_the_object_and_passes_everything_on() {
    let travel = program("preload_run", "travel");
    for place in ["bin/libpfkey_preload.so", "bin/libpfkey_preload.so.0", "lib/libpfkey_preload.so.0"] {
        c::run(pfkey_run("preload_run_place", place).arg(&travel).arg("zero"));
    }
    c::run(pfkey_run("preload_run_place", "").env("PFKEY_PRELOAD", object()).arg("--").arg(&travel).arg("zero"));
    let mut command = pfkey_run("preload_run_place", "lib/libpfkey_preload.so.0");
    command.args(["sh", "-c", r#"echo "$1|$2|$LD_PRELOAD"; exit 42"#, "sh", "a  b", "*"]).env("LD_PRELOAD", "");
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(text(output), format!("a  b|*|{}\n", object().display()));
}

#[test]
fn pfkey_run_says_what_is_wrong() {
    let status = |command: &mut Command| {
        let output = command.output().expect("it runs");
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, why) = status(pfkey_run("preload_run_wrong", "").arg("true"));
    assert!(code == 1 && why.contains("sought in ") && why.contains("/bin/../lib"), "{code} {why}");
    let (code, why) = status(pfkey_run("preload_run_wrong", "").arg("true").env("PFKEY_PRELOAD", "/nonexistent"));
    assert!(code == 1 && why.contains("/nonexistent"), "{code} {why}");
    let found = || pfkey_run("preload_run_wrong", "bin/libpfkey_preload.so");
    assert_eq!(status(&mut found()).0, 2);
    assert_eq!(status(found().arg("--bogus")).0, 2);
    assert_eq!(status(found().arg("--help")).0, 0);
    assert_eq!(status(found().arg("/nonexistent")).0, 127);
    assert_eq!(status(found().arg("/etc/passwd")).0, 126);
}
