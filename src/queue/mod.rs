//! One queue: its operations as sequential code over transactions.
//!
//! Nothing here waits, except for room to try again (sleeping on what `waiters::bed` says is done above). An operation
//! claims a participant ([`Queue::enter`]), runs one transaction or a few, and leaves.
//!
//! # Quick attempts
//! The bodies of sending and receiving are compiled twice. Once for what is usual: room or a message is there, nobody
//! waits, what is wanted comes first; as one piece of straight code whose transaction lives in registers. It gives up
//! (`tx::Stop::Unusual`), before it has changed anything, where it would have to call something that cannot be part of
//! that; then the whole begins once more, and the other one does it. One source, so that both mean the same: what is
//! left out says `QUICK`.
//!
//! # Deaths
//! | where a participant dies                 | what that leaves behind                                  |
//! |------------------------------------------|----------------------------------------------------------|
//! | before its commit                        | nothing that anybody can see                             |
//! | after its commit, log not applied        | the next operation applies it                            |
//! | holding a granule or a block             | the next owner of the participant uses them              |
//! | in line                                  | passed over, then taken out by whoever finds it          |
//! | with a message handed to it              | it goes back to its old place, or ends with its receiver |
//! | having handed a message over, not woken  | `OWES` says whom to wake: whoever heals it does          |
//! | after another commit, before waking      | who was to be woken looks up by itself within a second   |

pub mod check;
pub mod inspect;
mod order;
mod pool;
mod receive;
mod send;
mod tx;
mod types;
pub mod waiters;

pub use receive::{Lookout, Missing, Received};
pub use send::{Outgoing, Sent};
pub use waiters::{Request, Selector};

use crate::os::clock;
use crate::os::errno::Errno;
use crate::os::process;
use crate::os::thread::{Caller, Position, caller};
use crate::shm::layout::{
    self, FIRST_PARTICIPANTS, GRANULES_PER_PAGE, Held, PARTICIPANT, participant, settings, superblock,
};
use crate::shm::{self, Mapping};
use crate::txn::{self, Damaged, Memory, PREFIX, Recovery, Seat};
use core::sync::atomic::Ordering;
use tx::{DAMAGED, NEVER, Stop, Tx, UNBORN, Verdict, look, run};
use waiters::{Aftermath, Line};

/// A queue's settings: what `IPC_SET` replaces, and what never changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Configuration {
    /// The key it was created with.
    pub key: i32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Owner's group.
    pub gid: u32,
    /// Creator.
    pub cuid: u32,
    /// Creator's group.
    pub cgid: u32,
    /// `msg_qbytes`.
    pub qbytes: u64,
    /// `msg_ctime`.
    pub ctime: u64,
}

/// What `IPC_STAT` tells beside the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// The settings.
    pub configuration: Configuration,
    /// Messages in the queue.
    pub qnum: u32,
    /// Bytes of text in the queue.
    pub cbytes: u64,
    /// Process that sent last.
    pub lspid: u32,
    /// Process that received last.
    pub lrpid: u32,
    /// When it was sent to last.
    pub stime: u64,
    /// When it was received from last.
    pub rtime: u64,
    /// How many receivers wait.
    pub receivers: u32,
    /// How many senders wait.
    pub senders: u32,
}

/// Where a queue is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Being created.
    Unborn,
    /// In use.
    Alive,
    /// Removed, or ended before it was born.
    Removed,
}

impl Stage {
    fn of(tx: &Tx) -> Stage {
        match tx.removed() {
            0 => Stage::Alive,
            unborn if unborn & UNBORN != 0 => Stage::Unborn,
            _ => Stage::Removed,
        }
    }
}

/// Says whether the caller may do what it is about to do, given the settings in force; called within the
/// transaction.
pub trait Permission {
    /// `Err` with the error to answer, or nothing. `version` counts the changes of the settings;
    /// `settings` reads them.
    fn check(&self, version: u32, settings: &dyn Fn() -> Result<Configuration, Errno>) -> Result<(), Errno>;
    /// The same, if it is known without reading them.
    fn known(&self, version: u32) -> Option<Result<(), Errno>>;
}

