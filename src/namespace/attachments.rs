//! Which queues this process has mapped, and when it may unmap one.
//!
//! A table from index to attachment, and a list of attachments that are free. What a thread uses it *announces* in a
//! frame of its lane ([`frames`]). An attachment is unmapped when the table no longer names it and no frame does.
//!
//! # Invariants
//! 1. Attachments themselves are never given back to the system: a stale pointer to one is still a pointer
//!    to one, and what it finds there is checked.
//! 2. A thread announces an attachment and then looks again whether the table names it; who retires one
//!    takes it out of the table, makes every thread pass a barrier (membarrier(2)), and then looks at the
//!    announcements. So one of the two sees the other, and announcing costs no fence.
//! 3. No lock is waited for. The list of retired attachments has one, which is only ever tried: a child of
//!    fork that inherited it leaves the work to a later call.
//! 4. While descriptors are open, mappings are nobody's yet, or that lock is held, signals are held back
//!    (`os::signals`): no handler can jump away from them.

use super::directory::{self, File, body_path, in_words_of_msgget, queue_path, set_access};
use super::draft::Draft;
use super::{INDICES, index_of};
use crate::os::errno::Errno;
use crate::os::file::{self, Fd, Path};
use crate::os::signals::{HeldBack, held_back};
use crate::os::thread::{self, Caller, caller};
use crate::os::{credentials, frames, memory, process};
use crate::queue::inspect::Outline;
use crate::queue::{self, Configuration, FIRST_GRANULES, FIRST_PAGE, Queue, Stage, Status};
use crate::shm::Mapping;
use crate::shm::layout;
use crate::txn::Seat;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use libc::c_int;
use parking_lot::Mutex;

/// A queue that this process has mapped.
pub struct Attachment {
    /// Identifier + 1; 0 while not in use.
    id: AtomicU64,
    mapping: Mapping,
    device: AtomicU64,
    inode: AtomicU64,
    /// Decisions about permissions, kept by the layer above.
    pub decision: AtomicU64,
    /// How long it paid to spin lately, kept by the layer above.
    pub patience: AtomicU32,
    /// How often it paid to give the CPU away lately, likewise.
    pub courtesy: AtomicU32,
    next_free: AtomicU32,
}

impl Attachment {
    const fn unused() -> Attachment {
        Attachment {
            id: AtomicU64::new(0),
            mapping: Mapping::unmapped(),
            device: AtomicU64::new(0),
            inode: AtomicU64::new(0),
            decision: AtomicU64::new(0),
            patience: AtomicU32::new(0),
            courtesy: AtomicU32::new(0),
            next_free: AtomicU32::new(0),
        }
    }

    /// The queue's identifier; only while somebody announces that it is used.
    #[inline(always)]
    pub fn id(&self) -> u32 {
        // Relaxed: it does not change while the queue is used.
        self.id.load(Ordering::Relaxed).saturating_sub(1) as u32
    }
}

const CHUNK: usize = 128;
const CHUNKS: usize = INDICES as usize * 2 / CHUNK;

/// The first attachments: most programs need no more.
static FIRST: [Attachment; CHUNK] = [const { Attachment::unused() }; CHUNK];
/// All others, in chunks that are mapped when needed and never unmapped (invariant 1).
static POOL: [AtomicPtr<Attachment>; CHUNKS] = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS];
/// How many attachments were ever taken from the pool.
// SAFETY, here and below: data that is written, as what is usually there. The dynamic linker has written to that page
// already: a program that uses one queue once is spared two page faults.
#[unsafe(link_section = ".data.usysv")]
static TAKEN: AtomicU32 = AtomicU32::new(0);
/// Free attachments: number + 1 of the first, below a count of changes against ABA.
#[unsafe(link_section = ".data.usysv")]
static FREE: AtomicU64 = AtomicU64::new(0);
/// From index to attachment.
static TABLE: [AtomicPtr<Attachment>; INDICES as usize] =
    [const { AtomicPtr::new(ptr::null_mut()) }; INDICES as usize];
/// From key to identifier: `key << 32 | identifier`, + 1; what this process found out lately.
static KEYS: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];

/// Attachments out of the table, waiting to be unmapped.
struct Retired {
    waiting: [*const Attachment; 64],
    /// Where the sweep for queues that others removed goes on.
    swept: u32,
}

