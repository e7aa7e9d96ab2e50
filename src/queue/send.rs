//! Sending: fill a granule privately, then link it, or hand it over, in one transaction.

use super::tx::{Attempts, DAMAGED, Stop, Tx, Verdict, damaged, look, run};
use super::waiters::{self, Aftermath, Handover, Line, Offer};
use super::{Anybody, Permission, Queue, block_text, order, pool, refused, stamps};
use crate::os::errno::Errno;
use crate::os::process;
use crate::shm::layout::{self, Held, message};
use crate::txn::{self, Damaged, Seat};
use core::sync::atomic::{Ordering, fence};

/// A message that a participant holds, being filled.
#[derive(Clone, Copy)]
pub struct Outgoing {
    granule: u32,
    block: u32,
    /// The block that the granule owned when it was prepared.
    owned: u32,
    mtype: i64,
    length: u32,
    /// Where the text goes, `length` bytes; null if it is there already, for a message that is sent once more.
    pub text: *mut u8,
    /// For a message that is sent once more, in its old place: the count of messages taken by which that is
    /// still there.
    again: Option<u32>,
}

/// How an attempt to send ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// The message is in the queue, or with a receiver.
    Done,
    /// There is no room.
    Full,
    /// There is no room, and the participant stands in the senders' line.
    InLine,
}

impl Outgoing {
    /// The length of its text.
    pub fn length(&self) -> u32 {
        self.length
    }
}

enum Attempt {
    Queued,
    Handed(Handover),
    Crowded,
    Full,
    InLine,
}

impl<'m> Queue<'m> {
    /// Provides a message of a length, to be filled by the caller. `ENOMEM` if there is no memory for it.
    #[inline(always)]
    pub fn prepare(&self, seat: &Seat<'m>, mtype: i64, length: usize) -> Result<Outgoing, Errno> {
        let class = if length > message::INLINE {
            Some(layout::block_class(length).ok_or(Errno::ENOMEM)?)
        } else {
            None
        };
        let held = |which| txn::value(seat.link(which).load(Ordering::Relaxed));
        let suits = |block| class.is_some_and(|class| pool::class_of(self.memory, block) == Ok(class));
        let mut granule = held(Held::Spare);
        let mut words = self.memory.granule(granule);
        let is_ready = |words| class.is_none() || suits(pool::owned(words)) || suits(held(Held::Block));
        if !words.is_some_and(is_ready) {
            pool::provide(self.memory, seat.index(), class)?;
            granule = held(Held::Spare);
            words = self.memory.granule(granule);
        }
        let words = words.ok_or(DAMAGED)?;
        let owned = pool::owned(words);
        let (block, text) = match class {
            None => (0, words[message::TEXT as usize / 8..].as_ptr().cast_mut().cast()),
            Some(_) => {
                let block = if suits(owned) { owned } else { held(Held::Block) };
                (block, block_text(self.memory, block, length).ok_or(DAMAGED)?)
            }
        };
        // Release: by the argument in `txn`, before writing what an old snapshot may still look at.
        fence(Ordering::Release);
        let extent = length as u64 | u64::from(block) << 32;
        // Relaxed: published by the commit.
        words[message::TYPE as usize / 8].store(mtype as u64, Ordering::Relaxed);
        words[message::LENGTH as usize / 8].store(extent, Ordering::Relaxed);
        Ok(Outgoing { granule, block, owned, mtype, length: length as u32, text, again: None })
    }

