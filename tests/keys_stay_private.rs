//! Keys that pass through the command stay with their owner: no resolver is asked for them, no other user reads them
//! from a saved file or from the list of processes.

#[path = "support/c.rs"]
mod c;
#[path = "support/daemon.rs"]
mod daemon;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use daemon::Daemon;
use nix::sys::socket::{AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr};
use nix::sys::socket::{accept, bind, listen, recv, send, socket};

const KEY: &str = "00112233445566778899aabbccddeeff";

/// Writes down what the resolver is asked for, and knows no host.
const RESOLVER: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void write_down(const char *name)
{
	int fd = open(getenv("ASKED"), O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (name && (write(fd, name, strlen(name)) < 0 || write(fd, "\n", 1) < 0))
		abort();
	close(fd);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res)
{
	(void)service, (void)res;
	if (!hints || !(hints->ai_flags & AI_NUMERICHOST))
		write_down(node);
	return EAI_NONAME;
}

struct hostent *gethostbyname(const char *name)
{
	write_down(name);
	return NULL;
}

struct hostent *gethostbyname2(const char *name, int family)
{
	(void)family;
	write_down(name);
	return NULL;
}
"#;

/// A policy's text, compiled.
const POLICY: &str = r#"
#include <libpfkey.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	return argc == 2 && ipsec_set_policy(argv[1], strlen(argv[1])) ? 0 : 1;
}
"#;

/// A directory, and a resolver to be loaded before a program.
fn resolver(name: &str) -> (PathBuf, PathBuf) {
    let directory = c::scratch(name);
    let source = directory.join("resolver.c");
    std::fs::write(&source, RESOLVER).unwrap();
    let object = c::compile_plain(&directory, "resolver.so", &[source], &["-shared", "-fPIC"]);
    (directory, object)
}

/// What a command asks the resolver for.
fn asked(command: &mut Command, directory: &Path, object: &Path) -> (Vec<String>, Output) {
    let file = directory.join("asked");
    let _ = std::fs::remove_file(&file);
    let output = command.env("LD_PRELOAD", object).env("ASKED", &file).output().unwrap();
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    (text.lines().map(str::to_owned).collect(), output)
}

#[test]
fn only_names_of_hosts_reach_the_resolver() {
    let (directory, object) = resolver("private_resolver");
    let file = directory.join("a.conf");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let (names, output) =
            asked(Command::new(c::program("pfkey")).args(["load", "-n"]).arg(&file), &directory, &object);
        assert_eq!(output.status.code(), Some(2), "{text}: {output:?}");
        (names, String::from_utf8(output.stderr).unwrap())
    };
    for word in ["gateway.example.org", "_a.example.", "0xff.example", "localhost"] {
        assert_eq!(check(&format!("get {word} 192.0.2.1 esp 4096;")).0, [word]);
    }
    let long = format!("0x{}", KEY.repeat(20));
    for word in [
        &format!("0x{KEY}"),
        &format!("0X{KEY}"),
        &long,
        KEY,
        "0x001122334455667788.",
        "0x00112233445566778899aabbccddeefg",
        "0x",
        "10.0.0.256",
        "sixteen*octets*!",
        "caf\u{e9}",
        "a..b",
        &"x".repeat(64),
    ] {
        for text in [
            format!("add {word} 192.0.2.1 esp 4096 -E null;"),
            format!("add 192.0.2.1 {word} esp 4096 -E null;"),
            format!("add 192.0.2.1 192.0.2.2 esp 4096 -proxy {word} -E null;"),
            format!("deleteall {word} 192.0.2.1 esp;"),
            format!("spdadd {word} 192.0.2.1 any -P out none;"),
            format!("spddelete 192.0.2.1 {word}/24 any -P out;"),
        ] {
            let (names, errors) = check(&text);
            assert_eq!(names, [""; 0], "{text}");
            let column = text.find(word).unwrap() + 1;
            let place = format!("pfkey: {}:1:{column}: ", file.display());
            assert!(errors.starts_with(&place) && errors.contains("no address and no host's name"), "{text}: {errors}");
            assert!(!errors.contains("00112233"), "{errors}");
        }
    }
    for text in ["add \"sixteen octets !\" 192.0.2.1 esp 4096 -E null;", "add -n gateway 192.0.2.1 esp 1 -E null;"] {
        assert_eq!(check(text).0, [""; 0], "{text}");
    }
}

