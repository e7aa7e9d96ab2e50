//! Files and directories, by path; no descriptor outlives the call that opened it.
//!
//! Raw system calls where the C library's function is a cancellation point or a symbol that somebody, we
//! included, may interpose: fakeroot's `stat` sends a message itself.

use super::errno::{Errno, preserving};
use super::raw::call;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, Ordering};
use libc::c_int;

/// A path built in place, without allocating.
#[derive(Clone, Copy)]
pub struct Path {
    bytes: [u8; Path::MAX],
    length: usize,
}

impl Path {
    /// The longest path; what is longer is refused with `EINVAL`.
    pub const MAX: usize = 256;
    /// No path, which nothing has.
    pub const EMPTY: Path = Path { bytes: [0; Path::MAX], length: 0 };

    /// A path known at compile time.
    pub const fn from_c(path: &CStr) -> Path {
        let from = path.to_bytes();
        assert!(from.len() < Path::MAX);
        let (mut bytes, mut at) = ([0; Path::MAX], 0);
        while at < from.len() {
            bytes[at] = from[at];
            at += 1;
        }
        Path { bytes, length: from.len() }
    }

    /// A path of some pieces, one after the other. `None` if it is too long or holds a NUL.
    pub fn new(pieces: &[&[u8]]) -> Option<Path> {
        let mut path = Path::EMPTY;
        for piece in pieces {
            let end = path.length + piece.len();
            let place = path.bytes.get_mut(path.length..end).filter(|_| end < Path::MAX)?;
            if piece.contains(&0) {
                return None;
            }
            place.copy_from_slice(piece);
            path.length = end;
        }
        Some(path)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// As the system wants it.
    pub fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

/// An open descriptor, closed at the end of its scope.
pub struct Fd(c_int);

impl Fd {
    /// One that a system call has made just now.
    pub(super) fn new(number: libc::c_long) -> Fd {
        Fd(number as c_int)
    }

    /// Its number.
    pub fn number(&self) -> c_int {
        self.0
    }

    /// Its number, for who closes it.
    pub fn keep(self) -> c_int {
        core::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours; the raw call is no cancellation point.
        let _ = unsafe { call!(libc::SYS_close, self.0) };
    }
}

/// Opens a file; never follows a link, never blocks on a fifo, never leaks into an exec.
pub fn open(path: &Path, flags: c_int, mode: u32) -> Result<Fd, Errno> {
    let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    loop {
        // SAFETY: the path is a C string that lives during the call.
        match unsafe { call!(libc::SYS_openat, libc::AT_FDCWD, path.as_c().as_ptr(), flags, mode) } {
            Ok(fd) => return Ok(Fd(fd as c_int)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Makes a new file, to be read and written; `EEXIST` if there is one of that name.
pub fn create(path: &Path, mode: u32) -> Result<Fd, Errno> {
    open(path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, mode)
}

/// What is known of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata {
    /// Whether it is a regular file.
    pub regular: bool,
    /// Size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Which file it is.
    pub inode: (u64, u64),
    /// When it was changed last, in seconds.
    pub changed: i64,
    /// How many names it has.
    pub links: u64,
}

/// `fstatat(2)`: where the C library's structure is the kernel's, by the system call itself.
pub(super) fn describe(directory: c_int, path: &CStr, flags: c_int) -> Result<libc::stat, Errno> {
    // SAFETY: an all-zero description is a valid value to be overwritten.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: the path is a C string that lives during the call, the place is valid.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    unsafe { call!(libc::SYS_newfstatat, directory, path.as_ptr(), &raw mut stat, flags) }?;
    // SAFETY: as above.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    preserving(|| unsafe { libc::fstatat(directory, path.as_ptr(), &mut stat, flags) })?;
    Ok(stat)
}

#[allow(clippy::unnecessary_cast, reason = "elsewhere a count of links has 32 bits")]
fn metadata(stat: libc::stat) -> Result<Metadata, Errno> {
    Ok(Metadata {
        regular: stat.st_mode & libc::S_IFMT == libc::S_IFREG,
        size: stat.st_size as u64,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        inode: (stat.st_dev, stat.st_ino),
        changed: stat.st_ctime,
        links: stat.st_nlink as u64,
    })
}

/// What is known of an open file.
pub fn status(fd: &Fd) -> Result<Metadata, Errno> {
    metadata(describe(fd.0, c"", libc::AT_EMPTY_PATH)?)
}

/// What is known of the file of that name; a link is not followed.
pub fn look_up(path: &Path) -> Result<Metadata, Errno> {
    metadata(describe(libc::AT_FDCWD, path.as_c(), libc::AT_SYMLINK_NOFOLLOW)?)
}

/// Sets permission bits, whatever the umask.
pub fn set_mode(fd: &Fd, mode: u32) -> Result<(), Errno> {
    // SAFETY: takes no pointer.
    unsafe { call!(libc::SYS_fchmod, fd.0, mode) }.map(drop)
}

/// Sets owner and group.
pub fn set_owner(fd: &Fd, uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: takes no pointer.
    unsafe { call!(libc::SYS_fchown, fd.0, uid, gid) }.map(drop)
}

/// Sets owner and group of a symbolic link itself.
pub fn set_owner_of_link(path: &Path, uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: the path is a C string that lives during the call.
    preserving(|| unsafe { libc::lchown(path.as_c().as_ptr(), uid, gid) }).map(drop)
}

/// Sets an extended attribute of an open file.
pub fn set_attribute(fd: &Fd, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    let (name, at) = (name.as_ptr(), value.as_ptr());
    // SAFETY: name and value live during the call.
    unsafe { call!(libc::SYS_fsetxattr, fd.0, name, at, value.len(), 0) }.map(drop)
}

/// Whether an open file may have an extended attribute of that name. To ask costs half of what removing it does.
pub fn has_attribute(fd: &Fd, name: &CStr) -> bool {
    // SAFETY: the name lives during the call; nothing is written where there is room for nothing.
    let asked = unsafe { call!(libc::SYS_fgetxattr, fd.0, name.as_ptr(), 0, 0) };
    !matches!(asked, Err(Errno(libc::ENODATA | libc::EOPNOTSUPP)))
}

/// Removes an extended attribute of an open file.
pub fn remove_attribute(fd: &Fd, name: &CStr) -> Result<(), Errno> {
    // SAFETY: the name lives during the call.
    unsafe { call!(libc::SYS_fremovexattr, fd.0, name.as_ptr()) }.map(drop)
}

/// How long this process may make a file.
pub fn longest() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
    // SAFETY: the place is valid.
    let _ = preserving(|| unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) });
    limit.rlim_cur
}

/// Makes a new file as long as `length`, or as [`longest`] says; never by way of SIGXFSZ. `ENOMEM` if it may not be
/// as long as `least`.
pub fn stretch(fd: &Fd, least: u64, length: u64, longest: u64) -> Result<(), Errno> {
    let length = length.min(longest);
    if length < least {
        return Err(Errno::ENOMEM);
    }
    // SAFETY: takes no pointer.
    unsafe { call!(libc::SYS_ftruncate, fd.0, length as libc::off_t) }.map(drop)
}

/// Makes the system provide what a range of a file needs; false if it will not, or cannot be asked.
pub fn reserve(fd: &Fd, offset: u64, length: u64) -> bool {
    let (offset, length) = (offset as libc::off_t, length as libc::off_t);
    loop {
        let mode = libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: takes no pointer.
        match unsafe { call!(libc::SYS_fallocate, fd.0, mode, offset, length) } {
            Err(Errno::EINTR) => {}
            result => return result.is_ok(),
        }
    }
}

/// Gives a file a new name, unless that exists (`EEXIST`).
#[inline(never)]
pub fn rename_new(from: &Path, to: &Path) -> Result<(), Errno> {
    const NOREPLACE: c_int = 1;
    let (from, to) = (from.as_c().as_ptr(), to.as_c().as_ptr());
    // SAFETY: both paths are C strings that live during the call.
    match unsafe { call!(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, NOREPLACE) } {
        Ok(_) => Ok(()),
        // The file system cannot: two steps then, the first of which decides.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            // SAFETY: as above.
            unsafe { call!(libc::SYS_linkat, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) }?;
            // SAFETY: as above.
            unsafe { call!(libc::SYS_unlinkat, libc::AT_FDCWD, from, 0) }.map(drop)
        }
        Err(errno) => Err(errno),
    }
}

/// Gives an open file without a name one, unless that exists (`EEXIST`).
#[inline(never)]
pub fn link(fd: &Fd, path: &Path) -> Result<(), Errno> {
    /// Whether it must be named by way of /proc here; a hint, to save the call that fails.
    static BY_PROC: AtomicBool = AtomicBool::new(false);
    let link = |directory: c_int, from: &CStr, flags: c_int| {
        let to = path.as_c().as_ptr();
        // SAFETY: both paths are C strings that live during the call.
        unsafe { call!(libc::SYS_linkat, directory, from.as_ptr(), libc::AT_FDCWD, to, flags) }.map(drop)
    };
    let by_descriptor = || link(fd.0, c"", libc::AT_EMPTY_PATH);
    // By the descriptor alone: that takes half the time, but older kernels allow it only to the privileged.
    if !BY_PROC.load(Ordering::Relaxed) {
        match by_descriptor() {
            Err(Errno::ENOENT) => {}
            result => return result,
        }
    }
    let (mut place, mut start) = ([0u8; 10], 10);
    let mut number = fd.0;
    while start == 10 || number > 0 {
        start -= 1;
        place[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let from = Path::new(&[b"/proc/self/fd/", place.get(start..).unwrap_or_default()]);
    match link(libc::AT_FDCWD, from.ok_or(Errno::EINVAL)?.as_c(), libc::AT_SYMLINK_FOLLOW) {
        // No /proc here.
        Err(Errno::ENOENT) => by_descriptor(),
        result => {
            BY_PROC.store(true, Ordering::Relaxed);
            result
        }
    }
}

/// Removes a name.
pub fn remove(path: &Path) -> Result<(), Errno> {
    // SAFETY: the path is a C string that lives during the call.
    unsafe { call!(libc::SYS_unlinkat, libc::AT_FDCWD, path.as_c().as_ptr(), 0) }.map(drop)
}

/// Makes a symbolic link with that content.
pub fn make_link(path: &Path, content: &Path) -> Result<(), Errno> {
    let (content, path) = (content.as_c().as_ptr(), path.as_c().as_ptr());
    // SAFETY: both are C strings that live during the call.
    unsafe { call!(libc::SYS_symlinkat, content, libc::AT_FDCWD, path) }.map(drop)
}

/// Reads the content of a symbolic link into `place`; returns how much of it.
pub fn read_link<'a>(path: &Path, place: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let (path, at) = (path.as_c().as_ptr(), place.as_mut_ptr());
    // SAFETY: the path is a C string, the place is as long as said.
    let length = unsafe { call!(libc::SYS_readlinkat, libc::AT_FDCWD, path, at, place.len()) }?;
    Ok(place.get(..length as usize).unwrap_or_default())
}

/// Whether a path is a directory in which this process may create files.
pub fn is_usable_directory(path: &CStr) -> bool {
    let is_directory = |stat: libc::stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    if !describe(libc::AT_FDCWD, path, 0).is_ok_and(is_directory) {
        return false;
    }
    let rights = libc::R_OK | libc::W_OK | libc::X_OK;
    // SAFETY: the path is a C string.
    let access =
        unsafe { call!(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), rights, libc::AT_EACCESS) };
    match access {
        // Before Linux 5.8, or in a sandbox: with the real ids.
        // SAFETY: as above.
        Err(Errno::ENOSYS | Errno::EPERM) => unsafe {
            call!(libc::SYS_faccessat, libc::AT_FDCWD, path.as_ptr(), rights).is_ok()
        },
        access => access.is_ok(),
    }
}

/// Reads up to `place.len()` bytes of a small file; returns what was read.
pub fn read<'a>(fd: &Fd, place: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    // SAFETY: the place is as long as said.
    let length = unsafe { call!(libc::SYS_read, fd.0, place.as_mut_ptr(), place.len()) }?;
    Ok(place.get(..length as usize).unwrap_or_default())
}

