//! What the calls in flight use: a small stack of [`Frame`]s for each thread.
//!
//! A frame says which object a call uses and which participant it claimed there. It serves two readers:
//!
//! - the thread itself. A signal handler may start a call inside another, and may leave both by siglongjmp(3):
//!   [`Lane::abandoned`] finds frames whose call's stack frame is gone;
//! - any thread that wants to unmap an object: [`is_used`] says whether a frame of any thread names it.
//!
//! So the stacks of all threads lie in one table of [`Lane`]s. A thread that finds no place there has a lane of its own,
//! and nothing is unmapped any more.
//!
//! # Invariants
//! 1. A frame counts (depth) before it says what is used or held, and no longer than that: whatever is held is in a frame
//!    that counts. Its stack position is there from the start.
//! 2. Only the lane's thread, and handlers that interrupt it, write a lane; between them, [`compiler_fence`] orders. Other
//!    threads read depth and objects, after a barrier that every thread passes (membarrier(2)): so announcing a use
//!    costs no fence.

use super::process;
use super::thread::{self, Position};
use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence};

/// Uses that may be nested in one thread, of the calls in handlers that interrupted one another and within a call.
pub const DEPTH: usize = 16;

/// One use of an object by a call.
pub struct Frame {
    /// The address of a process-local object; 0 while the frame is empty.
    object: AtomicUsize,
    /// Which participant the call claimed there, + 1; 0: none.
    pub seat: Cell<u32>,
    /// Where the pending pointer pointed before that.
    pub pending: Cell<usize>,
    /// A stack position inside the call, and what lies there while its stack frame is intact.
    stack: Cell<Position>,
}

impl Frame {
    /// The object; 0 while the frame is empty.
    #[inline(always)]
    pub fn object(&self) -> usize {
        // Relaxed, wherever a lane's own thread reads or writes: invariant 2.
        self.object.load(Ordering::Relaxed)
    }

    /// Makes it the frame of the call at another stack position.
    pub fn moves_to(&self, stack: Position) {
        self.stack.set(stack);
        compiler_fence(Ordering::SeqCst);
    }
}

/// The frames of one thread.
#[repr(align(64))]
pub struct Lane {
    /// `generation << 32 | thread id`; 0 while nobody's.
    owner: AtomicU64,
    depth: AtomicUsize,
    frames: [Frame; DEPTH],
}

// SAFETY: what is not atomic is touched by the lane's thread alone (invariant 2).
unsafe impl Sync for Lane {}

const LANES: usize = 1024;
static TABLE: [Lane; LANES] = [const { Lane::nobodys() }; LANES];
/// How many of them were ever anybody's: those behind need not be looked at.
static TAKEN: AtomicU32 = AtomicU32::new(0);
/// Whether there are uses that no lane in the table shows.
static CROWDED: AtomicU32 = AtomicU32::new(0);

impl Lane {
    /// Nobody's.
    const fn nobodys() -> Lane {
        let frames = [const {
            Frame {
                object: AtomicUsize::new(0),
                seat: Cell::new(0),
                pending: Cell::new(0),
                stack: Cell::new(Position::NOWHERE),
            }
        }; DEPTH];
        Lane { owner: AtomicU64::new(0), depth: AtomicUsize::new(0), frames }
    }

