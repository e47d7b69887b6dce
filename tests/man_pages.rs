//! Every example of the manual pages, run as it is written.

#[path = "support/c.rs"]
mod c;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use pfkey_rs::wire::xfrm::Role;

/// A page's literal blocks, as they are printed.
fn examples(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(c::root().join("man").join(page)).unwrap();
    let blocks = text.split(".Bd -literal -offset indent\n").skip(1);
    let blocks = blocks.map(|block| block.split("\n.Ed").next().unwrap());
    blocks.map(|block| block.replace("\\-", "-").replace("\\e", "\\").replace("\\&", "") + "\n").collect()
}

/// A shell's commands, and what they print.
fn script(example: &str) -> (String, String) {
    let (mut commands, mut output) = (String::new(), String::new());
    for line in example.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => commands += &format!("{command}\n"),
            None => output += &format!("{line}\n"),
        }
    }
    (commands, output)
}

/// A command that finds our programs, in a directory of its own.
fn command(program: &str, directory: &Path) -> Command {
    let path = format!("{}:{}", c::output_dir().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(program);
    command.env("PATH", path).env_remove("PFKEY_BACKEND").current_dir(directory).stdin(Stdio::null());
    command
}

fn check(output: &Output, expected: &str, example: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // What pfkeyd says where it has no filter of system calls, under an emulator.
    let said: String = text(&output.stderr).lines().filter(|line| !line.starts_with("pfkeyd: confined: ")).collect();
    assert_eq!((text(&output.stdout).as_str(), said.as_str()), (expected, ""), "{example}");
    assert!(output.status.success(), "{example}");
}

#[test]
fn pfkey_1() {
    let directory = c::scratch("man_pfkey");
    let mut run = 0;
    for example in examples("pfkey.1") {
        if !example.starts_with("$ ") {
            let file = directory.join("example.conf");
            std::fs::write(&file, &example).unwrap();
            check(&command("pfkey", &directory).args(["load", "-n"]).arg(file).output().unwrap(), "", &example);
            continue;
        }
        let (commands, expected) = script(&example);
        let output = command("pfkeyd", &directory).args(["--", "sh", "-e", "-c", &commands]).output().unwrap();
        check(&output, &expected, &example);
        run += 1;
    }
    assert_eq!(run, 5);
}

#[test]
fn pfkey_conf_5() {
    let directory = c::scratch("man_pfkey_conf");
    let (mut files, mut scripts) = (0, 0);
    for example in examples("pfkey.conf.5") {
        let mut pfkeyd = command("pfkeyd", &directory);
        pfkeyd.args(["--algorithms", "aead", "--"]);
        if example.starts_with("$ ") {
            let (commands, expected) = script(&example);
            check(&pfkeyd.args(["sh", "-e", "-c", &commands]).output().unwrap(), &expected, &example);
            scripts += 1;
            continue;
        }
        let file = directory.join("example.conf");
        std::fs::write(&file, &example).unwrap();
        // Nothing of it is refused, and nothing is worth a warning.
        check(&pfkeyd.args(["pfkey", "load"]).arg(file).output().unwrap(), "", &example);
        files += 1;
    }
    assert_eq!((files, scripts), (3, 1));
}

/// What the language has names for stands in its page.
#[test]
fn every_setting_is_in_its_page() {
    use pfkey_rs::wire::algorithm::{AEAD, AUTH, COMPRESS, ENCRYPT, OTHER_COMPRESS};
    let page = std::fs::read_to_string(c::root().join("man/pfkey.conf.5")).unwrap().replace("\\-", "-");
    let words: std::collections::BTreeSet<&str> =
        page.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c)).collect();
    let algorithms = [AUTH, ENCRYPT, AEAD, COMPRESS, OTHER_COMPRESS].into_iter().flatten();
    let names = algorithms.flat_map(|algorithm| algorithm.names.iter().copied());
    let settings = pfkey_rs::wire::xfrm::ATTRIBUTES.iter().filter(|row| row.role == Role::Setting);
    let missing: Vec<&str> = names.chain(settings.map(|row| row.name)).filter(|name| !words.contains(*name)).collect();
    assert!(missing.is_empty(), "not in the page: {missing:?}");
}

