//! The lock-free transaction: everything about a queue changes at once, by one compare-and-swap.
//!
//! After OneFile (Ramalhete, Correia, Felber, Cohen: "OneFile: A Wait-Free Persistent Transactional
//! Memory", DSN 2019): helpers apply *data*, a redo log, never code, so that any process can finish what
//! another began. Unlike OneFile, most of the state is not logged at all: it is a small *header* that
//! each transaction copies, changes and publishes whole.
//!
//! # Words
//! ```text
//! cur     seq : 50 | record : 14          which record is the truth, and how many there were before it
//! link    tag : 39 | value : 25           tag: low bits of the seq of the transaction that wrote it
//! record  applied | header, with the log's length in its first word | log: (position | value << 32, old link word) ...
//! ```
//! Each participant owns two records, so that the one `cur` names is never overwritten.
//!
//! # Protocol
//! - [`begin`]: read `cur`; read the header of the record it names; if its log is not known to be applied,
//!   apply it; if `cur` has not moved meanwhile, the copy is a consistent snapshot.
//! - body: ordinary sequential code over the header copy and the link words; new link values go to a log, in the
//!   record that will be committed.
//! - [`Transaction::commit`]: write the header before the log, in a record of one's own, then swing `cur` to it. This
//!   is the linearisation point. Then apply the log and mark it applied.
//! - apply: for each entry compare-and-swap the link word from its old to its new value.
//!
//! # Invariants
//! 1. The record that `cur` names is not written, but for its `applied` mark.
//! 2. When `cur` moves to `(seq + 1, r)`, the log of `seq` has been applied entirely: its successor began
//!    on it. So at most one log is ever outstanding.
//! 3. A link word changes only by the application of the one log that `cur` names, or, while no other
//!    participant can reach it, by [`Transaction::privately`] with a tag greater than any it held. So it never holds
//!    the same 64 bits twice, and a helper that comes late fails its compare-and-swap, however late
//!    (within the wrap of the tag: see below).
//! 4. What a body reads is believed only if `cur` has not moved since: by the commit, or, for an answer
//!    that commits nothing, by [`Transaction::still`].
//!
//! # Orderings
//! Records and link words are read relaxed, between an acquire load of `cur` and an acquire fence before
//! the second look at `cur`; they are written relaxed after a release fence. This is the sequence lock's
//! argument: a reader that saw one word of a later transaction will, after its fence, see `cur` moved.
//! Marking applied is a release store read by an acquire load: who sees the mark sees the link words.
//! "By invariant 3" a wrongly low mark (a late helper's) only makes others apply a log again, in vain.
//!
//! # Wrap-around
//! `seq` has 50 bits: at ten million transactions a second it wraps after three and a half years. A tag
//! has 39: it recurs after 15 hours at that pace. To do harm, a helper would have to stop between its
//! look at a log and its compare-and-swap, sleep for an exact multiple of 2^39 transactions after the
//! one that wrote the old value, and that very transaction would have to have written the same value
//! into the same word.

mod memory;
mod seat;

pub use seat::{Recovery, Seat, is_dead, reap, seats};

use core::sync::atomic::{AtomicU64, Ordering};

/// Link words a transaction may change.
pub const LOG: usize = 16;
/// Words of a record before the header.
pub const PREFIX: usize = 1;
/// The bits of the header's first word that are the transaction's own: the length of the log. Zero in a header to look
/// at, and to be left so.
pub const LENGTH: u64 = 31 << LENGTH_SHIFT;
const LENGTH_SHIFT: u32 = 59;
const _: () = assert!((LOG as u64) <= LENGTH >> LENGTH_SHIFT);

const RECORD_BITS: u32 = 14;
const VALUE_BITS: u32 = 25;
const VALUE: u64 = (1 << VALUE_BITS) - 1;
/// The largest value a link word can hold.
pub const LARGEST: u32 = VALUE as u32;
/// How often a loop tries before it calls the memory damaged.
const PATIENCE: u32 = 10_000_000;

/// The memory holds something no participant would have written, or changes without end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damaged;

