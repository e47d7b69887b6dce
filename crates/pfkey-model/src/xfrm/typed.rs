//! XFRM's attributes by name and type: set one after the other, and read back.

use std::net::IpAddr;

use zerocopy::{FromBytes as _, IntoBytes as _};

use super::Xfrm;
use pfkey_wire::PolicyDirection;
use pfkey_wire::address::{from_xfrm, to_xfrm};
use pfkey_wire::layout::U16;
use pfkey_wire::xfrm::words::{OFFLOAD_INBOUND, OFFLOAD_PACKET, Payload};
use pfkey_wire::xfrm::{
    Carrier, FLAG_ESN, Mark, OPTION_PROPOSE, Offload, Refusal, ReplayEsn, SadbXXfrm, Said, Truncation, attribute,
};

/// What does an SA's cryptography (`XFRMA_OFFLOAD_DEV`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffloadDevice {
    /// Number of the network interface.
    pub ifindex: u32,
    /// For inbound packets (`XFRM_OFFLOAD_INBOUND`).
    pub inbound: bool,
    /// It handles whole packets (`XFRM_OFFLOAD_PACKET`), not the cryptography alone.
    pub packet: bool,
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $set:ident, $get:ident = $attribute:ident;)*) => {
        impl Xfrm {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $set(self, value: u32) -> Self {
                    self.with(attribute::$attribute, value.as_bytes())
                }

                #[doc = concat!("What [`Xfrm::", stringify!($set), "`] sets.")]
                #[must_use]
                pub fn $get(&self) -> Option<u32> {
                    self.u32(attribute::$attribute)
                }
            )*
        }
    };
}

numbers! {
    /// `XFRM_SA_XFLAG_*`.
    with_extra_flags, extra_flags = SA_EXTRA_FLAGS;
    /// Bytes to which packets are padded (traffic flow confidentiality).
    with_tfcpad, tfcpad = TFCPAD;
    /// The processor that an SA is for, from 0. Linux 6.13.
    with_pcpu, pcpu = SA_PCPU;
    /// Seconds between two NAT keepalives that the kernel sends. Linux 6.11.
    with_nat_keepalive, nat_keepalive = NAT_KEEPALIVE_INTERVAL;
    /// Seconds at least between two reports that a NAT-T peer has moved. Linux 5.16.
    with_mtimer_thresh, mtimer_thresh = MTIMER_THRESH;
    /// Microseconds that IP-TFS waits for a missing packet. Linux 6.14, as all of IP-TFS.
    with_iptfs_drop_time, iptfs_drop_time = IPTFS_DROP_TIME;
    /// Microseconds that IP-TFS gathers packets before it sends them.
    with_iptfs_init_delay, iptfs_init_delay = IPTFS_INIT_DELAY;
    /// Bytes that can wait in an IP-TFS queue.
    with_iptfs_max_qsize, iptfs_max_qsize = IPTFS_MAX_QSIZE;
    /// Bytes of an outer packet of IP-TFS.
    with_iptfs_pkt_size, iptfs_pkt_size = IPTFS_PKT_SIZE;
}

impl Xfrm {
    /// Any attribute by its number (`XFRMA_*`), in host byte order, one of a kernel newer than this library too. It takes the place of
    /// one with the same number. Whether it can be is looked at by [`Xfrm::check`].
    #[must_use]
    pub fn with(mut self, number: u16, payload: &[u8]) -> Self {
        self.set(number, payload);
        self
    }

    /// The XFRM interface that it belongs to.
    #[must_use]
    pub fn with_if_id(self, if_id: u32) -> Self {
        self.with(attribute::IF_ID, if_id.as_bytes())
    }

    /// The mark of the packets that it is for: those whose mark is `value` in the bits of `mask`. A part of its name.
    #[must_use]
    pub fn with_mark(self, value: u32, mask: u32) -> Self {
        self.with(attribute::MARK, Mark { value, mask }.as_bytes())
    }

    /// The mark that its packets get: `value` in the bits of `mask`.
    #[must_use]
    pub fn with_set_mark(self, value: u32, mask: u32) -> Self {
        self.with(attribute::SET_MARK, value.as_bytes()).with(attribute::SET_MARK_MASK, mask.as_bytes())
    }

    /// What [`Xfrm::with_set_mark`] sets.
    #[must_use]
    pub fn set_mark(&self) -> Option<Mark> {
        let value = self.u32(attribute::SET_MARK)?;
        Some(Mark { value, mask: self.u32(attribute::SET_MARK_MASK).unwrap_or(u32::MAX) })
    }

    /// A replay window of so many packets, 4096 at most, without extended sequence numbers.
    #[must_use]
    pub fn with_window(self, packets: u32) -> Self {
        // One that is too wide is said as it is, so that a check finds it.
        let esn = ReplayEsn::of_window(packets);
        let mut with = match Payload::of_window(packets) {
            Some(payload) => self.with(attribute::REPLAY_ESN_VAL, payload.as_slice()),
            None => self.with(attribute::REPLAY_ESN_VAL, esn.as_bytes()),
        };
        with.set_flags(with.flags() & !FLAG_ESN);
        with
    }

