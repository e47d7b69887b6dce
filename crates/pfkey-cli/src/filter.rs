//! Which SAs and policies are meant: `--src`, `--spi`, … of dump, spd, monitor, flush and delete.

use std::net::SocketAddr;

use pfkey_wire::Prefix;
use pfkey_wire::xfrm::Mark;

use crate::failure::Failure;
use crate::model::policy::PolicyEntry;
use crate::model::sa::SaEntry;
use crate::model::{names, xfrm};

/// Every option that is given has to fit.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Filters: only SAs and policies that match all of them")]
pub struct Filter {
    /// From this address, or from one of this prefix
    #[arg(long, value_name = "ADDRESS[/N]")]
    pub src: Option<Prefix>,
    /// To this address, or to one of this prefix
    #[arg(long, value_name = "ADDRESS[/N]")]
    pub dst: Option<Prefix>,
    /// With this SPI (SAs only)
    #[arg(long, value_name = "N", value_parser = number)]
    pub spi: Option<u32>,
    /// With this request id; a policy that asks for it
    #[arg(long, value_name = "N", value_parser = number)]
    pub reqid: Option<u32>,
    /// In this mode; a policy that asks for it: transport, tunnel, beet
    #[arg(long, value_parser = mode)]
    pub mode: Option<u8>,
    /// In this state (SAs only): larval, mature, dying, dead
    #[arg(long, value_parser = state)]
    pub state: Option<u8>,
    /// With this algorithm (SAs only)
    #[arg(long, value_name = "NAME", value_parser = algorithm)]
    pub alg: Option<String>,
    /// Of this XFRM interface
    #[arg(long, value_name = "N", value_parser = number)]
    pub if_id: Option<u32>,
    /// With this mark
    #[arg(long, value_name = "VALUE[/MASK]", value_parser = mark)]
    pub mark: Option<(u32, Option<u32>)>,
    /// At least this old, or with - before it at most this old: seconds, or a number and s, m, h or d
    #[arg(long, allow_hyphen_values = true, value_parser = age)]
    pub age: Option<Age>,
}

/// How old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// So many seconds, or more.
    AtLeast(u64),
    /// So many, or fewer.
    AtMost(u64),
}

fn number(text: &str) -> Result<u32, String> {
    xfrm::parse_u32(text).ok_or_else(|| "expected a number of 32 bits".to_owned())
}

/// The number of one of some names.
fn one_of(text: &str, all: [&'static str; 4]) -> Result<u8, String> {
    let place = (0_u8..).zip(all).find(|(_, name)| *name == text).map(|(number, _)| number);
    place.ok_or_else(|| {
        let near = names::nearest(text, all).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        format!("expected one of {}{near}", all.join(", "))
    })
}

fn mode(text: &str) -> Result<u8, String> {
    one_of(text, ["any", "transport", "tunnel", "beet"])
}

fn state(text: &str) -> Result<u8, String> {
    one_of(text, ["larval", "mature", "dying", "dead"])
}

/// The name that is shown, of any name of the algorithm.
fn algorithm(text: &str) -> Result<String, String> {
    let tables = [names::ENCRYPT, names::AUTH, names::COMPRESS];
    let found = tables.iter().find_map(|tables| names::find(tables, text)).and_then(|(_, found)| found.names.first());
    found.map(|name| (*name).to_owned()).ok_or_else(|| {
        let all =
            tables.iter().flat_map(|tables| names::all(tables)).flat_map(|algorithm| algorithm.names.iter().copied());
        let near = names::nearest(text, all).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        format!("unknown algorithm{near}")
    })
}

fn mark(text: &str) -> Result<(u32, Option<u32>), String> {
    let (value, mask) = text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
    Ok((number(value)?, mask.map(number).transpose()?))
}

fn age(text: &str) -> Result<Age, String> {
    let (is_most, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let unit = units.iter().find_map(|(unit, seconds)| Some((rest.strip_suffix(*unit)?, *seconds)));
    let (digits, unit) = unit.unwrap_or((rest, 1));
    let seconds = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    let seconds = seconds.ok_or_else(|| "expected seconds, or a number and s, m, h or d".to_owned())?;
    Ok(if is_most { Age::AtMost(seconds) } else { Age::AtLeast(seconds) })
}

impl Filter {
    /// Whether anything at all is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what policies do not have.
    pub fn check_for_policies(&self) -> Result<(), Failure> {
        let has = [("--spi", self.spi.is_some()), ("--state", self.state.is_some()), ("--alg", self.alg.is_some())];
        match has.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Failure::Usage(format!("{name}: policies have none"))),
            None => Ok(()),
        }
    }

    /// Whether an SA is meant, at a Unix time.
    pub fn takes_sa(&self, entry: &SaEntry, now: u64) -> bool {
        let sa = &entry.sa;
        let algorithms = || {
            let encrypt = if sa.satype == pfkey_wire::SaType::X_IPCOMP { names::COMPRESS } else { names::ENCRYPT };
            let auth = (sa.auth != 0).then(|| names::shown(names::AUTH, sa.auth));
            (sa.encrypt != 0).then(|| names::shown(encrypt, sa.encrypt)).into_iter().chain(auth)
        };
        within(self.src, sa.src, None)
            && within(self.dst, sa.dst, None)
            && self.spi.is_none_or(|spi| spi == sa.spi)
            && self.reqid.is_none_or(|reqid| reqid == sa.reqid)
            && self.mode.is_none_or(|mode| mode == sa.mode)
            && self.state.is_none_or(|state| state == entry.state)
            && self.alg.as_ref().is_none_or(|name| algorithms().any(|one| one == *name))
            && self.takes_scope(&sa.attached.xfrm)
            && self.takes_age(entry.current.addtime, now)
    }

    /// Whether a policy is meant.
    pub fn takes_policy(&self, entry: &PolicyEntry, now: u64) -> bool {
        let policy = &entry.policy;
        let requests = &policy.spec.requests;
        within(self.src, policy.src, Some(policy.src_prefix))
            && within(self.dst, policy.dst, Some(policy.dst_prefix))
            && self.reqid.is_none_or(|reqid| requests.iter().any(|request| request.reqid == reqid))
            && self.mode.is_none_or(|mode| requests.iter().any(|request| request.mode.0 == mode))
            && (self.spi, self.state, &self.alg) == (None, None, &None)
            && self.takes_scope(&policy.attached.xfrm)
            && self.takes_age(entry.times.0, now)
    }

    fn takes_scope(&self, xfrm: &pfkey_model::xfrm::Xfrm) -> bool {
        let of_mark = |(value, mask): (u32, Option<u32>)| {
            let Mark { value: its, mask: its_mask } = xfrm.mark();
            its_mask != 0 && its == value && mask.is_none_or(|mask| mask == its_mask)
        };
        self.if_id.is_none_or(|if_id| if_id == xfrm.if_id()) && self.mark.is_none_or(of_mark)
    }

    /// What does not say when it was made is of no age.
    fn takes_age(&self, made: u64, now: u64) -> bool {
        let old = now.saturating_sub(made);
        self.age.is_none_or(|age| match age {
            _ if made == 0 => false,
            Age::AtLeast(seconds) => old >= seconds,
            Age::AtMost(seconds) => old <= seconds,
        })
    }
}

