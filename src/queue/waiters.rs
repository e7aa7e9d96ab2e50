//! Who waits, in which order, and how they are served.
//!
//! A participant that finds nothing to do stands in a line, of receivers or of senders, in the very
//! transaction that found nothing: no wake-up can fall between. The kernel's rules hold:
//!
//! - A sender hands its message to the first waiting receiver that matches; `msg_qnum` never rises.
//! - A receiver whose buffer is too small leaves the line with `E2BIG`, and the walk goes on.
//! - A receiver that is not asleep (it runs a signal handler, or is stopped) is not in the line. We learn
//!   that from the wake itself: if it finds nobody asleep, the message is taken back and sent once more
//!   ([`take_back`]).
//! - Senders that fit are woken in order; they try again, and a later one that fits may come first.
//!
//! # `STATE` of a participant
//! | value            | meaning                              | changed by                      | to                 |
//! |------------------|--------------------------------------|---------------------------------|--------------------|
//! | [`IDLE`]         | does not wait                        | its owner                       | `WAITING`, `FULL`  |
//! | [`WAITING`], +1  | in the receivers' line (nudged)      | a sender, owner, healer, nudger | all below, `IDLE`  |
//! | [`FULL`], +1     | in the senders' line (nudged)        | a receiver, owner, healer       | `GO`, `IDLE`       |
//! | [`GO`]           | out of line: look again              | its owner, healer               | `IDLE`             |
//! | [`TOO_BIG`]      | out of line: the answer is `E2BIG`   | its owner, healer               | `IDLE`             |
//! | [`HANDED`] \| m  | out of line: message m is its own    | its owner, healer, the sender   | `IDLE`, `GO`       |
//!
//! The low half of the word, tag bits included, is what the participant sleeps on.

use super::pool;
use super::tx::Tx;
use crate::os::futex;
use crate::shm::Mapping;
use crate::shm::layout::{self, Held, Position, message, participant};
use crate::txn::{Damaged, Seat, seats};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// See the table above.
pub const IDLE: u32 = 0;
/// See the table above.
pub const WAITING: u32 = 2;
/// See the table above.
pub const FULL: u32 = 4;
/// See the table above.
pub const GO: u32 = 6;
/// See the table above.
pub const TOO_BIG: u32 = 7;
/// See the table above.
pub const HANDED: u32 = 1 << 24;

/// Which messages a receiver wants; see msgrcv(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selector {
    /// `msgtyp == 0`: the first message.
    Any,
    /// `msgtyp > 0`: the first of that type.
    Type(i64),
    /// `msgtyp > 0` with `MSG_EXCEPT`: the first of another type.
    Except(i64),
    /// `msgtyp < 0`: the first of the lowest type that is not above this.
    AtMost(i64),
}

impl Selector {
    /// Whether a message of a type is wanted at all.
    #[inline]
    pub fn wants(self, mtype: i64) -> bool {
        match self {
            Selector::Any => true,
            Selector::Type(wanted) => mtype == wanted,
            Selector::Except(unwanted) => mtype != unwanted,
            Selector::AtMost(highest) => mtype <= highest,
        }
    }

    fn to_words(self) -> (i64, u64) {
        match self {
            Selector::Any => (0, 0),
            Selector::Type(mtype) => (mtype, 1),
            Selector::Except(mtype) => (mtype, 2),
            Selector::AtMost(mtype) => (mtype, 3),
        }
    }

    /// What a receiver described ([`describe_receiver`]).
    pub fn from_words(mtype: i64, kind: u64) -> Selector {
        match kind & 3 {
            0 => Selector::Any,
            1 => Selector::Type(mtype),
            2 => Selector::Except(mtype),
            _ => Selector::AtMost(mtype),
        }
    }
}

/// What a receiver asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Which messages.
    pub selector: Selector,
    /// The size of the buffer.
    pub size: u64,
    /// `MSG_NOERROR`: cut what is too long.
    pub truncate: bool,
}

/// A line of waiters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Receivers.
    Receivers,
    /// Senders.
    Senders,
}

impl Line {
    fn first(self, tx: &Tx) -> u32 {
        match self {
            Line::Receivers => tx.first_receiver(),
            Line::Senders => tx.first_sender(),
        }
    }

    fn set_first(self, tx: &mut Tx, link: u32) {
        match self {
            Line::Receivers => tx.set_first_receiver(link),
            Line::Senders => tx.set_first_sender(link),
        }
    }

    fn last(self, tx: &Tx) -> u32 {
        match self {
            Line::Receivers => tx.last_receiver(),
            Line::Senders => tx.last_sender(),
        }
    }