// SAFETY: the pointers are to attachments, which live for ever (invariant 1).
unsafe impl Send for Retired {}

#[unsafe(link_section = ".data.usysv")]
static RETIRED: Mutex<Retired> = Mutex::new(Retired { waiting: [ptr::null(); 64], swept: 0 });

/// A queue in use by the calling thread: it stays mapped.
pub struct Attached {
    attachment: &'static Attachment,
    /// The frame that says so.
    frame: u8,
}

impl Attached {
    /// Announces the use of an attachment and checks that the table still names it.
    #[inline(always)]
    fn announce(attachment: *mut Attachment, id: u32, caller: Caller) -> Option<Attached> {
        let frame = caller.open_frame(attachment.expose_provenance())?;
        // SAFETY: by invariant 1 a pointer to an attachment stays one.
        let attached = Attached { attachment: unsafe { &*attachment }, frame };
        let place = TABLE.get(index_of(id) as usize)?;
        // Acquire: who sees the table's entry sees the mapping.
        let named = place.load(Ordering::Acquire) == attachment;
        let same = attached.attachment.id.load(Ordering::Acquire) == u64::from(id) + 1;
        (named && same).then_some(attached)
    }

    /// The frame that names it.
    #[inline(always)]
    pub fn frame(&self) -> u8 {
        self.frame
    }

    /// Its identifier.
    #[inline]
    pub fn id(&self) -> u32 {
        self.attachment.id()
    }

    /// What the process keeps about it.
    #[inline(always)]
    pub fn attachment(&self) -> &'static Attachment {
        self.attachment
    }

    /// Its memory.
    #[inline(always)]
    pub fn mapping(&self) -> &Mapping {
        &self.attachment.mapping
    }

    /// What a thread's frames know it by.
    #[inline(always)]
    pub fn object(&self) -> usize {
        ptr::from_ref(self.attachment).expose_provenance()
    }

    /// Which file it is.
    pub fn inode(&self) -> (u64, u64) {
        let relaxed = Ordering::Relaxed;
        (self.attachment.device.load(relaxed), self.attachment.inode.load(relaxed))
    }

    /// Whether the files, where they still have their names, are as long as they were. One that somebody has cut
    /// must not be touched any more: that would be a SIGBUS.
    #[cold]
    pub fn is_whole(&self) -> bool {
        let longer = |path: Option<Path>, least: u64| {
            let there = path.and_then(|path| file::look_up(&path).ok());
            there.map(|there| (there.inode, there.size >= least))
        };
        match longer(queue_path(index_of(self.id())), layout::ARENA) {
            Some((inode, long)) if inode == self.inode() => {
                let least = layout::ARENA + FIRST_GRANULES as u64;
                long && longer(body_path(self.id()), least).is_none_or(|(_, long)| long)
            }
            // Removed, or out of sight.
            _ => true,
        }
    }

    /// Remembers that this is the queue of a key.
    pub fn remember(&self, key: i32) {
        // Relaxed: checked at each use.
        key_place(key).store((u64::from(key as u32) << 32 | u64::from(self.id())) + 1, Ordering::Relaxed);
    }
}

impl Drop for Attached {
    #[inline(always)]
    fn drop(&mut self) {
        thread::with_lane(|_, lane| lane.pop(self.frame));
    }
}

fn key_place(key: i32) -> &'static AtomicU64 {
    let hash = (key as u32).wrapping_mul(0x9e37_79b1) >> 24;
    &KEYS[hash as usize]
}

/// The queue that this process last knew a key by, if it still is.
pub fn remembered(key: i32) -> Option<Attached> {
    // Relaxed: a hint, checked right now.
    let known = key_place(key).load(Ordering::Relaxed).checked_sub(1)?;
    if (known >> 32) as u32 != key as u32 {
        return None;
    }
    let attached = attached(known as u32)?;
    let alive = attached.queue().settings().is_ok_and(|settings| settings.key == key);
    alive.then_some(attached)
}

