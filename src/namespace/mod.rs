//! Where queues live: a directory is one IPC namespace.
//!
//! | name in the directory    | what it is                                                                   |
//! |--------------------------|------------------------------------------------------------------------------|
//! | `usysv.q.INDEX`          | a queue: its control file; the identifier stands in it                       |
//! | `usysv.b.ID`             | its body: the messages                                                       |
//! | `usysv.k.KEY`, `...KEY.N`| symbolic link to nowhere, whose content is the identifier of the key's queue |
//! | `usysv.ns`               | hints: where to look for the next free index                                 |
//! | `usysv.t.*`              | a queue being made; has no name yet that anybody looks for                   |
//! | `usysv.limits`, ...      | limits, if somebody set them here: see [`limits`]                            |
//!
//! The file system decides, atomically: an index is taken by linking a finished control file to it (where there
//! is no `O_TMPFILE`, by renaming it), a key by creating the link. Nothing shared by all users is mapped, and
//! nothing in `usysv.ns` is believed.
//!
//! # Invariants
//! 1. Nobody can use half a queue: see 4.
//! 2. A key's link is made after the file of the queue it names, and removed before it.
//! 3. A queue is removed by its own transaction first; only then do its names go, and only by the hand of
//!    the one participant that has the right to ([`Queue::bury`]). A link whose queue is gone or removed
//!    counts for nothing: another key slot is used, so that a remover that is stopped, or a user who may
//!    not remove it, is in nobody's way.
//! 4. A queue begins unborn, is given all its names, the control file's first and the key's last, and is born
//!    then; it loses the control file's name last. So a creator or a remover that dies leaves something
//!    that is found by its index and can be buried by whoever finds it: at once, since its seat says that it
//!    is dead. The hints name what is being removed, for that reason.
//! 5. Who finds an unborn queue by its key does not wait for its creator, and does not pass it over: he bears it
//!    himself. A queue of a key is born only by somebody who has looked at all slots since its link was made,
//!    and found in the others nothing alive, and nothing unborn that he did not end first. Of two such queues,
//!    one link is made after the other; who bears the second one sees the first. So a key never has two queues
//!    that were ever anybody's.
//! 6. All this runs with signals held back (`os::signals`): a creator or remover can die, or be stopped, but
//!    no handler runs in its middle.

mod attachments;
mod directory;
mod draft;
mod hints;
pub mod limits;

pub use attachments::{
    Attached, Attachment, after_fork, attach, attach_as, attach_index, detach, glimpse, outline,
};
pub use directory::{body_path, directory, key_path, queue_path, read_environment};

use crate::os::errno::Errno;
use crate::os::file::{self, Path};
use crate::os::process;
use crate::os::signals::{HeldBack, held_back, held_back_for};
use crate::queue::{Configuration, Queue, Stage, Status};
use crate::shm::layout::superblock;
use crate::txn::Seat;
use core::sync::atomic::AtomicU64;
use directory::File;

/// How many indices there are: identifiers are `seq << 15 | index`.
pub const INDICES: u32 = 1 << 15;
/// Links that a key may have, all but one of them left over, and that are always looked at.
const SLOTS: u32 = 4;
/// Links beyond those. They are looked at as long as the last of [`SLOTS`] is there, which is therefore never
/// removed, even if its queue is: it marks a key that had many left over.
const MORE_SLOTS: u32 = 60;
/// How often a key's link is looked at again while its queue is being removed. Then it counts for nothing: who
/// does that may be stopped, and nobody waits for the stopped.
const PATIENCE: u32 = 100;

/// Chooses the directory, in place of what the environment says; an absolute path. `EBUSY` once a queue has
/// been used, or a directory was chosen so before; `EINVAL` if that cannot be a directory of ours.
pub fn choose_directory(path: &[u8]) -> Result<(), Errno> {
    if attachments::any() { Err(Errno::EBUSY) } else { directory::choose_this(path) }
}

/// The index in an identifier.
pub const fn index_of(id: u32) -> u32 {
    id % INDICES
}

/// What is known of a key.
pub enum Found {
    /// Its queue, attached.
    Queue(Attached),
    /// Its queue's identifier and settings; this process may not open it.
    Denied(u32, Configuration),
}

/// What lies in a slot of a key.
enum Slot {
    Free,
    /// A link to a queue, by its identifier.
    Link(u32),
    /// Something else, made by somebody else.
    Foreign,
}

