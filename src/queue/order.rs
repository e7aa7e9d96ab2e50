//! The messages in order of arrival: a doubly linked list with its free list in front.
//!
//! ```text
//! free -> ... -> head -> first -> ... -> tail
//!                (taken last)
//! ```
//! Invariants:
//! 1. `head` is not in the queue; it is there so that taking the first message changes no link word.
//! 2. `PREV` of the first message is `head` or stale; nobody reads it. Of every other it is exact.

use super::tx::{Stop, Tx};
use super::{pool, types};
use crate::shm::layout::{self, Position, message};
use crate::txn::Damaged;

/// Appends a message that only this participant can reach.
#[inline(always)]
pub fn append(tx: &mut Tx, granule: u32, length: u32) -> Result<(), Damaged> {
    let (tail, words) = (tx.tail(), tx.words(granule)?);
    tx.privately_in(words, message::NEXT, 0);
    tx.privately_in(words, message::PREV, tail);
    tx.privately_in(words, message::TYPE_NEXT, 0);
    tx.change(tail, message::NEXT, granule)?;
    tx.set_tail(granule);
    if tx.unindexed() == 0 {
        tx.set_unindexed(granule);
    }
    count(tx, length);
    Ok(())
}

#[inline(always)]
fn count(tx: &mut Tx, length: u32) {
    tx.set_qnum(tx.qnum().wrapping_add(1));
    tx.set_cbytes(tx.cbytes().wrapping_add(u64::from(length)));
}

/// Puts a message that only this participant can reach where it would have been, had it not been handed to
/// a receiver who did not live to take it: behind the one that was last then (its `PREV`). None may have
/// been taken out since, so that one is still there, and none of the message's type is older.
///
/// Fails with [`Stop::Grow`] if the type index needs a branch that is not there.
pub fn reinsert(tx: &mut Tx, granule: u32, length: u32) -> Result<(), Stop> {
    let prev = tx.get(Position::granule(granule, message::PREV))?;
    let next = if prev == tx.tail() { 0 } else { tx.next(prev)? };
    tx.privately(Position::granule(granule, message::NEXT), next)?;
    tx.privately(Position::granule(granule, message::TYPE_NEXT), 0)?;
    tx.set(Position::granule(prev, message::NEXT), granule)?;
    if next == 0 {
        tx.set_tail(granule);
    } else {
        tx.set(Position::granule(next, message::PREV), granule)?;
    }
    // What is indexed comes before what is not.
    if tx.unindexed() == next {
        tx.set_unindexed(granule);
    } else if !is_unindexed(tx, prev)? {
        types::insert(tx, granule, types::End::Front)?;
    }
    tx.set_alike(0);
    count(tx, length);
    Ok(())
}

/// Whether a message is one of those that the index does not know; found by walking.
fn is_unindexed(tx: &Tx, sought: u32) -> Result<bool, Damaged> {
    let mut granule = tx.unindexed();
    for _ in 0..tx.qnum().min(layout::GRANULES) {
        if granule == 0 || granule == sought {
            break;
        }
        granule = tx.next(granule)?;
    }
    Ok(granule == sought && granule != 0)
}

/// Takes a message out of the queue; its granule is free, or the new `head`, from the commit on.
#[inline(always)]
pub fn remove<const QUICK: bool>(tx: &mut Tx, granule: u32, length: u32) -> Result<(), Stop> {
    // The links of messages are as they were: nothing that comes before this changes them.
    let (head, next) = (tx.head(), tx.peek(granule, message::NEXT)?);
    let first = tx.peek(head, message::NEXT)?;
    let is_indexed = granule != tx.unindexed() && first != tx.unindexed();
    if QUICK && (is_indexed || granule == tx.alike() || granule != first) {
        return Err(Stop::Unusual);
    }
    // The index knows all messages before `unindexed`: those are some, unless that is the first.
    if granule == tx.unindexed() {
        tx.set_unindexed(next);
    } else if !QUICK && is_indexed {
        remove_from_index(tx, granule)?;
    }
    if !QUICK && granule == tx.alike() {
        tx.set_alike(0);
    }
    if QUICK || granule == first {
        tx.set_head(granule);
    } else {
        remove_behind_first(tx, granule, next)?;
    }
    tx.set_qnum(tx.qnum().wrapping_sub(1));
    tx.set_cbytes(tx.cbytes().wrapping_sub(u64::from(length)));
    Ok(())
}

#[inline(never)]
fn remove_from_index(tx: &mut Tx, granule: u32) -> Result<(), Damaged> {
    if types::knows(tx, granule)? { types::remove(tx, granule) } else { Ok(()) }
}

#[inline(never)]
fn remove_behind_first(tx: &mut Tx, granule: u32, next: u32) -> Result<(), Damaged> {
    let prev = tx.get(Position::granule(granule, message::PREV))?;
    tx.set(Position::granule(prev, message::NEXT), next)?;
    if next == 0 {
        tx.set_tail(prev);
    } else {
        tx.set(Position::granule(next, message::PREV), prev)?;
    }
    pool::free_granule(tx, granule)
}