/// Whether an address, or a prefix of this length, is within another; without one everything is.
fn within(wanted: Option<Prefix>, address: SocketAddr, len: Option<u8>) -> bool {
    wanted.is_none_or(|wanted| {
        wanted.address.is_ipv4() == address.is_ipv4()
            && wanted.covers(address.ip())
            && len.is_none_or(|len| len >= wanted.len)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sa::Sa;
    use pfkey_wire::SaType;

    fn entry() -> SaEntry {
        let mut sa = Sa::new(SaType::ESP, "192.0.2.1:4500".parse().unwrap(), "198.51.100.2:0".parse().unwrap(), 0x1001);
        (sa.mode, sa.reqid, sa.encrypt, sa.auth) = (2, 7, 12, 3);
        sa.attached.xfrm = pfkey_model::xfrm::Xfrm::of_scope(Mark { value: 1, mask: 0xff }, 9);
        let current = crate::model::sa::Lifetime { addtime: 1000, ..Default::default() };
        SaEntry { sa, state: 1, current, report: Default::default() }
    }

    fn parsed(words: &[&str]) -> Result<Filter, String> {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            filter: Filter,
        }
        let words = std::iter::once("x").chain(words.iter().copied());
        <Cli as clap::Parser>::try_parse_from(words).map(|cli| cli.filter).map_err(|error| error.to_string())
    }

    #[test]
    fn every_field() {
        for (words, fits) in [
            (&[][..], true),
            (&["--src", "192.0.2.1"], true),
            (&["--src", "192.0.2.0/24", "--dst", "198.51.0.0/16"], true),
            (&["--src", "192.0.3.0/24"], false),
            (&["--src", "::/0"], false),
            (&["--spi", "0x1001"], true),
            (&["--spi", "4098"], false),
            (&["--reqid", "7", "--mode", "tunnel", "--state", "mature"], true),
            (&["--mode", "transport"], false),
            (&["--state", "dying"], false),
            (&["--alg", "aes-cbc"], true),
            (&["--alg", "hmac(sha1)"], true),
            (&["--alg", "null"], false),
            (&["--if-id", "9", "--mark", "1"], true),
            (&["--mark", "1/0xff"], true),
            (&["--mark", "1/0xffff"], false),
            (&["--if-id", "0"], false),
            (&["--age", "100"], true),
            (&["--age", "2m"], false),
            (&["--age", "-2m"], true),
            (&["--age", "-99"], false),
        ] {
            assert_eq!(parsed(words).unwrap().takes_sa(&entry(), 1100), fits, "{words:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (words, complaint) in [
            (&["--alg", "aes-cbx"][..], "did you mean \"aes-cbc\"?"),
            (&["--state", "matur"], "did you mean \"mature\"?"),
            (&["--src", "10.0.0.0/33"], "expected ADDRESS or ADDRESS/BITS"),
            (&["--spi", "x"], "expected a number of 32 bits"),
            (&["--age", "1y"], "expected seconds"),
            (&["--mark", "1/x"], "expected a number of 32 bits"),
        ] {
            let error = parsed(words).unwrap_err();
            assert!(error.contains(complaint), "{words:?}: {error}");
        }
    }
}
