//! Where to look for the next free index, as the kernel would choose it.
//!
//! The kernel hands out indices cyclically and raises `seq` when it wraps (`ipc/util.c`, `ipc_idr_alloc`);
//! a file in the namespace remembers how far that has come, and about how many queues there are. It is
//! read and written in one piece by system calls, never mapped, and it is a hint: whether an index is free
//! is decided by the file system, and near the limit the queues are counted. A lost or forged hint costs
//! time, or an identifier that comes again sooner than it should; no queue.

use super::directory::{self, hints_path};
use super::{INDICES, index_of};
use crate::os::clock;
use crate::os::errno::Errno;
use crate::os::file::{self, Fd, Path};

const MAGIC: u32 = u32::from_le_bytes(*b"usns");
/// How often queues are counted, so that lost updates do not add up.
const RECOUNT: u32 = 128;
/// Seconds after which a queue being made has been abandoned.
const ABANDONED: i64 = 60;
/// The kernel's `IPC_MIN_CYCLE`: indices come again after as many, at the earliest.
const MIN_CYCLE: u32 = 64;
/// The kernel's `ipcid_seq_max`.
const SEQUENCES: u32 = (1 << 16) - 1;

/// The hints, as read, and the file that they came from, open until they are dropped.
pub struct Hints {
    words: Words,
    file: Option<Fd>,
}

#[derive(Clone, Copy)]
struct Words {
    /// The index given last, + 1.
    next: u32,
    seq: u32,
    queues: u32,
    /// Creations since the queues were counted.
    since: u32,
    /// Index + 1 of a queue whose names somebody is removing; 0 if nobody is.
    suspect: u32,
}

/// A number of queues near enough to the limit that it must be exact.
fn is_close(queues: u32, limit: u32) -> bool {
    queues.saturating_add(RECOUNT) >= limit
}

impl Hints {
    /// Reads the hints.
    #[inline(never)]
    pub fn read() -> Hints {
        let mut place = [0u8; 24];
        let read = hints_path().and_then(|path| {
            // To be written as well, so that it is opened once; where that is not allowed, to be read.
            let (fd, ours) = match file::open(&path, libc::O_RDWR, 0) {
                Ok(fd) => (fd, true),
                Err(_) => (file::open(&path, libc::O_RDONLY, 0).ok()?, false),
            };
            let read = file::read(&fd, &mut place).ok()?;
            let mut words = [0u32; 6];
            for (word, bytes) in words.iter_mut().zip(read.chunks_exact(4)) {
                *word = u32::from_le_bytes(bytes.try_into().ok()?);
            }
            // Nothing else is written to: see `is_for_hints`.
            let ours = ours && read.len() == 24;
            (words[0] == MAGIC).then_some((words, ours.then_some(fd)))
        });
        match read {
            Some(([_, next, seq, queues, since, suspect], file)) => {
                let (next, seq) = (next % (INDICES + 1), seq % SEQUENCES);
                Hints { words: Words { next, seq, queues, since, suspect }, file }
            }
            None => {
                let words = Words { next: 0, seq: 0, queues: 0, since: RECOUNT, suspect: 0 };
                Hints { words, file: None }
            }
        }
    }

    #[inline(never)]
    fn write(&self, words: Words) {
        let mut bytes = [0u8; 24];
        let words = [MAGIC, words.next, words.seq, words.queues, words.since, words.suspect];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        if let Some(fd) = &self.file {
            let _ = file::overwrite(fd, &bytes);
            return;
        }
        let Some(path) = hints_path() else { return };
        // Without O_CREAT first: where `fs.protected_regular` is set, it would fail on another's file.
        let fd = file::open(&path, libc::O_RDWR, 0).or_else(|_| {
            let fd = file::open(&path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o666)?;
            file::set_mode(&fd, 0o666)?;
            Ok::<_, Errno>(fd)
        });
        if let Ok(fd) = fd
            && is_for_hints(&fd)
        {
            let _ = file::overwrite(&fd, &bytes);
        }
    }

    /// About how many queues there are; exactly, if that is near `limit`.
    pub fn queues(&self, limit: u32) -> Result<u32, Errno> {
        if self.words.since < RECOUNT && !is_close(self.words.queues, limit) {
            return Ok(self.words.queues);
        }
        count()
    }

