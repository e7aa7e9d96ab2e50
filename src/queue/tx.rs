//! A transaction on a queue: the header's fields by name, and the loop that runs a body to its end.

use crate::os::errno::Errno;
use crate::shm::Mapping;
use crate::shm::layout::participant::ANNEX_WORDS;
use crate::shm::layout::{self, GRANULE_WORDS, Held, Position, message};
use crate::txn::{self, Damaged, Memory, PREFIX, Seat, Transaction};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering, fence};

/// Words in the header. With the mark before it, it fills one cache line: two processors that use a queue in turn pass
/// that one on for each message.
pub const WORDS: usize = 7;
const _: () = assert!((PREFIX + WORDS) * 8 == 64);

/// A transaction under way.
pub struct Tx<'m> {
    /// The queue's memory.
    pub memory: &'m Mapping,
    /// Whose it is.
    seat: u32,
    inner: Transaction<'m, AtomicU64, WORDS>,
    annex: Annex<'m>,
}

/// Why a body gives up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// What it read cannot be: torn by a commit meanwhile, or damaged for good.
    Damaged,
    /// The arena must grow first.
    Grow,
    /// The answer is an error.
    Errno(Errno),
    /// More than a [quick](crate::queue) attempt can do.
    Unusual,
    /// Somebody else was faster than a quick attempt.
    Lost,
}

impl From<Damaged> for Stop {
    fn from(Damaged: Damaged) -> Stop {
        Stop::Damaged
    }
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Errno(errno)
    }
}

/// In [`Tx::removed`]: not born yet.
pub const UNBORN: u32 = 1 << 31;
/// In [`Tx::removed`]: ended before it was born.
pub const NEVER: u32 = 1 << 30;

/// What a damaged queue answers: to its users it is as good as removed.
pub const DAMAGED: Errno = Errno::EIDRM;

/// What becomes of damage outside of a body.
pub fn damaged(Damaged: Damaged) -> Errno {
    DAMAGED
}

/// How a body ends that does not give up.
pub enum Verdict<R> {
    /// Make the changes true, then return this.
    Commit(R),
    /// Nothing is to be changed; return this if the snapshot is still the truth.
    Answer(R),
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident $set:ident: $part:ident $word:literal $type:ty, $shift:literal $bits:literal;)*) => {
        impl Tx<'_> {
            $($(#[$doc])*
            #[inline(always)]
            pub fn $name(&self) -> $type {
                (self.$part($word) >> $shift & (u64::MAX >> (64 - $bits))) as $type
            }
            #[doc = concat!("Sets [`Tx::", stringify!($name), "`].")]
            #[inline(always)]
            pub fn $set(&mut self, value: $type) {
                let mask = u64::MAX >> (64 - $bits) << $shift;
                let word = self.$part($word);
                let value = word & !mask | u64::from(value) << $shift & mask;
                fields!(@store self $part $word value);
            }
            )*
        }
    };
    (@store $tx:ident header $word:literal $value:ident) => { $tx.inner.header[$word] = $value };
    (@store $tx:ident annex $word:literal $value:ident) => { $tx.set_annex($word, $value) };
}

