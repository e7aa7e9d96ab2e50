//! A process's view of one queue's memory.
//!
//! The files are seen through *windows* of doubling size, the first mapped when the queue is attached,
//! the others when they are first needed; none moves or goes away while the mapping lives, so that a
//! reference, once given, holds.
//!
//! ```text
//! window   0          1           2            ...  8
//! bytes    0..8 MiB   8..16 MiB   16..32 MiB        1..2 GiB
//! ```
//!
//! Invariants:
//! 1. Every offset is checked before it becomes a reference; nothing read from the memory is trusted.
//! 2. Nothing handed out straddles a window (the arena is laid out so).
//! 3. Pages are reserved ([`Mapping::reserve`]) before anything in them is used.

use super::layout::{
    ARENA, FILE, GRANULE, GRANULE_WORDS, GRANULES, MAX_PARTICIPANTS, PARTICIPANT, PARTICIPANT_WORDS,
    granule_offset, participant_offset, superblock,
};
use crate::os::errno::Errno;
use crate::os::signals::held_back;
use crate::os::{file, memory};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use libc::c_int;

const FIRST: u64 = 8 << 20;
const WINDOWS: usize = (FILE / FIRST).ilog2() as usize + 1;

/// One queue's memory.
pub struct Mapping {
    windows: [AtomicPtr<u8>; WINDOWS],
}

/// The range of file offsets that a window shows.
fn range(window: usize) -> core::ops::Range<u64> {
    match window {
        0 => 0..FIRST,
        n => (FIRST << (n - 1))..(FIRST << n),
    }
}

/// The 32-bit word at an offset in words that were given out.
#[inline(always)]
pub fn half_of<const N: usize>(words: &[AtomicU64; N], offset: u64) -> Option<&AtomicU32> {
    if !offset.is_multiple_of(4) || offset >= N as u64 * 8 {
        return None;
    }
    let address = words.as_ptr().cast::<u8>().wrapping_add(offset as usize);
    // SAFETY: inside the words, aligned, and only ever accessed atomically.
    Some(unsafe { &*address.cast() })
}

/// How many granules lie in the first window.
const NEAR: u32 = ((FIRST - ARENA) / GRANULE) as u32;