    /// The identifiers to try, in the kernel's order; each is as good as the file system finds it.
    pub fn candidates(&self, queues: u32) -> impl Iterator<Item = u32> + use<> {
        let cycle = (queues.saturating_mul(3) / 2).clamp(MIN_CYCLE, INDICES);
        let (first, seq) = (self.words.next, self.words.seq);
        let wrapped = (seq + 1) % SEQUENCES;
        let before = (first..cycle.max(first)).map(move |index| (seq, index));
        // Everything beyond the cycle comes last: the hint may be wrong.
        let after = (0..first.min(cycle)).chain(cycle..INDICES).map(move |index| (wrapped, index));
        before.chain(after).map(|(seq, index)| seq << 15 | index)
    }

    /// Notes that a queue was created; without its identifier if that was not of our choice.
    pub fn note(&self, id: Option<u32>, queues: u32) {
        let since =
            if queues == self.words.queues.wrapping_add(1) { self.words.since.saturating_add(1) } else { 0 };
        let since = if self.words.since >= RECOUNT { 0 } else { since };
        let suspect = self.words.suspect;
        let given = id.map_or((self.words.next, self.words.seq), |id| (index_of(id) + 1, id / INDICES));
        self.write(Words { next: given.0, seq: given.1, queues, since, suspect });
    }

    /// Notes that a queue is about to be removed, and its names.
    pub fn note_removing(&self, id: u32) {
        self.write(Words { suspect: index_of(id) + 1, ..self.words });
    }

    /// Notes that they are, or that the queue stays. What was suspect before still is: a handler may have
    /// interrupted the removal of the same queue.
    pub fn note_end(&self, removed: bool) {
        self.write(Words { queues: self.words.queues.saturating_sub(removed.into()), ..self.words });
    }

    /// Looks after a queue whose remover may have died in the middle of it.
    pub fn check_suspect(&mut self) {
        let Some(index) = self.words.suspect.checked_sub(1).filter(|&index| index < INDICES) else { return };
        let Some(path) = directory::queue_path(index) else { return };
        if file::look_up(&path).is_ok() {
            super::tidy(index);
        }
        if file::look_up(&path).is_err() {
            self.words.suspect = 0;
        }
    }
}

/// Whether hints may be written there: where the system lets everybody make hard links to everything, the name
/// may be one for a file that means something else to somebody.
fn is_for_hints(fd: &file::Fd) -> bool {
    let mut place = [0u8; 24];
    match file::read(fd, &mut place) {
        Ok([]) => file::status(fd).is_ok_and(|there| there.regular && there.links == 1),
        Ok(read) => read.len() == 24 && read.starts_with(&MAGIC.to_le_bytes()),
        Err(_) => false,
    }
}

/// Whether a name is that of a body without a queue.
fn is_stray_body(name: &[u8]) -> bool {
    let id = name.strip_prefix(directory::BODY).and_then(directory::parse);
    id.and_then(|id| directory::queue_path(index_of(id)))
        .is_some_and(|path| file::look_up(&path) == Err(Errno::ENOENT))
}

/// Counts the queues; sweeps away what was being made by somebody who did not live to finish.
#[inline(never)]
fn count() -> Result<u32, Errno> {
    let mut queues = 0;
    let now = clock::seconds() as i64;
    directory::list(|name| {
        if name.starts_with(directory::QUEUE) {
            queues += 1;
        } else if (name.starts_with(directory::SCRATCH) || is_stray_body(name))
            && let Some(path) = Path::new(&[directory::directory().bytes(), b"/", name])
            && file::look_up(&path).is_ok_and(|there| now - there.changed > ABANDONED)
        {
            let _ = file::remove(&path);
        }
    })?;
    Ok(queues)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_come_as_from_the_kernel() {
        let ids = |next, seq, queues| {
            let hints = Hints { words: Words { next, seq, queues, since: 0, suspect: 0 }, file: None };
            hints.candidates(queues).take(3).collect::<Vec<_>>()
        };
        assert_eq!(ids(0, 0, 0), [0, 1, 2]);
        assert_eq!(ids(5, 3, 2), [3 << 15 | 5, 3 << 15 | 6, 3 << 15 | 7]);
        assert_eq!(ids(63, 0, 2), [63, 1 << 15, 1 << 15 | 1], "64 at least make a cycle");
        assert_eq!(ids(64, SEQUENCES - 1, 2), [0, 1, 2], "the last seq is followed by 0");
        assert_eq!(ids(99, 0, 100), [99, 100, 101], "one and a half times the queues make a cycle");
    }
}