/// Whoever asks may: for what is done on nobody's behalf.
pub struct Anybody;

impl Permission for Anybody {
    fn check(&self, _: u32, _: &dyn Fn() -> Result<Configuration, Errno>) -> Result<(), Errno> {
        Ok(())
    }
    fn known(&self, _: u32) -> Option<Result<(), Errno>> {
        Some(Ok(()))
    }
}

impl Configuration {
    fn words(&self) -> [(u64, u64); 5] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [
            (settings::KEY_MODE, pair(self.key as u32, self.mode)),
            (settings::OWNER, pair(self.uid, self.gid)),
            (settings::CREATOR, pair(self.cuid, self.cgid)),
            (settings::QBYTES, self.qbytes),
            (settings::CTIME, self.ctime),
        ]
    }

    fn read(tx: &Tx) -> Result<Configuration, Damaged> {
        let key_mode = tx.setting(settings::KEY_MODE)?;
        let (owner, creator) = (tx.setting(settings::OWNER)?, tx.setting(settings::CREATOR)?);
        Ok(Configuration {
            key: key_mode as u32 as i32,
            mode: (key_mode >> 32) as u32,
            uid: owner as u32,
            gid: (owner >> 32) as u32,
            cuid: creator as u32,
            cgid: (creator >> 32) as u32,
            qbytes: tx.setting(settings::QBYTES)?,
            ctime: tx.setting(settings::CTIME)?,
        })
    }
}

/// Bytes at the beginning of a new queue's file.
pub const FIRST_PAGE: usize = (FIRST_PARTICIPANTS as u64 * PARTICIPANT + layout::PARTICIPANTS) as usize;
/// Bytes at the beginning of a new queue's arena ([`layout::ARENA`]).
pub const FIRST_GRANULES: usize = (GRANULES_PER_PAGE as u64 * layout::GRANULE) as usize;

/// The granule at `head` of a new queue.
const FIRST_HEAD: u32 = 1;

/// The participant that its creator is, until the queue is [born](Queue::bear).
pub const CREATOR: u32 = 0;

/// Writes what a new queue begins with, by calling `put` with offsets and words; the rest is zero.
///
/// It begins unborn, in the hand of [`CREATOR`]: so nobody can use it before it is complete, and if its creator dies
/// before that, whoever finds it can bury it.
pub fn format(id: u32, settings: &Configuration, put: impl Fn(u64, u64)) {
    put(superblock::MAGIC, layout::MAGIC);
    put(superblock::VERSION, layout::VERSION);
    put(superblock::ID, u64::from(id));
    put(superblock::CUR, txn::first_cur());
    put(superblock::PARTICIPANTS, u64::from(FIRST_PARTICIPANTS));
    let header = layout::PARTICIPANTS + participant::RECORDS + PREFIX as u64 * 8;
    let annex = layout::PARTICIPANTS + participant::ANNEXES;
    let (header_words, annex_words) =
        tx::first(FIRST_HEAD, GRANULES_PER_PAGE, UNBORN | (CREATOR + 1), settings.qbytes);
    for (start, words) in [(header, &header_words[..]), (annex, &annex_words[..])] {
        for (number, &word) in words.iter().enumerate().filter(|(_, word)| **word != 0) {
            put(start + number as u64 * 8, word);
        }
    }
    for (offset, value) in settings.words() {
        // The annex, all zero there, names the first place of the first participant.
        put(layout::PARTICIPANTS + participant::SETTINGS + offset, value);
    }
}

/// What a file says it is, checked by its first words.
pub fn identify(memory: &Mapping) -> Result<u32, Errno> {
    // Relaxed: written before the file had a name, never since.
    let word = |offset| memory.word(offset).map_or(0, |word| word.load(Ordering::Relaxed));
    identity(word(superblock::MAGIC), word(superblock::VERSION), word(superblock::ID))
}

/// How many bytes at the beginning of a file [`identify_bytes`] looks at.
pub const IDENTITY: usize = superblock::ID as usize + 8;

