//! `msgrcv(2)` (`do_msgrcv` in `ipc/msg.c`).

use super::permissions::Needs;
use super::wait::{Asleep, Ended, Step, Wait};
use super::{identifier, limits};
use crate::namespace::{self, Attached};
use crate::os::errno::Errno;
use crate::os::futex::Woken;
use crate::os::{clock, thread};
use crate::queue::waiters::{HANDED, TOO_BIG, WAITING, state};
use crate::queue::{Missing, Queue, Received, Request, Selector};
use crate::txn::{self, Seat};

/// Where a message goes: the caller's memory.
pub trait Destination {
    /// Writes type and text, at most `size` bytes of that; returns how many. `EFAULT` if it cannot be
    /// written.
    fn put(&self, received: &Received, size: usize) -> Result<usize, Errno>;
    /// `EFAULT` if the first `size` bytes cannot be read: `MSG_COPY` looks at them first.
    fn probe(&self, size: usize) -> Result<(), Errno>;
    /// Peeks at the message at a position of a queue, and writes it.
    fn peek(&self, queue: &Queue, position: u64, room: usize, needs: &Needs) -> Result<usize, Errno>;
}

/// The kernel's `convert_mode`.
fn selector(msgtyp: i64, flags: i32) -> Selector {
    match msgtyp {
        0 => Selector::Any,
        i64::MIN => Selector::AtMost(i64::MAX),
        msgtyp if msgtyp < 0 => Selector::AtMost(-msgtyp),
        msgtyp if flags & libc::MSG_EXCEPT != 0 => Selector::Except(msgtyp),
        msgtyp => Selector::Type(msgtyp),
    }
}

/// Receives a message into a buffer of `size` bytes; returns the length of what was put there.
pub fn msgrcv(
    msqid: i32,
    size: usize,
    msgtyp: i64,
    flags: i32,
    destination: &impl Destination,
) -> Result<usize, Errno> {
    let mut asleep = None;
    let result = start(msqid, size, msgtyp, flags, destination, &mut asleep);
    Step::of(result, asleep).finish(|receiving, woken| receiving.woken(woken, destination))
}

/// Begins to receive a message into a buffer of `size` bytes. Without a result it sleeps.
#[inline(always)]
pub fn start(
    msqid: i32,
    size: usize,
    msgtyp: i64,
    flags: i32,
    destination: &impl Destination,
    asleep: &mut Asleep<Receiving>,
) -> Option<Result<usize, Errno>> {
    if flags & libc::MSG_COPY != 0 {
        return Some(copy(msqid, size, msgtyp, flags, destination));
    }
    // Asked while there is nothing yet that a call would have to put aside.
    let now = clock::seconds();
    match enter(msqid, size) {
        Ok((attached, queue, seat)) => {
            let truncate = flags & libc::MSG_NOERROR != 0;
            let request = Request { selector: selector(msgtyp, flags), size: size as u64, truncate };
            receive(attached, queue, seat, request, flags, now, destination, asleep)
        }
        Err(errno) => Some(Err(errno)),
    }
}

/// The identifier, if it and the size can be right.
#[inline(always)]
fn checked(msqid: i32, size: usize) -> Result<u32, Errno> {
    let id = identifier(msqid)?;
    if size > isize::MAX as usize { Err(Errno::EINVAL) } else { Ok(id) }
}

#[inline(always)]
fn enter(msqid: i32, size: usize) -> Result<(Attached, Queue<'static>, Seat<'static>), Errno> {
    let (id, caller) = (checked(msqid, size)?, thread::caller());
    let attached = namespace::attach_as(id, caller)?;
    let queue = attached.lasting_queue();
    let seat = queue.enter_in(caller, attached.frame())?;
    Ok((attached, queue, seat))
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "compiled into its caller")]
fn receive(
    attached: Attached,
    queue: Queue<'static>,
    seat: Seat<'static>,
    request: Request,
    flags: i32,
    now: u64,
    destination: &impl Destination,
    asleep: &mut Asleep<Receiving>,
) -> Option<Result<usize, Errno>> {
    let needs = Needs::to_read(&attached);
    let mut received = Received::new();
    let received = match queue.take_quickly(&seat, &request, &needs, now, &mut received) {
        Ok(None) => deliver(&queue, &seat, &received, request.size as usize, destination),
        Ok(Some(_)) if flags & libc::IPC_NOWAIT != 0 => Err(Errno::ENOMSG),
        Ok(Some(_)) => return wait(attached, seat, request, needs, destination, asleep),
        Err(errno) => Err(errno),
    };
    seat.release();
    Some(received)
}

/// Copies a message out, and then wakes senders that fit now: in this order, so that a receiver who dies
/// meanwhile has what it took.
#[inline(always)]
fn deliver(
    queue: &Queue,
    seat: &Seat,
    received: &Received,
    size: usize,
    destination: &impl Destination,
) -> Result<usize, Errno> {
    let put = destination.put(received, size);
    if received.senders {
        queue.wake_senders(seat);
    }
    put
}

#[cold]
#[inline(never)]
fn wait(
    attached: Attached,
    seat: Seat<'static>,
    request: Request,
    needs: Needs,
    destination: &impl Destination,
    asleep: &mut Asleep<Receiving>,
) -> Option<Result<usize, Errno>> {
    let gone = Errno::EIDRM;
    let receiving = Receiving { attached, seat, request, needs, wait: Wait::new(), in_line: false, gone };
    receiving.go_on(destination).or_asleep(asleep)
}

