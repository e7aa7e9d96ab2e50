//! From C arguments to Rust and back: the caller's memory, the layout of its structures, and `errno`.
//!
//! Invariants:
//! 1. `errno` is written here and nowhere else, and only when a call fails.
//! 2. Nothing here is inlined into the exported functions: their stack frames must stay small
//!    (`os::thread::entering`). For `msgsnd` and `msgrcv`, which come in pieces, see [`super::edge`].
//! 3. No panic leaves: the code below has none, and a release build aborts on one rather than unwind into C.

use super::edge::Call;
use super::user::{self, Fault, Good};
use crate::os::errno::{self, Errno};
use crate::os::memory;
use crate::queue::{Outgoing, Queue, Received};
use crate::semantics::permissions::Needs;
use crate::semantics::{self, Destination, Info, Receiving, Sending, Settings, Source, Stat, Step};
use core::mem::offset_of;
use core::ptr;
use libc::{c_int, c_long, c_void, key_t, msginfo, msqid_ds};

/// Offset of the text in a caller's message: behind the `long`.
const TEXT: usize = size_of::<c_long>();
/// Texts up to this are peeked at on the stack.
const SMALL: usize = 1024;

impl From<Fault> for Errno {
    fn from(Fault: Fault) -> Errno {
        Errno::EFAULT
    }
}

fn answer<T: TryFrom<usize> + From<i8>>(result: Result<usize, Errno>) -> T {
    match result.map(T::try_from) {
        Ok(Ok(value)) => value,
        Ok(Err(_)) => T::from(-1),
        Err(errno) => {
            errno::set(errno);
            T::from(-1)
        }
    }
}

/// See [`super::exports::msgget`].
#[inline(never)]
pub fn msgget(key: key_t, msgflg: c_int) -> c_int {
    answer(semantics::msgget(key, msgflg).map(|id| id as usize))
}

struct Text {
    address: *const u8,
    length: usize,
    /// The page that the type before it ends in.
    good: Good,
}

impl Source for Text {
    #[inline(always)]
    fn copy_to(&self, message: &Outgoing) -> Result<(), Errno> {
        // SAFETY: `message` has room for the text it was prepared for; the source is checked by `user`.
        unsafe { user::copy_in(message.text, self.address, self.length, self.good) }?;
        Ok(())
    }

    #[cold]
    fn probe(&self) -> Result<(), Errno> {
        // SAFETY: `user` checks the address.
        unsafe { user::probe_read(self.address, self.length) }?;
        Ok(())
    }
}

/// Begins [`msgsnd`](super::exports::msgsnd), whose arguments are in the frame.
///
/// # Safety
/// As there; the frame is the call's alone.
#[allow(clippy::useless_conversion, reason = "elsewhere a long has 32 bits")]
pub unsafe extern "C" fn begin_send(call: *mut Call) -> isize {
    // SAFETY: the caller's promise.
    let call = unsafe { &mut *call };
    loop {
        let [msqid, msgp, msgsz, msgflg, _] = call.arguments;
        let message = ptr::with_exposed_provenance::<u8>(msgp);
        let mut asleep = None;
        let result = call.cookie.entering(|| {
            // SAFETY: `user` checks the address.
            match unsafe { user::read_long(message.cast()) } {
                Ok((mtype, good)) => {
                    let text = Text { address: message.wrapping_add(TEXT), length: msgsz, good };
                    let (msqid, msgflg) = (msqid as c_int, msgflg as c_int);
                    semantics::start_msgsnd(msqid, mtype.into(), msgsz, msgflg, &text, &mut asleep)
                }
                Err(fault) => Some(Err(fault.into())),
            }
        });
        match result {
            Some(result) if is_to_be_made_again(call, &result) => {}
            Some(result) => return finish(call, result.map(|()| 0)),
            None => return call.sleep_if(asleep, resume_send),
        }
    }
}

/// Goes on with a call that [`begin_send`] began, after it slept.
///
/// # Safety
/// As there.
unsafe extern "C" fn resume_send(call: *mut Call) -> isize {
    // SAFETY: the caller's promise.
    let frame = unsafe { &mut *call };
    // SAFETY: only `begin_send` and this function put this one to sleep.
    let (waiting, woken) = unsafe { frame.woken::<Sending>() };
    match frame.cookie.going_on(|| waiting.woken(woken)) {
        // SAFETY: the caller's promise.
        Step::Done(result) if is_to_be_made_again(frame, &result) => unsafe { begin_send(call) },
        Step::Done(result) => finish(frame, result.map(|()| 0)),
        Step::Sleep(waiting, bed) => frame.sleep(waiting, bed, resume_send),
    }
}