/// The same for the first bytes of a file that is not mapped.
pub fn identify_bytes(bytes: &[u8]) -> Result<u32, Errno> {
    let word = |offset: u64| {
        let there = bytes.get(offset as usize..).and_then(|rest| rest.first_chunk());
        there.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    identity(word(superblock::MAGIC), word(superblock::VERSION), word(superblock::ID))
}

fn identity(magic: u64, version: u64, id: u64) -> Result<u32, Errno> {
    if magic != layout::MAGIC || version != layout::VERSION {
        return Err(Errno::EINVAL);
    }
    u32::try_from(id).ok().filter(|&id| id <= i32::MAX as u32).ok_or(Errno::EINVAL)
}

/// A queue, as one process sees it.
#[derive(Clone, Copy)]
pub struct Queue<'m> {
    memory: &'m Mapping,
    object: usize,
}

fn refused(stop: Stop) -> Errno {
    match stop {
        Stop::Errno(errno) => errno,
        Stop::Damaged | Stop::Grow | Stop::Unusual | Stop::Lost => DAMAGED,
    }
}

impl<'m> Queue<'m> {
    /// The queue in `memory`; `object` is what the thread's frames know it by.
    pub fn new(memory: &'m Mapping, object: usize) -> Queue<'m> {
        Queue { memory, object }
    }

    /// Its memory.
    pub fn memory(&self) -> &'m Mapping {
        self.memory
    }

