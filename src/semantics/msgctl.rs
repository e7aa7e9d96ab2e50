//! `msgctl(2)` (`ksys_msgctl` in `ipc/msg.c`).

use super::permissions::{self, Needs};
use super::{identifier, limits};
use crate::namespace::{self, AtIndex};
use crate::os::clock;
use crate::os::credentials::{self, Capability};
use crate::os::errno::Errno;
use crate::queue::{Anybody, Configuration, Status};

/// What `IPC_STAT` and its like tell, and the identifier.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// The identifier.
    pub id: u32,
    /// The rest.
    pub status: Status,
}

/// What `IPC_SET` sets.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Owner; -1 is refused.
    pub uid: u32,
    /// Owner's group; -1 is refused.
    pub gid: u32,
    /// Permission bits; others are ignored.
    pub mode: u32,
    /// `msg_qbytes`, of which the kernel takes the low half as an `int`.
    pub qbytes: u64,
}

/// What `IPC_INFO` and `MSG_INFO` tell.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// The highest index in use; the call's result.
    pub highest: u32,
    /// `msgpool`: queues (`MSG_INFO`) or a constant.
    pub pool: u64,
    /// `msgmap`: messages (`MSG_INFO`) or a constant.
    pub map: u64,
    /// `msgtql`: bytes (`MSG_INFO`) or a constant.
    pub tql: u64,
    /// `msgmax`.
    pub max: u64,
    /// `msgmnb`.
    pub mnb: u64,
    /// `msgmni`.
    pub mni: u64,
}

/// Looks at a queue.
pub fn ipc_stat(msqid: i32) -> Result<Stat, Errno> {
    let attached = namespace::attach(identifier(msqid)?)?;
    let status = attached.queue().status(&Needs::to_read(&attached))?;
    Ok(Stat { id: attached.id(), status })
}

/// Looks at the queue at an index, with permission to read it.
pub fn msg_stat(index: i32) -> Result<Stat, Errno> {
    match namespace::find_index(namespace::index_of(identifier(index)?))? {
        AtIndex::Queue(attached) => {
            let status = attached.queue().status(&Needs::to_read(&attached))?;
            Ok(Stat { id: attached.id(), status })
        }
        AtIndex::Seen(id, status) if permissions::has(id, &status.configuration, permissions::READ) => {
            Ok(Stat { id, status })
        }
        AtIndex::Seen(..) => Err(Errno::EACCES),
    }
}

/// Looks at the queue at an index, whatever its mode.
pub fn msg_stat_any(index: i32) -> Result<Stat, Errno> {
    match namespace::find_index(namespace::index_of(identifier(index)?))? {
        AtIndex::Queue(attached) => {
            let status = attached.queue().status(&Anybody)?;
            Ok(Stat { id: attached.id(), status })
        }
        AtIndex::Seen(id, status) => Ok(Stat { id, status }),
    }
}

/// A queue that may be there, to be changed: where the file system keeps us out, we are not its owner.
fn attach_to_control(msqid: i32) -> Result<namespace::Attached, Errno> {
    namespace::attach(identifier(msqid)?).map_err(|errno| match errno {
        Errno::EACCES => Errno::EPERM,
        errno => errno,
    })
}

/// Changes owner, mode and size of a queue.
pub fn ipc_set(msqid: i32, to: &Settings) -> Result<(), Errno> {
    let attached = attach_to_control(msqid)?;
    // As the kernel does: an int, compared as unsigned, and stored with its sign.
    let qbytes = to.qbytes as i32;
    let settings = attached.queue().configure(&|now| {
        permissions::may_control(attached.id(), &now)?;
        let raised = u64::from(qbytes as u32) > limits::msgmnb();
        if raised && !credentials::capable(Capability::SysResource) {
            return Err(Errno::EPERM);
        }
        if to.uid == u32::MAX || to.gid == u32::MAX {
            return Err(Errno::EINVAL);
        }
        Ok(Configuration {
            uid: to.uid,
            gid: to.gid,
            mode: to.mode & 0o777,
            qbytes: i64::from(qbytes) as u64,
            ctime: clock::seconds(),
            ..now
        })
    })?;
    // What the file system cannot express is still checked by ourselves.
    let _ = namespace::publish_settings(&attached, &settings);
    Ok(())
}

/// Removes a queue.
pub fn ipc_rmid(msqid: i32) -> Result<(), Errno> {
    let attached = attach_to_control(msqid)?;
    let id = attached.id();
    namespace::remove(attached, &|settings| permissions::may_control(id, &settings))
}

fn info(pool: u64, map: u64, tql: u64, highest: u32) -> Info {
    Info {
        highest,
        pool,
        map,
        tql,
        max: limits::msgmax(),
        mnb: limits::msgmnb(),
        mni: u64::from(limits::msgmni()),
    }
}

/// The limits, and constants that nobody uses.
pub fn ipc_info() -> Result<Info, Errno> {
    let mut highest = 0;
    namespace::list(|index| highest = highest.max(index))?;
    Ok(info(512_000, 16_384, 16_384, highest))
}

/// The limits, and what is in use.
pub fn msg_info() -> Result<Info, Errno> {
    let (mut queues, mut messages, mut bytes, mut highest) = (0, 0, 0, 0);
    namespace::list(|index| {
        let Ok((_, status)) = namespace::glimpse(index) else {
            // Perhaps a queue whose creator or remover died half-way.
            namespace::tidy(index);
            return;
        };
        messages += u64::from(status.qnum);
        bytes += status.cbytes;
        queues += 1;
        highest = highest.max(index);
    })?;
    Ok(info(queues, messages, bytes, highest))
}
