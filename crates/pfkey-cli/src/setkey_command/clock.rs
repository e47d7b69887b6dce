//! The process's clock and time zone, and the system's protocol names, for what is printed.

use std::time::{SystemTime, UNIX_EPOCH};

use pfkey_print::{Environment, Short, Utc, protocols};
use tz::TimeZone;

/// Of this process.
pub struct Clock {
    zone: TimeZone,
}

impl Clock {
    /// With the zone that `TZ` names, or else the system's; UTC if there is none.
    pub fn new() -> Self {
        let zone = match std::env::var("TZ") {
            Ok(name) => TimeZone::from_posix_tz(&name),
            Err(_) => TimeZone::local(),
        };
        Self { zone: zone.unwrap_or_else(|_| TimeZone::utc()) }
    }

    /// Since the epoch: seconds, microseconds.
    pub fn time(&self) -> (i64, u32) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_micros())
    }

    /// A time as seconds of the zone.
    pub fn local(&self, time: i64) -> i64 {
        let offset = self.zone.find_local_time_type(time).map_or(0, |kind| kind.ut_offset());
        time.saturating_add(offset.into())
    }
}

impl Environment for Clock {
    fn now(&self) -> i64 {
        self.time().0
    }

    fn local_time(&self, time: i64) -> Option<Short> {
        Utc { now: 0 }.local_time(self.local(time))
    }

    fn protocol_name(&self, protocol: u8) -> Option<Short> {
        protocols::name(protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zones_times() {
        let clock = |zone: &str| Clock { zone: TimeZone::from_posix_tz(zone).unwrap() };
        // Expected: TZ=CET-1CEST,M3.5.0,M10.5.0/3 date -d @N '+%b %e %H:%M:%S %Y'.
        let central = clock("CET-1CEST,M3.5.0,M10.5.0/3");
        assert_eq!(central.local_time(1_700_003_600).unwrap().as_str(), "Nov 15 00:13:20 2023");
        assert_eq!(central.local_time(1_690_000_000).unwrap().as_str(), "Jul 22 06:26:40 2023");
    }
}
