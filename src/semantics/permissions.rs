//! Who may do what (`ipcperms` in `ipc/util.c`).
//!
//! Owner or creator: the owner's bits *only*, even if they allow less; else the owner's or creator's group:
//! the group's bits only; else the others' bits. What is denied is granted to `CAP_IPC_OWNER`.
//!
//! User namespaces: a queue's settings hold ids as its creator sees them. Where the owner of its file has no id in
//! the caller's own user namespace, those numbers mean somebody else there: the caller is then one of the others,
//! and its capabilities count for nothing, as they do for files of unmapped owners.
//!
//! Asked at every call, with the credentials and the mode of that moment; the answer is kept per queue until
//! either changes, so that asking again costs nothing.

use crate::namespace::{self, Attached, Attachment};
use crate::os::credentials::{self, Capability};
use crate::os::errno::Errno;
use crate::os::{process, sysctl};
use crate::queue::{Configuration, Permission};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Permission to receive, or to look.
pub const READ: u32 = 0o444;
/// Permission to send.
pub const WRITE: u32 = 0o222;

/// Whose bits count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Owner,
    Group,
    Other,
}

fn class(settings: &Configuration) -> Class {
    let euid = credentials::euid();
    if euid == settings.uid || euid == settings.cuid {
        Class::Owner
    } else if credentials::in_group(settings.gid) || credentials::in_group(settings.cgid) {
        Class::Group
    } else {
        Class::Other
    }
}

/// Whether every user of the system has an id here; asked once, and again in a child and after a change of
/// credentials (`unshare` and `setns` are such).
fn everybody_has_an_id() -> bool {
    /// For which process and credentials it was asked, and the answer in the lowest bit.
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    let asked = (process::generation() << 32 | u64::from(credentials::generation())) << 1;
    // Relaxed: the word stands for itself, what it rests on included.
    let known = KNOWN.load(Ordering::Relaxed);
    if known & !1 == asked {
        return known & 1 != 0;
    }
    let answer = process::in_initial_user_namespace();
    KNOWN.store(asked | u64::from(answer), Ordering::Relaxed);
    answer
}

/// Whether the ids in a queue's settings are not of this process's user namespace: the file's owner, whom the kernel
/// translates, has no id here, and the settings do not say that it is the user of that very number.
#[cold]
fn is_foreign(id: u32, settings: &Configuration) -> bool {
    const DEFAULT: u64 = 65_534;
    /// Whether this was asked before.
    static ASKED: AtomicBool = AtomicBool::new(false);
    let is_owners = |owner: Option<u32>| owner.is_none_or(|id| id == settings.uid || id == settings.cuid);
    // The first time by the file's owner alone, which usually suffices: a program that uses one queue once need not
    // ask for its namespace, which is the dearer of the two questions but is asked only once.
    // Relaxed: a choice between two ways to the same answer.
    if !ASKED.swap(true, Ordering::Relaxed) && is_owners(namespace::owner(id)) {
        return false;
    }
    if everybody_has_an_id() {
        return false;
    }
    let owner = namespace::owner(id);
    let Some(owner) = owner.filter(|_| !is_owners(owner)) else { return false };
    u64::from(owner) == sysctl::read_u64(c"/proc/sys/kernel/overflowuid").unwrap_or(DEFAULT)
}

/// What is wanted and not in the mode, for a class: `flag` is three octal digits, all of which are wanted.
fn missing(flag: u32, mode: u32, class: Class) -> u32 {
    let wanted = flag >> 6 | flag >> 3 | flag;
    let granted = match class {
        Class::Owner => mode >> 6,
        Class::Group => mode >> 3,
        Class::Other => mode,
    };
    wanted & !granted & 7
}

/// Whether the caller has the rights in `flag` on the queue with that identifier and these settings.
pub fn has(id: u32, settings: &Configuration, flag: u32) -> bool {
    grants(settings, flag, is_foreign(id, settings))
}

/// The same, knowing whether the ids in the settings are those of another user namespace.
fn grants(settings: &Configuration, flag: u32, foreign: bool) -> bool {
    if foreign {
        return missing(flag, settings.mode, Class::Other) == 0;
    }
    missing(flag, settings.mode, class(settings)) == 0 || credentials::capable(Capability::IpcOwner)
}