/// Whether this is the child of a fork in the middle of the call, which makes it again. If it was interrupted
/// while it waited, that is as true here.
#[inline(always)]
fn is_to_be_made_again<T>(call: &Call, result: &Result<T, Errno>) -> bool {
    call.cookie.is_disowned() && !matches!(result, Err(Errno::EINTR))
}

#[inline(always)]
fn finish(call: &mut Call, result: Result<usize, Errno>) -> isize {
    call.done();
    answer(result)
}

#[derive(Clone, Copy)]
struct Buffer(*mut c_void);

impl Buffer {
    /// Writes type and text, as `do_msg_fill` in the kernel does: the type first.
    #[inline(always)]
    fn write(&self, mtype: i64, text: *const u8, length: usize) -> Result<usize, Errno> {
        // SAFETY: `user` checks the caller's addresses; `text` holds `length` bytes.
        unsafe {
            let good = user::write_long(self.0.cast(), mtype as c_long)?;
            user::copy_out(self.0.cast::<u8>().wrapping_add(TEXT), text, length, good)?;
        }
        Ok(length)
    }
}

impl Destination for Buffer {
    #[inline(always)]
    fn put(&self, received: &Received, size: usize) -> Result<usize, Errno> {
        self.write(received.mtype, received.text(), size.min(received.length as usize))
    }

    fn probe(&self, size: usize) -> Result<(), Errno> {
        // SAFETY: `user` checks the address.
        unsafe { user::probe_read(self.0.cast(), size) }?;
        Ok(())
    }

    fn peek(&self, queue: &Queue, position: u64, room: usize, needs: &Needs) -> Result<usize, Errno> {
        let mut small = [0u8; SMALL];
        if room <= SMALL {
            // SAFETY: there is that much room.
            let (mtype, length) = unsafe { queue.peek(position, small.as_mut_ptr(), room, needs) }?;
            return self.write(mtype, small.as_ptr(), length as usize);
        }
        let large = memory::map_anonymous(room)?;
        // SAFETY: there is that much room.
        let result = unsafe { queue.peek(position, large, room, needs) }
            .and_then(|(mtype, length)| self.write(mtype, large, length as usize));
        // SAFETY: mapped above, used by nobody else.
        unsafe { memory::unmap(large, room) };
        result
    }
}

/// Begins [`msgrcv`](super::exports::msgrcv), whose arguments are in the frame.
///
/// # Safety
/// As there; the frame is the call's alone.
#[allow(clippy::useless_conversion, reason = "elsewhere a long has 32 bits")]
pub unsafe extern "C" fn begin_receive(call: *mut Call) -> isize {
    // SAFETY: the caller's promise.
    let call = unsafe { &mut *call };
    loop {
        let [msqid, _, msgsz, msgtyp, msgflg] = call.arguments;
        let buffer = buffer(call);
        let mut asleep = None;
        let result = call.cookie.entering(|| {
            let msgtyp = (msgtyp as c_long).into();
            semantics::start_msgrcv(msqid as c_int, msgsz, msgtyp, msgflg as c_int, &buffer, &mut asleep)
        });
        match result {
            Some(result) if is_to_be_made_again(call, &result) => {}
            Some(result) => return finish(call, result),
            None => return call.sleep_if(asleep, resume_receive),
        }
    }
}

/// Goes on with a call that [`begin_receive`] began, after it slept.
///
/// # Safety
/// As there.
unsafe extern "C" fn resume_receive(call: *mut Call) -> isize {
    // SAFETY: the caller's promise.
    let frame = unsafe { &mut *call };
    // SAFETY: only `begin_receive` and this function put this one to sleep.
    let (waiting, woken) = unsafe { frame.woken::<Receiving>() };
    let buffer = buffer(frame);
    match frame.cookie.going_on(|| waiting.woken(woken, &buffer)) {
        // SAFETY: the caller's promise.
        Step::Done(result) if is_to_be_made_again(frame, &result) => unsafe { begin_receive(call) },
        Step::Done(result) => finish(frame, result),
        Step::Sleep(waiting, bed) => frame.sleep(waiting, bed, resume_receive),
    }
}

fn buffer(call: &Call) -> Buffer {
    let [_, msgp, ..] = call.arguments;
    Buffer(ptr::with_exposed_provenance_mut(msgp))
}

