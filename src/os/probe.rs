//! Asking the kernel whether an address can be read or written, without a signal handler.
//!
//! The C edge (`abi::user`) decides when to ask; this file knows how. Each question has two
//! methods, tried in this order; one that turns out to be refused or to give no real answer (a
//! sandbox, an emulator) is given up for good and the next is used:
//!
//! | question | first method | second method |
//! |---|---|---|
//! | readable | `rt_sigprocmask` with an invalid `how`: the kernel reads the 8-byte set, then says `EFAULT` or `EINVAL` | `process_vm_writev` on ourselves, one byte from there |
//! | writable | `FUTEX_WAKE_OP` that adds 0 to the word there | `process_vm_readv` on ourselves, one byte to there |
//!
//! The first methods come first because they cost 140 and 390 ns where `process_vm_*` costs 1300,
//! and because no sandbox refuses them: a filter that bans System V IPC commonly bans `process_vm_*`
//! in the same breath (systemd's `@ipc` set holds both), and may kill the process for trying.
//! In all four the address in question is the side that the kernel reaches with its ordinary
//! user-copy functions, as it does in the real `msgsnd` and `msgrcv`; so device mappings, pages not
//! yet touched and pages that user-mode page faults fill get the true answer.
//!
//! Valgrind's Memcheck checks the parameters of these calls as of any other, and so reports the trial
//! of a bad address (invariant 3) and questions about memory that a program has not initialised.
//!
//! Invariants:
//! 1. No question changes a byte, except that the second method for writing may overwrite the one
//!    byte asked about, which its caller was about to overwrite anyway.
//! 2. `errno` stays as it was; nothing blocks, allocates or locks.
//! 3. A method is used only after it has told a bad address from a good one, so a kernel or emulator
//!    that answers without looking is not believed.
//! 4. With no method left every address counts as good: then a bad pointer crashes as it would in
//!    any C library function.

use super::errno::Errno;
use super::raw::call;
use core::ptr;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use libc::{c_int, c_long, iovec};

/// `Some` is the kernel's answer for the address; `None` says that this method does not work here.
type Method = fn(usize) -> Option<bool>;

/// One question: which of its methods is in use.
struct Question {
    /// 0: none tried yet; n: method n is in use; above the number of methods: none works.
    ///
    /// Relaxed everywhere: the number refers to nothing but itself, and threads that disagree for a
    /// moment both use a method that was found to work.
    chosen: AtomicU8,
    methods: [Method; 2],
}

static READ: Question = Question { chosen: AtomicU8::new(0), methods: [mask_read, vm_read] };
static WRITE: Question = Question { chosen: AtomicU8::new(0), methods: [futex_add, vm_write] };

/// A good address for trying a method out; also the futex word on which nobody ever sleeps.
/// Relaxed, where it is accessed at all: nobody reads a meaning into it.
static OURS: AtomicU64 = AtomicU64::new(0);

/// A bad address: the last page but one of the address space, the kernel's wherever Linux runs.
const BAD: usize = usize::MAX - 0x1fff;

impl Question {
    fn ask(&self, address: usize) -> bool {
        let mut chosen = self.chosen.load(Ordering::Relaxed);
        if chosen == 0 {
            chosen = self.choose(0);
        }
        // Ends: every turn either returns or moves on to a later method.
        while let Some(method) = self.method(chosen) {
            if let Some(answer) = method(address) {
                return answer;
            }
            // It worked when it was chosen; the process has entered a sandbox since.
            chosen = self.choose(chosen);
        }
        true
    }

    fn method(&self, chosen: u8) -> Option<Method> {
        self.methods.get(usize::from(chosen).wrapping_sub(1)).copied()
    }

    /// Chooses the first method after number `given_up` that passes its trial, and remembers it.
    fn choose(&self, given_up: u8) -> u8 {
        let mut number = given_up.saturating_add(1);
        while let Some(method) = self.method(number) {
            if method(BAD) == Some(false) && method(OURS.as_ptr().addr()) == Some(true) {
                break;
            }
            number = number.saturating_add(1);
        }
        self.chosen.store(number, Ordering::Relaxed);
        number
    }
}

/// Tells whether the page at `address` can be read now.
#[cold]
pub fn readable(address: usize) -> bool {
    #[cfg(test)]
    count();
    READ.ask(address)
}

/// Tells whether the page at `address` can be written now.
///
/// # Safety
/// If the byte at `address` exists, the caller must be about to overwrite it: see invariant 1.
#[cold]
pub unsafe fn writable(address: usize) -> bool {
    #[cfg(test)]
    count();
    WRITE.ask(address)
}

fn answer(result: Result<c_long, Errno>) -> Option<bool> {
    match result {
        Ok(_) => Some(true),
        Err(Errno::EFAULT) => Some(false),
        Err(_) => None,
    }
}

/// `rt_sigprocmask(how = nonsense, set = address)`: `copy_from_user` of the set comes first, then the
/// look at `how`.
fn mask_read(address: usize) -> Option<bool> {
    const NONSENSE: c_int = 0x7fff;
    const SIZE_OF_KERNEL_SET: usize = 8;
    // Eight bytes from here lie in the same page.
    let address = address & !7;
    // SAFETY: `how` is invalid, so the mask stays as it is; the kernel only reads at `address`, and answers
    // EFAULT if it cannot.
    match unsafe { call!(libc::SYS_rt_sigprocmask, NONSENSE, address, 0, SIZE_OF_KERNEL_SET) } {
        Err(Errno::EINVAL) => Some(true),
        Err(Errno::EFAULT) => Some(false),
        _ => None,
    }
}

