//! The limits that a namespace sets for itself, as the kernel's stand in `/proc/sys/kernel`.
//!
//! | name in the directory | what it is                                                                        |
//! |-----------------------|-----------------------------------------------------------------------------------|
//! | `usysv.limits`        | says that one of the following may be there: one look tells that there is nothing |
//! | `usysv.msgmax`, ...   | a limit, as text                                                                  |
//!
//! A program that opens `/proc/sys/kernel/msgmax` to write to it is given such a file (`interpose::files`), and
//! what it writes there acts, though nobody of ours is called when it writes. So the file is made to be
//! overwritten: `WIDTH` characters, the value at their end, blanks before it.
//!
//! ```text
//!   opened             |                                   8192 |
//!   "100" is written   |100                                8192 |    the first that is a number within bounds
//!   "-1" is written    |-1                                 8192 |    counts: here still 8192
//! ```
//!
//! # Who is believed
//! Only a file of root's, or of the directory's owner, that nobody else may write; others cannot set limits in
//! a directory that they share (`EPERM`). But `usysv.msg_next_id` is for everybody, because whoever creates a
//! queue uses it up: a lie there costs an identifier, as one in the hints does. Nothing is mapped. Who writes
//! nonsense, or cuts a file, breaks limits and never a process.
//!
//! # When it acts
//! `msgmnb`, `msgmni` and `msg_next_id` are read when a queue is created, `msgmnb` when one is enlarged.
//!
//! `msgmax` acts on every message, and nobody reads a file for each. So each queue has a word that says what it
//! is, as somebody found it:
//!
//! | low half of the word | meaning                                                  |
//! |----------------------|----------------------------------------------------------|
//! | 0                    | not known: read the file                                 |
//! | n + 1                | `msgmax` is n                                            |
//!
//! The high half is a number that changes whenever somebody makes the low half 0. Who sets the limit does that
//! in every queue that it may open; *after* it has written, or, if it is a program that will write by itself,
//! *before* it gets the file, with a lock on the file that lasts until the program has closed it. Who finds 0
//! reads the file; if the lock is held, that is the value for this once and the word stays 0; else the word
//! is changed, unless it changed in the meantime. So no old value is put into a word after a new one can have
//! been written.
//!
//! The lock is a write lock of an open file description (fcntl(2)), on a byte that is not there: it needs write
//! access, so that nobody else can pretend to be writing, and ends with the last descriptor.

use super::directory::{self, directory};
use crate::os::clock;
use crate::os::credentials;
use crate::os::errno::Errno;
use crate::os::file::{self, Fd, Path};
use crate::os::process;
use crate::os::signals::held_back;
use core::sync::atomic::{AtomicU64, Ordering};

/// A limit that a namespace can set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// The longest text, in bytes.
    Msgmax,
    /// `msg_qbytes` of a new queue.
    Msgmnb,
    /// How many queues.
    Msgmni,
    /// The identifier of the next new queue; not a limit, but the kernel keeps it beside them.
    NextId,
}

impl Limit {
    /// Its name, as in `/proc/sys/kernel`.
    pub const fn name(self) -> &'static str {
        match self {
            Limit::Msgmax => "msgmax",
            Limit::Msgmnb => "msgmnb",
            Limit::Msgmni => "msgmni",
            Limit::NextId => "msg_next_id",
        }
    }

    /// The largest value; the smallest is 0.
    pub const fn largest(self) -> u64 {
        match self {
            Limit::Msgmni => super::INDICES as u64,
            _ => i32::MAX as u64,
        }
    }

    fn path(self) -> Option<Path> {
        directory::limit_path(self.name().as_bytes())
    }
}

/// Characters in a file, the last of which is a line end.
const WIDTH: usize = 48;
/// Where the locks lie, and how many programs may write at once.
const LOCKS: (u64, u64) = (1 << 40, 256);

