//! The limits: `msgmax`, `msgmnb`, `msgmni` (`ipc/ipc_sysctl.c`).
//!
//! Each comes from the environment (`USYSV_MSGMAX`, ...), as it was at start-up, else from the namespace
//! ([`crate::namespace::limits`], which is how to set it), else from `/proc/sys/kernel` where that has it, else it
//! is Linux's default. `msgmni` and `msgmnb` are read when a queue is created; `msgmax` is kept in each queue,
//! and a change in the namespace acts at once. (One of the kernel's own file, made by a program that is not on
//! our queues, is noticed when a text exceeds what is kept.)

use crate::namespace::limits::Limit as Stated;
use crate::namespace::{self, Attached};
use crate::os::environment;
use crate::os::signals::{HeldBack, held_back_for};
use crate::os::sysctl;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};

struct Limit {
    stated: Stated,
    variable: &'static CStr,
    file: &'static CStr,
    default: u64,
    /// What the environment says, + 1; 0 while that is not known; `u64::MAX` if it says nothing.
    environment: AtomicU64,
}

impl Limit {
    const fn new(stated: Stated, variable: &'static CStr, file: &'static CStr, default: u64) -> Limit {
        Limit { stated, variable, file, default, environment: AtomicU64::new(0) }
    }

    fn said_by_environment(&self) -> Option<u64> {
        // Relaxed: a number that stands for itself; two that read it at once read the same.
        let known = match self.environment.load(Ordering::Relaxed) {
            0 => {
                let read = environment::number(self.variable).map_or(u64::MAX, |number| number + 1);
                self.environment.store(read, Ordering::Relaxed);
                read
            }
            known => known,
        };
        (known != u64::MAX).then(|| known - 1)
    }

    fn read(&self) -> u64 {
        held_back_for(|held| self.read_where(held, namespace::limits::any()))
    }

    /// The same, knowing whether the namespace sets limits at all.
    fn read_where(&self, held: &HeldBack, namespace_sets_any: bool) -> u64 {
        let stated = || if namespace_sets_any { namespace::limits::stated(self.stated) } else { None };
        let value = self.said_by_environment().or_else(stated);
        value.unwrap_or_else(|| self.elsewhere(held)).min(LARGEST)
    }

    /// What it is if neither environment nor namespace say anything.
    fn elsewhere(&self, held: &HeldBack) -> u64 {
        sysctl::read_u64_while(held, self.file).unwrap_or(self.default)
    }
}

const LARGEST: u64 = i32::MAX as u64;

static MSGMAX: Limit = Limit::new(Stated::Msgmax, c"USYSV_MSGMAX", c"/proc/sys/kernel/msgmax", 8192);
static MSGMNB: Limit = Limit::new(Stated::Msgmnb, c"USYSV_MSGMNB", c"/proc/sys/kernel/msgmnb", 16384);
static MSGMNI: Limit = Limit::new(Stated::Msgmni, c"USYSV_MSGMNI", c"/proc/sys/kernel/msgmni", 32000);

/// The longest text that may be sent, in bytes.
pub fn msgmax() -> u64 {
    MSGMAX.read()
}

/// Whether a text is too long to be sent, to no queue in particular.
#[cold]
pub fn is_too_long(length: u64) -> bool {
    length > msgmax()
}

/// Whether a text is too long to be sent to a queue.
#[inline(always)]
pub fn is_too_long_for(attached: &Attached, length: u64) -> bool {
    // Relaxed: numbers that stand for themselves.
    let known = attached.msgmax().map_or(0, |word| word.load(Ordering::Relaxed)) & u64::from(u32::MAX);
    // A shorter text passes by what the queue says, if the environment says nothing.
    (length >= known || MSGMAX.environment.load(Ordering::Relaxed) != u64::MAX)
        && is_really_too_long_for(attached, length)
}

#[cold]
#[inline(never)]
fn is_really_too_long_for(attached: &Attached, length: u64) -> bool {
    if let Some(value) = MSGMAX.said_by_environment() {
        return length > value.min(LARGEST);
    }
    match attached.msgmax() {
        Some(word) => {
            length > namespace::limits::look_up_msgmax(word, || held_back_for(|held| MSGMAX.elsewhere(held)))
        }
        None => is_too_long(length),
    }
}

/// `msg_qbytes` of a new queue, in bytes.
pub fn msgmnb() -> u64 {
    MSGMNB.read()
}

/// How many queues there may be.
pub fn msgmni() -> u32 {
    MSGMNI.read().min(u64::from(crate::namespace::INDICES)) as u32
}

/// Where a limit comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The environment, as it was at start-up: that variable.
    Environment(&'static CStr),
    /// The namespace: the file of that limit in its directory.
    Namespace,
    /// The kernel: that file.
    Kernel(&'static CStr),
    /// Linux's default.
    Default,
}

/// A limit in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effective {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// Where it comes from.
    pub origin: Origin,
}

/// The limits in force in this process, for people.
pub fn effective() -> [Effective; 3] {
    let limits =
        [("msgmax", &MSGMAX, msgmax()), ("msgmnb", &MSGMNB, msgmnb()), ("msgmni", &MSGMNI, msgmni().into())];
    limits.map(|(name, limit, value)| {
        let origin = if limit.said_by_environment().is_some() {
            Origin::Environment(limit.variable)
        } else if namespace::limits::stated(limit.stated).is_some() {
            Origin::Namespace
        } else if sysctl::read_u64(limit.file).is_some() {
            Origin::Kernel(limit.file)
        } else {
            Origin::Default
        };
        Effective { name, value, origin }
    })
}

/// What matters when a queue is created.
pub struct ForCreation {
    /// `msg_qbytes` of the new queue.
    pub msgmnb: u64,
    /// How many queues there may be.
    pub msgmni: u32,
    /// Whether the namespace may also say which identifier it gets.
    pub namespace_sets_any: bool,
}

/// What matters when a queue is created, with one look whether the namespace sets anything.
pub fn for_creation(held: &HeldBack) -> ForCreation {
    let namespace_sets_any = namespace::limits::any();
    let msgmni = MSGMNI.read_where(held, namespace_sets_any).min(u64::from(namespace::INDICES)) as u32;
    ForCreation { msgmnb: MSGMNB.read_where(held, namespace_sets_any), msgmni, namespace_sets_any }
}

/// Reads what the environment says, before the program changes it.
pub fn prepare() {
    for limit in [&MSGMAX, &MSGMNB, &MSGMNI] {
        limit.said_by_environment();
    }
}
