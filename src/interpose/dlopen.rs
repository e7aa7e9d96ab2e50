//! `dlopen` of the C library, without `RTLD_DEEPBIND`.
//!
//! A module loaded with that flag finds its own libraries' symbols first, and so the C library's `msgget`
//! instead of ours: PHP loads its extensions so. The flag is dropped and everything else left as it is. Who
//! calls matters to dlopen(3), which looks at its return address for the search path (`RUNPATH`, `$ORIGIN`) and
//! the name space: so this is a jump, and the return address remains the caller's.
//!
//! What remains: a module that relies on the flag to find another version of a symbol than the program has
//! finds the program's. `dlmopen` is left alone: a name space of its own has a C library of its own.
//!
//! Only on x86-64 and aarch64; elsewhere `dlopen` is the C library's.

use super::next::Next;
use libc::{c_char, c_int, c_void};

// SAFETY: see `Next`.
#[unsafe(link_section = ".data.usysv")]
static NEXT: Next = Next::new();

/// Looks the next definition up.
pub extern "C" fn prepare() -> *mut c_void {
    NEXT.find(c"dlopen")
}

/// `dlopen` of the C library. cbindgen:ignore
///
/// # Safety
/// As dlopen(3): the constructors of what is loaded are run.
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "and esi, {others}",
        "mov rax, qword ptr [rip + {next}]",
        "test rax, rax",
        "je 2f",
        "jmp rax",
        "2:",
        "push rdi",
        ".cfi_adjust_cfa_offset 8",
        "push rsi",
        ".cfi_adjust_cfa_offset 8",
        "sub rsp, 8",
        ".cfi_adjust_cfa_offset 8",
        "call {prepare}",
        "add rsp, 8",
        ".cfi_adjust_cfa_offset -8",
        "pop rsi",
        ".cfi_adjust_cfa_offset -8",
        "pop rdi",
        ".cfi_adjust_cfa_offset -8",
        // Without a next definition nothing can be loaded: null.
        "test rax, rax",
        "je 3f",
        "jmp rax",
        "3:",
        "ret",
        ".cfi_endproc",
        others = const !libc::RTLD_DEEPBIND,
        next = sym NEXT,
        prepare = sym prepare,
    )
}

/// `dlopen` of the C library. cbindgen:ignore
///
/// # Safety
/// As dlopen(3): the constructors of what is loaded are run.
#[cfg(target_arch = "aarch64")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "and w1, w1, #{others}",
        "adrp x16, {next}",
        "ldr x16, [x16, :lo12:{next}]",
        "cbz x16, 2f",
        "br x16",
        "2:",
        "stp x29, x30, [sp, #-32]!",
        ".cfi_def_cfa_offset 32",
        ".cfi_offset x29, -32",
        ".cfi_offset x30, -24",
        "stp x0, x1, [sp, #16]",
        "bl {prepare}",
        "mov x16, x0",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        ".cfi_def_cfa_offset 0",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "cbz x16, 3f",
        "br x16",
        // Without a next definition nothing can be loaded: null.
        "3:",
        "mov x0, xzr",
        "ret",
        ".cfi_endproc",
        others = const !libc::RTLD_DEEPBIND,
        next = sym NEXT,
        prepare = sym prepare,
    )
}
