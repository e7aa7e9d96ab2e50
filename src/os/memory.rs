//! Mapping, reserving and giving back memory.

use super::errno::{Errno, preserving};
use super::probe;
use super::raw::call;
use core::ptr;
use libc::{c_int, c_void};

/// The unit in which memory is mapped; larger pages are multiples of it.
pub const PAGE: usize = 4096;

fn result(address: *mut c_void) -> Result<*mut u8, Errno> {
    if address == libc::MAP_FAILED { Err(Errno::ENOMEM) } else { Ok(address.cast()) }
}

/// Maps `length` bytes of the open file `fd`, shared, readable and writable, from its beginning.
pub fn map_file(fd: c_int, length: usize) -> Result<*mut u8, Errno> {
    map(length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd)
}

/// Maps `length` fresh zero bytes of this process's own; children get a copy.
pub fn map_anonymous(length: usize) -> Result<*mut u8, Errno> {
    map(length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
}

fn map(length: usize, protection: c_int, flags: c_int, fd: c_int) -> Result<*mut u8, Errno> {
    let before = super::errno::get();
    // SAFETY: a mapping at an address of the kernel's choice disturbs nothing.
    let address = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, fd, 0) };
    super::errno::set(before);
    result(address)
}

/// Maps a part of the open file `fd` over what is mapped at `address`.
///
/// # Safety
/// The range must be mapped, the caller's own, and in use by nobody.
pub unsafe fn map_over(address: *mut u8, fd: c_int, offset: u64, length: usize) -> Result<(), Errno> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
    let before = super::errno::get();
    // SAFETY: the caller's promise.
    let mapped = unsafe { libc::mmap(address.cast(), length, protection, flags, fd, offset as libc::off_t) };
    super::errno::set(before);
    result(mapped).map(drop)
}

/// Replaces what is mapped at `address` by zeros of this process's own. Cannot fail: where the system cannot do
/// it, the process ends, since what stayed mapped would be used by two.
///
/// # Safety
/// The range must be mapped and the caller's own, and what uses it must bear any content.
pub unsafe fn map_zeros_over(address: *mut u8, length: usize) {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let before = super::errno::get();
    // SAFETY: the caller's promise.
    let mapped = unsafe { libc::mmap(address.cast(), length, protection, flags, -1, 0) };
    super::errno::set(before);
    if mapped == libc::MAP_FAILED {
        // SAFETY: always is.
        unsafe { libc::abort() };
    }
}

/// Maps `length` bytes of the file behind the shared mapping at `address`, beginning with the page
/// that is mapped there, at an address of the kernel's choice. Needs no descriptor: an old size of
/// zero asks mremap(2) for a second mapping of the same pages.
///
/// # Safety
/// `address` must lie in a shared mapping that stays in place during the call.
pub unsafe fn map_again(address: *mut u8, length: usize) -> Result<*mut u8, Errno> {
    let before = super::errno::get();
    // SAFETY: with an old size of zero the old mapping is left as it is.
    let mapped = unsafe { libc::mremap(address.cast(), 0, length, libc::MREMAP_MAYMOVE) };
    super::errno::set(before);
    result(mapped)
}

/// Unmaps a range.
///
/// # Safety
/// Nothing may use the range any more.
pub unsafe fn unmap(address: *mut u8, length: usize) {
    // SAFETY: the caller's promise.
    let _ = preserving(|| unsafe { libc::munmap(address.cast(), length) });
}

/// Makes the kernel provide the pages of a mapped range now, so that touching them later cannot
/// fail: a full file system is an error here instead of a SIGBUS there.
///
/// # Safety
/// The range must be mapped, shared and writable.
pub unsafe fn populate(address: *mut u8, length: usize) -> Result<(), Errno> {
    const MADV_POPULATE_WRITE: c_int = 23;
    loop {
        // SAFETY: the caller's promise; populating changes no byte.
        match preserving(|| unsafe { libc::madvise(address.cast(), length, MADV_POPULATE_WRITE) }) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // Before Linux 5.14, or in a sandbox: page by page.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => break,
            Err(_) => return Err(Errno::ENOMEM),
        }
    }
    // The kernel adds zero to a word of the page, and tells whether it could.
    // SAFETY: the caller's promise; whoever uses the page already is not disturbed by an atomic zero.
    let provided = |page: usize| unsafe { probe::writable(address.addr() + page) };
    if (0..length).step_by(PAGE).all(provided) { Ok(()) } else { Err(Errno::ENOMEM) }
}

/// Asks that a private anonymous page read as zeros in children of fork(2) and clone(2).
///
/// # Safety
/// The range must be a private anonymous mapping that is ours.
pub unsafe fn wipe_on_fork(address: *mut u8, length: usize) -> bool {
    // SAFETY: the caller's promise.
    preserving(|| unsafe { libc::madvise(address.cast(), length, libc::MADV_WIPEONFORK) }).is_ok()
}

/// A barrier on every thread of this process, at the cost of this one alone; false where the kernel
/// does not offer it.
pub fn process_barrier() -> bool {
    const PRIVATE_EXPEDITED: c_int = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: c_int = 1 << 4;
    let call = |command: c_int| {
        // SAFETY: membarrier(2) takes two integers and touches no memory.
        unsafe { call!(libc::SYS_membarrier, command, 0) }.is_ok()
    };
    call(PRIVATE_EXPEDITED) || (call(REGISTER_PRIVATE_EXPEDITED) && call(PRIVATE_EXPEDITED))
}