    fn set_last(self, tx: &mut Tx, link: u32) {
        match self {
            Line::Receivers => tx.set_last_receiver(link),
            Line::Senders => tx.set_last_sender(link),
        }
    }

    fn add(self, tx: &mut Tx, change: i16) {
        match self {
            Line::Receivers => tx.set_receivers(tx.receivers().wrapping_add_signed(change)),
            Line::Senders => tx.set_senders(tx.senders().wrapping_add_signed(change)),
        }
    }

    fn resting(self) -> u32 {
        match self {
            Line::Receivers => WAITING,
            Line::Senders => FULL,
        }
    }

    fn is_in(self, state: u32) -> bool {
        state & !1 == self.resting()
    }

    /// Puts a participant at the end.
    fn join(self, tx: &mut Tx, seat: u32) -> Result<(), Damaged> {
        tx.hold(seat, Held::Next, 0)?;
        tx.hold(seat, Held::State, self.resting())?;
        match self.last(tx) {
            0 => self.set_first(tx, seat + 1),
            last => tx.hold(last - 1, Held::Next, seat + 1)?,
        }
        self.set_last(tx, seat + 1);
        self.add(tx, 1);
        Ok(())
    }

    /// Takes the participant after `before` (0: the first) out.
    fn leave(self, tx: &mut Tx, before: u32, seat: u32) -> Result<(), Damaged> {
        let next = tx.held(seat, Held::Next)?;
        match before {
            0 => self.set_first(tx, next),
            before => tx.hold(before - 1, Held::Next, next)?,
        }
        if next == 0 {
            self.set_last(tx, before);
        }
        self.add(tx, -1);
        Ok(())
    }

    /// Walks the line: calls `visit` with each participant and the link to the one before it until that
    /// returns something.
    fn walk<'m, R>(
        self,
        tx: &mut Tx<'m>,
        mut visit: impl FnMut(&mut Tx<'m>, u32, u32) -> Result<Step<R>, Damaged>,
    ) -> Result<Option<R>, Damaged> {
        let (mut before, mut link) = (0, self.first(tx));
        for _ in 0..=layout::MAX_PARTICIPANTS {
            let Some(seat) = link.checked_sub(1) else { return Ok(None) };
            if seat >= layout::MAX_PARTICIPANTS {
                return Err(Damaged);
            }
            let next = tx.held(seat, Held::Next)?;
            match visit(tx, before, seat)? {
                Step::Done(result) => return Ok(Some(result)),
                Step::Stays => before = link,
                Step::Left => {}
            }
            link = next;
        }
        Err(Damaged)
    }

    /// Takes a participant out, wherever it stands.
    pub fn leave_anywhere(self, tx: &mut Tx, seat: u32) -> Result<(), Damaged> {
        let found = self.walk(tx, |tx, before, there| {
            if there != seat {
                return Ok(Step::Stays);
            }
            self.leave(tx, before, seat)?;
            Ok(Step::Done(()))
        })?;
        found.ok_or(Damaged)
    }
}

/// What a visit did.
enum Step<R> {
    Done(R),
    Stays,
    Left,
}

fn word(memory: &Mapping, seat: u32, which: u64) -> Result<&AtomicU64, Damaged> {
    memory.word(layout::participant_offset(seat) + which).ok_or(Damaged)
}

fn state_offset(seat: u32) -> u64 {
    layout::participant_offset(seat) + participant::STATE
}

/// The futex word of a participant: the low half of its state.
fn state_half(memory: &Mapping, seat: u32) -> Option<&AtomicU32> {
    memory.half(state_offset(seat))
}

/// The state of a participant of ours.
pub fn state(memory: &Mapping, seat: &Seat) -> u64 {
    // Acquire: who sees a message handed over sees the message.
    memory.word(state_offset(seat.index())).map_or(0, |word| word.load(Ordering::Acquire))
}

/// Notes what a receiver wants where senders will look for it.
pub fn describe_receiver(memory: &Mapping, seat: &Seat, request: Request) -> Result<(), Damaged> {
    let (mtype, kind) = request.selector.to_words();
    let flags = kind | u64::from(request.truncate) << 2;
    // Release: by the argument in `txn`, before writing what an old snapshot may still look at.
    fence(Ordering::Release);
    // Relaxed: nobody looks before the transaction that puts the participant in line.
    word(memory, seat.index(), participant::TYPE)?.store(mtype as u64, Ordering::Relaxed);
    word(memory, seat.index(), participant::SIZE)?.store(request.size, Ordering::Relaxed);
    word(memory, seat.index(), participant::FLAGS)?.store(flags, Ordering::Relaxed);
    let tid = memory.half(layout::participant_offset(seat.index()) + participant::WAITER_TID);
    tid.ok_or(Damaged)?.store(seat.tid(), Ordering::Relaxed);
    Ok(())
}

