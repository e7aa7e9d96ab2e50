//! The queues for Rust programs: the same queues, with types.
//!
//! Re-exported at the root of the crate, whose description has an example. Nothing is decided here: arguments
//! are put into the form that [`semantics`](crate::semantics) takes, and results out of it.
//!
//! Invariants:
//! 1. Every call goes through [`os::thread::Cookie`](crate::os::thread::Cookie), as the C calls do, so that
//!    one that a signal handler leaves by a jump is found and healed.
//! 2. What a slice promises, nobody checks again: no `EFAULT` policy here.

mod calls;
mod error;
mod queue;
mod types;

pub use error::{Error, ErrorKind, Result};
pub use queue::Queue;
pub use types::{Key, MessageType, Received, Selector, Settings, Status};

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Chooses the directory in which this process finds its queues, in place of the environment's `USYSV_DIR` and
/// the default. To be called before the first use of a queue; children do not inherit it.
///
/// # Errors
/// [`ErrorKind::Busy`] once a queue has been used, or if a directory was chosen before;
/// [`ErrorKind::InvalidInput`] if the path is not absolute, or too long (see the README).
///
/// ```
/// # let directory = std::env::temp_dir().join(format!("usysv-doc-directory-{}", std::process::id()));
/// # std::fs::create_dir(&directory)?;
/// usysv::set_directory(&directory)?;
/// assert_eq!(usysv::directory(), directory);
/// # std::fs::remove_dir(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn set_directory(path: impl AsRef<Path>) -> Result<()> {
    Ok(crate::namespace::choose_directory(path.as_ref().as_os_str().as_bytes())?)
}

/// The directory in which this process finds its queues.
pub fn directory() -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(crate::namespace::directory().bytes()))
}