/// In the child of a fork that a handler made in the middle of operations: what they work on is not shared any
/// more, and calls made from now on map their queues anew.
pub extern "C" fn after_fork() {
    thread::disown(|object| {
        let attachment = ptr::with_exposed_provenance_mut::<Attachment>(object);
        // SAFETY: frames only ever hold the addresses of attachments; by invariant 1 that is one.
        let there = unsafe { &*attachment };
        there.mapping.disown();
        if let Some(id) = there.id.load(Ordering::Relaxed).checked_sub(1)
            && let Some(place) = TABLE.get(index_of(id as u32) as usize)
        {
            // Relaxed: there is one thread here.
            let _ = place.compare_exchange(attachment, ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed);
        }
        // The operations still use it, and their frames are the parent's: nothing is unmapped any more.
        frames::show_no_more();
    });
}

/// The queue of an identifier, if this process has it mapped.
pub fn attached(id: u32) -> Option<Attached> {
    attached_as(id, caller())
}

/// The same for who knows the caller.
#[inline(always)]
fn attached_as(id: u32, caller: Caller) -> Option<Attached> {
    let place = TABLE.get(index_of(id) as usize)?;
    // Acquire: pairs with the publication in `publish`.
    let attachment = place.load(Ordering::Acquire);
    if attachment.is_null() {
        return None;
    }
    Attached::announce(attachment, id, caller)
}

/// The queue of an identifier. `EINVAL` if there is none, `EACCES` if this process may not open it.
pub fn attach(id: u32) -> Result<Attached, Errno> {
    attach_as(id, caller())
}

/// The same for who knows the caller.
#[inline(always)]
pub fn attach_as(id: u32, caller: Caller) -> Result<Attached, Errno> {
    get_ready(caller)?;
    match attached_as(id, caller) {
        Some(attached) => Ok(attached),
        None => held_back(|| attach_file(index_of(id), Some(id), None)),
    }
}

/// To be asked where what is not in use after all is looked for in the directory: a call that lost it by a fork in its
/// middle (see [`after_fork`]) is made again, and may not succeed before that. Nobody sees the error.
#[cold]
pub fn begin_anew() -> Result<(), Errno> {
    if caller().is_disowned() { Err(Errno::EIDRM) } else { Ok(()) }
}

/// The queue of an identifier that a key's link names; `EINVAL` as well if it is somebody else's and does not say that
/// it has that key: the link was made by anybody, who may only think that we would map it.
pub fn attach_named(_: &HeldBack, id: u32, key: i32) -> Result<Attached, Errno> {
    let caller = caller();
    get_ready(caller)?;
    match if any() { attached_as(id, caller) } else { None } {
        Some(attached) => Ok(attached),
        None => attach_file(index_of(id), Some(id), Some(key)),
    }
}

/// Heals what this thread left, before it attaches anything.
#[inline(always)]
fn get_ready(caller: Caller) -> Result<(), Errno> {
    if caller.lane().is_busy() {
        recover(caller);
        if caller.lane().is_full() {
            return Err(Errno::ENOMEM);
        }
    }
    Ok(())
}

/// Whether this process has a queue mapped at an index.
pub fn is_attached(index: u32) -> bool {
    TABLE.get(index as usize).is_some_and(|place| !place.load(Ordering::Acquire).is_null())
}

/// The queue at an index, whatever its identifier.
#[cold]
pub fn attach_index(index: u32) -> Result<Attached, Errno> {
    let there = TABLE.get(index as usize).ok_or(Errno::EINVAL)?.load(Ordering::Acquire);
    if !there.is_null() {
        // SAFETY: by invariant 1.
        let id = unsafe { &*there }.id.load(Ordering::Acquire);
        if let Some(attached) = id.checked_sub(1).and_then(|id| attached(id as u32))
            && !attached.queue().is_removed()
        {
            return Ok(attached);
        }
    }
    held_back(|| attach_file(index, None, None))
}

/// Heals what this thread left by siglongjmp, wherever it was.
#[cold]
#[inline(never)]
fn recover(caller: Caller) {
    for _ in 0..frames::DEPTH {
        let Some((number, frame)) = caller.lane().abandoned(caller.stack()) else { return };
        let object = frame.object();
        if object == 0 {
            caller.lane().pop(number);
            continue;
        }
        // SAFETY: frames only ever hold the addresses of attachments; by invariant 1 that is one. As long as the frame
        // names it, it stays mapped.
        let mapping = unsafe { &(*ptr::with_exposed_provenance::<Attachment>(object)).mapping };
        if mapping.is_mapped() {
            // Drops the frame as well; the one below it may be of another queue.
            Queue::new(mapping, object).recover(caller.stack());
        } else {
            caller.lane().pop(number);
        }
    }
}

