//! Granules and blocks: where they come from and how they go back.
//!
//! - Messages that were taken in order of arrival stay chained before `head`: they *are* the free list.
//! - A block stays with the granule whose message it belonged to, or with that of the next long message its receiver
//!   takes: who takes the granule for a message of that size has it at once, and nothing is shared but the granule. Once
//!   the arena is [large](stays) for its queue, blocks go back to the free list of their class instead, so that idle
//!   granules do not come to own one each.
//! - What was never used comes from the watermark `mark`, below `reserved`.
//!
//! Invariants:
//! 1. Every granule below `mark` is exactly one of: a message in the queue, the one at `head`, free, a branch
//!    (in use or free), part of a block, or held by one participant.
//! 2. A granule that is free or held owns the block that its `TYPE_LAST` names with [`OWNED`]. In a message that word means
//!    nothing, or what the type index says; its block stands beside its length.
//! 3. A block says its class in its second word, written by the participant that first took it from the
//!    watermark while its `FRESH` word says the class too; so a death in between loses nothing.

use super::tx::{Stop, Tx, Verdict, plain, run};
use crate::os::errno::Errno;
use crate::shm::layout::{
    self, BLOCK_CLASS, BLOCK_CLASSES, GRANULE_WORDS, GRANULES, GRANULES_PER_PAGE, Held, Position, message,
};
use crate::shm::{Mapping, place};
use crate::txn::{Damaged, Seat};
use core::sync::atomic::{AtomicU64, Ordering};

/// Takes a granule for a message, if one can be had without growing.
#[inline(always)]
pub fn take_granule(tx: &mut Tx) -> Result<Option<u32>, Damaged> {
    let free = tx.free();
    if free != tx.head() {
        // No transaction changes the link of a free granule before it comes here.
        let next = tx.peek(free, message::NEXT)?;
        tx.set_free(next);
        return Ok(Some(free));
    }
    Ok(take_fresh(tx, 1))
}

/// Takes `count` granules in a row that were never used.
#[inline(always)]
pub fn take_fresh(tx: &mut Tx, count: u32) -> Option<u32> {
    let start = place(tx.mark(), count);
    if start.checked_add(count)? > tx.reserved() {
        return None;
    }
    tx.set_mark(start + count);
    Some(start)
}

/// Frees a granule that is not chained anywhere.
#[inline]
pub fn free_granule(tx: &mut Tx, granule: u32) -> Result<(), Damaged> {
    let free = tx.free();
    tx.set(Position::granule(granule, message::NEXT), free)?;
    tx.set_free(granule);
    Ok(())
}

/// The class a block says it has.
#[inline(always)]
pub fn class_of(memory: &Mapping, block: u32) -> Result<u32, Damaged> {
    // Relaxed: written by an earlier holder, before the transaction that let go of the block.
    let class = plain(memory, block, BLOCK_CLASS)?.load(Ordering::Relaxed);
    if class < u64::from(BLOCK_CLASSES) { Ok(class as u32) } else { Err(Damaged) }
}

/// Puts a block on the free list of its class.
#[inline(always)]
pub fn free_block(tx: &mut Tx, block: u32) -> Result<(), Damaged> {
    let class = Position::class(class_of(tx.memory, block)?);
    let first = tx.get(class)?;
    tx.set(Position::granule(block, 0), first)?;
    tx.set(class, block)
}

/// Takes a free block of a class; 0 if there is none.
#[inline(always)]
pub fn take_block(tx: &mut Tx, class: u32) -> Result<u32, Damaged> {
    let class = Position::class(class);
    let block = tx.get(class)?;
    if block != 0 {
        let next = tx.get(Position::granule(block, 0))?;
        tx.set(class, next)?;
    }
    Ok(block)
}

/// In the `TYPE_LAST` of a granule: what follows is a block that it owns.
const OWNED: u32 = 1 << 24;

/// The block that a granule owns which is held, or 0.
#[inline(always)]
pub fn owned(words: &[AtomicU64; GRANULE_WORDS]) -> u32 {
    // Relaxed: changed by transactions only, the last of which came before the granule was ours.
    let link = crate::txn::value(words[message::TYPE_LAST as usize].load(Ordering::Relaxed));
    if link & OWNED != 0 { link & !OWNED } else { 0 }
}

