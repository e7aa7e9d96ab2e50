//! `msgget(2)` (`ipcget` in `ipc/util.c`, `newque` in `ipc/msg.c`).

use super::{limits, permissions};
use crate::namespace::{self, Found};
use crate::os::errno::Errno;
use crate::os::signals::held_back_for;
use crate::os::{clock, credentials};
use crate::queue::Configuration;

/// How often two creators of one key may be in each other's way before one gives up.
const PATIENCE: u32 = 1000;

/// Finds or creates the queue of a key; returns its identifier.
pub fn msgget(key: i32, flags: i32) -> Result<u32, Errno> {
    let settings = |qbytes| {
        let (uid, gid) = (credentials::euid(), credentials::egid());
        Configuration {
            key,
            mode: flags as u32 & 0o777,
            uid,
            gid,
            cuid: uid,
            cgid: gid,
            qbytes,
            ctime: clock::seconds(),
        }
    };
    for _ in 0..PATIENCE {
        if key != libc::IPC_PRIVATE
            && let Some(found) = namespace::find_key(key)?
        {
            match check(found, flags)? {
                Some(id) => return Ok(id),
                // Removed at this moment.
                None => continue,
            }
        }
        if key != libc::IPC_PRIVATE && flags & libc::IPC_CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        let created = held_back_for(|held| {
            let limits = limits::for_creation(held);
            let settings = settings(limits.msgmnb);
            namespace::create(held, &settings, limits.msgmni, limits.namespace_sets_any)
        })?;
        if let Some(created) = created {
            return Ok(created.id());
        }
    }
    Err(Errno::ENOMEM)
}

/// Whether the caller gets the queue that its key has; `None` if that is gone.
fn check(found: Found, flags: i32) -> Result<Option<u32>, Errno> {
    const ONLY_NEW: i32 = libc::IPC_CREAT | libc::IPC_EXCL;
    if flags & ONLY_NEW == ONLY_NEW {
        return Err(Errno::EEXIST);
    }
    let wanted = flags as u32 & 0o777;
    match found {
        Found::Denied(id, settings) if permissions::has(id, &settings, wanted) => Ok(Some(id)),
        Found::Denied(..) => Err(Errno::EACCES),
        Found::Queue(attached) => {
            let permitted = match permissions::Needs::all_of(&attached, wanted) {
                Some(needs) => attached.queue().permits(&needs),
                None => attached.queue().settings().and_then(|settings| {
                    if permissions::has(attached.id(), &settings, wanted) {
                        Ok(())
                    } else {
                        Err(Errno::EACCES)
                    }
                }),
            };
            match permitted {
                Ok(()) => Ok(Some(attached.id())),
                Err(Errno::EACCES) => Err(Errno::EACCES),
                Err(_) => Ok(None),
            }
        }
    }
}