/// Notes how much room a sender needs, and by which version of the settings it was admitted.
pub fn describe_sender(memory: &Mapping, seat: &Seat, length: u64, configured: u32) -> Result<(), Damaged> {
    // Release, then relaxed: as in `describe_receiver`.
    fence(Ordering::Release);
    word(memory, seat.index(), participant::SIZE)?.store(length, Ordering::Relaxed);
    word(memory, seat.index(), participant::FLAGS)?.store(u64::from(configured), Ordering::Relaxed);
    Ok(())
}

/// Puts a participant of ours, described before, in line.
pub fn wait_in(tx: &mut Tx, line: Line, seat: u32) -> Result<(), Damaged> {
    line.join(tx, seat)
}

/// What came of offering a message to the receivers in line.
pub enum Offer {
    /// A receiver has it; the state word to recognise that by.
    Taken(Handover),
    /// Nobody in line wants it.
    Declined,
    /// So many had too small a buffer that this transaction is full: commit it and offer again.
    Crowded,
}

/// A message handed over: to whom, and the state word that says so.
#[derive(Clone, Copy)]
pub struct Handover {
    /// The receiver.
    pub seat: u32,
    /// Its state word, all 64 bits: unique to this handing-over.
    pub mark: u64,
    /// `msg_rtime` and `msg_lrpid` before, to be put back with the message; not known to who pays a debt.
    pub before: Option<(u64, u32)>,
}

/// What is to be done once a transaction that walked a line is committed.
#[derive(Clone, Copy, Default)]
pub struct Aftermath {
    /// A participant found dead on the way, + 1; or 0.
    pub dead: u32,
    /// How many receivers left the line because their buffer was too small: wake them.
    pub refused: u32,
}

/// Offers a message to the receivers in line, first come first served.
pub fn offer(
    tx: &mut Tx,
    granule: u32,
    mtype: i64,
    length: u32,
    after: &mut Aftermath,
) -> Result<Offer, Damaged> {
    let found = Line::Receivers.walk(tx, |tx, before, seat| {
        // Relaxed, all of them: believed only if the snapshot proves true.
        let wanted = word(tx.memory, seat, participant::TYPE)?.load(Ordering::Relaxed) as i64;
        let flags = word(tx.memory, seat, participant::FLAGS)?.load(Ordering::Relaxed);
        if !Selector::from_words(wanted, flags).wants(mtype) {
            return Ok(Step::Stays);
        }
        if crate::txn::is_dead(tx.memory, seat) {
            after.dead = seat + 1;
            return Ok(Step::Stays);
        }
        if tx.room() < 10 {
            return Ok(Step::Done(Offer::Crowded));
        }
        let size = word(tx.memory, seat, participant::SIZE)?.load(Ordering::Relaxed);
        if u64::from(length) > size && flags & 4 == 0 {
            Line::Receivers.leave(tx, before, seat)?;
            tx.hold(seat, Held::State, TOO_BIG)?;
            after.refused += 1;
            return Ok(Step::Left);
        }
        Line::Receivers.leave(tx, before, seat)?;
        tx.hold(seat, Held::State, HANDED | granule)?;
        tx.set_handed(tx.handed().wrapping_add(1));
        // Where it would have been in the queue, and the count that tells later whether that place is left.
        let taken = tx.count_taken();
        tx.privately(Position::granule(granule, message::TYPE_NEXT), taken)?;
        tx.privately(Position::granule(granule, message::PREV), tx.tail())?;
        let tid = tx.memory.half(layout::participant_offset(seat) + participant::WAITER_TID);
        let before = Some((tx.rtime(), tx.lrpid()));
        tx.set_lrpid(tid.ok_or(Damaged)?.load(Ordering::Relaxed));
        let mark = tx.mark_of(HANDED | granule);
        Ok(Step::Done(Offer::Taken(Handover { seat, mark, before })))
    })?;
    Ok(found.unwrap_or(Offer::Declined))
}

/// Wakes the participant `seat`, whose state says already why. True if it was asleep.
pub fn wake(memory: &Mapping, seat: u32) -> bool {
    state_half(memory, seat).is_some_and(futex::wake_one)
}

