//! What the calls take and give.

use super::{Error, ErrorKind, Result};
use crate::os::errno::Errno;
use crate::queue;
use core::fmt;
use core::num::NonZeroI64;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The key under which processes find a queue: any number but 0, which C calls `IPC_PRIVATE`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key(i32);

impl Key {
    /// The key of that number. For 0, as in C, [`Queue::create`](super::Queue::create) makes a new queue each
    /// time, and no other call finds one.
    pub const fn new(key: i32) -> Key {
        Key(key)
    }

    /// The key that `ftok(3)` makes of an existing file and the low eight bits of a number, so that programs that
    /// know the same file find the same queue.
    ///
    /// ```
    /// use usysv::Key;
    /// assert_eq!(Key::from_path("/", 7)?, Key::from_path("/", 7)?);
    /// assert_ne!(Key::from_path("/", 7)?, Key::from_path("/", 8)?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn from_path(path: impl AsRef<Path>, project: u8) -> std::io::Result<Key> {
        let there = std::fs::metadata(path)?;
        let (device, inode) = (there.dev() as u32, there.ino() as u32);
        Ok(Key((inode & 0xffff | (device & 0xff) << 16 | u32::from(project) << 24).cast_signed()))
    }

    /// Its number.
    pub const fn get(self) -> i32 {
        self.0
    }
}

impl From<i32> for Key {
    fn from(key: i32) -> Key {
        Key(key)
    }
}

/// As ipcs(1) prints it.
impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#010x}", self.0)
    }
}

/// The type of a message: 1 or above.
///
/// ```
/// use usysv::MessageType;
/// const REQUEST: MessageType = MessageType::new(1).unwrap();
/// assert_eq!(REQUEST.get(), 1);
/// assert_eq!(MessageType::new(0), None);
/// assert_eq!(MessageType::new(-1), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MessageType(NonZeroI64);

impl MessageType {
    /// The type of that number; `None` below 1.
    pub const fn new(mtype: i64) -> Option<MessageType> {
        match NonZeroI64::new(mtype) {
            Some(number) if mtype > 0 => Some(MessageType(number)),
            _ => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> i64 {
        self.0.get()
    }
}

impl TryFrom<i64> for MessageType {
    type Error = Error;

    fn try_from(mtype: i64) -> Result<MessageType> {
        MessageType::new(mtype).ok_or(Error::new(Errno::EINVAL, ErrorKind::InvalidInput))
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Which message is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Selector {
    /// The oldest (`msgtyp` 0).
    #[default]
    First,
    /// The oldest of a type (`msgtyp` above 0).
    Type(MessageType),
    /// The oldest of any other type (`MSG_EXCEPT`).
    Except(MessageType),
    /// Of the lowest type there is up to this one, the oldest (`msgtyp` below 0). So the type is a priority, 1
    /// the most urgent.
    UpTo(MessageType),
}

impl Selector {
    /// `msgtyp` and the flag of msgrcv(2).
    pub(super) fn to_msgtyp(self) -> (i64, i32) {
        match self {
            Selector::First => (0, 0),
            Selector::Type(mtype) => (mtype.get(), 0),
            Selector::Except(mtype) => (mtype.get(), libc::MSG_EXCEPT),
            Selector::UpTo(mtype) => (-mtype.get(), 0),
        }
    }
}

/// What a message was; its text is in the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Received {
    /// Its type.
    pub mtype: MessageType,
    /// How many bytes of text were put into the buffer.
    pub length: usize,
}

/// What can be changed of a queue (`IPC_SET`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// Owner.
    pub uid: u32,
    /// Owner's group.
    pub gid: u32,
    /// Permission bits, such as `0o600`: reading is receiving, writing is sending.
    pub mode: u32,
    /// Bytes of text that the queue may hold, and messages as well (`msg_qbytes`).
    pub capacity: u64,
}

/// What there is to know of a queue (`IPC_STAT`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The key that it was created with.
    pub key: Key,
    /// Owner, mode, capacity.
    pub settings: Settings,
    /// Creator.
    pub creator_uid: u32,
    /// Creator's group.
    pub creator_gid: u32,
    /// Messages in the queue.
    pub messages: u32,
    /// Bytes of text in the queue.
    pub bytes: u64,
    /// Process that sent last.
    pub last_sender: Option<u32>,
    /// Process that received last.
    pub last_receiver: Option<u32>,
    /// When it was sent to last, in whole seconds.
    pub last_sent: Option<SystemTime>,
    /// When it was received from last, in whole seconds.
    pub last_received: Option<SystemTime>,
    /// When it was created, or its settings were changed last, in whole seconds.
    pub changed: Option<SystemTime>,
    /// How many receivers wait. Not told by the kernel.
    pub waiting_receivers: u32,
    /// How many senders wait. Not told by the kernel.
    pub waiting_senders: u32,
}

impl From<queue::Status> for Status {
    fn from(status: queue::Status) -> Status {
        let settings = status.configuration;
        let process = |pid: u32| (pid != 0).then_some(pid);
        let time = |seconds: u64| {
            if seconds == 0 { None } else { SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) }
        };
        Status {
            key: Key(settings.key),
            settings: Settings {
                uid: settings.uid,
                gid: settings.gid,
                mode: settings.mode,
                capacity: settings.qbytes,
            },
            creator_uid: settings.cuid,
            creator_gid: settings.cgid,
            messages: status.qnum,
            bytes: status.cbytes,
            last_sender: process(status.lspid),
            last_receiver: process(status.lrpid),
            last_sent: time(status.stime),
            last_received: time(status.rtime),
            changed: time(settings.ctime),
            waiting_receivers: status.receivers,
            waiting_senders: status.senders,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn keys_are_ftok_s() {
        for (path, project) in [("/", 1), ("/proc/self", 255), (env!("CARGO_MANIFEST_DIR"), b'a')] {
            let name = CString::new(Path::new(path).as_os_str().as_bytes()).unwrap();
            // SAFETY: the path is a C string.
            let theirs = unsafe { libc::ftok(name.as_ptr(), i32::from(project)) };
            assert_eq!(Key::from_path(path, project).unwrap().get(), theirs, "{path}");
        }
    }

    #[test]
    fn keys_look_as_in_ipcs() {
        assert_eq!(Key::new(0x1234).to_string(), "0x00001234");
        assert_eq!(Key::new(-1).to_string(), "0xffffffff");
        assert_eq!(Key::new(0).to_string(), "0x00000000");
    }
}
