//! The end of SAs: by time (`xfrm_timer_handler`) and by volume (`xfrm_state_check_expire`).

use super::Engine;
use super::dialect::Dialect;
use super::message::Part;
use super::sa::{Sa, State};
use pfkey_hub::Context;
use pfkey_wire::{Header, MessageType};

/// The most timers that run at a time. A million SAs may end in the same second, and requests must not wait for all of them.
/// The engine's deadline stays in the past until all have run.
const TIMERS: usize = 256;

impl Engine {
    /// Runs timers that are due, [`TIMERS`] at most.
    pub(super) fn run_timers(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.as_secs();
        for _ in 0..TIMERS {
            let Some(index) = self.sadb.pop_timer(now) else { return };
            self.check_time(index, cx);
        }
    }

    fn check_time(&mut self, index: u32, cx: &mut Context<'_>) {
        let now = cx.now.as_secs();
        let Some(sa) = self.sadb.get(index) else { return };
        if sa.usage.is_over(&sa.hard, now) {
            return self.expire_hard(index, cx);
        }
        if sa.state != State::Dying && sa.usage.is_over(&sa.soft, now) {
            self.expire_soft(index, cx);
        }
        self.sadb.rearm(index, now);
    }

    /// Checks the limits of bytes and packets, before a packet is counted.
    pub(super) fn check_volume(&mut self, index: u32, cx: &mut Context<'_>) -> bool {
        let Some(sa) = self.sadb.get(index) else { return false };
        let over = |used: u64, limit: u64| limit != 0 && used >= limit;
        if over(sa.usage.bytes, sa.hard.bytes) || over(sa.usage.packets, sa.hard.packets) {
            self.expire_hard(index, cx);
            return false;
        }
        if sa.state != State::Dying && (over(sa.usage.bytes, sa.soft.bytes) || over(sa.usage.packets, sa.soft.packets))
        {
            self.expire_soft(index, cx);
        }
        true
    }

    /// EXPIRE, soft: once, until an UPDATE.
    fn expire_soft(&mut self, index: u32, cx: &mut Context<'_>) {
        self.sadb.edit(index, cx.now.as_secs(), |sa| sa.state = State::Dying);
        if let Some(sa) = self.sadb.get(index) {
            expire_message(self.dialect, sa, false, cx);
        }
    }

    /// EXPIRE, hard: removes the SA. There is no DELETE message.
    fn expire_hard(&mut self, index: u32, cx: &mut Context<'_>) {
        let dialect = self.dialect;
        self.sadb.remove_with(index, |sa| {
            sa.state = State::Dead;
            expire_message(dialect, sa, true, cx);
        });
    }
}

fn expire_message(dialect: &Dialect, sa: &Sa, hard: bool, cx: &mut Context<'_>) {
    let header = Header::new(MessageType::EXPIRE, sa.satype(), 0, 0);
    // A message that cannot be built is lost, as in the kernel.
    let audience = (dialect.sessions.listeners)(MessageType::EXPIRE, sa.satype());
    let _ = cx.send(audience, header, |writer| (dialect.write_sa)(writer, sa, Part::expired(hard)));
}