    /// Claims a participant for an operation, after healing what is found dead or left behind.
    ///
    /// `ENOMEM` when all are taken by living threads.
    pub fn enter(&self) -> Result<Seat<'m>, Errno> {
        let caller = caller();
        if caller.lane().is_busy() {
            self.recover(caller.stack());
        }
        self.enter_after_all(|| Seat::claim(self.memory, self.object, caller))
    }

    /// The same for a caller that has opened a frame for its use of the queue, and found nothing left behind.
    #[inline(always)]
    pub fn enter_in(self, caller: Caller, frame: u8) -> Result<Seat<'m>, Errno> {
        // The line on which all meet: asked for now, it is there when the transaction begins, and need not be asked for
        // once more when it commits.
        if let Some(cur) = self.memory.cur() {
            shm::expect_to_write(cur);
        }
        match Seat::claim_in(self.memory, caller, frame) {
            Some(seat) if !seat.inherited() => {
                seat.expect_peer(self.memory);
                Ok(seat)
            }
            claimed => self.enter_after_healing(caller, frame, claimed),
        }
    }

    #[cold]
    #[inline(never)]
    fn enter_after_healing(
        self,
        caller: Caller,
        frame: u8,
        mut claimed: Option<Seat<'m>>,
    ) -> Result<Seat<'m>, Errno> {
        self.enter_after_all(|| claimed.take().or_else(|| Seat::claim_in(self.memory, caller, frame)))
    }

    fn enter_after_all(&self, mut claim: impl FnMut() -> Option<Seat<'m>>) -> Result<Seat<'m>, Errno> {
        loop {
            let seat = claim().ok_or(Errno::ENOMEM)?;
            if !seat.inherited() {
                return Ok(seat);
            }
            self.heal(seat);
        }
    }

    /// Heals what this thread left by siglongjmp on this queue.
    #[cold]
    #[inline(never)]
    pub fn recover(self, stack: Position) {
        loop {
            match Seat::recover(self.memory, self.object, stack) {
                Recovery::Nothing => return,
                Recovery::Again => {}
                Recovery::Seat(seat) => self.heal(seat),
            }
        }
    }

    /// Puts in order what the last owner of a participant left, and gives the participant back.
    #[cold]
    #[inline(never)]
    fn heal(&self, seat: Seat<'m>) {
        // By beginning: what it held may stand in a log that is not applied yet.
        let removed = look(self.memory, |tx| Ok(tx.removed()));
        // Of a queue that is removed nobody needs what it held, and the body may be missing.
        if removed == Ok(0) {
            pool::stamp(self.memory, seat.index());
            self.pay_debt(&seat);
            let withdrawn = run(self.memory, seat.index(), |tx| {
                if tx.held(seat.index(), Held::State)? == waiters::IDLE {
                    return Ok(Verdict::Answer(None));
                }
                Ok(Verdict::Commit(Some(waiters::withdraw(tx, seat.index())?)))
            });
            if let Ok(Some(withdrawn)) = withdrawn {
                self.after_withdrawal(&seat, withdrawn);
            }
        }
        seat.release();
    }

    fn after_withdrawal(&self, seat: &Seat<'m>, withdrawn: waiters::Withdrawn) {
        if let Some(taken) = withdrawn.orphan {
            self.send_again(seat, Some(taken));
        }
        if withdrawn.passes_on {
            self.wake_senders(seat);
        }
    }

    /// Heals a participant found dead.
    #[cold]
    #[inline(never)]
    fn heal_dead(&self, index: u32) {
        if !txn::is_dead(self.memory, index) {
            return;
        }
        if let Some(seat) = Seat::claim_at(self.memory, self.object, index) {
            self.heal(seat);
        }
    }

    /// Heals all that died with a message in hand: what can be put back counts again. True if there were any.
    #[cold]
    fn heal_messages(&self) -> bool {
        let mut any = false;
        // Each round takes at least one participant out of that state, or ends.
        for _ in 0..layout::MAX_PARTICIPANTS {
            let Some(index) = waiters::dead_with_message(self.memory) else { break };
            self.heal_dead(index);
            any = true;
        }
        any
    }

    /// Sees to what was found while a line was walked: wakes receivers that left it because their buffer was
    /// too small (their state says so; which they are is found by looking), heals a dead one.
    #[inline(always)]
    fn clean_up(&self, after: Aftermath) {
        if after.refused != 0 {
            self.wake_refused();
        }
        if let Some(index) = after.dead.checked_sub(1) {
            self.heal_dead(index);
        }
    }

    #[cold]
    #[inline(never)]
    fn wake_refused(&self) {
        for seat in 0..txn::seats(self.memory) {
            if pool::held(self.memory, seat, Held::State) == waiters::TOO_BIG {
                waiters::wake(self.memory, seat);
            }
        }
    }

    /// Wakes senders that fit now.
    #[cold]
    #[inline(never)]
    pub fn wake_senders(&self, seat: &Seat<'m>) {
        let mut after = Aftermath::default();
        for _ in 0..layout::MAX_PARTICIPANTS {
            let mut woken = [0; 4];
            let filled = run(self.memory, seat.index(), |tx| {
                after = Aftermath::default();
                if tx.senders() == 0 || tx.removed() != 0 {
                    return Ok(Verdict::Answer(0));
                }
                match waiters::release_senders(tx, &mut woken, &mut after)? {
                    0 => Ok(Verdict::Answer(0)),
                    filled => Ok(Verdict::Commit(filled)),
                }
            });
            let filled = filled.unwrap_or(0);
            // One that is not asleep is on its way, or stopped: then the next may go instead.
            let asleep = woken.iter().take(filled).filter(|&&seat| waiters::wake(self.memory, seat)).count();
            if let Some(index) = after.dead.checked_sub(1) {
                self.heal_dead(index);
                continue;
            }
            if filled == 0 || (asleep == filled && filled < woken.len()) {
                return;
            }
        }
    }

    /// Looks at the whole: what `IPC_STAT` tells. Messages whose receiver died are put back first, as far as they can be.
    pub fn status(&self, permission: &dyn Permission) -> Result<Status, Errno> {
        loop {
            let (status, handed) = look(self.memory, |tx| {
                self.admit(tx, permission)?;
                Ok((status(tx)?, tx.handed()))
            })
            .map_err(refused)?;
            if handed == 0 || !self.heal_messages() {
                return Ok(status);
            }
        }
    }

    /// `EINVAL` once the queue is removed, else what the permission says.
    #[inline(always)]
    fn admit(&self, tx: &Tx, permission: &(impl Permission + ?Sized)) -> Result<(), Stop> {
        if tx.removed() != 0 {
            return Err(Stop::Errno(Errno::EINVAL));
        }
        let settings = || Configuration::read(tx).map_err(|Damaged| DAMAGED);
        Ok(permission.check(tx.configured(), &settings)?)
    }

    /// The same in an attempt that may be quick.
    #[inline(always)]
    fn admit_to<const QUICK: bool>(&self, tx: &Tx, permission: &impl Permission) -> Result<(), Stop> {
        if !QUICK {
            return self.admit(tx, permission);
        }
        if tx.removed() != 0 {
            return Err(Stop::Errno(Errno::EINVAL));
        }
        Ok(permission.known(tx.configured()).ok_or(Stop::Unusual)??)
    }

    /// What a permission says at this moment; `EINVAL` if the queue is removed.
    pub fn permits(&self, permission: &dyn Permission) -> Result<(), Errno> {
        look(self.memory, |tx| self.admit(tx, permission)).map_err(refused)
    }

    /// Whether the queue is removed.
    pub fn is_removed(&self) -> bool {
        look(self.memory, |tx| Ok(tx.removed() != 0)).unwrap_or(true)
    }

    /// The settings, without asking for permission.
    pub fn settings(&self) -> Result<Configuration, Errno> {
        look(self.memory, |tx| {
            if tx.removed() != 0 {
                return Err(Stop::Errno(Errno::EINVAL));
            }
            Ok(Configuration::read(tx)?)
        })
        .map_err(refused)
    }

    /// Replaces the settings (`IPC_SET`): `change` gets the present ones and returns the new ones. Wakes
    /// all receivers, so that they ask for permission again, and all senders that fit now.
    pub fn configure(
        &self,
        change: &dyn Fn(Configuration) -> Result<Configuration, Errno>,
    ) -> Result<Configuration, Errno> {
        let seat = self.enter()?;
        let result = self.configure_as(&seat, change);
        seat.release();
        result
    }

    fn configure_as(
        &self,
        seat: &Seat<'m>,
        change: &dyn Fn(Configuration) -> Result<Configuration, Errno>,
    ) -> Result<Configuration, Errno> {
        let settings = run(self.memory, seat.index(), |tx| {
            if tx.removed() != 0 {
                return Err(Stop::Errno(Errno::EINVAL));
            }
            let settings = change(Configuration::read(tx)?)?;
            // Of this participant's two places, the one that is not in force.
            let place = seat.index() << 1 | u32::from(tx.settings() == seat.index() << 1);
            let offset = layout::settings_offset(place).ok_or(Damaged)?;
            // Release: by the argument in `txn`, before writing what an old snapshot may still look at.
            core::sync::atomic::fence(Ordering::Release);
            for (within, value) in settings.words() {
                // Relaxed: published by the commit.
                self.memory.word(offset + within).ok_or(Damaged)?.store(value, Ordering::Relaxed);
            }
            tx.set_settings(place);
            tx.set_qbytes(settings.qbytes);
            tx.set_configured(tx.configured().wrapping_add(1));
            Ok(Verdict::Commit(settings))
        })
        .map_err(refused)?;
        let mut passed = 0;
        loop {
            let mut nudged = [0; 8];
            let filled = run(self.memory, seat.index(), |tx| {
                match waiters::nudge(tx, Line::Receivers, passed, &mut nudged)? {
                    0 => Ok(Verdict::Answer(0)),
                    filled => Ok(Verdict::Commit(filled)),
                }
            });
            let filled = filled.unwrap_or(0);
            for &seat in nudged.iter().take(filled) {
                waiters::wake(self.memory, seat);
            }
            passed += filled as u32;
            if filled < nudged.len() || passed > layout::MAX_PARTICIPANTS {
                break;
            }
        }
        self.wake_senders(seat);
        Ok(settings)
    }

    /// Ends the queue (`IPC_RMID`), if `may` agrees: from here on every operation fails, and who waits is
    /// woken. Then `bury` removes its names, as [`Queue::bury`] has it.
    pub fn remove(
        &self,
        may: &dyn Fn(Configuration) -> Result<(), Errno>,
        bury: &dyn Fn(Configuration),
    ) -> Result<(), Errno> {
        let seat = self.enter()?;
        let settings = run(self.memory, seat.index(), |tx| {
            if tx.removed() != 0 {
                return Err(Stop::Errno(Errno::EINVAL));
            }
            let settings = Configuration::read(tx)?;
            may(settings)?;
            tx.set_removed(seat.index() + 1);
            Ok(Verdict::Commit(settings))
        });
        if let Ok(settings) = settings {
            for line in [Line::Receivers, Line::Senders] {
                self.dismiss(&seat, line);
            }
            bury(settings);
        }
        seat.release();
        settings.map(drop).map_err(refused)
    }

    /// Where it is in its life, and its settings.
    pub fn stage(&self) -> Result<(Stage, Configuration), Errno> {
        look(self.memory, |tx| Ok((Stage::of(tx), Configuration::read(tx)?))).map_err(refused)
    }

    /// Makes a new queue usable, if nobody has yet; by whoever knows that it is complete. True if it is alive now.
    pub fn bear(&self) -> Result<bool, Errno> {
        let seat = self.enter()?;
        let alive = self.bear_as(&seat);
        seat.release();
        alive
    }

    /// The same, as a participant that is held: its creator's, whose death inside a participant of its own would not
    /// always be known.
    pub fn bear_as(&self, seat: &Seat<'m>) -> Result<bool, Errno> {
        run(self.memory, seat.index(), |tx| match Stage::of(tx) {
            Stage::Unborn => {
                tx.set_removed(0);
                Ok(Verdict::Commit(true))
            }
            stage => Ok(Verdict::Answer(stage == Stage::Alive)),
        })
        .map_err(refused)
    }

    /// Ends an unborn queue. Its names are still its creator's to remove, or whoever buries it. True if it was
    /// never born, and so will never be.
    pub fn renounce(&self) -> Result<bool, Errno> {
        let seat = self.enter()?;
        let ended = self.renounce_as(&seat);
        seat.release();
        ended
    }

    /// The same, as a participant that is held.
    pub fn renounce_as(&self, seat: &Seat<'m>) -> Result<bool, Errno> {
        run(self.memory, seat.index(), |tx| match tx.removed() {
            unborn if unborn & UNBORN != 0 => {
                tx.set_removed(NEVER | (unborn & !UNBORN));
                Ok(Verdict::Commit(true))
            }
            removed => Ok(Verdict::Answer(removed & NEVER != 0)),
        })
        .map_err(refused)
    }

    /// Claims the participant that creates a queue which nobody else knows yet.
    pub fn enter_as_creator(&self) -> Result<Seat<'m>, Errno> {
        Seat::claim_at(self.memory, self.object, CREATOR).ok_or(Errno::ENOMEM)
    }

    /// Removes the names of a removed queue whose remover died before it could, or of one whose creator died.
    /// Only one participant at a time has that right: the one that removed the queue, or who took over its
    /// seat. So `bury` may look at a name, and then remove it, and be sure that it was still the name it
    /// looked at. False if somebody living has that right.
    pub fn bury(&self, bury: &dyn Fn(Configuration)) -> bool {
        // Whose right it is.
        let removed =
            || look(self.memory, |tx| Ok((tx.removed() & !(UNBORN | NEVER), Configuration::read(tx)?)));
        let Some(index) = removed().ok().and_then(|(removed, _)| removed.checked_sub(1)) else {
            return false;
        };
        let claim = || Seat::claim_at(self.memory, self.object, index);
        let Some(seat) = claim().or_else(|| {
            // It may have died in a handler, inside another operation: that one's participant says so, if it was
            // one on this queue; else only the thread's absence does.
            (0..txn::seats(self.memory)).for_each(|index| self.heal_dead(index));
            txn::reap(self.memory, index);
            claim()
        }) else {
            return false;
        };
        // It may have been born meanwhile; from here on it cannot be.
        let _ = self.renounce_as(&seat);
        let buried = match removed() {
            Ok((removed, settings)) if removed == index + 1 => {
                bury(settings);
                true
            }
            _ => false,
        };
        self.heal(seat);
        buried
    }

    fn dismiss(&self, seat: &Seat<'m>, line: Line) {
        for _ in 0..layout::MAX_PARTICIPANTS {
            let mut woken = [0; 4];
            let filled = run(self.memory, seat.index(), |tx| match waiters::dismiss(tx, line, &mut woken)? {
                0 => Ok(Verdict::Answer(0)),
                filled => Ok(Verdict::Commit(filled)),
            });
            let filled = filled.unwrap_or(0);
            for &seat in woken.iter().take(filled) {
                waiters::wake(self.memory, seat);
            }
            if filled == 0 {
                return;
            }
        }
    }

    /// Leaves the line after a signal handler ran, or for another reason not to wait on. True if it was too
    /// late: a message has been handed over, see [`Queue::take_handed`].
    pub fn stop_waiting(&self, seat: &Seat<'m>) -> Result<bool, Errno> {
        let left = run(self.memory, seat.index(), |tx| {
            if tx.held(seat.index(), Held::State)? & waiters::HANDED != 0 {
                return Ok(Verdict::Answer(None));
            }
            Ok(Verdict::Commit(Some(waiters::withdraw(tx, seat.index())?)))
        })
        .map_err(refused)?;
        let handed = left.is_none();
        if let Some(withdrawn) = left {
            self.after_withdrawal(seat, withdrawn);
        }
        Ok(handed)
    }
}