/// Notes, before the commit that hands a message over, whom that obliges us to wake: a signal handler may
/// jump away in between. `None` when it is done.
pub fn owe(memory: &Mapping, seat: u32, handover: Option<Handover>) -> Result<(), Damaged> {
    let offset = layout::participant_offset(seat);
    let owes = memory.half(offset + participant::OWES).ok_or(Damaged)?;
    if let Some(handover) = handover {
        word(memory, seat, participant::OWES_MARK)?.store(handover.mark, Ordering::Relaxed);
    }
    // Release: with the number the mark is visible, to who heals us.
    owes.store(handover.map_or(0, |handover| handover.seat + 1), Ordering::Release);
    Ok(())
}

/// Whom the last owner of a participant still had to wake. If the handing-over was never committed, the
/// mark matches nothing.
pub fn owed(memory: &Mapping, seat: u32) -> Option<Handover> {
    let offset = layout::participant_offset(seat);
    let seat_owed = memory.half(offset + participant::OWES)?.load(Ordering::Acquire).checked_sub(1)?;
    let mark = word(memory, seat, participant::OWES_MARK).ok()?.load(Ordering::Relaxed);
    (seat_owed < layout::MAX_PARTICIPANTS).then_some(Handover { seat: seat_owed, mark, before: None })
}

/// The sender's side of "nobody was asleep": takes the message back from `from`, unless that has taken it
/// by now, so that it is `seat`'s to send once more. True if it is.
pub fn take_back(tx: &mut Tx, from: Handover, seat: u32) -> Result<bool, Damaged> {
    // Relaxed: believed only if the snapshot proves true.
    let state = word(tx.memory, from.seat, participant::STATE)?.load(Ordering::Relaxed);
    if state != from.mark {
        return Ok(false);
    }
    tx.hold(from.seat, Held::State, GO)?;
    tx.set_handed(tx.handed().wrapping_sub(1));
    // It was never received. If somebody else has received since, that stands.
    let tid = tx.memory.half(layout::participant_offset(from.seat) + participant::WAITER_TID);
    if let Some((rtime, lrpid)) = from.before
        && tx.lrpid() == tid.ok_or(Damaged)?.load(Ordering::Relaxed)
    {
        tx.set_rtime(rtime);
        tx.set_lrpid(lrpid);
    }
    own(tx, seat, crate::txn::value(state) & !HANDED)?;
    Ok(true)
}

/// Makes a message that was handed over the participant's own, granule and block.
fn own(tx: &mut Tx, seat: u32, granule: u32) -> Result<(), Damaged> {
    let (_, block) = tx.extent(granule)?;
    if block != 0 {
        pool::hold_block(tx, seat, block, true)?;
        pool::disown(tx, granule)?;
    }
    let spare = tx.held(seat, Held::Spare)?;
    if spare != 0 {
        pool::free_granule(tx, spare)?;
    }
    tx.hold(seat, Held::Spare, granule)
}

/// The receiver's side: takes the message that was handed over, unless the sender was faster in taking it
/// back. Its granule is free from the commit on; its block is the participant's.
pub fn take_handed(tx: &mut Tx, seat: u32) -> Result<Option<u32>, Damaged> {
    let state = tx.held(seat, Held::State)?;
    if state & HANDED == 0 {
        return Ok(None);
    }
    let granule = state & !HANDED;
    tx.hold(seat, Held::State, IDLE)?;
    tx.set_handed(tx.handed().wrapping_sub(1));
    own(tx, seat, granule)?;
    Ok(Some(granule))
}

/// Chooses senders that may go on now: as many, in order, as fit one after the other, and any other that would
/// fit alone if the settings changed since it came: Linux lets all go that fit alone, and one that may not send
/// any more finds out so. Returns how many of `woken` it filled.
pub fn release_senders(tx: &mut Tx, woken: &mut [u32], after: &mut Aftermath) -> Result<usize, Damaged> {
    let qbytes = tx.qbytes();
    let (mut bytes, mut number, mut filled) = (tx.cbytes(), u64::from(tx.qnum()), 0);
    Line::Senders.walk(tx, |tx, before, seat| {
        if filled == woken.len() || tx.room() < 4 || u64::from(tx.qnum()) >= qbytes || tx.cbytes() > qbytes {
            return Ok(Step::Done(()));
        }
        let size = word(tx.memory, seat, participant::SIZE)?.load(Ordering::Relaxed);
        let configured = word(tx.memory, seat, participant::FLAGS)?.load(Ordering::Relaxed);
        let fits_behind = number < qbytes && bytes.saturating_add(size) <= qbytes;
        let fits_alone = tx.cbytes().saturating_add(size) <= qbytes;
        let settled = configured == u64::from(tx.configured());
        if !fits_behind && (settled || !fits_alone) {
            return Ok(Step::Stays);
        }
        if crate::txn::is_dead(tx.memory, seat) {
            after.dead = seat + 1;
            return Ok(Step::Stays);
        }
        Line::Senders.leave(tx, before, seat)?;
        tx.hold(seat, Held::State, GO)?;
        if let Some(place) = woken.get_mut(filled) {
            *place = seat;
            filled += 1;
        }
        if fits_behind {
            (bytes, number) = (bytes + size, number + 1);
        }
        Ok(Step::Left)
    })?;
    Ok(filled)
}

