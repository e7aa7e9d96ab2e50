//! Copying the caller's memory in and out, with `EFAULT` for a bad pointer instead of a crash.
//!
//! The kernel answers `EFAULT` when a program hands it a bad pointer. In user space a copy from a bad
//! pointer is a SIGSEGV; catching that would need a signal handler, which a library inside somebody
//! else's program must not have, and asking the kernel at each call would cost more than the rest of
//! the call. So the kernel is asked about a page (see [`crate::os::probe`]) until the page has earned
//! trust; after that, copies are plain `memcpy`.
//!
//! # How a page earns trust
//! | page | is trusted | because |
//! |---|---|---|
//! | on the running thread's stack, between the stack pointer and the stack's end | after one good answer, and only while the thread that runs has it on its stack | it cannot go away while the function that owns the buffer is running |
//! | any other: heap, static data, mappings, other threads' stacks | after [`EARNED`] good answers | programs that use a buffer for long use it often; tests and bugs that take a page away do so soon |
//!
//! A bad answer takes all trust away. Trust for reading and for writing are separate. Trust is kept
//! for the whole process, in a table of fixed size; a page that finds no room there is asked about
//! every time, which is slower (140 ns to read, 390 ns to write) and right.
//!
//! # What remains
//! With these, a pointer that gives `EFAULT` in the kernel is a SIGSEGV (or SIGBUS) here:
//! - A page outside the running stack was used in [`EARNED`] calls and then unmapped, protected or
//!   truncated away, without one failing call since, and is now used again (or its address is, by a
//!   new mapping with less access).
//! - A page of the running thread's own stack, above its stack pointer, was used once and then
//!   protected or unmapped. Code that runs on a stack of its own making (coroutines) within
//!   [`STACK_DEPTH`] below a thread's real one is treated so for the pages in between, too.
//! - Another thread takes the page away while the copy is under way.
//! - The child of a fork that left the page behind (`MADV_DONTFORK`); a thread whose protection key
//!   (`pkeys(7)`) forbids a page that another thread may use.
//! - No method of asking works (invariant 4 of [`crate::os::probe`]).
//!
//! In the other direction there is one difference: below [`LOWEST`] everything is a fault, even where
//! an administrator has lowered `vm.mmap_min_addr` and a program has mapped something there.
//!
//! # Invariants
//! 1. Nothing is read or written beyond `len` bytes; length zero touches nothing, whatever the pointer.
//! 2. The bytes before the first bad page are copied, as the kernel does it (but a `long` as a whole or
//!    not at all); the caller's memory has no other bytes changed.
//! 3. An entry of the table is one word that stands for itself. Any entry may be lost, or be replaced,
//!    at any time; the price is a question to the kernel.
//! 4. `errno` stays as it was; nothing allocates, locks or panics; safe in signal handlers and after
//!    fork, vfork and raw clone (the table is inherited together with the mappings it speaks of).

use crate::os::{errno, probe};
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};
use libc::c_long;

/// The caller's memory could not be read or written: `EFAULT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault;

/// The unit of trust. Larger pages are multiples of it.
const PAGE: usize = 4096;

/// The bits of an address within its page.
const OFFSET: usize = PAGE - 1;

/// The lowest address that can be good: Linux's default `vm.mmap_min_addr`.
pub const LOWEST: usize = 65536;

/// How many good answers make a page outside the running stack trusted.
pub const EARNED: usize = 64;

/// How far above the stack pointer a page may lie and still be taken for the running thread's stack.
pub const STACK_DEPTH: usize = 1 << 20;

/// Number of sets in a table: with two ways, 4 MiB of pages.
const SETS: usize = 512;

/// What the caller's memory is to be used for.
#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

/// The pages known to be good for one kind of access: two-way associative, because a program with two
/// hot buffers that happen to share a place would otherwise pay at every call.
///
/// An entry is the page's address with the number of good answers so far in the low bits; 0 is empty
/// (page 0 is below [`LOWEST`]).
///
/// Relaxed everywhere: an entry publishes no memory. That a page is mapped is the kernel's state, which
/// whoever may hold a pointer into the page sees by whatever gave it the pointer.
struct Table([[AtomicUsize; 2]; SETS]);