fn open_errno(errno: Errno) -> Errno {
    match errno {
        Errno::EACCES | Errno::EPERM | Errno::EROFS => Errno::EACCES,
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => Errno::ENOMEM,
        _ => Errno::EINVAL,
    }
}

fn open(path: Option<Path>, flags: c_int, least: u64) -> Result<(Fd, file::Metadata), Errno> {
    let fd = file::open(&path.ok_or(Errno::EINVAL)?, flags, 0).map_err(open_errno)?;
    let there = file::status(&fd)?;
    if there.regular && there.size >= least { Ok((fd, there)) } else { Err(Errno::EINVAL) }
}

/// Looks at a copy of the control file of the queue at an index: `visit` gets its identifier, the copy, and
/// what brings a range of it up to date. Nothing is mapped: whoever owns the file may truncate it meanwhile, and
/// that must not hurt somebody who only comes by.
#[inline(never)]
fn read_control<R>(
    index: u32,
    visit: impl FnOnce(u32, &Mapping, &dyn Fn(u64, u64) -> Result<(), Errno>) -> R,
) -> Result<R, Errno> {
    let (fd, _) = open(queue_path(index), libc::O_RDONLY, layout::ARENA)?;
    let copy = Mapping::of_copy()?;
    let fetch = |offset, length| copy.fetch(fd.number(), offset, length);
    let identified = fetch(0, queue::IDENTITY as u64).and_then(|()| queue::identify(&copy));
    let result = match identified {
        Ok(id) if index_of(id) == index => Ok(visit(id, &copy, &fetch)),
        _ => Err(Errno::EINVAL),
    };
    // SAFETY: mapped just now, seen by nobody else.
    unsafe { copy.unmap() };
    result
}

/// Identifier and status of the queue at an index, as far as everybody may see it, whatever its stage.
pub fn observe(index: u32) -> Result<(u32, Status, Stage), Errno> {
    read_control(index, |id, copy, fetch| {
        queue::glimpse(copy, fetch).map(|(status, stage)| (id, status, stage))
    })?
}

/// Identifier and status of the queue at an index, as far as everybody may see it.
pub fn glimpse(index: u32) -> Result<(u32, Status), Errno> {
    match held_back(|| observe(index))? {
        (id, status, Stage::Alive) => Ok((id, status)),
        _ => Err(Errno::EINVAL),
    }
}

/// Whether what lies at an index belongs to another user. Such a queue is mapped only when it is asked for, by
/// identifier or by its key: who has a mapping is at the mercy of whoever may truncate the file.
pub fn is_foreign(index: u32) -> bool {
    let path = queue_path(index);
    path.is_some_and(|path| file::look_up(&path).is_ok_and(|there| there.uid != credentials::euid()))
}

/// Whether a body goes with a control file. Where the system lets everybody make hard links to everything
/// (`fs.protected_hardlinks`), the name may be one for a file of somebody else, in which nobody must write.
pub fn go_together(control: &file::Metadata, body: &file::Metadata) -> bool {
    control.uid == body.uid || body.links == 1
}

/// Identifier and outline of the queue at an index, as far as everybody may see it.
pub fn outline(index: u32) -> Result<(u32, Outline), Errno> {
    held_back(|| read_control(index, |id, copy, fetch| Ok((id, queue::inspect::outline(copy, fetch)?))))?
}

/// Whether this process has ever attached a queue.
pub fn any() -> bool {
    // Relaxed: the number alone.
    TAKEN.load(Ordering::Relaxed) != 0
}

/// Maps the queue at an index, if its files are ours. With a key, one of somebody else only if it says that it has it.
#[inline(never)]
fn map_index(index: u32, key: Option<i32>) -> Result<(Mapping, u32, (u64, u64)), Errno> {
    let (control, there) = open(queue_path(index), libc::O_RDWR, layout::ARENA)?;
    if let Some(key) = key
        && there.uid != credentials::euid()
        && observe(index)?.1.configuration.key != key
    {
        return Err(Errno::EINVAL);
    }
    // Before anything of it is mapped.
    let mut first = [0; queue::IDENTITY];
    let id = queue::identify_bytes(file::read(&control, &mut first)?)?;
    if index_of(id) != index {
        return Err(Errno::EINVAL);
    }
    let least = layout::ARENA + FIRST_GRANULES as u64;
    let (body, inside) = open(body_path(id), libc::O_RDWR, least)?;
    if !go_together(&there, &inside) {
        return Err(Errno::EINVAL);
    }
    let mapping = Mapping::of_files(control.number(), body.number())?;
    if queue::identify(&mapping) == Ok(id) {
        return Ok((mapping, id, there.inode));
    }
    // SAFETY: mapped just now, seen by nobody else.
    unsafe { mapping.unmap() };
    Err(Errno::EINVAL)
}

