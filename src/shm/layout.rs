//! Where everything lies in a queue's files.
//!
//! The layout is the contract between processes, of different versions and word sizes; it consists of
//! little-endian words of 64 and 32 bits at fixed offsets, and of indices, never addresses.
//!
//! ```text
//! control  0        superblock: magic, version, id; `cur`; participants in use; free lists of blocks
//!          1 KiB    participants, 1 KiB each: owner, what it holds, how it waits, records, annexes, settings
//! body     4 MiB    arena: granules of 128 bytes, handed out from a watermark
//!                     message  one granule: link words, type, length, text up to 80 bytes
//!                     block    a text too long for that: one link word, then the text
//!                     branch   a node of the type index: link words only
//!          2 GiB    end; both files are sparse, only reserved pages cost memory
//! ```
//! Two files, seen as one: everybody may read the control file, as everybody may look at any queue in the
//! kernel (`MSG_STAT_ANY`, /proc/sysvipc/msg); the body, with what was sent, is for those whom the mode lets
//! in. Offsets count through both; the body file begins with a hole.
//!
//! A *link word* is what transactions change: `value | tag << 25` (see `txn`). A [`Position`] names one.

/// First word of every queue file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"usysv-mq");
/// Raised whenever this layout, or the meaning of anything in it, changes.
pub const VERSION: u64 = 2;

/// Offsets in the superblock.
pub mod superblock {
    /// [`MAGIC`](super::MAGIC).
    pub const MAGIC: u64 = 0;
    /// [`VERSION`](super::VERSION).
    pub const VERSION: u64 = 8;
    /// The queue's identifier (`msqid`).
    pub const ID: u64 = 16;
    /// What `msgmax` was found to be; see `namespace::limits`. Not a matter of transactions.
    pub const MSGMAX: u64 = 24;
    /// Until when nobody who waits for a message should give its CPU away, in nanoseconds of the monotonic clock; see
    /// `semantics::wait`. A guess; not a matter of transactions.
    pub const RELUCTANCE: u64 = 32;
    /// The word that every commit changes; alone on its cache line.
    pub const CUR: u64 = 64;
    /// How many participants are reserved; only grows.
    pub const PARTICIPANTS: u64 = 128;
    /// `u32`: the only pid namespace that participants came from so far; 0 if there was none, `u32::MAX` once there
    /// were several. On the line of [`PARTICIPANTS`], which every claim reads.
    pub const PID_NAMESPACE: u64 = 132;
    /// One link word per block class: its free list.
    pub const CLASSES: u64 = 192;
}

/// Offset of the first participant.
pub const PARTICIPANTS: u64 = 1024;
/// Size of a participant.
pub const PARTICIPANT: u64 = 1024;
/// The same, in words.
pub const PARTICIPANT_WORDS: usize = PARTICIPANT as usize / 8;
/// How many there can be.
pub const MAX_PARTICIPANTS: u32 = 4095;
/// How many fit beside the superblock in the first page.
pub const FIRST_PARTICIPANTS: u32 = 3;