/// A number as `strtoul(3)` reads it with base 0, which is how the kernel reads it.
fn number(token: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(token).ok()?;
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.starts_with('0') && text.len() > 1 => (text, 8),
        None => (text, 10),
    };
    // No sign: `from_str_radix` would take one.
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, radix).ok() }
}

/// The value in a file's text.
fn value(text: &[u8], largest: u64) -> Option<u64> {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0;
    text.split(is_blank).filter_map(number).find(|&value| value <= largest)
}

fn text(value: Option<u64>) -> [u8; WIDTH] {
    let mut text = [b' '; WIDTH];
    text[WIDTH - 1] = b'\n';
    if let Some(mut rest) = value {
        for place in text[..WIDTH - 1].iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
    }
    text
}

/// Whether any limit may be set here.
pub fn any() -> bool {
    directory::limit_path(b"limits").is_some_and(|path| file::look_up(&path).is_ok())
}

fn is_believed(limit: Limit, there: &file::Metadata) -> bool {
    let owned = || {
        let owner = file::look_up(&Path::new(&[directory().bytes(), b"/."]).unwrap_or(*directory()));
        there.uid == 0 || owner.is_ok_and(|directory| directory.uid == there.uid)
    };
    there.regular && (limit == Limit::NextId || (there.mode & 0o022 == 0 && owned()))
}

fn read(limit: Limit, fd: &Fd) -> Option<u64> {
    let mut place = [0u8; 2 * WIDTH];
    value(file::read(fd, &mut place).ok()?, limit.largest())
}

/// The limit as this namespace sets it; nothing if it does not, or nobody is to be believed. Ask [`any`] first:
/// that is one system call.
pub fn stated(limit: Limit) -> Option<u64> {
    let fd = file::open(&limit.path()?, libc::O_RDONLY, 0).ok()?;
    if is_believed(limit, &file::status(&fd).ok()?) { read(limit, &fd) } else { None }
}

/// `msgmax` as this namespace sets it, and whether a program may be changing it at this moment.
fn stated_msgmax() -> (Option<u64>, bool) {
    let limit = Limit::Msgmax;
    let nothing = (None, false);
    if !any() {
        return nothing;
    }
    let Some(fd) = limit.path().and_then(|path| file::open(&path, libc::O_RDONLY, 0).ok()) else {
        return nothing;
    };
    match file::status(&fd) {
        Ok(there) if is_believed(limit, &there) => {
            // In this order: a value read without a lock on the file is final.
            let written = file::is_locked(&fd, LOCKS.0, LOCKS.1);
            (read(limit, &fd), written)
        }
        _ => nothing,
    }
}

/// `msgmax` for a queue whose word did not allow a length; `otherwise` is asked where the namespace says
/// nothing. The word is brought up to date.
pub fn look_up_msgmax(word: &AtomicU64, otherwise: impl FnOnce() -> u64) -> u64 {
    // Relaxed, here and below: the word stands for itself; what it rests on is in files.
    let before = word.load(Ordering::Relaxed);
    let (stated, is_changing) = stated_msgmax();
    let value = stated.unwrap_or_else(otherwise).min(Limit::Msgmax.largest());
    let low = if is_changing { 0 } else { value + 1 };
    let after = before >> 32 << 32 | low;
    let _ = word.compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed);
    value
}

/// Makes the word of every queue that this process may open 0 (see the table above).
fn forget_msgmax() {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let now = clock::deadline(0);
    // Unlike any before, in all likelihood: two processes may do this at once.
    let number = (now.tv_nsec as u64) ^ (now.tv_sec as u64) << 30 ^ u64::from(process::pid()) << 8 ^ count;
    let word = (number << 32).to_le_bytes();
    let _ = super::list(|index| {
        if let Some(fd) =
            directory::queue_path(index).and_then(|path| file::open(&path, libc::O_RDWR, 0).ok())
        {
            let _ = file::write_at(&fd, &word, crate::shm::layout::superblock::MSGMAX);
        }
    });
}