/// Lets `visit` see the control file at an index as a queue that is not in the table: its body may be
/// missing, if its creator or remover died half-way: of a queue that is removed it must not be looked at. Only one
/// of our own: what is done there needs a mapping ([`is_foreign`]), and others' names are not ours to remove.
pub fn inspect(index: u32, visit: impl FnOnce(&Queue, u32, (u64, u64))) -> Result<(), Errno> {
    held_back(|| inspect_file(index, visit))
}

#[inline(never)]
fn inspect_file(index: u32, visit: impl FnOnce(&Queue, u32, (u64, u64))) -> Result<(), Errno> {
    let (control, there) = open(queue_path(index), libc::O_RDWR, layout::ARENA)?;
    if there.uid != credentials::euid() {
        return Err(Errno::EACCES);
    }
    let mapping = Mapping::without_body(control.number())?;
    // If it proves to have been born meanwhile, the body is there, and may be needed.
    let body = queue::identify(&mapping)
        .and_then(|id| open(body_path(id), libc::O_RDWR, layout::ARENA + FIRST_GRANULES as u64))
        .and_then(|(body, _)| mapping.add_body(body.number()));
    if body == Err(Errno::ENOMEM) {
        // SAFETY: mapped just now, seen by nobody else.
        unsafe { mapping.unmap() };
        return Err(Errno::ENOMEM);
    }
    let Some((number, attachment)) = take_attachment() else {
        // SAFETY: mapped just now, seen by nobody else.
        unsafe { mapping.unmap() };
        return Err(Errno::ENOMEM);
    };
    attachment.mapping.adopt(mapping);
    if let Ok(id) = queue::identify(&attachment.mapping)
        && index_of(id) == index
    {
        let object = ptr::from_ref(attachment).expose_provenance();
        visit(&Queue::new(&attachment.mapping, object), id, there.inode);
    }
    give_back(number, attachment);
    Ok(())
}

#[cold]
#[inline(never)]
fn attach_file(index: u32, wanted: Option<u32>, key: Option<i32>) -> Result<Attached, Errno> {
    begin_anew()?;
    sweep();
    let (mapping, id, inode) = match map_index(index, key) {
        // One that we may not open answers so only if it is a queue, and to its own identifier. Nor does one
        // that is gone, by one who could not take its names away.
        Err(Errno::EACCES) => {
            let (there, _, stage) = observe(index)?;
            let is_it = stage != Stage::Removed && wanted.is_none_or(|id| id == there);
            return Err(if is_it { Errno::EACCES } else { Errno::EINVAL });
        }
        mapped => mapped?,
    };
    if wanted.is_some_and(|wanted| wanted != id) {
        // SAFETY: mapped just now, seen by nobody else.
        unsafe { mapping.unmap() };
        return Err(Errno::EINVAL);
    }
    adopt(mapping, id, inode)
}

/// Makes a queue: files that get the first names among `candidates` that are free. It is not
/// [born](Queue::bear) yet; the seat is its creator's, whose death others can see by it.
#[inline(never)]
pub fn make(
    settings: &Configuration,
    candidates: &mut dyn Iterator<Item = u32>,
) -> Result<(Attached, Seat<'static>), Errno> {
    sweep();
    let longest = file::longest();
    let mut control = Draft::new(directory::mode(File::Control, settings))?;
    let made = fill(&control, settings, longest).and_then(|(mapping, inode)| {
        let Some((number, attachment)) = take_attachment() else {
            // SAFETY: mapped just now, seen by nobody else.
            unsafe { mapping.unmap() };
            return Err(Errno::ENOMEM);
        };
        attachment.mapping.adopt(mapping);
        let queue = Queue::new(&attachment.mapping, ptr::from_ref(attachment).expose_provenance());
        let made = queue.enter_as_creator().and_then(|seat| {
            match name(&mut control, &attachment.mapping, settings, longest, candidates) {
                Ok(id) => publish(number, attachment, id, inode).map(|attached| (attached, seat)),
                Err(errno) => {
                    seat.release();
                    Err(errno)
                }
            }
        });
        if made.is_err() {
            give_back(number, attachment);
        }
        made
    });
    if made.is_err() {
        control.discard();
    }
    made
}