/// A 64-bit atomic word: the processor's, or a model checker's.
pub trait Word {
    /// Atomic load.
    fn load(&self, order: Ordering) -> u64;
    /// Atomic store.
    fn store(&self, value: u64, order: Ordering);
    /// Atomic compare-and-swap; tells whether it succeeded.
    fn swap_if(&self, old: u64, new: u64, success: Ordering) -> bool;
}

impl Word for AtomicU64 {
    #[inline(always)]
    fn load(&self, order: Ordering) -> u64 {
        AtomicU64::load(self, order)
    }
    #[inline(always)]
    fn store(&self, value: u64, order: Ordering) {
        AtomicU64::store(self, value, order);
    }
    #[inline(always)]
    fn swap_if(&self, old: u64, new: u64, success: Ordering) -> bool {
        // Relaxed on failure: nothing is concluded from the value found.
        self.compare_exchange(old, new, success, Ordering::Relaxed).is_ok()
    }
}

/// The memory transactions work on. Every method checks its argument: it may come from a hostile log.
pub trait Memory {
    /// Its words.
    type Word: Word;
    /// The word `cur`.
    fn cur(&self) -> Option<&Self::Word>;
    /// The words of a record: `record` is twice the participant, plus which of its two.
    fn record(&self, record: u32) -> Option<&[Self::Word]>;
    /// A link word, by its position.
    fn link(&self, position: u32) -> Option<&Self::Word>;
    /// A fence.
    fn fence(order: Ordering);
    /// Called while another participant is in the way.
    fn pause();
}

#[inline(always)]
fn sequence(cur: u64) -> u64 {
    cur >> RECORD_BITS
}

#[inline(always)]
fn record_of(cur: u64) -> u32 {
    (cur & ((1 << RECORD_BITS) - 1)) as u32
}

/// Which record a value of `cur` names; perhaps none that there is.
pub fn named_by(cur: u64) -> u32 {
    record_of(cur)
}

/// How many commits lie between two values of `cur`.
pub fn commits(from: u64, to: u64) -> u64 {
    sequence(to).saturating_sub(sequence(from))
}

/// The first value of `cur`: record 0, with the sequence number that its link words were written in.
pub const fn first_cur() -> u64 {
    1 << RECORD_BITS
}

#[inline(always)]
fn link_word(value: u32, seq: u64) -> u64 {
    (u64::from(value) & VALUE) | seq << VALUE_BITS
}

/// The value in a link word.
#[inline(always)]
pub fn value(word: u64) -> u32 {
    (word & VALUE) as u32
}

/// What a record says of an entry's position and new value.
#[inline(always)]
fn pack(position: u32, value: u32) -> u64 {
    u64::from(position) | u64::from(value) << 32
}

#[inline(always)]
fn unpack(packed: u64) -> (u32, u32) {
    (packed as u32, (packed >> 32) as u32)
}

/// Brings a link word up to date, unless somebody has. By invariant 3 a failure means exactly that.
#[inline(always)]
fn apply<W: Word>(word: &W, old: u64, value: u32, seq: u64) {
    // AcqRel: release publishes what was written before the commit to who follows the link; acquire
    // orders the mark after it.
    word.swap_if(old, link_word(value, seq), Ordering::AcqRel);
}

/// A transaction: a consistent snapshot of the header, and the link words to change.
///
/// The log is written where it will be read, into the record that the commit publishes, which nobody looks at until then
/// (but who has an old snapshot, and will not believe it). So what is here fits into registers.
pub struct Transaction<'m, W, const H: usize> {
    cur: u64,
    /// The header: change it at will.
    pub header: [u64; H],
    /// The record to be written.
    record: &'m [W],
    /// Its number.
    number: u32,
    /// Entries of the log so far.
    length: usize,
}

impl<W, const H: usize> Transaction<'_, W, H> {
    /// A header to look at, and nothing to be done with it: [`Transaction::still`] is false.
    #[inline(always)]
    pub fn to_look_at(header: [u64; H]) -> Self {
        Transaction { cur: 0, header, record: &[], number: 0, length: 0 }
    }
}