/// The same as a transaction sees it, for any granule that may own one.
pub fn owned_by(tx: &Tx, granule: u32) -> Result<u32, Damaged> {
    let link = tx.get(Position::granule(granule, message::TYPE_LAST))?;
    Ok(if link & OWNED != 0 { link & !OWNED } else { 0 })
}

/// Makes a granule own no block any more.
#[inline(always)]
pub fn disown(tx: &mut Tx, granule: u32) -> Result<(), Damaged> {
    tx.set(Position::granule(granule, message::TYPE_LAST), 0)
}

/// Whether the arena is small enough that a granule may keep a block: twice what the queue may hold, and a bit for a
/// start.
#[inline(always)]
fn stays(tx: &Tx) -> bool {
    const START: u64 = 1024;
    u64::from(tx.mark()) < START + tx.qbytes() / (layout::GRANULE / 2)
}

/// Takes over the block of a message that is being received; its granule, which leaves the queue, gets the one held
/// before, if that may be.
#[inline(always)]
pub fn exchange_block<'m>(tx: &mut Tx<'m>, seat: &Seat<'m>, granule: u32, block: u32) -> Result<(), Damaged> {
    let old = tx.held_by(seat, Held::Block);
    let mut keeps = 0;
    if old != 0 {
        if stays(tx) {
            keeps = OWNED | old;
        } else {
            free_block(tx, old)?;
        }
    }
    // Nothing that comes before this changes that word.
    tx.change(granule, message::TYPE_LAST, keeps)?;
    hold_another(tx, seat, block)
}

/// Changes which block a participant of ours holds, in a transaction that has not done so yet.
#[inline(always)]
pub fn hold_another<'m>(tx: &mut Tx<'m>, seat: &Seat<'m>, block: u32) -> Result<(), Damaged> {
    tx.hold_by(seat, Held::Block, block)?;
    if tx.held_by(seat, Held::Fresh) != 0 {
        tx.hold_by(seat, Held::Fresh, 0)?;
    }
    Ok(())
}

/// Changes which block a participant holds; frees the one it held if `free_old`.
#[inline(always)]
pub fn hold_block(tx: &mut Tx, seat: u32, block: u32, free_old: bool) -> Result<(), Damaged> {
    let old = tx.held(seat, Held::Block)?;
    if free_old && old != 0 {
        free_block(tx, old)?;
    }
    tx.hold(seat, Held::Block, block)?;
    if tx.held(seat, Held::Fresh)? != 0 {
        tx.hold(seat, Held::Fresh, 0)?;
    }
    Ok(())
}

/// Makes sure that a participant holds a granule, and a block of `class` if one is asked for.
#[inline(never)]
pub fn provide(memory: &Mapping, seat: u32, class: Option<u32>) -> Result<(), Errno> {
    if held(memory, seat, Held::Spare) == 0 {
        growing(memory, seat, |tx| {
            let granule = take_granule(tx)?.ok_or(Stop::Grow)?;
            tx.hold(seat, Held::Spare, granule)?;
            Ok(Verdict::Commit(()))
        })?;
    }
    let Some(class) = class else { return Ok(()) };
    let owned = memory.granule(held(memory, seat, Held::Spare)).map_or(0, owned);
    if [owned, held(memory, seat, Held::Block)]
        .into_iter()
        .any(|block| block != 0 && class_of(memory, block) == Ok(class))
    {
        return Ok(());
    }
    let found = growing(memory, seat, |tx| {
        let block = take_block(tx, class)?;
        if block != 0 {
            hold_block(tx, seat, block, true)?;
        } else {
            let block = take_fresh(tx, layout::block_granules(class)).ok_or(Stop::Grow)?;
            hold_block(tx, seat, block, true)?;
            tx.hold(seat, Held::Fresh, class + 1)?;
        }
        Ok(Verdict::Commit(()))
    });
    if found == Err(Errno::ENOMEM) {
        reclaim(memory, seat, class)?;
    } else {
        found?;
    }
    stamp(memory, seat);
    Ok(())
}