/// A queue just made, as its creator's seat knows it.
pub fn lasting(attached: &Attached) -> Queue<'static> {
    Queue::new(&attached.attachment.mapping, attached.object())
}

/// Gives a new queue its names: the control file first, by which all else is found and, if need be, buried.
#[inline(never)]
fn name(
    control: &mut Draft,
    mapping: &Mapping,
    settings: &Configuration,
    longest: u64,
    candidates: &mut dyn Iterator<Item = u32>,
) -> Result<u32, Errno> {
    /// How many that are in the way are looked at more closely.
    const FEW: u32 = 2;
    let mut met = 0;
    for id in candidates {
        let path = queue_path(index_of(id)).ok_or(Errno::ENOSPC)?;
        if let Some(word) = mapping.word(layout::superblock::ID) {
            // Relaxed: nobody else sees it before it has its name.
            word.store(u64::from(id), Ordering::Relaxed);
        }
        let mut named = control.publish(&path);
        if named == Err(Errno::EEXIST) && met < FEW {
            met += 1;
            super::tidy(index_of(id));
            named = control.publish(&path);
        }
        match named {
            Ok(()) => {}
            Err(Errno::EEXIST) => continue,
            Err(errno) => return Err(errno),
        }
        match make_body(id, mapping, settings, longest) {
            Ok(()) => return Ok(id),
            Err(errno) => {
                control.withdraw(&path)?;
                if errno != Errno::EEXIST {
                    return Err(errno);
                }
            }
        }
    }
    Err(Errno::ENOSPC)
}

/// Makes the body of a queue whose control file has its name: where it lies it counts for nothing until the queue
/// is born, so it need not be complete before it has a name too.
#[inline(never)]
fn make_body(id: u32, mapping: &Mapping, settings: &Configuration, longest: u64) -> Result<(), Errno> {
    let path = body_path(id).ok_or(Errno::ENOSPC)?;
    let body = file::create(&path, 0o600).or_else(|errno| {
        if errno != Errno::EEXIST {
            return Err(in_words_of_msgget(errno));
        }
        // Left over: the queue with that identifier would be where we are.
        let _ = file::remove(&path);
        file::create(&path, 0o600).map_err(in_words_of_msgget)
    })?;
    let fill = || {
        set_access(&body, File::Body, settings)?;
        file::stretch(&body, layout::ARENA + FIRST_GRANULES as u64, layout::FILE, longest)?;
        let reserved = file::reserve(&body, layout::ARENA, FIRST_GRANULES as u64);
        mapping.add_body(body.number())?;
        if reserved { Ok(()) } else { mapping.reserve(layout::ARENA, FIRST_GRANULES as u64) }
    };
    let filled = fill();
    if filled.is_err() {
        let _ = file::remove(&path);
    }
    filled
}

/// Writes the control file of a new queue; also returns which file it is.
#[inline(never)]
fn fill(control: &Draft, settings: &Configuration, longest: u64) -> Result<(Mapping, (u64, u64)), Errno> {
    let there = set_access(control.fd(), File::Control, settings)?;
    file::stretch(control.fd(), layout::ARENA, layout::ARENA, longest)?;
    let mapping = Mapping::without_body(control.fd().number())?;
    if let Err(errno) = mapping.reserve(0, FIRST_PAGE as u64) {
        // SAFETY: mapped just now, seen by nobody else.
        unsafe { mapping.unmap() };
        return Err(errno);
    }
    queue::format(0, settings, |offset, value| {
        if let Some(word) = mapping.word(offset) {
            // Relaxed: nobody else sees the file before it has its name.
            word.store(value, Ordering::Relaxed);
        }
    });
    Ok((mapping, there.inode))
}

