//! The index by type: finds the first message of a type, and the lowest type in the queue, without
//! looking at the others.
//!
//! A radix tree with path compression over `mtype`, three bits a level; its leaves are the first
//! messages of each type, and the messages of one type form a list from there.
//!
//! ```text
//! root -> branch(shift 6) -+- 0 -> branch(shift 0) -+- 1 -> message(type 1) -> next of type 1 -> ...
//!                          |                        +- 5 -> message(type 5)
//!                          +- 2 -> message(type 128)
//! ```
//! A child link holds a granule, and [`BRANCH`] if that is a branch.
//!
//! It is built only when somebody asks by type, in small steps, each a transaction of its own: those who
//! take messages in order of arrival pay nothing for it.
//!
//! Invariants:
//! 1. It knows exactly the messages that come before `unindexed` in order of arrival. Those that leave
//!    are always the first of their type: every way of receiving takes the oldest of some type.
//! 2. A branch has two children at least; all types below it agree in the bits above its digit.
//! 3. A branch never becomes anything else again, and a free one has no children.
//! 4. Descending, shifts strictly decrease: at most 21 levels, whatever the memory holds.

use super::pool;
use super::tx::{Stop, Tx};
use crate::shm::layout::{Position, branch, message};
use crate::txn::Damaged;

/// Marks a child link that names a branch.
const BRANCH: u32 = 1 << 24;
/// Bits per level.
const DIGIT: u32 = 3;
/// Above the highest shift.
pub const LEVELS: u32 = 64;

/// Where a message goes in the list of its type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Before all others of its type.
    Front,
    /// After all others of its type.
    Back,
}

/// A link to a child: in the header, or in a branch.
#[derive(Clone, Copy)]
enum Slot {
    Root,
    Child(u32, u32),
}

impl Slot {
    fn get(self, tx: &Tx) -> Result<u32, Damaged> {
        match self {
            Slot::Root => Ok(tx.root()),
            Slot::Child(branch, digit) => tx.get(child(branch, digit)),
        }
    }

    fn set(self, tx: &mut Tx, link: u32) -> Result<(), Damaged> {
        match self {
            Slot::Root => tx.set_root(link),
            Slot::Child(branch, digit) => tx.set(child(branch, digit), link)?,
        }
        Ok(())
    }
}

fn child(branch: u32, digit: u32) -> Position {
    Position::granule(branch, branch::CHILDREN + digit)
}

fn digit(mtype: i64, shift: u32) -> u32 {
    ((mtype as u64 >> shift) & u64::from(branch::FANOUT - 1)) as u32
}

/// The branch that a link names, and its shift, which must be below `above` (invariant 4).
pub fn as_branch(tx: &Tx, link: u32, above: u32) -> Result<Option<(u32, u32)>, Damaged> {
    if link & BRANCH == 0 {
        return Ok(None);
    }
    let granule = link & !BRANCH;
    let shift = tx.get(Position::granule(granule, branch::SHIFT))?;
    if shift >= above { Err(Damaged) } else { Ok(Some((granule, shift))) }
}

/// The first message of a type that the index knows.
pub fn find(tx: &Tx, mtype: i64) -> Result<Option<u32>, Damaged> {
    let (mut link, mut above) = (tx.root(), LEVELS);
    while let Some((granule, shift)) = as_branch(tx, link, above)? {
        link = tx.get(child(granule, digit(mtype, shift)))?;
        above = shift;
    }
    if link != 0 && tx.mtype(link)? == mtype { Ok(Some(link)) } else { Ok(None) }
}

/// Whether the index knows a message that is about to leave.
pub fn knows(tx: &Tx, granule: u32) -> Result<bool, Damaged> {
    Ok(find(tx, tx.mtype(granule)?)? == Some(granule))
}

/// The first message of the lowest type.
pub fn lowest(tx: &Tx) -> Result<Option<u32>, Damaged> {
    let (mut link, mut above) = (tx.root(), LEVELS);
    while let Some((granule, shift)) = as_branch(tx, link, above)? {
        link = first_child(tx, granule)?.1;
        above = shift;
    }
    Ok((link != 0).then_some(link))
}

fn first_child(tx: &Tx, granule: u32) -> Result<(u32, u32), Damaged> {
    if tx.is_unchanged() {
        let words = tx.words(granule)?.iter().skip(branch::CHILDREN as usize);
        let children = (0..branch::FANOUT).zip(words.map(|word| tx.value(word)));
        return children.into_iter().find(|(_, link)| *link != 0).ok_or(Damaged);
    }
    for digit in 0..branch::FANOUT {
        let link = tx.get(child(granule, digit))?;
        if link != 0 {
            return Ok((digit, link));
        }
    }
    Err(Damaged)
}