/// Copies a structure out, as the caller's C library lays it out.
fn write<T>(to: *mut c_void, value: &T) -> Result<(), Errno> {
    // SAFETY: `user` checks the caller's address; the value is that long.
    unsafe { user::copy_out(to.cast(), (&raw const *value).cast(), size_of::<T>(), Good::NONE) }?;
    Ok(())
}

fn put_stat(to: *mut msqid_ds, stat: Stat) -> Result<usize, Errno> {
    let (settings, status) = (stat.status.configuration, stat.status);
    // SAFETY: integers all of them: zero is a value.
    let mut ds: msqid_ds = unsafe { core::mem::zeroed() };
    ds.msg_perm.__key = settings.key;
    ds.msg_perm.uid = settings.uid;
    ds.msg_perm.gid = settings.gid;
    ds.msg_perm.cuid = settings.cuid;
    ds.msg_perm.cgid = settings.cgid;
    ds.msg_perm.mode = settings.mode as _;
    ds.msg_perm.__seq = (stat.id >> 15) as _;
    ds.msg_stime = status.stime as _;
    ds.msg_rtime = status.rtime as _;
    ds.msg_ctime = settings.ctime as _;
    ds.__msg_cbytes = status.cbytes as _;
    ds.msg_qnum = status.qnum as _;
    ds.msg_qbytes = settings.qbytes as _;
    ds.msg_lspid = status.lspid as _;
    ds.msg_lrpid = status.lrpid as _;
    write(to.cast(), &ds)?;
    Ok(stat.id as usize)
}

fn put_info(to: *mut msqid_ds, info: Info) -> Result<usize, Errno> {
    // SAFETY: integers all of them: zero is a value. All bytes, padding included: the caller gets them.
    let mut info_struct: msginfo = unsafe { core::mem::zeroed() };
    info_struct.msgpool = info.pool as c_int;
    info_struct.msgmap = info.map as c_int;
    info_struct.msgmax = info.max as c_int;
    info_struct.msgmnb = info.mnb as c_int;
    info_struct.msgmni = info.mni as c_int;
    info_struct.msgssz = 16;
    info_struct.msgtql = info.tql as c_int;
    info_struct.msgseg = 0xffff;
    write(to.cast(), &info_struct)?;
    Ok(info.highest as usize)
}

fn get_settings(from: *const msqid_ds) -> Result<Settings, Errno> {
    // SAFETY: integers all of them: zero is a value.
    let mut ds: msqid_ds = unsafe { core::mem::zeroed() };
    // SAFETY: `user` checks the caller's address; there is room for one structure.
    unsafe { user::copy_in((&raw mut ds).cast(), from.cast(), size_of::<msqid_ds>(), Good::NONE) }?;
    Ok(Settings {
        uid: ds.msg_perm.uid,
        gid: ds.msg_perm.gid,
        mode: u32::from(ds.msg_perm.mode as u16),
        qbytes: ds.msg_qbytes as u64,
    })
}

/// See [`super::exports::msgctl`].
///
/// # Safety
/// As there.
#[inline(never)]
pub unsafe fn msgctl(msqid: c_int, cmd: c_int, buf: *mut msqid_ds) -> c_int {
    const MSG_STAT_ANY: c_int = 13;
    let result = if msqid < 0 || cmd < 0 {
        Err(Errno::EINVAL)
    } else {
        match cmd {
            libc::IPC_STAT => semantics::ipc_stat(msqid).and_then(|stat| put_stat(buf, stat)).map(|_| 0),
            libc::MSG_STAT => semantics::msg_stat(msqid).and_then(|stat| put_stat(buf, stat)),
            MSG_STAT_ANY => semantics::msg_stat_any(msqid).and_then(|stat| put_stat(buf, stat)),
            libc::IPC_SET => {
                let settings = get_settings(buf);
                settings.and_then(|settings| semantics::ipc_set(msqid, &settings)).map(|()| 0)
            }
            libc::IPC_RMID => semantics::ipc_rmid(msqid).map(|()| 0),
            libc::IPC_INFO => semantics::ipc_info().and_then(|info| put_info(buf, info)),
            libc::MSG_INFO => semantics::msg_info().and_then(|info| put_info(buf, info)),
            _ => Err(Errno::EINVAL),
        }
    };
    answer(result)
}

/// The structure as the kernel and the C library have it on 64-bit Linux (`<bits/types/struct_msqid_ds.h>`).
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<msqid_ds>() == 120);
    assert!(offset_of!(msqid_ds, msg_stime) == 48);
    assert!(offset_of!(msqid_ds, msg_qbytes) == 88);
    assert!(offset_of!(msqid_ds, msg_lrpid) == 100);
    assert!(size_of::<msginfo>() == 32);
};
