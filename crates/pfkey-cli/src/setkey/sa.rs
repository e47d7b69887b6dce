//! `add`, `update`, `getspi`, `get`, `delete`: the words that describe an SA.

use zeroize::Zeroizing;

use pfkey_wire::SaType;
use pfkey_wire::algorithm::{Algorithm, Keys};
use pfkey_wire::xfrm::Carrier;

use super::lexer::Kind;
use super::parse::{Parser, Protocol, Result, same_family};
use super::{Complaint, silent};
use crate::model::names::{self, Tables, takes_key};
use crate::model::sa::{CYCLIC_SEQ, FLAGS, Key, Sa};
use crate::model::{width, xfrm};

/// KAME's `SADB_X_EXT_OLD`: RFC 1826 and RFC 1827.
pub const OLD: u32 = 1;
/// KAME's `SADB_X_EXT_IV4B`.
pub const IV_4_BYTES: u32 = 0x10;
/// KAME's `SADB_X_EXT_DERIV`.
pub const DERIVED: u32 = 0x20;
/// KAME's `SADB_X_EXT_RAWCPI`.
pub const RAW_CPI: u32 = 0x80;
/// Every option of an SA.
const OPTIONS: &[&str] = &[
    "-m", "-u", "-r", "-f", "-lh", "-ls", "-bh", "-bs", "-uh", "-us", "-ph", "-ps", "-proxy", "-ctx", "-E", "-A", "-C",
    "-R", "-X",
];
pub(super) const MODES: &[&str] = &["any", "transport", "tunnel", "beet"];

