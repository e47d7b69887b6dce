//! `spdadd`, `spdupdate`, `spddelete`: the words that describe a policy.

use std::net::SocketAddr;

use pfkey::policy_text::{self as policy, PolicyErrorKind, PolicySpec};
use pfkey_wire::xfrm::Carrier;
use pfkey_wire::{PolicyLevel, PolicyType};

use super::lexer::Kind;
use super::parse::{Flags, Parser, Result, same_family};
use super::{Complaint, silent};
use crate::model::attached::Attached;
use crate::model::policy::{GRE, ICMP, ICMPV6, MANUAL_REQID_MAX, MH, Policy};
use crate::model::{names, width};

/// The words of the policy language.
const WORDS: &[&str] = &[
    "in",
    "out",
    "fwd",
    "discard",
    "none",
    "ipsec",
    "entrust",
    "bypass",
    "priority",
    "prio",
    "low",
    "def",
    "high",
    "esp",
    "ah",
    "ipcomp",
    "transport",
    "tunnel",
    "default",
    "use",
    "require",
    "unique",
    "me",
    "any",
];
const OPTIONS: &[&str] = &["-ctx", "-lh", "-uh", "-X", "-P"];

impl Parser<'_> {
    /// The rest of a command about a policy.
    pub(super) fn policy(&mut self, delete: bool) -> Result<(Policy, Flags)> {
        let flags = self.flags()?;
        let (mut src, src_prefix, src_port) = self.range(flags)?;
        let (mut dst, dst_prefix, dst_port) = self.range(flags)?;
        let upper_at = self.peek()?.at;
        same_family(src, dst, upper_at)?;
        let upper = self.upper()?;
        if let Some((high, low)) = self.upper_spec(upper)? {
            if src_port.or(dst_port).is_some_and(|port| port != 0) {
                return Err(Complaint { at: upper_at, text: "ports do not go with this protocol".to_owned() });
            }
            src.set_port(high);
            dst.set_port(low);
        }
        let mut attached = Attached::default();
        let (mut lifetime, mut idle_lifetime) = (0, 0);
        let spec = loop {
            self.unglue(OPTIONS)?;
            let token = self.peek()?;
            if token.kind != Kind::Word {
                return self.expected("-P and a policy");
            }
            match token.text().as_ref() {
                "-ctx" => {
                    self.take()?;
                    attached.context = Some(self.context()?);
                }
                "-lh" => {
                    self.take()?;
                    lifetime = self.number("a lifetime", u64::MAX)?;
                }
                "-uh" => {
                    self.take()?;
                    idle_lifetime = self.number("a lifetime", u64::MAX)?;
                }
                "-X" => {
                    self.take()?;
                    self.xfrm(&mut attached.xfrm, Carrier::Policy)?;
                }
                "-P" => {
                    self.take()?;
                    break self.spec(delete)?;
                }
                _ if token.bytes.starts_with(b"-") => return self.unknown("option", OPTIONS.iter().copied()),
                _ => return self.expected("-P and a policy"),
            }
        };
        self.end()?;
        let carrier = Carrier::Policy;
        crate::model::xfrm::check(&mut attached.xfrm, carrier, 0).map_err(|text| Complaint { at: upper_at, text })?;
        let policy = Policy { src, src_prefix, dst, dst_prefix, upper, attached, lifetime, idle_lifetime, spec };
        Ok((policy, flags))
    }

    /// The rest of a command about a policy for packets that PF tagged.
    pub(super) fn tagged(&mut self) -> Result<PolicySpec> {
        let at = self.take()?.at;
        if self.peek()?.kind != Kind::Quoted {
            return self.expected("a tag in double quotes");
        }
        self.take()?;
        self.unglue(OPTIONS)?;
        if !self.peek()?.is("-P") {
            return self.expected("-P and a policy");
        }
        self.take()?;
        let spec = self.spec(false)?;
        self.end()?;
        let text = "Linux has no policies for PF tags: the key engine refuses it".to_owned();
        self.warnings.push(Complaint { at, text });
        Ok(spec)
    }

    /// `ADDRESS[/LEN][[PORT]]`
    fn range(&mut self, flags: Flags) -> Result<(SocketAddr, u8, Option<u16>)> {
        let mut address = self.one_host(flags)?;
        let prefix = self.prefix(width(address))?;
        let port = self.port()?;
        address.set_port(port.unwrap_or(0));
        Ok((address, prefix, port))
    }

    /// The upper-layer protocol.
    fn upper(&mut self) -> Result<u8> {
        let token = self.peek()?;
        if token.kind != Kind::Word || token.bytes.starts_with(b"-") {
            return self.expected("an upper-layer protocol (or any)");
        }
        if token.bytes.iter().all(u8::is_ascii_digit) {
            return Ok(self.number("a protocol number", 255)? as u8);
        }
        match names::upper_number(&token.text()) {
            Some(number) => {
                self.take()?;
                Ok(number)
            }
            None => self.unknown("upper-layer protocol", names::upper_names()),
        }
    }

    /// ICMP's and MH's `TYPE,CODE`, GRE's key: what stands in the ports' places.
    fn upper_spec(&mut self, upper: u8) -> Result<Option<(u16, u16)>> {
        let token = self.peek()?;
        if token.kind != Kind::Word || token.bytes.starts_with(b"-") {
            return Ok(None);
        }
        let text = token.text();
        let spec = match upper {
            ICMP | ICMPV6 | MH => text
                .split_once(',')
                .and_then(|(a, b)| Some((a.parse::<u8>().ok()?.into(), b.parse::<u8>().ok()?.into())))
                .ok_or("TYPE,CODE (numbers up to 255)"),
            GRE => match text.parse::<u32>().ok().or_else(|| text.parse::<std::net::Ipv4Addr>().ok().map(u32::from)) {
                Some(key) => Ok(((key >> 16) as u16, key as u16)),
                None => Err("a GRE key (a number or a dotted quad)"),
            },
            _ => Err("-P and a policy"),
        };
        match spec {
            Ok(spec) => {
                self.take()?;
                Ok(Some(spec))
            }
            Err(what) => self.expected(what),
        }
    }

    /// The policy behind `-P`.
    fn spec(&mut self, delete: bool) -> Result<PolicySpec> {
        let (text, start) = self.policy_text()?;
        let mut spec = policy::parse(&text).result.map_err(|error| {
            let at = start + error.position;
            let word: Vec<u8> = text.get(error.position..).unwrap_or_default().to_vec();
            let end = word.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(word.len());
            let word = String::from_utf8_lossy(word.get(..end).unwrap_or_default()).into_owned();
            let near = match error.kind {
                PolicyErrorKind::Syntax { .. } | PolicyErrorKind::FewArguments { .. }
                    if !WORDS.contains(&word.as_str()) =>
                {
                    names::nearest(&word, WORDS.iter().copied())
                }
                _ => None,
            };
            let hint = near.map_or_else(String::new, |n| format!(", not '{word}'; did you mean '{n}'?"));
            Complaint { at, text: format!("{}{hint}", error.kind) }
        })?;
        let bare = !text.trim_ascii().iter().any(|b| b.is_ascii_whitespace());
        if delete {
            spec.requests.clear();
            return Ok(spec);
        }
        if bare {
            return Err(Complaint {
                at: start + text.trim_ascii_end().len(),
                text: "discard, none or ipsec expected".to_owned(),
            });
        }
        self.warnings.extend(silent::addresses(&text, start));
        self.warnings.extend(silent::unprotected(&spec, start));
        if matches!(spec.policy_type, PolicyType::ENTRUST | PolicyType::BYPASS) {
            let text = "entrust and bypass are for sockets: the key engine refuses them in the SPD".to_owned();
            self.warnings.push(Complaint { at: start, text });
        }
        for request in &spec.requests {
            if request.level == PolicyLevel::UNIQUE && request.reqid > MANUAL_REQID_MAX {
                let text = format!(
                    "unique:{}: the kernel takes up to {MANUAL_REQID_MAX} and chooses one itself",
                    request.reqid
                );
                self.warnings.push(Complaint { at: start, text });
            }
        }
        Ok(spec)
    }
}