/// Opens a limit's file to be written, and makes it first if need be.
fn open_file(limit: Limit) -> Result<Fd, Errno> {
    let mode = if limit == Limit::NextId { 0o666 } else { 0o644 };
    let create = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    let make = |path: &Path, mode: u32| {
        let fd = file::open(path, create, mode)?;
        // Whatever the umask.
        file::set_mode(&fd, mode)?;
        Ok(fd)
    };
    match make(&directory::limit_path(b"limits").ok_or(Errno::ENOENT)?, 0o644) {
        Ok(_) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let path = limit.path().ok_or(Errno::ENOENT)?;
    // Twice: somebody else's may be in the way.
    for _ in 0..2 {
        match file::open(&path, libc::O_RDWR, 0) {
            Ok(fd) if is_believed(limit, &file::status(&fd)?) => return Ok(fd),
            Ok(_) | Err(Errno::EACCES) => file::remove(&path)?,
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        match make(&path, mode) {
            Err(Errno::EEXIST) => {}
            made => return made,
        }
    }
    Err(Errno::EACCES)
}

/// Sets a limit of this namespace; it acts at once, in all processes. `EINVAL` if the value is too large, `EPERM`
/// if this process is neither root's nor the directory's owner's.
pub fn set(limit: Limit, value: u64) -> Result<(), Errno> {
    if value > limit.largest() {
        return Err(Errno::EINVAL);
    }
    held_back(|| {
        let here = file::look_up(&Path::new(&[directory().bytes(), b"/."]).ok_or(Errno::ENOENT)?)?;
        if limit != Limit::NextId && ![0, here.uid].contains(&credentials::euid()) {
            return Err(Errno::EPERM);
        }
        let fd = open_file(limit)?;
        file::write_at(&fd, &text(Some(value)), 0)?;
        if limit == Limit::Msgmax {
            forget_msgmax();
        }
        Ok(())
    })
}

/// A file for a program to write a limit to. It shows `shown` until then, or what it was set to, if anything.
pub fn open_to_write(limit: Limit, shown: Option<u64>) -> Result<Fd, Errno> {
    held_back(|| {
        let fd = open_file(limit)?;
        // Room is for so many; one more makes the change known late.
        let _ = file::lock(&fd, LOCKS.0, LOCKS.1);
        let before = shown.or_else(|| read(limit, &fd));
        file::write_at(&fd, &text(before), 0)?;
        file::rewind(&fd)?;
        if limit == Limit::Msgmax {
            forget_msgmax();
        }
        Ok(fd)
    })
}

/// The identifier that the next new queue shall have, if somebody said so: once.
pub fn take_next_id() -> Option<u32> {
    let fd = file::open(&Limit::NextId.path()?, libc::O_RDWR, 0).ok()?;
    let wanted =
        if is_believed(Limit::NextId, &file::status(&fd).ok()?) { read(Limit::NextId, &fd) } else { None };
    if wanted.is_some() {
        file::write_at(&fd, &text(None), 0).ok()?;
    }
    wanted.map(|id| id as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_over_the_text_counts() {
        let over = |before: Option<u64>, written: &str| {
            let mut text = text(before);
            text[..written.len()].copy_from_slice(written.as_bytes());
            value(&text, 1000)
        };
        for (before, written, after) in [
            (Some(81), "", Some(81)),
            (None, "", None),
            (Some(81), "100", Some(100)),
            (Some(81), "0\n", Some(0)),
            (Some(81), "-1\n", Some(81)),
            (Some(81), "1001\n", Some(81)),
            (Some(81), "12x\n", Some(81)),
            (Some(81), "+5\n", Some(81)),
            (Some(81), "200 300\n", Some(200)),
            (Some(81), " 0x10\n", Some(16)),
            (Some(81), "010\n", Some(8)),
            (Some(0), "\n", Some(0)),
            (None, "abc", None),
            (Some(1000), "7\0\0", Some(7)),
        ] {
            assert_eq!(over(before, written), after, "{written:?} over {before:?}");
        }
        assert_eq!(text(Some(u64::MAX))[WIDTH - 21..], *b"18446744073709551615\n");
    }
}
