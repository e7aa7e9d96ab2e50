//! Looking into a queue, for people: who waits, which messages lie in it, how much memory it has.
//!
//! Looks only: nothing is changed, but that an unfinished log is applied, which every operation does. Like
//! [`check`](super::check) it allocates, and so is for tools and not for the four calls.
//!
//! Two views:
//! - [`outline`] needs the control file alone, so everybody may have it. The header in it is consistent;
//!   who waits is read word by word beside it, and may be a moment older or younger.
//! - [`Queue::messages`] and [`Queue::types`] walk the messages on one snapshot. A queue that changes faster
//!   than it can be walked gives none: `None`, after a number of tries.

use super::tx::Tx;
use super::{Fetch, Permission, Queue, Selector, Status, refused, snapshot, waiters};
use crate::os::errno::Errno;
use crate::shm::Mapping;
use crate::shm::layout::{self, Held, message, participant, superblock};
use crate::txn::{self, Damaged};
use core::sync::atomic::Ordering;
use std::collections::BTreeMap;

/// How often a walk is begun again because the queue changed.
const TRIES: u32 = 200;
/// After how many messages a walk looks whether it is still worth going on.
const STRIDE: u32 = 64;

/// One who waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    /// Thread id, in the pid namespace of that thread.
    pub thread: u32,
    /// Which pid namespace that is (the inode of `/proc/PID/ns/pid`); 0 if it is not known.
    pub pid_namespace: u32,
    /// Whether it is known to be dead: then the next operation that comes across takes it out of line.
    pub dead: bool,
    /// What it waits for.
    pub wants: Wants,
}

/// What a waiter waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wants {
    /// A message.
    Message {
        /// Which.
        selector: Selector,
        /// The size of its buffer.
        size: u64,
        /// Whether what is too long is to be cut.
        truncate: bool,
    },
    /// Room for a text of that many bytes.
    Room(u64),
}

/// A queue, as everybody may see it.
#[derive(Clone, Debug)]
pub struct Outline {
    /// What `IPC_STAT` tells.
    pub status: Status,
    /// Messages taken out or handed over since the queue was made, modulo 2^32.
    pub taken: u32,
    /// Messages handed to a receiver that has not taken them yet.
    pub handed: u32,
    /// Granules of memory ever used.
    pub granules: u32,
    /// Granules of memory reserved.
    pub reserved: u32,
    /// Participants there is room for, so far.
    pub participants: u32,
    /// Participants that are in an operation, or wait.
    pub active: u32,
    /// Participants whose owner died and that nobody has healed yet.
    pub dead: u32,
    /// Who waits to receive, then who waits to send, each in line.
    pub waiters: Vec<Waiter>,
}

/// A message, seen where it lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its position, counted from 0 in order of arrival.
    pub position: u64,
    /// `mtype`.
    pub mtype: i64,
    /// Length of its text.
    pub length: u32,
    /// The beginning of its text.
    pub text: Vec<u8>,
}

/// The messages of one type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TypeCount {
    /// `mtype`.
    pub mtype: i64,
    /// How many.
    pub messages: u32,
    /// Bytes of text.
    pub bytes: u64,
    /// Position of the oldest.
    pub first: u64,
}

/// Looks at the copy of a control file; see the module's description. `EINVAL` if the queue is removed.
pub fn outline(copy: &Mapping, fetch: Fetch) -> Result<Outline, Errno> {
    let (header, status) = snapshot(copy, fetch)?;
    if header.removed() != 0 {
        return Err(Errno::EINVAL);
    }
    fetch(superblock::PARTICIPANTS, 8)?;
    let seats = txn::seats(copy);
    fetch(layout::PARTICIPANTS, u64::from(seats) * layout::PARTICIPANT)?;
    let owner = |seat: &u32| half(copy, *seat, participant::OWNER);
    let dead = (0..seats).filter(|&seat| txn::is_dead(copy, seat)).count() as u32;
    let active = ((0..seats).filter(|seat| owner(seat) != 0).count() as u32).saturating_sub(dead);
    Ok(Outline {
        status,
        taken: header.taken(),
        handed: header.handed(),
        granules: header.mark(),
        reserved: header.reserved(),
        participants: seats,
        active,
        dead,
        waiters: in_line(&header, waiting(copy)),
    })
}

/// Relaxed, as all that is read here: it stands for itself.
fn half(memory: &Mapping, seat: u32, which: u64) -> u32 {
    let half = memory.half(layout::participant_offset(seat) + which);
    half.map_or(0, |half| half.load(Ordering::Relaxed))
}

fn word(memory: &Mapping, seat: u32, which: u64) -> u64 {
    let word = memory.word(layout::participant_offset(seat) + which);
    word.map_or(0, |word| word.load(Ordering::Relaxed))
}

/// All who wait, by participant.
fn waiting(memory: &Mapping) -> BTreeMap<u32, Waiter> {
    let waiter = |seat: u32| {
        let size = word(memory, seat, participant::SIZE);
        let wants = match txn::value(word(memory, seat, participant::STATE)) & !1 {
            waiters::WAITING => {
                let flags = word(memory, seat, participant::FLAGS);
                let mtype = word(memory, seat, participant::TYPE) as i64;
                let selector = Selector::from_words(mtype, flags);
                Wants::Message { selector, size, truncate: flags & 4 != 0 }
            }
            waiters::FULL => Wants::Room(size),
            _ => return None,
        };
        let thread = half(memory, seat, participant::OWNER) & libc::FUTEX_TID_MASK;
        // A dead owner's id is gone; a receiver's stands elsewhere, too.
        let thread = match wants {
            Wants::Message { .. } if thread == 0 => half(memory, seat, participant::WAITER_TID),
            _ => thread,
        };
        Some(Waiter {
            thread,
            pid_namespace: half(memory, seat, participant::PID_NAMESPACE),
            dead: txn::is_dead(memory, seat),
            wants,
        })
    };
    (0..txn::seats(memory)).filter_map(|seat| Some((seat, waiter(seat)?))).collect()
}

