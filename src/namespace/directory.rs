//! Which directory it is, what the names in it look like, and who may open what.

use crate::os::environment;
use crate::os::errno::Errno;
use crate::os::file::{self, Fd, Path};
use crate::os::process;
use crate::queue::Configuration;
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use once_cell::race::{OnceBox, OnceRef};

/// Prefix of a queue's name.
pub const QUEUE: &[u8] = b"usysv.q.";
/// Prefix of the name of a queue's body.
pub const BODY: &[u8] = b"usysv.b.";
/// Prefix of a key's name.
const KEY: &[u8] = b"usysv.k.";
/// Prefix of the name of what is being made.
pub const SCRATCH: &[u8] = b"usysv.t.";
const HINTS: &[u8] = b"usysv.ns";

/// Where queues live if nothing else is said: the first of these that is a directory in which this
/// process may create files. All are sticky and root's, so that nobody can remove another's queue.
static PLACES: [Path; 4] =
    [Path::from_c(c"/dev/shm"), Path::from_c(c"/run/shm"), Path::from_c(c"/var/tmp"), Path::from_c(c"/tmp")];

/// The longest name of a directory: with the longest name in it, a path must stay below [`Path::MAX`].
const LONGEST: usize = Path::MAX - 64;
/// Stands for a directory that cannot be: nothing exists below a device.
const NOWHERE: Path = Path::from_c(c"/dev/null");

/// The directory that the environment named, if it did.
// SAFETY: data that is written, as what is usually there. The dynamic linker has written to that page already: what
// every program touches at its start touches no page of its own.
#[unsafe(link_section = ".data.usysv")]
static NAMED: OnceRef<'static, Path> = OnceRef::new();

/// Room for it: to ask for memory at the start of every program that preloads us, perhaps its first, would cost what
/// six other system calls do.
struct Room {
    path: UnsafeCell<Path>,
    taken: AtomicBool,
}

// SAFETY: written by the one who takes it, before anybody is told where it is; never again.
unsafe impl Sync for Room {}

static ROOM: Room = Room { path: UnsafeCell::new(Path::EMPTY), taken: AtomicBool::new(false) };

impl Room {
    fn keep(&'static self, path: Path) -> &'static Path {
        // Relaxed: who takes it is alone with it until the reference is published.
        if self.taken.swap(true, Ordering::Relaxed) {
            // Somebody else reads the environment at this moment.
            return Box::leak(Box::new(path));
        }
        // SAFETY: the first to come, so nobody else has a reference.
        unsafe {
            *self.path.get() = path;
            &*self.path.get()
        }
    }
}

/// What else is known: one of the numbers below, or [`FIRST_PLACE`] + which of [`PLACES`] it is.
// SAFETY: as of `NAMED`.
#[unsafe(link_section = ".data.usysv")]
static CHOSEN: AtomicU32 = AtomicU32::new(UNREAD);
/// The environment has not been read.
const UNREAD: u32 = 0;
/// It names no directory.
const UNNAMED: u32 = 1;
const FIRST_PLACE: u32 = 2;

/// The directory that the program itself chose, if it did.
static GIVEN: OnceBox<Path> = OnceBox::new();

/// The directory of this process's namespace: what the program chose, or `USYSV_DIR` as it was at start-up, or a
/// default that is looked for when it is first needed. Chosen once, by whoever comes first; nobody waits for
/// anybody.
pub fn directory() -> &'static Path {
    if let Some(path) = GIVEN.get().or_else(|| NAMED.get()) {
        return path;
    }
    // Relaxed: what is chosen among was there from the start.
    match CHOSEN.load(Ordering::Relaxed).checked_sub(FIRST_PLACE) {
        Some(place) => PLACES.get(place as usize).unwrap_or(&PLACES[0]),
        None => choose(),
    }
}

/// Chooses the directory, once.
pub fn choose_this(path: &[u8]) -> Result<(), Errno> {
    let path =
        Path::new(&[path]).filter(|path| path.bytes().len() <= LONGEST && path.bytes().starts_with(b"/"));
    GIVEN.set(Box::new(path.ok_or(Errno::EINVAL)?)).map_err(|_| Errno::EBUSY)
}