/// Reads `length` bytes at an offset into memory; `EINVAL` if there are not as many.
///
/// # Safety
/// The memory must be the caller's, and as long as said.
pub unsafe fn read_at(fd: c_int, offset: u64, to: *mut u8, length: usize) -> Result<(), Errno> {
    // SAFETY: the caller's promise. (On 64-bit systems; elsewhere the offset has two halves.)
    #[cfg(target_pointer_width = "64")]
    let read = unsafe { call!(libc::SYS_pread64, fd, to, length, offset) }?;
    #[cfg(not(target_pointer_width = "64"))]
    // SAFETY: as above.
    let read = preserving(|| unsafe { libc::pread(fd, to.cast(), length, offset as _) })?;
    if read as usize == length { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Writes bytes to the beginning of a file.
pub fn overwrite(fd: &Fd, bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: the bytes live during the call.
    let length = unsafe { call!(libc::SYS_pwrite64, fd.0, bytes.as_ptr(), bytes.len(), 0) }?;
    if length as usize == bytes.len() { Ok(()) } else { Err(Errno::ENOSPC) }
}

/// Writes bytes to a file.
pub fn write(fd: &Fd, bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: the bytes live during the call.
    let length = unsafe { call!(libc::SYS_write, fd.0, bytes.as_ptr(), bytes.len()) }?;
    if length as usize == bytes.len() { Ok(()) } else { Err(Errno::ENOSPC) }
}

/// Writes bytes to a place in a file.
pub fn write_at(fd: &Fd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    // SAFETY: the bytes live during the call. (On 64-bit systems; elsewhere the offset has two halves.)
    #[cfg(target_pointer_width = "64")]
    let written = unsafe { call!(libc::SYS_pwrite64, fd.0, bytes.as_ptr(), bytes.len(), offset) }?;
    #[cfg(not(target_pointer_width = "64"))]
    // SAFETY: as above.
    let written =
        preserving(|| unsafe { libc::pwrite(fd.0, bytes.as_ptr().cast(), bytes.len(), offset as _) })?;
    if written as usize == bytes.len() { Ok(()) } else { Err(Errno::ENOSPC) }
}

/// Goes back to the beginning of a file.
pub fn rewind(fd: &Fd) -> Result<(), Errno> {
    // SAFETY: takes no pointer.
    preserving(|| unsafe { libc::lseek(fd.0, 0, libc::SEEK_SET) }).map(drop)
}

fn byte_range(kind: c_int, start: u64, length: u64) -> libc::flock {
    // SAFETY: integers all of them: zero is a value.
    let mut range: libc::flock = unsafe { core::mem::zeroed() };
    (range.l_type, range.l_whence) = (kind as _, libc::SEEK_SET as _);
    (range.l_start, range.l_len) = (start as libc::off_t, length as libc::off_t);
    range
}

/// Locks one byte of the range, for as long as the file stays open, here or by whoever inherits it.
pub fn lock(fd: &Fd, start: u64, length: u64) -> Result<(), Errno> {
    let mut result = Err(Errno::EAGAIN);
    for byte in start..start + length {
        let range = byte_range(libc::F_WRLCK, byte, 1);
        // SAFETY: the range lives during the call.
        result = preserving(|| unsafe { libc::fcntl(fd.0, libc::F_OFD_SETLK, &raw const range) }).map(drop);
        if !matches!(result, Err(Errno::EAGAIN | Errno::EACCES)) {
            break;
        }
    }
    result
}

/// Whether anybody has locked a byte of the range. Who may only read the file cannot.
pub fn is_locked(fd: &Fd, start: u64, length: u64) -> bool {
    let mut range = byte_range(libc::F_RDLCK, start, length);
    // SAFETY: the range is a valid place.
    let asked = preserving(|| unsafe { libc::fcntl(fd.0, libc::F_OFD_GETLK, &raw mut range) });
    asked.is_ok() && c_int::from(range.l_type) != libc::F_UNLCK
}

/// A file without a name, to be read and written: in memory, or, where that is not to be had, in a directory.
pub fn nameless(directory: &Path, close_on_exec: bool) -> Result<Fd, Errno> {
    let flags = if close_on_exec { libc::MFD_CLOEXEC } else { 0 };
    // SAFETY: the name is a C string.
    if let Ok(fd) = unsafe { call!(libc::SYS_memfd_create, c"usysv".as_ptr(), flags) } {
        return Ok(Fd(fd as c_int));
    }
    let here = Path::new(&[directory.bytes(), b"/."]).ok_or(Errno::EINVAL)?;
    let fd = open(&here, libc::O_RDWR | libc::O_TMPFILE, 0o600)?;
    if !close_on_exec {
        keep_on_exec(&fd)?;
    }
    Ok(fd)
}

/// Lets a descriptor survive exec(2).
pub fn keep_on_exec(fd: &Fd) -> Result<(), Errno> {
    // SAFETY: takes no pointer.
    preserving(|| unsafe { libc::fcntl(fd.0, libc::F_SETFD, 0) }).map(drop)
}

/// Puts an open file in the place of another descriptor.
pub fn replace(fd: Fd, number: c_int) -> Result<(), Errno> {
    // SAFETY: takes no pointer.
    let kept = preserving(|| unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    let flags = if kept & libc::FD_CLOEXEC != 0 { libc::O_CLOEXEC } else { 0 };
    // SAFETY: takes no pointer; what the number named is the caller's to give up.
    unsafe { call!(libc::SYS_dup3, fd.0, number, flags) }.map(drop)
}

/// Closes a descriptor that is somebody else's to give up.
pub fn close(number: c_int) {
    drop(Fd(number));
}

/// Calls `visit` with the name of everything in a directory.
#[inline(never)]
pub fn list(path: &Path, mut visit: impl FnMut(&[u8])) -> Result<(), Errno> {
    // Offsets in `struct linux_dirent64`.
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    // The directory itself may be named by a link; what is in it, never.
    let here = Path::new(&[path.bytes(), b"/."]).ok_or(Errno::EINVAL)?;
    let directory = open(&here, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    // Small: this may run on the smallest stack a thread can have.
    let mut buffer = [0u8; 1024];
    loop {
        // SAFETY: the buffer is as long as said.
        let read = unsafe { call!(libc::SYS_getdents64, directory.0, buffer.as_mut_ptr(), buffer.len()) }?;
        if read == 0 {
            return Ok(());
        }
        let mut rest = buffer.get(..read as usize).unwrap_or_default();
        while let Some(&[low, high]) = rest.get(LENGTH..).and_then(|from| from.first_chunk::<2>()) {
            let length = usize::from(u16::from_le_bytes([low, high]));
            let Some((entry, others)) = rest.split_at_checked(length.max(NAME)) else { break };
            let name = CStr::from_bytes_until_nul(entry.get(NAME..).unwrap_or_default());
            visit(name.unwrap_or_default().to_bytes());
            rest = others;
        }
    }
}