/// Sorts by place in line, as far as that can be told; the others follow.
fn in_line(tx: &Tx, mut waiting: BTreeMap<u32, Waiter>) -> Vec<Waiter> {
    let mut sorted = Vec::new();
    for first in [tx.first_receiver(), tx.first_sender()] {
        let mut link = first;
        // Ends: who was met is not met again.
        while let Some(seat) = link.checked_sub(1)
            && let Some(waiter) = waiting.remove(&seat)
        {
            sorted.push(waiter);
            link = tx.held(seat, Held::Next).unwrap_or(0);
        }
    }
    sorted.extend(waiting.into_values());
    sorted.sort_by_key(|waiter| matches!(waiter.wants, Wants::Room(_)));
    sorted
}

/// Whether a walk goes on.
enum Walk {
    On,
    Enough,
}

/// Why a walk ended without an answer.
enum Ended {
    /// The queue changed; or what was read cannot be.
    Changed,
    Errno(Errno),
}

impl From<Damaged> for Ended {
    fn from(Damaged: Damaged) -> Ended {
        Ended::Changed
    }
}

impl Queue<'_> {
    /// Walks the messages in order of arrival, with position, type and granule of each; from the beginning
    /// again (`start`) when the queue changes meanwhile.
    fn walk<R>(
        &self,
        permission: &dyn Permission,
        start: impl Fn() -> R,
        mut visit: impl FnMut(&mut R, &Tx, u64, i64, u32) -> Result<Walk, Damaged>,
    ) -> Result<Option<R>, Errno> {
        let mut attempt = |tx: &Tx| {
            self.admit(tx, permission).map_err(|stop| Ended::Errno(refused(stop)))?;
            let mut result = start();
            let mut granule = tx.first()?;
            for position in 0..tx.qnum().min(layout::GRANULES) {
                let mtype = tx.mtype(granule)?;
                if let Walk::Enough = visit(&mut result, tx, position.into(), mtype, granule)? {
                    break;
                }
                if position % STRIDE == 0 && !tx.still() {
                    return Err(Ended::Changed);
                }
                granule = tx.next(granule)?;
            }
            Ok(result)
        };
        for _ in 0..TRIES {
            let tx = Tx::begin(self.memory).map_err(|Damaged| super::tx::DAMAGED)?;
            let result = attempt(&tx);
            if tx.still() {
                return match result {
                    Ok(result) => Ok(Some(result)),
                    Err(Ended::Errno(errno)) => Err(errno),
                    Err(Ended::Changed) => Err(super::tx::DAMAGED),
                };
            }
        }
        Ok(None)
    }

    /// Up to `most` messages that are wanted, from a position on, with up to `room` bytes of text each. `None`
    /// if the queue is too busy.
    pub fn messages(
        &self,
        permission: &dyn Permission,
        wanted: Selector,
        from: u64,
        most: usize,
        room: usize,
    ) -> Result<Option<Vec<Seen>>, Errno> {
        self.walk(permission, Vec::new, |seen: &mut Vec<Seen>, tx, position, mtype, granule| {
            if seen.len() >= most {
                return Ok(Walk::Enough);
            }
            if position >= from && wanted.wants(mtype) {
                let (length, _) = tx.extent(granule)?;
                seen.push(Seen { position, mtype, length, text: beginning(tx, granule, room)? });
            }
            Ok(Walk::On)
        })
    }

    /// How many messages of each type there are. `None` if the queue is too busy.
    pub fn types(&self, permission: &dyn Permission) -> Result<Option<Vec<TypeCount>>, Errno> {
        let counted = self.walk(
            permission,
            BTreeMap::new,
            |types: &mut BTreeMap<i64, TypeCount>, tx, position, mtype, granule| {
                let none = TypeCount { mtype, messages: 0, bytes: 0, first: position };
                let count = types.entry(mtype).or_insert(none);
                count.messages += 1;
                count.bytes += u64::from(tx.extent(granule)?.0);
                Ok(Walk::On)
            },
        )?;
        Ok(counted.map(|types| types.into_values().collect()))
    }
}

/// The beginning of a message's text, word by word: it is worth something only if the snapshot proves true.
fn beginning(tx: &Tx, granule: u32, room: usize) -> Result<Vec<u8>, Damaged> {
    let (length, block) = tx.extent(granule)?;
    let length = length as usize;
    let start = match block {
        0 if length > message::INLINE => return Err(Damaged),
        0 => layout::granule_offset(granule) + message::TEXT,
        block if block >= layout::GRANULES || length as u64 > layout::MAX_TEXT => return Err(Damaged),
        block => layout::granule_offset(block) + layout::BLOCK_TEXT,
    };
    let length = length.min(room);
    let words = tx.memory.words(start, length.div_ceil(8)).ok_or(Damaged)?;
    // Relaxed: as every plain word.
    let mut text: Vec<u8> =
        words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
    text.truncate(length);
    Ok(text)
}
