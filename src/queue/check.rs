//! The invariants of a queue, checked one by one: for tests, and for people who want to know.
//!
//! Looks only; changes nothing; finds nothing wrong in a queue that is in use (it says so and gives up
//! when the queue changes under its eyes). Unlike the rest it allocates.

use super::tx::Tx;
use super::waiters;
use super::{Queue, pool, types};
use crate::shm::layout::{self, GRANULES, Held, Position, branch, message};
use crate::txn::{Damaged, seats};
use std::collections::BTreeMap;

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
pub enum Finding {
    /// All is well; so many messages.
    Sound(u32),
    /// The queue changed meanwhile.
    Busy,
    /// What is wrong.
    Broken(String),
}

struct Checker<'a, 'm> {
    tx: &'a Tx<'m>,
    /// What each granule below the watermark is used for.
    role: Vec<&'static str>,
}

type Checked<T> = Result<T, String>;

fn damaged(Damaged: Damaged) -> String {
    "an index points outside, or a tree loops".to_owned()
}

impl Queue<'_> {
    /// Checks every invariant that the layers name.
    pub fn check(&self) -> Finding {
        for _ in 0..100 {
            let Ok(tx) = Tx::begin(self.memory) else {
                return Finding::Broken("no transaction can begin".to_owned());
            };
            let mut checker = Checker { tx: &tx, role: vec![""; tx.mark().min(GRANULES) as usize] };
            let result = checker.all();
            if tx.still() {
                return result.map_or_else(Finding::Broken, |()| Finding::Sound(tx.qnum()));
            }
        }
        Finding::Busy
    }
}

impl Checker<'_, '_> {
    fn all(&mut self) -> Checked<()> {
        self.claim(0, "nothing")?;
        self.free()?;
        let order = self.order()?;
        self.index(&order)?;
        self.participants()?;
        self.blocks()
    }

    fn claim(&mut self, granule: u32, role: &'static str) -> Checked<()> {
        let place = self.role.get_mut(granule as usize);
        let place = place.ok_or_else(|| format!("{role} {granule} lies beyond the watermark"))?;
        if !place.is_empty() {
            return Err(format!("granule {granule} is {place} and {role}"));
        }
        *place = role;
        Ok(())
    }

    fn free(&mut self) -> Checked<()> {
        let mut granule = self.tx.free();
        while granule != self.tx.head() {
            self.claim(granule, "free")?;
            self.owned(granule)?;
            granule = self.tx.next(granule).map_err(damaged)?;
        }
        self.owned(granule)?;
        self.claim(granule, "head")
    }

    /// The block of a granule that is in no message.
    fn owned(&mut self, granule: u32) -> Checked<()> {
        match pool::owned_by(self.tx, granule).map_err(damaged)? {
            0 => Ok(()),
            block => self.block(block, "block of an idle granule").map(drop),
        }
    }

    /// The messages in order of arrival.
    fn order(&mut self) -> Checked<Vec<u32>> {
        let (mut order, mut bytes) = (Vec::new(), 0);
        let mut before = self.tx.head();
        let mut granule = self.tx.first().map_err(damaged)?;
        while granule != 0 {
            self.claim(granule, "message")?;
            let prev = self.tx.get(Position::granule(granule, message::PREV)).map_err(damaged)?;
            if prev != before && before != self.tx.head() {
                return Err(format!("message {granule} follows {before}, but says {prev}"));
            }
            if self.tx.mtype(granule).map_err(damaged)? < 1 {
                return Err(format!("message {granule} has no type"));
            }
            bytes += u64::from(self.message(granule)?);
            order.push(granule);
            before = granule;
            if granule == self.tx.tail() {
                break;
            }
            granule = self.tx.next(granule).map_err(damaged)?;
        }
        if before != self.tx.tail() {
            return Err("the last message is not the tail".to_owned());
        }
        if order.len() != self.tx.qnum() as usize || bytes != self.tx.cbytes() {
            let (qnum, cbytes) = (self.tx.qnum(), self.tx.cbytes());
            let there = order.len();
            return Err(format!("{there} messages of {bytes} bytes, counted as {qnum} of {cbytes}"));
        }
        Ok(order)
    }

    /// A message's length; claims its block.
    fn message(&mut self, granule: u32) -> Checked<u32> {
        let (length, block) = self.tx.extent(granule).map_err(damaged)?;
        if block != 0 {
            self.block(block, "block of a message")?;
        } else if length as usize > message::INLINE {
            return Err(format!("message {granule} of {length} bytes has no block"));
        }
        Ok(length)
    }

    fn block(&mut self, block: u32, role: &'static str) -> Checked<u32> {
        let class = pool::class_of(self.tx.memory, block).map_err(damaged)?;
        for granule in block..block + layout::block_granules(class) {
            self.claim(granule, role)?;
        }
        Ok(class)
    }

