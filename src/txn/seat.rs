//! Participants: who may write which records, and what becomes of one that dies.
//!
//! A *seat* is a participant claimed for one operation. The claim is the owner word:
//!
//! | owner word                  | meaning                     | who may change it                        |
//! |-----------------------------|-----------------------------|------------------------------------------|
//! | 0                           | free                        | anybody: to its own thread id            |
//! | thread id                   | in an operation, or waiting | that thread; the kernel when it dies     |
//! | `FUTEX_OWNER_DIED`          | its owner died              | anybody: to its own thread id, then heal |
//!
//! Invariants:
//! 1. The thread's pending pointer names the owner word before the word holds its id, and until it no
//!    longer does (`os::thread`): whoever dies inside leaves `FUTEX_OWNER_DIED` behind. Not so in a queue that
//!    [several](is_mixed) pid namespaces use: the kernel goes by the thread id alone, and would mark the word of a
//!    living namesake. There the pointer names the word only while it holds the thread's id; who dies in
//!    the instruction before or after leaves a participant that is found by its owner's absence ([`reap`]).
//! 2. The pending pointer is set only after the word was seen free: a reused thread id cannot be marked
//!    by mistake.
//! 3. Only one pending pointer exists. A seat taken by a handler inside another operation on the same
//!    queue names the outer one (`OUTER`): who heals the inner one marks the outer dead too. `OUTER` is 0
//!    whenever a seat is free.
//! 4. What a participant holds is named in its link words by the transaction that took it; a seat is
//!    healed before it is used, so that nothing stays held by the dead.

use crate::os::process;
use crate::os::thread::{self, Caller, Position, Thread};
use crate::shm::layout::{
    self, FIRST_PARTICIPANTS, Held, MAX_PARTICIPANTS, PARTICIPANT_WORDS, participant, superblock,
};
use crate::shm::{Mapping, half_of};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

const DIED: u32 = libc::FUTEX_OWNER_DIED;
const TID: u32 = libc::FUTEX_TID_MASK;

/// A participant claimed by the calling thread. (Two words, so that it stays in registers.)
pub struct Seat<'a> {
    words: &'a [AtomicU64; PARTICIPANT_WORDS],
    /// `its index : 32 | the frame in the thread's lane that names it : 8 | traits`.
    bits: u64,
}

const FRAME: u32 = 32;
/// The last owner died, or left by siglongjmp.
const INHERITED: u64 = 1 << 40;
/// It names another that this thread interrupted.
const NESTED: u64 = 1 << 41;
/// In which order it is given back: see invariant 1.
const MIXED: u64 = 1 << 42;
/// The frame is its own, and closed with it.
const FRAMED: u64 = 1 << 43;

/// How many participants are in use in `memory`, bounds-checked.
#[inline(always)]
pub fn seats(memory: &Mapping) -> u32 {
    reserved(memory).clamp(FIRST_PARTICIPANTS, MAX_PARTICIPANTS)
}

/// The same, as the memory has it.
#[inline(always)]
fn reserved(memory: &Mapping) -> u32 {
    let word = memory.half(superblock::PARTICIPANTS);
    // Acquire: pairs with `grow`; the pages below the number were reserved before it was stored.
    word.map_or(0, |word| word.load(Ordering::Acquire))
}

fn half(memory: &Mapping, index: u32, which: u64) -> Option<&AtomicU32> {
    memory.half(layout::participant_offset(index) + which)
}

/// Whether the owner of a participant died.
///
/// Only if anybody may claim it, too: the kernel leaves no thread id beside its mark, and what a hostile peer
/// writes there must not look like work that can be done, and be looked for again and again.
#[inline]
pub fn is_dead(memory: &Mapping, index: u32) -> bool {
    half(memory, index, participant::OWNER)
        // Relaxed: the kernel's mark; a stale look only delays the finding.
        .is_some_and(|owner| owner.load(Ordering::Relaxed) & (DIED | TID) == DIED)
}

