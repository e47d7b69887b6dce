//! `spdadd`, `spdupdate`, `spddelete`: the words that describe a policy.

use std::io::Write as _;

use pfkey::policy_text::{self, PolicySpec};
use pfkey_print::error::Code;
use pfkey_wire::xfrm::Carrier;
use pfkey_wire::{MessageType, PolicyDirection};

use super::lexer::Kind;
use super::parser::{Parser, Result, Stop};
use crate::execute::tagged;
use crate::model::attached::Attached;
use crate::model::policy::{GRE, ICMP, ICMPV6, MH, Policy};
use crate::model::{names, width, xfrm};

impl Parser<'_, '_> {
    /// The rest of a command about a policy.
    pub(super) fn policy(&mut self, command: &str) -> Result<()> {
        let msg_type = match command {
            "spdadd" => MessageType::X_SPDADD,
            "spdupdate" => MessageType::X_SPDUPDATE,
            _ => MessageType::X_SPDDELETE,
        };
        let flags = self.address_flags()?;
        if msg_type != MessageType::X_SPDDELETE && self.accept(Kind::Keyword("tagged"))? {
            return self.tagged(msg_type);
        }
        let (src_name, src_prefix, mut src_port) = self.end()?;
        let (dst_name, dst_prefix, mut dst_port) = self.end()?;
        let upper = self.upper()?;
        let token = self.peek()?;
        // A number alone, GRE's key, is not ipsec-tools'.
        let misc = match token.kind {
            Kind::Text => Some(token.bytes),
            Kind::Decimal if upper == GRE => Some(token.bytes),
            _ => None,
        };
        if misc.is_some() {
            self.take()?;
        }
        let mut attached = Attached::default();
        let (mut lifetime, mut idle_lifetime) = (0, 0);
        loop {
            match self.peek()?.kind {
                Kind::Keyword("-ctx") => {
                    self.take()?;
                    attached.context = self.context()?;
                }
                Kind::Keyword("-lh") => {
                    self.take()?;
                    lifetime = self.number()?;
                }
                Kind::Keyword("-uh") => {
                    self.take()?;
                    idle_lifetime = self.number()?;
                }
                Kind::Keyword("-X") => {
                    self.take()?;
                    self.attribute(&mut attached.xfrm, Carrier::Policy)?;
                }
                _ => break,
            }
        }
        let spec = self.spec()?;
        self.expect(Kind::Semicolon)?;
        if let Some(misc) = misc {
            let Some((high, low)) = pair(upper, &String::from_utf8_lossy(misc)) else {
                return self.error("invalid an upper layer protocol spec");
            };
            (src_port, dst_port) = (Some(high.to_string()), Some(low.to_string()));
        }
        // Both are looked at, and told of, before either ends it.
        let srcs = self.resolve(&src_name, Some(src_port.as_deref().unwrap_or("0")), flags);
        let dsts = self.resolve(&dst_name, Some(dst_port.as_deref().unwrap_or("0")), flags);
        let (srcs, dsts) = (srcs?, dsts?);
        let ([src], [dst]) = (srcs.as_slice(), dsts.as_slice()) else {
            return self.error("multiple address specified");
        };
        if src.is_ipv4() != dst.is_ipv4() {
            // setkey has no words for it.
            return Err(Stop::Error);
        }
        if let Err(text) = xfrm::check(&mut attached.xfrm, Carrier::Policy, 0) {
            return self.error(&text);
        }
        let policy = Policy {
            src: *src,
            src_prefix: src_prefix.unwrap_or(width(*src)),
            dst: *dst,
            dst_prefix: dst_prefix.unwrap_or(width(*dst)),
            upper,
            attached,
            lifetime,
            idle_lifetime,
            spec,
        };
        self.session.exchange(|seq, pid, buffer| policy.write(msg_type, seq, pid, buffer))?;
        let copied = !flags.exact && !self.session.printer.options.kernel;
        if copied && policy.spec.direction == PolicyDirection::INBOUND {
            let copy = policy.forwarded();
            self.session.exchange(|seq, pid, buffer| copy.write(msg_type, seq, pid, buffer))?;
        }
        Ok(())
    }

    /// A policy for packets that PF tagged. Linux has none: the key engine will say so.
    fn tagged(&mut self, msg_type: MessageType) -> Result<()> {
        self.expect(Kind::Quoted)?;
        let spec = self.spec()?;
        self.expect(Kind::Semicolon)?;
        self.session.exchange(|seq, pid, buffer| tagged(msg_type, &spec, seq, pid, buffer))?;
        Ok(())
    }

    /// `ADDRESS[/LEN][[PORT]]`, which is looked up when the command is whole. A length is cut to its field.
    #[allow(clippy::type_complexity, reason = "three words of a command")]
    fn end(&mut self) -> Result<(Vec<u8>, Option<u8>, Option<String>)> {
        let name = self.expect(Kind::Text)?.bytes.to_vec();
        let prefix = match self.accept(Kind::Slash)? {
            true => Some(self.number()? as u8),
            false => None,
        };
        Ok((name, prefix, self.port()?))
    }

    /// The upper-layer protocol.
    fn upper(&mut self) -> Result<u8> {
        let token = self.peek()?;
        match token.kind {
            Kind::Decimal => return Ok(self.number()? as u8),
            Kind::Text => {}
            // Of these ipsec-tools takes the first two.
            Kind::Keyword("any" | "tcp" | "esp" | "ah" | "ipcomp") => {}
            _ => return self.syntax_error(),
        }
        self.take()?;
        match std::str::from_utf8(token.bytes).ok().and_then(names::upper_number) {
            Some(number) => Ok(number),
            None => self.error("invalid upper layer protocol"),
        }
    }

    /// `-P` and a policy, which is read before anything more.
    fn spec(&mut self) -> Result<PolicySpec> {
        self.expect(Kind::Keyword("-P"))?;
        let text = self.expect(Kind::Policy)?;
        let parsed = policy_text::parse(text.bytes);
        self.session.printer.out.write_all(&parsed.echoed)?;
        if let Some(line) = &parsed.diagnostic {
            eprint!("{line}");
        }
        let code = Code::after_policy(&parsed.result, parsed.sets_code, self.session.code);
        match (parsed.result, parsed.system_text) {
            (Ok(spec), _) => {
                self.session.code = Code::NoError;
                Ok(spec)
            }
            (Err(_), Some(text)) => {
                self.session.code = Code::SystemError;
                self.error(text)
            }
            (Err(_), None) => self.code(code),
        }
    }
}

/// What stands in the ports' places: ICMP's and MH's type and code, GRE's key.
fn pair(upper: u8, text: &str) -> Option<(u16, u16)> {
    match upper {
        ICMP | ICMPV6 | MH => {
            let (high, low) = text.split_once(',').unwrap_or((text, "0"));
            Some((high.parse().ok()?, low.parse().ok()?))
        }
        GRE => {
            let quad = text.parse::<std::net::Ipv4Addr>().ok().map(u32::from);
            let key = quad.or_else(|| text.split(',').next()?.parse().ok())?;
            Some(((key >> 16) as u16, key as u16))
        }
        _ => None,
    }
}
