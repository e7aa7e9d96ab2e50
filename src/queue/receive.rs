//! Receiving: find the message, take it out, and with it the right to copy it out in peace.

use super::tx::{Attempts, Stop, Tx, Verdict, damaged, look, run};
use super::waiters::{self, Line, Request, Selector};
use super::{Permission, Queue, block_text, order, pool, refused, stamps, types};
use crate::os::errno::Errno;
use crate::os::process;
use crate::shm;
use crate::shm::layout::{self, GRANULE_WORDS, Held, message};
use crate::txn::{self, Damaged, Memory, Seat};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

/// How many messages that are not indexed a typed receive looks at before it indexes more of them.
const GLANCE: u32 = 16;
/// Instead of [`GLANCE`] where there is an index already: what is not in it is looked at by every typed receive, and is
/// put into it once.
const SHORT_GLANCE: u32 = 4;
/// Instead of [`GLANCE`]: no more steps, look at every message. Without memory for an index; and after
/// [`MANY_STEPS`], since the chain may have no end, if a hostile peer tied it into a ring. A look at every message
/// has one: none is farther away than there are messages.
const ALL: u32 = u32::MAX;
/// After so many steps a call does without.
const MANY_STEPS: u32 = 1 << 14;
/// How many messages of one type `MSG_EXCEPT` passes over before it notes how far it came.
const STRIDE: u32 = 64;
/// How many it may pass over each time without noting anything.
const FEW: u32 = 4;

/// For how many turns a receiver leaves the queue to the sender who was faster.
const GRACE: u32 = 32;

/// Where a text on its way out lies.
#[derive(Clone, Copy)]
enum Text {
    /// In the copy.
    Copied,
    /// In a block that nobody else uses while the participant is held.
    Block(*const u8),
}

/// A message received.
pub struct Received {
    /// `mtype`.
    pub mtype: i64,
    /// The length of its text, all of it.
    pub length: u32,
    /// Whether senders wait: once the text is copied out, [`Queue::wake_senders`].
    pub senders: bool,
    text: Text,
    /// A short text; written as far as `length` reaches.
    copy: [MaybeUninit<u64>; message::INLINE / 8],
}

impl Default for Received {
    #[inline(always)]
    fn default() -> Received {
        Received::new()
    }
}

impl Received {
    /// A place for a message.
    #[inline(always)]
    pub fn new() -> Received {
        let copy = [const { MaybeUninit::uninit() }; message::INLINE / 8];
        Received { mtype: 0, length: 0, senders: false, text: Text::Copied, copy }
    }

    /// Where the text begins.
    #[inline(always)]
    pub fn text(&self) -> *const u8 {
        match self.text {
            Text::Copied => self.copy.as_ptr().cast(),
            Text::Block(address) => address,
        }
    }

    /// Copies a short text, word by word: it is worth something only if the snapshot proves true.
    #[inline(always)]
    fn copy_inline(&mut self, words: &[AtomicU64; GRANULE_WORDS], length: u32) -> Result<(), Damaged> {
        let count = (length as usize).div_ceil(8);
        let from = words[message::TEXT as usize / 8..].get(..count).ok_or(Damaged)?;
        for (to, from) in self.copy.iter_mut().zip(from) {
            to.write(from.load(Ordering::Relaxed));
        }
        self.text = Text::Copied;
        Ok(())
    }

    /// Reads a message; the text of a long one by its address.
    fn read(&mut self, tx: &Tx, granule: u32) -> Result<(), Stop> {
        let (length, block) = tx.extent(granule)?;
        match block {
            0 => self.copy_inline(tx.words(granule)?, length)?,
            block => self.text = Text::Block(block_text(tx.memory, block, length as usize).ok_or(Damaged)?),
        }
        (self.mtype, self.length, self.senders) = (tx.mtype(granule)?, length, false);
        Ok(())
    }
}

/// Where a receiver watches for the next message.
///
/// In an empty queue that is the link to it: so who sends keeps `cur` until it has committed, which it would have to fetch
/// once more if somebody else looked at it meanwhile.
pub struct Lookout<'m> {
    moment: u64,
    /// The link word, and what it holds while there is none.
    next: Option<(&'m AtomicU64, u64)>,
}

