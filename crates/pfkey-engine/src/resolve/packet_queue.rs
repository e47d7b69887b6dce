//! Packets that wait for an SA: a queue for each policy (`xdst_queue_output`, `xfrm_policy_queue_process`).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::Flow;
use pfkey_hub::Time;

/// Packets that a policy's queue holds: one more than `XFRM_MAX_QUEUE_LEN`, as the kernel compares.
pub const MOST_HELD: usize = 101;
/// `XFRM_QUEUE_TMO_MIN`.
const FIRST_TRY: Duration = Duration::from_millis(100);
/// `XFRM_QUEUE_TMO_MAX`: after a wait at least this long the queue is given up.
const LAST_TRY: Duration = Duration::from_secs(60);

struct Queue<P> {
    packets: VecDeque<(Flow, P)>,
    wait: Duration,
    at: Time,
}

/// The packets of a data plane that wait for SAs. `P` is its type of a packet.
pub struct PacketQueue<P> {
    queues: HashMap<u32, Queue<P>>,
}

impl<P> Default for PacketQueue<P> {
    fn default() -> Self {
        Self { queues: HashMap::new() }
    }
}

impl<P> PacketQueue<P> {
    /// Number of packets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.packets.len()).sum()
    }

    /// Whether no packet waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Keeps a packet whose look-up returned [`super::lookup::Outcome::Queued`] with this policy.
    ///
    /// # Errors
    /// The queue is full; the packet comes back.
    pub fn hold(&mut self, policy: u32, flow: Flow, packet: P, now: Time) -> Result<(), P> {
        let new = || Queue { packets: VecDeque::new(), wait: FIRST_TRY, at: now + FIRST_TRY };
        let queue = self.queues.entry(policy).or_insert_with(new);
        if queue.packets.len() >= MOST_HELD {
            return Err(packet);
        }
        queue.packets.push_back((flow, packet));
        queue.at = queue.at.min(now + queue.wait);
        Ok(())
    }

    /// When [`super::lookup::Resolver::retry`] is to be called.
    #[must_use]
    pub fn next_retry(&self) -> Option<Time> {
        self.queues.values().map(|queue| queue.at).min()
    }

    /// The policies whose packets are to be tried now, each with the flow of its first packet.
    pub(super) fn due(&self, now: Time) -> Vec<(u32, Flow)> {
        let due = self.queues.iter().filter(|(_, queue)| queue.at <= now);
        due.filter_map(|(&policy, queue)| Some((policy, queue.packets.front()?.0))).collect()
    }

    /// There is still no SA: the next try comes after twice the time. After the last try, returns the packets.
    pub(super) fn wait_on(&mut self, policy: u32, now: Time) -> VecDeque<(Flow, P)> {
        match self.queues.get_mut(&policy) {
            Some(queue) if queue.wait < LAST_TRY => {
                queue.wait *= 2;
                queue.at = now + queue.wait;
                VecDeque::new()
            }
            _ => self.take(policy),
        }
    }

    /// Removes a policy's packets and returns them in the order in which they came.
    pub(super) fn take(&mut self, policy: u32) -> VecDeque<(Flow, P)> {
        self.queues.remove(&policy).map_or_else(VecDeque::new, |queue| queue.packets)
    }
}