    /// Sends a prepared message, if that is nothing unusual; else as [`Queue::post`] does, without waiting.
    #[inline(always)]
    pub fn post_quickly(
        self,
        seat: &Seat<'m>,
        message: &Outgoing,
        permission: &(impl Permission + Copy),
        now: u64,
    ) -> Result<Sent, Errno> {
        let mut tx = Tx::new(self.memory, seat.index());
        let said = match tx.begin_quickly() {
            Ok(()) => {
                seat.found(tx.found());
                let after = &mut Aftermath::default();
                self.attempt::<true>(
                    &mut tx,
                    seat,
                    message,
                    permission,
                    (now, process::known_pid()),
                    false,
                    after,
                )
            }
            Err(stop) => Err(stop),
        };
        match tx.end_quickly(said) {
            Ok(Attempt::Full) => Ok(Sent::Full),
            Ok(_) => Ok(Sent::Done),
            Err(Stop::Errno(errno)) => Err(errno),
            // Copies, so that what is here need not be in memory.
            Err(_) => self.post(&seat.alias(), &{ *message }, &{ *permission }, false),
        }
    }

    /// Sends a prepared message. Without room, stands in line if `wait`; then the participant must sleep or
    /// stop waiting before it does anything else.
    #[inline(never)]
    pub fn post(
        self,
        seat: &Seat<'m>,
        message: &Outgoing,
        permission: &impl Permission,
        wait: bool,
    ) -> Result<Sent, Errno> {
        let (mut tx, mut attempts) = (Tx::new(self.memory, seat.index()), Attempts::new());
        loop {
            let mut after = Aftermath::default();
            attempts.begin(&mut tx).map_err(damaged)?;
            let said = self.attempt::<false>(&mut tx, seat, message, permission, stamps(), wait, &mut after);
            let attempt = match attempts.end(&mut tx, said) {
                None => continue,
                Some(Ok(attempt)) => attempt,
                Some(Err(Stop::Grow)) => {
                    pool::grow(self.memory, seat.index())?;
                    continue;
                }
                Some(Err(stop)) => return Err(refused(stop)),
            };
            self.clean_up(after);
            match attempt {
                Attempt::Queued => return Ok(Sent::Done),
                Attempt::Full => return Ok(Sent::Full),
                Attempt::InLine => return Ok(Sent::InLine),
                Attempt::Crowded => {}
                Attempt::Handed(handover) => {
                    if self.wake_receiver(seat, handover) {
                        return Ok(Sent::Done);
                    }
                }
            }
        }
    }

    /// Whether a sender that watches the queue should try again: there is room for a text of `length`, and for half of
    /// what the queue holds; or others stand in line, or the queue is gone.
    pub fn has_room(&self, length: u64) -> bool {
        look(self.memory, |tx| {
            let wanted = length.max(tx.qbytes() / 2);
            Ok(tx.removed() != 0 || tx.senders() != 0 || tx.fits(wanted))
        })
        .unwrap_or(true)
    }

    /// Wakes the receiver that a message was handed to. If it is not asleep, it is not in line: false if
    /// the message came back, and is to be sent once more.
    #[cold]
    fn wake_receiver(&self, seat: &Seat<'m>, handover: Handover) -> bool {
        if waiters::wake(self.memory, handover.seat) {
            let _ = waiters::owe(self.memory, seat.index(), None);
            return true;
        }
        let came_back = run(self.memory, seat.index(), |tx| {
            Ok(match waiters::take_back(tx, handover, seat.index())? {
                true => Verdict::Commit(true),
                false => Verdict::Answer(false),
            })
        });
        let _ = waiters::owe(self.memory, seat.index(), None);
        came_back != Ok(true)
    }

    /// Does what the last owner of a participant did not come to: wakes the receiver that it handed a
    /// message to.
    pub(super) fn pay_debt(&self, seat: &Seat<'m>) {
        let Some(handover) = waiters::owed(self.memory, seat.index()) else { return };
        let state = pool::held_word(self.memory, handover.seat, Held::State);
        if state != handover.mark {
            let _ = waiters::owe(self.memory, seat.index(), None);
        } else if !self.wake_receiver(seat, handover) {
            self.send_again(seat, None);
        }
    }

