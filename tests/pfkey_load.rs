//! `pfkey load` beyond one command after the other: what it warns of, `--check`, `--diff`, `--replace`, directories.
#![forbid(unsafe_code)]

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;

use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::process::Stdio;

use c::scratch;
use daemon::{Daemon, start, write};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

/// Two SAs and the policies that use them.
const TUNNEL: &str = "\
flush; spdflush;
add 192.0.2.1 198.51.100.2 esp 0x1001 -m tunnel -u 7 -lh 3600 -ls 3000 -E aes-cbc 0x00112233445566778899aabbccddeeff;
add 198.51.100.2 192.0.2.1 esp 0x1002 -m tunnel -u 7 -E null;
spdadd 10.0.1.0/24 10.0.2.0/24 any -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/unique:7;
spdadd 10.0.2.0/24 10.0.1.0/24 any -P in ipsec esp/tunnel/198.51.100.2-192.0.2.1/require;
";

/// What it says on standard error, without the file's name, and its status.
fn told(daemon: &Daemon, arguments: &[&str], path: &str) -> (Vec<String>, i32) {
    let output = daemon.run(&[&["load"], arguments, &[path]].concat());
    let errors = String::from_utf8(output.stderr).unwrap();
    let lines = errors.lines().map(|line| {
        let line = line.strip_prefix("pfkey: ").unwrap_or(line);
        line.strip_prefix(path).unwrap_or(line).to_owned()
    });
    (lines.collect(), output.status.code().unwrap())
}

/// Both databases, as a file.
fn saved(daemon: &Daemon) -> String {
    daemon.ok(&["save"])
}

#[test]
fn sas_and_policies_that_do_not_find_each_other_are_told() {
    let (daemon, directory) = start("pfkey_in_vain");
    assert_eq!(told(&daemon, &[], &write(&directory, "good.conf", TUNNEL)), (Vec::new(), 0));
    let text = TUNNEL.replace("-u 7 -lh", "-lh").replace("0x1002 -m tunnel", "0x1002 -m transport");
    let warnings = [
        ": warning: out policy 10.0.1.0/24 10.0.2.0/24 any: no SA for esp/tunnel/192.0.2.1-198.51.100.2/unique:7",
        ": warning: in policy 10.0.2.0/24 10.0.1.0/24 any: no SA for esp/tunnel/198.51.100.2-192.0.2.1/require",
        ": warning: esp 192.0.2.1 198.51.100.2 spi 0x00001001: no policy uses it",
        ": warning: esp 198.51.100.2 192.0.2.1 spi 0x00001002: no policy uses it",
    ];
    let bad = write(&directory, "bad.conf", &text);
    assert_eq!(told(&daemon, &[], &bad), (warnings.map(str::to_owned).to_vec(), 0));
    assert_eq!(told(&daemon, &["--check"], &bad), (Vec::new(), 0), "nothing is there to be looked at");
    // A key manager makes the SAs of policies alone, and may make the policies of SAs.
    for text in
        [TUNNEL.lines().take(3).collect::<String>(), "spdflush; flush; ".to_owned() + TUNNEL.lines().last().unwrap()]
    {
        assert_eq!(told(&daemon, &[], &write(&directory, "half.conf", &text)), (Vec::new(), 0), "{text}");
    }
}

#[test]
fn transport_and_bundles_find_their_sas() {
    let (daemon, directory) = start("pfkey_bundles");
    // AH around ESP's tunnel is between the tunnel's ends.
    let text = "\
        add 192.0.2.1 198.51.100.2 esp 1001 -m tunnel -E null; add 192.0.2.1 198.51.100.2 ah 1002 -m transport -A hmac-md5 \"1234567890123456\";\n\
        add 10.9.0.1 10.9.0.2 esp 1003 -m transport -E null; add 2001:db8::1 2001:db8::2 esp 1004 -m transport -E null;\n\
        spdadd 10.0.1.0/24 10.0.2.0/24 any -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/require ah/transport//require;\n\
        spdadd 10.9.0.0/24 10.9.0.0/24 any -P out ipsec esp/transport//require;\n\
        spdadd 2001:db8::1 2001:db8::2 any -P out ipsec esp/transport//use ipcomp/transport//use;\n";
    assert_eq!(told(&daemon, &[], &write(&directory, "a.conf", text)), (Vec::new(), 0));
}