// The upper bits of the header's first word are the transaction's (`txn::LENGTH`).
fields! {
    /// The message taken last in order of arrival; the first in the queue follows it.
    head set_head: header 0 u32, 0 24;
    /// The last message in the queue; `head` when it is empty.
    tail set_tail: header 0 u32, 24 24;
    /// The first free message; those up to `head` are free too.
    free set_free: header 1 u32, 0 24;
    /// The first granule never used.
    mark set_mark: header 1 u32, 24 24;
    /// Which annex is in force.
    annexed set_annexed: header 1 u32, 48 13;
    /// `msg_qnum`.
    qnum set_qnum: header 2 u32, 0 24;
    /// The first message that the type index does not know; 0 if it knows all, or there are none.
    unindexed set_unindexed: header 2 u32, 24 24;
    /// `msg_cbytes`.
    cbytes set_cbytes: header 3 u64, 0 32;
    /// Counts the messages that were taken out or handed over.
    taken set_taken: header 3 u32, 32 32;
    /// `msg_stime`.
    stime set_stime: header 4 u64, 0 64;
    /// `msg_rtime`.
    rtime set_rtime: header 5 u64, 0 64;
    /// `msg_lspid`.
    lspid set_lspid: header 6 u32, 0 32;
    /// `msg_lrpid`.
    lrpid set_lrpid: header 6 u32, 32 32;
    /// The place of the settings.
    settings set_settings: annex 0 u32, 0 32;
    /// Counts its replacements.
    configured set_configured: annex 0 u32, 32 32;
    /// 0 while the queue is alive. Else the participant, + 1, whose owner has to remove its names: who removed it,
    /// or who creates it; in the latter case with [`UNBORN`] or [`NEVER`].
    removed set_removed: annex 1 u32, 0 32;
    /// Messages handed to a waiting receiver who has not taken them yet.
    handed set_handed: annex 1 u32, 32 32;
    /// All messages up to this one are of one type; 0 if nothing is known. For `MSG_EXCEPT`.
    alike set_alike: annex 2 u32, 0 32;
    /// The first granule whose page is not reserved.
    reserved set_reserved: annex 2 u32, 32 32;
    /// Root of the type index.
    root set_root: annex 3 u32, 0 32;
    /// The first free branch.
    free_branch set_free_branch: annex 3 u32, 32 32;
    /// First and last of the receivers' line: participant + 1, or 0.
    first_receiver set_first_receiver: annex 4 u32, 0 32;
    /// See [`Tx::first_receiver`].
    last_receiver set_last_receiver: annex 4 u32, 32 32;
    /// First and last of the senders' line: participant + 1, or 0.
    first_sender set_first_sender: annex 5 u32, 0 32;
    /// See [`Tx::first_sender`].
    last_sender set_last_sender: annex 5 u32, 32 32;
    /// How many receivers wait.
    receivers set_receivers: annex 6 u16, 0 16;
    /// How many senders wait.
    senders set_senders: annex 6 u16, 16 16;
    /// `msg_qbytes`, as the settings have it.
    qbytes set_qbytes: annex 7 u64, 0 64;
}

/// Header and annex of a new queue: a first granule at `head`, so many reserved, who has to bear it, and `msg_qbytes`.
pub fn first(head: u32, reserved: u32, removed: u32, qbytes: u64) -> ([u64; WORDS], [u64; ANNEX_WORDS]) {
    let (mut header, mut annex) = ([0; WORDS], [0; ANNEX_WORDS]);
    // As in the table above.
    header[0] = u64::from(head) | u64::from(head) << 24;
    header[1] = u64::from(head) | u64::from(head + 1) << 24;
    annex[1] = u64::from(removed);
    annex[2] = u64::from(reserved) << 32;
    annex[7] = qbytes;
    (header, annex)
}

/// What belongs to the header, but changes rarely: read where it lies, and copied when it is changed.
struct Annex<'m> {
    /// Where it lies.
    there: &'m [AtomicU64; ANNEX_WORDS],
    changed: bool,
    /// What it is to be, once changed.
    words: [MaybeUninit<u64>; ANNEX_WORDS],
}

/// Until a transaction has begun.
static NO_ANNEX: [AtomicU64; ANNEX_WORDS] = [const { AtomicU64::new(0) }; ANNEX_WORDS];

impl<'m> Annex<'m> {
    #[inline(always)]
    fn new() -> Annex<'m> {
        Annex { there: &NO_ANNEX, changed: false, words: [const { MaybeUninit::uninit() }; ANNEX_WORDS] }
    }

    #[inline(always)]
    fn at(memory: &'m Mapping, annex: u32) -> Result<&'m [AtomicU64; ANNEX_WORDS], Damaged> {
        let place = layout::annex_offset(annex).ok_or(Damaged)?;
        memory.words(place, ANNEX_WORDS).and_then(|words| words.try_into().ok()).ok_or(Damaged)
    }
}