    /// Extended sequence numbers (RFC 4303), and a replay window of so many packets, 4096 at most.
    #[must_use]
    pub fn with_esn(mut self, packets: u32) -> Self {
        self = self.with_window(packets);
        self.set_flags(self.flags() | FLAG_ESN);
        self
    }

    /// Packets of the replay window, if PF_KEY's own does not say it.
    #[must_use]
    pub fn window(&self) -> Option<u32> {
        self.attributes().read::<ReplayEsn>(attribute::REPLAY_ESN_VAL).map(|esn| esn.window.get())
    }

    /// Whether an SA has extended sequence numbers.
    #[must_use]
    pub fn is_esn(&self) -> bool {
        self.flags() & FLAG_ESN != 0
    }

    /// Bits of the integrity value.
    #[must_use]
    pub fn with_icv(self, bits: u32) -> Self {
        let truncation = Truncation { icv_bits: bits.into(), ..Truncation::default() };
        self.with(attribute::ALG_AUTH_TRUNC, truncation.as_bytes())
    }

    /// The network interface that does the cryptography.
    #[must_use]
    pub fn with_offload(self, device: OffloadDevice) -> Self {
        let flags = if device.inbound { OFFLOAD_INBOUND } else { 0 } | if device.packet { OFFLOAD_PACKET } else { 0 };
        let offload = Offload { ifindex: device.ifindex.into(), flags, ..Offload::default() };
        self.with(attribute::OFFLOAD_DEV, offload.as_bytes())
    }

    /// What [`Xfrm::with_offload`] sets.
    #[must_use]
    pub fn offload(&self) -> Option<OffloadDevice> {
        let Offload { ifindex, flags, .. } = self.attributes().read(attribute::OFFLOAD_DEV)?;
        let [inbound, packet] = [OFFLOAD_INBOUND, OFFLOAD_PACKET].map(|flag| flags & flag != 0);
        Some(OffloadDevice { ifindex: ifindex.get(), inbound, packet })
    }

    /// The direction of an SA's packets, in or out. Linux 6.10.
    #[must_use]
    pub fn with_dir(self, dir: PolicyDirection) -> Self {
        // XFRM_SA_DIR_* have the numbers of PF_KEY's directions.
        self.with(attribute::SA_DIR, &[dir.0])
    }

    /// What [`Xfrm::with_dir`] sets.
    #[must_use]
    pub fn dir(&self) -> Option<PolicyDirection> {
        self.attributes().payload(attribute::SA_DIR)?.first().map(|dir| PolicyDirection(*dir))
    }

    /// The care-of address of a mobile node.
    #[must_use]
    pub fn with_coaddr(self, address: IpAddr) -> Self {
        self.with(attribute::COADDR, &to_xfrm(address))
    }

    /// What [`Xfrm::with_coaddr`] sets: netlink does not say of which family, but it is that of the SA's addresses.
    #[must_use]
    pub fn coaddr(&self, family: u16) -> Option<IpAddr> {
        from_xfrm(&self.attributes().read(attribute::COADDR)?, family)
    }

    /// Packets that IP-TFS can put into order.
    #[must_use]
    pub fn with_iptfs_reorder_window(self, packets: u16) -> Self {
        self.with(attribute::IPTFS_REORDER_WINDOW, packets.as_bytes())
    }

    /// What [`Xfrm::with_iptfs_reorder_window`] sets.
    #[must_use]
    pub fn iptfs_reorder_window(&self) -> Option<u16> {
        self.attributes().read::<U16>(attribute::IPTFS_REORDER_WINDOW).map(U16::get)
    }

    /// IP-TFS does not split packets.
    #[must_use]
    pub fn with_iptfs_dont_frag(self) -> Self {
        self.with(attribute::IPTFS_DONT_FRAG, &[])
    }

    /// Whether IP-TFS does not split packets.
    #[must_use]
    pub fn iptfs_dont_frag(&self) -> bool {
        self.attributes().payload(attribute::IPTFS_DONT_FRAG).is_some()
    }

    /// Flags: `XFRM_STATE_*` that `sadb_sa_flags` lacks, or `XFRM_POLICY_*`.
    #[must_use]
    pub fn with_flags(mut self, flags: u8) -> Self {
        self.set_flags(self.flags() | flags);
        self
    }

    /// A policy's ACQUIREs propose algorithms.
    #[must_use]
    pub fn with_proposals(mut self) -> Self {
        self.set_options(self.options() | OPTION_PROPOSE);
        self
    }