#[test]
fn check_sends_nothing_and_diff_changes_nothing() {
    let (daemon, directory) = start("pfkey_diff");
    let path = write(&directory, "a.conf", TUNNEL);
    assert_eq!(told(&daemon, &["--check"], &path), (Vec::new(), 0));
    assert_eq!(daemon.ok(&["dump"]), "");
    let diff = daemon.ok(&["load", "--diff", &path]);
    let expected = "\
change=add what=\"esp 192.0.2.1 198.51.100.2 spi 0x00001001\"
change=add what=\"esp 198.51.100.2 192.0.2.1 spi 0x00001002\"
change=add what=\"out policy 10.0.1.0/24 10.0.2.0/24 any\"
change=add what=\"in policy 10.0.2.0/24 10.0.1.0/24 any\"
change=add what=\"fwd policy 10.0.2.0/24 10.0.1.0/24 any\"
";
    assert_eq!(diff, expected);
    assert_eq!(daemon.ok(&["dump"]), "");
    daemon.ok(&["load", &path]);
    assert_eq!(daemon.ok(&["load", "--diff", &path]), "");
    let text =
        TUNNEL.replace("-lh 3600 -ls 3000", "-lh 7200 -ls 3000").replace("eeff", "ee00").replace("0x1002", "0x1003");
    let text = text
        .replace("any -P out ipsec", "any -P out prio high ipsec")
        .replace("10.0.2.0/24 10.0.1.0/24", "10.0.2.0/24 10.0.9.0/24");
    let diff = daemon.ok(&["load", "--diff", &write(&directory, "b.conf", &text)]);
    let expected = "\
change=add what=\"esp 198.51.100.2 192.0.2.1 spi 0x00001003\"
change=change what=\"esp 192.0.2.1 198.51.100.2 spi 0x00001001\" fields=\"encryption_key=hidden->hidden hard_seconds=3600->7200\"
change=change what=\"out policy 10.0.1.0/24 10.0.2.0/24 any\" fields=\"priority=prio def->prio high\"
change=add what=\"in policy 10.0.2.0/24 10.0.9.0/24 any\"
change=add what=\"fwd policy 10.0.2.0/24 10.0.9.0/24 any\"
change=remove what=\"in policy 10.0.2.0/24 10.0.1.0/24 any\"
change=remove what=\"fwd policy 10.0.2.0/24 10.0.1.0/24 any\"
change=remove what=\"esp 198.51.100.2 192.0.2.1 spi 0x00001002\"
";
    assert_eq!(diff, expected);
    let json: Value = serde_json::from_str(&daemon.ok(&["--json", "load", "--diff", &path])).unwrap();
    assert_eq!(json["changes"].as_array().map(Vec::len), Some(0), "{json}");
}

/// What changes in the key engine while something is done, as its other listeners hear it.
fn heard(daemon: &Daemon, act: impl FnOnce()) -> Vec<String> {
    let mut monitor = daemon.pfkey(&["monitor"]).stdout(Stdio::piped()).spawn().unwrap();
    let stdout = monitor.stdout.take().unwrap();
    // It may not listen yet: something happens until it has heard of it.
    while poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(0) {
        daemon.ok(&["add", "10.9.9.9", "10.9.9.8", "ipcomp", "9", "-C", "deflate"]);
        daemon.ok(&["delete", "10.9.9.9", "10.9.9.8", "ipcomp", "9"]);
    }
    let lines = BufReader::new(stdout).lines().map(Result::unwrap);
    act();
    daemon.ok(&["add", "10.9.9.9", "10.9.9.8", "esp", "9998", "-E", "null"]);
    let changes = ["ADD", "UPDATE", "DELETE", "FLUSH", "X_SPDADD", "X_SPDUPDATE", "X_SPDDELETE", "X_SPDFLUSH"];
    let mut heard = Vec::new();
    for line in lines {
        if line.contains("spi=0x0000270e") {
            break;
        }
        let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name)).unwrap_or_default();
        let asked = field("role=") == "request" && field("protocol=") != "ipcomp";
        if asked && changes.contains(&field("message=")) {
            heard.push(field("message=").to_owned());
        }
    }
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    daemon.ok(&["delete", "10.9.9.9", "10.9.9.8", "esp", "9998"]);
    heard
}