enum Attempt {
    /// A message.
    Received,
    /// A step was made that helps the next attempt.
    Step,
    /// Nothing there, and the participant stands in line.
    InLine,
    /// Nothing there.
    Nothing,
    /// Nothing there, but messages were handed to receivers that may have died.
    Orphans,
}

enum Found {
    Message(u32),
    /// A message, and that all before it, up to the second, are alike.
    Beyond(u32, u32),
    Nothing,
    /// Index more messages first.
    Index,
    /// Note that all messages up to this one are alike.
    Alike(u32),
}

/// How a look into the queue ended, if it gave no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// There is none.
    Nothing,
    /// There is none, and the participant stands in the receivers' line.
    InLine,
}

impl<'m> Queue<'m> {
    /// Takes the first message that is wanted, if that is nothing unusual; else as [`Queue::take`] does, without waiting.
    #[inline(always)]
    pub fn take_quickly(
        self,
        seat: &Seat<'m>,
        request: &Request,
        permission: &(impl Permission + Copy),
        now: u64,
        received: &mut Received,
    ) -> Result<Option<Missing>, Errno> {
        let mut tx = Tx::new(self.memory, seat.index());
        let said = match tx.begin_quickly() {
            Ok(()) => self.attempt_take::<true>(
                &mut tx,
                seat,
                request,
                permission,
                (now, process::known_pid()),
                false,
                1,
                received,
            ),
            Err(stop) => Err(stop),
        };
        match tx.end_quickly(said) {
            Ok(Attempt::Received) => {
                // The next message, which most likely comes from another processor.
                self.memory.expect_to_read_granule(tx.unindexed());
                Ok(None)
            }
            Ok(_) => Ok(Some(Missing::Nothing)),
            Err(Stop::Errno(errno)) => Err(errno),
            Err(stop) => {
                // Copies, so that what is here need not be in memory.
                let request = { *request };
                if stop == Stop::Lost {
                    self.give_way(&request);
                }
                self.take(&seat.alias(), &request, &{ *permission }, false, received)
            }
        }
    }

    /// Leaves the queue to who was faster, if that is most likely a sender, who has room enough to go on: each gets more
    /// done alone.
    #[cold]
    #[inline(never)]
    fn give_way(&self, request: &Request) {
        // Who wants a certain message may be the one for whom others wait.
        let takes_any = request.selector == Selector::Any;
        if takes_any && look(self.memory, |tx| Ok(tx.cbytes() < tx.qbytes() / 2)) == Ok(true) {
            Queue::pause(GRACE);
        }
    }

