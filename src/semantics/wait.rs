//! Waiting: what senders and receivers have in common.
//!
//! First a little spinning, where that may save a sleep: never with one CPU, longer where it paid lately on
//! this queue, not at all where it did not pay a few times in a row (who should answer may be waiting for this very
//! CPU), but for a try now and then, and bounded, whatever happens in the queue meanwhile. Receivers wait for the next
//! message; senders for room for several: who gets room for one at a time contends with the receiver for each.
//!
//! Then, if this process has sent something since it waited last, it may give its CPU away once (sched_yield(2)): who
//! should answer may be waiting for this very CPU. With one CPU, or more processes than CPUs, that is how most answers
//! come: without a wake, which costs both sides more than all the rest of the call, and without the answerer being
//! put aside for each one that it woke. Who has sent nothing has given nobody anything to do, and sleeps.
//!
//! It gives up a time slice, if the CPU is wanted by somebody who has nothing to do with this queue. So a yield counts
//! as well spent only if the queue went on meanwhile as fast as sleeping would have let it; else none is tried again
//! for a while and for many waits, which bounds what such a slice can cost.
//!
//! Then in line and asleep, until the state of the participant says otherwise. Every sleep ends by itself,
//! sooner at first: that bounds what a waker can cost who dies between its commit and its wake.
//!
//! The sleep itself is the caller's: `msgsnd` and `msgrcv` come as [`Step`]s, so that nothing of ours is on the
//! stack while the C edge sleeps where it may be cancelled (`abi::edge`).

use crate::namespace::{Attached, Attachment};
use crate::os::errno::Errno;
use crate::os::futex::{Bed, Woken};
use crate::os::{clock, process};
use crate::queue::Queue;
use crate::queue::waiters;
use crate::txn::{self, Seat};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Nanoseconds of spinning at least, and at most. The least is what a peer needs that spins too; the most,
/// what one needs that must be woken first.
const SPIN: (u32, u32) = (3_000, 50_000);
/// After how many waits in a row that spun in vain none does any more.
const RESIGN: u32 = 4;
/// Of how many of those one spins longest, and the first that does: so that two that sleep find out when they need
/// not any more. Both have slept as often by then, and so try at the same time.
const EXPLORE: (u32, u32) = (64, 16);
/// Turns between two looks at the clock.
const TURNS: u32 = 16;
/// Turns between two looks for room, times the length of the text: room for half a queue of short texts takes longer to
/// come than for half a queue of long ones.
const LOOK: u64 = 8192;
/// Nanoseconds from which on a yield is asked what became of the queue meanwhile: less is no time slice.
const LONG: u64 = 100_000;
/// Nanoseconds from which on it was one of somebody who computes: all who use the queue should know.
const SLICE: u64 = 1_000_000;
/// Nanoseconds that a commit takes at most where all sleep and wake each other.
const PACE: u64 = 2_000;
/// Nanoseconds without a yield after one that was too long. A slice is some milliseconds.
const GRUDGE: u64 = 50_000_000;
/// After how many yields one sleeps: only who is woken is moved to a CPU that has nothing to do, so two that give one
/// CPU to each other would not notice that there is a second one.
const SLEEP_EVERY: u32 = 32;
/// Milliseconds of the first sleep, and of the longest.
const SLEEP: (u32, u32) = (100, 1000);

/// What ended a sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The state of the participant changed.
    Changed,
    /// The time was up, or somebody asks to look again.
    Look,
    /// We were not asleep when something changed: not in line, as far as anybody can tell.
    Absent,
    /// A signal handler ran.
    Interrupted,
    /// Somebody has cut the queue's files: nothing of it may be touched any more.
    Cut,
}

/// Where a call that begins notes what goes on with it after a sleep. (Beside its result, which is in registers: most
/// calls do not sleep.)
pub type Asleep<W> = Option<(W, Bed)>;

/// How far a call has come.
pub enum Step<W, T> {
    /// It is over.
    Done(Result<T, Errno>),
    /// It sleeps: where, and what goes on with it then.
    Sleep(W, Bed),
}

