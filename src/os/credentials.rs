//! Who the calling thread is, as the kernel's permission check sees it, and when that may have changed.
//!
//! The check needs the effective user id, the file-system group id with the supplementary groups, and
//! a few capabilities. Asking costs a system call each (about 150 ns), so callers keep a *decision*
//! together with the [`generation`] it was made in, and ask again when the number has moved:
//!
//! 1. `g = generation()`;
//! 2. ask the functions below;
//! 3. keep `(g, decision)`, and use the decision while `generation() == g`.
//!
//! [`changed`] is called before and after every credential change that goes through the C library (see
//! `interpose::credentials`). After: a decision from before the change is dropped. Before: a decision
//! that another thread keeps is not used through the whole of the change.
//!
//! Credentials are per thread in the kernel, and some changes are of one thread alone: [`changed_here`]. From
//! the first of them on the process is *divided*: every thread has a number of its own, drawn when it asks for
//! the first time, and again after each change. So no thread uses a decision of another's.
//!
//! | the word `GENERATION`  | [`generation`] says                                              |
//! |------------------------|------------------------------------------------------------------|
//! | bit 31 clear           | the word: how many changes there were                            |
//! | bit 31 set: divided    | the thread's own number, which has bit 29 set and is used once   |
//!
//! Invariants:
//! 1. All answers come from raw system calls, never from C library functions that another preloaded
//!    library may have replaced (fakeroot's `geteuid` says 0): the kernel's view is the one to have.
//! 2. When the kernel refuses to answer, the answer is the one that gives fewer rights.
//! 3. `errno` stays as it was. No allocation, no lock; safe in signal handlers.
//!
//! Limits: a thread that changes its credentials by a system call instruction of its own, or by `prctl`, is not
//! noticed; it goes on with the rights that were found last.

use super::errno::Errno;
use super::raw::call;
use super::thread;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
use libc::{c_int, c_long, gid_t};

/// See the table above.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// The bit that says that the process is divided.
const DIVIDED: u32 = 1 << 31;
/// What marks the numbers of threads; below it, what counts. Numbers come again after five hundred million
/// changes.
pub const MARK: u32 = 1 << 29;
const COUNT: u32 = MARK - 1;

/// Which credentials the calling thread has: different after every change.
#[inline]
pub fn generation() -> u32 {
    // Acquire: the questions to the kernel that follow must not be asked before the number is read, or
    // an old answer could be kept under a new number.
    let generation = GENERATION.load(Ordering::Acquire);
    if generation & DIVIDED == 0 { generation & COUNT } else { number_of_thread(generation) }
}

/// The number of the calling thread, in a divided process.
#[cold]
fn number_of_thread(generation: u32) -> u32 {
    static NUMBERS: AtomicU32 = AtomicU32::new(0);
    thread::credentials(|known| {
        let there = known.get();
        if there >> 32 == u64::from(generation) {
            return there as u32;
        }
        // Relaxed: only uniqueness matters. A handler in between draws another; either is new.
        let drawn = NUMBERS.fetch_add(1, Ordering::Relaxed) & COUNT | MARK;
        known.set(u64::from(generation) << 32 | u64::from(drawn));
        drawn
    })
}

/// Makes every decision kept so far worthless.
pub fn changed() {
    let next = |generation: u32| Some(generation & DIVIDED | generation.wrapping_add(1) & COUNT);
    // Release: the change itself, before us, must not sink below the new number. Acquire: a change that
    // follows must not rise above it.
    let _ = GENERATION.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
}

/// Makes every decision kept for the calling thread worthless; from now on no other thread's count for it.
pub fn changed_here() {
    // AcqRel: as in `changed`.
    GENERATION.fetch_or(DIVIDED, Ordering::AcqRel);
    thread::credentials(|known| known.set(0));
}

