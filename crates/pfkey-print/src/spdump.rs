//! A policy as `setkey -DP` shows it: `pfkey_spdump` and `pfkey_spdump_withports`.

use crate::error::Code;
use crate::policy;
use crate::wire::layout::{SadbAddress, SadbXPolicy};
use crate::wire::sockaddr::{AF_INET6, Sockaddr};
use crate::wire::{ExtensionType, Header};

use super::text::{Out, Sink, collect, put};
use super::view::{self, View, host};
use super::{Dumped, Environment};

/// `IPPROTO_ICMP`.
const ICMP: u8 = 1;
/// `IPPROTO_GRE`.
const GRE: u8 = 47;
/// `IPPROTO_ICMPV6`.
const ICMPV6: u8 = 58;
/// `IPPROTO_MH`, Mobile IPv6.
const MH: u8 = 135;

/// The state of `pfkey_spdump_filter_socket_policy` and `pfkey_spdump_filtered_count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketPolicyFilter {
    /// Whether per-socket policies are left out.
    pub hide: bool,
    /// How many were left out since the message with sequence number 1, with which a kernel's dump begins.
    pub hidden: u64,
}

/// Writes the policy of a message, or nothing if `filter` hides it. A message that `pfkey_align` or
/// `pfkey_check` refuses gives the error's text.
#[must_use]
pub fn spdump(
    message: &[u8],
    with_ports: bool,
    filter: &mut SocketPolicyFilter,
    environment: &dyn Environment,
) -> Dumped {
    let (text, code) = collect(message.len(), |sink| spdump_to(message, with_ports, filter, environment, sink));
    Dumped { text, code }
}

/// [`spdump`], piece by piece; gives the code.
pub fn spdump_to(
    message: &[u8],
    with_ports: bool,
    filter: &mut SocketPolicyFilter,
    environment: &dyn Environment,
    sink: &mut Sink<'_>,
) -> Code {
    let mut out = Out(sink);
    match View::new(message) {
        Ok(view) => put_policy(&mut out, &view, with_ports, filter, environment),
        Err(code) => {
            put!(out, "{}\n", code.text());
            code
        }
    }
}

fn put_policy(
    out: &mut Out<'_, '_>,
    view: &View<'_>,
    with_ports: bool,
    filter: &mut SocketPolicyFilter,
    environment: &dyn Environment,
) -> Code {
    let Header { seq, pid, reserved, .. } = view.header;
    let policy = view.read::<SadbXPolicy>(ExtensionType::X_POLICY).map(|(policy, _)| policy);
    if seq == 1 {
        filter.hidden = 0;
    }
    let ends = view.address(ExtensionType::ADDRESS_SRC).zip(view.address(ExtensionType::ADDRESS_DST));
    // Linux numbers policies 8 by 8 and keeps the direction in the low bits; 3 and above are sockets'.
    let of_socket = policy.is_some_and(|policy| policy.id.get() % 8 >= 3);
    match ends {
        Some(((source, source_addr), (destination, destination_addr))) if !of_socket => {
            put_end(out, source, source_addr, source.proto);
            put_end(out, destination, destination_addr, source.proto);
            put_upper_layer(out, source.proto, source_addr.port(), destination_addr.port(), environment);
        }
        _ if filter.hide => {
            filter.hidden = filter.hidden.saturating_add(1);
            return Code::NoError;
        }
        _ => put!(out, "(per-socket policy) "),
    }
    let Some(policy) = policy else {
        put!(out, "no X_POLICY extension.\n");
        return Code::NoError;
    };

    let bytes = view.extension(ExtensionType::X_POLICY).unwrap_or_default();
    // Whether it can be written shows at its end.
    let code = match policy::dump_to(bytes, b"\n\t", with_ports, &mut |_| {}) {
        Ok(()) => {
            put!(out, "\n\t");
            let _ = policy::dump_to(bytes, b"\n\t", with_ports, out.0);
            put!(out, "\n");
            Code::NoError
        }
        Err(error) => {
            let code = Code::from(error);
            put!(out, "\n\tPolicy:[{}]\n", code.text());
            code
        }
    };
    if let Some(current) = view.lifetime(ExtensionType::LIFETIME_CURRENT) {
        let [created, used] = [current.addtime, current.usetime].map(|t| view::time(t.get(), environment));
        put!(out, "\tcreated: {created}  lastused: {used}\n");
    }
    if let Some(hard) = view.lifetime(ExtensionType::LIFETIME_HARD) {
        put!(out, "\tlifetime: {}(s) validtime: {}(s)\n", hard.addtime.get(), hard.usetime.get());
    }
    view.put_sec_ctx(out);
    put!(out, "\tspid={} seq={seq} pid={pid}\n", policy.id.get());
    put!(out, "\trefcnt={reserved}\n");
    code
}

/// Protocols whose ports are something else, and shown behind the protocol's name.
const fn has_no_ports(protocol: u8) -> bool {
    matches!(protocol, ICMP | GRE | ICMPV6 | MH)
}

/// `ADDRESS[/PREFIX][PORT] `
fn put_end(out: &mut Out<'_, '_>, fixed: SadbAddress, sockaddr: Sockaddr<'_>, protocol: u8) {
    put!(out, "{}", host(sockaddr));
    let width = if sockaddr.family() == AF_INET6 { 128 } else { 32 };
    if fixed.prefixlen != width {
        put!(out, "/{}", fixed.prefixlen);
    }
    match sockaddr.port() {
        _ if has_no_ports(protocol) => {}
        0 => put!(out, "[any]"),
        port => put!(out, "[{port}]"),
    }
    put!(out, " ");
}

/// The protocol, and what it keeps in the port fields: ICMP's and MH's type and code, GRE's key.
fn put_upper_layer(out: &mut Out<'_, '_>, protocol: u8, source: u16, destination: u16, environment: &dyn Environment) {
    match environment.protocol_name(protocol) {
        Some(name) => put!(out, "{name}"),
        None => put!(out, "{protocol}"),
    }
    match protocol {
        _ if source == 0 && destination == 0 => {}
        GRE => put!(out, " {}", u32::from(source) << 16 | u32::from(destination)),
        _ if has_no_ports(protocol) => put!(out, " {source},{destination}"),
        _ => {}
    }
}
