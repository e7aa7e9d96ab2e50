//! What is kept per thread: its id, its robust list, and the operations it is in the middle of.
//!
//! # The pending pointer
//! `list_op_pending` of a thread's robust list (see set_robust_list(2)) names one word. If the thread
//! dies, however it dies, and the word holds its id, the kernel sets `FUTEX_OWNER_DIED` in it. We point
//! it at the owner word of whatever the thread holds and put the old value back afterwards: a signal
//! handler may have interrupted the C library's own use of it, or ours.
//!
//! # Forks in the middle
//! A handler may fork(3) inside an operation and return, in the child too. There the operation would go on with
//! the parent's participant. So the child [disowns](disown) what its operations work on: whatever they still do
//! happens to nobody, and when such a call ends, [`entering`] makes it again, in the child's own right. Until then it
//! [may not begin](Thread::is_disowned) with anything anew: what came of that would come twice. With the kernel's queues
//! it is the same to see: the handler ran, and forked, before the call.
//!
//! Invariant: nothing here is believed under another [generation](super::process::generation).
//!
//! Only the thread itself, and handlers that interrupt it, touch its state; the cells need no ordering
//! between processors, only between a thread and its handlers: [`compiler_fence`].

use super::errno::{self, Errno, preserving};
use super::frames::{self, Lane};
use super::raw::call;
use super::{probe, process};
use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, compiler_fence};
use libc::{c_long, c_void};

/// The head of a robust list, as the kernel defines it (`struct robust_list_head`).
#[repr(C)]
struct RobustHead {
    list: Cell<*mut c_void>,
    futex_offset: Cell<c_long>,
    pending: AtomicUsize,
}

/// A place in the stack frame of a call into the library.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    address: usize,
    /// What was put there when the call began, unique in the thread; 0: nothing.
    cookie: u64,
}

impl Position {
    /// None.
    pub const NOWHERE: Position = Position { address: 0, cookie: 0 };
}

/// The state of the calling thread; all zero at first.
pub struct Thread {
    generation: Cell<u64>,
    tid: Cell<u32>,
    robust: Cell<*const RobustHead>,
    own_head: RobustHead,
    /// What its calls use.
    lane: Cell<*const Lane>,
    own_lane: Lane,
    /// The seat this thread found free last: where to look first.
    pub hint: Cell<u32>,
    /// Stack position of the call into the library that is under way, the innermost; see [`entering`].
    entered: Cell<Position>,
    /// Counts the calls: the next cookie.
    calls: Cell<u64>,
    /// The calls up to this number that are still under way were so in the parent: see [`disown`].
    disowned: Cell<u64>,
    /// See [`credentials`].
    credentials: Cell<u64>,
}

/// Where the calling thread's state lies.
///
/// On x86-64 the compiler's own thread-local variables in a shared library cost a function call each time
/// (`__tls_get_addr`), a good part of what a call into the library costs. So the variable is defined and found
/// the way `-mtls-dialect=gnu2` has it (TLS descriptors): three instructions in a library that was there from the
/// start, the same function call in one that was loaded later, and nothing taken from the little room that
/// such libraries share for variables at fixed places.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod local {
    use super::Thread;

    core::arch::global_asm!(
        ".pushsection .tbss.usysv_thread, \"awT\", @nobits",
        ".globl usysv_thread",
        ".hidden usysv_thread",
        ".type usysv_thread, @object",
        ".size usysv_thread, {size}",
        ".balign {align}",
        "usysv_thread:",
        ".zero {size}",
        ".popsection",
        size = const size_of::<Thread>(),
        align = const align_of::<Thread>(),
        options(att_syntax),
    );

    #[inline(always)]
    pub fn with<R>(f: impl FnOnce(&Thread) -> R) -> R {
        let address: *const Thread;
        // SAFETY: the sequence that the psABI prescribes, which the linker may turn into a simpler one. The answer
        // is the same whenever this thread asks (`pure`). The callee preserves all registers, or was meant to.
        unsafe {
            core::arch::asm!(
                "leaq usysv_thread@tlsdesc(%rip), %rax",
                "call *usysv_thread@tlscall(%rax)",
                "addq %fs:0, %rax",
                out("rax") address,
                clobber_abi("C"),
                options(att_syntax, pure, nomem),
            );
        }
        // SAFETY: this thread's, all zero at first, which is a valid state; it outlives `f`.
        f(unsafe { &*address })
    }
}

/// See the other one.
#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
mod local {
    use super::Thread;

    thread_local! {
        // SAFETY: cells, integers and pointers that may be null: zero is a valid state.
        static THREAD: Thread = const { unsafe { core::mem::zeroed() } };
    }

    #[inline(always)]
    pub fn with<R>(f: impl FnOnce(&Thread) -> R) -> R {
        THREAD.with(f)
    }
}

/// The calling thread: its state, asked for once in a call and passed down. Does not leave the thread.
#[derive(Clone, Copy)]
pub struct Caller(*const Thread);

impl core::ops::Deref for Caller {
    type Target = Thread;

