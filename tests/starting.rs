//! Opening a private descriptor, in whatever process: with threads, without descriptors, limits, capabilities or /dev/null;
//! and that nobody but root and the caller says what is executed.

#[path = "support/c.rs"]
mod c;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Builds the C program once for all tests that run it.
fn program() -> &'static Path {
    static PROGRAM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(|| {
        let dir = c::scratch("starting");
        c::compile(&dir, "starting", &[c::root().join("c-tests/checks/starting.c")], &["-pthread"])
    })
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env("PFKEY_BACKEND", "embedded").env("PFKEYD", c::program("pfkeyd"));
    // LeakSanitizer needs a /proc and a process of its own, which are not to be had in these surroundings.
    command.env("LSAN_OPTIONS", "detect_leaks=0");
    command
}

fn went_well(output: &Output, what: &str) {
    if output.status.code() == Some(77) {
        return println!("skipped: {what} needs root");
    }
    assert!(output.status.success(), "{what}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

fn goes_well(arguments: &[&str]) {
    went_well(&command(program(), arguments).output().unwrap(), arguments[0]);
}

#[test]
fn threads_that_start_processes_do_not_hang_it() {
    goes_well(&["spawn"]);
}

#[test]
fn a_child_that_another_thread_forks_keeps_no_end_of_it() {
    goes_well(&["children"]);
}

#[test]
fn six_descriptors_are_enough() {
    goes_well(&["few"]);
}

#[test]
fn the_callers_descriptors_are_its_own() {
    goes_well(&["descriptors"]);
}

#[test]
fn a_pfkeyd_that_is_stopped_holds_nobody_up() {
    goes_well(&["stopped"]);
}

#[test]
fn a_slow_pfkeyd_is_waited_for_on_a_non_blocking_descriptor_too() {
    goes_well(&["slow"]);
}

#[test]
fn a_program_that_says_nothing_is_waited_for_with_an_end() {
    let dir = c::scratch("starting_mute");
    let source = dir.join("mute.c");
    std::fs::write(
        &source,
        "#include <poll.h>\nint main(void) { struct pollfd p = { 4, 0, 0 }; return poll(&p, 1, 60000) < 0; }\n",
    )
    .unwrap();
    let mute = c::compile_plain(&dir, "mute", &[source], &[]);
    went_well(&command(program(), &["mute"]).env("PFKEYD", mute).output().unwrap(), "mute");
}

#[test]
fn a_pid_namespace_that_nobody_is_in_stays_usable() {
    goes_well(&["namespace"]);
}

#[test]
fn the_callers_limits_are_not_pfkeyds() {
    if cfg!(sanitized) {
        return println!("skipped: AddressSanitizer needs more memory than the limits leave");
    }
    goes_well(&["limits"]);
}

#[test]
fn no_process_can_be_had_and_the_text_says_why() {
    goes_well(&["processes"]);
}

#[test]
fn a_subreaper_can_wait_for_its_end() {
    goes_well(&["subreaper"]);
}

#[test]
fn a_capability_without_root_is_enough_for_xfrm() {
    let output = command(program(), &["capability"]).env("PFKEY_BACKEND", "xfrm").output().unwrap();
    if String::from_utf8_lossy(&output.stderr).contains("no XFRM over netlink") {
        return println!("skipped: the kernel has no XFRM");
    }
    went_well(&output, "a capability without root");
}

#[test]
fn root_without_the_capability_gets_eperm() {
    let output = command(program(), &["root"]).env("PFKEY_BACKEND", "xfrm").output().unwrap();
    if String::from_utf8_lossy(&output.stderr).contains("no XFRM over netlink") {
        return println!("skipped: the kernel has no XFRM");
    }
    went_well(&output, "root without the capability");
}

#[test]
fn signals_do_not_end_it() {
    goes_well(&["signals"]);
}

/// A directory to be the root of: pfkeyd, and the libraries that it names.
fn new_root(name: &str) -> PathBuf {
    let root = c::scratch(name);
    let pfkeyd = Path::new(c::program("pfkeyd"));
    std::fs::copy(pfkeyd, root.join("pfkeyd")).unwrap();
    let listed = c::run(Command::new("ldd").arg(pfkeyd));
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(&library[1..]);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(library, place).unwrap();
    }
    root
}

#[test]
fn without_dev_null_it_has_no_stream_of_the_callers() {
    let root = new_root("starting_root");
    goes_well(&["root-directory", &root.to_string_lossy()]);
}

#[test]
fn after_a_chroot_the_pfkeyd_of_before_is_started() {
    let root = new_root("starting_root_without");
    std::fs::remove_file(root.join("pfkeyd")).unwrap();
    let root = root.to_string_lossy();
    goes_well(&["no-pfkeyd-inside", &root]);
    goes_well(&["number-used-again", &root]);
}

#[test]
fn a_new_root_without_what_pfkeyd_needs_is_said_to_be_that() {
    let root = c::scratch("starting_empty_root");
    goes_well(&["nothing-inside", &root.to_string_lossy()]);
}

/// A file that would leave a mark if it were executed.
fn trap(directory: &Path) -> PathBuf {
    let mark = directory.join("executed");
    let source = directory.join("trap.c");
    let text =
        format!("#include <fcntl.h>\nint main(void) {{ return open(\"{}\", O_CREAT, 0600) < 0; }}\n", mark.display());
    std::fs::write(&source, text).unwrap();
    let trap = c::compile_plain(directory, "pfkeyd", &[source], &[]);
    assert!(!mark.exists());
    trap
}

#[test]
fn the_name_that_a_program_was_started_by_says_nothing() {
    let dir = c::scratch("starting_name");
    trap(&dir);
    // This program contains the library; its role opens a descriptor.
    let mut role = Command::new(std::env::current_exe().unwrap());
    role.arg0(dir.join("program")).args(["role", "--exact", "--nocapture"]).env("PFKEY_STARTING_ROLE", "open");
    role.env("PFKEY_BACKEND", "embedded").env_remove("PFKEYD");
    c::run(&mut role);
    assert!(!dir.join("executed").exists());
}

#[test]
fn role() {
    if std::env::var_os("PFKEY_STARTING_ROLE").is_some() {
        drop(pfkey_rs::socket::open().expect("the pfkeyd that cargo built"));
    }
}

#[test]
fn a_program_that_others_can_write_is_not_started() {
    let dir = c::scratch("starting_unfit");
    let trap = trap(&dir);
    std::fs::set_permissions(&trap, PermissionsExt::from_mode(0o777)).unwrap();
    let refuses = |command: &mut Command| went_well(&command.output().unwrap(), "others may have written it");
    refuses(command(program(), &["cannot", "owned or writable by others"]).env("PFKEYD", &trap));
    // Beside the library it is passed over, and so is everything in a directory that others can write.
    let library = c::output_dir().join("libpfkey_rs.so");
    std::fs::remove_file(dir.join("libpfkey_rs.so.0")).unwrap();
    std::fs::copy(library, dir.join("libpfkey_rs.so.0")).unwrap();
    let mut beside = command(program(), &["cannot", "no pfkeyd program; sought"]);
    refuses(beside.env("LD_LIBRARY_PATH", &dir).env_remove("PFKEYD"));
    std::fs::set_permissions(&trap, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).unwrap();
    let mut beside = command(program(), &["cannot", "no pfkeyd program; sought"]);
    refuses(beside.env("LD_LIBRARY_PATH", &dir).env_remove("PFKEYD"));
    assert!(!dir.join("executed").exists());
}

#[test]
fn a_set_user_id_program_starts_nothing_that_its_caller_names() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: a set-user-ID program needs root");
    }
    // Where others can go.
    let dir = nix::unistd::mkdtemp(&std::env::temp_dir().join("starting-XXXXXX")).unwrap();
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
    let trap = trap(&dir);
    std::fs::copy(c::output_dir().join("libpfkey_rs.so"), dir.join("libpfkey_rs.so")).unwrap();
    std::os::unix::fs::symlink("libpfkey_rs.so", dir.join("libpfkey_rs.so.0")).unwrap();
    let program = c::compile(&dir, "starting", &[c::root().join("c-tests/checks/starting.c")], &["-pthread"]);
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    let mut command = command(&program, &["cannot", ""]);
    command.uid(64999).gid(64999).env("PFKEYD", &trap).env("PFKEY_BACKEND", "embedded");
    let output = command.output().unwrap();
    let executed = dir.join("executed").exists();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(!executed);
    went_well(&output, "a set-user-ID program");
}