/// Begins a transaction of a participant on what is true now, finishing what another left unfinished.
///
/// Progress: lock-free. It starts over only when somebody committed meanwhile.
#[inline(always)]
pub fn begin<M: Memory, const H: usize>(
    memory: &M,
    participant: u32,
) -> Result<Transaction<'_, M::Word, H>, Damaged> {
    let mut transaction = Transaction::to_look_at([0; H]);
    transaction.begin(memory, participant)?;
    Ok(transaction)
}

/// The header as it is now, without finishing anything: for who may only look.
///
/// Progress: as [`begin`].
pub fn glimpse<M: Memory, const H: usize>(memory: &M) -> Result<[u64; H], Damaged> {
    let mut header = [0; H];
    settled(memory, &mut header)?;
    Ok(header)
}

/// `cur`, a consistent copy of the header it names, and whether its log is known to be applied.
#[inline(always)]
fn settled<M: Memory, const H: usize>(memory: &M, header: &mut [u64; H]) -> Result<(u64, bool), Damaged> {
    let cur_word = memory.cur().ok_or(Damaged)?;
    for _ in 0..PATIENCE {
        // Acquire: pairs with the commit; the record and everything it rests on are visible.
        let cur = cur_word.load(Ordering::Acquire);
        let read = read_record(memory, cur, header);
        M::fence(Ordering::Acquire);
        if cur_word.load(Ordering::Relaxed) == cur {
            return Ok((cur, read?));
        }
        M::pause();
    }
    Err(Damaged)
}

/// Copies the header out of the record that `cur` names, and tells whether its log is applied.
#[inline(always)]
fn read_record<M: Memory, const H: usize>(
    memory: &M,
    cur: u64,
    header: &mut [u64; H],
) -> Result<bool, Damaged> {
    let record = memory.record(record_of(cur)).ok_or(Damaged)?;
    let (prefix, rest) = record.split_at_checked(PREFIX).ok_or(Damaged)?;
    let rest = rest.first_chunk::<H>().ok_or(Damaged)?;
    let [applied] = prefix.first_chunk::<PREFIX>().ok_or(Damaged)?;
    // Acquire: who sees the mark sees the link words it speaks of.
    let applied = applied.load(Ordering::Acquire);
    for (to, from) in header.iter_mut().zip(rest) {
        *to = from.load(Ordering::Relaxed);
    }
    let first = header.first_mut().ok_or(Damaged)?;
    let logged = *first & LENGTH != 0;
    *first &= !LENGTH;
    Ok(!logged || applied == sequence(cur))
}

/// Applies the log that `cur` names, unless `cur` moves on: then somebody has, by invariant 2.
#[cold]
#[inline(never)]
fn help<M: Memory, const H: usize>(memory: &M, cur: u64) -> Result<(), Damaged> {
    let record = memory.record(record_of(cur)).ok_or(Damaged)?;
    let [applied, first] = record.first_chunk().ok_or(Damaged)?;
    let length = (first.load(Ordering::Relaxed) >> LENGTH_SHIFT) as usize;
    let words = record.get(PREFIX + H..).ok_or(Damaged)?;
    let mut log = [(0, 0); LOG];
    for (entry, [first, old]) in log.iter_mut().zip(words.as_chunks().0).take(length) {
        *entry = (first.load(Ordering::Relaxed), old.load(Ordering::Relaxed));
    }
    M::fence(Ordering::Acquire);
    if memory.cur().ok_or(Damaged)?.load(Ordering::Relaxed) != cur {
        return Ok(());
    }
    for &(first, old) in log.get(..length).ok_or(Damaged)? {
        let (position, value) = unpack(first);
        apply(memory.link(position).ok_or(Damaged)?, old, value, sequence(cur));
    }
    // Release: pairs with the acquire load of the mark.
    applied.store(sequence(cur), Ordering::Release);
    Ok(())
}

