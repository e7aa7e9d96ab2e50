//! The exported symbols, one line each.
//!
//! Signatures are the C library's own (`<sys/msg.h>`), so that these symbols can stand in for it by
//! `LD_PRELOAD` or by linking. Nothing is decided here: each function hands its arguments to its
//! namesake in [`super::calls`], which owns the panic boundary, `errno` and the caller's memory.
//!
//! `include/usysv.h` is generated from this file alone (`build.rs`, `cbindgen.toml`), so the doc comments
//! below are written for a reader of the header too: plain text, no links into the crate. An annotation
//! `cbindgen:postfix=...` in a comment ends up behind the prototype and not in the header's text.

use super::calls;
use super::edge::cancellation_point;
use crate::os::thread::entering;
use libc::{c_int, c_long, c_uint, c_void, key_t, msqid_ds, size_t, ssize_t};

/// Version of the header: major * 10000 + minor * 100 + patch. What the library itself was built as,
/// `usysv_version` tells at run time.
pub const USYSV_VERSION_NUMBER: c_int = 100;

/// Bit of `usysv_features`: the library can be preloaded under programs that know nothing of it.
pub const USYSV_FEATURE_PRELOAD: c_uint = 1;

/// Bit of `usysv_features`: blocked receivers are served by hand-off in order of arrival, as the kernel
/// serves them.
pub const USYSV_FEATURE_HANDOFF: c_uint = 2;

/// Bit of `usysv_features`: `msgrcv` understands `MSG_COPY`.
pub const USYSV_FEATURE_MSG_COPY: c_uint = 4;

/// What this build of the library offers, as `usysv_features` returns it. (Private: not in the header.)
const FEATURES: c_uint = if cfg!(feature = "interpose") { USYSV_FEATURE_PRELOAD } else { 0 }
    | USYSV_FEATURE_HANDOFF
    | USYSV_FEATURE_MSG_COPY;

/// Finds the message queue of `key`, or creates it, and returns its identifier.
///
/// `key` is any value of `key_t`, -1 included; `IPC_PRIVATE` (0) creates a queue of its own each time.
/// `msgflg` is `IPC_CREAT` and `IPC_EXCL` or'ed with nine permission bits: those of a new queue, or those
/// the caller wants to have on an existing one.
///
/// Returns a non-negative identifier, valid in every process that shares the namespace, or -1 with
/// `errno` set: `EACCES` (the queue exists, its mode denies what `msgflg` asks for), `EEXIST`
/// (`IPC_CREAT | IPC_EXCL` and it exists), `ENOENT` (it does not exist, no `IPC_CREAT`), `ENOMEM`,
/// `ENOSPC` (the limit of queues, `msgmni`).
///
/// As in msgget(2); Linux `ipc/util.c`, `ipcget`.
///
/// cbindgen:postfix=USYSV_NOTHROW
#[unsafe(no_mangle)]
pub extern "C" fn msgget(key: key_t, msgflg: c_int) -> c_int {
    entering(|| calls::msgget(key, msgflg))
}

/// Appends a message to the queue `msqid`.
///
/// `msgp` points to a `long` type, greater than 0, followed by `msgsz` bytes of text; `msgsz` counts the
/// text only and is at most `msgmax` (8192 bytes by default). While the queue is full the call waits, or
/// fails at once if `msgflg` has `IPC_NOWAIT`.
///
/// Returns 0, or -1 with `errno` set: `EFAULT` (`msgp` cannot be read), `EINVAL` (no such queue, type below
/// 1, `msgsz` too large), `EACCES` (no write permission), `EAGAIN` (full, `IPC_NOWAIT`), `EIDRM` (removed
/// while waiting), `EINTR` (a signal handler ran while waiting), `ENOMEM`.
///
/// As in msgop(2); Linux `ipc/msg.c`, `do_msgsnd`.
///
/// # Safety
/// `msgp` must be null or point to the type and `msgsz` bytes of text, which nobody writes during the call.
/// An address that is not mapped is answered with `EFAULT`, as the kernel does.
#[unsafe(no_mangle)]
#[cfg_attr(any(target_arch = "x86_64", target_arch = "aarch64"), unsafe(naked))]
pub unsafe extern "C" fn msgsnd(msqid: c_int, msgp: *const c_void, msgsz: size_t, msgflg: c_int) -> c_int {
    cancellation_point!(calls::begin_send, [msqid, msgp, msgsz, msgflg])
}

