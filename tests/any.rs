//! `pfkey-run --any`: programs that take no preload object, with a process beside them that answers their system calls.
//! What they print has to be what they print on a kernel with AF_KEY: `c-tests/preload/*.txt` was recorded there.

#[path = "support/c.rs"]
mod c;

use c::{assert_same, text};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::poll::{PollFd, PollFlags, poll};

/// Whether it can be tried here; says why not.
fn can_supervise() -> bool {
    if !c::static_programs() {
        return false;
    }
    let output = any(Path::new("true")).output().expect("it runs");
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = why.contains("the kernel does not tell") || why.contains("another program is told");
    if refused || why.contains("this architecture") {
        println!("skipped: {}", why.trim());
        return false;
    }
    assert!(output.status.success(), "{why}");
    true
}

/// A program under a supervisor, with an engine for each of its sockets.
fn any(program: &Path) -> Command {
    let mut command = Command::new(c::program("pfkeyd"));
    command.args(["--any", "--"]).arg(program).env("PFKEY_BACKEND", "embedded");
    command
}

/// The same with one engine for all, as a kernel has.
fn any_with_one_engine(program: &Path) -> Command {
    let mut command = Command::new(c::program("pfkeyd"));
    command.args(["--", c::program("pfkeyd"), "--any", "--"]).arg(program);
    command
}

fn source(name: &str) -> PathBuf {
    c::root().join("c-tests").join(name)
}

/// A program of `c-tests`, linked statically.
fn program(test: &str, name: &str) -> PathBuf {
    let dir = c::scratch(test);
    let file = name.rsplit('/').next().expect("a name");
    let sources = [source(&format!("{name}.c")), source("common.c")];
    c::compile_plain(&dir, file, &sources, &["-static", "-D_GNU_SOURCE", "-DRAW_SOCKET", "-lpthread"])
}