    /// When an SA was last used, Unix time in seconds, where the kernel reports it.
    #[must_use]
    pub fn lastused(&self) -> Option<u64> {
        let payload = self.attributes().payload(attribute::LASTUSED)?;
        u64::read_from_bytes(payload).ok()
    }

    /// The same, and the mark and the XFRM interface of another where it has none.
    #[must_use]
    pub fn or_scope(self, other: &Self) -> Self {
        let has = |number| self.attributes().payload(number).is_some();
        let (mark, if_id) = (has(attribute::MARK), has(attribute::IF_ID));
        other.scope().attributes().fold(self, |this, (number, payload)| match number {
            attribute::MARK if mark => this,
            attribute::IF_ID if if_id => this,
            number => this.with(number, payload),
        })
    }

    /// Whether a request can say it: in an SA whose `sadb_sa_replay` is `replay`, in a policy, or in a name.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, carrier: Carrier, replay: u8) -> Result<(), Refusal> {
        let fixed = SadbXXfrm { flags: self.flags(), options: self.options(), ..SadbXXfrm::default() };
        Said { fixed, attributes: self.attributes() }.check(carrier, replay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pfkey_wire::sockaddr::AF_INET6;

    #[test]
    fn what_is_set_is_read() {
        let device = OffloadDevice { ifindex: 7, inbound: true, packet: true };
        let coaddr: IpAddr = "2001:db8::7".parse().unwrap();
        let xfrm = Xfrm::default()
            .with_if_id(42)
            .with_mark(0x10, 0xff)
            .with_set_mark(0x20, 0xf0)
            .with_esn(4096)
            .with_icv(128)
            .with_offload(device)
            .with_dir(PolicyDirection::INBOUND)
            .with_coaddr(coaddr)
            .with_pcpu(3)
            .with_iptfs_reorder_window(5)
            .with_iptfs_dont_frag()
            .with_flags(16);
        assert_eq!((xfrm.if_id(), xfrm.mark()), (42, Mark { value: 0x10, mask: 0xff }));
        assert_eq!(xfrm.set_mark(), Some(Mark { value: 0x20, mask: 0xf0 }));
        assert_eq!((xfrm.window(), xfrm.is_esn(), xfrm.icv_bits()), (Some(4096), true, Some(128)));
        assert_eq!((xfrm.offload(), xfrm.dir()), (Some(device), Some(PolicyDirection::INBOUND)));
        assert_eq!((xfrm.coaddr(AF_INET6), xfrm.pcpu(), xfrm.tfcpad()), (Some(coaddr), Some(3), None));
        assert_eq!((xfrm.iptfs_reorder_window(), xfrm.iptfs_dont_frag(), xfrm.flags()), (Some(5), true, 144));
        assert_eq!(xfrm.check(Carrier::Sa, 0), Ok(()));
        let numbers = Xfrm::default()
            .with_extra_flags(1)
            .with_tfcpad(2)
            .with_nat_keepalive(3)
            .with_mtimer_thresh(4)
            .with_iptfs_drop_time(5)
            .with_iptfs_init_delay(6)
            .with_iptfs_max_qsize(7)
            .with_iptfs_pkt_size(8);
        let read = [
            numbers.extra_flags(),
            numbers.tfcpad(),
            numbers.nat_keepalive(),
            numbers.mtimer_thresh(),
            numbers.iptfs_drop_time(),
            numbers.iptfs_init_delay(),
            numbers.iptfs_max_qsize(),
            numbers.iptfs_pkt_size(),
        ];
        assert_eq!(read, [1, 2, 3, 4, 5, 6, 7, 8].map(Some));
        // Numbers of Linux 7.2's linux/xfrm.h, in the order in which they were set.
        let set: Vec<u16> = numbers.attributes().map(|(number, _)| number).collect();
        assert_eq!(set, [24, 22, 34, 32, 36, 39, 40, 41]);
        assert_eq!(Xfrm::default().with(15, &9_u64.to_ne_bytes()).lastused(), Some(9));
        assert_eq!(xfrm.check(Carrier::Sa, 4), Err(Refusal::PfKeysOwn(attribute::REPLAY_ESN_VAL)));
        assert!(!Xfrm::default().with_esn(64).with_window(64).is_esn());
        let too_wide = Xfrm::default().with_window(4097);
        assert_eq!(too_wide.check(Carrier::Sa, 0), Err(Refusal::Length(attribute::REPLAY_ESN_VAL)));
    }

    #[test]
    fn a_scope_is_taken_where_there_is_none() {
        let other = Xfrm::default().with_mark(1, 1).with_if_id(2).with_pcpu(3);
        let own = Xfrm::default().with_if_id(9).with_tfcpad(8).or_scope(&other);
        assert_eq!((own.if_id(), own.mark(), own.pcpu()), (9, Mark { value: 1, mask: 1 }, None));
        assert_eq!(Xfrm::default().or_scope(&Xfrm::default()), Xfrm::default());
    }
}