    fn index(&mut self, order: &[u32]) -> Checked<()> {
        let known = order.iter().take_while(|&&granule| granule != self.tx.unindexed());
        let mut by_type: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for &granule in known {
            by_type.entry(self.tx.mtype(granule).map_err(damaged)?).or_default().push(granule);
        }
        for (&mtype, messages) in &by_type {
            let mut link = types::find(self.tx, mtype).map_err(damaged)?;
            let first = link;
            for &granule in messages {
                if link != Some(granule) {
                    return Err(format!("type {mtype}: {link:?} is indexed where {granule} should be"));
                }
                let next = self.tx.get(Position::granule(granule, message::TYPE_NEXT)).map_err(damaged)?;
                link = (next != 0).then_some(next);
            }
            let last = first.map(|first| self.tx.get(Position::granule(first, message::TYPE_LAST)));
            if link.is_some() || last != messages.last().map(|&last| Ok(last)) {
                return Err(format!("type {mtype}: its list does not end where it should"));
            }
        }
        let lowest = types::lowest(self.tx).map_err(damaged)?;
        let lowest = lowest.map(|granule| self.tx.mtype(granule)).transpose().map_err(damaged)?;
        if lowest != by_type.keys().next().copied() {
            return Err(format!("the lowest type is not {lowest:?}"));
        }
        let mut leaves = 0;
        self.tree(self.tx.root(), types::LEVELS, &mut leaves)?;
        if leaves != by_type.len() {
            return Err(format!("{leaves} types are indexed, {} are there", by_type.len()));
        }
        let mut free = self.tx.free_branch();
        while free != 0 {
            self.claim(free, "free branch")?;
            for digit in 0..branch::FANOUT {
                let position = Position::granule(free, branch::CHILDREN + digit);
                if self.tx.get(position).map_err(damaged)? != 0 {
                    return Err(format!("the free branch {free} has children"));
                }
            }
            free = self.tx.get(Position::granule(free, branch::SHIFT)).map_err(damaged)?;
        }
        Ok(())
    }

    /// Counts the leaves below a link that stands in a branch with the shift `above`: shifts decrease, so this
    /// ends, and soon enough for any stack.
    fn tree(&mut self, link: u32, above: u32, leaves: &mut usize) -> Checked<()> {
        let Some((granule, shift)) = types::as_branch(self.tx, link, above).map_err(damaged)? else {
            *leaves += usize::from(link != 0);
            return Ok(());
        };
        self.claim(granule, "branch")?;
        let mut children = 0;
        for digit in 0..branch::FANOUT {
            let position = Position::granule(granule, branch::CHILDREN + digit);
            let child = self.tx.get(position).map_err(damaged)?;
            children += u32::from(child != 0);
            self.tree(child, shift, leaves)?;
        }
        if children < 2 { Err(format!("branch {granule} has {children} children")) } else { Ok(()) }
    }

    fn participants(&mut self) -> Checked<()> {
        let (mut receivers, mut senders, mut handed) = (0, 0, 0);
        for seat in 0..seats(self.tx.memory) {
            let held = |which| self.tx.held(seat, which).map_err(damaged);
            let (spare, block, state) = (held(Held::Spare)?, held(Held::Block)?, held(Held::State)?);
            if spare != 0 {
                self.claim(spare, "spare")?;
                self.owned(spare)?;
            }
            if block != 0 {
                self.block(block, "held block")?;
            }
            receivers += u32::from(state & !1 == waiters::WAITING);
            senders += u32::from(state & !1 == waiters::FULL);
            if state & waiters::HANDED != 0 {
                handed += 1;
                let granule = state & !waiters::HANDED;
                self.claim(granule, "message handed over")?;
                self.message(granule)?;
            }
        }
        let counted = (self.tx.receivers().into(), self.tx.senders().into(), self.tx.handed());
        if counted != (receivers, senders, handed) {
            return Err(format!("waiting {:?}, counted as {counted:?}", (receivers, senders, handed)));
        }
        Ok(())
    }

    fn blocks(&mut self) -> Checked<()> {
        for class in 0..layout::BLOCK_CLASSES {
            let mut block = self.tx.get(Position::class(class)).map_err(damaged)?;
            while block != 0 {
                if self.block(block, "free block")? != class {
                    return Err(format!("block {block} is in the list of class {class}"));
                }
                block = self.tx.get(Position::granule(block, 0)).map_err(damaged)?;
            }
        }
        // What was skipped at the end of a window is lost by design; anything else is a leak.
        let lost = self
            .role
            .iter()
            .enumerate()
            .filter(|(granule, role)| role.is_empty() && !layout::may_be_skipped(*granule as u32));
        match lost.map(|(granule, _)| granule).next() {
            Some(granule) => Err(format!("granule {granule} is nobody's")),
            None => Ok(()),
        }
    }
}