#[test]
fn replace_makes_the_fewest_changes_and_new_before_old() {
    let (daemon, directory) = start("pfkey_replace");
    let path = write(&directory, "a.conf", TUNNEL);
    assert_eq!(told(&daemon, &["--replace"], &path), (Vec::new(), 0));
    let before = saved(&daemon);
    daemon.ok(&["load", &path]);
    assert_eq!(saved(&daemon), before, "as it loads what there was none of");
    let text = TUNNEL.replace("-lh 3600 -ls 3000", "-lh 7200 -ls 3000").replace("0x1002", "0x1003");
    let text = text
        .replace("any -P out ipsec", "any -P out prio high ipsec")
        .replace("10.0.2.0/24 10.0.1.0/24", "10.0.2.0/24 10.0.9.0/24");
    let other = write(&directory, "b.conf", &text);
    let heard = heard(&daemon, || assert_eq!(told(&daemon, &["--replace"], &other), (Vec::new(), 0)));
    let expected = ["ADD", "UPDATE", "X_SPDUPDATE", "X_SPDADD", "X_SPDADD", "X_SPDDELETE", "X_SPDDELETE", "DELETE"];
    assert_eq!(heard, expected);
    assert_eq!(daemon.ok(&["load", "--diff", &other]), "");
}

#[test]
fn replace_takes_limits_away_in_place() {
    let (daemon, directory) = start("pfkey_replace_limits");
    daemon.ok(&["load", &write(&directory, "a.conf", TUNNEL)]);
    let path = write(&directory, "b.conf", &TUNNEL.replace(" -lh 3600 -ls 3000", ""));
    let heard = heard(&daemon, || assert_eq!(told(&daemon, &["--replace"], &path), (Vec::new(), 0)));
    assert_eq!(heard, ["UPDATE"]);
    assert_eq!(daemon.ok(&["load", "--diff", &path]), "");
    let sas = daemon.ok(&["dump"]);
    assert!(sas.lines().count() == 2 && !sas.contains("hard_seconds="), "{sas}");
}

/// An SA that was made anew would have lost its sequence numbers: the peer would take its packets for repeated ones.
#[test]
fn limits_and_ports_are_undone_in_place() {
    let (daemon, directory) = start("pfkey_undo_in_place");
    let limited = "add 192.0.2.1 198.51.100.2 esp 0x1001 -r 32 -lh 3600 -ls 3000 -E null;\n";
    let unlimited = "add 192.0.2.1 198.51.100.2 esp 0x1002 -r 32 -E null;\n";
    let encapsulated = "add 192.0.2.1[4500] 198.51.100.2[1024] esp-udp 0x1003 -E null;\n";
    let all = limited.to_owned() + unlimited + encapsulated;
    daemon.ok(&["load", &write(&directory, "a.conf", &all)]);
    let before = saved(&daemon);
    let updates = all
        .replace("add ", "update ")
        .replace("-lh 3600 -ls 3000", "-lh 7200")
        .replace("0x1002", "0x1002 -bh 1000")
        .replace("[1024]", "[1025]");
    let refused = write(&directory, "b.conf", &(updates + "delete 192.0.2.1 192.0.2.2 esp 0x9999;\n"));
    let heard = heard(&daemon, || {
        let (lines, status) = told(&daemon, &["--all-or-nothing"], &refused);
        assert_eq!((lines.last().map(String::as_str), status), (Some(": everything was undone"), 1), "{lines:?}");
    });
    assert_eq!(
        heard,
        ["UPDATE", "UPDATE", "UPDATE", "DELETE", "UPDATE", "UPDATE", "UPDATE"],
        "three, the refused one, three"
    );
    assert_eq!(saved(&daemon), before);
    // A key is nothing that an UPDATE changes.
    let other = "delete 192.0.2.1 198.51.100.2 esp 0x1002;\nadd 192.0.2.1 198.51.100.2 esp 0x1002 -r 32 -E aes-cbc 0x00112233445566778899aabbccddeeff;\ndelete 192.0.2.1 192.0.2.2 esp 0x9999;\n";
    let (lines, status) = told(&daemon, &["--all-or-nothing"], &write(&directory, "c.conf", other));
    assert_eq!((lines.last().map(String::as_str), status), (Some(": everything was undone"), 1), "{lines:?}");
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(lines(&saved(&daemon)), lines(&before));
}

