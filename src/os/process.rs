//! Who this process is, and noticing that it is a fork of the one that asked last.
//!
//! | word          | in the process that set it | in a child of fork, raw clone |
//! |---------------|----------------------------|-------------------------------|
//! | `generation`  | a number unique among its ancestors | 0: the page is wiped |
//!
//! Invariant: whatever is cached about threads (their ids, their robust lists) carries the generation
//! it was read in and is worthless under another. A child of vfork(2) shares everything with its
//! parent, this page too, and passes for it until it execs.

use super::raw::call;
use super::signals::held_back;
use super::{errno::preserving, file, memory};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Holds no generation: where the word is looked for until there is a page, and for good if none can be had.
static NOWHERE: AtomicU64 = AtomicU64::new(0);
/// The word that holds the generation, in a page that children find zeroed.
static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new((&raw const NOWHERE).cast_mut());
/// Whether a page was asked for.
static ASKED: AtomicBool = AtomicBool::new(false);
/// Stands in when no such page can be had: then every call asks for the process id instead. `process id << 32 |
/// generation`.
static FALLBACK: AtomicU64 = AtomicU64::new(0);
static COUNTER: AtomicU64 = AtomicU64::new(0);
static PID: AtomicU32 = AtomicU32::new(0);
/// 0: not counted yet.
static CPUS: AtomicU32 = AtomicU32::new(0);
static PID_NAMESPACE: AtomicU32 = AtomicU32::new(0);

/// The generation of this process; cheap, and different after a fork.
#[inline(always)]
pub fn generation() -> u64 {
    // Acquire: the page was prepared before its address was stored.
    let word = WORD.load(Ordering::Acquire);
    // SAFETY: a static word, or one in a page that stays mapped for the life of the process.
    let word = unsafe { &*word };
    // Acquire: the process id below was stored before the generation.
    match word.load(Ordering::Acquire) {
        0 => find_generation(),
        generation => generation,
    }
}

#[cold]
#[inline(never)]
fn find_generation() -> u64 {
    let nowhere = (&raw const NOWHERE).cast_mut();
    let mut word = WORD.load(Ordering::Acquire);
    if word == nowhere && !ASKED.load(Ordering::Relaxed) {
        let page = memory::map_anonymous(memory::PAGE).ok().filter(|&page| {
            // SAFETY: the page was mapped just now and is nobody else's.
            unsafe { memory::wipe_on_fork(page, memory::PAGE) }
        });
        match page {
            Some(page) => {
                // AcqRel: who sees the address sees the page prepared.
                let first = WORD.compare_exchange(nowhere, page.cast(), Ordering::AcqRel, Ordering::Acquire);
                if first.is_err() {
                    // SAFETY: mapped just now, seen by nobody else.
                    unsafe { memory::unmap(page, memory::PAGE) };
                }
            }
            None => ASKED.store(true, Ordering::Relaxed),
        }
        word = WORD.load(Ordering::Acquire);
    }
    if word == nowhere {
        let mine = u64::from(ask_pid()) << 32;
        let known = FALLBACK.load(Ordering::Acquire);
        let of_this_process = known != 0 && known & !u64::from(u32::MAX) == mine;
        let known = if of_this_process { known } else { renew(&FALLBACK, known, mine) };
        return known & u64::from(u32::MAX);
    }
    // SAFETY: as in `generation`.
    renew(unsafe { &*word }, 0, 0)
}

fn ask_pid() -> u32 {
    // SAFETY: getpid(2) cannot fail and touches nothing.
    unsafe { libc::getpid() as u32 }
}

