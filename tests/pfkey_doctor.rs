//! `pfkey doctor`: what it tries, its verdict, and its exit status.

#[path = "support/c.rs"]
mod c;

use std::collections::BTreeMap;
use std::path::Path;
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
        Some(2) => assert_eq!(found["verdict"].0, "failed"),
        other => panic!("{other:?}: {output:?}"),
    }
    let stat = std::fs::read_to_string("/proc/net/xfrm_stat").unwrap_or_default();
    let after = Command::new(c::program("pfkey")).args(["--json", "dump"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&after.stdout).contains("192.0.2.1"), "{stat} {after:?}");
}

/// A user tries in a user namespace what root tries without one.
#[test]
fn a_user_tries_it_too() {
    if !nix_is_root() {
        return eprintln!("skipped: not root");
    }
    let directory = c::scratch("pfkey_doctor_user");
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
    assert!(mode.success() && directory.is_dir());
    let (output, as_root) = (output.unwrap(), doctor("", &[]));
    let (found, roots) = (by_name(&output), by_name(&as_root));
    if output.status.code() == Some(2) {
        // Where user namespaces are not for users, that is what it says.
        assert!(found["trial"].1.contains("user namespaces"), "{found:?}");
        return;
    }
    assert_eq!(output.status.code(), as_root.status.code(), "{output:?}");
    assert_eq!(found["backend"].0, "failed");
    assert!(found["verdict"].1.contains("not for this user"), "{found:?}");
    assert_eq!(found["tried"].1.replace("user and network", "network"), roots["tried"].1);
    assert_eq!(found["racoon"], roots["racoon"]);
}

fn nix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(Path::new("/proc/self")).is_ok_and(|stat| stat.uid() == 0)
}
