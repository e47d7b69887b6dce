//! Which policy, SAs and MTU a packet gets: XFRM's output route lookup as calculation, without packets.

pub mod explain;
pub mod flow_cache;
pub mod mtu;
pub mod policy_index;
pub mod statistics;