#[inline(never)]
fn read_slot(key: i32, slot: u32) -> Slot {
    let Some(path) = key_path(key, slot) else { return Slot::Foreign };
    match file::read_link(&path, &mut [0; 16]) {
        Ok(content) => directory::parse(content).map_or(Slot::Foreign, Slot::Link),
        Err(Errno::ENOENT) => Slot::Free,
        Err(_) => Slot::Foreign,
    }
}

/// The links of a key: slot and identifier, in order.
fn links(key: i32) -> impl Iterator<Item = (u32, u32)> {
    let mut more = false;
    let slots = (0..SLOTS + MORE_SLOTS).map_while(move |slot| {
        if slot >= SLOTS && !more {
            return None;
        }
        let there = read_slot(key, slot);
        more |= slot == SLOTS - 1 && !matches!(there, Slot::Free);
        Some((slot, there))
    });
    slots.filter_map(|(slot, there)| match there {
        Slot::Link(id) => Some((slot, id)),
        Slot::Free | Slot::Foreign => None,
    })
}

/// Finds the queue of a key; `None` if there is none.
pub fn find_key(key: i32) -> Result<Option<Found>, Errno> {
    // Who has attached nothing knows no key, and need not touch the memory where that would stand.
    if attachments::any() {
        if let Some(attached) = attachments::remembered(key) {
            return Ok(Some(Found::Queue(attached)));
        }
        attachments::begin_anew()?;
    }
    for patience in (0..PATIENCE).rev() {
        let mut being_removed = false;
        let found = held_back_for(|held| settle(held, key, None, &mut being_removed))?;
        if let Some(Found::Queue(attached)) = &found {
            attached.remember(key);
        }
        if found.is_some() || !being_removed || patience == 0 {
            return Ok(found);
        }
        process::yield_cpu();
    }
    Ok(None)
}

/// A queue that may have a key.
enum Claimant {
    /// It has.
    Found(Found),
    /// It will, if it is born.
    Unborn(Attached),
}

