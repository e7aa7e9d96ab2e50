//! From slices to what `semantics` takes. Nothing here is inlined into the public calls: their stack frames must
//! stay small ([`os::thread::Cookie`](crate::os::thread::Cookie)).

use super::{Error, ErrorKind, MessageType, Received, Result, Selector};
use crate::os::errno::Errno;
use crate::queue::{self, Outgoing, Queue};
use crate::semantics::permissions::Needs;
use crate::semantics::{self, Destination, Source, limits};
use core::cell::Cell;
use core::ptr;

struct Text<'a>(&'a [u8]);

impl Source for Text<'_> {
    fn copy_to(&self, message: &Outgoing) -> core::result::Result<(), Errno> {
        // SAFETY: `message` has room for the text that it was prepared for, which is this one; it is nobody
        // else's, so the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(self.0.as_ptr(), message.text, self.0.len()) };
        Ok(())
    }

    fn probe(&self) -> core::result::Result<(), Errno> {
        Ok(())
    }
}

/// A buffer that is written by at most one call of `put` or `peek` at a time: `semantics` makes no other.
struct Buffer<'a> {
    text: Cell<&'a mut [u8]>,
    mtype: Cell<i64>,
}

impl Destination for Buffer<'_> {
    fn put(&self, received: &queue::Received, size: usize) -> core::result::Result<usize, Errno> {
        let to = self.text.take();
        let length = size.min(received.length as usize).min(to.len());
        if length > 0 {
            // SAFETY: a message received holds its length of text, in memory that nobody else uses as long
            // as the participant is held; the buffer is ours, and that long.
            unsafe { ptr::copy_nonoverlapping(received.text(), to.as_mut_ptr(), length) };
        }
        self.text.set(to);
        self.mtype.set(received.mtype);
        Ok(length)
    }

    fn probe(&self, _: usize) -> core::result::Result<(), Errno> {
        Ok(())
    }

    fn peek(
        &self,
        queue: &Queue,
        position: u64,
        room: usize,
        needs: &Needs,
    ) -> core::result::Result<usize, Errno> {
        let to = self.text.take();
        let room = room.min(to.len());
        // SAFETY: the buffer has that much room, and nobody else looks at it: it is borrowed mutably.
        let peeked = unsafe { queue.peek(position, to.as_mut_ptr(), room, needs) };
        self.text.set(to);
        let (mtype, length) = peeked?;
        self.mtype.set(mtype);
        Ok(length as usize)
    }
}

#[inline(never)]
pub fn send(id: i32, mtype: MessageType, text: &[u8], flags: i32) -> Result<()> {
    semantics::msgsnd(id, mtype.get(), text.len(), flags, &Text(text)).map_err(|errno| match errno {
        // Of the reasons that msgsnd(2) has for this one, the types leave two.
        Errno::EINVAL if limits::is_too_long(text.len() as u64) => Error::new(errno, ErrorKind::TooLong),
        errno => Error::of_queue(errno),
    })
}

#[inline(never)]
pub fn receive(id: i32, selector: Selector, buffer: &mut [u8], flags: i32) -> Result<Received> {
    let (msgtyp, except) = selector.to_msgtyp();
    receive_as(id, msgtyp, buffer, flags | except)
}

#[inline(never)]
pub fn peek(id: i32, position: u64, buffer: &mut [u8]) -> Result<Received> {
    let position = i64::try_from(position).unwrap_or(i64::MAX);
    receive_as(id, position, buffer, libc::MSG_COPY | libc::IPC_NOWAIT)
}

fn receive_as(id: i32, msgtyp: i64, buffer: &mut [u8], flags: i32) -> Result<Received> {
    let size = buffer.len();
    let buffer = Buffer { text: Cell::new(buffer), mtype: Cell::new(0) };
    let length = semantics::msgrcv(id, size, msgtyp, flags, &buffer).map_err(Error::of_queue)?;
    // Nobody sends a type below 1; memory that was tampered with may hold one.
    let mtype = MessageType::new(buffer.mtype.get()).ok_or(Error::of_queue(Errno::EIDRM))?;
    Ok(Received { mtype, length })
}
