//! Clocks: seconds for the queue's time stamps, a monotonic clock for bounded waits.
//!
//! Both are answered by the vDSO on the platforms that have one: no system call.

use libc::{clockid_t, timespec};

fn now(clock: clockid_t) -> timespec {
    let mut at = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `at` is a valid place for the result; the clocks asked for always exist on Linux, and a
    // refusal (a sandbox) leaves zero, which only makes a time stamp wrong.
    unsafe { libc::clock_gettime(clock, &mut at) };
    at
}

/// Whole seconds since the epoch, as the kernel stamps `msg_stime`, `msg_rtime` and `msg_ctime`.
///
/// time(2) is the number that the kernel's own `ktime_get_real_seconds` reads, and costs a fifth of
/// clock_gettime(2).
#[inline]
pub fn seconds() -> u64 {
    if cfg!(target_pointer_width = "64") {
        // SAFETY: with no place to put it the time is only returned.
        return unsafe { libc::time(core::ptr::null_mut()) } as u64;
    }
    // There time(2) may end in 2038.
    now(libc::CLOCK_REALTIME_COARSE).tv_sec as u64
}

/// Nanoseconds on the monotonic clock.
pub fn nanoseconds() -> u64 {
    let at = now(libc::CLOCK_MONOTONIC);
    (at.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(at.tv_nsec as u64)
}

/// A point on the monotonic clock, `milliseconds` from now.
#[allow(clippy::useless_conversion, reason = "elsewhere a long has 32 bits")]
pub fn deadline(milliseconds: u32) -> timespec {
    let mut at = now(libc::CLOCK_MONOTONIC);
    let nanoseconds = i64::from(at.tv_nsec) + i64::from(milliseconds % 1000) * 1_000_000;
    at.tv_sec += (i64::from(milliseconds / 1000) + nanoseconds / 1_000_000_000) as libc::time_t;
    at.tv_nsec = (nanoseconds % 1_000_000_000) as libc::c_long;
    at
}