/// Offsets in a participant.
pub mod participant {
    /// `u32`: thread id of the owner, a futex word of the robust-list protocol; 0 when free.
    pub const OWNER: u64 = 0;
    /// `u32`: index + 1 of the participant that this one's operation interrupted, in the same thread.
    pub const OUTER: u64 = 4;
    /// `u32`: which pid namespace the owner's thread id belongs to.
    pub const PID_NAMESPACE: u64 = 8;
    /// `u32`: thread id for `msg_lrpid` when a message is handed over.
    pub const WAITER_TID: u64 = 12;
    /// `u32`: thread id of the owner of the one named by [`OUTER`].
    pub const OUTER_TID: u64 = 40;
    /// `u32`: index + 1 of a receiver that this one is about to hand a message to, and must wake then.
    pub const OWES: u64 = 44;
    /// `u64`: the state of that receiver by which it is recognised.
    pub const OWES_MARK: u64 = 48;
    /// `u32`: offset of the record of another participant that the owner found in force last: a guess which it will be
    /// the next time. Nothing but a hint to the processor comes of it.
    pub const PEER: u64 = 56;
    /// Link word: a granule held for the next message.
    pub const SPARE: u64 = 16;
    /// Link word: a block held for the next long text, or being copied out.
    pub const BLOCK: u64 = 24;
    /// Link word: class + 1 of that block while it does not yet say so itself.
    pub const FRESH: u64 = 32;
    /// Link word: how it waits; its low half is the futex word.
    pub const STATE: u64 = 64;
    /// Link word: the next in the line of waiters.
    pub const NEXT: u64 = 72;
    /// `i64`: `msgtyp` of a waiting receiver.
    pub const TYPE: u64 = 80;
    /// `u64`: buffer size of a waiting receiver, text size of a waiting sender.
    pub const SIZE: u64 = 88;
    /// `u64`: what a waiting receiver asks for: kind of selector | truncate << 2.
    pub const FLAGS: u64 = 96;
    /// Two records.
    pub const RECORDS: u64 = 128;
    /// Size of a record, in words: whole cache lines, the first of which is all that an operation without a log writes.
    pub const RECORD_WORDS: u64 = 40;
    /// Two annexes, a cache line each: what belongs to the header, but changes rarely.
    pub const ANNEXES: u64 = 768;
    /// Words of an annex.
    pub const ANNEX_WORDS: usize = 8;
    /// Two places for settings ([`super::settings`]).
    pub const SETTINGS: u64 = 896;
}

/// Offset of the arena; size of the control file.
pub const ARENA: u64 = 4 << 20;
/// Size of a granule.
pub const GRANULE: u64 = 128;
/// The same, in words.
pub const GRANULE_WORDS: usize = GRANULE as usize / 8;
/// Size of the body file.
pub const FILE: u64 = 2 << 30;
/// How many granules there are; number 0 is never used, so that 0 can mean "none".
pub const GRANULES: u32 = ((FILE - ARENA) / GRANULE) as u32;
/// Granules in a page: the unit of reservation.
pub const GRANULES_PER_PAGE: u32 = 32;

/// Offsets in a message; the first four are link words.
pub mod message {
    /// Link word number: next in order of arrival.
    pub const NEXT: u32 = 0;
    /// Link word number: previous in order of arrival; while the message is handed over, the one that was last
    /// then, behind which its place would have been.
    pub const PREV: u32 = 1;
    /// Link word number: next of the same type, if indexed; while the message is handed over, the count of
    /// messages taken, this one included.
    pub const TYPE_NEXT: u32 = 2;
    /// Link word number: last of the same type, valid in the first of a type, if indexed.
    pub const TYPE_LAST: u32 = 3;
    /// `i64`: `mtype`.
    pub const TYPE: u64 = 32;
    /// `u32`: length of the text, then `u32`: the granule of its block, 0 if it is inline.
    pub const LENGTH: u64 = 40;
    /// The text.
    pub const TEXT: u64 = 48;
    /// How much of it fits.
    pub const INLINE: usize = 80;
}

/// Link words of a branch of the type index.
pub mod branch {
    /// Which three bits of the type it looks at; while the branch is free, the next free one.
    pub const SHIFT: u32 = 0;
    /// The first of the children.
    pub const CHILDREN: u32 = 1;
    /// How many there are.
    pub const FANOUT: u32 = 8;
}

/// Offsets in a place for settings: 64-bit words, written before the place is named by a commit.
pub mod settings {
    /// Key (`i32`), then mode (the lower nine bits) << 32.
    pub const KEY_MODE: u64 = 0;
    /// Owner, then owner's group << 32.
    pub const OWNER: u64 = 8;
    /// Creator, then creator's group << 32.
    pub const CREATOR: u64 = 16;
    /// `msg_qbytes`.
    pub const QBYTES: u64 = 24;
    /// `msg_ctime`.
    pub const CTIME: u64 = 32;
    /// Size of a place.
    pub const SIZE: u64 = 40;
}

/// Offset of a place for settings: twice the participant, plus which of its two; `None` if there is none.
#[inline]
pub const fn settings_offset(place: u32) -> Option<u64> {
    if place >> 1 >= MAX_PARTICIPANTS {
        return None;
    }
    let within = participant::SETTINGS + (place & 1) as u64 * settings::SIZE;
    Some(participant_offset(place >> 1) + within)
}