    /// Opens a frame for a use of `object` by the call at a stack position; `None` when handlers are nested too deeply.
    #[inline(always)]
    pub fn push(&self, stack: Position, object: usize) -> Option<u8> {
        let depth = self.depth.load(Ordering::Relaxed);
        let frame = self.frames.get(depth)?;
        // Twice: a handler before the frame counts may use it, one after that must find the position.
        frame.stack.set(stack);
        compiler_fence(Ordering::SeqCst);
        self.depth.store(depth + 1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        frame.stack.set(stack);
        frame.seat.set(0);
        compiler_fence(Ordering::SeqCst);
        frame.object.store(object, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        if self.depth.load(Ordering::Relaxed) == depth {
            // A handler found the frame with the position that another had left there, and took it for gone.
            self.depth.store(depth + 1, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
        }
        Some(depth as u8)
    }

    /// Empties a frame and closes it, and those below that its call has emptied. If others still stand on it (left by a
    /// jump inside a handler), it is closed with them.
    #[inline(always)]
    pub fn pop(&self, number: u8) {
        let Some(frame) = self.frame(number) else { return };
        compiler_fence(Ordering::SeqCst);
        // Release: who sees the use ended sees its effects; then the object may go.
        frame.object.store(0, Ordering::Release);
        compiler_fence(Ordering::SeqCst);
        if self.depth.load(Ordering::Relaxed) != usize::from(number) + 1 {
            return;
        }
        self.depth.store(number.into(), Ordering::Release);
        if number != 0 {
            self.close_emptied(frame.stack.get());
        }
    }

    #[cold]
    fn close_emptied(&self, stack: Position) {
        while let Some(number) = self.depth.load(Ordering::Relaxed).checked_sub(1)
            && let Some(frame) = self.frames.get(number)
            && frame.object() == 0
            && frame.stack.get() == stack
        {
            self.depth.store(number, Ordering::Release);
        }
    }

    /// The frame of a number.
    #[inline(always)]
    pub fn frame(&self, number: u8) -> Option<&Frame> {
        self.frames.get(usize::from(number))
    }

    /// The participant claimed by the innermost call below a frame on the same object, + 1; 0 if there is none.
    #[cold]
    pub fn seat_below(&self, number: u8, object: usize) -> u32 {
        let below = self.frames.iter().take(number.into()).rev();
        below
            .filter(|frame| frame.object() == object)
            .map(|frame| frame.seat.get())
            .find(|&seat| seat != 0)
            .unwrap_or(0)
    }

    /// Whether any frame is open.
    #[inline(always)]
    pub fn is_busy(&self) -> bool {
        self.depth.load(Ordering::Relaxed) != 0
    }

    /// Whether no other can be opened.
    pub fn is_full(&self) -> bool {
        self.depth.load(Ordering::Relaxed) >= DEPTH
    }

    /// The newest frame if its call was left by siglongjmp: its stack frame is gone ([`thread::is_gone`]).
    pub fn abandoned(&self, here: Position) -> Option<(u8, &Frame)> {
        let number = self.depth.load(Ordering::Relaxed).checked_sub(1)?;
        let frame = self.frames.get(number)?;
        thread::is_gone(frame.stack.get(), here).then_some((number as u8, frame))
    }

    /// The objects in use.
    pub fn objects(&self) -> impl Iterator<Item = usize> {
        let depth = self.depth.load(Ordering::Acquire);
        // Acquire: pairs with the end of a use.
        self.frames
            .iter()
            .take(depth)
            .map(|frame| frame.object.load(Ordering::Acquire))
            .filter(|&object| object != 0)
    }

    /// Forgets all.
    fn clear(&self) {
        self.depth.store(0, Ordering::Relaxed);
        for frame in &self.frames {
            frame.object.store(0, Ordering::Relaxed);
        }
    }
}

/// Finds a thread a lane, empty; `own` if the table has none.
#[cold]
pub fn find(generation: u64, tid: u32, own: &Lane) -> &Lane {
    let generation = generation << 32;
    let mine = generation | u64::from(tid);
    for (number, lane) in TABLE.iter().enumerate() {
        let owner = lane.owner.load(Ordering::Relaxed);
        let taken = owner != 0
            && owner != mine
            && owner & !u64::from(u32::MAX) == generation
            && process::thread_exists(owner as u32);
        // AcqRel: the last owner's uses are over.
        if !taken && lane.owner.compare_exchange(owner, mine, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            lane.clear();
            // Relaxed: as what is in the lane, ordered by the barrier of whoever asks (invariant 2).
            TAKEN.fetch_max(number as u32 + 1, Ordering::Relaxed);
            return lane;
        }
    }
    show_no_more();
    own.clear();
    own
}

/// From now on there are uses that cannot be seen.
pub fn show_no_more() {
    CROWDED.store(1, Ordering::Relaxed);
}

/// Whether all uses can be seen: else everything may be in use.
pub fn all_are_shown() -> bool {
    // Relaxed: set once, for good.
    CROWDED.load(Ordering::Relaxed) == 0
}

/// Whether a thread of this process uses an object. To be asked after a barrier that every thread passes.
pub fn is_used(object: usize) -> bool {
    let generation = process::generation() << 32;
    let taken = TAKEN.load(Ordering::Relaxed) as usize;
    TABLE.iter().take(taken).any(|lane| {
        // Acquire: with the owner its uses are visible.
        let owner = lane.owner.load(Ordering::Acquire);
        owner != 0
            && owner & !u64::from(u32::MAX) == generation
            && lane.objects().any(|used| used == object)
            && process::thread_exists(owner as u32)
    })
}