/// Whether the caller may change or remove a queue: its owner or creator, or who has `CAP_SYS_ADMIN`.
pub fn may_control(id: u32, settings: &Configuration) -> Result<(), Errno> {
    if is_foreign(id, settings) {
        return Err(Errno::EPERM);
    }
    let euid = credentials::euid();
    let owns = euid == settings.uid || euid == settings.cuid;
    if owns || credentials::capable(Capability::SysAdmin) { Ok(()) } else { Err(Errno::EPERM) }
}

/// The rights a call needs on an attached queue.
#[derive(Clone, Copy)]
pub struct Needs {
    attachment: &'static Attachment,
    bit: u64,
}

/// A decision that was made: `settings' version : 31 | credentials' generation : 30 | write, read, valid`.
const VALID: u64 = 1;
const MAY_READ: u64 = 2;
const MAY_WRITE: u64 = 4;

/// What a valid decision rests on.
#[inline(always)]
fn basis(version: u32) -> u64 {
    const { assert!(credentials::MARK < 1 << 30) };
    u64::from(version) << 33 | u64::from(credentials::generation()) << 3 | VALID
}

impl Needs {
    /// The right to receive, or to look.
    #[inline]
    pub fn to_read(attached: &Attached) -> Needs {
        Needs { attachment: attached.attachment(), bit: MAY_READ }
    }

    /// The rights in `flag` (as [`has`]), if that is a matter of reading and writing.
    pub fn all_of(attached: &Attached, flag: u32) -> Option<Needs> {
        let wanted = flag >> 6 | flag >> 3 | flag;
        let bit =
            (if wanted & 4 != 0 { MAY_READ } else { 0 }) | (if wanted & 2 != 0 { MAY_WRITE } else { 0 });
        (wanted & 1 == 0).then(|| Needs { attachment: attached.attachment(), bit })
    }

    /// The right to send.
    #[inline]
    pub fn to_write(attached: &Attached) -> Needs {
        Needs { attachment: attached.attachment(), bit: MAY_WRITE }
    }

    #[inline(always)]
    fn answer(&self, decision: u64) -> Result<(), Errno> {
        if decision & self.bit == self.bit { Ok(()) } else { Err(Errno::EACCES) }
    }

    #[cold]
    fn decide(&self, basis: u64, settings: &dyn Fn() -> Result<Configuration, Errno>) -> Result<u64, Errno> {
        let settings = settings()?;
        let foreign = is_foreign(self.attachment.id(), &settings);
        let mut decision = basis;
        if grants(&settings, READ, foreign) {
            decision |= MAY_READ;
        }
        if grants(&settings, WRITE, foreign) {
            decision |= MAY_WRITE;
        }
        // Relaxed: the word stands for itself, what it rests on included.
        self.attachment.decision.store(decision, Ordering::Relaxed);
        Ok(decision)
    }
}

impl Permission for Needs {
    fn check(&self, version: u32, settings: &dyn Fn() -> Result<Configuration, Errno>) -> Result<(), Errno> {
        if let Some(known) = self.known(version) {
            return known;
        }
        self.answer(self.decide(basis(version), settings)?)
    }

    #[inline(always)]
    fn known(&self, version: u32) -> Option<Result<(), Errno>> {
        let decision = self.attachment.decision.load(Ordering::Relaxed);
        (decision & !(MAY_READ | MAY_WRITE) == basis(version)).then(|| self.answer(decision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bits_of_ones_class_count() {
        for (flag, mode, class, expected) in [
            (READ, 0o400, Class::Owner, true),
            (READ, 0o066, Class::Owner, false),
            (READ, 0o040, Class::Group, true),
            (WRITE, 0o040, Class::Group, false),
            (READ, 0o404, Class::Group, false),
            (WRITE, 0o002, Class::Other, true),
            (READ | WRITE, 0o666, Class::Other, true),
            (0, 0, Class::Other, true),
            (0o111, 0o111, Class::Other, true),
            (0o600, 0o600, Class::Owner, true),
            (0o600, 0o600, Class::Other, false),
            (0o666, 0o644, Class::Other, false),
        ] {
            assert_eq!(missing(flag, mode, class) == 0, expected, "{flag:o} {mode:o} {class:?}");
        }
    }
}
