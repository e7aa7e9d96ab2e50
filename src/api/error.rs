//! Errors: the number that C programs get, and what it means here.

use crate::os::errno::Errno;
use core::fmt;

/// The result of a call on a queue.
pub type Result<T> = core::result::Result<T, Error>;

/// Why a call failed: an error number of the C library, and what it means for this call.
///
/// ```
/// use usysv::{ErrorKind, Key, Queue};
/// # let directory = std::env::temp_dir().join(format!("usysv-doc-error-{}", std::process::id()));
/// # std::fs::create_dir(&directory)?;
/// # usysv::set_directory(&directory)?;
/// let error = Queue::open(Key::new(0x1234)).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::NotFound);
/// assert_eq!(error.errno(), libc::ENOENT);
/// assert_eq!(error.to_string(), "no such queue (ENOENT)");
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Error {
    errno: i32,
    kind: ErrorKind,
}

/// What an [`Error`] means.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no queue with that key (`ENOENT`), or none with that identifier any more (`EINVAL`).
    NotFound,
    /// There is a queue with that key, and a new one was asked for (`EEXIST`).
    AlreadyExists,
    /// The queue's mode denies it (`EACCES`).
    PermissionDenied,
    /// Only the owner, the creator or a privileged process may do that (`EPERM`).
    NotOwner,
    /// The queue is full, and the call does not wait (`EAGAIN`).
    Full,
    /// No message is there that is wanted, and the call does not wait (`ENOMSG`).
    NoMessage,
    /// The text is longer than `msgmax` (`EINVAL`).
    TooLong,
    /// The message's text is longer than the buffer; it stays in the queue (`E2BIG`).
    BufferTooSmall,
    /// The queue was removed while the call waited (`EIDRM`).
    Removed,
    /// A signal handler ran while the call waited (`EINTR`). The call did nothing; see [`retry`](Error::retry).
    Interrupted,
    /// The limit of queues is reached (`ENOSPC`).
    TooManyQueues,
    /// No memory: the file system is full, or too many use the queue at once (`ENOMEM`).
    OutOfMemory,
    /// It is too late for that (`EBUSY`).
    Busy,
    /// An argument that cannot be (`EINVAL`).
    InvalidInput,
    /// An error of the file system, or one of a newer version.
    Other,
}

impl Error {
    /// The error number, as `errno(3)` lists them: what C programs get.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// What it means.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Repeats a call for as long as it is [`Interrupted`](ErrorKind::Interrupted).
    ///
    /// As msgop(2) has it, a call that waits ends with `EINTR` when a signal handler has run in its thread,
    /// `SA_RESTART` or not. Then nothing was sent and nothing was received. A program without signal handlers
    /// never sees that. One with handlers decides for itself: it looks at what its handler has set and gives
    /// up, or repeats the call.
    ///
    /// ```
    /// use usysv::{Error, MessageType, Queue, Selector};
    /// # let directory = std::env::temp_dir().join(format!("usysv-doc-retry-{}", std::process::id()));
    /// # std::fs::create_dir(&directory)?;
    /// # usysv::set_directory(&directory)?;
    /// let queue = Queue::private(0o600)?;
    /// queue.send(MessageType::new(1).unwrap(), b"hello")?;
    /// let mut buffer = [0; 64];
    /// let received = Error::retry(|| queue.receive(Selector::First, &mut buffer))?;
    /// assert_eq!(received.length, 5);
    /// queue.remove()?;
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match call() {
                Err(error) if error.kind == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    pub(super) fn new(errno: Errno, kind: ErrorKind) -> Error {
        Error { errno: errno.0, kind }
    }

    /// An error of a call that names a queue which exists, or should.
    pub(super) fn of_queue(errno: Errno) -> Error {
        match errno {
            Errno::EINVAL => Error::new(errno, ErrorKind::NotFound),
            errno => errno.into(),
        }
    }

    fn name(&self) -> Option<&'static str> {
        macro_rules! named {
            ($($name:ident)*) => {
                match Errno(self.errno) {
                    $(Errno::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            };
        }
        named!(E2BIG EACCES EAGAIN EBUSY EEXIST EFAULT EIDRM EINTR EINVAL ENOENT ENOMEM ENOMSG ENOSPC ENOSYS
            EPERM EROFS ENFILE EMFILE ESRCH)
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        use ErrorKind::*;
        let kind = match errno {
            Errno::ENOENT => NotFound,
            Errno::EEXIST => AlreadyExists,
            Errno::EACCES => PermissionDenied,
            Errno::EPERM => NotOwner,
            Errno::EAGAIN => Full,
            Errno::ENOMSG => NoMessage,
            Errno::E2BIG => BufferTooSmall,
            Errno::EIDRM => Removed,
            Errno::EINTR => Interrupted,
            Errno::ENOSPC => TooManyQueues,
            Errno::ENOMEM => OutOfMemory,
            Errno::EBUSY => Busy,
            Errno::EINVAL => InvalidInput,
            _ => Other,
        };
        Error::new(errno, kind)
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        std::io::Error::from_raw_os_error(error.errno)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ErrorKind::*;
        let meaning = match self.kind {
            NotFound => "no such queue",
            AlreadyExists => "there is a queue with that key already",
            PermissionDenied => "the queue's mode denies it",
            NotOwner => "only the queue's owner or creator may do that",
            Full => "the queue is full",
            NoMessage => "no such message",
            TooLong => "the text is longer than msgmax",
            BufferTooSmall => "the message is longer than the buffer",
            Removed => "the queue was removed",
            Interrupted => "interrupted by a signal handler",
            TooManyQueues => "the limit of queues is reached",
            OutOfMemory => "no memory",
            Busy => "queues are in use already",
            InvalidInput => "invalid argument",
            Other => return write!(formatter, "{}", std::io::Error::from_raw_os_error(self.errno)),
        };
        match self.name() {
            Some(name) => write!(formatter, "{meaning} ({name})"),
            None => write!(formatter, "{meaning} (error {})", self.errno),
        }
    }
}

impl std::error::Error for Error {}