#[test]
fn a_file_of_policies_leaves_sas_alone() {
    let (daemon, directory) = start("pfkey_replace_policies");
    daemon.ok(&["load", &write(&directory, "a.conf", TUNNEL)]);
    let policies = "spdadd 10.0.1.0/24 10.0.2.0/24 any -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/unique;\n";
    let path = write(&directory, "b.conf", policies);
    assert_eq!(told(&daemon, &["--replace"], &path), (Vec::new(), 0));
    assert_eq!((daemon.ok(&["dump"]).lines().count(), daemon.ok(&["spd"]).lines().count()), (2, 1));
    // The number that the kernel chose for the request is no difference.
    assert_eq!(daemon.ok(&["load", "--diff", &path]), "");
    assert_eq!(told(&daemon, &["--replace"], &write(&directory, "c.conf", "flush;\n")), (Vec::new(), 0));
    assert_eq!((daemon.ok(&["dump"]).lines().count(), daemon.ok(&["spd"]).lines().count()), (0, 1));
}

#[test]
fn what_cannot_be_replaced_changes_nothing() {
    let (daemon, directory) = start("pfkey_replace_refused");
    daemon.ok(&["load", &write(&directory, "a.conf", TUNNEL)]);
    let before = saved(&daemon);
    let twice = TUNNEL.to_owned() + "add 192.0.2.9 198.51.100.2 esp 0x1001 -E null;\n";
    let (lines, status) = told(&daemon, &["--replace"], &write(&directory, "b.conf", &twice));
    assert_eq!(
        lines.last().map(String::as_str),
        Some(
            ":6:1: add esp 192.0.2.9 198.51.100.2 spi 0x00001001: File exists (this SPI has its SA: 'pfkey get' shows it)"
        )
    );
    assert_eq!((status, saved(&daemon)), (1, before.clone()));
    let asks = write(&directory, "c.conf", "getspi 192.0.2.1 198.51.100.2 esp 0;\n");
    let (lines, status) = told(&daemon, &["--diff"], &asks);
    assert_eq!((lines.len(), status), (1, 2));
    // This daemon has no AEADs, which shows when the file's other SAs are there already.
    let aead = "add 192.0.2.1 192.0.2.3 esp 0x1005 -E null;\n\
        add 192.0.2.1 192.0.2.3 esp 0x1006 -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;\n";
    let (lines, status) = told(&daemon, &["--replace"], &write(&directory, "d.conf", aead));
    assert_eq!((lines.last().map(String::as_str), status), (Some(": everything was undone"), 1), "{lines:?}");
    assert_eq!(saved(&daemon), before);
}

/// Offload, and what only newer kernels have; in an order of its own and without the bits of set-mark.
const KERNELS: &str = "\
add 192.0.2.1 198.51.100.2 esp 0x1001 -m tunnel -X if_id=4 -X mark=0x1/0xff -X set-mark=4 -X replay-thresh=3 -E null;
add 192.0.2.1 198.51.100.2 esp 0x1002 -m tunnel -X mode=iptfs -X iptfs-pkt-size=1400 -X dir=out -E null;
add 192.0.2.1 198.51.100.2 esp 0x1003 -X pcpu=0 -X dir=in -X offload=lo -X nat-keepalive=0 -E null;
spdadd 10.1.0.0/16 10.2.0.0/16 any -X type=sub -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/require;
spdadd 10.1.0.0/16 10.2.0.0/16 any -X mode=iptfs -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/require;
";

/// As a kernel shows the same (`tests/kernel/attributes`).
const SHOWN: &str = "\
add 192.0.2.1 198.51.100.2 esp 0x1001 -m tunnel -X mark=1/255 -X set-mark=4 -X set-mark-mask=0xffffffff -X if_id=4 -E null;
add 192.0.2.1 198.51.100.2 esp 0x1002 -m tunnel -X dir=out -X iptfs-init-delay=0 -X iptfs-max-qsize=1048576 -X iptfs-pkt-size=1400 -X mode=iptfs -E null;
add 192.0.2.1 198.51.100.2 esp 0x1003 -X offload=lo -X dir=in -X pcpu=0 -E null;
spdadd 10.1.0.0/16 10.2.0.0/16 any -X mode=iptfs -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/require;
spdadd 10.1.0.0/16 10.2.0.0/16 any -X type=sub -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/require;
";