/// Runs a program that may have to give up; false if it did.
fn tried(command: &mut Command) -> Option<String> {
    let output = command.output().expect("it runs");
    if output.status.code() == Some(77) {
        println!("skipped: {command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(text(output))
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn each_sending_call_of_a_static_program_returns_when_its_answer_can_be_read() {
    if can_supervise() {
        let exchange = program("any_exchange", "preload/exchange");
        assert_same(&text(c::run(&mut any_with_one_engine(&exchange))), &source("preload/exchange.txt"));
    }
}

#[test]
fn what_af_key_refuses_is_refused() {
    if can_supervise() {
        let refusals = program("any_refusals", "preload/refusals");
        assert_same(&text(c::run(&mut any(&refusals))), &source("preload/refusals.txt"));
    }
}

#[test]
fn sockets_own_policies_are_those_that_af_key_sets() {
    if can_supervise() && c::has_xfrm() {
        let policies = program("any_policies", "preload/policies");
        if let Some(printed) = tried(any(&policies).env("PFKEY_BACKEND", "xfrm")) {
            assert_same(&printed, &source("preload/policies.txt"));
        }
    }
}

#[test]
fn other_descriptors_get_what_they_always_got() {
    if can_supervise() {
        assert_eq!(text(c::run(&mut any(&program("any_foreign", "preload/foreign")))), "as ever\n");
    }
}

#[test]
fn a_descriptor_works_in_whatever_process_it_ends_up() {
    if can_supervise() {
        let travel = program("any_travel", "preload/travel");
        for test in ["fork", "exec", "rights", "pass"] {
            tried(any(&travel).arg(test).arg("/"));
        }
    }
}

/// One test of `c-tests/checks/any.c`. On AF_KEY of 6.1 and 7.2 it prints the same.
#[track_caller]
fn as_on_af_key(test: &str, backend: &str) {
    if can_supervise() {
        let program = program(&format!("any_{test}"), "checks/any");
        if let Some(printed) = tried(any(&program).arg(test).env("PFKEY_BACKEND", backend)) {
            assert_eq!(printed, "as on AF_KEY\n");
        }
    }
}

#[test]
fn errors_are_af_keys() {
    as_on_af_key("errors", "embedded");
}

#[test]
fn sendmmsg_sends_several_and_stops_at_the_first_that_is_refused() {
    as_on_af_key("several", "embedded");
}

#[test]
fn a_number_that_was_a_pf_key_sockets_is_whatever_it_is_now() {
    as_on_af_key("numbers", "embedded");
}

#[test]
fn signals_make_no_request_be_done_twice() {
    as_on_af_key("signals", "embedded");
}

#[test]
fn memory_that_changes_meanwhile_is_read_once() {
    as_on_af_key("changing", "embedded");
}

#[test]
fn a_number_that_changes_meanwhile_is_one_or_the_other() {
    as_on_af_key("replaced", "embedded");
}

#[test]
fn programs_that_are_killed_disturb_no_others() {
    as_on_af_key("killed", "embedded");
}

#[test]
fn threads_open_and_send_at_once() {
    as_on_af_key("threads", "embedded");
}

#[test]
fn a_thousand_programs_have_one_supervisor() {
    as_on_af_key("many", "embedded");
}

#[test]
fn who_waits_for_a_stopped_pfkeyd_keeps_nobody_from_sending() {
    as_on_af_key("stopped", "embedded");
}

#[test]
fn files_are_not_held_by_the_supervisor() {
    as_on_af_key("files", "embedded");
}

#[test]
fn a_message_is_its_programs_and_not_the_supervisors() {
    as_on_af_key("sender", "embedded");
}

#[test]
fn a_program_gets_its_own_namespaces_sockets_and_only_with_its_own_rights() {
    if c::has_xfrm() {
        as_on_af_key("rights", "xfrm");
    }
}

/// Root's filter needs no no_new_privs.
#[test]
fn a_set_user_id_program_has_its_rights_under_roots_supervisor() {
    use std::os::unix::fs::PermissionsExt as _;
    if !can_supervise() || !c::has_xfrm() {
        return;
    }
    if !is_root() {
        return println!("skipped: needs root");
    }
    let flags = nix::sys::statvfs::statvfs(&std::env::temp_dir()).expect("a file system").flags();
    if flags.contains(nix::sys::statvfs::FsFlags::ST_NOSUID) {
        return println!("skipped: no set-user-ID programs where temporary files are");
    }
    // Where the other user can reach it.
    let program = program("any_set_user_id", "checks/any");
    let directory = nix::unistd::mkdtemp(&std::env::temp_dir().join("pfkey-any-XXXXXX")).expect("a directory");
    let everyone = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    everyone(&directory, 0o755);
    let copy = directory.join("set-user-ID");
    std::fs::copy(program, &copy).expect("a copy");
    everyone(&copy, 0o4755);
    let mut command = any(Path::new("setpriv"));
    command.args(["--reuid", "65534", "--clear-groups"]).arg(&copy).arg("set-user-ID").env("PFKEY_BACKEND", "xfrm");
    let output = command.output().expect("it runs");
    std::fs::remove_dir_all(directory).expect("removed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text(output), "as on AF_KEY\n");
}

/// A filter of a program that may not install one without no_new_privs.
#[test]
fn a_program_without_rights_has_what_needs_none() {
    if !can_supervise() {
        return;
    }
    if !is_root() {
        return println!("skipped: needs root, to be another user");
    }
    let refusals = program("any_unprivileged", "preload/refusals");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", c::program("pfkeyd"), "--any", "--"]);
    let output = command.arg(refusals).env("PFKEY_BACKEND", "embedded").output().expect("it runs");
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    if why.contains("Permission denied") {
        return println!("skipped: another user cannot reach the programs: {why}");
    }
    assert_same(&text(output), &source("preload/refusals.txt"));
}

#[test]
fn the_program_keeps_its_pid_and_its_surroundings() {
    if !can_supervise() {
        return;
    }
    let script = r#"echo "$$ $1 $PFKEY_BACKEND"; pwd; cat; grep NoNewPrivs /proc/self/status; exit 42"#;
    let mut command = any(Path::new("sh"));
    let dir = c::scratch("any_surroundings");
    command.args(["-c", script, "sh", "a  b"]).current_dir(&dir);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let pid = child.id();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"in\n").expect("written");
    let output = child.wait_with_output().expect("it ends, and nobody keeps its output open");
    assert_eq!(output.status.code(), Some(42));
    let no_new_privs = if is_root() { 0 } else { 1 };
    let dir = dir.canonicalize().unwrap();
    let expected = format!("{pid} a  b embedded\n{}\nin\nNoNewPrivs:\t{no_new_privs}\n", dir.display());
    assert_eq!(text(output), expected);
}

#[test]
fn a_program_that_cannot_be_executed_is_told_of() {
    if can_supervise() {
        let status = |command: &mut Command| command.output().expect("it runs").status.code();
        assert_eq!(status(&mut any(Path::new("/nonexistent"))), Some(127));
        assert_eq!(status(&mut any(Path::new("/etc/passwd"))), Some(126));
        assert_eq!(status(Command::new(c::program("pfkeyd")).arg("--any")), Some(2));
        assert_eq!(status(Command::new(c::program("pfkeyd")).args(["--any", "true"])), Some(2));
        assert_eq!(status(Command::new(c::program("pfkeyd")).args(["--any", "--"])), Some(2));
    }
}

#[test]
fn a_program_that_is_supervised_can_start_others_under_a_supervisor() {
    if can_supervise() {
        let refusals = program("any_nested", "preload/refusals");
        let mut command = any(Path::new(c::program("pfkeyd")));
        assert_same(&text(c::run(command.args(["--any", "--"]).arg(refusals))), &source("preload/refusals.txt"));
    }
}

/// The supervisor of a program, which is its own.
fn supervisor_of(program: &Path) -> Option<i32> {
    let wanted = program.to_str().expect("text");
    let pids = std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.into_iter().find(|pid| {
        let of = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&of("cmdline")).into_owned();
        // The program itself was this, too, until it executed.
        of("comm").starts_with(b"pfkeyd") && arguments.split('\0').any(|argument| argument == wanted)
    })
}

/// A process whose end can be waited for; none if it has ended.
fn process(pid: i32) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes a number and gives a new descriptor.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as i32;
    // SAFETY: new, and nobody else's.
    (raw >= 0).then(|| unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Whether a process ends within ten seconds.
fn ends(process: Option<OwnedFd>) -> bool {
    process.is_none_or(|process| {
        let mut end = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        poll(&mut end, 10_000_u16) == Ok(1)
    })
}

#[test]
fn a_program_whose_supervisor_is_killed_gets_enosys_and_does_not_hang() {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    if !can_supervise() {
        return;
    }
    let orphan = program("any_orphan", "checks/any");
    let mut command = any(&orphan);
    command.arg("orphan").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    let supervisor = supervisor_of(&orphan).expect("a supervisor");
    assert_ne!(supervisor as u32, child.id());
    let end = process(supervisor);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL).expect("killed");
    assert!(ends(end));
    child.stdin.take().unwrap().write_all(b"\n").expect("written");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("text");
    let missing = "Function not implemented";
    assert_eq!(rest, format!("socket: {missing}\nwrite: {missing}\nwrite elsewhere: done\n"));
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn the_supervisor_ends_with_the_last_program() {
    if can_supervise() {
        let orphan = program("any_last", "checks/any");
        c::run(any(&orphan).arg("several"));
        // It may have ended already.
        assert!(ends(supervisor_of(&orphan).and_then(process)), "it is still there");
    }
}

#[test]
fn a_go_program() {
    if !can_supervise() {
        return;
    }
    let dir = c::scratch("any_go");
    let program = dir.join("program");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).arg(source("checks/any.go")).current_dir(&dir);
    go.env("CGO_ENABLED", "0").env("GOCACHE", dir.join("cache")).env("GOFLAGS", "-mod=mod").env("GO111MODULE", "off");
    match go.output() {
        Err(_) => println!("skipped: no go"),
        Ok(output) if !output.status.success() => {
            panic!("{go:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(_) => assert_eq!(text(c::run(&mut any(&program))), "as on AF_KEY\n"),
    }
}

/// Its errors are those of programs of 64 bits; the kernels that run as a process execute none of 32.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
#[test]
fn a_program_of_32_bits() {
    if !can_supervise() {
        return;
    }
    let Some(program) = c::compile_32(&c::scratch("any_32"), "program", &source("checks/any32.c")) else { return };
    let output = any(&program).output().expect("it runs");
    match output.status.code() {
        Some(126) => println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim()),
        code => assert_eq!(code, Some(0), "the line of any32.c that failed, modulo 256"),
    }
}

#[test]
fn a_backend_that_cannot_be_had_is_an_errno_and_can_be_asked_why() {
    if !can_supervise() {
        return;
    }
    let refusals = program("any_backend", "preload/refusals");
    for (name, value, expected, why) in [
        ("PFKEY_BACKEND", "kernel", "Invalid argument", "expected auto"),
        ("PFKEYD", "/nonexistent/pfkeyd", "Address family not supported by protocol", "sought /nonexistent/pfkeyd"),
        ("PFKEY_BACKEND", "unix:/nonexistent/socket", "No such file or directory", "/nonexistent/socket"),
    ] {
        let output = c::run(any(&refusals).arg("open").env(name, value));
        assert!(output.stderr.is_empty(), "not asked, it says nothing");
        assert!(text(output).starts_with(&format!("socket, raw: {expected}\n")), "{name}={value}");
        let output = c::run(any(&refusals).arg("open").env(name, value).env("PFKEY_DEBUG", "1"));
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{name}={value}");
    }
}

/// `unix:PATH` is opened as the user that the program is by then.
#[test]
fn a_listening_pfkeyd_is_reached_with_the_programs_rights_only() {
    if !can_supervise() {
        return;
    }
    if !is_root() {
        return println!("skipped: needs root");
    }
    let refusals = program("any_unix", "preload/refusals");
    let mut command = Command::new(c::program("pfkeyd"));
    command.args(["--", c::program("pfkeyd"), "--any", "--", "setpriv", "--reuid", "65534", "--clear-groups"]);
    let output = command.arg(refusals).arg("open").output().expect("it runs");
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    if why.contains("setpriv: failed to execute") {
        return println!("skipped: another user cannot reach the programs: {why}");
    }
    assert!(text(output).starts_with("socket, raw: Permission denied\n"), "{why}");
}

#[test]
fn pfkey_run_any_finds_pfkeyd_and_passes_everything_on() {
    if !can_supervise() {
        return;
    }
    let dir = c::scratch("any_run");
    std::fs::create_dir_all(dir.join("bin")).expect("a directory");
    std::fs::create_dir_all(dir.join("sbin")).expect("a directory");
    let script = dir.join("bin/pfkey-run");
    std::fs::copy(c::root().join("preload/pfkey-run"), &script).expect("a copy");
    let run = || {
        let mut command = Command::new(&script);
        command.env("PFKEY_BACKEND", "embedded").env_remove("PFKEYD");
        command
    };
    let output = run().args(["--any", "true"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no pfkeyd; sought "));
    let refusals = program("any_run_refusals", "preload/refusals");
    let expected = source("preload/refusals.txt");
    assert_same(&text(c::run(run().arg("--any").arg(&refusals).env("PFKEYD", c::program("pfkeyd")))), &expected);
    std::os::unix::fs::symlink(c::program("pfkeyd"), dir.join("sbin/pfkeyd")).expect("a link");
    assert_same(&text(c::run(run().arg("--any").arg("--").arg(&refusals))), &expected);
    let output = run().args(["--any", "sh", "-c", r#"echo "$1|$2"; exit 42"#, "sh", "a  b", "*"]).output().unwrap();
    assert_eq!((output.status.code(), text(output)), (Some(42), "a  b|*\n".to_owned()));
    assert_eq!(run().args(["--any"]).output().unwrap().status.code(), Some(2));
}

/// An agent that listens, ended when dropped.
struct Agent(std::process::Child, PathBuf);

impl Agent {
    fn start(directory: &Path, backend: &str) -> Self {
        let path = directory.join("agent.sock");
        let mut agent = Command::new(c::program("pfkeyd"));
        let agent = agent.arg("--seccomp-agent").arg(&path).env("PFKEY_BACKEND", backend);
        let mut child = agent.stderr(std::process::Stdio::piped()).spawn().expect("it runs");
        // The file is there a moment before it listens.
        while std::os::unix::net::UnixStream::connect(&path).is_err() {
            assert_eq!(child.try_wait().expect("its state"), None, "it has ended");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Self(child, path)
    }

    /// Ends it; gives what it said.
    fn end(mut self) -> String {
        use std::io::Read as _;
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it is there");
        assert!(self.0.wait().expect("it ends").success());
        assert!(!self.1.exists(), "its file is removed");
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).expect("text");
        said
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that would not end by itself, ended when dropped: what outlives a test that failed keeps whoever reads the tests'
/// output waiting.
struct Endless(std::process::Child);

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_runtimes_container_is_served_by_the_agent() {
    if !can_supervise() {
        return;
    }
    let exchange = program("any_agent", "preload/refusals");
    let dir = exchange.parent().unwrap();
    let runtime = c::compile_plain(dir, "runtime", &[source("checks/runtime.c")], &["-static"]);
    let agent = Agent::start(dir, "embedded");
    let run = |what: &str| {
        let mut command = Command::new(&runtime);
        command.arg(&agent.1).arg(what);
        command
    };
    // Whatever else comes disturbs nobody; one says nothing for as long as the others are served.
    let mut silent = Endless(run("silent").spawn().expect("it runs"));
    for bad in ["garbage", "nothing", "other"] {
        c::run(&mut run(bad));
    }
    for _ in 0..3 {
        if let Some(printed) = tried(run(exchange.to_str().unwrap()).env("PFKEY_BACKEND", "embedded")) {
            let expected = std::fs::read_to_string(source("preload/refusals.txt")).expect("what a kernel answered");
            assert_eq!(printed, expected);
        }
    }
    assert_eq!(silent.0.try_wait().expect("its state"), None, "it was not given up meanwhile");
    drop(silent);
    let said = agent.end();
    for why in ["its state is no JSON", "its seccompFd did not come", "its seccompFd is no listener"] {
        assert!(said.contains(why), "{why}: {said}");
    }
}

/// A container of runc's, under the profile that the documents have.
struct Container<'a> {
    directory: &'a Path,
    profile: String,
}

impl Container<'_> {
    fn run(&self, capabilities: &str, arguments: &str) -> Output {
        let id = std::process::id();
        let config = format!(
            r#"{{"ociVersion": "1.0.2", "hostname": "vpn",
            "process": {{"terminal": false, "user": {{"uid": 0, "gid": 0}}, "args": [{arguments}], "cwd": "/", "env": [],
              "noNewPrivileges": true, "capabilities": {{"bounding": [{capabilities}], "effective": [{capabilities}],
              "permitted": [{capabilities}]}}}},
            "root": {{"path": "rootfs", "readonly": true}},
            "mounts": [{{"destination": "/proc", "type": "proc", "source": "proc"}}],
            "linux": {{"cgroupsPath": "/pfkey-test-{id}", "namespaces": [{{"type": "pid"}}, {{"type": "network"}},
              {{"type": "ipc"}}, {{"type": "uts"}}, {{"type": "mount"}}], "seccomp": {}}}}}"#,
            self.profile
        );
        std::fs::write(self.directory.join("config.json"), config).expect("written");
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(self.directory.join("state")).args(["run", "--bundle"]).arg(self.directory);
        runc.arg(format!("pfkey-test-{id}")).stdin(std::process::Stdio::null()).output().expect("it runs")
    }
}

/// What it adds to the SPD is its own namespace's: the next container sees none of it.
#[test]
fn runc_runs_containers_that_the_agent_serves() {
    if !can_supervise() || !c::has_xfrm() {
        return;
    }
    if !is_root() || Command::new("runc").arg("--version").output().is_err() {
        return println!("skipped: needs root and runc");
    }
    let program = program("any_runc", "checks/any");
    let dir = program.parent().unwrap();
    std::fs::create_dir_all(dir.join("rootfs/proc")).expect("a directory");
    std::fs::copy(&program, dir.join("rootfs/any")).expect("a copy");
    let agent = Agent::start(dir, "xfrm");
    let documented = std::fs::read_to_string(c::root().join("docs/preload.md")).expect("the document");
    let profile = documented.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the profile");
    let profile = profile.replace("/run/pfkeyd/seccomp.sock", agent.1.to_str().unwrap());
    let container = Container { directory: dir, profile };
    let admin = r#""CAP_NET_ADMIN""#;
    for (capabilities, arguments) in
        [(admin, r#""/any", "alone""#), (admin, r#""/any", "alone""#), ("", r#""/any", "without rights""#)]
    {
        let output = container.run(capabilities, arguments);
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        // Where no container can run at all.
        if why.contains("runc run failed") {
            return println!("skipped: {}", why.trim());
        }
        assert_eq!((text(output).as_str(), why.as_str()), ("as on AF_KEY\n", ""), "{arguments}");
    }
    agent.end();
}
