//! The edge of `msgsnd` and `msgrcv`: where a thread may be cancelled (pthreads(7)).
//!
//! A cancelled thread unwinds its stack from where it stands: in the C library it is a forced unwinding,
//! elsewhere something like a jump. Rust allows neither through frames of its own, so none is there when it can
//! happen. The exported functions are a few instructions of assembly that own the frame of the whole call, a
//! [`Call`], and call into Rust for the pieces between two sleeps:
//!
//! ```text
//!   assembly                                    Rust
//!   arguments to the frame
//!   pthread_testcancel      <- may unwind
//!   begin ------------------------------------> all checks, the message if it is there; else in line
//!                           <------------------ done: the result    |    asleep: where, and who goes on
//!   while asleep:
//!     cancellation at any moment
//!     the futex             <- may unwind
//!     cancellation deferred again
//!     resume ---------------------------------> looks why it woke, and tries again
//!                           <------------------ done               |     asleep
//!   return
//! ```
//!
//! That is how the C library makes its own blocking calls cancellation points, by the same function
//! (pthread_setcanceltype(3)). So a cancellation acts at entry, even with a bad identifier, and while the call
//! sleeps, at once; where cancellation is disabled it does not; and cleanup handlers run as they do for any
//! call of the C library.
//!
//! What a cancelled call leaves behind is what one leaves that was left by a jump: a participant in line, which
//! is not asleep and so given nothing for good ([`crate::queue::waiters`]); the thread's next call heals it (a
//! cleanup handler may make one), or the kernel marks it when the thread ends. A message handed over in the
//! moment of the cancellation goes back to its place.
//!
//! # Invariants
//! 1. Between the pieces nothing of ours is on the stack but the frame, and the frame needs nothing at its end.
//! 2. `Call::word` is null when the call is over, and only then.
//! 3. The cookie, by which the call's frame is known, is the last in the frame: near the caller's, whatever lies
//!    below it (`os::thread::SLACK`).
//!
//! On x86-64 and aarch64. Elsewhere, and through `syscall` everywhere, the same pieces are called in turn by
//! [`run`], and the call is no cancellation point.

use crate::os::errno::Errno;
use crate::os::futex::{Bed, Woken};
use crate::os::thread::{Cookie, SLACK};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::AtomicU32;
use libc::{c_int, c_long, timespec};

/// Room for what a sleeping call keeps.
const STATE: usize = 31;

/// The frame of a call.
#[repr(C)]
pub struct Call {
    /// The futex to sleep on, or null.
    word: *const AtomicU32,
    expected: u32,
    /// The type of cancellation that the thread had.
    cancel_type: c_int,
    deadline: timespec,
    /// What the futex said.
    slept: c_long,
    resume: Piece,
    /// What the call was made with.
    pub arguments: [usize; 5],
    state: MaybeUninit<[u64; STATE]>,
    /// See [`entering`](crate::os::thread::entering).
    pub cookie: Cookie,
}

/// A piece of a call.
///
/// # Safety
/// To be called with the frame of a call that has its arguments; to go on, with one that slept.
pub type Piece = unsafe extern "C" fn(*mut Call) -> isize;

const _: () = assert!(size_of::<Call>() + 128 < SLACK);

impl Call {
    /// Notes that the call is over.
    #[inline(always)]
    pub fn done(&mut self) {
        self.word = ptr::null();
    }

    /// The same for a call that has begun without a result.
    #[cold]
    pub fn sleep_if<W>(&mut self, asleep: Option<(W, Bed)>, resume: Piece) -> isize {
        match asleep {
            Some((waiting, bed)) => self.sleep(waiting, bed, resume),
            None => -1,
        }
    }

    /// Notes that the call sleeps, what it keeps meanwhile, and what goes on with it.
    #[cold]
    pub fn sleep<W>(&mut self, waiting: W, bed: Bed, resume: Piece) -> isize {
        const {
            assert!(size_of::<W>() <= 8 * STATE && align_of::<W>() <= 8);
        }
        self.word = ptr::from_ref(bed.word);
        self.expected = bed.expected;
        self.deadline = bed.deadline;
        self.resume = resume;
        // SAFETY: there is room for it.
        unsafe { self.state.as_mut_ptr().cast::<W>().write(waiting) };
        0
    }

    /// What was kept while the call slept, and how that ended.
    ///
    /// # Safety
    /// The call slept with a `W`, and has not been asked since.
    pub unsafe fn woken<W>(&mut self) -> (W, Woken) {
        let slept = if self.slept < 0 { Err(Errno(-self.slept as c_int)) } else { Ok(self.slept) };
        // SAFETY: the caller's promise.
        (unsafe { self.state.as_ptr().cast::<W>().read() }, Woken::new(slept))
    }
}

