//! The engine as text, as KLIPS's /proc shows it: eroutes, groups, algorithms, registrations.

use std::fmt::Write as _;

use super::eroute::subnet;
use super::number::{SATYPE_MAX, flags};
use super::supported::supported;
use super::{Engine, Format, Hub};
use pfkey_wire::{ExtensionType as Ext, SaType};

impl Engine {
    /// The eroutes as `ipsec_eroute` shows them: packets, source, destination, SA.
    #[must_use]
    pub fn eroute_text(&self) -> String {
        let mut text = String::new();
        for (selector, eroute) in self.eroutes.sorted() {
            let (key, mask) = (selector.key(), selector.mask());
            let side = |address, mask, port| match port {
                0 => subnet(address, mask),
                _ => format!("{}:{port}", subnet(address, mask)),
            };
            let (src, dst) = (side(key.src, mask.src, key.sport), side(key.dst, mask.dst, key.dport));
            let proto = if key.proto == 0 { String::new() } else { format!(":{}", key.proto) };
            let said = eroute.said.text(Format::Prefixed);
            let _ = writeln!(text, "{:<10} {src:<18} -> {dst:<18} => {said}{proto}", eroute.count);
        }
        text
    }

    /// The groups as `ipsec_spigrp` shows them: a line for each, inner before outer.
    #[must_use]
    pub fn group_text(&self) -> String {
        let mut text = String::new();
        for first in self.sadb.iter().filter(|sa| sa.inner().is_none()) {
            let names: Vec<String> = self.sadb.outwards(&first.said).map(|sa| sa.said.text(Format::Prefixed)).collect();
            let _ = writeln!(text, "{}", names.join(" "));
        }
        text
    }

    /// The SAs as `ipsec_spi` begins its lines: name, direction, source. Keys are not shown.
    #[must_use]
    pub fn sa_text(&self) -> String {
        let mut text = String::new();
        for sa in self.sadb.iter() {
            let direction = if sa.flags & flags::INBOUND == 0 { "out" } else { "in" };
            let src = sa.src.map(|src| src.ip.to_string()).unwrap_or_default();
            let said = sa.said.text(Format::Prefixed);
            let _ = writeln!(text, "{said} dir={direction} src={src} ref={}", sa.saref);
        }
        text
    }

    /// The algorithms as `pf_key_supported` shows them.
    #[must_use]
    pub fn supported_text() -> String {
        let mut text = format!(
            "{:<10}{:<10}{:<10}{:<10}{:<10}{:<10}\n",
            "satype", "exttype", "alg_id", "ivlen", "minbits", "maxbits"
        );
        for satype in (1..=SATYPE_MAX).map(SaType) {
            let list = supported(satype);
            let both = [(Ext::SUPPORTED_AUTH, list.auth), (Ext::SUPPORTED_ENCRYPT, list.encrypt)];
            for (ext, algorithm) in both.into_iter().flat_map(|(ext, list)| list.into_iter().map(move |a| (ext, a))) {
                let (min, max) = (algorithm.minbits.get(), algorithm.maxbits.get());
                let (id, ivlen) = (algorithm.id, algorithm.ivlen);
                let _ = writeln!(text, "{:<10}{:<10}{id:<10}{ivlen:<10}{min:<10}{max:<10}", satype.0, ext.0);
            }
        }
        text
    }
}

impl Hub {
    /// The registrations as `pf_key_registered` shows them: SA type, session.
    #[must_use]
    pub fn registered_text(&self) -> String {
        let mut text = String::new();
        for satype in (0..=SATYPE_MAX).map(SaType) {
            for id in self.registered(satype) {
                let _ = writeln!(text, "{:<10}{}", satype.0, id.0);
            }
        }
        text
    }
}
