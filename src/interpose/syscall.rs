//! `syscall` of the C library: programs and language bindings reach the four calls through it, and change
//! credentials.
//!
//! What concerns us is sorted out by the number alone. Everything else goes on to the next definition with a
//! jump: registers and stack are as the caller left them, so it makes no difference how many arguments there
//! are. (The function is variadic. Its arguments are integers, and a caller passes them as it would to a
//! function of seven integers, on the architectures below.)
//!
//! - The four calls do what their namesakes do, but are no cancellation points, as nothing is through `syscall`.
//! - A change of credentials is announced, as `interpose::credentials` does. It is one of the calling thread
//!   alone.
//! - Until our constructor has run, the system call is made here, as the C library would.
//!
//! Only on x86-64 and aarch64; elsewhere `syscall` is the C library's.

use super::next::Next;
use crate::abi::{calls, edge, exports};
use crate::os::credentials::{changed, changed_here};
use crate::os::{errno, raw};
use libc::{c_int, c_long};

// SAFETY: see `Next`.
#[unsafe(link_section = ".data.usysv")]
static NEXT: Next = Next::new();

/// Looks the next definition up.
pub fn prepare() {
    NEXT.find(c"syscall");
}

#[cfg(target_arch = "x86_64")]
mod range {
    /// The first and the last of the numbers that lie together: most in between are not ours either.
    pub const FIRST: i64 = libc::SYS_msgget;
    pub const LAST: i64 = libc::SYS_capset;
}
#[cfg(target_arch = "aarch64")]
mod range {
    pub const FIRST: i64 = libc::SYS_capset;
    pub const LAST: i64 = libc::SYS_msgsnd;
}

/// `syscall` of the C library. cbindgen:ignore
///
/// # Safety
/// As syscall(2): what the system call asks for.
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    core::arch::naked_asm!(
        "lea rax, [rdi - {first}]",
        "cmp rax, {span}",
        "jbe {chosen}",
        "cmp rdi, {unshare}",
        "je {chosen}",
        "cmp rdi, {setns}",
        "je {chosen}",
        "mov rax, qword ptr [rip + {next}]",
        "test rax, rax",
        "je {unprepared}",
        "jmp rax",
        first = const range::FIRST,
        span = const range::LAST - range::FIRST,
        unshare = const libc::SYS_unshare,
        setns = const libc::SYS_setns,
        chosen = sym chosen,
        next = sym NEXT,
        unprepared = sym unprepared,
    )
}

/// `syscall` of the C library. cbindgen:ignore
///
/// # Safety
/// As syscall(2): what the system call asks for.
#[cfg(target_arch = "aarch64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    core::arch::naked_asm!(
        "sub x16, x0, #{first}",
        "cmp x16, #{span}",
        "b.ls 2f",
        "cmp x0, #{setns}",
        "b.eq 2f",
        "adrp x16, {next}",
        "ldr x16, [x16, :lo12:{next}]",
        "cbz x16, 3f",
        "br x16",
        "2:",
        "b {chosen}",
        "3:",
        "b {unprepared}",
        first = const range::FIRST,
        span = const range::LAST - range::FIRST,
        setns = const libc::SYS_setns,
        chosen = sym chosen,
        next = sym NEXT,
        unprepared = sym unprepared,
    )
}

/// The system call made here, with the C library's way of telling an error.
unsafe extern "C" fn unprepared(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    // SAFETY: the caller's promise.
    match unsafe { raw::call!(number, a, b, c, d, e, f) } {
        Ok(result) => result,
        Err(error) => {
            errno::set(error);
            -1
        }
    }
}

unsafe extern "C" fn pass_on(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    type Real = unsafe extern "C" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;
    let address = NEXT.known();
    if address.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { unprepared(number, a, b, c, d, e, f) };
    }
    // SAFETY: the C library's `syscall` may be called so (see above).
    let real = unsafe { core::mem::transmute::<*mut libc::c_void, Real>(address) };
    // SAFETY: the caller's promise.
    unsafe { real(number, a, b, c, d, e, f) }
}

/// What may concern us.
unsafe extern "C" fn chosen(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    use core::ptr::with_exposed_provenance_mut as pointer;
    // The kernel takes as much of a register as the argument's type has: the casts do the same.
    match number {
        libc::SYS_msgget => exports::msgget(a as c_int, b as c_int).into(),
        // SAFETY: the caller's promise.
        libc::SYS_msgsnd => unsafe { edge::run(calls::begin_send, [a, b, c, d, 0]) as c_long },
        // SAFETY: the caller's promise.
        libc::SYS_msgrcv => unsafe { edge::run(calls::begin_receive, [a, b, c, d, e]) as c_long },
        // SAFETY: the caller's promise.
        libc::SYS_msgctl => unsafe { exports::msgctl(a as c_int, b as c_int, pointer(c)).into() },
        libc::SYS_setuid
        | libc::SYS_setgid
        | libc::SYS_setreuid
        | libc::SYS_setregid
        | libc::SYS_setgroups
        | libc::SYS_setresuid
        | libc::SYS_setresgid
        | libc::SYS_setfsuid
        | libc::SYS_setfsgid
        | libc::SYS_capset => {
            changed_here();
            // SAFETY: the caller's promise.
            let result = unsafe { pass_on(number, a, b, c, d, e, f) };
            changed_here();
            result
        }
        libc::SYS_unshare | libc::SYS_setns => {
            changed();
            // SAFETY: the caller's promise.
            let result = unsafe { pass_on(number, a, b, c, d, e, f) };
            changed();
            result
        }
        // SAFETY: the caller's promise.
        _ => unsafe { pass_on(number, a, b, c, d, e, f) },
    }
}