/// libipsec reads addresses in policies with `AI_NUMERICHOST`.
#[test]
fn a_policys_addresses_reach_no_resolver() {
    let (directory, object) = resolver("private_policy");
    let program = c::compile_text(&directory, "policy", POLICY, &[]);
    let check = |policy: &str| {
        let (names, output) = asked(Command::new(&program).arg(policy), &directory, &object);
        assert_eq!(names, [""; 0], "{policy}");
        output.status.success()
    };
    assert!(check("out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require"));
    for address in ["gateway.example.org", "localhost", "0x00112233445566778899aabbccddeeff", "fe80::1%gateway"] {
        assert!(!check(&format!("out ipsec esp/tunnel/{address}-192.0.2.2/require")), "{address}");
        assert!(!check(&format!("out ipsec esp/tunnel/192.0.2.1[4500]-{address}[4500]/require")), "{address}");
    }
}

/// A daemon with an SA that has keys, and a directory.
fn with_keys(name: &str) -> (Daemon, PathBuf) {
    let directory = c::scratch(name);
    let daemon = Daemon::start(&directory);
    daemon.ok(&["add", "192.0.2.1", "198.51.100.2", "esp", "0x1001", "-E", "aes-cbc", &format!("0x{KEY}")]);
    (daemon, directory)
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn saving_keys_to_a_file_that_others_can_read_is_warned_of() {
    let (daemon, directory) = with_keys("private_warn");
    let path = directory.join("saved");
    let save = |mode: u32, daemon: &Daemon| {
        let file = File::create(&path).unwrap();
        file.set_permissions(PermissionsExt::from_mode(mode)).unwrap();
        let output = daemon.pfkey(&["save"]).stdout(file).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    for (mode, shown) in [(0o644, "0644"), (0o640, "0640"), (0o604, "0604")] {
        let warning = save(mode, &daemon);
        let start = format!("pfkey: warning: keys go to a file that others can read (mode {shown})");
        assert!(warning.starts_with(&start) && warning.contains("--output"), "{warning}");
        assert!(std::fs::read_to_string(&path).unwrap().contains(KEY), "it is saved all the same");
    }
    assert_eq!(save(0o600, &daemon), "");
    assert_eq!(save(0o622, &daemon), "");
    // A pipe is the reader's business.
    assert!(daemon.ok(&["save"]).contains(KEY));
    daemon.ok(&["flush"]);
    daemon.ok(&["add", "192.0.2.1", "198.51.100.2", "esp", "0x1001", "-E", "null"]);
    assert_eq!(save(0o644, &daemon), "", "there is no key");
}

#[test]
fn a_file_saved_by_name_is_its_owners_alone() {
    let (daemon, directory) = with_keys("private_output");
    let path = directory.join("saved");
    let name = path.to_str().unwrap();
    // The umask does not matter.
    let mut open = Command::new("sh");
    open.args(["-c", "umask 000; exec \"$0\" save --output \"$1\"", c::program("pfkey"), name]);
    let output = open.env("PFKEY_BACKEND", daemon.backend()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(mode(&path), 0o600);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), daemon.ok(&["save"]));
    // An old file that others can read gives way to one that they cannot, and who has it open reads the old one.
    std::fs::write(&path, "old").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let mut old = File::open(&path).unwrap();
    assert_eq!(daemon.ok(&["save", "--output", name]), "");
    assert_eq!(mode(&path), 0o600);
    assert!(std::fs::read_to_string(&path).unwrap().contains(KEY));
    assert_eq!(std::io::read_to_string(&mut old).unwrap(), "old");
}

#[test]
fn what_is_no_file_is_not_saved_over() {
    let (daemon, directory) = with_keys("private_link");
    let target = directory.join("theirs");
    std::fs::write(&target, "theirs").unwrap();
    let link = directory.join("link");
    symlink(&target, &link).unwrap();
    let fifo = directory.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [&link, &fifo, &directory] {
        let output = daemon.run(&["save", "--output", path.to_str().unwrap()]);
        let errors = String::from_utf8(output.stderr).unwrap();
        let expected = format!("pfkey: {}: there is something that is no regular file\n", path.display());
        assert_eq!((output.status.code(), errors), (Some(1), expected));
    }
    assert_eq!(std::fs::read_link(&link).unwrap(), target);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "theirs");
    let kind = std::fs::symlink_metadata(&fifo).unwrap().file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind));
}