    #[inline(always)]
    fn deref(&self) -> &Thread {
        // SAFETY: the state lives as long as its thread, and this does not leave it: a raw pointer is neither Send
        // nor Sync.
        unsafe { &*self.0 }
    }
}

/// The calling thread; its state is read afresh if it is a new one, or a fork.
#[inline(always)]
pub fn caller() -> Caller {
    let caller = Caller(local::with(ptr::from_ref));
    if caller.generation.get() != process::generation() {
        caller.renew();
    }
    caller
}

/// Runs a call into the library. To be used in a function whose own stack frame is small, right at the edge:
/// the frames of two calls from the same place then begin within [`SLACK`] of each other, however large what
/// lies below them is.
///
/// In the child of a fork in its middle the call is made again, unless it was interrupted while it waited: -1
/// and `EINTR` are as true there.
#[inline(always)]
pub fn entering<R: PartialEq + From<i8>>(call: impl Fn() -> R) -> R {
    loop {
        let cookie = Cookie::new();
        let result = cookie.entering(&call);
        if !cookie.is_disowned() || (result == R::from(-1) && errno::get() == Errno::EINTR) {
            return result;
        }
    }
}

/// What marks the stack frame of a call into the library; see [`entering`] for where it may lie.
#[repr(transparent)]
pub struct Cookie(Cell<u64>);

impl Cookie {
    /// One that marks nothing yet.
    pub const fn new() -> Cookie {
        Cookie(Cell::new(0))
    }

    /// Runs a call whose frame this marks.
    #[inline(always)]
    pub fn entering<R>(&self, call: impl FnOnce() -> R) -> R {
        local::with(|thread| {
            let number = thread.calls.get() + 1;
            thread.calls.set(number);
            self.0.set(number);
        });
        self.going_on(call)
    }

    /// Runs the next piece of that call.
    #[inline(always)]
    pub fn going_on<R>(&self, call: impl FnOnce() -> R) -> R {
        let address = core::hint::black_box(&raw const self.0).expose_provenance();
        let here = Position { address, cookie: self.0.get() };
        // Put back at the end, so that a handler leaves no trace in the call it interrupted.
        let before = local::with(|thread| thread.entered.replace(here));
        compiler_fence(Ordering::SeqCst);
        let result = call();
        compiler_fence(Ordering::SeqCst);
        local::with(|thread| thread.entered.set(before));
        // Up to here the cookie lies where it was put.
        core::hint::black_box(self);
        result
    }

    /// Whether the call began in the parent of this process.
    #[inline(always)]
    pub fn is_disowned(&self) -> bool {
        local::with(|thread| thread.disowned.get()) >= core::hint::black_box(&self.0).get()
    }
}

impl Default for Cookie {
    fn default() -> Cookie {
        Cookie::new()
    }
}

/// To be called in the child of a fork: passes what the operations that were in flight worked on to `disown`.
#[cold]
pub fn disown(disown: impl Fn(usize)) {
    // Not `with`: the frames are still the parent's.
    local::with(|thread| {
        // SAFETY: null, or a lane that lives as long as the thread.
        let Some(lane) = (unsafe { thread.lane.get().as_ref() }) else { return };
        for object in lane.objects() {
            disown(object);
            thread.disowned.set(thread.calls.get());
        }
    });
}

/// The calling thread's lane, whatever its generation: for the end of what began with it.
#[inline(always)]
pub fn with_lane(f: impl FnOnce(&Thread, &Lane)) {
    local::with(|thread| {
        // SAFETY: null, or a lane that lives as long as the thread.
        if let Some(lane) = unsafe { thread.lane.get().as_ref() } {
            f(thread, lane);
        }
    });
}

/// What is known of the thread's credentials: `generation << 32 | its number`, or 0. Not dropped in a child of
/// fork, which has its parent's credentials.
pub fn credentials<R>(f: impl FnOnce(&Cell<u64>) -> R) -> R {
    local::with(|thread| f(&thread.credentials))
}

/// How far apart the positions of two calls from the same place may be. Less than what the system puts on the
/// stack for a signal handler: that keeps a call in a handler apart from the one that it interrupted.
pub const SLACK: usize = 512;

/// Where a call stands that did not come through the edge: a test, or start-up.
#[cold]
#[inline(never)]
fn somewhere() -> Position {
    let here = 0u8;
    Position { address: core::hint::black_box(&raw const here).addr(), cookie: 0 }
}

impl Thread {
    /// The stack position of the call into the library that is under way.
    #[inline(always)]
    pub fn stack(&self) -> Position {
        let entered = self.entered.get();
        if entered.address != 0 { entered } else { somewhere() }
    }

    /// Opens a frame for a use of `object` by the call that is under way; `None` when handlers are nested too deeply.
    ///
    /// A fork before this finds no frame to disown: then what the call knew of the thread is the parent's, and is asked
    /// for once more. One after this finds the frame.
    #[inline(always)]
    pub fn open_frame(&self, object: usize) -> Option<u8> {
        loop {
            let lane = self.lane();
            let frame = lane.push(self.stack(), object)?;
            if self.generation.get() == process::generation() && ptr::eq(lane, self.lane()) {
                return Some(frame);
            }
            self.open_once_more(lane, frame);
        }
    }

