//! Sleeping on a word of shared memory, and waking who sleeps there.
//!
//! Never `FUTEX_PRIVATE_FLAG`: the words are shared between processes. Never without a time-out: a
//! wait with one, however long, returns `EINTR` even for `SA_RESTART` handlers, sleeps on across
//! `SIGSTOP`/`SIGCONT`, and bounds what a waker that died before its wake can cost.

use super::clock;
use super::errno::Errno;
use super::raw::call;
use core::sync::atomic::AtomicU32;
use libc::{FUTEX_WAIT_BITSET, FUTEX_WAKE, c_int, c_long, timespec};

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// Somebody woke us; look at the word.
    Woken,
    /// We were not asleep: the word no longer held the expected value.
    Look,
    /// The time was up.
    TimedOut,
    /// A signal handler ran in this thread.
    Interrupted,
    /// There is no such word any more: the file behind it was cut.
    Gone,
}

/// Where, and for how long, to sleep: what the system call is asked.
#[derive(Clone, Copy, Debug)]
pub struct Bed {
    /// The word to sleep on.
    pub word: &'static AtomicU32,
    /// What it must hold: else there is nothing to wait for.
    pub expected: u32,
    /// Until when.
    pub deadline: timespec,
}

impl Bed {
    /// To sleep while `word` holds `expected`, for at most `milliseconds`.
    pub fn new(word: &'static AtomicU32, expected: u32, milliseconds: u32) -> Bed {
        Bed { word, expected, deadline: clock::deadline(milliseconds) }
    }

    /// Sleeps.
    pub fn sleep(&self) -> Woken {
        Woken::new(self.sleep_raw())
    }

    /// Sleeps, and returns the system call's result.
    pub fn sleep_raw(&self) -> Result<c_long, Errno> {
        let deadline = &raw const self.deadline;
        // SAFETY: the word is mapped and aligned; the kernel compares it with the expected value atomically, and
        // reads the deadline only during the call.
        unsafe { call!(libc::SYS_futex, self.word.as_ptr(), OPERATION, self.expected, deadline, 0, u32::MAX) }
    }
}

/// The operation that sleeps: `futex(word, OPERATION, expected, deadline, 0, u32::MAX)`.
pub const OPERATION: c_int = FUTEX_WAIT_BITSET;

impl Woken {
    /// What the system call's result means.
    pub fn new(result: Result<c_long, Errno>) -> Woken {
        match result {
            Err(Errno::EINTR) => Woken::Interrupted,
            Err(Errno(libc::ETIMEDOUT)) => Woken::TimedOut,
            Err(Errno::EFAULT) => Woken::Gone,
            Ok(_) => Woken::Woken,
            _ => Woken::Look,
        }
    }
}

/// Wakes at most one thread that sleeps on `word`; tells whether one was asleep there.
pub fn wake_one(word: &AtomicU32) -> bool {
    // SAFETY: FUTEX_WAKE does not touch the word; it only names it.
    let woken = unsafe { call!(libc::SYS_futex, word.as_ptr(), FUTEX_WAKE, 1) };
    matches!(woken, Ok(n) if n > 0)
}