impl<'m, W: Word, const H: usize> Transaction<'m, W, H> {
    /// Begins anew: see [`begin`].
    #[inline(always)]
    pub fn begin<M: Memory<Word = W>>(&mut self, memory: &'m M, participant: u32) -> Result<(), Damaged> {
        for _ in 0..PATIENCE {
            let applied;
            (self.cur, applied) = settled(memory, &mut self.header)?;
            self.write_to(memory, participant)?;
            if applied {
                return Ok(());
            }
            help::<M, H>(memory, self.cur)?;
            if memory.cur().ok_or(Damaged)?.load(Ordering::Relaxed) == self.cur {
                return Ok(());
            }
        }
        Err(Damaged)
    }

    /// [`begin`](Transaction::begin) without finishing what another left, and without trying twice: false if that would be
    /// needed.
    #[inline(always)]
    pub fn begin_quickly<M: Memory<Word = W>>(
        &mut self,
        memory: &'m M,
        participant: u32,
    ) -> Result<bool, Damaged> {
        let cur_word = memory.cur().ok_or(Damaged)?;
        // Acquire, and the fence: as in `settled`.
        self.cur = cur_word.load(Ordering::Acquire);
        let applied = read_record(memory, self.cur, &mut self.header)?;
        M::fence(Ordering::Acquire);
        self.write_to(memory, participant)?;
        Ok(applied && cur_word.load(Ordering::Relaxed) == self.cur)
    }

    /// Chooses the record that will be written.
    #[inline(always)]
    fn write_to<M: Memory<Word = W>>(&mut self, memory: &'m M, participant: u32) -> Result<(), Damaged> {
        self.length = 0;
        // By invariant 1, never the record that `cur` names.
        self.number = (participant << 1) | u32::from(record_of(self.cur) == participant << 1);
        self.record = memory.record(self.number).ok_or(Damaged)?;
        // Release: a reader of an older use of this record, if it sees what we write from now on, also sees that
        // `cur` had moved.
        M::fence(Ordering::Release);
        Ok(())
    }

