//! The four calls as Linux has them (`ipc/msg.c`, `ipc/util.c`): order of errors, permissions, limits,
//! blocking. No unsafe code; the caller's memory is behind the traits that `abi` implements.

#![forbid(unsafe_code)]

pub mod inspect;
pub mod limits;
mod msgctl;
mod msgget;
mod msgrcv;
mod msgsnd;
pub mod permissions;
pub mod table;
mod wait;

pub use msgctl::{
    Info, Settings, Stat, ipc_info, ipc_rmid, ipc_set, ipc_stat, msg_info, msg_stat, msg_stat_any,
};
pub use msgget::msgget;
pub use msgrcv::{Destination, Receiving, msgrcv, start as start_msgrcv};
pub use msgsnd::{Sending, Source, msgsnd, start as start_msgsnd};
pub use wait::Step;

use crate::os::errno::Errno;

/// The identifier in a caller's `msqid`: `EINVAL` if negative.
pub(crate) fn identifier(msqid: i32) -> Result<u32, Errno> {
    u32::try_from(msqid).map_err(|_| Errno::EINVAL)
}