/// Gives this process a generation, beside `mark`, in place of what was found in the word. Of several threads that come at
/// once one does, and the others take what it gave: a generation that changed once more would make what threads have
/// noted about themselves look like their parent's.
#[cold]
fn renew(word: &AtomicU64, found: u64, mark: u64) -> u64 {
    // Relaxed: the counter was copied from the parent, so its next value is unlike any ancestor's.
    let next = mark | ((COUNTER.fetch_add(1, Ordering::Relaxed) + 1) & u64::from(u32::MAX));
    PID.store(ask_pid(), Ordering::Relaxed);
    CPUS.store(0, Ordering::Relaxed);
    PID_NAMESPACE.store(ask_pid_namespace(), Ordering::Relaxed);
    // AcqRel: who sees the generation sees the process id that goes with it.
    match word.compare_exchange(found, next, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => next,
        Err(theirs) => theirs,
    }
}

/// This process's id, as `msg_lspid` shows it.
#[inline]
pub fn pid() -> u32 {
    generation();
    PID.load(Ordering::Relaxed)
}

/// The same for who has asked for the [`generation`] just before.
#[inline(always)]
pub fn known_pid() -> u32 {
    PID.load(Ordering::Relaxed)
}

/// Has `child` called in every child of fork(3), before that returns there.
pub fn at_fork(child: extern "C" fn()) {
    // SAFETY: the function stays as long as the library: the C library forgets it when that is unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(child)) };
}

/// Lets others run.
pub fn yield_cpu() {
    // SAFETY: takes nothing, touches nothing.
    unsafe { libc::sched_yield() };
}

/// Counts again how many CPUs the calling thread may run on.
#[cold]
pub fn count_cpus() -> u32 {
    let cpus = ask_cpus();
    CPUS.store(cpus, Ordering::Relaxed);
    cpus
}

/// How many CPUs this process may run on, as counted last: spinning is useless with one.
#[inline]
pub fn cpus() -> u32 {
    match CPUS.load(Ordering::Relaxed) {
        0 => count_cpus(),
        cpus => cpus,
    }
}

fn ask_cpus() -> u32 {
    // SAFETY: an all-zero set is a valid value.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    let asked = preserving(|| {
        // SAFETY: `set` is a valid place of the size given.
        unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) }
    });
    match asked {
        // SAFETY: counting the bits of a valid set.
        Ok(_) => unsafe { libc::CPU_COUNT(&set) as u32 },
        Err(_) => 1,
    }
}

/// The pid namespace that thread ids of this process belong to; 0 if it cannot be told. Known once the
/// [`generation`] is.
#[inline]
pub fn pid_namespace() -> u32 {
    PID_NAMESPACE.load(Ordering::Relaxed)
}

fn ask_pid_namespace() -> u32 {
    match file::describe(libc::AT_FDCWD, c"/proc/self/ns/pid", 0) {
        Ok(stat) => stat.st_ino as u32,
        // No /proc here: this process may have changed its root.
        Err(_) => ask_pid_namespace_of_kernel().unwrap_or(0),
    }
}

/// By way of a descriptor of the process itself, which is no file anywhere: since Linux 6.11.
#[cold]
fn ask_pid_namespace_of_kernel() -> Option<u32> {
    /// `PIDFD_GET_PID_NAMESPACE` in `linux/pidfd.h`, as most architectures encode it; others do not know it.
    const GET_PID_NAMESPACE: usize = 0xFF05;
    held_back(|| {
        // SAFETY: takes no pointer, makes a descriptor.
        let this = file::Fd::new(unsafe { call!(libc::SYS_pidfd_open, ask_pid(), 0) }.ok()?);
        // SAFETY: as above; the request takes no argument.
        let namespace = unsafe { call!(libc::SYS_ioctl, this.number(), GET_PID_NAMESPACE, 0) }.ok()?;
        Some(file::status(&file::Fd::new(namespace)).ok()?.inode.1 as u32)
    })
}

/// Whether the kernel tells the pid namespace also to a process that has no /proc any more, because it has changed its
/// root. Then it need not be asked before anybody wants to know; a look at a new process's /proc costs as much as
/// ten other system calls.
#[inline(always)]
pub fn can_ask_later() -> bool {
    /// The first version that knows `PIDFD_GET_PID_NAMESPACE`.
    const FIRST: (u32, u32) = (6, 11);
    // SAFETY: bytes all of them: zero is a value.
    let mut system: libc::utsname = unsafe { core::mem::zeroed() };
    // SAFETY: the place is valid.
    if unsafe { call!(libc::SYS_uname, &raw mut system) }.is_err() {
        return false;
    }
    is_at_least(FIRST, &system.release.map(|byte| byte as u8))
}