/// An engine that stands for a kernel's takes what those in memory refuse, and a file is compared by such a one.
#[test]
fn what_only_a_kernel_does_is_compared() {
    let directory = scratch("pfkey_load_kernels");
    let daemon = Daemon::start_with(&directory, &["--engine", "copy"]);
    let path = write(&directory, "a.conf", KERNELS);
    assert_eq!(told(&daemon, &["--replace"], &write(&directory, "shown.conf", SHOWN)).1, 0);
    assert_eq!(daemon.ok(&["load", "--diff", &path]), "");
    let heard = heard(&daemon, || assert_eq!(told(&daemon, &["--replace"], &path).1, 0));
    assert_eq!(heard, Vec::<String>::new(), "nothing was to be done");
    // A policy of each type has the same selector.
    let main_only = KERNELS.lines().filter(|line| !line.contains("type=sub")).collect::<Vec<_>>().join("\n");
    let other = write(&directory, "b.conf", &main_only.replace("iptfs-pkt-size=1400", "iptfs-pkt-size=1300"));
    let changes = daemon.ok(&["load", "--diff", &other]);
    let [sa, policy] = changes.lines().collect::<Vec<_>>()[..] else { panic!("{changes}") };
    assert!(sa.contains("spi 0x00001002") && sa.contains("iptfs-pkt-size=1300"), "{sa}");
    assert!(policy.starts_with("change=remove "), "{policy}");
    assert_eq!(told(&daemon, &["--replace"], &other).1, 0);
    let spd = daemon.ok(&["spd"]);
    assert!(spd.lines().count() == 1 && spd.contains("mode=iptfs"), "{spd}");
    let flow = daemon.ok(&["explain", "--file", &path, "10.1.0.1", "10.2.0.1"]);
    assert!(flow.contains("policy out (sub) id "), "{flow}");
    // One that protects packets, or whose owner does, cannot do it, and says so.
    let (daemon, directory) = start("pfkey_load_no_kernel");
    let path = write(&directory, "a.conf", KERNELS);
    let (lines, status) = told(&daemon, &["--replace"], &path);
    assert_eq!((lines.last().map(String::as_str), status), (Some(": everything was undone"), 1), "{lines:?}");
    assert!(lines[0].contains("only a kernel does this"), "{lines:?}");
}

/// The name of a policy has its selector's network interface.
#[test]
fn policies_that_differ_in_their_interface_are_others() {
    let (daemon, directory) = start("pfkey_load_names");
    let on_lo = "spdadd 10.2.0.0/16 10.1.0.0/16 any -X dev=lo -P out none;\n";
    let plain = "spdadd 10.2.0.0/16 10.1.0.0/16 any -P out discard;\n";
    let both = write(&directory, "both.conf", &format!("{on_lo}{plain}"));
    assert_eq!(told(&daemon, &[], &both), (Vec::new(), 0));
    assert_eq!(daemon.ok(&["load", "--diff", &both]), "");
    let plain_only = write(&directory, "plain.conf", plain);
    assert_eq!(told(&daemon, &["--replace"], &plain_only), (Vec::new(), 0));
    let spd = daemon.ok(&["spd"]);
    assert!(spd.lines().count() == 1 && spd.contains("action=discard"), "{spd}");
    // What is undone is the policy that the file is about, although one of another name has its ends.
    daemon.ok(&["policy", "flush"]);
    daemon.ok(&["load", &write(&directory, "lo.conf", on_lo)]);
    let before = saved(&daemon);
    let refused = write(&directory, "refused.conf", &format!("{plain}delete 192.0.2.1 192.0.2.2 esp 0x9999;\n"));
    let (lines, status) = told(&daemon, &["--all-or-nothing"], &refused);
    assert_eq!((lines.last().map(String::as_str), status), (Some(": everything was undone"), 1), "{lines:?}");
    assert_eq!(saved(&daemon), before);
}

#[test]
fn a_directory_is_its_files_by_name() {
    let (daemon, directory) = start("pfkey_directory");
    let files = directory.join("pfkey.d");
    std::fs::create_dir(&files).unwrap();
    write(&files, "20-sas.conf", "add 192.0.2.1 198.51.100.2 esp 0x1001 -E null;\n# no more");
    write(&files, "10-flush.conf", "flush;\nexit;\n");
    write(&files, "30.txt", "nonsense");
    write(&files, ".40.conf", "nonsense");
    let path = files.to_str().unwrap();
    assert_eq!(told(&daemon, &[], path), (Vec::new(), 0));
    assert_eq!(daemon.ok(&["dump"]).lines().count(), 1);
    write(&files, "30-policies.conf", "\nspdad 10.0.0.0/8 10.0.0.0/8 any -P out none;\n");
    write(&files, "40-more.conf", "flush esq;");
    let (lines, status) = told(&daemon, &["--replace"], path);
    let expected = [
        "/30-policies.conf:2:1: unknown command 'spdad'; did you mean 'spdadd'?",
        "/40-more.conf:1:7: unknown protocol 'esq'; did you mean 'esp'?",
    ];
    assert_eq!((lines, status), (expected.map(str::to_owned).to_vec(), 2));
}

