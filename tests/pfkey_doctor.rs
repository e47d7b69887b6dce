//! `pfkey doctor`: what it tries, its verdict, and its exit status.

#[path = "support/c.rs"]
mod c;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// `pfkey doctor` with these arguments and this backend, as JSON.
fn doctor(backend: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(c::program("pfkey"));
    c::program("pfkeyd");
    command.args(["--json", "doctor"]).args(arguments).env("PFKEY_BACKEND", backend).output().unwrap()
}

/// What was found, in order: (what, found, why).
fn findings(output: &Output) -> Vec<(String, String, String)> {
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let all = value["findings"].as_array().unwrap().iter();
    all.map(|finding| (text(finding, "what"), text(finding, "found"), text(finding, "why"))).collect()
}

fn by_name(output: &Output) -> BTreeMap<String, (String, String)> {
    findings(output).into_iter().map(|(what, found, why)| (what, (found, why))).collect()
}

#[test]
fn all_works_in_memory() {
    let output = doctor("embedded", &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let found = findings(&output);
    let (what, verdict, why) = &found[0];
    assert!(what == "verdict" && verdict == "ok" && why.contains("protects no packet"), "{found:?}");
    let names: Vec<&str> = found.iter().map(|(what, ..)| what.as_str()).collect();
    assert_eq!(names[1..6], ["racoon", "iked", "strongSwan", "isakmpd", "setkey"]);
    assert_eq!(found[1], ("racoon".to_owned(), "ok".to_owned(), "works through libipsec.so.0".to_owned()));
    let found = by_name(&output);
    assert!(found["tried"].1.starts_with("17 of 17 "), "{found:?}");
    for algorithm in ["aes-gcm-16", "3des-cbc", "hmac-sha1"] {
        assert!(found["algorithms"].1.contains(algorithm), "{found:?}");
    }
}

#[test]
fn nothing_serves() {
    for backend in ["unix:/nonexistent", "nonsense", "service:/nonexistent"] {
        let output = doctor(backend, &[]);
        assert_eq!(output.status.code(), Some(2), "{backend}: {output:?}");
        let found = findings(&output);
        assert!(found[0].0 == "verdict" && found[0].1 == "failed", "{backend}: {found:?}");
        assert!(!found.iter().any(|(what, ..)| what == "racoon"), "{backend}: {found:?}");
        // Users hear that, too, and not only that they have no right.
        assert!(backend == "nonsense" || found[0].2.contains("/nonexistent"), "{backend}: {found:?}");
    }
}

/// Whatever this machine's kernel has: the status, the verdict and the daemons say the same, and nothing is left.
#[test]
fn this_machine() {
    let output = doctor("", &[]);
    let found = by_name(&output);
    let judged =
        ["racoon", "iked", "strongSwan", "isakmpd", "setkey"].map(|name| found.get(name).map(|f| f.0.as_str()));
    match output.status.code() {
        Some(0) => assert!(judged.iter().all(|one| *one == Some("ok")), "{found:?}"),
        Some(1) => {
            assert!(judged.iter().all(Option::is_some) && judged.iter().any(|one| *one != Some("ok")), "{found:?}");
            assert!(found["missing"].1.contains("CONFIG_"), "{found:?}");
        }
        Some(2) => {
            assert_eq!(found["verdict"].0, "failed");
            // A 64-bit kernel has such sockets for 32-bit programs, too, and may do nothing that they ask for.
            let no_xfrm = found["backend"].1.contains("this kernel has no XFRM");
            assert!(!no_xfrm || found["XFRM_USER"].0 == "missing", "{found:?}");
        }
        other => panic!("{other:?}: {output:?}"),
    }
    let stat = std::fs::read_to_string("/proc/net/xfrm_stat").unwrap_or_default();
    let after = Command::new(c::program("pfkey")).args(["--json", "dump"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&after.stdout).contains("192.0.2.1"), "{stat} {after:?}");
}

/// A user tries in a user namespace what root tries without one.
#[test]
fn a_user_tries_it_too() {
    if !is_root() {
        return eprintln!("skipped: not root");
    }
    // The build's directory may be root's only.
    let here = std::env::temp_dir().join(format!("pfkey-doctor-{}", std::process::id()));
    std::fs::create_dir(&here).unwrap();
    for name in ["pfkey", "pfkeyd"] {
        std::fs::copy(c::program(name), here.join(name)).unwrap();
    }
    let mode = Command::new("chmod").args(["-R", "755"]).arg(&here).status().unwrap();
    let user = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let output = Command::new("setpriv").args(user).arg(here.join("pfkey")).args(["--json", "doctor"]).output();
    std::fs::remove_dir_all(&here).unwrap();
    assert!(mode.success());
    let (output, as_root) = (output.unwrap(), doctor("", &[]));
    let (found, roots) = (by_name(&output), by_name(&as_root));
    if output.status.code() == Some(2) {
        match found.get("trial") {
            // Where user namespaces are not for users, that is what it says.
            Some((_, why)) => assert!(why.contains("user namespaces"), "{found:?}"),
            // Where nothing serves root either, there is nothing to try.
            None => {
                assert_eq!(found["verdict"], roots["verdict"]);
                println!("skipped: {}", roots["verdict"].1);
            }
        }
        return;
    }
    assert_eq!(output.status.code(), as_root.status.code(), "{output:?}");
    assert_eq!(found["backend"].0, "failed");
    assert!(found["verdict"].1.contains("not for this user"), "{found:?}");
    assert_eq!(found["tried"].1.replace("user and network", "network"), roots["tried"].1);
    assert_eq!(found["racoon"], roots["racoon"]);
}

/// Refuses NETLINK_XFRM and AF_KEY as a kernel without them does, and becomes another program.
const WITHOUT: &str = r#"
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ARGUMENT(n) (offsetof(struct seccomp_data, args) + 8 * (n))
#else
#define ARGUMENT(n) (offsetof(struct seccomp_data, args) + 8 * (n) + 4)
#endif
#define LOAD(at) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip)
#define ANSWER(what) BPF_STMT(BPF_RET | BPF_K, what)
int main(int argc, char **argv) {
    struct sock_filter filter[] = {
        LOAD(offsetof(struct seccomp_data, nr)),
        UNLESS(SYS_socket, 7),
        LOAD(ARGUMENT(0)),
        UNLESS(15, 1), /* PF_KEY */
        ANSWER(SECCOMP_RET_ERRNO | EAFNOSUPPORT),
        UNLESS(16, 3), /* PF_NETLINK */
        LOAD(ARGUMENT(2)),
        UNLESS(6, 1), /* NETLINK_XFRM */
        ANSWER(SECCOMP_RET_ERRNO | EPROTONOSUPPORT),
        ANSWER(SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (argc < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        return 77;
    execv(argv[1], argv + 1);
    return 99;
}
"#;

/// Before programs whose C library calls `socketcall`, of whose arguments a filter does not see the family.
const DIRECT: &str = r#"
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
int socket(int domain, int type, int protocol) {
    return (int)syscall(SYS_socket, domain, type, protocol);
}
"#;

/// A kernel without XFRM_USER and AF_KEY, by a filter of system calls.
#[test]
fn a_kernel_without_xfrm() {
    let dir = c::scratch("pfkey_doctor_without");
    let without = compiled(&dir, "without", WITHOUT, &[]);
    let mut command = Command::new(without);
    if cfg!(all(any(target_arch = "x86", target_arch = "s390x"), target_env = "gnu")) {
        command.env("LD_PRELOAD", compiled(&dir, "direct.so", DIRECT, &["-shared", "-fPIC", "-D_GNU_SOURCE"]));
    }
    c::program("pfkeyd");
    command.arg(c::program("pfkey")).args(["--json", "doctor"]).env_remove("PFKEY_BACKEND");
    let output = command.output().unwrap();
    if output.status.code() == Some(77) {
        return println!("skipped: no filters of system calls here");
    }
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let all = findings(&output);
    assert_eq!((all[0].0.as_str(), all[0].1.as_str()), ("verdict", "failed"));
    assert!(all[0].2.starts_with("nothing serves PF_KEY here: "), "{all:?}");
    let found = by_name(&output);
    assert_eq!(found["XFRM_USER"].0, "missing", "{found:?}");
    assert!(found["XFRM_USER"].1.contains("CONFIG_XFRM_USER"), "{found:?}");
    assert_eq!(found["AF_KEY"].0, "missing");
    assert!(!found.contains_key("racoon"), "{found:?}");
    assert!(all.iter().all(|(.., why)| !why.contains('\n')), "a reason is one line: {all:?}");
    if is_root() {
        assert!(all[0].2.contains("CONFIG_XFRM_USER, or the module xfrm_user"), "{all:?}");
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A program that opens PF_KEY itself, and one that calls libipsec.
const RAW: &str = "#include <sys/socket.h>\nint main(void) { return socket(15, SOCK_RAW, 2) < 0; }\n";
const CALLS: &str = "int pfkey_open(void);\nint main(void) { return pfkey_open() < 0; }\n";

/// A program that is linked with nothing of ours.
fn compiled(dir: &Path, name: &str, text: &str, flags: &[&str]) -> PathBuf {
    let source = dir.join(format!("{name}.c"));
    std::fs::write(&source, text).unwrap();
    c::compile_plain(dir, name, &[source], flags)
}

/// What a program's file says decides.
#[test]
fn the_way_of_a_program() {
    let dir = c::scratch("pfkey_doctor_way");
    let said = |program: &Path| {
        let output = doctor("", &[program.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        by_name(&output)
    };
    let raw = compiled(&dir, "raw", RAW, &[]);
    let found = said(&raw);
    assert_eq!(found["way"].1, format!("pfkey-run {}: it calls socket by itself", raw.display()));
    assert!(found["binary"].1.starts_with("a dynamic program, ") && found["binary"].1.ends_with("calls socket"));
    // A library of libipsec's name, which need not do anything.
    let shared = ["-shared", "-fPIC", "-Wl,-soname,libipsec.so.0"];
    let library =
        compiled(&dir, "libipsec.so.0", "int pfkey_open(void);\nint pfkey_open(void) { return -1; }\n", &shared);
    let calls = compiled(&dir, "calls", CALLS, &[library.to_str().unwrap()]);
    let found = said(&calls);
    assert!(found["way"].1.starts_with("LD_LIBRARY_PATH=/"), "{found:?}");
    assert!(found["links"].1.contains("libipsec.so.0"), "{found:?}");
    assert!(found["rebuild"].1.contains("-lpfkey_rs"), "{found:?}");
    assert!(said(&library)["way"].1.starts_with("a library"));
    let set_id = dir.join("set-user-ID");
    std::fs::copy(&raw, &set_id).unwrap();
    std::fs::set_permissions(&set_id, std::fs::Permissions::from_mode(0o4755)).unwrap();
    assert!(said(&set_id)["way"].1.starts_with("pfkey-run --any "));
    if is_root() {
        let capable = dir.join("capable");
        std::fs::copy(&raw, &capable).unwrap();
        let set = Command::new("setcap").arg("cap_net_admin+ep").arg(&capable).status();
        if set.is_ok_and(|status| status.success()) {
            assert!(said(&capable)["way"].1.ends_with("it is with file capabilities"));
        }
    }
    if c::static_programs() {
        let fixed = compiled(&dir, "static", RAW, &["-static"]);
        assert!(said(&fixed)["way"].1.ends_with("it is static"), "{:?}", said(&fixed));
        let pie = compiled(&dir, "static-pie", RAW, &["-static-pie"]);
        assert!(said(&pie)["way"].1.ends_with("it is static"), "{:?}", said(&pie));
    }
    // The crates are inside; no unit of pfkey's needs a drop-in.
    assert_eq!(said(Path::new(c::program("pfkey")))["way"].1, "this library is a part of it");
    let script = dir.join("script");
    std::fs::write(&script, "#!/bin/sh\nexec iked\n").unwrap();
    assert!(said(&script)["way"].1.starts_with("a script of /bin/sh"));
}

/// What is no program is refused, at once, whatever it is.
#[test]
fn what_is_no_program() {
    let dir = c::scratch("pfkey_doctor_hostile");
    let [text, part, sparse, fifo] = ["text", "part", "sparse", "fifo"].map(|name| dir.join(name));
    std::fs::write(&text, "text\n").unwrap();
    let whole = std::fs::read(c::program("pfkey")).unwrap();
    std::fs::write(&part, &whole[..whole.len() / 2]).unwrap();
    std::fs::write(&sparse, &whole[..64]).unwrap();
    std::fs::OpenOptions::new().write(true).open(&sparse).unwrap().set_len(10 << 30).unwrap();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for path in [&text, &part, &sparse, &fifo, &dir, &dir.join("nothing"), Path::new("/dev/zero")] {
        let mut command = Command::new("timeout");
        let output = command.arg("60").arg(c::program("pfkey")).arg("doctor").arg(path).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}: {output:?}", path.display());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.starts_with(&format!("pfkey: doctor: {}: ", path.display())), "{told}");
    }
}

/// A unit's drop-in is shown, written once it is asked for, and nobody else's is touched.
#[test]
fn a_unit_is_adopted() {
    if !is_root() {
        return println!("skipped: it needs root, for directories of its own");
    }
    let apart = Command::new("unshare").args(["-m", "true"]).output().unwrap();
    if !apart.status.success() {
        // In a chroot whose root is no mount point.
        return println!("skipped: it needs mounts of its own: {}", String::from_utf8_lossy(&apart.stderr));
    }
    let dir = c::scratch("pfkey_doctor_adopt");
    let raw = compiled(&dir, "raw", RAW, &[]);
    let script = r#"set -eu
        mount -t tmpfs none /etc
        units=/etc/systemd/system
        mkdir -p $units/other.service.d
        printf '[Service]\nExecStart=-%s \\\n  -d "a b"\nRestrictAddressFamilies=AF_INET\nSystemCallFilter=@system-service\n' "$RAW" >$units/raw.service
        cp $units/raw.service $units/other.service
        echo '[Service]' >$units/other.service.d/pfkey.conf
        printf '[Service]\nExecStart=/nonexistent\n\0\377=' >$units/broken.service
        mkfifo $units/fifo.service
        "$PFKEY" doctor "$RAW" | sed -n 's/.*what=unit found=ok why="\([^ ]*\) .*/\1/p'
        "$PFKEY" doctor --adopt raw </dev/null >/etc/shown 2>/etc/told
        grep -q 'nothing was written' /etc/told
        [ ! -e $units/raw.service.d ]
        "$PFKEY" doctor --adopt raw.service --yes >/dev/null 2>/etc/told
        grep -q 'systemctl daemon-reload && systemctl restart raw.service$' /etc/told
        sed -n '/^\[Service\]/,$p' /etc/shown | cmp - /dev/fd/3 3<<END
$(sed -n '/^\[Service\]/,$p' $units/raw.service.d/pfkey.conf)
END
        [ "$(ls -A $units/raw.service.d)" = pfkey.conf ]
        "$PFKEY" doctor --adopt raw --yes 2>&1 >/dev/null | grep -q 'says that already'
        for unit in other broken fifo nothing ../raw; do
          status=0; "$PFKEY" doctor --adopt "$unit" --yes >/dev/null 2>/etc/told || status=$?
          echo "$unit $status"
        done
        [ "$(cat $units/other.service.d/pfkey.conf)" = '[Service]' ]
        cat $units/raw.service.d/pfkey.conf"#;
    let mut command = Command::new("timeout");
    command.args(["60", "unshare", "-m", "sh", "-c", script]);
    let output = command.env("PFKEY", c::program("pfkey")).env("RAW", &raw).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let expected = format!(
        "other.service\nraw.service\nother 1\nbroken 1\nfifo 1\nnothing 1\n../raw 2\n\
         # Made by pfkey doctor --adopt, see pfkey(1).\n[Service]\nExecStart=\n\
         ExecStart=-/usr/bin/pfkey-run {} -d \"a b\"\nRestrictAddressFamilies=AF_UNIX AF_NETLINK\n\
         # A pfkeyd is started, and confines itself.\nSystemCallFilter=@process seccomp\n",
        raw.display()
    );
    assert_eq!(text.replace("/usr/local/bin/pfkey-run", "/usr/bin/pfkey-run"), expected);
}
