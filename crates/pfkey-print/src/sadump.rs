//! An SA as `setkey -D` shows it: `pfkey_sadump` and `pfkey_sadump_withports`.

use crate::error::Code;
use crate::policy::address;
use crate::wire::layout::{SadbSa, SadbXNatTPort, SadbXNatTType, SadbXSa2};
use crate::wire::sockaddr::Sockaddr;
use crate::wire::{ExtensionType, SaType};

use super::text::{Out, Sink, collect, put};
use super::view::{self, OrNull, View, host};
use super::{Dumped, Environment, names};

/// Writes the SA of a message. A message that `pfkey_align` or `pfkey_check` refuses gives the error's text.
#[must_use]
pub fn sadump(message: &[u8], with_ports: bool, environment: &dyn Environment) -> Dumped {
    let (text, code) = collect(message.len(), |sink| sadump_to(message, with_ports, environment, sink));
    Dumped { text, code }
}

/// [`sadump`], piece by piece; gives the code.
pub fn sadump_to(message: &[u8], with_ports: bool, environment: &dyn Environment, sink: &mut Sink<'_>) -> Code {
    let mut out = Out(sink);
    match View::new(message) {
        Ok(view) => {
            put_sa(&mut out, &view, with_ports, environment);
            Code::NoError
        }
        Err(code) => {
            put!(out, "{}\n", code.text());
            code
        }
    }
}

fn put_sa(out: &mut Out<'_, '_>, view: &View<'_>, with_ports: bool, environment: &dyn Environment) {
    let nat_t = view.read::<SadbXNatTType>(ExtensionType::X_NAT_T_TYPE).is_some_and(|(t, _)| t.nat_t_type != 0);
    let put_end = |out: &mut Out<'_, '_>, sockaddr: Sockaddr<'_>, nat_t_port| {
        put!(out, "{}", host(sockaddr));
        if with_ports {
            put!(out, "[{}]", OrNull(address::service_text(sockaddr)));
        }
        if let (true, Some((port, _))) = (nat_t, view.read::<SadbXNatTPort>(nat_t_port)) {
            put!(out, "[{}]", port.port.get());
        }
        put!(out, " ");
    };

    let Some((_, source)) = view.address(ExtensionType::ADDRESS_SRC) else {
        return put!(out, "no ADDRESS_SRC extension.\n");
    };
    put_end(out, source, ExtensionType::X_NAT_T_SPORT);
    let Some((_, destination)) = view.address(ExtensionType::ADDRESS_DST) else {
        return put!(out, " no ADDRESS_DST extension.\n");
    };
    put_end(out, destination, ExtensionType::X_NAT_T_DPORT);
    let Some((sa, _)) = view.read::<SadbSa>(ExtensionType::SA) else {
        return put!(out, "no SA extension.\n");
    };
    let Some((sa2, _)) = view.read::<SadbXSa2>(ExtensionType::X_SA2) else {
        return put!(out, "no SA2 extension.\n");
    };

    let satype = view.header.satype;
    put!(out, "\n\t");
    match (nat_t, satype) {
        (true, SaType::ESP) => put!(out, "esp-udp "),
        (true, _) => put!(out, "natt+{} ", names::satype(satype)),
        (false, _) => put!(out, "{} ", names::satype(satype)),
    }
    put!(out, "mode={} ", names::mode(sa2.mode));
    let (spi, reqid) = (sa.spi.get(), sa2.reqid.get());
    put!(out, "spi={spi}(0x{spi:08x}) reqid={reqid}(0x{reqid:08x})\n");
    if let (true, Some((_, original))) = (nat_t, view.address(ExtensionType::X_NAT_T_OA)) {
        put!(out, "\tNAT OA={}\n", host(original));
    }

    match (satype, view.key(ExtensionType::KEY_ENCRYPT)) {
        // No newline: scripts read it so.
        (SaType::X_IPCOMP, _) => put!(out, "\tC: {} ", names::compression(sa.encrypt)),
        (SaType::ESP, Some(key)) => {
            put!(out, "\tE: {} ", names::encrypt(sa.encrypt));
            out.hex(key);
            put!(out, "\n");
        }
        _ => {}
    }
    if let Some(key) = view.key(ExtensionType::KEY_AUTH) {
        put!(out, "\tA: {} ", names::auth(sa.auth));
        out.hex(key);
        put!(out, "\n");
    }
    put!(out, "\tseq=0x{:08x} replay={} flags=0x{:08x} ", sa2.sequence.get(), sa.replay, sa.flags.get());
    put!(out, "state={} \n", names::state(sa.state));
    put_lifetimes(out, view, environment);
    view.put_sec_ctx(out);
    let header = view.header;
    put!(out, "\tsadb_seq={} pid={} refcnt={}\n", header.seq, header.pid, header.reserved);
}

fn put_lifetimes(out: &mut Out<'_, '_>, view: &View<'_>, environment: &dyn Environment) {
    let Some(current) = view.lifetime(ExtensionType::LIFETIME_CURRENT) else { return };
    let hard = view.lifetime(ExtensionType::LIFETIME_HARD).unwrap_or_default();
    let soft = view.lifetime(ExtensionType::LIFETIME_SOFT).unwrap_or_default();

    let (created, now) = (current.addtime.get(), environment.now() as u64);
    // Unsigned as in libipsec: a time of creation that is still to come gives a huge number.
    let age = if created == 0 { 0 } else { now.wrapping_sub(created) };
    put!(out, "\tcreated: {}\tcurrent: {}\n", view::time(created, environment), view::time(now, environment));
    put!(out, "\tdiff: {age}(s)\thard: {}(s)\tsoft: {}(s)\n", hard.addtime.get(), soft.addtime.get());
    let used = view::time(current.usetime.get(), environment);
    put!(out, "\tlast: {used}\thard: {}(s)\tsoft: {}(s)\n", hard.usetime.get(), soft.usetime.get());
    // Through a double, as libipsec does: above 2^53 the last digits are rounded.
    let [c, h, s] = [current, hard, soft].map(|lifetime| lifetime.bytes.get() as f64);
    put!(out, "\tcurrent: {c:.0}(bytes)\thard: {h:.0}(bytes)\tsoft: {s:.0}(bytes)\n");
    let [c, h, s] = [current, hard, soft].map(|lifetime| lifetime.allocations.get());
    put!(out, "\tallocated: {c}\thard: {h}\tsoft: {s}\n");
}
