//! `add`, `update`, `getspi`, `get`, `delete`: the words that describe an SA.

use pfkey_wire::algorithm::Algorithm;
use pfkey_wire::xfrm::Carrier;
use pfkey_wire::{MessageType, SaType};
use zeroize::Zeroizing;

use super::lexer::Kind;
use super::parser::{AddressFlags, Parser, Result, unnamed};
use crate::model::attached::Context;
use crate::model::names::{self, Tables, takes_key};
use crate::model::sa::{CYCLIC_SEQ, ESP_IN_UDP, FLAGS, Key, NatT, Sa};
use crate::model::{width, xfrm};
use crate::setkey::{DERIVED, IV_4_BYTES, OLD, RAW_CPI};

impl Parser<'_, '_> {
    /// The rest of a command about an SA.
    pub(super) fn sa(&mut self, command: &str) -> Result<()> {
        let flags = self.address_flags()?;
        let srcs = self.host_port(flags)?;
        let dsts = self.host_port(flags)?;
        let mut sa = unnamed();
        self.protocol(&mut sa, flags)?;
        self.spi(&mut sa)?;
        self.options(&mut sa)?;
        let whole = matches!(command, "add" | "update");
        if whole {
            self.algorithms(&mut sa)?;
            // ipsec-tools takes none of them here.
            self.options(&mut sa)?;
        }
        self.expect(Kind::Semicolon)?;
        let replay = sa.replay;
        if let Err(text) = xfrm::check(&mut sa.attached.xfrm, Carrier::Sa, replay) {
            return self.error(&text);
        }
        let msg_type = match command {
            "add" => MessageType::ADD,
            "update" => MessageType::UPDATE,
            "getspi" => MessageType::GETSPI,
            "get" => MessageType::GET,
            _ => MessageType::DELETE,
        };
        if msg_type == MessageType::DELETE && (srcs.len() > 1 || dsts.len() > 1) {
            return self.error("multiple address specified");
        }
        if matches!(msg_type, MessageType::GET | MessageType::DELETE) && sa.mode != 0 {
            self.complain("WARNING: mode is obsolete");
        }
        self.send_each(msg_type, &sa, &srcs, &dsts)
    }

    /// A protocol, or nothing.
    pub(super) fn protocol(&mut self, sa: &mut Sa, flags: AddressFlags) -> Result<()> {
        let Kind::Keyword(name) = self.peek()?.kind else { return Ok(()) };
        sa.satype = match name {
            "esp" | "esp-old" | "esp-udp" => SaType::ESP,
            "ah" | "ah-old" => SaType::AH,
            "ipcomp" => SaType::X_IPCOMP,
            // Linux has no SAs for it: the key engine will say so.
            "tcp" => SaType::UNSPEC,
            _ => return Ok(()),
        };
        self.take()?;
        if name.ends_with("-old") {
            sa.flags |= OLD;
        }
        if name == "esp-udp" {
            let original = match self.peek()?.kind {
                Kind::Text => self.host(flags)?.first().copied(),
                _ => None,
            };
            sa.nat_t = Some(NatT { encap_type: ESP_IN_UDP, original });
        }
        Ok(())
    }

    fn spi(&mut self, sa: &mut Sa) -> Result<()> {
        match self.peek()?.kind {
            // Its low bits, as ipsec-tools.
            Kind::Decimal => sa.spi = self.number()? as u32,
            Kind::Hexadecimal => {
                let token = self.take()?;
                let digits = std::str::from_utf8(token.bytes).unwrap_or_default();
                match u32::from_str_radix(digits, 16) {
                    Ok(spi) => sa.spi = spi,
                    Err(_) => return self.error("SPI too big."),
                }
            }
            _ => return self.syntax_error(),
        }
        Ok(())
    }

    /// What stands between the SPI and the algorithms. Numbers are cut to their field, as ipsec-tools cuts them.
    fn options(&mut self, sa: &mut Sa) -> Result<()> {
        loop {
            let Kind::Keyword(option) = self.peek()?.kind else { return Ok(()) };
            if !option.starts_with('-') || matches!(option, "-E" | "-A" | "-C" | "-P" | "-R" | "-k") {
                return Ok(());
            }
            self.take()?;
            match option {
                "-m" => {
                    let modes = ["any", "transport", "tunnel", "beet"];
                    let Kind::Keyword(name) = self.peek()?.kind else { return self.syntax_error() };
                    let Some(mode) = modes.iter().position(|m| *m == name) else { return self.syntax_error() };
                    self.take()?;
                    sa.mode = mode as u8;
                }
                "-u" => sa.reqid = self.number()? as u32,
                "-r" => {
                    let window = self.number()?;
                    if sa.flags & OLD != 0 {
                        return self.error("replay prevention cannot be used with ah/esp-old");
                    }
                    sa.replay = window as u8;
                }
                "-f" => self.flag(sa)?,
                "-lh" => sa.hard.addtime = self.number()?,
                "-ls" => sa.soft.addtime = self.number()?,
                "-bh" => sa.hard.bytes = self.number()?,
                "-bs" => sa.soft.bytes = self.number()?,
                "-uh" => sa.hard.usetime = self.number()?,
                "-us" => sa.soft.usetime = self.number()?,
                "-ph" => sa.hard.allocations = self.number()? as u32,
                "-ps" => sa.soft.allocations = self.number()? as u32,
                "-ctx" => sa.attached.context = self.context()?,
                "-X" => self.attribute(&mut sa.attached.xfrm, Carrier::Sa)?,
                _ => {
                    let addresses = self.host(AddressFlags::default())?;
                    let Some(address) = addresses.first() else { return self.syntax_error() };
                    let prefix = match self.accept(Kind::Slash)? {
                        true => self.number()? as u8,
                        false => width(*address),
                    };
                    sa.proxy = Some((*address, prefix));
                }
            }
        }
    }