/// System calls that exist twice where ids were once 16 bits wide.
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
mod number {
    pub use libc::{
        SYS_getegid32 as GETEGID, SYS_geteuid32 as GETEUID, SYS_getgroups32 as GETGROUPS,
        SYS_setfsgid32 as SETFSGID,
    };
}
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
mod number {
    pub use libc::{
        SYS_getegid as GETEGID, SYS_geteuid as GETEUID, SYS_getgroups as GETGROUPS, SYS_setfsgid as SETFSGID,
    };
}

/// What no id is.
const NOBODY: u32 = u32::MAX;

fn id(result: Result<c_long, Errno>) -> u32 {
    // The kernel's ids are 32 bits wide; the cast takes them out of a `long`.
    result.map_or(NOBODY, |id| id as u32)
}

/// The effective user id: owns what is created, and is compared with a queue's owner and creator.
pub fn euid() -> u32 {
    // SAFETY: takes no argument and changes nothing.
    id(unsafe { call!(number::GETEUID) })
}

/// The effective group id: the group of what is created.
pub fn egid() -> u32 {
    // SAFETY: takes no argument and changes nothing.
    id(unsafe { call!(number::GETEGID) })
}

/// The file-system group id: what a queue's groups are compared with. Follows the effective one unless
/// `setfsgid` was used.
pub fn fsgid() -> u32 {
    // SAFETY: -1 is no group, so setfsgid(2) changes nothing and returns the present one.
    id(unsafe { call!(number::SETFSGID, NOBODY) })
}

/// Tells whether the caller counts as a member of `gid`: by file-system group id or supplementary group.
pub fn in_group(gid: u32) -> bool {
    gid != NOBODY && (fsgid() == gid || in_supplementary_groups(gid))
}

/// Groups that fit on the stack; more are rare and get a mapping of their own.
const FEW: usize = 256;

fn in_supplementary_groups(gid: gid_t) -> bool {
    let mut few = [0 as gid_t; FEW];
    // SAFETY: `few` has room for FEW groups.
    match unsafe { supplementary_groups(few.as_mut_ptr(), FEW) } {
        Ok(count) => few.iter().take(count).any(|&group| group == gid),
        // More than FEW.
        Err(Errno::EINVAL) => in_many_groups(gid),
        Err(_) => false,
    }
}

#[cold]
fn in_many_groups(gid: gid_t) -> bool {
    /// The kernel's limit (NGROUPS_MAX).
    const MANY: usize = 65536;
    const LENGTH: usize = MANY * size_of::<gid_t>();
    let before = super::errno::get();
    // SAFETY: a mapping at an address of the kernel's choice disturbs nothing.
    let map = unsafe {
        libc::mmap(
            ptr::null_mut(),
            LENGTH,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    super::errno::set(before);
    if map == libc::MAP_FAILED {
        return false;
    }
    let groups: *mut gid_t = map.cast();
    // SAFETY: the mapping has room for MANY groups.
    let count = unsafe { supplementary_groups(groups, MANY) }.unwrap_or(0).min(MANY);
    // SAFETY: `count` groups were written at the mapping's start, which is aligned to a page.
    let found = unsafe { core::slice::from_raw_parts(groups, count) }.contains(&gid);
    // SAFETY: the mapping is ours and no longer used; a failure would leak it and set errno, but
    // cannot happen for a range just mapped.
    unsafe { libc::munmap(map, LENGTH) };
    found
}

/// Fills in the supplementary groups; returns how many there are, EINVAL if they are more than `room`.
///
/// # Safety
/// `groups` must be valid for writing `room` groups.
unsafe fn supplementary_groups(groups: *mut gid_t, room: usize) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    unsafe { call!(number::GETGROUPS, room as c_int, groups) }
        .map(|count| usize::try_from(count).unwrap_or(0))
}

/// The capabilities that matter to message queues; the values are Linux's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Capability {
    /// May give files away: how a queue's files follow its owner.
    Chown = 0,
    /// Passes over a queue's permission bits.
    IpcOwner = 15,
    /// May change and remove everybody's queues.
    SysAdmin = 21,
    /// May raise a queue's size above the limit.
    SysResource = 24,
}