    /// Takes the first message that is wanted. With none, stands in line if `wait`; then the participant must
    /// sleep or stop waiting before it does anything else.
    ///
    /// The text stays valid until the participant is given back or used again.
    #[inline(never)]
    pub fn take(
        self,
        seat: &Seat<'m>,
        request: &Request,
        permission: &impl Permission,
        wait: bool,
        received: &mut Received,
    ) -> Result<Option<Missing>, Errno> {
        let mut glance = GLANCE;
        let mut steps = 0u32;
        let (mut tx, mut attempts) = (Tx::new(self.memory, seat.index()), Attempts::new());
        loop {
            attempts.begin(&mut tx).map_err(damaged)?;
            seat.found(tx.found());
            let said = self.attempt_take::<false>(
                &mut tx,
                seat,
                request,
                permission,
                stamps(),
                wait,
                glance,
                received,
            );
            match attempts.end(&mut tx, said) {
                None => {}
                Some(Ok(Attempt::Received)) => return Ok(None),
                Some(Ok(Attempt::Step)) => {
                    steps += 1;
                    if steps == MANY_STEPS {
                        glance = ALL;
                    }
                }
                Some(Ok(Attempt::Orphans)) => {
                    self.heal_messages();
                }
                Some(Ok(Attempt::Nothing)) => return Ok(Some(Missing::Nothing)),
                Some(Ok(Attempt::InLine)) => return Ok(Some(Missing::InLine)),
                // No memory for an index: look at every message instead.
                Some(Err(Stop::Grow)) if pool::grow(self.memory, seat.index()).is_err() => glance = ALL,
                Some(Err(Stop::Grow)) => {}
                Some(Err(stop)) => return Err(refused(stop)),
            }
        }
    }

    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "compiled into its callers")]
    fn attempt_take<const QUICK: bool>(
        &self,
        tx: &mut Tx<'m>,
        seat: &Seat<'m>,
        request: &Request,
        permission: &impl Permission,
        (now, pid): (u64, u32),
        wait: bool,
        glance: u32,
        received: &mut Received,
    ) -> Result<Verdict<Attempt>, Stop> {
        let state = tx.held_by(seat, Held::State);
        if QUICK && (state != waiters::IDLE || now < tx.rtime()) {
            return Err(Stop::Unusual);
        }
        if !QUICK && state & waiters::HANDED != 0 {
            // Looking on from its place in line, it has been served meanwhile.
            let granule = waiters::take_handed(tx, seat.index())?.ok_or(Damaged)?;
            received.read(tx, granule)?;
            return Ok(Verdict::Commit(Attempt::Received));
        }
        self.admit_to::<QUICK>(tx, permission)?;
        let found = if QUICK { find_first(tx, request.selector) } else { find(tx, request.selector, glance) };
        let granule = match found? {
            Found::Message(granule) => granule,
            Found::Nothing if QUICK && tx.handed() == 0 => return Ok(Verdict::Answer(Attempt::Nothing)),
            _ if QUICK => return Err(Stop::Unusual),
            Found::Beyond(granule, alike) => {
                tx.set_alike(alike);
                granule
            }
            Found::Index => {
                types::advance(tx)?;
                return Ok(Verdict::Commit(Attempt::Step));
            }
            Found::Alike(granule) => {
                tx.set_alike(granule);
                return Ok(Verdict::Commit(Attempt::Step));
            }
            Found::Nothing if tx.handed() != 0 && waiters::dead_with_message(tx.memory).is_some() => {
                return Ok(Verdict::Answer(Attempt::Orphans));
            }
            Found::Nothing if !wait => return Ok(Verdict::Answer(Attempt::Nothing)),
            Found::Nothing => {
                if state & !1 != waiters::WAITING {
                    waiters::describe_receiver(tx.memory, seat, *request)?;
                    waiters::wait_in(tx, Line::Receivers, seat.index())?;
                }
                return Ok(Verdict::Commit(Attempt::InLine));
            }
        };
        let words = tx.words(granule)?;
        // Relaxed: believed only if the snapshot proves true.
        let extent = words[message::LENGTH as usize / 8].load(Ordering::Relaxed);
        let (length, block) = (extent as u32, (extent >> 32) as u32);
        if u64::from(length) > request.size && !request.truncate {
            return Err(Stop::Errno(Errno::E2BIG));
        }
        received.mtype = words[message::TYPE as usize / 8].load(Ordering::Relaxed) as i64;
        received.length = length;
        if block == 0 {
            received.copy_inline(words, length)?;
        } else {
            let text = block_text(tx.memory, block, length as usize);
            received.text = Text::Block(text.ok_or(Damaged)?);
        }
        order::remove::<QUICK>(tx, granule, length)?;
        if block != 0 {
            // After the type index was looked at, which uses the same word.
            pool::exchange_block(tx, seat, granule, block)?;
        }
        if !QUICK && state != waiters::IDLE {
            if state & !1 == waiters::WAITING {
                Line::Receivers.leave_anywhere(tx, seat.index())?;
            }
            tx.hold(seat.index(), Held::State, waiters::IDLE)?;
        }
        tx.set_rtime(now);
        tx.set_lrpid(pid);
        tx.count_taken();
        received.senders = tx.senders() != 0;
        Ok(Verdict::Commit(Attempt::Received))
    }

    /// Takes the message that was handed over to a waiting participant of ours; false if its sender took it
    /// back, or none was.
    ///
    /// The text stays valid until the participant is given back or used again.
    pub fn take_handed(&self, seat: &Seat<'m>, received: &mut Received) -> Result<bool, Errno> {
        run(self.memory, seat.index(), |tx| {
            let Some(granule) = waiters::take_handed(tx, seat.index())? else {
                return Ok(Verdict::Answer(false));
            };
            // A short text is copied before the commit: its granule may be used again right after.
            received.read(tx, granule)?;
            Ok(Verdict::Commit(true))
        })
        .map_err(refused)
    }

    /// Looks at the message at a position, counted from 0, and copies its text to `to` (`MSG_COPY`). Its
    /// length is checked against `room` first: `E2BIG`, of which msgrcv(2) makes what Linux has.
    ///
    /// # Safety
    /// `to` must have room for `room` bytes that nobody else looks at: they may be written several times.
    pub unsafe fn peek(
        &self,
        position: u64,
        to: *mut u8,
        room: usize,
        permission: &dyn Permission,
    ) -> Result<(i64, u32), Errno> {
        look(self.memory, |tx| {
            self.admit(tx, permission)?;
            let granule = at_position(tx, position)?;
            // Its length is read once: what was checked is what is copied, whatever a peer writes meanwhile.
            let mut received = Received::new();
            received.read(tx, granule)?;
            let length = received.length as usize;
            if length > room {
                return Err(Stop::Errno(Errno::E2BIG));
            }
            // SAFETY: `read` vouches for the source; the caller vouches for `room` bytes.
            unsafe { core::ptr::copy_nonoverlapping(received.text(), to, length) };
            Ok((received.mtype, received.length))
        })
        .map_err(refused)
    }

    /// How long the message at a position is, in bytes.
    #[cold]
    pub fn length_at(&self, position: u64) -> Result<u32, Errno> {
        look(self.memory, |tx| Ok(tx.extent(at_position(tx, position)?)?.0)).map_err(refused)
    }

    /// What changes whenever the queue does.
    #[inline]
    pub fn moment(&self) -> u64 {
        // Relaxed: nothing is concluded but that it is worth trying again.
        self.memory.cur().map_or(0, |cur| cur.load(Ordering::Relaxed))
    }

    /// What to watch for the next message after a moment.
    pub fn lookout(&self, moment: u64) -> Lookout<'m> {
        let next = look(self.memory, |tx| {
            if tx.head() != tx.tail() {
                return Ok(None);
            }
            let next = &tx.words(tx.head())?[message::NEXT as usize];
            // Relaxed: only watched.
            Ok(Some((next, next.load(Ordering::Relaxed))))
        });
        Lookout { moment, next: next.ok().flatten().filter(|_| self.moment() == moment) }
    }

    /// Waits a little for the queue to change, without a system call; tells whether it did.
    #[inline]
    pub fn spin(&self, seat: &Seat, lookout: &Lookout, turns: u32) -> bool {
        let Some((next, none)) = lookout.next else {
            return (0..turns).any(|_| {
                Queue::pause(1);
                self.moment() != lookout.moment
            });
        };
        for _ in 0..turns {
            Queue::pause(1);
            // Relaxed: as [`Queue::moment`].
            let now = next.load(Ordering::Relaxed);
            if now != none {
                // All that the next attempt needs, at once.
                if let Some(cur) = self.memory.cur() {
                    shm::expect_to_write(cur);
                }
                seat.expect_peer(self.memory);
                self.memory.expect_to_read_granule(txn::value(now));
                return true;
            }
        }
        self.moment() != lookout.moment
    }

    /// Lets others go on for some turns.
    pub fn pause(turns: u32) {
        for _ in 0..turns {
            <crate::shm::Mapping as Memory>::pause();
        }
    }
}