/// `FUTEX_WAKE_OP` with "add 0" on the word at `address`: an atomic write that changes nothing.
fn futex_add(address: usize) -> Option<bool> {
    const ADD_0: c_int = 1 << 28;
    // The wake-up on the second word is conditional: only if it held -2048 (a 12-bit field). Should it,
    // one sleeper on the caller's buffer, if there is such a thing, is woken for nothing.
    const IF_EQUAL_TO_MINUS_2048: c_int = 0x800;
    const WAKE: c_int = libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the first word is ours and nobody sleeps on it; adding 0 leaves the word at `address` as it is,
    // atomically; the kernel answers EFAULT if it cannot write there.
    answer(unsafe {
        call!(libc::SYS_futex, OURS.as_ptr(), WAKE, 0, 0, address & !3, ADD_0 | IF_EQUAL_TO_MINUS_2048)
    })
}

/// `process_vm_writev` from `address` (the local side, an ordinary user copy) into a byte of ours.
fn vm_read(address: usize) -> Option<bool> {
    vm(libc::SYS_process_vm_writev, address)
}

/// `process_vm_readv` from a byte of ours to `address` (the local side, an ordinary user copy).
fn vm_write(address: usize) -> Option<bool> {
    vm(libc::SYS_process_vm_readv, address)
}

fn vm(call: c_long, address: usize) -> Option<bool> {
    let mut byte = 0u8;
    let local = iovec { iov_base: ptr::with_exposed_provenance_mut(address), iov_len: 1 };
    let remote = iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let one: usize = 1;
    // SAFETY: takes nothing.
    let own = unsafe { call!(libc::SYS_getpid) }.unwrap_or(0);
    // SAFETY: one byte moves between `byte` and `address`; the kernel answers EFAULT if it cannot. Towards
    // `address` only from `writable`, whose caller is about to overwrite it.
    answer(unsafe { call!(call, own, &raw const local, one, &raw const remote, one, 0) })
}

/// How many questions were asked: tests show with it that the steady state asks none.
#[cfg(test)]
pub static ASKED: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
fn count() {
    // Relaxed: read by the same thread, or after the child has been waited for.
    ASKED.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Pages, forbid, in_child};

    /// Every method that works here gives the right answers, so falling back changes nothing.
    #[test]
    fn methods_agree() {
        let good = Pages::new(1, libc::PROT_READ | libc::PROT_WRITE);
        let read_only = Pages::new(1, libc::PROT_READ);
        let closed = Pages::new(1, libc::PROT_NONE);
        for (number, method) in READ.methods.iter().enumerate() {
            assert_eq!(method(good.start()), Some(true), "method {number}");
            assert_eq!(method(good.start() + 4095), Some(true), "method {number}");
            assert_eq!(method(read_only.start() + 5), Some(true), "method {number}");
            assert_eq!(method(closed.start()), Some(false), "method {number}");
            assert_eq!(method(BAD), Some(false), "method {number}");
        }
        for (number, method) in WRITE.methods.iter().enumerate() {
            assert_eq!(method(good.start()), Some(true), "method {number}");
            assert_eq!(method(good.start() + 4095), Some(true), "method {number}");
            assert_eq!(method(read_only.start() + 5), Some(false), "method {number}");
            assert_eq!(method(closed.start()), Some(false), "method {number}");
            assert_eq!(method(BAD), Some(false), "method {number}");
        }
    }

    #[test]
    fn asking_changes_nothing() {
        let mut words = [u32::MAX, 1, 0x8000_0000, (-2048i32).cast_unsigned()];
        let before = words;
        for word in &mut words {
            let address = (&raw mut *word).addr();
            assert_eq!(mask_read(address), Some(true));
            assert_eq!(futex_add(address), Some(true));
            assert_eq!(vm_read(address), Some(true));
        }
        assert_eq!(words, before);
    }

    #[test]
    fn falls_back_in_a_sandbox() {
        in_child(|| {
            let closed = Pages::new(1, libc::PROT_NONE);
            let mut good = [0u8; 16];
            let good = good.as_mut_ptr().addr();
            // SAFETY: the byte is scratch.
            let right = || unsafe {
                readable(good) && writable(good) && !readable(closed.start()) && !writable(closed.start())
            };
            let chosen = || (READ.chosen.load(Ordering::Relaxed), WRITE.chosen.load(Ordering::Relaxed));
            let first = right() && chosen() == (1, 1);
            forbid(&[libc::SYS_rt_sigprocmask, libc::SYS_futex]);
            let second = right() && chosen() == (2, 2);
            forbid(&[libc::SYS_process_vm_readv, libc::SYS_process_vm_writev]);
            // Nothing left: everything counts as good.
            // SAFETY: the byte is scratch; no method touches the other any more.
            let third = unsafe {
                readable(good) && writable(good) && readable(closed.start()) && writable(closed.start())
            };
            first && second && third && chosen() == (3, 3)
        });
    }

    /// An emulator that answers EINVAL before it looks at the address must not be believed.
    #[test]
    fn blind_method_is_refused() {
        let question = Question { chosen: AtomicU8::new(0), methods: [|_| Some(true), vm_read] };
        assert!(!question.ask(BAD));
        assert_eq!(question.chosen.load(Ordering::Relaxed), 2);
    }
}