/// Adds a message. Fails with [`Stop::Grow`] if it needs a branch that is not there.
///
/// Changes up to seven link words.
pub fn insert(tx: &mut Tx, granule: u32, end: End) -> Result<(), Stop> {
    let mtype = tx.mtype(granule)?;
    if tx.root() == 0 {
        tx.set(Position::granule(granule, message::TYPE_LAST), granule)?;
        tx.set_root(granule);
        return Ok(());
    }
    // Any leaf below the last branch on our way agrees with us as far as that branch's types agree.
    let (mut link, mut above, mut slot) = (tx.root(), LEVELS, Slot::Root);
    while let Some((branch, shift)) = as_branch(tx, link, above)? {
        let ours = digit(mtype, shift);
        slot = Slot::Child(branch, ours);
        link = slot.get(tx)?;
        if link == 0 {
            link = first_child(tx, branch)?.1;
        }
        above = shift;
    }
    let there = tx.mtype(link)?;
    if there == mtype {
        return Ok(join(tx, granule, link, slot, end)?);
    }
    let differ = 63 - (there as u64 ^ mtype as u64).leading_zeros();
    let split = differ / DIGIT * DIGIT;
    let (mut link, mut above, mut slot) = (tx.root(), LEVELS, Slot::Root);
    while let Some((branch, shift)) = as_branch(tx, link, above)? {
        if shift < split {
            break;
        }
        slot = Slot::Child(branch, digit(mtype, shift));
        link = slot.get(tx)?;
        above = shift;
    }
    tx.set(Position::granule(granule, message::TYPE_LAST), granule)?;
    if link == 0 {
        slot.set(tx, granule)?;
    } else {
        let branch = take_branch(tx)?;
        tx.set(Position::granule(branch, branch::SHIFT), split)?;
        tx.set(child(branch, digit(mtype, split)), granule)?;
        tx.set(child(branch, digit(there, split)), link)?;
        slot.set(tx, branch | BRANCH)?;
    }
    Ok(())
}

/// Adds a message to the list of its type, whose first is `first`, linked from `slot`.
fn join(tx: &mut Tx, granule: u32, first: u32, slot: Slot, end: End) -> Result<(), Damaged> {
    let last = tx.get(Position::granule(first, message::TYPE_LAST))?;
    match end {
        End::Back => {
            tx.set(Position::granule(last, message::TYPE_NEXT), granule)?;
            tx.set(Position::granule(first, message::TYPE_LAST), granule)
        }
        End::Front => {
            tx.set(Position::granule(granule, message::TYPE_NEXT), first)?;
            tx.set(Position::granule(granule, message::TYPE_LAST), last)?;
            slot.set(tx, granule)
        }
    }
}

/// Removes a message that the index knows: by invariant 1 it is the first of its type.
///
/// Changes up to four link words.
pub fn remove(tx: &mut Tx, granule: u32) -> Result<(), Damaged> {
    let mtype = tx.mtype(granule)?;
    let (mut link, mut above, mut slot, mut parent) = (tx.root(), LEVELS, Slot::Root, Slot::Root);
    while let Some((branch, shift)) = as_branch(tx, link, above)? {
        parent = slot;
        slot = Slot::Child(branch, digit(mtype, shift));
        link = slot.get(tx)?;
        above = shift;
    }
    if link != granule {
        return Err(Damaged);
    }
    let next = tx.get(Position::granule(granule, message::TYPE_NEXT))?;
    if next != 0 {
        let last = tx.get(Position::granule(granule, message::TYPE_LAST))?;
        tx.set(Position::granule(next, message::TYPE_LAST), last)?;
        return slot.set(tx, next);
    }
    slot.set(tx, 0)?;
    let Slot::Child(branch, _) = slot else { return Ok(()) };
    let (digit, only) = first_child(tx, branch)?;
    for other in digit + 1..branch::FANOUT {
        if tx.get(child(branch, other))? != 0 {
            return Ok(());
        }
    }
    // By invariant 2 a branch with one child is none.
    parent.set(tx, only)?;
    tx.set(child(branch, digit), 0)?;
    free_branch(tx, branch)
}

fn take_branch(tx: &mut Tx) -> Result<u32, Stop> {
    let free = tx.free_branch();
    if free != 0 {
        let next = tx.get(Position::granule(free, branch::SHIFT))?;
        tx.set_free_branch(next);
        return Ok(free);
    }
    // By invariant 3 from what was never used: there all children are zero.
    pool::take_fresh(tx, 1).ok_or(Stop::Grow)
}

fn free_branch(tx: &mut Tx, granule: u32) -> Result<(), Damaged> {
    let next = tx.free_branch();
    tx.set(Position::granule(granule, branch::SHIFT), next)?;
    tx.set_free_branch(granule);
    Ok(())
}

/// Indexes the next few messages, as many as one transaction can.
pub fn advance(tx: &mut Tx) -> Result<(), Stop> {
    // Each takes a link word at least; unless a hostile peer tied the chain into a ring, whose words are in the
    // log already.
    for _ in 0..crate::txn::LOG {
        let granule = tx.unindexed();
        if granule == 0 || tx.room() < 8 {
            break;
        }
        let next = tx.next(granule)?;
        insert(tx, granule, End::Back)?;
        tx.set_unindexed(next);
    }
    Ok(())
}
