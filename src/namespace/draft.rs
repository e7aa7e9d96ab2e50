//! A queue's control file being made: complete before it has a name that anybody looks for.
//!
//! Without a name at all where the system can do that (`O_TMPFILE`, then linkat(2)): a creator that is killed
//! leaves nothing behind. Else under a scratch name, which is swept away when it is old.

use super::directory::{directory, in_words_of_msgget, scratch_path};
use crate::os::errno::Errno;
use crate::os::file::{self, Fd, Path};

/// A file being made.
pub struct Draft {
    fd: Fd,
    scratch: Option<Path>,
}

impl Draft {
    /// A new, empty file; with that mode, if the umask and the file system allow.
    pub fn new(mode: u32) -> Result<Draft, Errno> {
        let here = Path::new(&[directory().bytes(), b"/."]).ok_or(Errno::ENOENT)?;
        // Not `Draft::named` alone: that leaves a name behind when its creator is killed.
        if let Ok(fd) = file::open(&here, libc::O_RDWR | libc::O_TMPFILE, mode) {
            return Ok(Draft { fd, scratch: None });
        }
        Draft::named()
    }

    fn named() -> Result<Draft, Errno> {
        let scratch = scratch_path().ok_or(Errno::ENOENT)?;
        let fd = file::create(&scratch, 0o600).map_err(in_words_of_msgget)?;
        Ok(Draft { fd, scratch: Some(scratch) })
    }

    /// The file, open.
    pub fn fd(&self) -> &Fd {
        &self.fd
    }

    /// Gives the file its name, unless that exists (`EEXIST`).
    pub fn publish(&self, path: &Path) -> Result<(), Errno> {
        match &self.scratch {
            Some(scratch) => file::rename_new(scratch, path),
            None => file::link(&self.fd, path),
        }
    }

    /// Takes a name back, so that the file can be given another. From then on it has a scratch name: a file that
    /// had a name once and has none any more cannot be given another.
    pub fn withdraw(&mut self, path: &Path) -> Result<(), Errno> {
        let scratch = match self.scratch {
            Some(scratch) => scratch,
            None => scratch_path().ok_or(Errno::ENOMEM)?,
        };
        file::rename_new(path, &scratch)?;
        self.scratch = Some(scratch);
        Ok(())
    }

    /// Drops the file.
    pub fn discard(self) {
        if let Some(scratch) = &self.scratch {
            let _ = file::remove(scratch);
        }
    }
}
