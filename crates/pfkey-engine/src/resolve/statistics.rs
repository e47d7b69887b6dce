//! The counters of `/proc/net/xfrm_stat`, in its order and format.

use std::fmt;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A counter of `/proc/net/xfrm_stat` without its prefix `Xfrm`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $($(#[$doc])* $name),* }

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

counters! {
    /// Any other inbound error.
    InError,
    /// No buffer.
    InBufferError,
    /// Header error.
    InHdrError,
    /// No SA for an inbound packet.
    InNoStates,
    /// Transform failed.
    InStateProtoError,
    /// Mode failed.
    InStateModeError,
    /// Replayed or out of window.
    InStateSeqError,
    /// SA expired.
    InStateExpired,
    /// Encapsulation does not fit the SA.
    InStateMismatch,
    /// SA is not valid.
    InStateInvalid,
    /// SAs do not fit the policy's requests.
    InTmplMismatch,
    /// No policy for the SAs.
    InNoPols,
    /// Policy says discard.
    InPolBlock,
    /// Policy error.
    InPolError,
    /// Any other outbound error.
    OutError,
    /// The bundle could not be made.
    OutBundleGenError,
    /// The bundle could not be checked.
    OutBundleCheckError,
    /// No SA for an outbound packet.
    OutNoStates,
    /// Transform failed.
    OutStateProtoError,
    /// Mode failed.
    OutStateModeError,
    /// Sequence number exhausted.
    OutStateSeqError,
    /// SA expired.
    OutStateExpired,
    /// Policy says discard.
    OutPolBlock,
    /// Policy died.
    OutPolDead,
    /// Policy error.
    OutPolError,
    /// Forwarding header error.
    FwdHdrError,
    /// SA is not valid.
    OutStateInvalid,
    /// An acquire ended in error.
    AcquireError,
    /// SA is for the other direction.
    OutStateDirError,
    /// SA is for the other direction.
    InStateDirError,
    /// IP-TFS error.
    InIptfsError,
    /// Queue is full.
    OutNoQueueSpace,
}

/// All counters. `Display` prints them as `/proc/net/xfrm_stat` does.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Statistics {
    values: [u64; 32],
}

impl Statistics {
    /// Adds one.
    pub fn count(&mut self, counter: Counter) {
        self.values[counter as usize] = self.values[counter as usize].wrapping_add(1);
    }

    /// The value of a counter.
    #[must_use]
    pub const fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in NAMES.iter().zip(self.values) {
            writeln!(f, "Xfrm{name:<20}\t{value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_kernels() {
        let mut statistics = Statistics::default();
        statistics.count(Counter::OutPolBlock);
        let text = statistics.to_string();
        assert_eq!(text.lines().count(), 32);
        assert_eq!(text.lines().next(), Some("XfrmInError             \t0"));
        assert!(text.contains("XfrmOutPolBlock         \t1\n"));
        assert_eq!(NAMES.last(), Some(&"OutNoQueueSpace"));
    }
}
