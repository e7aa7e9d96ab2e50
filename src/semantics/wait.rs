//! Waiting: what senders and receivers have in common.
//!
//! First a little spinning, where that may save a sleep: never with one CPU, longer where it paid lately on
//! this queue, not at all where it did not pay a few times in a row (who should answer may be waiting for this very
//! CPU), but for a try now and then, and bounded, whatever happens in the queue meanwhile. Only receivers spin: a
//! sender that finds a queue full and spins gets room for one message at a time, and contends with the receiver for
//! each; one that sleeps finds room for many.
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
use core::sync::atomic::Ordering;

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
    /// What became of a call that has begun: see [`Asleep`].
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

/// The waiting of one call.
pub struct Wait {
    milliseconds: u32,
    /// When it began to spin, in nanoseconds; 0 if it did not.
    began: u64,
    /// For how long it may.
    limit: u32,
    /// What was seen of the queue before the last attempt.
    seen: u64,
}

/// `Attachment::patience`: waits that spun in vain, in a row : 12 | nanoseconds to spin : 20.
const VAIN: u32 = 20;

impl Wait {
    /// A call that has not waited yet.
    pub fn new() -> Wait {
        Wait { milliseconds: SLEEP.0, began: 0, limit: 0, seen: 0 }
    }

    /// Spins as long as it is likely to pay, over all attempts of the call; true if the queue changed.
    pub fn spin(&mut self, queue: &Queue, attached: &Attached) -> bool {
        let attachment: &Attachment = attached.attachment();
        // Relaxed: a guess that every thread may improve.
        let patience = attachment.patience.load(Ordering::Relaxed);
        let vain = patience >> VAIN;
        let explores = vain % EXPLORE.0 == EXPLORE.1;
        if self.began == 0 {
            // A program may choose its CPUs after it began.
            let alone = process::cpus() < 2 && !(explores && process::count_cpus() >= 2);
            if alone || (vain > RESIGN && !explores) {
                attachment.patience.store(patience.wrapping_add(1 << VAIN), Ordering::Relaxed);
                return false;
            }
        }
        let now = clock::nanoseconds();
        if self.began == 0 {
            let usual = (patience & ((1 << VAIN) - 1)).clamp(SPIN.0, SPIN.1);
            self.limit = if explores { SPIN.1 } else { usual };
            (self.began, self.seen) = (now, queue.moment());
            // Once more, so that nothing is missed that came before the first look.
            return true;
        }
        let end = self.began + u64::from(self.limit);
        let mut now = now;
        while now < end {
            if queue.spin(self.seen, TURNS) {
                self.seen = queue.moment();
                return true;
            }
            now = clock::nanoseconds();
        }
        let less = (patience & ((1 << VAIN) - 1)) / 2;
        attachment
            .patience
            .store(vain.wrapping_add(1) << VAIN | less.clamp(SPIN.0, SPIN.1), Ordering::Relaxed);
        if explores {
            process::count_cpus();
        }
        false
    }

    /// Notes that the call was over without a sleep.
    pub fn paid(&self, attached: &Attached) {
        let attachment: &Attachment = attached.attachment();
        let patience = attachment.patience.load(Ordering::Relaxed) & ((1 << VAIN) - 1);
        // It may take as long the next time, and then some.
        attachment.patience.store((patience * 2).clamp(2 * SPIN.0, SPIN.1), Ordering::Relaxed);
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