unsafe extern "C" fn nothing(_: *mut Call) -> isize {
    -1
}

/// Makes a call from its pieces, and is no cancellation point.
///
/// # Safety
/// As the call with these arguments.
#[inline(never)]
pub unsafe fn run(begin: Piece, arguments: [usize; 5]) -> isize {
    let mut call = Call {
        word: ptr::null(),
        expected: 0,
        cancel_type: 0,
        deadline: timespec { tv_sec: 0, tv_nsec: 0 },
        slept: 0,
        resume: nothing,
        arguments,
        state: MaybeUninit::uninit(),
        cookie: Cookie::new(),
    };
    // SAFETY: the caller's promise.
    let mut result = unsafe { begin(&mut call) };
    while !call.word.is_null() {
        // SAFETY: by invariant 2 this is what the piece before wants to sleep on, mapped as long as it waits.
        let word = unsafe { &*call.word };
        let slept = Bed { word, expected: call.expected, deadline: call.deadline }.sleep_raw();
        call.slept = slept.unwrap_or_else(|Errno(error)| -c_long::from(error));
        // SAFETY: the call slept.
        result = unsafe { (call.resume)(&mut call) };
    }
    result
}

/// The body of an exported function that is a cancellation point: its arguments, and its first piece.
#[cfg(target_arch = "x86_64")]
macro_rules! cancellation_point {
    ($begin:path, [$($argument:ident),*]) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            // The frame is as large as to align the stack.
            "sub rsp, {frame}",
            ".cfi_adjust_cfa_offset {frame}",
            "mov [rsp + {arguments}], rdi",
            "mov [rsp + {arguments} + 8], rsi",
            "mov [rsp + {arguments} + 16], rdx",
            "mov [rsp + {arguments} + 24], rcx",
            "mov [rsp + {arguments} + 32], r8",
            "call [rip + {testcancel}@GOTPCREL]",
            "mov rdi, rsp",
            "call {begin}",
            "cmp qword ptr [rsp + {word}], 0",
            "jne 3f",
            "2:",
            "add rsp, {frame}",
            ".cfi_adjust_cfa_offset -{frame}",
            "ret",
            ".cfi_adjust_cfa_offset {frame}",
            "3:",
            "mov edi, {asynchronous}",
            "lea rsi, [rsp + {cancel_type}]",
            "call [rip + {setcanceltype}@GOTPCREL]",
            "mov rdi, [rsp + {word}]",
            "mov esi, {operation}",
            "mov edx, [rsp + {expected}]",
            "lea r10, [rsp + {deadline}]",
            "xor r8d, r8d",
            "mov r9d, -1",
            "mov eax, {futex}",
            "syscall",
            "mov [rsp + {slept}], rax",
            "mov edi, [rsp + {cancel_type}]",
            "lea rsi, [rsp + {cancel_type}]",
            "call [rip + {setcanceltype}@GOTPCREL]",
            "mov rdi, rsp",
            "call [rsp + {resume}]",
            "cmp qword ptr [rsp + {word}], 0",
            "jne 3b",
            "jmp 2b",
            ".cfi_endproc",
            frame = const $crate::abi::edge::frame::SIZE,
            arguments = const $crate::abi::edge::frame::ARGUMENTS,
            word = const $crate::abi::edge::frame::WORD,
            expected = const $crate::abi::edge::frame::EXPECTED,
            cancel_type = const $crate::abi::edge::frame::CANCEL_TYPE,
            deadline = const $crate::abi::edge::frame::DEADLINE,
            slept = const $crate::abi::edge::frame::SLEPT,
            resume = const $crate::abi::edge::frame::RESUME,
            asynchronous = const $crate::abi::edge::frame::ASYNCHRONOUS,
            operation = const $crate::os::futex::OPERATION,
            futex = const libc::SYS_futex,
            testcancel = sym $crate::abi::edge::frame::pthread_testcancel,
            setcanceltype = sym $crate::abi::edge::frame::pthread_setcanceltype,
            begin = sym $begin,
        )
    };
}