/// The first queue that has a key, or may have it when it is born, other than `but`.
#[inline(never)]
fn claimant(
    held: &HeldBack,
    key: i32,
    but: Option<u32>,
    being_removed: &mut bool,
) -> Result<Option<Claimant>, Errno> {
    for (_, id) in links(key).filter(|&(_, id)| Some(id) != but) {
        match attachments::attach_named(held, id, key) {
            Ok(attached) => match attached.queue().stage() {
                Ok((_, settings)) if settings.key != key => {}
                Ok((Stage::Alive, _)) => return Ok(Some(Claimant::Found(Found::Queue(attached)))),
                Ok((Stage::Unborn, _)) => return Ok(Some(Claimant::Unborn(attached))),
                // That takes a few microseconds.
                Ok((Stage::Removed, _)) => *being_removed |= !bury(&attached),
                Err(_) => {}
            },
            // Of an unborn one, too: whether its creator lives to bear it is not ours to say.
            Err(Errno::EACCES) => match attachments::observe(index_of(id)) {
                Ok((there, status, Stage::Alive | Stage::Unborn))
                    if there == id && status.configuration.key == key =>
                {
                    return Ok(Some(Claimant::Found(Found::Denied(id, status.configuration))));
                }
                _ => {}
            },
            Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

/// A queue that the caller is creating.
struct Mine<'a> {
    id: u32,
    queue: Queue<'static>,
    /// Its creator's.
    seat: &'a Seat<'static>,
}

/// Finds the queue of a key. Where only unborn ones are found, the first of them is born (invariant 5).
#[inline(never)]
fn settle(
    held: &HeldBack,
    key: i32,
    mine: Option<&Mine>,
    being_removed: &mut bool,
) -> Result<Option<Found>, Errno> {
    for _ in 0..PATIENCE {
        match claimant(held, key, None, being_removed)? {
            None => return Ok(None),
            Some(Claimant::Found(found)) => return Ok(Some(found)),
            Some(Claimant::Unborn(attached)) => {
                if let Some(found) = decide(held, key, attached, mine, being_removed)? {
                    return Ok(Some(found));
                }
            }
        }
    }
    Err(Errno::ENOMEM)
}

/// Bears an unborn queue that has its link, unless another has the key: then that is the result. `None` if it was
/// ended meanwhile in favour of another.
#[inline(never)]
fn decide(
    held: &HeldBack,
    key: i32,
    unborn: Attached,
    mine: Option<&Mine>,
    being_removed: &mut bool,
) -> Result<Option<Found>, Errno> {
    for _ in 0..SLOTS + MORE_SLOTS {
        match claimant(held, key, Some(unborn.id()), being_removed)? {
            None => {
                let alive = match mine.filter(|mine| mine.id == unborn.id()) {
                    Some(mine) => mine.queue.bear_as(mine.seat)?,
                    None => unborn.queue().bear()?,
                };
                return Ok(alive.then_some(Found::Queue(unborn)));
            }
            Some(Claimant::Found(found)) => return Ok(Some(found)),
            // If it was born meanwhile, that is seen in the next round.
            Some(Claimant::Unborn(other)) => drop(other.queue().renounce()?),
        }
    }
    Ok(None)
}

/// Creates a queue; `None` if somebody else created one of that key first.
/// At most `limit` queues; `may_be_told` says whether to look for an identifier that it shall have.
#[inline(never)]
pub fn create(
    held: &HeldBack,
    settings: &Configuration,
    limit: u32,
    may_be_told: bool,
) -> Result<Option<Attached>, Errno> {
    let mut hints = hints::Hints::read();
    hints.check_suspect();
    let in_use = hints.queues(limit)?;
    if in_use >= limit {
        return Err(Errno::ENOSPC);
    }
    let next_id = if may_be_told { limits::take_next_id() } else { None };
    let mut wanted =
        next_id.into_iter().flat_map(|id| id..=id | (INDICES - 1)).chain(hints.candidates(in_use));
    let (attached, seat) = attachments::make(settings, &mut wanted)?;
    let key = settings.key;
    let queue = attachments::lasting(&attached);
    let mine = Mine { id: attached.id(), queue, seat: &seat };
    let claimed = if key == 0 { queue.bear_as(&seat).map(drop) } else { claim_key(held, key, &mine) };
    // By us, or by who found it. Else it never will be, and its names are still ours to remove.
    let kept = !queue.renounce_as(&seat).unwrap_or(true);
    if !kept {
        remove_names(attached.id(), attached.inode(), settings);
    }
    seat.release();
    if !kept {
        attachments::detach(attached);
        return claimed.map(|()| None);
    }
    // Only now: the index of one that is not finished is the first that the next creator comes across.
    hints.note(next_id.map_or(Some(attached.id()), |_| None), in_use + 1);
    if key != 0 {
        attached.remember(key);
    }
    Ok(Some(attached))
}

/// Makes the link from a key to a queue that is not born yet, and has it born, unless another has the key. `ENOMEM` if
/// there is no place for the link.
#[inline(never)]
fn claim_key(held: &HeldBack, key: i32, mine: &Mine) -> Result<(), Errno> {
    let content = directory::number_path(mine.id).ok_or(Errno::ENOMEM)?;
    for slot in 0..SLOTS + MORE_SLOTS {
        if key_path(key, slot).is_some_and(|path| file::make_link(&path, &content).is_ok()) {
            return settle(held, key, Some(mine), &mut false).map(drop);
        }
        // Somebody else's, perhaps: then there is no need to look for another place.
        if slot == 0 && settle(held, key, Some(mine), &mut false)?.is_some() {
            return Ok(());
        }
    }
    Err(Errno::ENOMEM)
}

/// Removes the names of a queue that is removed; only by the hand that has the right to.
#[inline(never)]
fn remove_names(id: u32, inode: (u64, u64), settings: &Configuration) {
    if settings.key != 0 {
        for (slot, there) in links(settings.key) {
            if there == id
                && slot != SLOTS - 1
                && let Some(path) = key_path(settings.key, slot)
            {
                let _ = file::remove(&path);
            }
        }
    }
    let Some(path) = queue_path(index_of(id)) else { return };
    if file::look_up(&path).is_ok_and(|there| there.inode == inode) {
        if let Some(body) = directory::body_path(id) {
            let _ = file::remove(&body);
        }
        // Last: by it the rest is found.
        let _ = file::remove(&path);
    }
}

/// Removes the names of a removed queue, if its remover did not live to do it, or its creator to finish it.
fn bury(attached: &Attached) -> bool {
    let (id, inode) = (attached.id(), attached.inode());
    held_back(|| attached.queue().bury(&|settings| remove_names(id, inode, &settings)))
}

/// Buries what lies at an index, if that is a queue, or half of one, whose remover or creator is dead.
#[inline(never)]
pub fn tidy(index: u32) {
    let _ = attachments::inspect(index, |queue, id, inode| {
        if queue.is_removed() {
            queue.bury(&|settings| remove_names(id, inode, &settings));
        }
    });
}

/// Removes a queue, if `may` agrees.
pub fn remove(attached: Attached, may: &dyn Fn(Configuration) -> Result<(), Errno>) -> Result<(), Errno> {
    held_back(|| remove_named(attached, may))
}

#[inline(never)]
fn remove_named(attached: Attached, may: &dyn Fn(Configuration) -> Result<(), Errno>) -> Result<(), Errno> {
    let mut hints = hints::Hints::read();
    hints.check_suspect();
    // Before it is removed: its remover may die right after.
    hints.note_removing(attached.id());
    let (id, inode) = (attached.id(), attached.inode());
    let removed = attached.queue().remove(may, &|settings| remove_names(id, inode, &settings));
    hints.note_end(removed.is_ok());
    if removed.is_ok() {
        attachments::detach(attached);
    }
    removed
}

/// Who owns the control file of a queue, as the caller's user namespace has it.
pub fn owner(id: u32) -> Option<u32> {
    let path = queue_path(index_of(id))?;
    file::look_up(&path).ok().map(|there| there.uid)
}

/// The queue at an index.
pub enum AtIndex {
    /// Attached.
    Queue(Attached),
    /// Somebody else's, seen from outside: identifier and status.
    Seen(u32, Status),
}

/// The queue at an index, whatever its identifier. One of another user is only looked at: who asks for an index
/// does not know whose queue that is.
pub fn find_index(index: u32) -> Result<AtIndex, Errno> {
    if !attachments::is_attached(index) && attachments::is_foreign(index) {
        return glimpse(index).map(|(id, status)| AtIndex::Seen(id, status));
    }
    let attached = match attach_index(index) {
        Err(Errno::EACCES) => return glimpse(index).map(|(id, status)| AtIndex::Seen(id, status)),
        attached => attached?,
    };
    if attached.queue().is_removed() {
        bury(&attached);
        return Err(Errno::EINVAL);
    }
    Ok(AtIndex::Queue(attached))
}

/// Calls `visit` with the index of every queue in the namespace.
pub fn list(mut visit: impl FnMut(u32)) -> Result<(), Errno> {
    let mut each = |name: &[u8]| {
        if let Some(index) = name.strip_prefix(directory::QUEUE).and_then(directory::parse)
            && index < INDICES
        {
            visit(index);
        }
    };
    held_back(|| directory::list(&mut each))
}

/// Lets the file system enforce what the settings say: owner, group and mode of the queue's files, and the owner
/// of its key's link, so that who owns a queue can remove all of it.
pub fn publish_settings(attached: &Attached, settings: &Configuration) -> Result<(), Errno> {
    held_back(|| set_access_of_all(attached, settings))
}

#[inline(never)]
fn set_access_of_all(attached: &Attached, settings: &Configuration) -> Result<(), Errno> {
    let id = attached.id();
    let open = |path: Option<Path>| file::open(&path.ok_or(Errno::EINVAL)?, libc::O_RDWR, 0);
    let (control, body) = (open(queue_path(index_of(id)))?, open(directory::body_path(id))?);
    let there = file::status(&control)?;
    if there.inode != attached.inode() || !attachments::go_together(&there, &file::status(&body)?) {
        return Err(Errno::EINVAL);
    }
    directory::set_access(&control, File::Control, settings)?;
    directory::set_access(&body, File::Body, settings)?;
    if settings.key != 0 && there.uid != settings.uid {
        for (slot, there) in links(settings.key) {
            if there == id
                && let Some(path) = key_path(settings.key, slot)
            {
                // Only a privileged process can; whoever cannot need not.
                let _ = file::set_owner_of_link(&path, settings.uid, settings.gid);
            }
        }
    }
    Ok(())
}

impl Attached {
    /// The queue, for operations.
    #[inline(always)]
    pub fn queue(&self) -> Queue<'_> {
        Queue::new(self.mapping(), self.object())
    }

    /// Where the queue keeps what `msgmax` is; see [`limits`].
    #[inline(always)]
    pub fn msgmax(&self) -> Option<&AtomicU64> {
        self.mapping().word(superblock::MSGMAX)
    }

    /// Where the queue keeps until when nobody should give its CPU away; see [`superblock::RELUCTANCE`].
    pub fn reluctance(&self) -> Option<&AtomicU64> {
        self.mapping().word(superblock::RELUCTANCE)
    }

    /// The same, for who keeps this use beside it: as long as that lives, the queue is mapped.
    #[inline(always)]
    pub fn lasting_queue(&self) -> Queue<'static> {
        attachments::lasting(self)
    }
}
