//! `PFKEY_XFRM`, `pfkeyd --xfrm` and `pfkey_set_xfrm`: what a program asks for reaches whichever pfkeyd is behind its descriptor.
//! What becomes of it there: `tests/xfrm_attributes.rs`, and over a kernel `tests/kernel/attributes`.

#[path = "support/program.rs"]
mod program;

use program::program;
use std::process::{Command, Output};

const ADD: &str = "add 192.0.2.1 192.0.2.2 esp 0x1000 -E null -A hmac-sha1 0x000102030405060708090a0b0c0d0e0f10111213";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A script with `pfkeyd`, started so, around it; `$pfkey` is the command.
fn around(options: &[&str], script: &str) -> Output {
    let mut command = Command::new(program("pfkeyd"));
    command
        .args(options)
        .args(["--", "sh", "-euc", script])
        .env("pfkey", program("pfkey"))
        .env("PFKEYD", program("pfkeyd"));
    command.output().unwrap()
}

fn pfkey(backend: &str, xfrm: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("pfkey"));
    command.args(arguments).env("PFKEY_BACKEND", backend).env("PFKEY_XFRM", xfrm).env("PFKEYD", program("pfkeyd"));
    command.output().unwrap()
}

#[test]
fn programs_in_worlds_of_their_own_share_a_pfkeyd() {
    let script = format!(
        "PFKEY_XFRM=if_id=1 $pfkey {ADD}
         for world in 'if_id=1' 'if_id=2' ''; do PFKEY_XFRM=$world $pfkey dump | grep -c 'spi=0x00001000' || true; done
         PFKEY_XFRM=if_id=2 $pfkey flush
         $pfkey dump | grep -o 'xfrm=.* bytes'
         PFKEY_XFRM=if_id=1 $pfkey flush
         $pfkey dump"
    );
    let output = around(&[], &script);
    assert_eq!(text(&output.stdout), "1\n0\n1\nxfrm=if_id=1 bytes\n", "{}", text(&output.stderr));
}

#[test]
fn a_pfkeyd_has_settings_for_programs_without_their_own() {
    let script =
        format!("$pfkey {ADD}; $pfkey dump | grep -o 'xfrm=.* bytes'; PFKEY_XFRM=set-mark=2 $pfkey dump | wc -l");
    let output = around(&["--xfrm", "if_id=7,set-mark=1"], &script);
    assert_eq!(text(&output.stdout), "xfrm=\"set-mark=0x1 if_id=7\" bytes\n1\n", "{}", text(&output.stderr));
}

#[test]
fn a_private_pfkeyd_is_told_too() {
    let output = pfkey("embedded", "if_id=7", &ADD.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let refused = pfkey("embedded", "offload=lo", &["dump"]);
    let complaint = "PFKEY_XFRM: this key engine has no offload (XFRMA_OFFLOAD_DEV; Linux has it since 4.11";
    assert!(text(&refused.stderr).contains(complaint), "{}", text(&refused.stderr));
}

#[test]
fn what_cannot_be_is_said() {
    for (backend, xfrm, complaint) in [
        ("embedded", "if_id=1 ofload=lo", "PFKEY_XFRM: word 2, \"ofload=lo\": unknown name"),
        ("embedded", "offload=none0/packet", "word 1, \"offload=none0/packet\": no such network interface"),
        ("afkey", "if_id=1", "AF_KEY has none of XFRM's attributes (PFKEY_XFRM)"),
    ] {
        let output = pfkey(backend, xfrm, &["dump"]);
        assert_eq!(output.status.code(), Some(3), "{xfrm}");
        assert!(text(&output.stderr).contains(complaint), "{}", text(&output.stderr));
    }
    for options in [
        &["--xfrm", "if_id=0", "--", "true"][..],
        &["--xfrm", "if_id=1", "--service"],
        &["--profile", "klips", "--xfrm", "if_id=1", "--", "true"],
    ] {
        let output = Command::new(program("pfkeyd")).args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        assert!(text(&output.stderr).contains("--xfrm") || options.contains(&"--service"), "{}", text(&output.stderr));
    }
    let lacks = around(&["--xfrm", "pcpu=1"], "true");
    assert!(text(&lacks.stderr).contains("--xfrm: this key engine has no pcpu"), "{}", text(&lacks.stderr));
    // KLIPS's answers no such question.
    let klips = around(&["--profile", "klips"], "PFKEY_XFRM=if_id=1 $pfkey monitor");
    assert!(text(&klips.stderr).contains("has none of XFRM's attributes"), "{}", text(&klips.stderr));
}

/// Needs root, to have a network namespace and XFRM.
#[test]
fn programs_in_worlds_of_their_own_share_the_machines_pfkeyd() {
    if pfkey_rs::xfrm::Netlink::open().is_err() || nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
        return eprintln!("skipped: it needs root, network namespaces and XFRM");
    }
    let script = "
        dir=$(mktemp -d)
        mkfifo $dir/started
        $pfkeyd --service $dir/s --status 3 3>$dir/started & served=$!
        trap 'kill $served; wait $served; rm -r $dir' EXIT
        [ $(od -An -N4 -td4 $dir/started) = 0 ]
        export PFKEY_BACKEND=service:$dir/s
        for world in mark=1 mark=2; do
          PFKEY_XFRM=$world $pfkey policy add 10.0.0.0/24 10.1.0.0/24 any -P out discard
        done
        PFKEY_XFRM=mark=2 $pfkey policy flush
        PFKEY_XFRM=mark=2 $pfkey spd
        $pfkey spd | grep -o 'xfrm=mark=[^ ]*'";
    let mut command = Command::new("sh");
    command.args(["-euc", script]).env("pfkey", program("pfkey")).env("pfkeyd", program("pfkeyd"));
    let output = command.output().unwrap();
    assert_eq!(text(&output.stdout), "xfrm=mark=0x1/0xffffffff\n", "{}", text(&output.stderr));
}