fn status(tx: &Tx) -> Result<Status, Damaged> {
    Ok(Status {
        configuration: Configuration::read(tx)?,
        qnum: tx.qnum(),
        cbytes: tx.cbytes(),
        lspid: tx.lspid(),
        lrpid: tx.lrpid(),
        stime: tx.stime(),
        rtime: tx.rtime(),
        receivers: tx.receivers().into(),
        senders: tx.senders().into(),
    })
}

/// Brings a range of the copy of a control file up to date: offset and length.
pub type Fetch<'a> = &'a dyn Fn(u64, u64) -> Result<(), Errno>;

/// A header, and the status that goes with it, in the copy of a control file.
fn snapshot<'m>(copy: &'m Mapping, fetch: Fetch) -> Result<(Tx<'m>, Status), Errno> {
    const RECORD: u64 = participant::RECORD_WORDS * 8;
    const ANNEX: u64 = participant::ANNEX_WORDS as u64 * 8;
    let cur = || {
        fetch(superblock::CUR, 8)?;
        // Relaxed: the copy is ours alone.
        copy.word(superblock::CUR).map(|cur| cur.load(Ordering::Relaxed)).ok_or(DAMAGED)
    };
    for _ in 0..1000 {
        let before = cur()?;
        fetch(layout::record_offset(txn::named_by(before)).ok_or(DAMAGED)?, RECORD)?;
        let tx = Tx::glimpse(copy).map_err(|Damaged| DAMAGED)?;
        fetch(layout::annex_offset(tx.annexed()).ok_or(DAMAGED)?, ANNEX)?;
        fetch(layout::settings_offset(tx.settings()).ok_or(DAMAGED)?, settings::SIZE)?;
        let status = status(&tx).map_err(|Damaged| DAMAGED)?;
        // By the argument in `txn`: while `cur` names the record, that is not written, and the annex and the settings
        // that it leads to are not either.
        if cur()? == before {
            return Ok((tx, status));
        }
    }
    Err(DAMAGED)
}

/// What can be seen of a queue by who may only read its control file, in a copy of it. Nothing is changed, and
/// nobody who is dead is healed.
pub fn glimpse(copy: &Mapping, fetch: Fetch) -> Result<(Status, Stage), Errno> {
    let (tx, status) = snapshot(copy, fetch)?;
    Ok((status, Stage::of(&tx)))
}

/// Address of the text in a block.
fn block_text(memory: &Mapping, block: u32, length: usize) -> Option<*mut u8> {
    if block == 0 || block >= layout::GRANULES {
        return None;
    }
    memory.at(layout::granule_offset(block) + layout::BLOCK_TEXT, length as u64)
}

/// Seconds and process id for the stamps of this moment.
fn stamps() -> (u64, u32) {
    (clock::seconds(), process::pid())
}

#[cfg(test)]
mod tests;
