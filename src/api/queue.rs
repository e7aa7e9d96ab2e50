//! A queue and what can be done with it.

use super::{Error, ErrorKind, Key, MessageType, Received, Result, Selector, Settings, Status, calls};
use crate::os::thread::Cookie;
use crate::semantics;
use core::fmt;

/// A message queue: a name for it, to be copied at will. It does not own the queue, which lives on until somebody
/// [removes](Queue::remove) it.
///
/// It is the queue that C programs know by the same key or identifier, and follows the same rules: who may use
/// it, how much fits, which message comes next, who is served first.
///
/// ```
/// use usysv::{Key, MessageType, Queue, Selector};
/// # let directory = std::env::temp_dir().join(format!("usysv-doc-queue-{}", std::process::id()));
/// # std::fs::create_dir(&directory)?;
/// # usysv::set_directory(&directory)?;
/// const URGENT: MessageType = MessageType::new(1).unwrap();
/// const ORDINARY: MessageType = MessageType::new(2).unwrap();
///
/// let queue = Queue::create(Key::new(0x4a4f_4253), 0o600)?;
/// queue.send(ORDINARY, b"sweep the floor")?;
/// queue.send(URGENT, b"put out the fire")?;
///
/// let mut buffer = [0; 8192];
/// let received = queue.receive(Selector::UpTo(ORDINARY), &mut buffer)?;
/// assert_eq!(received.mtype, URGENT);
/// assert_eq!(&buffer[..received.length], b"put out the fire");
///
/// assert_eq!(queue.status()?.messages, 1);
/// queue.remove()?;
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue {
    id: i32,
}

impl fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Queue").field(&self.id).finish()
    }
}

/// Every call goes through here, directly from the public function (invariant 1 of `api`). In the child of a fork in
/// its middle it is made again, as the C calls are.
#[inline(always)]
fn entering<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        let cookie = Cookie::new();
        let result = cookie.entering(&mut call);
        let interrupted = matches!(result, Err(error) if error.kind() == ErrorKind::Interrupted);
        if interrupted || !cookie.is_disowned() {
            return result;
        }
    }
}

#[inline(never)]
fn get(key: Key, flags: i32) -> Result<Queue> {
    let id = semantics::msgget(key.get(), flags)?;
    // Identifiers have 31 bits.
    Ok(Queue { id: id.cast_signed() })
}

impl Queue {
    /// The queue of a key.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is none. That it may be used is said by the calls that
    /// use it.
    pub fn open(key: Key) -> Result<Queue> {
        entering(|| get(key, 0))
    }