/// Hints about a cache line, for x86-64 and for aarch64; nothing elsewhere.
macro_rules! hints {
    ($($(#[$doc:meta])* $visibility:vis fn $name:ident: $x86:literal, $arm:literal;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        $visibility fn $name<T>(line: *const T) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a hint; changes nothing, whatever the address.
            unsafe {
                core::arch::asm!($x86, in(reg) line, options(nostack, preserves_flags, readonly));
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            unsafe {
                core::arch::asm!($arm, in(reg) line, options(nostack, preserves_flags, readonly));
            }
            let _ = line;
        }
    )*};
}

hints! {
    /// Asks the processor for a cache line that will be read soon.
    fn expect_to_read: "prefetcht0 [{}]", "prfm pldl1keep, [{}]";
    /// Asks the processor for a cache line that will be written soon.
    pub fn expect_to_write: "prefetchw [{}]", "prfm pstl1keep, [{}]";
}

/// The first granule at or after `granule` from which `count` granules lie in one window.
pub fn place(granule: u32, count: u32) -> u32 {
    let (mut start, length) = (super::layout::granule_offset(granule), u64::from(count) * GRANULE);
    for window in 0..WINDOWS {
        let end = range(window).end;
        if start < end {
            if start + length <= end {
                break;
            }
            start = end;
        }
    }
    ((start - super::layout::ARENA) / GRANULE) as u32
}

impl Mapping {
    /// Maps a queue's open files: [`ARENA`] bytes of control, then the body.
    pub fn of_files(control: c_int, body: c_int) -> Result<Mapping, Errno> {
        let mapping = Mapping::without_body(control)?;
        match mapping.add_body(body) {
            Ok(()) => Ok(mapping),
            Err(errno) => {
                // SAFETY: mapped just now, seen by nobody else.
                unsafe { mapping.unmap() };
                Err(errno)
            }
        }
    }

    /// Maps an open control file. Nothing beyond it may be looked at.
    pub fn without_body(control: c_int) -> Result<Mapping, Errno> {
        memory::map_file(control, FIRST as usize).map(Mapping::from_first)
    }

    /// Maps an open body behind a control file that was mapped without one.
    pub fn add_body(&self, body: c_int) -> Result<(), Errno> {
        let arena = self.at(ARENA, FIRST - ARENA).ok_or(Errno::ENOMEM)?;
        // SAFETY: the part of the first window that lies beyond the end of the control file: used by nobody.
        unsafe { memory::map_over(arena, body, ARENA, (FIRST - ARENA) as usize) }
    }

    /// Memory of this process's own that stands for a control file: what is looked at there must be fetched
    /// before ([`Mapping::fetch`]).
    pub fn of_copy() -> Result<Mapping, Errno> {
        memory::map_anonymous(FIRST as usize).map(Mapping::from_first)
    }

    /// Copies a range of an open control file to its place in a mapping made by [`Mapping::of_copy`].
    pub fn fetch(&self, control: c_int, offset: u64, length: u64) -> Result<(), Errno> {
        let to = self.at(offset, length).ok_or(Errno::EINVAL)?;
        // SAFETY: mapped, that long, and looked at by nobody else.
        unsafe { file::read_at(control, offset, to, length as usize) }
    }

    /// A queue's memory without a name, shared with children only; for tests.
    #[cfg(test)]
    pub fn anonymous() -> Result<Mapping, Errno> {
        // SAFETY: the descriptor is ours, and closed once its memory is mapped.
        unsafe {
            let fd = libc::memfd_create(c"usysv-test".as_ptr(), libc::MFD_CLOEXEC);
            assert_eq!(libc::ftruncate(fd, FILE as libc::off_t), 0);
            let mapping = Mapping::of_files(fd, fd);
            libc::close(fd);
            mapping
        }
    }

    /// Nothing yet.
    pub const fn unmapped() -> Mapping {
        Mapping { windows: [const { AtomicPtr::new(ptr::null_mut()) }; WINDOWS] }
    }

    fn from_first(first: *mut u8) -> Mapping {
        let mapping = Mapping::unmapped();
        mapping.windows[0].store(first, Ordering::Relaxed);
        mapping
    }

    /// Takes over the windows of another.
    pub fn adopt(&self, other: Mapping) {
        for (to, from) in self.windows.iter().zip(&other.windows) {
            // Relaxed: whoever is told of this mapping is told later, with a release.
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Whether anything is mapped.
    pub fn is_mapped(&self) -> bool {
        !self.windows[0].load(Ordering::Relaxed).is_null()
    }

    /// Turns everything into zeros of this process's own, at the same addresses: an operation that still uses
    /// references into it finds damage, and changes nothing that anybody else sees. (Zeros alone would pass for
    /// an empty queue.)
    pub fn disown(&self) {
        for (number, window) in self.windows.iter().enumerate() {
            let start = window.load(Ordering::Relaxed);
            if start.is_null() {
                continue;
            }
            let bytes = range(number);
            // SAFETY: a range that we mapped; it holds atomics and bytes only, of which any value is one.
            unsafe { memory::map_zeros_over(start, (bytes.end - bytes.start) as usize) };
        }
        if let Some(cur) = self.word(superblock::CUR) {
            // Relaxed: one thread runs here. There is no such record.
            cur.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// Unmaps everything.
    ///
    /// # Safety
    /// No reference given out may be in use, and none may be asked for again.
    pub unsafe fn unmap(&self) {
        for (number, window) in self.windows.iter().enumerate() {
            let start = window.swap(ptr::null_mut(), Ordering::Relaxed);
            if start.is_null() {
                continue;
            }
            let bytes = range(number);
            let length = (bytes.end - bytes.start) as usize;
            // SAFETY: the caller's promise; later windows begin with a page of the one before.
            unsafe {
                match number {
                    0 => memory::unmap(start, length),
                    _ => memory::unmap(start.sub(memory::PAGE), length + memory::PAGE),
                }
            }
        }
    }

    /// Asks the processor for a cache line of the control file, by its offset.
    #[inline(always)]
    pub fn expect_to_read(&self, offset: u32) {
        expect_to_read(self.first().wrapping_add(offset as usize & (ARENA as usize - 1)).cast_const());
    }

    /// Asks the processor for a granule, if that is in the first window.
    #[inline(always)]
    pub fn expect_to_read_granule(&self, granule: u32) {
        if granule.wrapping_sub(1) < NEAR - 1 {
            let start = self.first().wrapping_add(granule_offset(granule) as usize).cast_const();
            expect_to_read(start);
            expect_to_read(start.wrapping_add(GRANULE as usize / 2));
        }
    }

    /// The address of `length` bytes at `offset`; `None` if they are not in the file, not in one
    /// window, or cannot be mapped.
    #[inline(always)]
    pub fn at(&self, offset: u64, length: u64) -> Option<*mut u8> {
        self.spot(offset, length).map(NonNull::as_ptr)
    }

    /// Where the first window begins. Not read as an atomic, so that the compiler need not do so each time.
    #[inline(always)]
    fn first(&self) -> *mut u8 {
        // SAFETY: written before anybody else is told of this mapping, and then only when it is unmapped, while nobody
        // asks for anything in it.
        unsafe { *self.windows[0].as_ptr() }
    }

    #[inline(always)]
    fn spot(&self, offset: u64, length: u64) -> Option<NonNull<u8>> {
        if length <= FIRST && offset <= FIRST - length {
            // SAFETY: mapped as long as anybody asks; what is mapped does not begin at 0.
            return Some(unsafe { NonNull::new_unchecked(self.first().wrapping_add(offset as usize)) });
        }
        NonNull::new(self.beyond(offset, length)?)
    }

    /// The words of a participant; `None` if there is none of that number.
    #[inline(always)]
    pub fn participant(&self, index: u32) -> Option<&[AtomicU64; PARTICIPANT_WORDS]> {
        if index >= MAX_PARTICIPANTS {
            return None;
        }
        let spot = self.spot(participant_offset(index), PARTICIPANT)?;
        // SAFETY: mapped, aligned (windows are page-aligned), and only ever accessed atomically.
        Some(unsafe { spot.cast().as_ref() })
    }

    /// The words of a granule; `None` if there is none of that number.
    #[inline(always)]
    pub fn granule(&self, index: u32) -> Option<&[AtomicU64; GRANULE_WORDS]> {
        let offset = granule_offset(index);
        let spot = if index.wrapping_sub(1) < NEAR - 1 {
            self.spot(offset, GRANULE)?
        } else {
            NonNull::new(self.far_granule(index)?)?
        };
        // SAFETY: mapped, aligned (windows are page-aligned), and only ever accessed atomically.
        Some(unsafe { spot.cast().as_ref() })
    }

    #[cold]
    #[inline(never)]
    fn far_granule(&self, index: u32) -> Option<*mut u8> {
        if index == 0 || index >= GRANULES {
            return None;
        }
        self.beyond(granule_offset(index), GRANULE)
    }

    #[cold]
    #[inline(never)]
    fn beyond(&self, offset: u64, length: u64) -> Option<*mut u8> {
        let number = (offset / FIRST).checked_ilog2()? as usize + 1;
        let window = self.windows.get(number)?;
        let bytes = range(number);
        if length > bytes.end.checked_sub(offset)? {
            return None;
        }
        // Acquire: pairs with the publication below, in this process.
        let mut start = window.load(Ordering::Acquire);
        if start.is_null() {
            // A handler that jumped away in the middle would leave the mapping behind.
            start = held_back(|| self.open(number))?;
        }
        Some(start.wrapping_add((offset - bytes.start) as usize))
    }

    /// Maps a window, by way of the last page of the one before it: no descriptor is needed.
    fn open(&self, number: usize) -> Option<*mut u8> {
        let before = range(number - 1);
        let last_page = self.at(before.end - memory::PAGE as u64, memory::PAGE as u64)?;
        let bytes = range(number);
        let length = (bytes.end - bytes.start) as usize + memory::PAGE;
        // SAFETY: the last page of the window before lies in a shared mapping that stays.
        let mapped = unsafe { memory::map_again(last_page, length) }.ok()?;
        let start = mapped.wrapping_add(memory::PAGE);
        let window = self.windows.get(number)?;
        // AcqRel: whoever sees the address sees the mapping; the loser gives its own back.
        match window.compare_exchange(ptr::null_mut(), start, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Some(start),
            Err(theirs) => {
                // SAFETY: mapped just now and never given out.
                unsafe { memory::unmap(mapped, length) };
                Some(theirs)
            }
        }
    }

    /// Makes sure that the pages of a range exist, so that touching them cannot fail.
    pub fn reserve(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let address = self.at(offset, length).ok_or(Errno::ENOMEM)?;
        // SAFETY: the range is mapped, shared and writable.
        unsafe { memory::populate(address, length as usize) }
    }

    /// A 64-bit word.
    #[inline(always)]
    pub fn word(&self, offset: u64) -> Option<&AtomicU64> {
        if !offset.is_multiple_of(8) {
            return None;
        }
        let spot = self.spot(offset, 8)?;
        // SAFETY: mapped, aligned (windows are page-aligned), and only ever accessed atomically.
        Some(unsafe { spot.cast().as_ref() })
    }

    /// `count` 64-bit words in a row.
    #[inline(always)]
    pub fn words(&self, offset: u64, count: usize) -> Option<&[AtomicU64]> {
        if !offset.is_multiple_of(8) {
            return None;
        }
        let spot = self.spot(offset, count as u64 * 8)?;
        // SAFETY: mapped, aligned (windows are page-aligned), and only ever accessed atomically.
        Some(unsafe { core::slice::from_raw_parts(spot.as_ptr().cast(), count) })
    }

    /// A 32-bit word.
    #[inline(always)]
    pub fn half(&self, offset: u64) -> Option<&AtomicU32> {
        if !offset.is_multiple_of(4) {
            return None;
        }
        let spot = self.spot(offset, 4)?;
        // SAFETY: mapped, aligned, and only ever accessed atomically.
        Some(unsafe { spot.cast().as_ref() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_checked() {
        let mapping = Mapping::anonymous().unwrap();
        assert!(mapping.word(FIRST - 8).is_some());
        assert!(mapping.word(FIRST - 4).is_none());
        assert!(mapping.word(3).is_none());
        assert!(mapping.at(FIRST - 1, 2).is_none());
        assert!(mapping.at(FILE, 1).is_none());
        assert!(mapping.at(u64::MAX, 1).is_none());
        assert!(mapping.at(8, u64::MAX).is_none());
    }

    #[test]
    fn pages_are_reserved_without_the_newest_madvise() {
        crate::testing::in_child(|| {
            crate::testing::forbid(&[libc::SYS_madvise]);
            let mapping = Mapping::anonymous().unwrap();
            let reserved = mapping.reserve(0, 4096).and_then(|()| mapping.reserve(ARENA, 3 * 4096));
            // Beyond the end of a file nothing can be reserved, and nothing kills us.
            // SAFETY: a descriptor of ours, and a file of one page.
            let short = unsafe {
                let fd = libc::memfd_create(c"usysv-test".as_ptr(), libc::MFD_CLOEXEC);
                assert_eq!(libc::ftruncate(fd, 4096), 0);
                Mapping::of_files(fd, fd).unwrap()
            };
            reserved == Ok(()) && short.reserve(0, 8192) == Err(Errno::ENOMEM)
        });
    }

    #[test]
    fn allocations_do_not_straddle_windows() {
        let boundary = ((FIRST - super::super::layout::ARENA) / GRANULE) as u32;
        assert_eq!(place(1, 1), 1);
        assert_eq!(place(boundary - 1, 1), boundary - 1);
        assert_eq!(place(boundary - 1, 2), boundary);
        assert_eq!(place(boundary, 2), boundary);
        assert_eq!(place(1, 65537), 3 * boundary, "8 MiB and a bit need the third window");
    }
}
