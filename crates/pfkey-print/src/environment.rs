//! What the printers need from the process around them.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Short;

/// The clock, the time zone and the protocol names. The C ABI answers with `time`, `localtime_r` and `/etc/protocols`.
pub trait Environment {
    /// Seconds since the epoch.
    fn now(&self) -> i64;

    /// A time in the local zone, as the 20 characters of `ctime` from the month on: `Nov 14 22:13:20 2023`.
    /// Longer text is cut. `None` if the time cannot be expressed.
    fn local_time(&self, time: i64) -> Option<Short>;

    /// The name of an IP protocol.
    fn protocol_name(&self, protocol: u8) -> Option<Short>;
}

/// An [`Environment`] without the C library: UTC, and the protocol names that policies name most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    /// Seconds since the epoch.
    pub now: i64,
}

impl Utc {
    /// With the system's clock as it is now.
    #[must_use]
    pub fn from_system_clock() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { now: i64::try_from(since.as_secs()).unwrap_or(i64::MAX) }
    }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Year, month from 0, and day from 1 of a day since 1970-01-01, in the proleptic Gregorian calendar: counted in
/// years from March, so that the leap day is the last, and in cycles of 400 years.
fn civil(day: i64) -> (i64, usize, i64) {
    let day = day.saturating_add(719_468);
    let (cycle, of_cycle) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = (from_march + 2) % 12;
    let year = cycle * 400 + year + i64::from(month < 2);
    (year, month as usize, of_year - (153 * from_march + 2) / 5 + 1)
}

impl Environment for Utc {
    fn now(&self) -> i64 {
        self.now
    }

    fn local_time(&self, time: i64) -> Option<Short> {
        let (year, month, day) = civil(time.div_euclid(86_400));
        // ctime's limit: the year less 1900 is an int.
        i32::try_from(year - 1900).ok()?;
        let second = time.rem_euclid(86_400);
        let (hour, minute) = (second / 3600, second / 60 % 60);
        let mut text = Short::default();
        let _ = write!(text, "{} {day:2} {hour:02}:{minute:02}:{:02} {year}", MONTHS.get(month)?, second % 60);
        Some(text)
    }

    fn protocol_name(&self, protocol: u8) -> Option<Short> {
        let name = match protocol {
            0 => "ip",
            1 => "icmp",
            2 => "igmp",
            4 => "ipencap",
            6 => "tcp",
            17 => "udp",
            41 => "ipv6",
            47 => "gre",
            50 => "esp",
            51 => "ah",
            58 => "ipv6-icmp",
            89 => "ospf",
            103 => "pim",
            108 => "ipcomp",
            112 => "vrrp",
            115 => "l2tp",
            132 => "sctp",
            135 => "mobility-header",
            136 => "udplite",
            _ => return None,
        };
        Some(Short::lossy(name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_utc() {
        // Expected: date -u -d @N '+%b %e %H:%M:%S %Y'.
        for (time, text) in [
            (0, "Jan  1 00:00:00 1970"),
            (1_700_003_600, "Nov 14 23:13:20 2023"),
            (951_782_400, "Feb 29 00:00:00 2000"),
            (4_107_542_399, "Feb 28 23:59:59 2100"),
            (4_107_542_400, "Mar  1 00:00:00 2100"),
            (-1, "Dec 31 23:59:59 1969"),
            (-2_203_891_201, "Feb 28 23:59:59 1900"),
        ] {
            assert_eq!(Utc { now: 0 }.local_time(time).unwrap().as_str(), text);
        }
        assert_eq!(Utc { now: 0 }.local_time(i64::MAX), None);
        assert_eq!(Utc { now: 0 }.local_time(i64::MIN), None);
    }
}