/// Lets the next few in a line go and look again, whatever they wait for. Returns how many of `woken` it
/// filled.
pub fn dismiss(tx: &mut Tx, line: Line, woken: &mut [u32]) -> Result<usize, Damaged> {
    let mut filled = 0;
    line.walk(tx, |tx, before, seat| {
        let Some(place) = woken.get_mut(filled).filter(|_| tx.room() >= 4) else {
            return Ok(Step::Done(()));
        };
        *place = seat;
        filled += 1;
        line.leave(tx, before, seat)?;
        tx.hold(seat, Held::State, GO)?;
        Ok(Step::Left)
    })?;
    Ok(filled)
}

/// Makes the next few in a line look up without leaving it, beginning after the first `skip`. Returns how
/// many of `nudged` it filled.
pub fn nudge(tx: &mut Tx, line: Line, skip: u32, nudged: &mut [u32]) -> Result<usize, Damaged> {
    let (mut passed, mut filled) = (0, 0);
    line.walk(tx, |tx, _, seat| {
        passed += 1;
        if passed <= skip {
            return Ok(Step::Stays);
        }
        let Some(place) = nudged.get_mut(filled).filter(|_| tx.room() >= 2) else {
            return Ok(Step::Done(()));
        };
        *place = seat;
        filled += 1;
        let state = tx.held(seat, Held::State)?;
        tx.hold(seat, Held::State, state ^ 1)?;
        Ok(Step::Stays)
    })?;
    Ok(filled)
}

/// Leaves whatever line a participant stands in; afterwards it is idle.
///
/// A message that was handed to it is its own then, to be sent once more: the receiver did not live to take
/// it. But if others were taken since, its place is not left; then it ends with its receiver, as it does in
/// the kernel.
pub fn withdraw(tx: &mut Tx, seat: u32) -> Result<Withdrawn, Damaged> {
    let state = tx.held(seat, Held::State)?;
    for line in [Line::Receivers, Line::Senders] {
        if line.is_in(state) {
            line.leave_anywhere(tx, seat)?;
        }
    }
    // A sender told to go on, that does not: the next in line may.
    let mut withdrawn = Withdrawn { orphan: None, passes_on: state == GO && tx.senders() > 0 };
    if state != IDLE {
        tx.hold(seat, Held::State, IDLE)?;
    }
    if state & HANDED != 0 {
        let granule = state & !HANDED;
        tx.set_handed(tx.handed().wrapping_sub(1));
        own(tx, seat, granule)?;
        let taken = tx.get(Position::granule(granule, message::TYPE_NEXT))?;
        withdrawn.orphan = (taken == tx.taken() & crate::txn::LARGEST).then_some(tx.taken());
    }
    Ok(withdrawn)
}

/// What [`withdraw`] leaves to do.
pub struct Withdrawn {
    /// A message lies in the participant's spare granule, to be sent once more as long as the count of
    /// messages taken is still this.
    pub orphan: Option<u32>,
    /// Senders in line should be looked at.
    pub passes_on: bool,
}

/// Looks for a participant that died with a message handed to it, or before it woke whom it had handed one to: that one
/// may come back. `None` if there is none.
pub fn dead_with_message(memory: &Mapping) -> Option<u32> {
    (0..seats(memory)).find(|&seat| {
        let state = Position::participant(seat, Held::State).offset();
        // Relaxed, both: only a hint where to look.
        let state = state.and_then(|offset| memory.word(offset)).map(|word| word.load(Ordering::Relaxed));
        let owes = memory.half(layout::participant_offset(seat) + participant::OWES);
        let has = state.is_some_and(|state| crate::txn::value(state) & HANDED != 0);
        (has || owes.is_some_and(|owes| owes.load(Ordering::Relaxed) != 0))
            && crate::txn::is_dead(memory, seat)
    })
}

/// Where to sleep until the state of a participant of ours changes from `state`, for at most `milliseconds`.
pub fn bed(memory: &'static Mapping, seat: &Seat, state: u64, milliseconds: u32) -> Option<futex::Bed> {
    state_half(memory, seat.index()).map(|half| futex::Bed::new(half, state as u32, milliseconds))
}
