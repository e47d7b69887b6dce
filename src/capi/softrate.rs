//! How soft lifetimes follow from hard ones, for the whole process.

use std::sync::atomic::{AtomicU32, Ordering};

use super::guard::{guard, keep_code};
use crate::error::Code;

/// `PFKEY_SOFT_LIFETIME_RATE`, in per cent.
const DEFAULT: u32 = 80;

static RATES: [AtomicU32; 4] =
    [AtomicU32::new(DEFAULT), AtomicU32::new(DEFAULT), AtomicU32::new(DEFAULT), AtomicU32::new(DEFAULT)];

/// The rates of allocations, bytes, addtime and usetime in per cent.
pub(super) fn rates() -> [u32; 4] {
    std::array::from_fn(|i| RATES[i].load(Ordering::Relaxed))
}

/// Sets the share of a hard lifetime at which the soft one lies, in per cent, for every later ADD and UPDATE of
/// the process. `type`: 0 allocations, 1 bytes, 2 addtime, 3 usetime. A rate of 0 or above 100 counts as 100.
///
/// Returns 0; 1 with code 2 for another type.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_set_softrate(r#type: u32, rate: u32) -> u32 {
    let done = guard(|| {
        let cell = RATES.get(r#type as usize).ok_or(Code::InvalidArgument)?;
        cell.store(if rate == 0 || rate > 100 { 100 } else { rate }, Ordering::Relaxed);
        Ok(0_u32)
    });
    u32::from(done != 0)
}

/// The share in per cent that `pfkey_set_softrate` set, 80 at first; 0xffffffff for another type.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pfkey_get_softrate(r#type: u32) -> u32 {
    keep_code(|| Ok(RATES.get(r#type as usize).map_or(u32::MAX, |cell| cell.load(Ordering::Relaxed))))
}