/// Offset of an annex: twice the participant, plus which of its two; `None` if there is none.
#[inline(always)]
pub const fn annex_offset(annex: u32) -> Option<u64> {
    if annex >> 1 >= MAX_PARTICIPANTS {
        return None;
    }
    let within = participant::ANNEXES + (annex & 1) as u64 * participant::ANNEX_WORDS as u64 * 8;
    Some(participant_offset(annex >> 1) + within)
}

/// Link words per granule that a log may name.
const LINKS_PER_GRANULE: u32 = branch::CHILDREN + branch::FANOUT;

/// Text sizes of blocks: 240 bytes, then powers of two (each a little more) up to 8 MiB.
pub const BLOCK_CLASSES: u32 = 17;
/// Offset of the class of a block, in the block; its link word lies before it.
pub const BLOCK_CLASS: u64 = 8;
/// Offset of the text in a block.
pub const BLOCK_TEXT: u64 = 16;

/// Granules in a block of a class: enough for 128 << class bytes of text beside the link word.
pub const fn block_granules(class: u32) -> u32 {
    (1 << class) + 1
}

/// The smallest class whose blocks hold `length` bytes.
pub const fn block_class(length: usize) -> Option<u32> {
    let mut class = 0;
    while class < BLOCK_CLASSES {
        if length as u64 + BLOCK_TEXT <= block_granules(class) as u64 * GRANULE {
            return Some(class);
        }
        class += 1;
    }
    None
}

/// The longest text that can be stored.
pub const MAX_TEXT: u64 = block_granules(BLOCK_CLASSES - 1) as u64 * GRANULE - BLOCK_TEXT;

/// Offset of a participant; the index must be below [`MAX_PARTICIPANTS`].
#[inline]
pub const fn participant_offset(index: u32) -> u64 {
    PARTICIPANTS + index as u64 * PARTICIPANT
}

/// Offset of a record: twice the participant, plus which of its two; `None` if there is none.
#[inline(always)]
pub const fn record_offset(record: u32) -> Option<u64> {
    let (index, which) = (record >> 1, record & 1);
    if index >= MAX_PARTICIPANTS {
        return None;
    }
    let within = participant::RECORDS + which as u64 * participant::RECORD_WORDS * 8;
    Some(participant_offset(index) + within)
}

/// Offset of a granule; the index must be below [`GRANULES`].
#[inline]
pub const fn granule_offset(index: u32) -> u64 {
    ARENA + index as u64 * GRANULE
}

/// Whether a granule may lie unused because what was to begin there would not have ended in its window:
/// only before the ends of windows, and only as far as the longest block reaches.
pub const fn may_be_skipped(granule: u32) -> bool {
    let offset = granule_offset(granule);
    let window_end = if offset < 8 << 20 { 8 << 20 } else { 1 << (offset.ilog2() + 1) };
    window_end - offset <= block_granules(BLOCK_CLASSES - 1) as u64 * GRANULE
        && window_end - offset < window_end / 2
}

/// The name of a link word, as it stands in a redo log: its offset in words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position(pub u32);

/// The link words of a participant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Held {
    /// [`participant::SPARE`].
    Spare,
    /// [`participant::BLOCK`].
    Block,
    /// [`participant::FRESH`].
    Fresh,
    /// [`participant::STATE`].
    State,
    /// [`participant::NEXT`].
    Next,
}

impl Held {
    /// Which of the participant's words it is.
    #[inline(always)]
    pub const fn word(self) -> usize {
        let offset = match self {
            Held::Spare => participant::SPARE,
            Held::Block => participant::BLOCK,
            Held::Fresh => participant::FRESH,
            Held::State => participant::STATE,
            Held::Next => participant::NEXT,
        };
        offset as usize / 8
    }
}

/// Where participants, arena and file end or begin, in words.
const PARTICIPANTS_WORD: u32 = (PARTICIPANTS / 8) as u32;
const ARENA_WORD: u32 = (ARENA / 8) as u32;
const FILE_WORD: u32 = (FILE / 8) as u32;
const CLASSES_WORD: u32 = (superblock::CLASSES / 8) as u32;

impl Position {
    /// Link word `word` of a granule.
    ///
    /// What does not fit is cut off; [`Position::offset`] checks what is left.
    #[inline(always)]
    pub const fn granule(granule: u32, word: u32) -> Position {
        Position(ARENA_WORD + (granule & ((1 << 24) - 1)) * GRANULE_WORDS as u32 + (word & 15))
    }

