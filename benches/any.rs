//! What the filter of `pfkey-run --any` costs other system calls, and what a request costs under it: each measured without
//! and with it in turns, the least of five runs. `PFKEYD=FILE` measures another pfkeyd.

#[path = "../tests/support/program.rs"]
mod program;

use std::process::Command;
use std::time::Instant;

use nix::sys::socket::{MsgFlags, recv};
use pfkey_rs::socket::{self, Backend};
use pfkey_rs::wire::{Header, MessageType, SaType};
use zerocopy::IntoBytes as _;

/// Nanoseconds of one call.
fn each(count: u32, mut call: impl FnMut()) -> f64 {
    let began = Instant::now();
    for _ in 0..count {
        call();
    }
    began.elapsed().as_nanos() as f64 / f64::from(count)
}

/// In a process of its own: prints what each call takes.
fn measure() {
    let (out, into) = nix::unistd::pipe().expect("a pipe");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let to = udp.local_addr().expect("an address");
    let mut buffer = [0; 512];
    println!("getppid\t{}", each(1_000_000, || _ = nix::unistd::getppid()));
    println!(
        "write of a byte to a pipe, and its read\t{}",
        each(200_000, || {
            nix::unistd::write(&into, b"x").expect("written");
            nix::unistd::read(&out, &mut buffer).expect("read");
        })
    );
    println!(
        "the same of 64 bytes\t{}",
        each(50_000, || {
            nix::unistd::write(&into, &[0; 64]).expect("written");
            nix::unistd::read(&out, &mut buffer).expect("read");
        })
    );
    println!(
        "sendto of a datagram, and its receive\t{}",
        each(100_000, || {
            udp.send_to(b"x", to).expect("sent");
            udp.recv(&mut buffer).expect("received");
        })
    );
    println!(
        "socket, bind, close\t{}",
        each(100_000, || drop(std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket")))
    );
}

/// The same of requests: FLUSH of an empty SADB and its answer. `socket` is the program's own under the supervisor.
fn measure_requests() {
    use std::os::fd::AsRawFd as _;
    let fd = match std::env::args().nth(2).as_deref() {
        Some("supervised") => nix_socket(),
        _ => socket::open_with(&Backend::Embedded).expect("a descriptor"),
    };
    let supervised = std::env::args().nth(2).as_deref() == Some("supervised");
    let mut buffer = [0; 512];
    let request = Header::new(MessageType::FLUSH, SaType::UNSPEC, 1, 4242).to_layout();
    let took = each(20_000, || {
        if supervised {
            nix::unistd::write(&fd, request.as_bytes()).expect("written");
        } else {
            socket::send(fd.as_raw_fd(), request.as_bytes()).expect("sent");
        }
        recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).expect("its answer is there");
    });
    println!("a request and its answer\t{took}");
}

fn nix_socket() -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd as _;
    // SAFETY: no pointers; the kernel, or whoever answers for it, made it for this caller.
    let raw = unsafe { libc::socket(15, libc::SOCK_RAW, 2) };
    assert!(raw >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: as above.
    unsafe { std::os::fd::OwnedFd::from_raw_fd(raw) }
}

fn run(supervised: bool, what: &[&str]) -> Vec<(String, f64)> {
    let own = std::env::current_exe().expect("a path");
    let mut command = if supervised {
        let pfkeyd = std::env::var("PFKEYD").unwrap_or_else(|_| program::program("pfkeyd").to_owned());
        let mut command = Command::new(pfkeyd);
        command.args(["--any", "--"]).arg(own);
        command
    } else {
        Command::new(own)
    };
    let output = command.args(what).env("PFKEY_BACKEND", "embedded").output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let line =
        |line: &str| line.split_once('\t').map(|(name, took)| (name.to_owned(), took.parse().expect("a number")));
    text.lines().filter_map(line).collect()
}

fn compare(without: &[&str], with: &[&str]) {
    let mut least: Vec<(String, f64, f64)> = Vec::new();
    for _ in 0..5 {
        for ((name, plain), (_, filtered)) in run(false, without).into_iter().zip(run(true, with)) {
            match least.iter_mut().find(|row| row.0 == name) {
                Some(row) => *row = (name, row.1.min(plain), row.2.min(filtered)),
                None => least.push((name, plain, filtered)),
            }
        }
    }
    for (name, plain, filtered) in least {
        println!("{name:42} {plain:9.0} ns {filtered:9.0} ns   {:.2}", filtered / plain);
    }
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("calls") => return measure(),
        Some("requests") => return measure_requests(),
        _ => {}
    }
    println!("{:42} {:>12} {:>12}   ratio", "", "without", "--any");
    compare(&["calls"], &["calls"]);
    println!("(without: by the library)");
    compare(&["requests"], &["requests", "supervised"]);
}