/// Every page is what mandoc(1) takes for one.
#[test]
fn mandoc_warns_of_nothing() {
    let mut pages: Vec<_> =
        std::fs::read_dir(c::root().join("man")).unwrap().map(|page| page.unwrap().path()).collect();
    pages.sort();
    let Ok(output) = Command::new("mandoc").args(["-Tlint", "-Wstyle"]).args(&pages).output() else {
        return println!("skipped: needs mandoc");
    };
    let said = String::from_utf8(output.stdout).unwrap();
    // The pages are not installed, nor is every other.
    let is_known = |line: &&str| line.contains("referenced manual not found") || line.contains("mandoc.db");
    assert_eq!(said.lines().filter(|line| !is_known(line)).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn setkey_8() {
    let directory = c::scratch("man_setkey");
    std::os::unix::fs::symlink(c::program("pfkey"), directory.join("setkey")).unwrap();
    let all = examples("setkey.8");
    assert_eq!(all.len(), 2);
    for example in all {
        let (commands, expected) = script(&example);
        let commands = format!("PATH=$PWD:$PATH\n{commands}");
        let output = command("pfkeyd", &directory).args(["--", "sh", "-e", "-c", &commands]).output().unwrap();
        check(&output, &expected, &example);
    }
}

#[test]
fn pfkeyd_8() {
    let directory = c::scratch("man_pfkeyd");
    let all = examples("pfkeyd.8");
    assert_eq!(all.len(), 3);
    for example in all {
        let (commands, expected) = script(&example);
        let output = command("sh", &directory).args(["-e", "-c", &commands]).output().unwrap();
        check(&output, &expected, &example);
    }
}

/// The program of each page about C functions, over an embedded engine, and what it prints.
#[test]
fn pages_of_functions() {
    let directory = c::scratch("man_functions");
    let policies = "\
16 bytes: in prio def none
16 bytes: out prio high + 10 discard
32 bytes: out prio def ipsec esp/transport//require
80 bytes: out prio def ipsec ipcomp/transport//use esp/tunnel/192.0.2.1-198.51.100.2/unique:7
88 bytes: fwd prio def ipsec esp/tunnel/2001:db8::1-2001:db8::2/require
";
    for (page, expected) in [
        // An empty SAD is ENOENT.
        ("libpfkey_rs.3", "errno 2\n"),
        ("pfkey_open.3", "open\n"),
        ("pfkey_recv.3", "there is none\n"),
        ("pfkey_send_add.3", "errno 0\n"),
        ("ipsec_set_policy.3", policies),
        ("ipsec_strerror.3", "Invalid address specification\n"),
        ("pfkey_engine_new.3", "type 9 errno 0\n"),
        (
            "pfkey_xfrm_set.3",
            "attribute 23: 56 bytes\nattribute 31: 4 bytes\nattribute 31 (XFRMA_IF_ID) has the wrong length, or a value that it cannot have\n",
        ),
        ("pfkey_resolve.3", "0 SAs, policy 0, mtu 1500\n"),
    ] {
        let [example] = &examples(page)[..] else { panic!("{page}: one program expected") };
        let source = directory.join(format!("{}.c", page.replace('.', "_")));
        std::fs::write(&source, example).unwrap();
        let program = c::compile(&directory, page, &[source], &[]);
        let output = Command::new(program).env("PFKEY_BACKEND", "embedded").output().unwrap();
        check(&output, expected, page);
    }
}

/// Every function that C programs can call stands in a page.
#[test]
fn every_function_has_a_page() {
    let pages: String = std::fs::read_dir(c::root().join("man"))
        .unwrap()
        .map(|page| page.unwrap().path())
        .filter(|page| page.extension().is_some_and(|section| section == "3"))
        .map(|page| std::fs::read_to_string(page).unwrap())
        .collect();
    let words: std::collections::BTreeSet<&str> = pages.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let exports = std::fs::read_to_string(c::root().join("exports.txt")).unwrap();
    let missing: Vec<&str> = exports.lines().filter(|name| !words.contains(name)).collect();
    assert!(missing.is_empty(), "in no page: {missing:?}");
}