/// The body of an exported function that is a cancellation point: its arguments, and its first piece.
#[cfg(target_arch = "aarch64")]
macro_rules! cancellation_point {
    ($begin:path, [$($argument:ident),*]) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            "stp x29, x30, [sp, #-16]!",
            ".cfi_def_cfa_offset 16",
            ".cfi_offset x29, -16",
            ".cfi_offset x30, -8",
            "mov x29, sp",
            ".cfi_def_cfa x29, 16",
            "sub sp, sp, #{frame}",
            "stp x0, x1, [sp, #{arguments}]",
            "stp x2, x3, [sp, #{arguments} + 16]",
            "str x4, [sp, #{arguments} + 32]",
            "bl {testcancel}",
            "mov x0, sp",
            "bl {begin}",
            "ldr x9, [sp, #{word}]",
            "cbnz x9, 3f",
            "2:",
            ".cfi_remember_state",
            "mov sp, x29",
            "ldp x29, x30, [sp], #16",
            ".cfi_def_cfa sp, 0",
            ".cfi_restore x29",
            ".cfi_restore x30",
            "ret",
            ".cfi_restore_state",
            "3:",
            "mov w0, #{asynchronous}",
            "add x1, sp, #{cancel_type}",
            "bl {setcanceltype}",
            "ldr x0, [sp, #{word}]",
            "mov x1, #{operation}",
            "ldr w2, [sp, #{expected}]",
            "add x3, sp, #{deadline}",
            "mov x4, xzr",
            "mov w5, #-1",
            "mov x8, #{futex}",
            "svc 0",
            "str x0, [sp, #{slept}]",
            "ldr w0, [sp, #{cancel_type}]",
            "add x1, sp, #{cancel_type}",
            "bl {setcanceltype}",
            "mov x0, sp",
            "ldr x9, [sp, #{resume}]",
            "blr x9",
            "ldr x9, [sp, #{word}]",
            "cbnz x9, 3b",
            "b 2b",
            ".cfi_endproc",
            frame = const $crate::abi::edge::frame::SIZE,
            arguments = const $crate::abi::edge::frame::ARGUMENTS,
            word = const $crate::abi::edge::frame::WORD,
            expected = const $crate::abi::edge::frame::EXPECTED,
            cancel_type = const $crate::abi::edge::frame::CANCEL_TYPE,
            deadline = const $crate::abi::edge::frame::DEADLINE,
            slept = const $crate::abi::edge::frame::SLEPT,
            resume = const $crate::abi::edge::frame::RESUME,
            asynchronous = const $crate::abi::edge::frame::ASYNCHRONOUS,
            operation = const $crate::os::futex::OPERATION,
            futex = const libc::SYS_futex,
            testcancel = sym $crate::abi::edge::frame::pthread_testcancel,
            setcanceltype = sym $crate::abi::edge::frame::pthread_setcanceltype,
            begin = sym $begin,
        )
    };
}

/// The body of an exported function that should be a cancellation point, and is none here.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
macro_rules! cancellation_point {
    ($begin:path, [$($argument:ident),*]) => {{
        let given = [$($argument as usize),*];
        let mut arguments = [0; 5];
        arguments[..given.len()].copy_from_slice(&given);
        // SAFETY: the caller's promise.
        unsafe { $crate::abi::edge::run($begin, arguments) as _ }
    }};
}

pub(crate) use cancellation_point;

/// What the assembly needs to know.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub mod frame {
    #![allow(missing_docs, reason = "offsets in `Call`, and the C library's own")]

    use super::Call;
    use core::mem::offset_of;
    use libc::c_int;

    // A return address lies between the caller's aligned stack and the frame on x86-64.
    #[cfg(target_arch = "x86_64")]
    pub const SIZE: usize = size_of::<Call>();
    #[cfg(target_arch = "aarch64")]
    pub const SIZE: usize = size_of::<Call>().next_multiple_of(16);
    #[cfg(target_arch = "x86_64")]
    const _: () = assert!(SIZE % 16 == 8);

    pub const WORD: usize = offset_of!(Call, word);
    pub const EXPECTED: usize = offset_of!(Call, expected);
    pub const CANCEL_TYPE: usize = offset_of!(Call, cancel_type);
    pub const DEADLINE: usize = offset_of!(Call, deadline);
    pub const SLEPT: usize = offset_of!(Call, slept);
    pub const RESUME: usize = offset_of!(Call, resume);
    pub const ARGUMENTS: usize = offset_of!(Call, arguments);
    /// `PTHREAD_CANCEL_ASYNCHRONOUS`, in glibc and musl.
    pub const ASYNCHRONOUS: c_int = 1;

    unsafe extern "C" {
        pub fn pthread_testcancel();
        pub fn pthread_setcanceltype(to: c_int, before: *mut c_int) -> c_int;
    }
}