    /// The queue of a key, which is created if there is none: with these permission bits, and the caller as its
    /// owner.
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) if it exists and denies one of the bits;
    /// [`TooManyQueues`](ErrorKind::TooManyQueues), [`OutOfMemory`](ErrorKind::OutOfMemory).
    pub fn create(key: Key, mode: u32) -> Result<Queue> {
        entering(|| get(key, libc::IPC_CREAT | (mode & 0o777).cast_signed()))
    }

    /// A new queue with a key.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if there is one; else as [`create`](Queue::create).
    ///
    /// ```
    /// use usysv::{ErrorKind, Key, Queue};
    /// # let directory = std::env::temp_dir().join(format!("usysv-doc-new-{}", std::process::id()));
    /// # std::fs::create_dir(&directory)?;
    /// # usysv::set_directory(&directory)?;
    /// let queue = Queue::create_new(Key::new(7), 0o600)?;
    /// let again = Queue::create_new(Key::new(7), 0o600);
    /// assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
    /// assert_eq!(Queue::open(Key::new(7))?, queue);
    /// queue.remove()?;
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_new(key: Key, mode: u32) -> Result<Queue> {
        entering(|| get(key, libc::IPC_CREAT | libc::IPC_EXCL | (mode & 0o777).cast_signed()))
    }

    /// A new queue without a key, to be found by its [identifier](Queue::id) alone.
    ///
    /// # Errors
    /// As [`create`](Queue::create).
    pub fn private(mode: u32) -> Result<Queue> {
        Queue::create(Key::new(libc::IPC_PRIVATE), mode)
    }

    /// The queue of an identifier that another process, or `usysv ls`, has told. Nothing is looked at: if there
    /// is none, the calls on it fail with [`NotFound`](ErrorKind::NotFound).
    pub const fn from_id(id: i32) -> Queue {
        Queue { id }
    }

    /// Its identifier, the same in all processes that share the directory.
    pub const fn id(self) -> i32 {
        self.id
    }

    /// Appends a message; waits for room while the queue is full.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`PermissionDenied`](ErrorKind::PermissionDenied),
    /// [`TooLong`](ErrorKind::TooLong), [`OutOfMemory`](ErrorKind::OutOfMemory); after waiting,
    /// [`Removed`](ErrorKind::Removed) and [`Interrupted`](ErrorKind::Interrupted). In all cases
    /// nothing was sent.
    pub fn send(self, mtype: MessageType, text: &[u8]) -> Result<()> {
        entering(|| calls::send(self.id, mtype, text, 0))
    }

    /// Appends a message if there is room.
    ///
    /// # Errors
    /// [`Full`](ErrorKind::Full) if there is none; else as [`send`](Queue::send).
    ///
    /// ```
    /// use usysv::{ErrorKind, MessageType, Queue};
    /// # let directory = std::env::temp_dir().join(format!("usysv-doc-try-{}", std::process::id()));
    /// # std::fs::create_dir(&directory)?;
    /// # usysv::set_directory(&directory)?;
    /// let queue = Queue::private(0o600)?;
    /// let mut settings = queue.status()?.settings;
    /// settings.capacity = 8;
    /// queue.set(&settings)?;
    ///
    /// let mtype = MessageType::new(1).unwrap();
    /// queue.try_send(mtype, b"12345")?;
    /// assert_eq!(queue.try_send(mtype, b"6789").unwrap_err().kind(), ErrorKind::Full);
    /// queue.remove()?;
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_send(self, mtype: MessageType, text: &[u8]) -> Result<()> {
        entering(|| calls::send(self.id, mtype, text, libc::IPC_NOWAIT))
    }

    /// Takes a message out and puts its text into `buffer`; waits for one if there is none.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`PermissionDenied`](ErrorKind::PermissionDenied),
    /// [`BufferTooSmall`](ErrorKind::BufferTooSmall); after waiting,
    /// [`Removed`](ErrorKind::Removed) and [`Interrupted`](ErrorKind::Interrupted). In all cases
    /// nothing was taken.
    pub fn receive(self, selector: Selector, buffer: &mut [u8]) -> Result<Received> {
        entering(|| calls::receive(self.id, selector, buffer, 0))
    }

    /// Takes a message out if there is one that is wanted.
    ///
    /// # Errors
    /// [`NoMessage`](ErrorKind::NoMessage) if there is none; else as [`receive`](Queue::receive).
    ///
    /// ```
    /// use usysv::{ErrorKind, MessageType, Queue, Selector};
    /// # let directory = std::env::temp_dir().join(format!("usysv-doc-tryr-{}", std::process::id()));
    /// # std::fs::create_dir(&directory)?;
    /// # usysv::set_directory(&directory)?;
    /// let queue = Queue::private(0o600)?;
    /// queue.send(MessageType::new(5).unwrap(), b"five")?;
    /// let mut buffer = [0; 64];
    ///
    /// let six = Selector::Type(MessageType::new(6).unwrap());
    /// assert_eq!(queue.try_receive(six, &mut buffer).unwrap_err().kind(), ErrorKind::NoMessage);
    /// assert_eq!(queue.try_receive(Selector::First, &mut buffer)?.length, 4);
    /// queue.remove()?;
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_receive(self, selector: Selector, buffer: &mut [u8]) -> Result<Received> {
        entering(|| calls::receive(self.id, selector, buffer, libc::IPC_NOWAIT))
    }

    /// As [`receive`](Queue::receive), but a text that is longer than the buffer is cut, and its end lost
    /// (`MSG_NOERROR`).
    ///
    /// # Errors
    /// As [`receive`](Queue::receive), without [`BufferTooSmall`](ErrorKind::BufferTooSmall).
    pub fn receive_cut(self, selector: Selector, buffer: &mut [u8]) -> Result<Received> {
        entering(|| calls::receive(self.id, selector, buffer, libc::MSG_NOERROR))
    }

    /// As [`try_receive`](Queue::try_receive), but a text that is longer than the buffer is cut, and its end lost
    /// (`MSG_NOERROR`).
    ///
    /// # Errors
    /// As [`try_receive`](Queue::try_receive), without [`BufferTooSmall`](ErrorKind::BufferTooSmall).
    pub fn try_receive_cut(self, selector: Selector, buffer: &mut [u8]) -> Result<Received> {
        entering(|| calls::receive(self.id, selector, buffer, libc::MSG_NOERROR | libc::IPC_NOWAIT))
    }

    /// Copies the message at a position, counted from 0, and leaves it where it is (`MSG_COPY`).
    ///
    /// # Errors
    /// [`NoMessage`](ErrorKind::NoMessage) if there are not as many; else as
    /// [`receive`](Queue::receive).
    ///
    /// ```
    /// use usysv::{MessageType, Queue};
    /// # let directory = std::env::temp_dir().join(format!("usysv-doc-peek-{}", std::process::id()));
    /// # std::fs::create_dir(&directory)?;
    /// # usysv::set_directory(&directory)?;
    /// let queue = Queue::private(0o600)?;
    /// queue.send(MessageType::new(1).unwrap(), b"one")?;
    /// queue.send(MessageType::new(2).unwrap(), b"two")?;
    /// let mut buffer = [0; 64];
    /// let second = queue.peek(1, &mut buffer)?;
    /// assert_eq!((second.mtype.get(), &buffer[..second.length]), (2, &b"two"[..]));
    /// assert_eq!(queue.status()?.messages, 2);
    /// queue.remove()?;
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn peek(self, position: u64, buffer: &mut [u8]) -> Result<Received> {
        entering(|| calls::peek(self.id, position, buffer))
    }

    /// What there is to know of it (`IPC_STAT`).
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`PermissionDenied`](ErrorKind::PermissionDenied).
    pub fn status(self) -> Result<Status> {
        #[inline(never)]
        fn status(id: i32) -> Result<Status> {
            Ok(semantics::ipc_stat(id).map_err(Error::of_queue)?.status.into())
        }
        entering(|| status(self.id))
    }

    /// Changes owner, mode and capacity (`IPC_SET`): best begun with what [`status`](Queue::status) says.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`NotOwner`](ErrorKind::NotOwner), also for who raises
    /// the capacity above `msgmnb` without privilege.
    pub fn set(self, settings: &Settings) -> Result<()> {
        #[inline(never)]
        fn set(id: i32, settings: &Settings) -> Result<()> {
            let &Settings { uid, gid, mode, capacity } = settings;
            let settings = semantics::Settings { uid, gid, mode, qbytes: capacity };
            semantics::ipc_set(id, &settings).map_err(Error::of_queue)
        }
        entering(|| set(self.id, settings))
    }

    /// Removes it, with all messages in it; whoever waits gets [`Removed`](ErrorKind::Removed)
    /// (`IPC_RMID`).
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`NotOwner`](ErrorKind::NotOwner).
    pub fn remove(self) -> Result<()> {
        #[inline(never)]
        fn remove(id: i32) -> Result<()> {
            semantics::ipc_rmid(id).map_err(Error::of_queue)
        }
        entering(|| remove(self.id))
    }
}