impl Parser<'_> {
    /// The rest of a command about SAs; as many SAs as there are pairs of addresses.
    pub(super) fn sa(&mut self, command: &str) -> Result<Vec<Sa>> {
        let flags = self.flags()?;
        let mut ends = Vec::with_capacity(2);
        for _ in 0..2 {
            let mut hosts = self.hosts(flags)?;
            if let Some(port) = self.port()? {
                hosts.iter_mut().for_each(|host| host.set_port(port));
            }
            ends.push(hosts);
        }
        let protocol = self.protocol_or_none()?;
        let spi_at = self.peek()?.at;
        if protocol.satype == SaType::UNSPEC {
            self.warn(spi_at, "without esp, ah or ipcomp before it the key engine refuses this");
        }
        let spi = self.spi()?;
        let (Some(dsts), Some(srcs)) = (ends.pop(), ends.pop()) else { return self.expected("an address") };
        let (Some(src), Some(dst)) = (srcs.first(), dsts.first()) else { return self.expected("an address") };
        if let ([src], [dst]) = (srcs.as_slice(), dsts.as_slice()) {
            same_family(*src, *dst, protocol.at)?;
        }
        let whole = matches!(command, "add" | "update");
        if !whole && command != "getspi" && (srcs.len() > 1 || dsts.len() > 1) {
            return Err(Complaint { at: protocol.at, text: "one of the names has several addresses".to_owned() });
        }
        let mut sa = Sa::new(protocol.satype, *src, *dst, spi);
        sa.nat_t = protocol.nat_t;
        if protocol.old {
            sa.flags |= OLD;
        }
        if whole && spi < 256 && protocol.satype != SaType::X_IPCOMP {
            self.warn(spi_at, "SPIs below 256 are reserved (RFC 4303)");
        }
        self.options(&mut sa, &protocol)?;
        self.warnings.extend(silent::limits(&sa, spi_at));
        let replay = sa.replay;
        xfrm::check(&mut sa.attached.xfrm, Carrier::Sa, replay).map_err(|text| Complaint { at: protocol.at, text })?;
        if whole {
            check(&sa, &protocol)?;
        } else if command != "getspi" && sa.mode != 0 {
            self.warn(spi_at, "the mode does not select an SA");
        }
        self.end()?;
        let mut sas = Vec::new();
        for src in &srcs {
            for dst in dsts.iter().filter(|dst| dst.is_ipv4() == src.is_ipv4()) {
                sas.push(Sa { src: *src, dst: *dst, ..sa.clone() });
            }
        }
        if sas.is_empty() {
            let text = "the two names have no addresses of one family".to_owned();
            return Err(Complaint { at: protocol.at, text });
        }
        Ok(sas)
    }

    fn warn(&mut self, at: usize, text: &str) {
        self.warnings.push(Complaint { at, text: text.to_owned() });
    }

    /// A decimal number, or `0x` and hexadecimal digits.
    fn spi(&mut self) -> Result<u32> {
        let token = self.peek()?;
        let text = token.text();
        let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16),
            None if token.bytes.iter().all(u8::is_ascii_digit) => text.parse(),
            _ => return self.expected("an SPI (a decimal number, or 0x and hexadecimal digits)"),
        };
        if token.kind != Kind::Word {
            return self.expected("an SPI");
        }
        match number.ok().and_then(|n| u32::try_from(n).ok()) {
            Some(spi) => {
                self.take()?;
                Ok(spi)
            }
            None => Err(Complaint { at: token.at, text: "this SPI has more than 32 bits".to_owned() }),
        }
    }

    fn options(&mut self, sa: &mut Sa, protocol: &Protocol) -> Result<()> {
        loop {
            self.unglue(OPTIONS)?;
            let token = self.peek()?;
            if token.kind != Kind::Word {
                return Ok(());
            }
            let option = token.text();
            if !OPTIONS.contains(&option.as_ref()) {
                return self.unknown("option", OPTIONS.iter().copied());
            }
            self.take()?;
            match option.as_ref() {
                "-m" => {
                    let word = self.peek()?;
                    let Some(mode) = MODES.iter().position(|m| word.is(m)) else {
                        return self.unknown("mode", MODES.iter().copied());
                    };
                    self.take()?;
                    sa.mode = mode as u8;
                }
                "-u" => sa.reqid = self.number("a request id", u32::MAX.into())? as u32,
                "-r" => {
                    if protocol.old {
                        let text = format!("{option} does not go with the old protocols");
                        return Err(Complaint { at: token.at, text });
                    }
                    sa.replay = self.number("a replay window", 255)? as u8;
                }
                "-f" => self.flag(sa)?,
                "-lh" => sa.hard.addtime = self.number("a lifetime", u64::MAX)?,
                "-ls" => sa.soft.addtime = self.number("a lifetime", u64::MAX)?,
                "-uh" => sa.hard.usetime = self.number("a lifetime", u64::MAX)?,
                "-us" => sa.soft.usetime = self.number("a lifetime", u64::MAX)?,
                "-bh" => sa.hard.bytes = self.number("a number of bytes", u64::MAX)?,
                "-bs" => sa.soft.bytes = self.number("a number of bytes", u64::MAX)?,
                "-ph" => sa.hard.allocations = self.number("a number of packets", u32::MAX.into())? as u32,
                "-ps" => sa.soft.allocations = self.number("a number of packets", u32::MAX.into())? as u32,
                "-proxy" => {
                    let address = self.one_host(super::parse::Flags::default())?;
                    let prefix = self.prefix(width(address))?;
                    sa.proxy = Some((address, prefix));
                }
                "-ctx" => sa.attached.context = Some(self.context()?),
                "-X" => self.xfrm(&mut sa.attached.xfrm, Carrier::Sa)?,
                "-E" => {
                    let (name, algorithm) = self.algorithm("encryption algorithm", names::ENCRYPT)?;
                    sa.encrypt = algorithm.id;
                    match name {
                        "des-deriv" => sa.flags |= DERIVED,
                        "des-32iv" => sa.flags |= IV_4_BYTES,
                        "simple" => self.warn(token.at, "'simple' is an old name of 'null'"),
                        _ => {}
                    }
                    let at = self.peek()?.at;
                    let key = if takes_key(algorithm) { self.key()? } else { Key::default() };
                    if takes_key(algorithm) && !algorithm.keys.contains(key.len() * 8) {
                        return Err(wrong_key(name, algorithm.keys, &key, at));
                    }
                    sa.encrypt_key = Some(key);
                }
                "-A" => {
                    if self.peek()?.is("tcp-md5") {
                        return self.expected("an algorithm that Linux has");
                    }
                    let (name, algorithm) = self.algorithm("authentication algorithm", names::AUTH)?;
                    sa.auth = algorithm.id;
                    if let Some(bits) = names::icv_bits(name) {
                        if sa.attached.xfrm.icv_bits().is_some_and(|said| said != bits) {
                            let text = format!("{name} and -X icv are two lengths");
                            return Err(Complaint { at: token.at, text });
                        }
                        xfrm::set_icv(&mut sa.attached.xfrm, bits);
                    }
                    if takes_key(algorithm) {
                        let at = self.peek()?.at;
                        let key = self.key()?;
                        if !algorithm.keys.contains(key.len() * 8) {
                            // HMAC takes keys of any length (RFC 2104); only the standard's lengths interoperate.
                            if name == "aes-xcbc-mac" {
                                return Err(wrong_key(name, algorithm.keys, &key, at));
                            }
                            self.warnings.push(wrong_key(name, algorithm.keys, &key, at));
                        }
                        sa.auth_key = Some(key);
                    }
                }
                "-C" => {
                    sa.encrypt = self.algorithm("compression algorithm", names::COMPRESS)?.1.id;
                    sa.encrypt_key = None;
                    if protocol.satype != SaType::X_IPCOMP {
                        return Err(Complaint { at: token.at, text: "-C goes with ipcomp only".to_owned() });
                    }
                }
                _ => sa.flags |= RAW_CPI,
            }
        }
    }

    fn flag(&mut self, sa: &mut Sa) -> Result<()> {
        let token = self.peek()?;
        if token.is("nocyclic-seq") {
            sa.flags &= !CYCLIC_SEQ;
        } else if let Some((_, bits)) = FLAGS.iter().find(|(name, _)| token.is(name)) {
            sa.flags |= bits;
        } else {
            return self.unknown("flag", FLAGS.iter().map(|(name, _)| *name).chain(["nocyclic-seq"]));
        }
        self.take()?;
        Ok(())
    }

    fn algorithm(&mut self, what: &str, tables: Tables) -> Result<(&'static str, &'static Algorithm)> {
        let token = self.peek()?;
        match names::find(tables, &token.text()).filter(|_| token.kind == Kind::Word) {
            Some(found) => {
                self.take()?;
                Ok(found)
            }
            None => self.unknown(what, names::all(tables).flat_map(|algorithm| algorithm.names.iter().copied())),
        }
    }

    /// A quoted string, or `0x` and hexadecimal digits; an odd number of digits begins with a zero. Complaints
    /// never show it.
    fn key(&mut self) -> Result<Key> {
        let token = self.peek()?;
        let wrong = |at, text: &str| Err(Complaint { at, text: text.to_owned() });
        let key = match (token.kind, token.bytes) {
            (Kind::Quoted, bytes) => Zeroizing::new(bytes.to_vec()),
            (Kind::Word, [b'0', b'x' | b'X', digits @ ..]) => {
                let mut key = Zeroizing::new(Vec::with_capacity(digits.len().div_ceil(2)));
                let mut high = digits.len() % 2 == 0;
                for (i, digit) in digits.iter().enumerate() {
                    let Some(value) = char::from(*digit).to_digit(16) else {
                        return wrong(token.at + 2 + i, "this is no hexadecimal digit");
                    };
                    match key.last_mut() {
                        Some(last) if !high => *last |= value as u8,
                        _ if high => key.push((value as u8) << 4),
                        // The first of an odd number of digits.
                        _ => key.push(value as u8),
                    }
                    high = !high;
                }
                if digits.is_empty() {
                    return wrong(token.at, "hexadecimal digits expected after 0x");
                }
                key
            }
            _ => return wrong(token.at, "a key expected: \"text\", or 0x and hexadecimal digits"),
        };
        if key.len() > 8191 {
            return wrong(token.at, "a key has at most 8191 bytes");
        }
        self.take()?;
        Ok(key)
    }
}

fn wrong_key(name: &str, keys: Keys, key: &Key, at: usize) -> Complaint {
    let text = format!("{name} takes a key of {keys}; this one has {}", key.len() * 8);
    Complaint { at, text }
}

/// What a whole SA needs.
fn check(sa: &Sa, protocol: &Protocol) -> Result<()> {
    let text = match sa.satype {
        SaType::ESP if sa.encrypt == 0 => "esp needs -E ALGORITHM KEY (or -E null)",
        SaType::AH if sa.auth == 0 => "ah needs -A ALGORITHM KEY",
        SaType::X_IPCOMP if sa.encrypt == 0 => "ipcomp needs -C ALGORITHM",
        _ => return Ok(()),
    };
    Err(Complaint { at: protocol.at, text: text.to_owned() })
}