/// As in one file: the inbound policy gets no copy where another file has the policy for forwarded packets.
#[test]
fn a_policy_for_forwarded_packets_may_stand_in_another_file() {
    let (daemon, directory) = start("pfkey_directory_forward");
    let files = directory.join("pfkey.d");
    std::fs::create_dir(&files).unwrap();
    write(&files, "10-in.conf", "spdadd 10.0.2.0/24 10.0.1.0/24 any -P in none;\nexit;\n");
    write(&files, "20-fwd.conf", "spdadd 10.0.2.0/24 10.0.1.0/24 any -P fwd discard;\n");
    let path = files.to_str().unwrap();
    assert_eq!(told(&daemon, &[], path), (Vec::new(), 0));
    let spd = daemon.ok(&["spd"]);
    assert!(spd.lines().count() == 2 && spd.contains("action=none") && spd.contains("action=discard"), "{spd}");
    assert_eq!(told(&daemon, &["--replace"], path), (Vec::new(), 0));
    assert_eq!(daemon.ok(&["load", "--diff", path]), "");
}

/// Commands travel many together; what is refused of them has its place all the same, in order, and what is shown between them is shown then.
#[test]
fn refusals_in_a_long_file_have_their_places() {
    let (daemon, directory) = start("pfkey_load_long");
    let mut text = String::from("flush; spdflush;\n");
    let mut expected = Vec::new();
    for line in 2..3000_u32 {
        text += &match line {
            // 64 travel in a datagram, 1024 are gathered.
            65 | 66 | 1025 | 1026 | 2500 => {
                let (src, spi) = ("192.0.2.1", 0x1002);
                expected.push(format!(":{line}:1: add esp {src} 198.51.100.2 spi {spi:#010x}: File exists (this SPI has its SA: 'pfkey get' shows it)"));
                format!("add {src} 198.51.100.2 esp {spi} -E null;\n")
            }
            1500 => "dump ah;\n".to_owned(),
            1501 => {
                let what = "delete out policy 10.0.0.0/8 10.9.0.0/16 any";
                expected.push(format!(
                    ":{line}:1: {what}: No such file or directory (there is no such policy: 'pfkey spd' lists them)"
                ));
                "spddelete 10.0.0.0/8 10.9.0.0/16 any -P out;\n".to_owned()
            }
            1502 => "spddelete 10.0.0.0/8 10.1.0.0/16 any -P in;\n".to_owned(),
            1400 => "spdadd -k 10.0.0.0/8 10.1.0.0/16 any -P in none;\n".to_owned(),
            1401 => "add 192.0.2.1 198.51.100.2 ah 0x99 -A hmac-md5 \"1234567890123456\";\n".to_owned(),
            _ => format!("add 192.0.2.1 198.51.100.2 esp {:#x} -E null;\n", 0x1000 + line),
        };
    }
    let path = write(&directory, "long.conf", &text);
    let output = daemon.run(&["load", &path]);
    let errors = String::from_utf8(output.stderr).unwrap();
    let told = errors.lines().filter(|line| !line.contains(": warning: "));
    let told: Vec<&str> = told.map(|line| line.strip_prefix("pfkey: ").unwrap().strip_prefix(&path).unwrap()).collect();
    expected.push(": 6 of 3001 commands refused".to_owned());
    assert_eq!(told, expected);
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("protocol=ah").count(), 1);
    assert_eq!(daemon.ok(&["dump", "esp"]).lines().count(), 2998 - 10);
    assert_eq!(daemon.ok(&["spd"]), "");
    // Nothing of all of it, if it is asked for so.
    let before = saved(&daemon);
    let (lines, status) = self::told(&daemon, &["--all-or-nothing"], &path);
    assert_eq!((lines.last().map(String::as_str), status), (Some(": everything was undone"), 1));
    assert!(lines.iter().any(|line| line.starts_with(":65:1: add esp ")), "{lines:?}");
    assert_eq!(saved(&daemon).lines().count(), before.lines().count());
}