    fn flag(&mut self, sa: &mut Sa) -> Result<()> {
        let Kind::Keyword(name) = self.peek()?.kind else { return self.syntax_error() };
        if name == "nocyclic-seq" {
            sa.flags &= !CYCLIC_SEQ;
        } else if let Some((_, bits)) = FLAGS.iter().find(|(flag, _)| *flag == name) {
            sa.flags |= bits;
        } else {
            return self.syntax_error();
        }
        self.take().map(drop)
    }

    /// `DOI ALGORITHM "LABEL"`; a domain of 0 is none.
    pub(super) fn context(&mut self) -> Result<Option<Context>> {
        let doi = self.number()? as u8;
        let alg = self.number()? as u8;
        let mut text = self.expect(Kind::Quoted)?.bytes.to_vec();
        text.push(0);
        Ok((doi != 0).then_some(Context { doi, alg, text }))
    }

    /// `NAME=VALUE` or `NAME`: what XFRM has beyond PF_KEY.
    pub(super) fn attribute(&mut self, settings: &mut pfkey_model::xfrm::Xfrm, carrier: Carrier) -> Result<()> {
        let word = self.expect(Kind::Text)?;
        match xfrm::parse(settings, carrier, &String::from_utf8_lossy(word.bytes)) {
            Ok(()) => Ok(()),
            Err(text) => self.error(&text),
        }
    }

    /// `-E`, `-E` and `-A`, `-A`, or `-C`.
    fn algorithms(&mut self, sa: &mut Sa) -> Result<()> {
        match self.peek()?.kind {
            Kind::Keyword("-E") => {
                self.take()?;
                self.encryption(sa)?;
                if self.accept(Kind::Keyword("-A"))? { self.authentication(sa) } else { Ok(()) }
            }
            Kind::Keyword("-A") => {
                self.take()?;
                self.authentication(sa)
            }
            Kind::Keyword("-C") => {
                self.take()?;
                let Kind::Keyword(name @ ("oui" | "deflate" | "lzs")) = self.peek()?.kind else {
                    return self.syntax_error();
                };
                self.take()?;
                sa.encrypt = names::find(names::COMPRESS, name).map_or(0, |(_, algorithm)| algorithm.id);
                if self.accept(Kind::Keyword("-R"))? {
                    sa.flags |= RAW_CPI;
                }
                Ok(())
            }
            _ => self.syntax_error(),
        }
    }

    fn algorithm(&mut self, tables: Tables) -> Result<(&'static str, &'static Algorithm)> {
        let token = self.expect(Kind::Algorithm)?;
        match std::str::from_utf8(token.bytes).ok().and_then(|name| names::find(tables, name)) {
            Some(found) => Ok(found),
            None => self.syntax_error(),
        }
    }

    fn encryption(&mut self, sa: &mut Sa) -> Result<()> {
        let (name, algorithm) = self.algorithm(names::ENCRYPT)?;
        if name == "simple" {
            self.complain("WARNING: obsolete algorithm");
        }
        let key = if takes_key(algorithm) { self.key()? } else { Key::default() };
        let old = sa.flags & OLD != 0;
        if (name == "des-deriv" && old) || (name == "des-32iv" && !old) {
            return self.error("algorithm mismatched");
        }
        match name {
            "des-deriv" => sa.flags |= DERIVED,
            "des-32iv" => sa.flags |= IV_4_BYTES,
            _ => {}
        }
        self.check(true, algorithm, &key)?;
        sa.encrypt = algorithm.id;
        if sa.satype != SaType::X_IPCOMP {
            sa.encrypt_key = Some(key);
        }
        Ok(())
    }

    fn authentication(&mut self, sa: &mut Sa) -> Result<()> {
        let (_, algorithm) = self.algorithm(names::AUTH)?;
        sa.auth = algorithm.id;
        if takes_key(algorithm) {
            let key = self.key()?;
            self.check(false, algorithm, &key)?;
            sa.auth_key = Some(key);
        }
        Ok(())
    }

    /// A key must have a length that the key engine named.
    fn check(&mut self, encrypt: bool, algorithm: &Algorithm, key: &Key) -> Result<()> {
        match self.session.registered.check(encrypt, algorithm.id, key.len()) {
            Ok(()) => Ok(()),
            Err(code) => self.code(code),
        }
    }

    /// A quoted string, or `0x` and hexadecimal digits, of which an odd number begins with half a byte.
    fn key(&mut self) -> Result<Key> {
        let token = self.peek()?;
        let key = match token.kind {
            Kind::Quoted => Zeroizing::new(token.bytes.to_vec()),
            Kind::Hexadecimal => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or(0) as u8;
                let mut key = Zeroizing::new(Vec::with_capacity(token.bytes.len().div_ceil(2)));
                let (first, rest) = token.bytes.split_at(token.bytes.len() % 2);
                key.extend(first.iter().map(digit));
                key.extend(rest.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, d| byte << 4 | digit(d))));
                key
            }
            _ => return self.syntax_error(),
        };
        self.take()?;
        Ok(key)
    }
}