/// Tells whether the calling thread has `capability` in its effective set.
pub fn capable(capability: Capability) -> bool {
    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION_3: u32 = 0x2008_0522;

    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }

    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut sets = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 reads the header (and may write its version back) and writes two `Sets`.
    let result = unsafe { call!(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    let [low, _] = sets;
    // All our numbers are below 32, so they are in the first word and the shift cannot overflow.
    result.is_ok() && low.effective & (1 << (capability as u32)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::errno;
    use crate::testing::{forbid, in_child, is_root};

    #[test]
    fn ids_are_the_process_s() {
        // SAFETY: takes no argument.
        unsafe {
            assert_eq!(euid(), libc::geteuid());
            assert_eq!(egid(), libc::getegid());
        }
        assert_eq!(fsgid(), egid());
        assert!(in_group(fsgid()));
        assert!(!in_group(u32::MAX));
    }

    #[test]
    fn every_change_is_counted() {
        let before = generation();
        changed();
        assert_ne!(generation(), before);
    }

    #[test]
    fn threads_of_a_divided_process_have_numbers_of_their_own() {
        in_child(|| {
            let together = generation();
            let other = std::thread::spawn(generation).join().unwrap();
            changed_here();
            let first = generation();
            let stays = generation() == first;
            let another = std::thread::spawn(generation).join().unwrap();
            changed_here();
            let second = generation();
            changed();
            let third = generation();
            let all = [together, first, another, second, third];
            let distinct = (1..all.len()).all(|n| !all[..n].contains(&all[n]));
            together == other && stays && distinct
        });
    }

    #[test]
    fn file_system_group_may_differ() {
        if !is_root() {
            return;
        }
        in_child(|| {
            // SAFETY: only ids of the child are changed.
            unsafe { libc::syscall(number::SETFSGID, 4321) };
            let first = fsgid() == 4321 && fsgid() == 4321 && egid() == 0;
            first && in_group(4321) && !in_group(4322)
        });
    }

    #[test]
    fn supplementary_groups_few_and_many() {
        if !is_root() {
            return;
        }
        in_child(|| {
            let mut right = true;
            for count in [0u32, 1, 255, 256, 257, 1000, 65536] {
                let groups: Vec<gid_t> = (0..count).map(|n| 100_000 + 3 * n).collect();
                // SAFETY: only groups of the child are changed.
                let result = unsafe { libc::setgroups(groups.len(), groups.as_ptr()) };
                right &= result == 0;
                errno::set(Errno(77));
                right &= groups.first().is_none_or(|&gid| in_group(gid));
                right &= groups.last().is_none_or(|&gid| in_group(gid));
                right &= !in_group(100_001) && !in_group(100_000 + 3 * count);
                right &= errno::get() == Errno(77);
            }
            right
        });
    }

    #[test]
    fn capabilities_follow_the_effective_user() {
        use Capability::*;
        if !is_root() {
            return;
        }
        in_child(|| {
            let all = [Chown, IpcOwner, SysAdmin, SysResource];
            // Containers keep some of the four from root: then there is nothing to lose.
            let before: Vec<bool> = all.iter().map(|&one| capable(one)).collect();
            // SAFETY: only ids of the child are changed.
            unsafe { libc::seteuid(65534) };
            let none = all.iter().all(|&one| !capable(one));
            // SAFETY: as above.
            unsafe { libc::seteuid(0) };
            let after: Vec<bool> = all.iter().map(|&one| capable(one)).collect();
            before.contains(&true) && none && before == after
        });
    }

    #[test]
    fn a_refusal_gives_no_rights() {
        in_child(|| {
            forbid(&[
                libc::SYS_capget,
                number::GETEUID,
                number::GETEGID,
                number::SETFSGID,
                number::GETGROUPS,
            ]);
            errno::set(Errno(77));
            euid() == NOBODY
                && egid() == NOBODY
                && !in_group(0)
                && !in_group(NOBODY)
                && !capable(Capability::IpcOwner)
                && errno::get() == Errno(77)
        });
    }
}