    /// A link word of a participant.
    #[inline(always)]
    pub const fn participant(index: u32, which: Held) -> Position {
        let index = index & (MAX_PARTICIPANTS.next_power_of_two() - 1);
        Position(PARTICIPANTS_WORD + index * PARTICIPANT_WORDS as u32 + which.word() as u32)
    }

    /// The free list of a block class.
    #[inline(always)]
    pub const fn class(class: u32) -> Position {
        Position(CLASSES_WORD + class)
    }

    /// Where the word lies; `None` if there is no link word of that name.
    #[inline(always)]
    pub const fn offset(self) -> Option<u64> {
        const HELD: u64 = {
            let all = [Held::Spare, Held::Block, Held::Fresh, Held::State, Held::Next];
            let (mut held, mut which) = (0, 0);
            while which < all.len() {
                held |= 1 << all[which].word();
                which += 1;
            }
            held
        };
        const { assert!(PARTICIPANT_WORDS == 128 && GRANULE_WORDS == 16) };
        let is_link = if self.0 >= ARENA_WORD {
            // Number 0 is no granule.
            let granules = ARENA_WORD + GRANULE_WORDS as u32;
            self.0 >= granules && self.0 < FILE_WORD && self.0 % (GRANULE_WORDS as u32) < LINKS_PER_GRANULE
        } else if self.0 >= PARTICIPANTS_WORD {
            let word = self.0 % PARTICIPANT_WORDS as u32;
            word < u64::BITS && HELD >> word & 1 != 0
        } else {
            self.0 >= CLASSES_WORD && self.0 < CLASSES_WORD + BLOCK_CLASSES
        };
        if is_link { Some(self.0 as u64 * 8) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout is a contract; a change here must raise [`VERSION`].
    #[test]
    fn the_layout_is_pinned() {
        assert_eq!(participant_offset(MAX_PARTICIPANTS), ARENA);
        assert_eq!(participant::RECORDS + 2 * participant::RECORD_WORDS * 8, participant::ANNEXES);
        assert_eq!(participant::ANNEXES + 2 * participant::ANNEX_WORDS as u64 * 8, participant::SETTINGS);
        const { assert!(participant::SETTINGS + 2 * settings::SIZE <= PARTICIPANT) };
        assert_eq!(participant_offset(FIRST_PARTICIPANTS), 4096);
        const { assert!(superblock::CLASSES + BLOCK_CLASSES as u64 * 8 <= PARTICIPANTS) };
        assert_eq!(message::TEXT + message::INLINE as u64, GRANULE);
        assert_eq!(u64::from(GRANULES) * GRANULE + ARENA, FILE);
        const { assert!(GRANULES <= 1 << 24) };
        assert_eq!((MAX_TEXT, VERSION), ((8 << 20) + 112, 2));
    }

    #[test]
    fn block_classes_hold_what_they_say() {
        assert_eq!(block_class(81), Some(0));
        assert_eq!(block_class(240), Some(0));
        assert_eq!(block_class(241), Some(1));
        assert_eq!(block_class(8192), Some(6));
        assert_eq!(block_class(MAX_TEXT as usize), Some(16));
        assert_eq!(block_class(MAX_TEXT as usize + 1), None);
    }

    #[test]
    fn only_link_words_have_positions() {
        assert_eq!(Position::granule(0, 0).offset(), None);
        assert_eq!(Position::granule(1, 9).offset(), None);
        assert_eq!(Position::granule(GRANULES, 0).offset(), None);
        assert_eq!(Position::class(BLOCK_CLASSES).offset(), None);
        assert_eq!(Position::participant(MAX_PARTICIPANTS, Held::Next).offset(), None);
        assert_eq!(Position((FILE / 8) as u32).offset(), None);
        assert_eq!(Position(u32::MAX).offset(), None);
        assert_eq!(Position(0).offset(), None);
        assert_eq!(Position(PARTICIPANTS_WORD + 5).offset(), None);
        assert_eq!(Position::granule(1, 2).offset(), Some(ARENA + 128 + 16));
        assert_eq!(Position::participant(1, Held::State).offset(), Some(2048 + 64));
    }
}
