//! Holding signals back for a moment.
//!
//! Creating, attaching and removing a queue change several names in the file system, and hold descriptors: a
//! handler that jumped away, or forked, in the middle would leave them behind. No transaction helps there, and
//! two system calls are nothing beside those that these paths make anyway. So handlers run when the call is
//! over, as they do with the kernel's own queues. Sending and receiving never hold a signal back.
//!
//! Invariants:
//! 1. The mask afterwards is the mask before, whatever happens in between; nothing that can wait for
//!    another process is done meanwhile.
//! 2. Signals that stand for a fault of this very thread are not held back: a sandbox may answer our system
//!    calls by `SIGSYS`, and a blocked `SIGSEGV` would kill where a handler was to run.

use super::raw::call;
use libc::c_int;

/// The kernel's `sigset_t`: one bit a signal. The C library's own hides the two signals that it uses itself.
type Set = u64;

const fn bit(signal: c_int) -> Set {
    1 << (signal - 1)
}

const FAULTS: Set = bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGILL)
    | bit(libc::SIGFPE)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGSYS);

fn set_mask(to: Set) -> Set {
    let mut before: Set = 0;
    let (new, old) = (&raw const to, &raw mut before);
    // SAFETY: both sets are valid places of the size given.
    let _ = unsafe { call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, new, old, size_of::<Set>()) };
    before
}

/// Says that signals are held back, to who would have to do it else. Puts the mask back at the end of its scope.
pub struct HeldBack(Set);

impl Drop for HeldBack {
    fn drop(&mut self) {
        set_mask(self.0);
    }
}

/// Runs `f` with every signal held back that could run a handler in the middle.
pub fn held_back<R>(f: impl FnOnce() -> R) -> R {
    held_back_for(|_| f())
}

/// The same, for what asks to be shown that it is so.
pub fn held_back_for<R>(f: impl FnOnce(&HeldBack) -> R) -> R {
    let held = HeldBack(set_mask(!FAULTS));
    f(&held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering};

    static RAN: AtomicU32 = AtomicU32::new(0);

    extern "C" fn handler(_: c_int) {
        RAN.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn a_handler_runs_afterwards_and_the_mask_is_as_before() {
        crate::testing::in_child(|| {
            // SAFETY: in a process of our own.
            unsafe { libc::signal(libc::SIGUSR1, handler as *const () as libc::sighandler_t) };
            let before = set_mask(bit(libc::SIGUSR2));
            let inside = held_back(|| {
                held_back(|| ());
                // SAFETY: as above.
                unsafe { libc::raise(libc::SIGUSR1) };
                RAN.load(Ordering::Relaxed)
            });
            let after = set_mask(before);
            inside == 0 && RAN.load(Ordering::Relaxed) == 1 && after == bit(libc::SIGUSR2)
        });
    }
}