#[test]
fn a_save_that_breaks_off_leaves_the_old_file() {
    let (daemon, directory) = with_keys("private_full");
    let saved = directory.join("saved");
    std::fs::create_dir(&saved).unwrap();
    let path = saved.join("file");
    std::fs::write(&path, "old").unwrap();
    for spi in 0x2000..0x2010 {
        daemon.ok(&["add", "192.0.2.1", "198.51.100.2", "esp", &spi.to_string(), "-E", "aes-cbc", &format!("0x{KEY}")]);
    }
    // No file may be longer than 512 bytes: the write that would exceed them is EFBIG.
    let mut limited = Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" save --output \"$1\"";
    limited.args(["-c", script, c::program("pfkey")]).arg(&path).env("PFKEY_BACKEND", daemon.backend());
    let output = limited.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), errors.contains("File too large")), (Some(1), true), "{errors}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    let left: Vec<_> = std::fs::read_dir(&saved).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["file"], "no part of the new one is left");
}

#[test]
fn keys_leave_the_command_line() {
    let directory = c::scratch("private_arguments");
    let path = directory.join("silent.sock");
    // A daemon that takes the request and never answers it, so that the command waits while it is looked at.
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    let mut add = Command::new(c::program("pfkey"))
        .args(["add", "192.0.2.1", "198.51.100.2", "esp", "0x1001"])
        .args(["-E", "aes-cbc", &format!("0x{KEY}"), "-A", "hmac-md5", "\"sixteen octets !\""])
        .env("PFKEY_BACKEND", format!("unix:{}", path.display()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let connection = accept(listener.as_raw_fd()).unwrap();
    // Behind the empty message by which it waits until it is served.
    assert_eq!(recv(connection, &mut [0; 4096], MsgFlags::empty()), Ok(0));
    // It asks to be shown XFRM's attributes: the answer is the header again.
    let mut wish = [0; 16];
    assert_eq!(recv(connection, &mut wish, MsgFlags::empty()), Ok(16));
    assert_eq!(send(connection, &wish, MsgFlags::empty()), Ok(16));
    let len = recv(connection, &mut [0; 4096], MsgFlags::empty()).unwrap();
    let shown = std::fs::read(format!("/proc/{}/cmdline", add.id())).unwrap();
    add.kill().unwrap();
    add.wait().unwrap();
    assert!(len > 100, "the request came");
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.starts_with(c::program("pfkey")), "{shown:?}");
    assert_eq!(shown.trim_end_matches('\0'), c::program("pfkey"));
}

#[test]
fn debug_shows_no_key() {
    use pfkey_rs::model::sa::Key;
    use pfkey_rs::wire::{ExtensionType, Header, Message, MessageType, Profile, SaType, Writer};
    let key = [201, 202, 203, 204, 205, 206, 207, 208];
    let mut buffer = [0; 128];
    let header = Header::new(MessageType::ADD, SaType::ESP, 1, 1);
    let mut writer = Writer::new(&mut buffer, header, Profile::Linux);
    writer.key(ExtensionType::KEY_ENCRYPT, 64, &key);
    // Not whole, so that it is read extension by extension only.
    let bytes = writer.finish().unwrap();
    let message = Message::parse(bytes, Profile::Linux).unwrap();
    let extension = message.extensions().next().unwrap();
    assert!(extension.bytes.ends_with(&key));
    let key = Key { bits: 64, bytes: zeroize::Zeroizing::new(Box::from(key)) };
    for text in [format!("{message:?}"), format!("{extension:?}"), format!("{key:?}"), format!("{message:#?}")] {
        assert!(!text.contains("201") && !text.to_lowercase().contains("c9"), "{text}");
    }
}