impl<W, T> Step<W, T> {
    /// What became of a call that has begun: see `Asleep`.
    pub fn of(result: Option<Result<T, Errno>>, asleep: Asleep<W>) -> Step<W, T> {
        match (result, asleep) {
            (None, Some((waiting, bed))) => Step::Sleep(waiting, bed),
            // Who gives no result sleeps; the error is not to be seen.
            (result, _) => Step::Done(result.unwrap_or(Err(Errno::EINVAL))),
        }
    }

    /// The result, or a note of what sleeps.
    pub fn or_asleep(self, asleep: &mut Asleep<W>) -> Option<Result<T, Errno>> {
        match self {
            Step::Done(result) => Some(result),
            Step::Sleep(waiting, bed) => {
                *asleep = Some((waiting, bed));
                None
            }
        }
    }

    /// The call's result, after as many sleeps as that takes; `woken` goes on after one.
    pub fn finish(mut self, woken: impl Fn(W, Woken) -> Step<W, T>) -> Result<T, Errno> {
        loop {
            match self {
                Step::Done(result) => return result,
                Step::Sleep(waiting, bed) => self = woken(waiting, bed.sleep()),
            }
        }
    }
}

/// Whether this process has sent something since it waited last.
static HAS_SENT: AtomicBool = AtomicBool::new(false);
/// Until when nothing is yielded, in nanoseconds. For the process: what else wants its CPU is the same for all queues. (The
/// queue has such a word too, for all its processes: else each would lose a time slice until it knew.)
static UNWILLING: AtomicU64 = AtomicU64::new(0);

/// Notes that a message was sent: somebody may have something to do now.
#[inline(always)]
pub fn has_sent() {
    // Relaxed, as all of these: guesses that every thread may improve. Looked at first, so that threads that send do not
    // take the line from each other.
    if !HAS_SENT.load(Ordering::Relaxed) {
        HAS_SENT.store(true, Ordering::Relaxed);
    }
}

/// `Attachment::courtesy`, what was learnt of yields: how many were well spent : 12 | of how many waits one yields,
/// as a logarithm : 4 | how many do not now : 16.
struct Courtesy<'a>(&'a AtomicU32);

impl Courtesy<'_> {
    /// The highest logarithm.
    const LEAST: u32 = 13;
    /// Up to this logarithm every wait yields: a few in vain say nothing.
    const FREE: u32 = 3;

    /// Asks whether this wait may; each question counts.
    fn allows(&self) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        let skip = word & 0xffff;
        if skip != 0 {
            self.0.store(word - 1, Ordering::Relaxed);
        }
        skip == 0
    }

    /// Notes a yield that was well spent.
    fn paid(&self) {
        let word = self.0.load(Ordering::Relaxed);
        let (count, level) = ((word >> 20).wrapping_add(1), word >> 16 & 15);
        let skip = u32::from(count.is_multiple_of(SLEEP_EVERY));
        self.0.store(count << 20 | level.saturating_sub(1) << 16 | skip, Ordering::Relaxed);
    }

    /// Notes one that was not, and how much worse that is than a mere try.
    fn unpaid(&self, by: u32) {
        let word = self.0.load(Ordering::Relaxed);
        let level = ((word >> 16 & 15) + by).min(Self::LEAST);
        let skip = (1 << level) >> Self::FREE;
        self.0.store(word & !0xf_ffff | level << 16 | skip, Ordering::Relaxed);
    }
}

/// How a wait stands to giving its CPU away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Yields {
    /// It may.
    Will,
    /// It has, and what that was worth shows now.
    Did,
    /// Not any more, or not at all.
    Not,
}

/// The waiting of one call.
pub struct Wait {
    milliseconds: u32,
    /// When it began, in nanoseconds; 0 if it has not.
    began: u64,
    /// For how long it may spin; 0 if not, or not any more.
    limit: u32,
    yields: Yields,
    /// What was seen of the queue before the last attempt.
    seen: u64,
}

/// `Attachment::patience`: waits that spun in vain, in a row : 12 | nanoseconds to spin : 20.
const VAIN: u32 = 20;

impl Wait {
    /// A call that has not waited yet.
    pub fn new() -> Wait {
        Wait { milliseconds: SLEEP.0, began: 0, limit: 0, yields: Yields::Not, seen: 0 }
    }