impl<'m> Tx<'m> {
    /// None yet; as a participant.
    #[inline(always)]
    pub fn new(memory: &'m Mapping, seat: u32) -> Tx<'m> {
        Tx { memory, seat, inner: Transaction::to_look_at([0; WORDS]), annex: Annex::new() }
    }

    /// Begins one that only looks.
    pub fn begin(memory: &'m Mapping) -> Result<Tx<'m>, Damaged> {
        let mut tx = Tx::new(memory, 0);
        tx.begin_anew()?;
        Ok(tx)
    }

    /// What can be seen by who may only read the control file: a consistent header, no link words.
    pub fn glimpse(memory: &'m Mapping) -> Result<Tx<'m>, Damaged> {
        let mut tx = Tx::new(memory, 0);
        tx.inner = Transaction::to_look_at(txn::glimpse(memory)?);
        tx.annex.there = Annex::at(memory, tx.annexed())?;
        Ok(tx)
    }

    /// The one attempt of a quick operation: begins, if nothing stands in the way.
    #[inline(always)]
    pub fn begin_quickly(&mut self) -> Result<(), Stop> {
        if !self.inner.begin_quickly(self.memory, self.seat)? {
            return Err(Stop::Lost);
        }
        self.annex.there = Annex::at(self.memory, self.annexed())?;
        self.annex.changed = false;
        Ok(())
    }

    /// Ends it as its body says; unusual if that is lost.
    #[inline(always)]
    pub fn end_quickly<R>(&mut self, said: Result<Verdict<R>, Stop>) -> Result<R, Stop> {
        let (kept, result) = match said {
            Ok(Verdict::Commit(result)) => (self.commit()?, Ok(result)),
            Ok(Verdict::Answer(result)) => (self.still(), Ok(result)),
            Err(stop) => (self.still(), Err(stop)),
        };
        if kept { result } else { Err(Stop::Lost) }
    }

    #[inline(always)]
    fn begin_anew(&mut self) -> Result<(), Damaged> {
        self.inner.begin(self.memory, self.seat)?;
        self.annex.there = Annex::at(self.memory, self.annexed())?;
        self.annex.changed = false;
        Ok(())
    }

    /// Commits; false if somebody else was faster.
    ///
    /// An annex that changed goes to that one of the participant's two that is not in force. So no annex that `cur` leads
    /// to is written, as no record is that it names.
    #[inline(always)]
    fn commit(&mut self) -> Result<bool, Damaged> {
        if self.annex.changed {
            let annex = self.seat << 1 | u32::from(self.annexed() == self.seat << 1);
            let place = Annex::at(self.memory, annex)?;
            // Release: by the argument in `txn`, before writing what an old snapshot may still look at.
            fence(Ordering::Release);
            for (to, from) in place.iter().zip(&self.annex.words) {
                // SAFETY: all are written once one is changed.
                // Relaxed: published by the commit.
                to.store(unsafe { from.assume_init() }, Ordering::Relaxed);
            }
            self.set_annexed(annex);
        }
        self.inner.commit(self.memory)
    }

    #[inline(always)]
    fn header(&self, word: usize) -> u64 {
        self.inner.header[word]
    }

    #[inline(always)]
    fn annex(&self, word: usize) -> u64 {
        if self.annex.changed {
            // SAFETY: all are written once one is changed.
            return unsafe { self.annex.words[word].assume_init() };
        }
        // Relaxed: as every plain word, it is believed only if the snapshot is still the truth.
        self.annex.there[word].load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set_annex(&mut self, word: usize, value: u64) {
        if !self.annex.changed {
            for (to, from) in self.annex.words.iter_mut().zip(self.annex.there) {
                to.write(from.load(Ordering::Relaxed));
            }
            self.annex.changed = true;
        }
        self.annex.words[word].write(value);
    }

    /// The value of a link word.
    #[inline(always)]
    pub fn get(&self, position: Position) -> Result<u32, Damaged> {
        self.inner.get(self.memory, position.0)
    }

    /// Changes a link word.
    #[inline(always)]
    pub fn set(&mut self, position: Position, value: u32) -> Result<(), Damaged> {
        self.inner.set(self.memory, position.0, value)
    }

    /// A link word of a participant of ours, which this transaction has not changed.
    #[inline(always)]
    pub fn held_by(&self, seat: &Seat<'m>, which: Held) -> u32 {
        self.inner.peek(seat.link(which))
    }

    /// Changes it.
    #[inline(always)]
    pub fn hold_by(&mut self, seat: &Seat<'m>, which: Held, value: u32) -> Result<(), Damaged> {
        self.inner.change(Position::participant(seat.index(), which).0, seat.link(which), value)
    }

    /// Whether this transaction has changed no link word yet.
    #[inline(always)]
    pub fn is_unchanged(&self) -> bool {
        self.room() == txn::LOG
    }

    /// The value of a link word found before, which this transaction has not changed.
    #[inline(always)]
    pub fn value(&self, word: &AtomicU64) -> u32 {
        self.inner.peek(word)
    }

    /// A link word of a granule, which this transaction has not changed.
    #[inline(always)]
    pub fn peek(&self, granule: u32, link: u32) -> Result<u32, Damaged> {
        Ok(self.inner.peek(&self.words(granule)?[link as usize]))
    }

    /// Changes it.
    #[inline(always)]
    pub fn change(&mut self, granule: u32, link: u32, value: u32) -> Result<(), Damaged> {
        let word = &self.words(granule)?[link as usize];
        self.inner.change(Position::granule(granule, link).0, word, value)
    }

    /// The words of a granule.
    #[inline(always)]
    pub fn words(&self, granule: u32) -> Result<&'m [AtomicU64; GRANULE_WORDS], Damaged> {
        self.memory.granule(granule).ok_or(Damaged)
    }

    /// Writes a link word among those of something only this participant can reach.
    #[inline(always)]
    pub fn privately_in(&self, words: &[AtomicU64; GRANULE_WORDS], link: u32, value: u32) {
        self.inner.privately_in::<Mapping>(&words[link as usize], value);
    }

    /// Writes a link word of something only this participant can reach.
    #[inline(always)]
    pub fn privately(&self, position: Position, value: u32) -> Result<(), Damaged> {
        self.inner.privately(self.memory, position.0, value)
    }

    /// Whether the snapshot is still the truth.
    #[inline(always)]
    pub fn still(&self) -> bool {
        self.inner.still(self.memory)
    }

    /// Which record it found in force.
    #[inline(always)]
    pub fn found(&self) -> u32 {
        self.inner.found()
    }

    /// How many more link words can be changed.
    #[inline]
    pub fn room(&self) -> usize {
        self.inner.room()
    }

    /// What the link word at a position will hold, all 64 bits, once set to `value` and committed.
    #[inline]
    pub fn mark_of(&self, value: u32) -> u64 {
        self.inner.mark_of(value)
    }

    /// A plain 64-bit word of a granule.
    #[inline(always)]
    pub fn plain(&self, granule: u32, offset: u64) -> Result<&'m AtomicU64, Damaged> {
        plain(self.memory, granule, offset)
    }

    /// Reads a plain word of a granule; relaxed: believed only if the snapshot is still the truth.
    #[inline(always)]
    pub fn read(&self, granule: u32, offset: u64) -> Result<u64, Damaged> {
        Ok(self.plain(granule, offset)?.load(Ordering::Relaxed))
    }

    /// `mtype` of a message.
    #[inline(always)]
    pub fn mtype(&self, granule: u32) -> Result<i64, Damaged> {
        Ok(self.read(granule, message::TYPE)? as i64)
    }

    /// Length of a message's text, and its block or 0.
    #[inline(always)]
    pub fn extent(&self, granule: u32) -> Result<(u32, u32), Damaged> {
        let word = self.read(granule, message::LENGTH)?;
        Ok((word as u32, (word >> 32) as u32))
    }

    /// The message after this one.
    #[inline(always)]
    pub fn next(&self, granule: u32) -> Result<u32, Damaged> {
        self.get(Position::granule(granule, message::NEXT))
    }

    /// The first message; 0 if there is none. To be asked before anything is changed.
    #[inline(always)]
    pub fn first(&self) -> Result<u32, Damaged> {
        if self.head() == self.tail() { Ok(0) } else { self.peek(self.head(), message::NEXT) }
    }

    /// What a participant holds.
    #[inline(always)]
    pub fn held(&self, seat: u32, which: Held) -> Result<u32, Damaged> {
        self.get(Position::participant(seat, which))
    }

    /// Changes what a participant holds.
    #[inline(always)]
    pub fn hold(&mut self, seat: u32, which: Held, value: u32) -> Result<(), Damaged> {
        self.set(Position::participant(seat, which), value)
    }

    /// Reads a word of the settings; relaxed, as [`Tx::read`].
    #[inline(always)]
    pub fn setting(&self, offset: u64) -> Result<u64, Damaged> {
        let place = layout::settings_offset(self.settings()).ok_or(Damaged)?;
        Ok(self.memory.word(place + offset).ok_or(Damaged)?.load(Ordering::Relaxed))
    }

    /// Counts a message that is taken out or handed over; returns the count, as a link word can hold it.
    #[inline(always)]
    pub fn count_taken(&mut self) -> u32 {
        let taken = self.taken().wrapping_add(1);
        self.set_taken(taken);
        taken & txn::LARGEST
    }

    /// Whether a text of that length fits now, as `msg_fits_inqueue` in the kernel has it.
    #[inline(always)]
    pub fn fits(&self, length: u64) -> bool {
        let qbytes = self.qbytes();
        self.cbytes().saturating_add(length) <= qbytes && u64::from(self.qnum()) < qbytes
    }
}

/// A plain 64-bit word of a granule.
#[inline(always)]
pub fn plain(memory: &Mapping, granule: u32, offset: u64) -> Result<&AtomicU64, Damaged> {
    memory.granule(granule).and_then(|words| words.get(offset as usize / 8)).ok_or(Damaged)
}

/// The attempts of one operation, until one commits, answers, or fails on a snapshot that is still the truth.
///
/// Progress: lock-free; another attempt is made only when somebody else committed meanwhile. Before it the
/// loser backs off a little: two that hammer one queue get more done taking turns.
pub struct Attempts {
    lost: u32,
}

impl Attempts {
    /// None made yet.
    #[inline(always)]
    pub fn new() -> Attempts {
        Attempts { lost: 0 }
    }

    /// Begins the next one.
    #[inline(always)]
    pub fn begin(&mut self, tx: &mut Tx) -> Result<(), Damaged> {
        if self.lost != 0 {
            back_off(self.lost)?;
        }
        tx.begin_anew()
    }

    /// Ends one as its body says. `None` if it was lost.
    #[inline(always)]
    pub fn end<R>(&mut self, tx: &mut Tx, said: Result<Verdict<R>, Stop>) -> Option<Result<R, Stop>> {
        self.lost += 1;
        match said {
            Ok(Verdict::Commit(result)) => match tx.commit() {
                Ok(true) => Some(Ok(result)),
                Ok(false) => None,
                Err(Damaged) => Some(Err(Stop::Damaged)),
            },
            Ok(Verdict::Answer(result)) => tx.still().then_some(Ok(result)),
            Err(stop) => tx.still().then_some(Err(stop)),
        }
    }
}

#[cold]
#[inline(never)]
fn back_off(lost: u32) -> Result<(), Damaged> {
    const PATIENCE: u32 = 50_000_000;
    for _ in 0..3 * (lost - 1).min(8) {
        <Mapping as Memory>::pause();
    }
    if lost < PATIENCE { Ok(()) } else { Err(Damaged) }
}

/// Attempts with a body until one counts.
#[inline]
pub fn run<'m, R>(
    memory: &'m Mapping,
    seat: u32,
    mut body: impl FnMut(&mut Tx<'m>) -> Result<Verdict<R>, Stop>,
) -> Result<R, Stop> {
    let (mut tx, mut attempts) = (Tx::new(memory, seat), Attempts::new());
    loop {
        attempts.begin(&mut tx)?;
        let said = body(&mut tx);
        if let Some(result) = attempts.end(&mut tx, said) {
            return result;
        }
    }
}

/// Runs a body that only looks; needs no participant.
#[inline]
pub fn look<'m, R>(memory: &'m Mapping, mut body: impl FnMut(&Tx<'m>) -> Result<R, Stop>) -> Result<R, Stop> {
    run(memory, 0, |tx| body(tx).map(Verdict::Answer))
}