/// Whether a kernel's name for itself begins with that version, or with a later one.
#[inline(always)]
fn is_at_least(first: (u32, u32), release: &[u8]) -> bool {
    // No more digits than two numbers have room for; without any it is none.
    let mut numbers = release.split(|byte| !byte.is_ascii_digit()).map(|digits| {
        let value = |sum: u32, digit: &u8| sum * 10 + u32::from(digit - b'0');
        if (1..=9).contains(&digits.len()) { Some(digits.iter().fold(0, value)) } else { None }
    });
    matches!((numbers.next().flatten(), numbers.next().flatten()), (Some(a), Some(b)) if (a, b) >= first)
}

/// Whether this process is in the user namespace that the system began with, where every user and group has a
/// number. False also if it cannot be told.
pub fn in_initial_user_namespace() -> bool {
    /// `PROC_USER_INIT_INO` in `include/linux/proc_ns.h`.
    const INITIAL: u64 = 0xEFFF_FFFD;
    file::describe(libc::AT_FDCWD, c"/proc/self/ns/user", 0).is_ok_and(|stat| stat.st_ino == INITIAL)
}

/// Whether a thread of that id exists in our pid namespace (its process need not be ours).
pub fn thread_exists(tid: u32) -> bool {
    // SAFETY: signal 0 is never delivered.
    let answer = preserving(|| unsafe { libc::kill(tid as libc::pid_t, 0) });
    !matches!(answer, Err(super::errno::Errno::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where many threads are the first to ask, in a new process.
    #[test]
    fn a_process_has_one_generation() {
        generation();
        for _ in 0..50 {
            crate::testing::in_child(|| {
                let start = std::sync::Barrier::new(4);
                let ask = || {
                    start.wait();
                    (0..1000).map(|_| generation()).collect::<std::collections::BTreeSet<u64>>()
                };
                let seen: std::collections::BTreeSet<u64> = std::thread::scope(|scope| {
                    let asking: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
                    asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
                });
                seen.len() == 1
            });
        }
    }

    #[test]
    fn versions() {
        for (release, expected) in [
            ("6.11.0-9-generic\0\0", true),
            ("6.11", true),
            ("6.10.3", false),
            ("7.0-rc1", true),
            ("5.15.0", false),
            ("10.2", true),
            ("6", false),
            ("6.x", false),
            ("", false),
            ("6.99999999999", false),
        ] {
            assert_eq!(is_at_least((6, 11), release.as_bytes()), expected, "{release:?}");
        }
    }

    #[test]
    fn the_kernel_says_the_same_without_proc() {
        if can_ask_later() {
            let by_name = file::describe(libc::AT_FDCWD, c"/proc/self/ns/pid", 0).unwrap().st_ino as u32;
            assert_eq!(ask_pid_namespace_of_kernel(), Some(by_name));
        }
    }

    #[test]
    fn who_has_changed_its_root_knows_its_namespace() {
        // SAFETY: takes nothing, touches nothing.
        if !can_ask_later() || unsafe { libc::geteuid() } != 0 {
            println!("skipped: needs root and Linux 6.11");
            return;
        }
        generation();
        let before = pid_namespace();
        let empty = std::env::temp_dir().join(format!("usysv-root-{}", std::process::id()));
        std::fs::create_dir(&empty).unwrap();
        let path = std::ffi::CString::new(empty.to_str().unwrap()).unwrap();
        crate::testing::in_child(|| {
            // SAFETY: in a process of our own, which has asked nothing yet.
            let moved = unsafe { libc::chroot(path.as_ptr()) } == 0;
            generation();
            moved && before != 0 && pid_namespace() == before
        });
        std::fs::remove_dir(&empty).unwrap();
    }
}