    /// Spins as long as it is likely to pay, over all attempts of the call, and then may yield; true if the queue
    /// changed.
    pub fn spin(&mut self, queue: &Queue, seat: &Seat, attached: &Attached) -> bool {
        let attachment: &Attachment = attached.attachment();
        if self.began == 0 {
            (self.began, self.seen) = (clock::nanoseconds(), queue.moment());
            self.limit = spinning(attachment);
            self.yields = self.yielding(attached);
            if self.limit != 0 {
                // Once more, so that nothing is missed that came before the first look.
                return true;
            }
        }
        if self.limit != 0 {
            if self.watch(queue, seat) {
                return true;
            }
            self.limit = 0;
            in_vain(attachment);
        }
        match self.yields {
            Yields::Will => self.let_others_run(queue, attached),
            Yields::Did => {
                Courtesy(&attachment.courtesy).unpaid(1);
                self.yields = Yields::Not;
                false
            }
            Yields::Not => false,
        }
    }

    /// Spins as long as it is likely to pay, until there is room for a text of some length and for a few more: who goes on
    /// as soon as one message fits contends with the receiver for each.
    pub fn spin_for_room(&mut self, queue: &Queue, attached: &Attached, length: u64) -> bool {
        let attachment: &Attachment = attached.attachment();
        if self.began == 0 {
            self.began = clock::nanoseconds();
            self.limit = spinning(attachment);
        }
        // Each look disturbs the receiver.
        let turns = (LOOK / length.max(1)).clamp(TURNS.into(), 4 * u64::from(TURNS)) as u32;
        let end = self.began + u64::from(self.limit);
        while self.limit != 0 && clock::nanoseconds() < end {
            Queue::pause(turns);
            if queue.has_room(length) {
                return true;
            }
        }
        if self.limit != 0 {
            self.limit = 0;
            in_vain(attachment);
        }
        false
    }

    /// Watches the queue as long as it may.
    fn watch(&mut self, queue: &Queue, seat: &Seat) -> bool {
        let end = self.began + u64::from(self.limit);
        let lookout = queue.lookout(self.seen);
        while clock::nanoseconds() < end {
            if queue.spin(seat, &lookout, TURNS) {
                self.seen = queue.moment();
                return true;
            }
        }
        false
    }

    /// Whether this wait may yield.
    fn yielding(&self, attached: &Attached) -> Yields {
        if !HAS_SENT.load(Ordering::Relaxed) {
            return Yields::Not;
        }
        HAS_SENT.store(false, Ordering::Relaxed);
        let in_queue = attached.reluctance().map_or(0, |until| until.load(Ordering::Relaxed));
        // What a peer wrote there that cannot be is not believed.
        let others = in_queue > self.began && in_queue - self.began <= GRUDGE;
        let willing = self.began >= UNWILLING.load(Ordering::Relaxed) && !others;
        if Courtesy(&attached.attachment().courtesy).allows() && willing { Yields::Will } else { Yields::Not }
    }

    /// Gives the CPU away once; true if the queue changed meanwhile.
    fn let_others_run(&mut self, queue: &Queue, attached: &Attached) -> bool {
        let before = clock::nanoseconds();
        process::yield_cpu();
        let (now, moment) = (clock::nanoseconds(), queue.moment());
        let (took, commits) = (now.saturating_sub(before), txn::commits(self.seen, moment));
        let changed = moment != self.seen;
        self.seen = moment;
        let courtesy = Courtesy(&attached.attachment().courtesy);
        if took > LONG && commits.saturating_mul(PACE) < took {
            UNWILLING.store(now + GRUDGE, Ordering::Relaxed);
            if let Some(until) = attached.reluctance().filter(|_| took > SLICE) {
                until.store(now + GRUDGE, Ordering::Relaxed);
            }
            courtesy.unpaid(Courtesy::LEAST);
            self.yields = Yields::Not;
        } else if changed {
            self.yields = Yields::Did;
        } else {
            courtesy.unpaid(1);
            self.yields = Yields::Not;
        }
        changed
    }

    /// Notes that the call was over without a sleep.
    pub fn paid(&self, attached: &Attached) {
        let attachment: &Attachment = attached.attachment();
        if self.yields == Yields::Did {
            Courtesy(&attachment.courtesy).paid();
        } else if self.limit != 0 {
            let patience = attachment.patience.load(Ordering::Relaxed) & ((1 << VAIN) - 1);
            // It may take as long the next time, and then some.
            attachment.patience.store((patience * 2).clamp(2 * SPIN.0, SPIN.1), Ordering::Relaxed);
        }
    }