/// A call that waits for a message.
pub struct Receiving {
    attached: Attached,
    seat: Seat<'static>,
    request: Request,
    needs: Needs,
    wait: Wait,
    in_line: bool,
    /// What it means that the queue is gone: it was there when the call began, or when it slept last.
    gone: Errno,
}

impl Receiving {
    /// Looks again until there is a message, or reason to sleep.
    fn go_on(mut self, destination: &impl Destination) -> Step<Receiving, usize> {
        loop {
            let queue = self.attached.lasting_queue();
            let spun = !self.in_line && self.wait.spin(&queue, &self.seat, &self.attached);
            let mut received = Received::new();
            match queue.take(&self.seat, &self.request, &self.needs, !spun, &mut received) {
                Ok(None) => {
                    if spun {
                        self.wait.paid(&self.attached);
                    }
                    let size = self.request.size as usize;
                    let put = deliver(&queue, &self.seat, &received, size, destination);
                    return Step::Done(self.end(put));
                }
                Ok(Some(Missing::Nothing)) => continue,
                Ok(Some(Missing::InLine)) => {}
                Err(errno) => {
                    let errno = if errno == Errno::EINVAL { self.gone } else { errno };
                    return Step::Done(self.leave(errno, destination));
                }
            }
            if let Some(bed) = self.wait.bed(&queue, &self.seat, WAITING) {
                return Step::Sleep(self, bed);
            }
            self = match self.look_up(Ended::Changed, destination) {
                Ok(waiting) => waiting,
                Err(result) => return Step::Done(result),
            };
        }
    }

    /// Goes on after a sleep.
    #[inline(never)]
    pub fn woken(mut self, woken: Woken, destination: &impl Destination) -> Step<Receiving, usize> {
        let ended = self.wait.ended(&self.attached, &self.seat, WAITING, woken);
        if ended == Ended::Cut {
            self.seat.forget();
            namespace::detach(self.attached);
            return Step::Done(Err(Errno::EIDRM));
        }
        match self.look_up(ended, destination) {
            Ok(waiting) => waiting.go_on(destination),
            Err(result) => Step::Done(result),
        }
    }

    /// Looks what became of the participant while it slept; the result, if the call is over.
    fn look_up(
        mut self,
        slept: Ended,
        destination: &impl Destination,
    ) -> Result<Receiving, Result<usize, Errno>> {
        let queue = self.attached.lasting_queue();
        let now = txn::value(state(queue.memory(), &self.seat));
        if now & HANDED != 0 {
            let mut received = Received::new();
            match queue.take_handed(&self.seat, &mut received) {
                Ok(true) => {
                    let put = destination.put(&received, self.request.size as usize);
                    return Err(self.end(put));
                }
                Ok(false) => {}
                Err(errno) => return Err(self.end(Err(errno))),
            }
        }
        match slept {
            // A handler ran: whatever it did.
            Ended::Interrupted => return Err(self.leave(Errno::EINTR, destination)),
            _ if now == TOO_BIG => return Err(self.leave(Errno::E2BIG, destination)),
            Ended::Absent => self.gone = Errno::EINVAL,
            Ended::Changed | Ended::Look | Ended::Cut => self.gone = Errno::EIDRM,
        }
        self.in_line = now & !1 == WAITING;
        Ok(self)
    }

    fn leave(self, errno: Errno, destination: &impl Destination) -> Result<usize, Errno> {
        let queue = self.attached.lasting_queue();
        // A queue that cannot even be left any more is damaged; that does not change why the wait ended.
        while queue.stop_waiting(&self.seat).unwrap_or(false) {
            let mut received = Received::new();
            match queue.take_handed(&self.seat, &mut received) {
                Ok(true) => {
                    let put = destination.put(&received, self.request.size as usize);
                    return self.end(put);
                }
                Ok(false) => {}
                Err(_) => break,
            }
        }
        self.end(Err(errno))
    }

    fn end(self, result: Result<usize, Errno>) -> Result<usize, Errno> {
        self.seat.release();
        result
    }
}

/// `MSG_COPY`: `msgtyp` is a position.
#[cold]
fn copy(
    msqid: i32,
    size: usize,
    msgtyp: i64,
    flags: i32,
    destination: &impl Destination,
) -> Result<usize, Errno> {
    let id = checked(msqid, size)?;
    if flags & libc::MSG_EXCEPT != 0 || flags & libc::IPC_NOWAIT == 0 {
        return Err(Errno::EINVAL);
    }
    let room = size.min(limits::msgmax() as usize);
    destination.probe(room)?;
    let attached = namespace::attach(id)?;
    let needs = Needs::to_read(&attached);
    let position = u64::try_from(msgtyp).unwrap_or(u64::MAX);
    let queue = attached.queue();
    destination.peek(&queue, position, room, &needs).map_err(|errno| match errno {
        Errno::E2BIG if flags & libc::MSG_NOERROR != 0 => Errno::EINVAL,
        // One that fits the caller's buffer, but is longer than messages may be by now.
        Errno::E2BIG
            if room < size && queue.length_at(position).is_ok_and(|length| length as usize <= size) =>
        {
            Errno::EINVAL
        }
        errno => errno,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msgtyp_selects_as_in_the_kernel() {
        assert_eq!(selector(0, libc::MSG_EXCEPT), Selector::Any);
        assert_eq!(selector(7, 0), Selector::Type(7));
        assert_eq!(selector(7, libc::MSG_EXCEPT), Selector::Except(7));
        assert_eq!(selector(-7, libc::MSG_EXCEPT), Selector::AtMost(7));
        assert_eq!(selector(i64::MIN, 0), Selector::AtMost(i64::MAX));
        assert_eq!(selector(-i64::MAX, 0), Selector::AtMost(i64::MAX));
    }
}
