//! Every `pfkey_send_*` emits, byte for byte, what the real libipsec emitted, with the same result and code.
//!
//! One test, because soft rates and the registered algorithms belong to the whole process.

mod support;

use std::ffi::{c_char, c_int};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use pfkey_rs::capi::*;
use serde_json::Value;
use support::{golden, native, native_extension, sockaddr, unhex};

/// Golden lines that show a bug of libipsec which this library does not have, and why.
const BUGS: &[(i64, &str)] =
    &[(45, "soft lifetimes wrap at 32 bits"), (73, "the old calls drop the upper halves of 64-bit lifetimes")];

struct Case<'a> {
    args: &'a Value,
    so: c_int,
    /// What pointers point at while the call runs.
    kept: Vec<Vec<u8>>,
}

impl Case<'_> {
    fn number(&self, name: &str) -> u64 {
        self.args[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {}", self.args))
    }

    fn u32(&self, name: &str) -> u32 {
        self.number(name) as u32
    }

    fn keep(&mut self, bytes: Option<Vec<u8>>) -> *mut u8 {
        let Some(bytes) = bytes else { return null_mut() };
        self.kept.push(bytes);
        self.kept.last_mut().unwrap().as_mut_ptr()
    }

    fn address(&mut self, name: &str) -> *mut libc::sockaddr {
        let bytes = sockaddr(&self.args[name]);
        self.keep(bytes).cast()
    }

    fn bytes(&mut self, name: &str) -> *mut c_char {
        let bytes = self.args[name].as_str().map(unhex);
        let bytes = match name {
            "policy" => bytes.map(native_extension),
            "msg" => bytes.map(native),
            _ => bytes,
        };
        self.keep(bytes).cast()
    }

    fn sa_args(&mut self) -> pfkey_send_sa_args {
        pfkey_send_sa_args {
            so: self.so,
            r#type: 0xdead,
            satype: self.u32("satype"),
            mode: self.u32("mode"),
            src: self.address("src"),
            dst: self.address("dst"),
            spi: self.u32("spi_be").to_be(),
            reqid: self.u32("reqid"),
            wsize: self.u32("wsize"),
            keymat: self.bytes("keymat"),
            e_type: self.u32("e_type"),
            e_keylen: self.u32("e_keylen"),
            a_type: self.u32("a_type"),
            a_keylen: self.u32("a_keylen"),
            flags: self.u32("flags"),
            l_alloc: self.u32("l_alloc"),
            l_bytes: self.u32("l_bytes"),
            l_addtime: self.u32("l_addtime"),
            l_usetime: self.u32("l_usetime"),
            seq: self.u32("seq"),
            l_natt_type: self.number("l_natt_type") as u8,
            l_natt_sport: self.number("l_natt_sport") as u16,
            l_natt_dport: self.number("l_natt_dport") as u16,
            l_natt_oa: self.address("l_natt_oa"),
            l_natt_frag: self.number("l_natt_frag") as u16,
            ctxdoi: self.number("ctxdoi") as u8,
            ctxalg: self.number("ctxalg") as u8,
            ctxstr: self.bytes("ctxstr"),
            ctxstrlen: self.number("ctxstrlen") as u16,
        }
    }

    /// Makes the call that the line names.
    fn call(&mut self, name: &str) -> i64 {
        // SAFETY: every pointer is NULL or points into `kept`, with the lengths that the line gives.
        let result = unsafe {
            match name {
                "pfkey_send_add2" | "pfkey_send_update2" => {
                    let mut args = self.sa_args();
                    let add = name == "pfkey_send_add2";
                    let result = if add { pfkey_send_add2(&mut args) } else { pfkey_send_update2(&mut args) };
                    assert_eq!(args.r#type, if add { 3 } else { 2 }, "the field type is set by the call");
                    result
                }
                "pfkey_send_add" | "pfkey_send_update" | "pfkey_send_add_nat" | "pfkey_send_update_nat" => {
                    let a = self.sa_args();
                    let (bytes, add, usage) =
                        (self.number("l_bytes64"), self.number("l_addtime64"), self.number("l_usetime64"));
                    macro_rules! positional {
                        ($f:ident $(, $nat:expr)*) => {
                            $f(a.so, a.satype, a.mode, a.src, a.dst, a.spi, a.reqid, a.wsize, a.keymat, a.e_type,
                               a.e_keylen, a.a_type, a.a_keylen, a.flags, a.l_alloc, bytes, add, usage, a.seq $(, $nat)*)
                        };
                    }
                    match name {
                        "pfkey_send_add" => positional!(pfkey_send_add),
                        "pfkey_send_update" => positional!(pfkey_send_update),
                        "pfkey_send_add_nat" => positional!(
                            pfkey_send_add_nat,
                            a.l_natt_type,
                            a.l_natt_sport,
                            a.l_natt_dport,
                            a.l_natt_oa,
                            a.l_natt_frag
                        ),
                        _ => positional!(
                            pfkey_send_update_nat,
                            a.l_natt_type,
                            a.l_natt_sport,
                            a.l_natt_dport,
                            a.l_natt_oa,
                            a.l_natt_frag
                        ),
                    }
                }
                "pfkey_send_getspi" => pfkey_send_getspi(
                    self.so,
                    self.u32("satype"),
                    self.u32("mode"),
                    self.address("src"),
                    self.address("dst"),
                    self.u32("min"),
                    self.u32("max"),
                    self.u32("reqid"),
                    self.u32("seq"),
                ),
                "pfkey_send_getspi_nat" => pfkey_send_getspi_nat(
                    self.so,
                    self.u32("satype"),
                    self.u32("mode"),
                    self.address("src"),
                    self.address("dst"),
                    self.number("natt_type") as u8,
                    self.number("sport") as u16,
                    self.number("dport") as u16,
                    self.u32("min"),
                    self.u32("max"),
                    self.u32("reqid"),
                    self.u32("seq"),
                ),
                "pfkey_send_delete" | "pfkey_send_get" => {
                    let call = if name == "pfkey_send_get" { pfkey_send_get } else { pfkey_send_delete };
                    let (src, dst) = (self.address("src"), self.address("dst"));
                    call(self.so, self.u32("satype"), self.u32("mode"), src, dst, self.u32("spi_be").to_be())
                }
                "pfkey_send_delete_all" => {
                    let (src, dst) = (self.address("src"), self.address("dst"));
                    pfkey_send_delete_all(self.so, self.u32("satype"), self.u32("mode"), src, dst)
                }
                "pfkey_send_register" => pfkey_send_register(self.so, self.u32("satype")),
                "pfkey_send_flush" => pfkey_send_flush(self.so, self.u32("satype")),
                "pfkey_send_dump" => pfkey_send_dump(self.so, self.u32("satype")),
                "pfkey_send_promisc_toggle" => {
                    pfkey_send_promisc_toggle(self.so, self.args["flag"].as_i64().unwrap() as c_int)
                }
                "pfkey_send_spdflush" => pfkey_send_spdflush(self.so),
                "pfkey_send_spddump" => pfkey_send_spddump(self.so),
                "pfkey_send_spddelete2" => pfkey_send_spddelete2(self.so, self.u32("spid")),
                "pfkey_send_spdget" => pfkey_send_spdget(self.so, self.u32("spid")),
                "pfkey_send_spdadd" | "pfkey_send_spdupdate" | "pfkey_send_spddelete" | "pfkey_send_spdsetidx" => {
                    let call = match name {
                        "pfkey_send_spdadd" => pfkey_send_spdadd,
                        "pfkey_send_spdupdate" => pfkey_send_spdupdate,
                        "pfkey_send_spddelete" => pfkey_send_spddelete,
                        _ => pfkey_send_spdsetidx,
                    };
                    let (src, dst, policy) = (self.address("src"), self.address("dst"), self.bytes("policy"));
                    let len = self.args["policylen"].as_i64().unwrap() as c_int;
                    let (prefs, prefd, proto) = (self.u32("prefs"), self.u32("prefd"), self.u32("proto"));
                    call(self.so, src, prefs, dst, prefd, proto, policy, len, self.u32("seq"))
                }
                "pfkey_send_spdadd2" | "pfkey_send_spdupdate2" => {
                    let call = if name == "pfkey_send_spdadd2" { pfkey_send_spdadd2 } else { pfkey_send_spdupdate2 };
                    let (src, dst, policy) = (self.address("src"), self.address("dst"), self.bytes("policy"));
                    let len = self.args["policylen"].as_i64().unwrap() as c_int;
                    let (ltime, vtime) = (self.number("ltime"), self.number("vtime"));
                    let (prefs, prefd, proto) = (self.u32("prefs"), self.u32("prefd"), self.u32("proto"));
                    call(self.so, src, prefs, dst, prefd, proto, ltime, vtime, policy, len, self.u32("seq"))
                }
                "pfkey_send_migrate" => {
                    let (local, remote) = (self.address("local"), self.address("remote"));
                    let (src, dst, policy) = (self.address("src"), self.address("dst"), self.bytes("policy"));
                    let len = self.args["policylen"].as_i64().unwrap() as c_int;
                    let (prefs, prefd, proto) = (self.u32("prefs"), self.u32("prefd"), self.u32("proto"));
                    let seq = self.u32("seq");
                    pfkey_send_migrate(self.so, local, remote, src, prefs, dst, prefd, proto, policy, len, seq)
                }
                "pfkey_send" => {
                    let fd = self.args["fd"].as_i64().unwrap() as c_int;
                    let so = if fd == -2 { self.so } else { fd };
                    pfkey_send(so, self.bytes("msg").cast(), self.args["len"].as_i64().unwrap() as c_int)
                }
                "pfkey_set_softrate" => {
                    let (kind, rate) = (self.u32("type"), self.u32("rate"));
                    let result = pfkey_set_softrate(kind, rate);
                    if let Some(after) = self.args["get_after"].as_u64() {
                        assert_eq!(u64::from(pfkey_get_softrate(kind)), after, "{}", self.args);
                    }
                    return i64::from(result);
                }
                other => panic!("no call {other}"),
            }
        };
        i64::from(result)
    }
}

/// The datagrams that wait on a socket, with the process id of the golden run in place of ours.
fn drain(peer: &OwnedFd) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    let mut buffer = vec![0; 600_000];
    while let Ok(len) = recv(peer.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
        let mut message = buffer[..len].to_vec();
        if len >= 16 && message[12..16] == std::process::id().to_ne_bytes() {
            message[12..16].copy_from_slice(&0x0102_0304_u32.to_ne_bytes());
        }
        sent.push(message);
    }
    sent
}