    /// Where to sleep in line, while the participant's state is `resting` or that + 1; nowhere if it is not.
    pub fn bed(&self, queue: &Queue<'static>, seat: &Seat, resting: u32) -> Option<Bed> {
        let state = waiters::state(queue.memory(), seat);
        if txn::value(state) & !1 != resting {
            return None;
        }
        waiters::bed(queue.memory(), seat, state, self.milliseconds)
    }

    /// What a sleep there meant.
    ///
    /// One that did not end by a wake looks at the files' sizes before it touches the memory again: a server that
    /// waits for the next message survives that its files were truncated meanwhile.
    pub fn ended(&mut self, attached: &Attached, seat: &Seat, resting: u32, woken: Woken) -> Ended {
        if woken == Woken::Gone || (woken == Woken::TimedOut && !attached.is_whole()) {
            return Ended::Cut;
        }
        let queue = attached.queue();
        let now = waiters::state(queue.memory(), seat);
        match woken {
            Woken::Interrupted => Ended::Interrupted,
            Woken::Look | Woken::Gone => Ended::Absent,
            _ if txn::value(now) & !1 != resting => Ended::Changed,
            Woken::TimedOut => {
                self.milliseconds = (self.milliseconds * 2).min(SLEEP.1);
                Ended::Look
            }
            Woken::Woken => Ended::Look,
        }
    }
}

/// For how many nanoseconds a wait may spin.
fn spinning(attachment: &Attachment) -> u32 {
    // Relaxed: a guess that every thread may improve.
    let patience = attachment.patience.load(Ordering::Relaxed);
    let explores = explores(patience);
    // A program may choose its CPUs after it began.
    let alone = process::cpus() < 2 && !(explores && process::count_cpus() >= 2);
    if alone || (patience >> VAIN > RESIGN && !explores) {
        attachment.patience.store(patience.wrapping_add(1 << VAIN), Ordering::Relaxed);
        return 0;
    }
    let usual = (patience & ((1 << VAIN) - 1)).clamp(SPIN.0, SPIN.1);
    if explores { SPIN.1 } else { usual }
}

/// Notes that a wait spun in vain.
fn in_vain(attachment: &Attachment) {
    let patience = attachment.patience.load(Ordering::Relaxed);
    let less = ((patience & ((1 << VAIN) - 1)) / 2).clamp(SPIN.0, SPIN.1);
    attachment.patience.store((patience >> VAIN).wrapping_add(1) << VAIN | less, Ordering::Relaxed);
    if explores(patience) {
        process::count_cpus();
    }
}

/// Whether a wait spins longest, to see whether that pays by now.
fn explores(patience: u32) -> bool {
    (patience >> VAIN) % EXPLORE.0 == EXPLORE.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_until_allowed(courtesy: &Courtesy) -> u32 {
        (0..).find(|_| courtesy.allows()).expect("they end")
    }

    #[test]
    fn yields_in_vain_become_rare_and_never_end() {
        let word = AtomicU32::new(0);
        let courtesy = Courtesy(&word);
        let mut skipped = Vec::new();
        for _ in 0..20 {
            skipped.push(asked_until_allowed(&courtesy));
            courtesy.unpaid(1);
        }
        assert_eq!(skipped[..8], [0, 0, 0, 1, 2, 4, 8, 16]);
        assert_eq!(skipped[14..], [1024; 6]);
    }

    #[test]
    fn a_yield_that_was_too_long_makes_them_rare_at_once() {
        let word = AtomicU32::new(0);
        let courtesy = Courtesy(&word);
        courtesy.unpaid(Courtesy::LEAST);
        assert_eq!(asked_until_allowed(&courtesy), 1024);
        courtesy.unpaid(Courtesy::LEAST);
        assert_eq!(asked_until_allowed(&courtesy), 1024);
    }

    #[test]
    fn some_waits_sleep_even_if_all_yields_pay() {
        let word = AtomicU32::new(0);
        let courtesy = Courtesy(&word);
        let mut slept = 0;
        for _ in 0..1 << 16 {
            slept += asked_until_allowed(&courtesy);
            courtesy.paid();
        }
        assert_eq!(slept, (1 << 16) / SLEEP_EVERY - 1);
    }
}
