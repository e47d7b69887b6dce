//! The machine's pfkeyd under systemd, which this plays.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv};
use pfkey_rs::socket::send;
use pfkey_rs::wire::{Header, MessageType, Profile, SaType, Writer};

#[path = "support/c.rs"]
mod c;
#[path = "support/systemd.rs"]
mod systemd;

use systemd::Systemd;

/// Registers, and gives the answer's errno.
fn register(fd: &OwnedFd) -> Option<u8> {
    let mut buffer = [0; 16];
    let header = Header::new(MessageType::REGISTER, SaType::ESP, 1, std::process::id());
    send(fd.as_raw_fd(), Writer::new(&mut buffer, header, Profile::Linux).finish().expect("a header fits")).unwrap();
    assert_ne!(
        poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(20_000_u16)),
        Ok(0),
        "silence"
    );
    let mut bytes = vec![0; 1 << 16];
    let len = recv(fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).ok()?;
    Header::read(&bytes[..len]).map(|header| header.errno)
}

#[test]
fn its_socket_is_served() {
    let Some(mut systemd) = Systemd::new("socket") else { return };
    systemd.start("");
    assert_eq!(register(&systemd.open()), Some(0));
}

/// As the unit starts it: a user of its own.
#[test]
fn cap_net_admin_alone_is_enough() {
    let Some(mut systemd) = Systemd::new("user") else { return };
    // Where that user can execute it.
    let program = systemd.directory.join("pfkeyd");
    std::fs::copy(c::program("pfkeyd"), &program).unwrap();
    let user = ["setpriv", "--reuid=61234", "--regid=61234", "--clear-groups", "--no-new-privs"];
    let rights = ["--inh-caps=+net_admin", "--ambient-caps=+net_admin", "--bounding-set=-all,+net_admin"];
    let command = [&user[..], &rights, &[program.to_str().unwrap()]].concat();
    systemd.start_by("", &command);
    assert_eq!(register(&systemd.open()), Some(0));
    let status = std::fs::read_to_string(format!("/proc/{}/status", systemd.worker())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(|line| line.trim().to_owned());
    assert_eq!(field("Uid:").as_deref(), Some("61234\t61234\t61234\t61234"));
    assert_eq!(field("CapPrm:").as_deref(), Some("0000000000001000"), "CAP_NET_ADMIN");
}

/// What systemd says of the unit's sandbox.
#[test]
fn the_units_exposure_is_below_two() {
    let text = std::fs::read_to_string(c::root().join("systemd/pfkeyd.service.in")).unwrap();
    // Its name is what makes it a service.
    let unit = c::scratch("systemd_unit").join("pfkeyd.service");
    std::fs::write(&unit, text.replace("@SBINDIR@", "/usr/sbin")).unwrap();
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=yes", "--threshold=20", "--no-pager"]).arg(&unit);
    match analyze.output() {
        Err(_) => eprintln!("skipped: it needs systemd-analyze"),
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unrecognized option") => {
            eprintln!("skipped: it needs systemd 250");
        }
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
    }
}

/// Within half of the time that systemd waits, as `sd_watchdog_enabled(3)` recommends.
#[test]
fn the_watchdog_hears_that_it_lives() {
    let Some(mut systemd) = Systemd::new("alive") else { return };
    systemd.start("WATCHDOG_USEC=4000000 WATCHDOG_PID=$$");
    for _ in 0..3 {
        assert_eq!(systemd.told(Duration::from_secs(4)).as_deref(), Some("WATCHDOG=1"));
    }
}

#[test]
fn another_processs_watchdog_hears_nothing() {
    let Some(mut systemd) = Systemd::new("other") else { return };
    systemd.start("WATCHDOG_USEC=200000 WATCHDOG_PID=1");
    assert_eq!(systemd.told(Duration::from_secs(1)), None);
}

/// Stopped, which no end of a process tells: it is replaced before systemd has waited too long, and its sessions go on.
#[test]
fn a_worker_that_does_not_answer_is_replaced() {
    let Some(mut systemd) = Systemd::new("stopped") else { return };
    systemd.start("WATCHDOG_USEC=8000000 WATCHDOG_PID=$$");
    let session = systemd.open();
    // Its hello is done with.
    assert_eq!(register(&session), Some(0));
    let stopped = systemd.worker();
    kill(stopped, Signal::SIGSTOP).unwrap();
    while systemd.told(Duration::from_secs(8)).expect("another is there in time") != "READY=1" {}
    assert_ne!(systemd.worker(), stopped);
    assert_eq!(register(&session), Some(libc::EEXIST as u8), "it is registered");
}

/// It is the loop that tells it, not a clock beside it.
#[test]
fn a_guardian_that_is_stopped_says_nothing() {
    let Some(mut systemd) = Systemd::new("silent") else { return };
    systemd.start("WATCHDOG_USEC=2000000 WATCHDOG_PID=$$");
    let guardian = systemd.guardian();
    kill(guardian, Signal::SIGSTOP).unwrap();
    while systemd.told(Duration::from_millis(10)).is_some() {}
    let began = Instant::now();
    assert_eq!(systemd.told(Duration::from_secs(2)), None);
    assert!(began.elapsed() >= Duration::from_secs(2));
    // It was stopped, and not the worker: that one goes on.
    let worker = systemd.worker();
    kill(guardian, Signal::SIGCONT).unwrap();
    assert_eq!(systemd.told(Duration::from_secs(4)).as_deref(), Some("WATCHDOG=1"));
    assert_eq!(systemd.worker(), worker);
}