/// The message at a position, from 0; `ENOMSG` behind the last.
fn at_position(tx: &Tx, position: u64) -> Result<u32, Stop> {
    if position >= u64::from(tx.qnum()) {
        return Err(Stop::Errno(Errno::ENOMSG));
    }
    if position >= u64::from(layout::GRANULES) {
        return Err(Stop::Damaged);
    }
    let mut granule = tx.first()?;
    for _ in 0..position {
        granule = tx.next(granule)?;
    }
    Ok(granule)
}

/// [`find`], as far as it can be told from the first message.
#[inline(always)]
fn find_first(tx: &Tx, selector: Selector) -> Result<Found, Damaged> {
    let first = tx.first()?;
    if first == 0 {
        return Ok(Found::Nothing);
    }
    if selector == Selector::Any {
        return Ok(Found::Message(first));
    }
    let is_wanted = match selector {
        Selector::Any => true,
        Selector::Type(mtype) => tx.mtype(first)? == mtype,
        Selector::Except(mtype) => tx.mtype(first)? != mtype,
        // No type is lower.
        Selector::AtMost(_) => tx.mtype(first)? == 1,
    };
    Ok(if is_wanted { Found::Message(first) } else { Found::Index })
}

fn find(tx: &Tx, selector: Selector, glance: u32) -> Result<Found, Damaged> {
    let first = tx.first()?;
    if first == 0 {
        return Ok(Found::Nothing);
    }
    let glance = if glance == GLANCE && first != tx.unindexed() { SHORT_GLANCE } else { glance };
    match selector {
        Selector::Any => Ok(Found::Message(first)),
        Selector::Type(mtype) => find_type(tx, first, mtype, glance),
        Selector::AtMost(highest) => find_lowest(tx, first, highest, glance),
        Selector::Except(mtype) => find_except(tx, first, mtype, glance),
    }
}