    /// Sends a message once more that came back and lies in the participant's spare granule; with `taken`, in
    /// its old place, as long as no other was taken since. If that cannot be, it is let go.
    pub(super) fn send_again(&self, seat: &Seat<'m>, taken: Option<u32>) {
        let granule = pool::held(self.memory, seat.index(), Held::Spare);
        let message = look(self.memory, |tx| {
            let (length, block) = tx.extent(granule)?;
            let (mtype, again) = (tx.mtype(granule)?, taken);
            let (owned, text) = (0, core::ptr::null_mut());
            Ok(Outgoing { granule, block, owned, mtype, length, text, again })
        });
        if let Ok(message) = message {
            let _ = self.post(seat, &message, &Anybody, false);
        }
    }

    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "compiled into its callers")]
    fn attempt<const QUICK: bool>(
        &self,
        tx: &mut Tx<'m>,
        seat: &Seat<'m>,
        message: &Outgoing,
        permission: &impl Permission,
        (now, pid): (u64, u32),
        wait: bool,
        after: &mut Aftermath,
    ) -> Result<Verdict<Attempt>, Stop> {
        self.admit_to::<QUICK>(tx, permission)?;
        if message.again.is_some_and(|taken| taken != tx.taken()) {
            return Ok(Verdict::Answer(Attempt::Full));
        }
        let state = tx.held_by(seat, Held::State);
        if QUICK
            && (state != waiters::IDLE || tx.receivers() != 0 || message.again.is_some() || now < tx.stime())
        {
            return Err(Stop::Unusual);
        }
        if !tx.fits(u64::from(message.length)) {
            if QUICK || !wait {
                return Ok(Verdict::Answer(Attempt::Full));
            }
            if state & !1 != waiters::FULL {
                waiters::describe_sender(tx.memory, seat, u64::from(message.length), tx.configured())?;
                waiters::wait_in(tx, Line::Senders, seat.index())?;
            }
            return Ok(Verdict::Commit(Attempt::InLine));
        }
        if !QUICK && state & !1 == waiters::FULL {
            Line::Senders.leave_anywhere(tx, seat.index())?;
        }
        if !QUICK && state != waiters::IDLE {
            tx.hold(seat.index(), Held::State, waiters::IDLE)?;
        }
        let mut handed = None;
        if !QUICK && tx.receivers() != 0 {
            match waiters::offer(tx, message.granule, message.mtype, message.length, after)? {
                Offer::Taken(handover) => {
                    waiters::owe(tx.memory, seat.index(), Some(handover))?;
                    handed = Some(handover);
                }
                Offer::Declined => {}
                Offer::Crowded => return Ok(Verdict::Commit(Attempt::Crowded)),
            }
        }
        // What is sent once more was stamped when it was sent.
        if !message.text.is_null() {
            tx.set_stime(now);
            tx.set_lspid(pid);
        }
        match handed {
            Some(_) => tx.set_rtime(now),
            None if !QUICK && message.again.is_some() => {
                order::reinsert(tx, message.granule, message.length)?
            }
            None => order::append(tx, message.granule, message.length)?,
        }
        // What goes out is replaced in the same transaction, if that is easy.
        let spare = pool::take_granule(tx)?.unwrap_or(0);
        tx.hold_by(seat, Held::Spare, spare)?;
        // A message that was handed over and came back has its block in the participant's hand.
        let owned = if QUICK { message.owned } else { pool::owned(tx.words(message.granule)?) };
        if owned != 0 && owned != message.block {
            // It goes out with another block, or none.
            if QUICK {
                return Err(Stop::Unusual);
            }
            pool::free_block(tx, owned)?;
            pool::disown(tx, message.granule)?;
        }
        if message.block != 0 && message.block != owned {
            let class = layout::block_class(message.length as usize).ok_or(Damaged)?;
            let block = pool::take_block(tx, class)?;
            pool::hold_another(tx, seat, block)?;
        }
        Ok(Verdict::Commit(handed.map_or(Attempt::Queued, Attempt::Handed)))
    }
}
