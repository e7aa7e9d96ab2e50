//! System calls without the C library's `syscall`, which we define ourselves (`interpose::syscall`).
//!
//! Invariants: `errno` is not touched, the error travels as a value; nothing here is a cancellation point;
//! nothing allocates. On architectures without a way of their own here, `interpose` leaves `syscall` alone
//! and the C library's is used.

use super::errno::Errno;
use libc::c_long;

/// Makes a system call with up to six integers or pointers.
macro_rules! call {
    ($number:expr $(, $argument:expr)* $(,)?) => {
        $crate::os::raw::up_to_six($number, &[$($argument as usize),*])
    };
}
pub(crate) use call;

/// What the macro `call` expands to.
///
/// # Safety
/// The system call must be harmless with these arguments: what pointers among them point to must be valid for
/// what it does there.
#[inline(always)]
pub unsafe fn up_to_six(number: c_long, arguments: &[usize]) -> Result<c_long, Errno> {
    let argument = |place: usize| arguments.get(place).copied().unwrap_or(0);
    let arguments = [argument(0), argument(1), argument(2), argument(3), argument(4), argument(5)];
    // SAFETY: the caller's promise.
    let result = unsafe { enter(number, arguments) };
    // The last page of the address space is no address, so its numbers are free for errors.
    if (-4095..0).contains(&result) { Err(Errno(-result as libc::c_int)) } else { Ok(result) }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn enter(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> c_long {
    let result;
    // SAFETY: the caller's promise; the instruction overwrites rcx and r11 beside its result.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn enter(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> c_long {
    let result;
    // SAFETY: the caller's promise; only the result is overwritten.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    result
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn enter(number: c_long, [a, b, c, d, e, f]: [usize; 6]) -> c_long {
    // SAFETY: the caller's promise.
    let result = super::errno::preserving(|| unsafe { libc::syscall(number, a, b, c, d, e, f) });
    result.unwrap_or_else(|Errno(error)| -c_long::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::errno;

    #[test]
    fn results_and_errors_are_values() {
        errno::set(Errno(77));
        // SAFETY: neither touches memory that is not there.
        unsafe {
            assert_eq!(call!(libc::SYS_getpid), Ok(c_long::from(libc::getpid())));
            assert_eq!(call!(libc::SYS_close, -1i32), Err(Errno(libc::EBADF)));
            assert_eq!(call!(libc::SYS_close, usize::MAX), Err(Errno(libc::EBADF)));
        }
        assert_eq!(errno::get(), Errno(77));
    }

    /// All six arguments arrive, in order.
    #[test]
    fn six_arguments() {
        let mut page = [7u8; 64];
        let length = page.len();
        let (flags, protection) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_READ);
        // SAFETY: a mapping at an address of the kernel's choice disturbs nothing; the bytes copied are ours.
        unsafe {
            let map = call!(libc::SYS_mmap, 0usize, 4096usize, protection, flags, -1i32, 0usize).unwrap();
            let here = libc::iovec { iov_base: page.as_mut_ptr().cast(), iov_len: length };
            let there = libc::iovec { iov_base: map as *mut libc::c_void, iov_len: length };
            let pid = libc::getpid();
            let moved = call!(libc::SYS_process_vm_readv, pid, &raw const here, 1, &raw const there, 1, 0);
            assert_eq!(moved, Ok(length as c_long));
            assert_eq!(call!(libc::SYS_munmap, map, 4096usize), Ok(0));
        }
        assert_eq!(page, [0; 64]);
    }
}