fn find_type(tx: &Tx, first: u32, mtype: i64, glance: u32) -> Result<Found, Damaged> {
    if first != tx.unindexed()
        && let Some(granule) = types::find(tx, mtype)?
    {
        return Ok(Found::Message(granule));
    }
    let mut granule = tx.unindexed();
    for _ in 0..glance.min(tx.qnum()).min(layout::GRANULES) {
        if granule == 0 {
            return Ok(Found::Nothing);
        }
        if tx.mtype(granule)? == mtype {
            return Ok(Found::Message(granule));
        }
        granule = tx.next(granule)?;
    }
    match granule {
        0 => Ok(Found::Nothing),
        _ if glance == ALL => Err(Damaged),
        _ => Ok(Found::Index),
    }
}

fn find_lowest(tx: &Tx, first: u32, highest: i64, glance: u32) -> Result<Found, Damaged> {
    let mut lowest = None;
    if first != tx.unindexed()
        && let Some(granule) = types::lowest(tx)?
    {
        lowest = Some((tx.mtype(granule)?, granule));
    }
    let mut granule = tx.unindexed();
    for _ in 0..glance.min(tx.qnum()).min(layout::GRANULES) {
        if granule == 0 {
            break;
        }
        let mtype = tx.mtype(granule)?;
        if lowest.is_none_or(|(least, _)| mtype < least) {
            lowest = Some((mtype, granule));
        }
        if mtype == 1 && lowest == Some((1, granule)) {
            // No type is lower, and none of this type is older.
            break;
        }
        granule = tx.next(granule)?;
    }
    if granule != 0 && lowest.is_none_or(|(least, _)| least != 1) {
        return if glance == ALL { Err(Damaged) } else { Ok(Found::Index) };
    }
    Ok(match lowest {
        Some((mtype, granule)) if mtype <= highest => Found::Message(granule),
        _ => Found::Nothing,
    })
}

/// All messages up to `alike` are of the type of the first; so the first of another type is found by
/// walking on from there, and every message is passed over once at most.
fn find_except(tx: &Tx, first: u32, unwanted: i64, glance: u32) -> Result<Found, Damaged> {
    if tx.mtype(first)? != unwanted {
        return Ok(Found::Message(first));
    }
    let mut last = if tx.alike() == 0 { first } else { tx.alike() };
    let stride = if glance == ALL { tx.qnum().min(layout::GRANULES) } else { STRIDE };
    for passed in 0..stride {
        let granule = tx.next(last)?;
        if granule == 0 {
            let noted = tx.alike() == last || last == first || glance == ALL;
            return Ok(if noted { Found::Nothing } else { Found::Alike(last) });
        }
        if tx.mtype(granule)? != unwanted {
            return Ok(if passed < FEW { Found::Message(granule) } else { Found::Beyond(granule, last) });
        }
        last = granule;
    }
    if glance == ALL { Err(Damaged) } else { Ok(Found::Alike(last)) }
}