static READABLE: Table = Table([const { [const { AtomicUsize::new(0) }; 2] }; SETS]);
static WRITABLE: Table = Table([const { [const { AtomicUsize::new(0) }; 2] }; SETS]);

impl Table {
    #[inline]
    fn of(access: Access) -> &'static Self {
        match access {
            Access::Read => &READABLE,
            Access::Write => &WRITABLE,
        }
    }

    /// Neighbours go to different sets; the upper bits keep stack, heap and data from always meeting.
    #[inline]
    fn set(&self, page: usize) -> &[AtomicUsize; 2] {
        let number = page / PAGE;
        // The remainder is below the array's length: no panic.
        &self.0[(number ^ (number / SETS)) % SETS]
    }

    #[inline]
    fn trusts(&self, page: usize) -> bool {
        let [first, second] = self.set(page);
        let mut entry = first.load(Ordering::Relaxed);
        if entry & !OFFSET != page {
            entry = second.load(Ordering::Relaxed);
            if entry & !OFFSET != page {
                return false;
            }
        }
        entry & OFFSET >= EARNED || on_running_stack(page)
    }

    /// Counts a good answer. Two threads that count at once may lose one: invariant 3.
    fn credit(&self, page: usize) {
        let [first, second] = self.set(page);
        let (one, two) = (first.load(Ordering::Relaxed), second.load(Ordering::Relaxed));
        let (way, answers) = if one & !OFFSET == page {
            (first, one & OFFSET)
        } else if two & !OFFSET == page {
            (second, two & OFFSET)
        } else if one & OFFSET <= two & OFFSET {
            // The one with less to lose makes room.
            (first, 0)
        } else {
            (second, 0)
        };
        way.store(page | answers.saturating_add(1).min(EARNED), Ordering::Relaxed);
    }

    /// A bad answer: forget all good ones.
    fn discredit(&self, page: usize) {
        for way in self.set(page) {
            if way.load(Ordering::Relaxed) & !OFFSET == page {
                way.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// Tells whether `page` lies on the stack that is running, at or above the stack pointer.
///
/// A main thread's stack ends above the name of the program (`AT_EXECFN`); any other thread's ends at
/// its control block, which is what `pthread_self` points to in glibc and musl. Either is believed only
/// within [`STACK_DEPTH`]: nothing else lies so close below the main stack's end, where the kernel
/// leaves a gap of 128 MiB.
#[inline]
fn on_running_stack(page: usize) -> bool {
    let marker = 0u8;
    let here = (&raw const marker).addr();
    if page < here & !OFFSET {
        return false;
    }
    let within = |end: usize| page < end && end.wrapping_sub(here) <= STACK_DEPTH;
    // SAFETY: takes nothing, reads the thread's own register.
    within(main_stack_end()) || within(unsafe { libc::pthread_self() } as usize)
}

/// Where the main thread's stack ends, roughly: everything below is stack or what the kernel put on it.
#[inline]
fn main_stack_end() -> usize {
    /// 0: not yet asked; 1: the kernel did not say. Relaxed: a number that stands for itself.
    static END: AtomicUsize = AtomicUsize::new(0);
    match END.load(Ordering::Relaxed) {
        0 => {
            let before = errno::get();
            // SAFETY: reads the auxiliary vector, which stays as the kernel made it.
            let end = unsafe { libc::getauxval(libc::AT_EXECFN) } as usize;
            errno::set(before);
            END.store(end.max(1), Ordering::Relaxed);
            end
        }
        end => end,
    }
}

/// Asks the kernel about the page of `address` and keeps the answer.
///
/// # Safety
/// For [`Access::Write`] the byte at `address`, if it exists, is about to be overwritten.
#[cold]
#[inline(never)]
unsafe fn admits(access: Access, address: usize) -> bool {
    let good = match access {
        Access::Read => probe::readable(address),
        // SAFETY: the caller's promise.
        Access::Write => unsafe { probe::writable(address) },
    };
    let page = address & !OFFSET;
    if good {
        Table::of(access).credit(page);
    } else {
        Table::of(access).discredit(page);
    }
    good
}

/// A page that this call has found good, so that it need not be looked up again for what lies in it too.
#[derive(Clone, Copy, Debug)]
pub struct Good(usize);

impl Good {
    /// None yet.
    pub const NONE: Good = Good(usize::MAX);
}

/// How many of the `len` bytes from `start` on can be reached: all, or those before the first bad page.
///
/// # Safety
/// For [`Access::Write`] the bytes, as far as they exist, are about to be overwritten.
#[inline(always)]
unsafe fn reachable(access: Access, start: usize, len: usize, good: Good) -> usize {
    let Some(last) = len.checked_sub(1).and_then(|rest| start.checked_add(rest)) else {
        // Nothing asked for, or a range that wraps around: the kernel touches none of it either.
        return 0;
    };
    let page = last & !OFFSET;
    if start & !OFFSET == page && (page == good.0 || (start >= LOWEST && Table::of(access).trusts(page))) {
        return len;
    }
    // SAFETY: the caller's promise.
    unsafe { reachable_pages(access, start, last) }
}

/// [`reachable`] from `start` to `last`, page by page.
///
/// # Safety
/// As there.
#[inline(never)]
unsafe fn reachable_pages(access: Access, start: usize, last: usize) -> usize {
    // The upper half is the kernel's on x86-64. Elsewhere the kernel is asked.
    if start < LOWEST || (cfg!(target_arch = "x86_64") && last > usize::MAX / 2) {
        return 0;
    }
    let table = Table::of(access);
    let mut page = start & !OFFSET;
    loop {
        // SAFETY: the address is in the range, in this page; the rest is the caller's promise.
        if !table.trusts(page) && !unsafe { admits(access, page.max(start)) } {
            return page.saturating_sub(start);
        }
        if last & !OFFSET == page {
            return (last - start).wrapping_add(1);
        }
        // Below the last page, so this does not wrap.
        page = page.wrapping_add(PAGE);
    }
}

/// The longest text that is copied without the C library: what lies in a message itself (`layout::message::INLINE`),
/// and a bit more.
const SHORT: usize = 96;

/// Copies up to [`SHORT`] bytes as `ptr::copy` does: a call would cost as much as the rest.
///
/// # Safety
/// As for `ptr::copy`.
#[inline(always)]
unsafe fn copy_short(src: *const u8, dst: *mut u8, len: usize) {
    /// Copies two pieces that cover everything, or overlap in the middle.
    ///
    /// # Safety
    /// As for `ptr::copy` with `len`, which is at least the size of `T`.
    #[inline(always)]
    unsafe fn ends<T: Copy>(src: *const u8, dst: *mut u8, len: usize) {
        let rest = len - size_of::<T>();
        // SAFETY: both lie within `len` bytes; all is read before anything is written.
        unsafe {
            let first = src.cast::<T>().read_unaligned();
            let last = src.add(rest).cast::<T>().read_unaligned();
            dst.cast::<T>().write_unaligned(first);
            dst.add(rest).cast::<T>().write_unaligned(last);
        }
    }
    // SAFETY: the caller's promise, for lengths that the branch has made sure of.
    unsafe {
        match len {
            64.. => {
                // Three pieces: read before anything is written.
                let first = src.cast::<[u128; 2]>().read_unaligned();
                let second = src.add(32).cast::<[u128; 2]>().read_unaligned();
                let last = src.add(len - 32).cast::<[u128; 2]>().read_unaligned();
                dst.cast::<[u128; 2]>().write_unaligned(first);
                dst.add(32).cast::<[u128; 2]>().write_unaligned(second);
                dst.add(len - 32).cast::<[u128; 2]>().write_unaligned(last);
            }
            32.. => ends::<[u128; 2]>(src, dst, len),
            16.. => ends::<u128>(src, dst, len),
            8.. => ends::<u64>(src, dst, len),
            4.. => ends::<u32>(src, dst, len),
            2.. => ends::<u16>(src, dst, len),
            1 => dst.write(src.read()),
            0 => {}
        }
    }
}

/// Copies bytes as `ptr::copy` does, in pieces.
///
/// The C library copies what is longer than two pages or so by `rep movsb`, and where the two addresses lie a
/// certain way in their pages some processors are ten times as slow at that.
///
/// # Safety
/// As for `ptr::copy`.
#[inline(always)]
unsafe fn copy_in_pieces(mut src: *const u8, mut dst: *mut u8, mut len: usize) {
    if len <= SHORT {
        // SAFETY: the caller's promise.
        return unsafe { copy_short(src, dst, len) };
    }
    /// Below the length from which any C library begins to use it (`glibc.cpu.x86_rep_movsb_threshold`).
    const PIECE: usize = 1984;
    while len > PIECE {
        // SAFETY: a part of what the caller promises.
        unsafe { ptr::copy(src, dst, PIECE) };
        (src, dst, len) = (src.wrapping_add(PIECE), dst.wrapping_add(PIECE), len - PIECE);
    }
    // SAFETY: the rest of it.
    unsafe { ptr::copy(src, dst, len) };
}

/// Copies `len` bytes of the caller's memory at `src` to our `dst`.
///
/// # Safety
/// `dst` must be ours and valid for `len` bytes of writing. `src` may be anything.
#[inline(always)]
pub unsafe fn copy_in(dst: *mut u8, src: *const u8, len: usize, good: Good) -> Result<(), Fault> {
    // SAFETY: reading asks for no promise.
    let good = unsafe { reachable(Access::Read, src.expose_provenance(), len, good) };
    if good != len {
        return Err(Fault);
    }
    // SAFETY: `dst` is the caller's promise, `src` has just been found readable. The program's other
    // threads may be changing it, as they may under the kernel's copy: then the bytes are whatever they
    // are; they are only ever handled as bytes. Overlap (a program that found our mapping) is allowed.
    unsafe { copy_in_pieces(src, dst, len) };
    Ok(())
}

/// Copies `len` bytes from our `src` to the caller's memory at `dst`; what lies before the first bad
/// page is written even if the rest faults.
///
/// # Safety
/// `src` must be ours and valid for `len` bytes of reading. `dst` may be anything, but what can be
/// written there must be the caller's to have overwritten.
#[inline(always)]
pub unsafe fn copy_out(dst: *mut u8, src: *const u8, len: usize, good: Good) -> Result<(), Fault> {
    // SAFETY: overwriting is what follows.
    let good = unsafe { reachable(Access::Write, dst.expose_provenance(), len, good) };
    // SAFETY: `good <= len` bytes of `src` are valid by the caller's promise, those of `dst` have just
    // been found writable.
    unsafe { copy_in_pieces(src, dst, good) };
    if good == len { Ok(()) } else { Err(Fault) }
}

/// Tells whether `len` bytes of the caller's memory at `src` can be read, without reading them.
///
/// # Safety
/// None is needed; marked as the others are because the answer is good only for the moment.
#[inline]
pub unsafe fn probe_read(src: *const u8, len: usize) -> Result<(), Fault> {
    // SAFETY: reading asks for no promise.
    let good = unsafe { reachable(Access::Read, src.expose_provenance(), len, Good::NONE) };
    if good == len { Ok(()) } else { Err(Fault) }
}

/// Reads the caller's `long` (a message's type), aligned or not; says in which page it ends.
///
/// # Safety
/// As [`copy_in`]: `src` may be anything.
#[inline(always)]
pub unsafe fn read_long(src: *const c_long) -> Result<(c_long, Good), Fault> {
    let start = src.expose_provenance();
    // SAFETY: reading asks for no promise.
    if unsafe { reachable(Access::Read, start, LONG, Good::NONE) } != LONG {
        return Err(Fault);
    }
    // SAFETY: just found readable; see `copy_in`.
    Ok((unsafe { src.read_unaligned() }, Good(start.wrapping_add(LONG - 1) & !OFFSET)))
}

/// The size of a `long`.
const LONG: usize = size_of::<c_long>();

/// Writes the caller's `long` (a message's type), aligned or not: all of it or nothing, as the kernel's
/// `put_user` does. Says in which page it ends.
///
/// # Safety
/// As [`copy_out`]: what can be written at `dst` must be the caller's to have overwritten.
#[inline(always)]
pub unsafe fn write_long(dst: *mut c_long, value: c_long) -> Result<Good, Fault> {
    let start = dst.expose_provenance();
    // SAFETY: overwriting is what follows.
    if unsafe { reachable(Access::Write, start, LONG, Good::NONE) } != LONG {
        return Err(Fault);
    }
    // SAFETY: just found writable; `dst` is the caller's promise.
    unsafe { dst.write_unaligned(value) };
    Ok(Good(start.wrapping_add(LONG - 1) & !OFFSET))
}

#[cfg(test)]
mod tests;