/// Looks whether the environment names a directory, before the program can change that.
#[inline(always)]
pub fn read_environment() {
    if let Some(value) = environment::variable(c"USYSV_DIR") {
        // What is too long cannot be a directory of ours: calls will answer so.
        let named = Path::new(&[value]).filter(|path| path.bytes().len() <= LONGEST).unwrap_or(NOWHERE);
        if NAMED.get().is_none() {
            // If somebody was faster, theirs is the same.
            let _ = NAMED.set(ROOM.keep(named));
        }
    } else {
        let _ = CHOSEN.compare_exchange(UNREAD, UNNAMED, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cold]
fn choose() -> &'static Path {
    if CHOSEN.load(Ordering::Relaxed) == UNREAD {
        read_environment();
    }
    if let Some(named) = NAMED.get() {
        return named;
    }
    let usable = PLACES.iter().position(|place| file::is_usable_directory(place.as_c())).unwrap_or(0);
    let mine = FIRST_PLACE + usable as u32;
    // The first choice counts, so that all calls of a process see one directory.
    let place = match CHOSEN.compare_exchange(UNNAMED, mine, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => usable,
        Err(theirs) => theirs.saturating_sub(FIRST_PLACE) as usize,
    };
    PLACES.get(place).unwrap_or(&PLACES[0])
}

/// Trouble with the directory, in the words that msgget(2) has for it.
pub fn in_words_of_msgget(errno: Errno) -> Errno {
    match errno {
        Errno::EMFILE | Errno::ENFILE => Errno::ENOMEM,
        Errno::EROFS | Errno::EPERM => Errno::EACCES,
        errno => errno,
    }
}

/// Calls `visit` with every name in the directory.
pub fn list(visit: impl FnMut(&[u8])) -> Result<(), Errno> {
    file::list(directory(), visit).map_err(in_words_of_msgget)
}

fn decimal(mut number: u32, place: &mut [u8; 10]) -> &[u8] {
    let mut start = place.len();
    while let Some(digit) = start.checked_sub(1).and_then(|before| place.get_mut(before)) {
        *digit = b'0' + (number % 10) as u8;
        start -= 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    place.get(start..).unwrap_or_default()
}

/// Reads a decimal number as [`decimal`] writes it: no sign, no leading zero.
pub fn parse(bytes: &[u8]) -> Option<u32> {
    let text = core::str::from_utf8(bytes).ok()?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn in_directory(pieces: [&[u8]; 4]) -> Option<Path> {
    let [a, b, c, d] = pieces;
    Path::new(&[directory().bytes(), b"/", a, b, c, d])
}

/// The name of the queue at an index.
pub fn queue_path(index: u32) -> Option<Path> {
    in_directory([QUEUE, decimal(index, &mut [0; 10]), b"", b""])
}

/// The name of the body of the queue with an identifier.
pub fn body_path(id: u32) -> Option<Path> {
    in_directory([BODY, decimal(id, &mut [0; 10]), b"", b""])
}

/// A slot of a key: `usysv.k.` and the key in hexadecimal; all slots but the first with a number.
pub fn key_path(key: i32, slot: u32) -> Option<Path> {
    let mut hex = [0u8; 8];
    for (place, digit) in hex.iter_mut().rev().enumerate() {
        let nibble = (key as u32 >> (4 * place)) & 15;
        *digit = char::from_digit(nibble, 16).map_or(b'0', |digit| digit as u8);
    }
    match slot {
        0 => in_directory([KEY, &hex, b"", b""]),
        slot => in_directory([KEY, &hex, b".", decimal(slot, &mut [0; 10])]),
    }
}

/// The file of hints.
pub fn hints_path() -> Option<Path> {
    in_directory([HINTS, b"", b"", b""])
}

/// A file of the namespace's limits.
pub fn limit_path(name: &[u8]) -> Option<Path> {
    in_directory([b"usysv.", name, b"", b""])
}

/// A number, as the content of a link.
pub fn number_path(number: u32) -> Option<Path> {
    Path::new(&[decimal(number, &mut [0; 10])])
}

/// A name that nobody else uses.
pub fn scratch_path() -> Option<Path> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    // Relaxed: only uniqueness matters. The pid namespace keeps containers apart that share a directory.
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let (mut pid, mut namespace, mut count) = ([0; 10], [0; 10], [0; 10]);
    let pid = decimal(process::pid(), &mut pid);
    let namespace = decimal(process::pid_namespace(), &mut namespace);
    let name = Path::new(&[pid, b".", namespace, b".", decimal(number, &mut count)])?;
    in_directory([SCRATCH, name.bytes(), b"", b""])
}

/// Which of a queue's files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// Everybody may read it.
    Control,
    /// Only who may send or receive may open it.
    Body,
}

/// What group and others may do with one of a queue's files, as far as the file system can tell reading from writing: a
/// participant that may do either needs both.
fn rights(file: File, settings: &Configuration) -> (u32, u32) {
    let none = if file == File::Control { 4 } else { 0 };
    let rights = |bits: u32| if bits & 6 == 0 { none } else { 6 };
    (rights(settings.mode >> 3), rights(settings.mode))
}

/// The mode of one of a queue's files whose owner is the queue's.
pub fn mode(file: File, settings: &Configuration) -> u32 {
    let (group, other) = rights(file, settings);
    0o600 | group << 3 | other
}

/// Sets owner, group and mode of one of a queue's files so that the file system allows at most what the settings
/// allow: see [`rights`].
///
/// Owner and creator always may: they may remove the queue, whatever its mode. Returns which file it is.
#[inline(never)]
pub fn set_access(fd: &Fd, file: File, settings: &Configuration) -> Result<file::Metadata, Errno> {
    let (group, other) = rights(file, settings);
    let mode = mode(file, settings);
    let mut there = file::status(fd)?;
    if (there.uid, there.gid) != (settings.uid, settings.gid) {
        // Only a privileged process can give a file away; others are let in by name instead.
        let _ = file::set_owner(fd, settings.uid, settings.gid);
        there = file::status(fd)?;
    }
    let owner = (there.uid, there.gid);
    if owner == (settings.uid, settings.gid) && owner == (settings.cuid, settings.cgid) {
        // A new file may have one too, by the default of its directory. It grants nothing where the group's bits, which
        // limit it, are none, and there is nothing to take away where the others' are none as well.
        let harmless = mode == 0o600 && there.mode & 0o070 == 0;
        if !harmless && file::has_attribute(fd, ACL) {
            let _ = file::remove_attribute(fd, ACL);
            there = file::status(fd)?;
        }
        if there.mode != mode {
            file::set_mode(fd, mode)?;
        }
        return Ok(there);
    }
    // Without access control lists owner, group and others of the file must do.
    set_list(fd, &there, settings, group as u16, other as u16).or_else(|_| file::set_mode(fd, mode))?;
    Ok(there)
}

const ACL: &CStr = c"system.posix_acl_access";

/// An access control list (acl(5), `linux/posix_acl_xattr.h`) that names owner, creator and their groups.
#[inline(never)]
fn set_list(
    fd: &Fd,
    there: &file::Metadata,
    settings: &Configuration,
    group: u16,
    other: u16,
) -> Result<(), Errno> {
    const VERSION: u32 = 2;
    const NOBODY: u32 = u32::MAX;
    const USER_OBJ: u16 = 1;
    const USER: u16 = 2;
    const GROUP_OBJ: u16 = 4;
    const GROUP: u16 = 8;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;
    let mut list = [0u8; 4 + 8 * 8];
    let mut length = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(place) = list.get_mut(length..length + bytes.len()) {
            place.copy_from_slice(bytes);
            length += bytes.len();
        }
    };
    put(&VERSION.to_le_bytes());
    let mut entry = |tag: u16, rights: u16, id: u32| {
        put(&tag.to_le_bytes());
        put(&rights.to_le_bytes());
        put(&id.to_le_bytes());
    };
    let ordered = |a: u32, b: u32| if a <= b { [a, b] } else { [b, a] };
    entry(USER_OBJ, 6, NOBODY);
    let users = ordered(settings.uid, settings.cuid);
    for (place, &uid) in users.iter().enumerate() {
        if uid != there.uid && (place == 0 || users[0] != uid) {
            entry(USER, 6, uid);
        }
    }
    let groups = ordered(settings.gid, settings.cgid);
    let own = if groups.contains(&there.gid) { group } else { other };
    entry(GROUP_OBJ, own, NOBODY);
    for (place, &gid) in groups.iter().enumerate() {
        if gid != there.gid && (place == 0 || groups[0] != gid) {
            entry(GROUP, group, gid);
        }
    }
    entry(MASK, 6, NOBODY);
    entry(OTHER, other, NOBODY);
    file::set_attribute(fd, ACL, list.get(..length).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_and_read() {
        for number in [0, 7, 10, 32_767, u32::MAX] {
            let mut place = [0; 10];
            let written = decimal(number, &mut place);
            assert_eq!((written, parse(written)), (number.to_string().as_bytes(), Some(number)));
        }
        for bad in ["", "01", "-1", "+1", "1 ", "4294967296", "x"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn keys_have_names() {
        let name = |key, slot| String::from_utf8(key_path(key, slot).unwrap().bytes().to_vec()).unwrap();
        assert!(name(-1, 0).ends_with("/usysv.k.ffffffff"));
        assert!(name(0x1234, 2).ends_with("/usysv.k.00001234.2"));
    }
}