/// A message's hard and soft limits (bytes, addtime, usetime), and everything else of it.
struct Lifetimes {
    hard: [u64; 3],
    soft: [u64; 3],
    rest: Vec<u8>,
}

fn lifetimes(message: &[u8]) -> Lifetimes {
    let mut found = Lifetimes { hard: [0; 3], soft: [0; 3], rest: message[..16].to_vec() };
    let mut at = 16;
    while at < message.len() {
        let len = usize::from(u16::from_ne_bytes([message[at], message[at + 1]])) * 8;
        let ext = &message[at..at + len];
        let limits = || [8, 16, 24].map(|o| u64::from_ne_bytes(ext[o..o + 8].try_into().unwrap()));
        match u16::from_ne_bytes([ext[2], ext[3]]) {
            3 => found.hard = limits(),
            4 => found.soft = limits(),
            _ => found.rest.extend(ext),
        }
        at += len;
    }
    found
}

#[test]
fn every_call_emits_what_libipsec_emits() {
    let mut listed = 0;
    for line in golden("send.jsonl") {
        let id = line["id"].as_i64().unwrap();
        let name = line["fn"].as_str().unwrap();
        let what = format!("id {id}, {name}: {}", line["note"]);
        let (ours, peer) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        if id == 59 {
            // The golden file is a sample; the lines that set the rates back to 80 % are not in it.
            // SAFETY: no pointers.
            (0..4).for_each(|kind| assert_eq!(unsafe { pfkey_set_softrate(kind, 80) }, 0));
        }
        __ipsec_errcode.store(-1, std::sync::atomic::Ordering::Relaxed);
        let mut case = Case { args: &line["args"], so: ours.as_raw_fd(), kept: Vec::new() };
        let result = case.call(name);
        let code = __ipsec_errcode.load(std::sync::atomic::Ordering::Relaxed);
        let sent = drain(&peer);
        let expected: Vec<Vec<u8>> = line["sent"]
            .as_array()
            .map(|all| all.iter().map(|m| native(unhex(m.as_str().unwrap()))).collect())
            .unwrap_or_default();
        if let Some((_, reason)) = BUGS.iter().find(|(bug, _)| *bug == id) {
            // The same message but for the lifetimes, which are what the arguments and 80 % of them say.
            assert_eq!((sent.len(), result, code), (1, line["ret"].as_i64().unwrap(), 0), "{what}");
            let (ours, theirs) = (lifetimes(&sent[0]), lifetimes(&expected[0]));
            assert_eq!(ours.rest, theirs.rest, "{what}");
            let args = &line["args"];
            let full = |name: &str| args[format!("{name}64")].as_u64().unwrap_or_else(|| args[name].as_u64().unwrap());
            let hard = [full("l_bytes"), full("l_addtime"), full("l_usetime")];
            assert_eq!(ours.hard, hard, "{what}");
            assert_eq!(ours.soft, hard.map(|limit| limit * 80 / 100), "{what}: {reason}");
            assert_ne!(ours.soft, theirs.soft, "{what}: no such bug");
            listed += 1;
            continue;
        }
        assert_eq!(result, line["ret"].as_i64().unwrap(), "{what}: result");
        assert_eq!(i64::from(code), line["errcode"].as_i64().unwrap(), "{what}: code");
        if name != "pfkey_send" || id != 165 {
            assert_eq!(sent, expected, "{what}: bytes");
        }
    }
    assert_eq!(listed, BUGS.len());
}