/// Takes a message out of the queue `msqid`.
///
/// `msgp` points to room for a `long` type and `msgsz` bytes of text. `msgtyp` chooses: 0 the oldest
/// message; above 0 the oldest of that type, or with `MSG_EXCEPT` of any other type; below 0 the lowest
/// type up to its absolute value, and of that type the oldest. While there is none the call waits, or fails
/// at once if `msgflg` has `IPC_NOWAIT`. A text longer than `msgsz` is cut with `MSG_NOERROR`, else it
/// stays where it is. `MSG_COPY | IPC_NOWAIT` copies the message at position `msgtyp`, counted from 0, and
/// leaves the queue as it is.
///
/// Returns the number of bytes of text stored, or -1 with `errno` set: `EINVAL` (no such queue, `msgsz` above
/// `LONG_MAX`, flags that exclude each other), `EACCES` (no read permission), `E2BIG` (text too long),
/// `ENOMSG` (none there, `IPC_NOWAIT`), `EIDRM` (removed while waiting), `EINTR` (a signal handler ran while
/// waiting), `EFAULT` (`msgp` cannot be written; the message is gone, as in the kernel), `ENOMEM`.
///
/// As in msgop(2); Linux `ipc/msg.c`, `do_msgrcv`.
///
/// # Safety
/// `msgp` must be null or point to room for the type and `msgsz` bytes of text, which nobody else uses during
/// the call. An address that is not mapped is answered with `EFAULT`, as the kernel does.
#[unsafe(no_mangle)]
#[cfg_attr(any(target_arch = "x86_64", target_arch = "aarch64"), unsafe(naked))]
pub unsafe extern "C" fn msgrcv(
    msqid: c_int,
    msgp: *mut c_void,
    msgsz: size_t,
    msgtyp: c_long,
    msgflg: c_int,
) -> ssize_t {
    cancellation_point!(calls::begin_receive, [msqid, msgp, msgsz, msgtyp, msgflg])
}

/// Examines, changes or removes the queue `msqid`.
///
/// `cmd` is `IPC_STAT` (fills `*buf`), `IPC_SET` (takes owner, mode and `msg_qbytes` from `*buf`), `IPC_RMID`
/// (removes the queue and wakes whoever waits in it; `buf` is not looked at), or one of Linux's own: `IPC_INFO`
/// and `MSG_INFO` (`buf` is a `struct msginfo *`), `MSG_STAT` and `MSG_STAT_ANY` (`msqid` is an index). Sizes
/// are in bytes, times in seconds since 1970.
///
/// Returns 0; for `IPC_INFO` and `MSG_INFO` the highest index in use; for `MSG_STAT` and `MSG_STAT_ANY` the
/// queue's identifier; or -1 with `errno` set: `EINVAL` (no such queue or command), `EACCES` (no read
/// permission), `EPERM` (`IPC_SET` and `IPC_RMID` by somebody who neither owns nor made the queue; raising
/// `msg_qbytes` above `msgmnb` without privilege), `EFAULT` (`buf` cannot be read or written).
///
/// As in msgctl(2); Linux `ipc/msg.c`, `ksys_msgctl`.
///
/// # Safety
/// `buf` must be null or point to the structure that `cmd` wants, which nobody else uses during the call. An
/// address that is not mapped is answered with `EFAULT`, as the kernel does.
///
/// cbindgen:postfix=USYSV_NOTHROW
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msgctl(msqid: c_int, cmd: c_int, buf: *mut msqid_ds) -> c_int {
    // SAFETY: the caller's promise about buf, unchanged.
    entering(|| unsafe { calls::msgctl(msqid, cmd, buf) })
}

/// The version of the library that is loaded: major * 10000 + minor * 100 + patch, to be compared with
/// `USYSV_VERSION_NUMBER`. Never fails. That it can be found at all (`dlsym`) tells a program that its
/// message queues are these and not the kernel's.
///
/// cbindgen:postfix=USYSV_NOTHROW
#[unsafe(no_mangle)]
pub extern "C" fn usysv_version() -> c_int {
    USYSV_VERSION_NUMBER
}

/// What the library that is loaded can do: `USYSV_FEATURE_...` bits. Never fails; bits without a name here
/// belong to a newer version.
///
/// cbindgen:postfix=USYSV_NOTHROW
#[unsafe(no_mangle)]
pub extern "C" fn usysv_features() -> c_uint {
    FEATURES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_constant_is_the_package_version() {
        let parts: Vec<c_int> = env!("CARGO_PKG_VERSION")
            .split('.')
            .map(|part| part.parse().expect("a plain major.minor.patch version"))
            .collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(USYSV_VERSION_NUMBER, parts[0] * 10000 + parts[1] * 100 + parts[2]);
        assert_eq!(usysv_version(), USYSV_VERSION_NUMBER);
    }
}