/// The attachment of a number below [`TAKEN`].
fn pooled(number: u32) -> Option<&'static Attachment> {
    if let Some(attachment) = FIRST.get(number as usize) {
        return Some(attachment);
    }
    let chunk = POOL.get(number as usize / CHUNK)?.load(Ordering::Acquire);
    if chunk.is_null() {
        return None;
    }
    // SAFETY: a chunk holds that many attachments, and stays (invariant 1).
    Some(unsafe { &*chunk.add(number as usize % CHUNK) })
}

fn take_attachment() -> Option<(u32, &'static Attachment)> {
    let mut free = FREE.load(Ordering::Acquire);
    while let Some(number) = (free as u32).checked_sub(1) {
        let attachment = pooled(number)?;
        let next = u64::from(attachment.next_free.load(Ordering::Relaxed));
        let after = (free >> 32).wrapping_add(1) << 32 | next;
        // AcqRel: what was done with it before it was freed is over.
        match FREE.compare_exchange_weak(free, after, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some((number, attachment)),
            Err(now) => free = now,
        }
    }
    // Relaxed: the number alone is taken here.
    let number = TAKEN.fetch_add(1, Ordering::Relaxed);
    if let Some(attachment) = FIRST.get(number as usize) {
        return Some((number, attachment));
    }
    let place = POOL.get(number as usize / CHUNK)?;
    if place.load(Ordering::Acquire).is_null() {
        let length = CHUNK * size_of::<Attachment>();
        let chunk = memory::map_anonymous(length).ok()?.cast();
        // AcqRel: who sees the chunk sees its zeros, which are free attachments.
        if place.compare_exchange(ptr::null_mut(), chunk, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: mapped just now, seen by nobody else.
            unsafe { memory::unmap(chunk.cast(), length) };
        }
    }
    Some((number, pooled(number)?))
}

fn free_attachment(number: u32, attachment: &Attachment) {
    let mut free = FREE.load(Ordering::Relaxed);
    loop {
        attachment.next_free.store(free as u32, Ordering::Relaxed);
        let after = (free >> 32).wrapping_add(1) << 32 | u64::from(number + 1);
        // Release: what was done with it is over.
        match FREE.compare_exchange_weak(free, after, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => free = now,
        }
    }
}

/// Unmaps an attachment that is not in the table, and frees it.
fn give_back(number: u32, attachment: &Attachment) {
    attachment.id.store(0, Ordering::Release);
    // SAFETY: not in the table, so nobody else uses it.
    unsafe { attachment.mapping.unmap() };
    free_attachment(number, attachment);
}

/// Puts a mapping into the table. If another thread was faster, or a signal handler, theirs is used.
fn adopt(mapping: Mapping, id: u32, inode: (u64, u64)) -> Result<Attached, Errno> {
    let Some((number, attachment)) = take_attachment() else {
        // SAFETY: not in the table, so nobody else uses it.
        unsafe { mapping.unmap() };
        return Err(Errno::ENOMEM);
    };
    attachment.mapping.adopt(mapping);
    publish(number, attachment, id, inode)
}

/// See [`adopt`].
#[inline(never)]
fn publish(
    number: u32,
    attachment: &'static Attachment,
    id: u32,
    inode: (u64, u64),
) -> Result<Attached, Errno> {
    attachment.device.store(inode.0, Ordering::Relaxed);
    attachment.inode.store(inode.1, Ordering::Relaxed);
    attachment.decision.store(0, Ordering::Relaxed);
    attachment.patience.store(0, Ordering::Relaxed);
    attachment.courtesy.store(0, Ordering::Relaxed);
    // Release: with the identifier the rest is visible.
    attachment.id.store(u64::from(id) + 1, Ordering::Release);
    let place = TABLE.get(index_of(id) as usize).ok_or(Errno::EINVAL)?;
    let mine = ptr::from_ref(attachment).cast_mut();
    // Usually there is none, and to look first would cost a page fault more.
    let mut there = ptr::null_mut();
    // AcqRel: who finds the attachment in the table finds it complete.
    while let Err(found) = place.compare_exchange(there, mine, Ordering::AcqRel, Ordering::Acquire) {
        there = found;
        if there.is_null() {
            continue;
        }
        // SAFETY: by invariant 1.
        let other = unsafe { &*there };
        if other.id.load(Ordering::Acquire) == u64::from(id) + 1
            && let Some(attached) = Attached::announce(there, id, caller())
            && attached.inode() == inode
        {
            give_back(number, attachment);
            return Ok(attached);
        }
    }
    if !there.is_null() {
        retire(there);
    }
    Attached::announce(mine, id, caller()).ok_or(Errno::EINVAL)
}

