//! Policy priorities: 32-bit numbers of which the smaller is the stronger, written as distances from three
//! bases. The arithmetic wraps as libipsec's does.

use core::fmt::Write;

/// `low`.
pub const LOW: u32 = 0xc000_0000;
/// `def`, which is also what a policy without a priority gets.
pub const DEFAULT: u32 = 0x8000_0000;
/// `high`.
pub const HIGH: u32 = 0x4000_0000;

/// The farthest that a priority may stand above `def`, and below it.
const OFFSET_MAX: (u64, u64) = (0x8000_0000, 0x7fff_ffff);
/// The farthest that a priority may stand above a base that is named, and below it.
const BASE_OFFSET_MAX: (u64, u64) = (0x4000_0000, 0x3fff_ffff);

/// The number of decimal digits, at most `i64::MAX` (`atol` on a 64-bit machine).
pub(super) fn saturating_number(digits: &[u8]) -> u64 {
    const MAX: u64 = i64::MAX as u64;
    digits.iter().fold(0, |n: u64, b| n.saturating_mul(10).saturating_add(u64::from(b.saturating_sub(b'0'))).min(MAX))
}

/// `base` made stronger or weaker by `offset`; `None` out of range. `named` says whether the text names the
/// base, which narrows the range.
pub(super) fn shifted(base: u32, named: bool, stronger: bool, offset: u64) -> Option<u32> {
    let (max_up, max_down) = if named { BASE_OFFSET_MAX } else { OFFSET_MAX };
    if offset > if stronger { max_up } else { max_down } {
        return None;
    }
    let offset = u32::try_from(offset).ok()?;
    Some(if stronger { base.wrapping_sub(offset) } else { base.wrapping_add(offset) })
}

/// Writes ` prio BASE[ + N| - N]` relative to the nearest base; nothing for 0.
pub(super) fn write(out: &mut impl Write, priority: u32) {
    let (base, name) = match priority {
        0 => return,
        1..0x6000_0000 => (HIGH, "high"),
        0x6000_0000..0xa000_0000 => (DEFAULT, "def"),
        _ => (LOW, "low"),
    };
    let _ = write!(out, " prio {name}");
    let _ = match priority.abs_diff(base) {
        0 => Ok(()),
        n if priority < base => write!(out, " + {n}"),
        n => write!(out, " - {n}"),
    };
}