    /// The places of the log's entries: position and value, then the old link word.
    #[inline(always)]
    fn places(&self) -> &'m [[W; 2]] {
        let places = self.record.get(PREFIX + H..).unwrap_or_default().as_chunks().0;
        places.get(..LOG).unwrap_or(places)
    }

    /// The entry for a position, if there is one, and the value in it.
    #[inline(always)]
    fn find(&self, position: u32) -> Option<(&'m W, u32)> {
        self.places().iter().take(self.length).find_map(|[first, _]| {
            // Relaxed, here and wherever the log is read again: written by this thread.
            let (changed, value) = unpack(first.load(Ordering::Relaxed));
            (changed == position).then_some((first, value))
        })
    }

    /// The value of a link word as this transaction sees it, its own changes included.
    #[inline(always)]
    pub fn get<M: Memory<Word = W>>(&self, memory: &M, position: u32) -> Result<u32, Damaged> {
        if let Some((_, value)) = self.find(position) {
            return Ok(value);
        }
        Ok(self.peek(memory.link(position).ok_or(Damaged)?))
    }

    /// The value of a link word that this transaction has not changed.
    #[inline(always)]
    pub fn peek(&self, word: &W) -> u32 {
        // Relaxed: by invariant 4 the value counts only if `cur` proves unmoved.
        value(word.load(Ordering::Relaxed))
    }

    /// Changes a link word.
    #[inline(always)]
    pub fn set<M: Memory<Word = W>>(
        &mut self,
        memory: &'m M,
        position: u32,
        value: u32,
    ) -> Result<(), Damaged> {
        if let Some((entry, _)) = self.find(position) {
            // Relaxed: as in `change`.
            entry.store(pack(position, value), Ordering::Relaxed);
            return Ok(());
        }
        self.change(position, memory.link(position).ok_or(Damaged)?, value)
    }

    /// Changes a link word that this transaction has not changed before: the word at `position`.
    #[inline(always)]
    pub fn change(&mut self, position: u32, word: &W, value: u32) -> Result<(), Damaged> {
        // (Where a hostile peer has made two places one, the second change is lost, as everything is in such a queue.)
        #[cfg(test)]
        assert!(self.find(position).is_none(), "changed twice");
        let [first, old] = self.places().get(self.length).ok_or(Damaged)?;
        // Relaxed: published by the commit.
        first.store(pack(position, value), Ordering::Relaxed);
        old.store(word.load(Ordering::Relaxed), Ordering::Relaxed);
        self.length += 1;
        Ok(())
    }

    /// Which record it found in force.
    #[inline(always)]
    pub fn found(&self) -> u32 {
        record_of(self.cur)
    }

    /// How many more link words can be changed.
    #[inline]
    pub fn room(&self) -> usize {
        LOG - self.length
    }

    /// Whether the snapshot is still the truth: asked before an answer that commits nothing is given,
    /// and before damage is believed.
    #[inline(always)]
    pub fn still<M: Memory<Word = W>>(&self, memory: &M) -> bool {
        // Acquire: what the body read is not newer than what this load sees.
        M::fence(Ordering::Acquire);
        memory.cur().is_some_and(|cur| cur.load(Ordering::Relaxed) == self.cur)
    }

    /// The tag under which this transaction's link words are written: for [`Transaction::privately`].
    #[inline(always)]
    fn next(&self) -> u64 {
        sequence(self.cur) + 1
    }

    /// The 64 bits that a link word will hold once this transaction, which sets it to `value`, is
    /// committed: they identify the change for ever (invariant 3).
    #[inline]
    pub fn mark_of(&self, value: u32) -> u64 {
        link_word(value, self.next())
    }

    /// Writes a link word that no other participant can reach, at once and without a log. By invariant
    /// 3 its tag is greater than any the word held, since whoever can reach it alone took it in an
    /// earlier transaction.
    #[inline(always)]
    pub fn privately<M: Memory<Word = W>>(
        &self,
        memory: &M,
        position: u32,
        value: u32,
    ) -> Result<(), Damaged> {
        self.privately_in::<M>(memory.link(position).ok_or(Damaged)?, value);
        Ok(())
    }

    /// [`Transaction::privately`], on a word found before.
    #[inline(always)]
    pub fn privately_in<M: Memory<Word = W>>(&self, word: &W, value: u32) {
        // Release: a reader of an older snapshot, in which others could reach the word, if it sees what we
        // write now, also sees that `cur` has moved.
        M::fence(Ordering::Release);
        // Relaxed: published by the commit that links it.
        word.store(link_word(value, self.next()), Ordering::Relaxed);
    }

    /// Makes everything true at once. False if somebody else committed first: then nothing has changed, begin again.
    ///
    /// Progress: the failure of one is the success of another.
    #[inline(always)]
    pub fn commit<M: Memory<Word = W>>(&self, memory: &M) -> Result<bool, Damaged> {
        let cur_word = memory.cur().ok_or(Damaged)?;
        let (prefix, rest) = self.record.split_at_checked(PREFIX).ok_or(Damaged)?;
        let [applied] = prefix.first_chunk::<PREFIX>().ok_or(Damaged)?;
        let header = rest.first_chunk::<H>().ok_or(Damaged)?;
        let mut length = (self.length as u64) << LENGTH_SHIFT;
        for (to, from) in header.iter().zip(&self.header) {
            // Relaxed: published by the compare-and-swap.
            to.store(*from | length, Ordering::Relaxed);
            length = 0;
        }
        let next = self.next() << RECORD_BITS | u64::from(self.number);
        // AcqRel: release publishes the record and what was prepared privately; acquire orders what
        // this participant does next after everything the snapshot rested on.
        if !cur_word.swap_if(self.cur, next, Ordering::AcqRel) {
            return Ok(false);
        }
        if self.length > 0 {
            for [first, old] in self.places().iter().take(self.length) {
                let (position, value) = unpack(first.load(Ordering::Relaxed));
                let word = memory.link(position).ok_or(Damaged)?;
                apply(word, old.load(Ordering::Relaxed), value, self.next());
            }
            // Release: pairs with the acquire load in `read_record`.
            applied.store(self.next(), Ordering::Release);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