/// Takes a queue that is gone out of the table; it is unmapped when nobody uses it any more.
pub fn detach(attached: Attached) {
    let attachment = ptr::from_ref(attached.attachment).cast_mut();
    let index = index_of(attached.id());
    drop(attached);
    take_out(index, attachment);
}

fn take_out(index: u32, attachment: *mut Attachment) {
    let Some(place) = TABLE.get(index as usize) else { return };
    // AcqRel: by invariant 2, out of the table before the announcements are looked at.
    if place.compare_exchange(attachment, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        retire(attachment);
    }
}

/// The lock of the retired, if it can be had at once (invariant 3).
fn retired() -> Option<parking_lot::MutexGuard<'static, Retired>> {
    let generation = process::generation();
    static HOLDER: AtomicU64 = AtomicU64::new(0);
    let guard = RETIRED.try_lock().or_else(|| {
        let holder = HOLDER.load(Ordering::Relaxed);
        if holder == 0 || holder == generation {
            return None;
        }
        // SAFETY: the lock was held when this process was forked, by a thread that does not exist here.
        unsafe { RETIRED.force_unlock() };
        RETIRED.try_lock()
    });
    let guard = guard?;
    HOLDER.store(generation, Ordering::Relaxed);
    Some(guard)
}

/// Keeps an attachment that left the table until it can be unmapped. With no room for it, it stays mapped.
#[inline(never)]
fn retire(attachment: *mut Attachment) {
    let Some(mut retired) = retired() else { return };
    if !retired.waiting.iter().any(|place| place.is_null()) {
        release_unused(&mut retired);
    }
    if let Some(place) = retired.waiting.iter_mut().find(|place| place.is_null()) {
        *place = attachment;
    }
    release_unused(&mut retired);
}

/// Unmaps what is retired and announced by nobody.
fn release_unused(retired: &mut Retired) {
    if !frames::all_are_shown() || !memory::process_barrier() {
        return;
    }
    for place in &mut retired.waiting {
        if place.is_null() || frames::is_used(place.addr()) {
            continue;
        }
        // SAFETY: by invariant 1.
        let attachment = unsafe { &**place };
        attachment.id.store(0, Ordering::Release);
        // SAFETY: by invariant 2 no thread uses it, and none can find it any more.
        unsafe { attachment.mapping.unmap() };
        if let Some(number) = number_of(attachment) {
            free_attachment(number, attachment);
        }
        *place = ptr::null();
    }
}

fn number_of(attachment: &Attachment) -> Option<u32> {
    let taken = TAKEN.load(Ordering::Relaxed).min((CHUNK * CHUNKS) as u32);
    (0..taken.div_ceil(CHUNK as u32)).find_map(|chunk| {
        let first = ptr::from_ref(pooled(chunk * CHUNK as u32)?).addr();
        let offset = ptr::from_ref(attachment).addr().checked_sub(first)?;
        let place = offset / size_of::<Attachment>();
        (place < CHUNK).then_some(chunk * CHUNK as u32 + place as u32)
    })
}

/// Looks at a few attachments, in turn: queues that others have removed are unmapped, so that a server
/// whose clients come and go does not keep all their queues.
#[inline(never)]
fn sweep() {
    const FEW: u32 = 4;
    let Some(mut retired) = retired() else { return };
    let taken = TAKEN.load(Ordering::Relaxed).min((CHUNK * CHUNKS) as u32);
    let from = retired.swept;
    retired.swept = if taken == 0 { 0 } else { (from + FEW) % taken };
    drop(retired);
    for number in from..(from + FEW).min(taken) {
        let Some(attachment) = pooled(number) else { return };
        let Some(id) = attachment.id.load(Ordering::Acquire).checked_sub(1) else { continue };
        let mine = ptr::from_ref(attachment).cast_mut();
        if let Some(attached) = Attached::announce(mine, id as u32, caller())
            && Queue::new(attached.mapping(), attached.object()).is_removed()
        {
            drop(attached);
            take_out(index_of(id as u32), mine);
        }
    }
}