    #[cold]
    #[inline(never)]
    fn open_once_more(&self, lane: &Lane, frame: u8) {
        lane.pop(frame);
        if self.generation.get() != process::generation() {
            self.renew();
        }
    }

    /// Whether the call that is under way began in the parent of this process, and something of it was [disowned](disown).
    #[cold]
    pub fn is_disowned(&self) -> bool {
        let cookie = self.entered.get().cookie;
        cookie != 0 && self.disowned.get() >= cookie
    }

    #[cold]
    #[inline(never)]
    fn renew(&self) {
        self.generation.set(0);
        self.tid.set(ask_tid());
        self.lane.set(frames::find(process::generation(), self.tid.get(), &self.own_lane));
        self.robust.set(self.find_robust_head());
        // The generation last: a handler that comes before this starts over, and so do we.
        compiler_fence(Ordering::SeqCst);
        self.generation.set(process::generation());
        self.hint.set(self.tid.get());
    }

    /// The robust list head the C library registered, or our own where there is none (a raw clone).
    fn find_robust_head(&self) -> *const RobustHead {
        let mut head: *const RobustHead = ptr::null();
        let mut length: usize = 0;
        // SAFETY: both results are valid places; 0 means the calling thread.
        let asked = unsafe { call!(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut length) };
        if asked.is_ok() && !head.is_null() && length == size_of::<RobustHead>() {
            return head;
        }
        let own = &raw const self.own_head;
        self.own_head.list.set(own.cast_mut().cast());
        // SAFETY: the head lives as long as the thread, in its thread-local storage, and is an empty list (it
        // points to itself).
        let _ = unsafe { call!(libc::SYS_set_robust_list, own, size_of::<RobustHead>()) };
        own
    }

    /// This thread's id, as it stands in owner words.
    #[inline(always)]
    pub fn tid(&self) -> u32 {
        self.tid.get()
    }

    /// What its calls use.
    #[inline(always)]
    pub fn lane(&self) -> &Lane {
        // SAFETY: set in `renew`, to a lane that lives as long as the thread.
        unsafe { &*self.lane.get() }
    }

    /// Points the pending pointer at `owner` and returns what it was.
    #[inline(always)]
    pub fn set_pending(&self, owner: &AtomicU32) -> usize {
        let head = self.head();
        let value = owner.as_ptr().addr().wrapping_sub(head.futex_offset.get() as usize);
        // Relaxed: the kernel reads it only after this thread has stopped running.
        let before = head.pending.load(Ordering::Relaxed);
        head.pending.store(value, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        before
    }

    /// The pending pointer.
    pub fn pending(&self) -> usize {
        self.head().pending.load(Ordering::Relaxed)
    }

    /// Puts an earlier value of the pending pointer back.
    #[inline(always)]
    pub fn restore_pending(&self, value: usize) {
        compiler_fence(Ordering::SeqCst);
        self.head().pending.store(value, Ordering::Relaxed);
    }

    #[inline(always)]
    fn head(&self) -> &RobustHead {
        // SAFETY: set in `renew` to the registered head, which lives as long as the thread.
        unsafe { &*self.robust.get() }
    }
}

/// Whether the stack frame at `there` has been left, seen from the call at `here`.
///
/// On one stack a frame is gone when the present position is at or above it, give or take [`SLACK`]; a frame
/// of the alternate signal stack is gone once we are off that stack. Below it, we may be in a handler that
/// interrupted it, or in a function called after a jump; if its cookie is overwritten, it is the latter.
#[cold]
pub fn is_gone(there: Position, here: Position) -> bool {
    if there == here && here.cookie != 0 {
        // The same call: it began something else in the middle of this.
        return false;
    }
    let alternate = alternate_stack();
    let overwritten = || {
        if there.cookie == 0 {
            return false;
        }
        let cookie = ptr::with_exposed_provenance::<u64>(there.address);
        // SAFETY: aligned, and readable just now: a stack of this thread, used before or in use.
        !probe::readable(there.address) || unsafe { cookie.read_volatile() } != there.cookie
    };
    match (alternate.contains(&here.address), alternate.contains(&there.address)) {
        (true, false) => overwritten(),
        (false, true) => true,
        _ => here.address.saturating_add(SLACK) >= there.address || overwritten(),
    }
}

fn alternate_stack() -> core::ops::Range<usize> {
    // SAFETY: an all-zero description is a valid value to be overwritten.
    let mut stack: libc::stack_t = unsafe { core::mem::zeroed() };
    let asked = preserving(|| {
        // SAFETY: asks only; `stack` is a valid place for the answer.
        unsafe { libc::sigaltstack(ptr::null(), &mut stack) }
    });
    if asked.is_err() || stack.ss_flags & libc::SS_DISABLE != 0 {
        return 0..0;
    }
    let start = stack.ss_sp.addr();
    start..start.saturating_add(stack.ss_size)
}

fn ask_tid() -> u32 {
    // SAFETY: gettid(2) cannot fail and touches nothing.
    unsafe { call!(libc::SYS_gettid) }.map_or(0, |tid| tid as u32)
}