impl<'a> Seat<'a> {
    /// Claims a participant of `memory` for an operation of a caller. `None` when all are taken, or this thread's
    /// handlers are nested too deeply.
    pub fn claim(memory: &'a Mapping, object: usize, caller: Caller) -> Option<Seat<'a>> {
        Seat::framed(object, caller, |frame| Seat::claim_in(memory, caller, frame))
    }

    /// One claimed with a frame of its own, which goes with it.
    fn framed(object: usize, caller: Caller, claim: impl FnOnce(u8) -> Option<Seat<'a>>) -> Option<Seat<'a>> {
        let frame = caller.open_frame(object)?;
        let seat = claim(frame);
        if seat.is_none() {
            caller.lane().pop(frame);
        }
        seat.map(|seat| Seat { bits: seat.bits | FRAMED, ..seat })
    }

    /// The same, to be named by a frame that its caller has opened.
    #[inline(always)]
    pub fn claim_in(memory: &'a Mapping, caller: Caller, frame: u8) -> Option<Seat<'a>> {
        // Usually the one that this thread had last is free.
        let index = caller.hint.get();
        if index < reserved(memory)
            && let Some(seat) = Seat::try_index(memory, &caller, frame, index)
        {
            return Some(seat);
        }
        Seat::claim_another(memory, caller, frame)
    }

    #[cold]
    #[inline(never)]
    fn claim_another(memory: &'a Mapping, caller: Caller, frame: u8) -> Option<Seat<'a>> {
        /// How often others may be faster.
        const PATIENCE: u32 = 1 << 20;
        for _ in 0..PATIENCE {
            if !search(memory, &caller) {
                break;
            }
            let seat = Seat::try_index(memory, &caller, frame, caller.hint.get());
            if seat.is_some() {
                return seat;
            }
        }
        None
    }

    /// Claims the participant `index` if it is free or dead.
    pub fn claim_at(memory: &'a Mapping, object: usize, index: u32) -> Option<Seat<'a>> {
        let caller = thread::caller();
        Seat::framed(object, caller, |frame| Seat::try_index(memory, &caller, frame, index))
    }

    #[inline(always)]
    fn try_index(memory: &'a Mapping, thread: &Thread, number: u8, index: u32) -> Option<Seat<'a>> {
        let words = memory.participant(index)?;
        let frame = thread.lane().frame(number)?;
        let owner = half_of(words, participant::OWNER)?;
        let outer = half_of(words, participant::OUTER)?;
        let found = owner.load(Ordering::Relaxed);
        if found & TID != 0 {
            return None;
        }
        let mixed = is_mixed(memory);
        frame.seat.set(index + 1);
        frame.pending.set(thread.pending());
        compiler_fence(Ordering::SeqCst);
        if !mixed {
            thread.set_pending(owner);
        }
        // Acquire: what the last owner did before its release is visible. By invariants 1 and 2 the
        // pending pointer names the word by now.
        if owner.compare_exchange(found, thread.tid(), Ordering::Acquire, Ordering::Relaxed).is_err() {
            thread.restore_pending(frame.pending.get());
            frame.seat.set(0);
            return None;
        }
        let mut traits = 0;
        if mixed {
            thread.set_pending(owner);
            traits |= MIXED;
        }
        if found & DIED != 0 {
            mark_outer_dead(memory, index, outer);
            traits |= INHERITED;
        }
        // By invariant 3: if this operation interrupted one on the same queue, name it.
        if number != 0 {
            let below = thread.lane().seat_below(number, frame.object());
            if below != 0 {
                half_of(words, participant::OUTER_TID)?.store(thread.tid(), Ordering::Relaxed);
                outer.store(below, Ordering::Relaxed);
                traits |= NESTED;
            }
        }
        half_of(words, participant::PID_NAMESPACE)?.store(process::pid_namespace(), Ordering::Relaxed);
        Some(Seat { words, bits: u64::from(index) | u64::from(number) << FRAME | traits })
    }

    /// Takes over the frame of an operation that this thread left by siglongjmp, if there is one on
    /// `memory`: it may still own its participant.
    pub fn recover(memory: &'a Mapping, object: usize, stack: Position) -> Recovery<'a> {
        let caller = thread::caller();
        let lane = caller.lane();
        let Some((number, frame)) = lane.abandoned(stack) else {
            return Recovery::Nothing;
        };
        if frame.object() != 0 && frame.object() != object {
            return Recovery::Nothing;
        }
        // From here on it is this call's: a handler that interrupts the healing must not heal it too, and go on with the
        // participant that we still use. If one did so before, the frame is empty by now.
        frame.moves_to(stack);
        let owned = frame.seat.get().checked_sub(1).filter(|_| frame.object() != 0).and_then(|index| {
            let words = memory.participant(index)?;
            let owner = half_of(words, participant::OWNER)?;
            (owner.load(Ordering::Relaxed) == caller.tid()).then_some((words, owner, index))
        });
        let Some((words, owner, index)) = owned else {
            lane.pop(number);
            return Recovery::Again;
        };
        let pending = match caller.set_pending(owner) {
            // Left by the jump; what was there before is not known any more.
            before if before == caller.pending() => 0,
            before => before,
        };
        frame.pending.set(pending);
        let mixed = if is_mixed(memory) { MIXED } else { 0 };
        let traits = INHERITED | NESTED | FRAMED | mixed;
        Recovery::Seat(Seat { words, bits: u64::from(index) | u64::from(number) << FRAME | traits })
    }

    /// Its index.
    #[inline(always)]
    pub fn index(&self) -> u32 {
        self.bits as u32
    }

    /// The frame that names it.
    #[inline(always)]
    fn frame(&self) -> u8 {
        (self.bits >> FRAME) as u8
    }

    /// Whether the last owner died, or left by siglongjmp: heal before use.
    #[inline(always)]
    pub fn inherited(&self) -> bool {
        self.bits & INHERITED != 0
    }

    #[inline(always)]
    fn half(&self, offset: u64) -> &'a AtomicU32 {
        /// For an offset that is none; the offsets are constants.
        static NOWHERE: AtomicU32 = AtomicU32::new(0);
        half_of(self.words, offset).unwrap_or(&NOWHERE)
    }

    /// The same, for a function that is called while it is held.
    #[inline(always)]
    pub fn alias(&self) -> Seat<'a> {
        Seat { ..*self }
    }

    /// Asks the processor for the record that will probably be in force, while it still waits for `cur`, which says so.
    #[inline(always)]
    pub fn expect_peer(&self, memory: &Mapping) {
        // Relaxed, here and below: a guess.
        memory.expect_to_read(self.half(participant::PEER).load(Ordering::Relaxed));
    }

    /// Notes which record was in force, for [`Seat::expect_peer`]. One's own is at hand anyway.
    #[inline(always)]
    pub fn found(&self, record: u32) {
        if record >> 1 != self.index() {
            let offset = layout::record_offset(record).unwrap_or(0);
            self.half(participant::PEER).store(offset as u32, Ordering::Relaxed);
        }
    }

    /// One of the participant's link words.
    #[inline(always)]
    pub fn link(&self, which: Held) -> &'a AtomicU64 {
        &self.words[which.word()]
    }

    /// This thread's id.
    pub fn tid(&self) -> u32 {
        // Relaxed: written by this thread.
        self.half(participant::OWNER).load(Ordering::Relaxed) & TID
    }

    /// Leaves the participant as it is, because the memory must not be touched any more.
    #[cold]
    pub fn forget(self) {
        self.close(|thread, pending| thread.restore_pending(pending));
    }

    /// Gives the participant back.
    #[inline(always)]
    pub fn release(self) {
        if self.bits & NESTED != 0 {
            self.half(participant::OUTER).store(0, Ordering::Relaxed);
        }
        self.close(|thread, pending| {
            let mixed = self.bits & MIXED != 0;
            if mixed {
                thread.restore_pending(pending);
            }
            // Release: the next owner sees everything done here. By invariant 1 before the pending pointer
            // changes, or after.
            self.half(participant::OWNER).store(0, Ordering::Release);
            if !mixed {
                thread.restore_pending(pending);
            }
        });
    }

    /// Lets `end` put the pending pointer back to what it was, and then empties the frame.
    #[inline(always)]
    fn close(&self, end: impl FnOnce(&Thread, usize)) {
        thread::with_lane(|thread, lane| {
            let Some(frame) = lane.frame(self.frame()) else { return };
            end(thread, frame.pending.get());
            compiler_fence(Ordering::SeqCst);
            frame.seat.set(0);
            if self.bits & FRAMED != 0 {
                lane.pop(self.frame());
            }
        });
    }
}

/// Whether threads of several pid namespaces use the queue, as far as its participants know: then thread ids are not
/// unique. Those of an unknown namespace may be anybody's.
#[inline(always)]
fn is_mixed(memory: &Mapping) -> bool {
    let mine = process::pid_namespace();
    // Relaxed: the number alone; it changes twice at most.
    let known = memory.half(superblock::PID_NAMESPACE).map_or(SEVERAL, |known| known.load(Ordering::Relaxed));
    mine == 0 || (known != mine && !is_first(memory, mine))
}

/// Notes that a pid namespace uses the queue; true if it is the only one so far.
#[cold]
#[inline(never)]
fn is_first(memory: &Mapping, mine: u32) -> bool {
    let Some(known) = memory.half(superblock::PID_NAMESPACE) else { return false };
    // Relaxed, here and below: the number alone.
    match known.compare_exchange(0, mine, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => true,
        Err(there) if there == mine => true,
        Err(SEVERAL) => false,
        Err(_) => {
            known.store(SEVERAL, Ordering::Relaxed);
            false
        }
    }
}

/// In `superblock::PID_NAMESPACE`: more than one.
const SEVERAL: u32 = u32::MAX;

/// Looks for a participant that can be claimed, and notes it in the thread's hint; false if all are taken.
#[cold]
#[inline(never)]
fn search(memory: &Mapping, thread: &Thread) -> bool {
    let mut swept = false;
    loop {
        let count = seats(memory);
        let start = thread.hint.get() % count;
        for index in (start..count).chain(0..start) {
            // Relaxed: a hint.
            if half(memory, index, participant::OWNER).is_some_and(|o| o.load(Ordering::Relaxed) & TID == 0) {
                thread.hint.set(index);
                return true;
            }
        }
        if count == MAX_PARTICIPANTS {
            if swept || !sweep(memory) {
                return false;
            }
            swept = true;
        } else if grow(memory, count).is_none() {
            return false;
        }
    }
}

/// What [`Seat::recover`] found.
pub enum Recovery<'a> {
    /// No operation was abandoned here, or one on another queue comes first.
    Nothing,
    /// A frame that held nothing was dropped; look again.
    Again,
    /// A participant to heal and release; then look again.
    Seat(Seat<'a>),
}

/// By invariant 3: the thread that died inside a handler held the interrupted participant too.
#[cold]
fn mark_outer_dead(memory: &Mapping, index: u32, outer: &AtomicU32) {
    let below = outer.swap(0, Ordering::Relaxed);
    if below == 0 || below > MAX_PARTICIPANTS {
        return;
    }
    let owner = half(memory, below - 1, participant::OWNER);
    let tid = half(memory, index, participant::OUTER_TID).map_or(0, |tid| tid.load(Ordering::Relaxed));
    if let Some(owner) = owner.filter(|_| tid != 0) {
        // AcqRel: as the kernel's own mark would.
        let _ = owner.compare_exchange(tid, DIED, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Doubles the participants in use, reserving their pages first.
#[cold]
fn grow(memory: &Mapping, count: u32) -> Option<()> {
    let to = (count + 1).saturating_mul(2).saturating_sub(1).min(MAX_PARTICIPANTS);
    let start = layout::participant_offset(count);
    memory.reserve(start, layout::participant_offset(to) - start).ok()?;
    // Release: pairs with the acquire load in `seats`.
    memory.half(superblock::PARTICIPANTS)?.fetch_max(to, Ordering::Release);
    Some(())
}

/// All participants are taken: looks for owners whose threads are gone without the kernel having marked them.
#[cold]
fn sweep(memory: &Mapping) -> bool {
    (0..seats(memory)).fold(false, |found, index| found | reap(memory, index))
}

/// Marks a participant whose thread is gone without the kernel having marked it: its pending pointer named
/// something else, as it does after a jump out of a handler's operation on another queue. Only owners of our
/// own pid namespace can be judged. True if it was such a one.
#[cold]
pub fn reap(memory: &Mapping, index: u32) -> bool {
    let Some(owner) = half(memory, index, participant::OWNER) else { return false };
    let namespace = half(memory, index, participant::PID_NAMESPACE).map(|n| n.load(Ordering::Relaxed));
    let found = owner.load(Ordering::Relaxed);
    let tid = found & TID;
    let ours = namespace == Some(process::pid_namespace()) && process::pid_namespace() != 0;
    // AcqRel: as the kernel's own mark would.
    tid != 0
        && ours
        && !process::thread_exists(tid)
        && owner.compare_exchange(found, DIED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