/// Where there is no more memory: takes a block of `class` from a free granule that owns one, or from the one that
/// the head names, which is the next to be free.
#[cold]
pub fn reclaim(memory: &Mapping, seat: u32, class: u32) -> Result<(), Errno> {
    growing(memory, seat, |tx| {
        let mut granule = tx.free();
        for _ in 0..tx.mark() {
            let block = owned_by(tx, granule)?;
            if block != 0 && class_of(tx.memory, block)? == class {
                disown(tx, granule)?;
                hold_block(tx, seat, block, true)?;
                return Ok(Verdict::Commit(()));
            }
            if granule == tx.head() {
                break;
            }
            granule = tx.get(Position::granule(granule, message::NEXT))?;
        }
        Err(Stop::Errno(Errno::ENOMEM))
    })
}

/// By invariant 2: lets a fresh block say its class.
pub fn stamp(memory: &Mapping, seat: u32) {
    let (block, fresh) = (held(memory, seat, Held::Block), held(memory, seat, Held::Fresh));
    if fresh != 0
        && let Ok(word) = plain(memory, block, BLOCK_CLASS)
    {
        // Relaxed: published by the transaction that passes the block on.
        word.store(u64::from(fresh - 1), Ordering::Relaxed);
    }
}

/// What a participant of ours holds; only its owner changes it, in a transaction.
#[inline(always)]
pub fn held(memory: &Mapping, seat: u32, which: Held) -> u32 {
    crate::txn::value(held_word(memory, seat, which))
}

/// A link word of a participant, all 64 bits.
#[inline(always)]
pub fn held_word(memory: &Mapping, seat: u32, which: Held) -> u64 {
    let offset = Position::participant(seat, which).offset();
    // Relaxed: the last transaction that changed it was ours, or came before we claimed the participant.
    offset.and_then(|offset| memory.word(offset)).map_or(0, |word| word.load(Ordering::Relaxed))
}

/// Runs a body, and grows the arena as often as it asks for it.
pub fn growing<'m, R>(
    memory: &'m Mapping,
    seat: u32,
    mut body: impl FnMut(&mut Tx<'m>) -> Result<Verdict<R>, Stop>,
) -> Result<R, Errno> {
    loop {
        match run(memory, seat, &mut body) {
            Ok(result) => return Ok(result),
            Err(Stop::Grow) => grow(memory, seat)?,
            Err(Stop::Errno(errno)) => return Err(errno),
            Err(Stop::Damaged | Stop::Unusual | Stop::Lost) => return Err(super::tx::DAMAGED),
        }
    }
}

/// Reserves more of the arena: an eighth of what there is, a page at least, more for a large queue.
#[cold]
pub fn grow(memory: &Mapping, seat: u32) -> Result<(), Errno> {
    let stopped = |stop| match stop {
        Stop::Errno(errno) => errno,
        _ => super::tx::DAMAGED,
    };
    let (mark, reserved) = super::tx::look(memory, |tx| Ok((tx.mark(), tx.reserved()))).map_err(stopped)?;
    // No participant takes what is not reserved, or reserves what is not there.
    if mark > reserved || reserved > GRANULES {
        return Err(super::tx::DAMAGED);
    }
    let step = (reserved / 8).clamp(GRANULES_PER_PAGE, 1 << 14);
    // The watermark may have to skip to the next window, and a block may be longer than a step.
    let wanted = (reserved + step).next_multiple_of(GRANULES_PER_PAGE).min(GRANULES);
    if wanted <= reserved || reserved >= GRANULES {
        return Err(Errno::ENOMEM);
    }
    let mut from = reserved;
    while from < wanted {
        // A page at a time across windows; in one piece within a window.
        let whole = wanted - from;
        let count = if place(from, whole) == from { whole } else { GRANULES_PER_PAGE };
        memory.reserve(layout::granule_offset(from), u64::from(count) * layout::GRANULE)?;
        from += count;
    }
    run(memory, seat, |tx| {
        if tx.reserved() >= wanted {
            return Ok(Verdict::Answer(()));
        }
        tx.set_reserved(wanted);
        Ok(Verdict::Commit(()))
    })
    .map_err(stopped)
}
