//! What this system offers of what the library uses: asked by trying, for people who want to know.
//!
//! Nothing depends on the answers: each part of the library finds out for itself what works.

use super::errno::Errno;
use super::raw;
use super::{memory, process};
use core::ptr;
use libc::{c_int, iovec};

/// Whether something works, and if not, what the kernel or a sandbox said.
pub type Answer = Result<(), Errno>;

/// Sleeping with a time-out.
pub fn futex() -> Answer {
    let word: u32 = 0;
    let soon = libc::timespec { tv_sec: 0, tv_nsec: 1 };
    // SAFETY: word and time-out live during the call.
    let waited =
        unsafe { raw::call!(libc::SYS_futex, &raw const word, libc::FUTEX_WAIT, 0, &raw const soon) };
    match waited {
        Err(Errno(libc::ETIMEDOUT)) => Ok(()),
        waited => waited.map(drop),
    }
}

/// The list by which the kernel marks what a thread held that dies.
pub fn robust_list() -> Answer {
    let (mut head, mut length) = (ptr::null_mut::<u8>(), 0usize);
    // SAFETY: both places live during the call; 0 means the calling thread.
    unsafe { raw::call!(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut length) }.map(drop)
}

/// Reading and writing memory by way of the kernel: one of the ways to find out whether a pointer is good.
pub fn process_vm() -> Answer {
    let (mut from, mut to) = (0u8, 0u8);
    let ours = iovec { iov_base: (&raw mut to).cast(), iov_len: 1 };
    let theirs = iovec { iov_base: (&raw mut from).cast(), iov_len: 1 };
    for number in [libc::SYS_process_vm_readv, libc::SYS_process_vm_writev] {
        // SAFETY: two bytes of our own are read and written.
        unsafe { raw::call!(number, process::pid(), &raw const ours, 1, &raw const theirs, 1, 0) }?;
    }
    Ok(())
}

/// Whether bad pointers are found out, and so answered with `EFAULT`.
pub fn finds_bad_pointers() -> bool {
    // Invariant 4 of `probe`: if nothing works, every address counts as good.
    !super::probe::readable(8)
}

/// A barrier in all threads of this process.
pub fn membarrier() -> bool {
    memory::process_barrier()
}

/// Reserving pages in one call; without it they are reserved one by one.
pub fn populate() -> Answer {
    let page = memory::map_anonymous(memory::PAGE)?;
    // SAFETY: the page was mapped just now.
    let populated = unsafe { raw::call!(libc::SYS_madvise, page, memory::PAGE, libc::MADV_POPULATE_WRITE) };
    // SAFETY: as above, and nobody else uses it.
    unsafe { memory::unmap(page, memory::PAGE) };
    populated.map(drop)
}

/// How many queues the kernel itself has, or why it has none for us.
pub fn kernel_queues() -> Result<u32, Errno> {
    const MSG_INFO: c_int = 12;
    // SAFETY: integers all of them: zero is a value.
    let mut info: libc::msginfo = unsafe { core::mem::zeroed() };
    // SAFETY: the place lives during the call.
    unsafe { raw::call!(libc::SYS_msgctl, 0, MSG_INFO, &raw mut info) }?;
    Ok(info.msgpool.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{forbid, in_child};

    #[test]
    fn a_plain_system_offers_everything() {
        assert_eq!((futex(), robust_list()), (Ok(()), Ok(())));
        assert!(finds_bad_pointers());
    }

    #[test]
    fn a_sandbox_is_noticed() {
        in_child(|| {
            forbid(&[
                libc::SYS_process_vm_readv,
                libc::SYS_msgctl,
                libc::SYS_get_robust_list,
                libc::SYS_madvise,
            ]);
            process_vm() == Err(Errno::EPERM)
                && kernel_queues() == Err(Errno::EPERM)
                && robust_list() == Err(Errno::EPERM)
                && populate() == Err(Errno::EPERM)
                && futex() == Ok(())
        });
    }
}
