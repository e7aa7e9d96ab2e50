//! `msgsnd(2)` (`do_msgsnd` in `ipc/msg.c`).

use super::permissions::Needs;
use super::wait::{Asleep, Ended, Step, Wait, has_sent};
use super::{identifier, limits};
use crate::namespace::{self, Attached};
use crate::os::errno::Errno;
use crate::os::futex::Woken;
use crate::os::{clock, thread};
use crate::queue::waiters::FULL;
use crate::queue::{Outgoing, Queue, Sent};
use crate::txn::Seat;

/// The text to be sent, in the caller's memory.
pub trait Source {
    /// Copies all of it to `message`; `EFAULT` if it cannot be read.
    fn copy_to(&self, message: &Outgoing) -> Result<(), Errno>;
    /// `EFAULT` if it cannot be read.
    fn probe(&self) -> Result<(), Errno>;
}

/// Sends a message of type `mtype` and a text of `size` bytes.
pub fn msgsnd(msqid: i32, mtype: i64, size: usize, flags: i32, source: &impl Source) -> Result<(), Errno> {
    let mut asleep = None;
    let result = start(msqid, mtype, size, flags, source, &mut asleep);
    Step::of(result, asleep).finish(Sending::woken)
}

/// Begins to send a message of type `mtype` and a text of `size` bytes. Without a result it sleeps.
#[inline(always)]
pub fn start(
    msqid: i32,
    mtype: i64,
    size: usize,
    flags: i32,
    source: &impl Source,
    asleep: &mut Asleep<Sending>,
) -> Option<Result<(), Errno>> {
    // Asked while there is nothing yet that a call would have to put aside.
    let now = clock::seconds();
    match enter(msqid, mtype, size, source) {
        Ok((attached, queue, seat)) => send(attached, queue, seat, (mtype, size), flags, now, source, asleep),
        Err(errno) => Some(Err(errno)),
    }
}

#[inline(always)]
fn enter(
    msqid: i32,
    mtype: i64,
    size: usize,
    source: &impl Source,
) -> Result<(Attached, Queue<'static>, Seat<'static>), Errno> {
    if size > isize::MAX as usize || mtype < 1 {
        return Err(Errno::EINVAL);
    }
    let (id, caller) = (identifier(msqid)?, thread::caller());
    let attached = match namespace::attach_as(id, caller) {
        Ok(attached) if limits::is_too_long_for(&attached, size as u64) => return Err(Errno::EINVAL),
        Ok(attached) => attached,
        Err(_) if limits::is_too_long(size as u64) => return Err(Errno::EINVAL),
        Err(errno) => {
            // Linux copies the text before it looks for the queue.
            source.probe()?;
            return Err(errno);
        }
    };
    let queue = attached.lasting_queue();
    let seat = queue.enter_in(caller, attached.frame())?;
    Ok((attached, queue, seat))
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "compiled into its caller")]
fn send(
    attached: Attached,
    queue: Queue<'static>,
    seat: Seat<'static>,
    (mtype, size): (i64, usize),
    flags: i32,
    now: u64,
    source: &impl Source,
    asleep: &mut Asleep<Sending>,
) -> Option<Result<(), Errno>> {
    let needs = Needs::to_write(&attached);
    let message = queue.prepare(&seat, mtype, size);
    let message = message.and_then(|message| source.copy_to(&message).map(|()| message));
    let sent = match message {
        Ok(message) => match queue.post_quickly(&seat, &message, &needs, now) {
            Ok(Sent::Done) => {
                has_sent();
                Ok(())
            }
            Ok(_) if flags & libc::IPC_NOWAIT != 0 => Err(Errno::EAGAIN),
            Ok(_) => return wait(attached, seat, message, needs, asleep),
            Err(errno) => Err(errno),
        },
        // The length is checked before the text; and a queue that is gone is told of no new limit any more.
        Err(Errno::EFAULT) if queue.is_removed() && limits::is_too_long(size as u64) => Err(Errno::EINVAL),
        Err(errno) => Err(errno),
    };
    seat.release();
    Some(sent)
}

#[cold]
#[inline(never)]
fn wait(
    attached: Attached,
    seat: Seat<'static>,
    message: Outgoing,
    needs: Needs,
    asleep: &mut Asleep<Sending>,
) -> Option<Result<(), Errno>> {
    let gone = Errno::EIDRM;
    let sending = Sending { attached, seat, message, needs, wait: Wait::new(), in_line: false, gone };
    sending.go_on().or_asleep(asleep)
}

/// A call that waits for room.
pub struct Sending {
    attached: Attached,
    seat: Seat<'static>,
    message: Outgoing,
    needs: Needs,
    wait: Wait,
    in_line: bool,
    /// What it means that the queue is gone: it was there when the call began, or when it slept last.
    gone: Errno,
}

impl Sending {
    /// Tries again until the message is sent, or there is reason to sleep.
    fn go_on(mut self) -> Step<Sending, ()> {
        loop {
            let queue = self.attached.lasting_queue();
            let length = u64::from(self.message.length());
            let spun = !self.in_line && self.wait.spin_for_room(&queue, &self.attached, length);
            match queue.post(&self.seat, &self.message, &self.needs, !spun) {
                Ok(Sent::Done) => {
                    if spun {
                        self.wait.paid(&self.attached);
                    }
                    has_sent();
                    // The room we were let go for may be there still, if a receiver took the message at once; and
                    // Linux lets all go that fit alone.
                    if self.in_line {
                        queue.wake_senders(&self.seat);
                    }
                    return self.end(Ok(()));
                }
                Ok(Sent::Full) => continue,
                Ok(Sent::InLine) => self.in_line = true,
                Err(errno) => {
                    let errno = if errno == Errno::EINVAL { self.gone } else { errno };
                    return self.leave(errno);
                }
            }
            match self.wait.bed(&queue, &self.seat, FULL) {
                Some(bed) => return Step::Sleep(self, bed),
                None => self.gone = Errno::EIDRM,
            }
        }
    }

    /// Goes on after a sleep.
    #[inline(never)]
    pub fn woken(mut self, woken: Woken) -> Step<Sending, ()> {
        match self.wait.ended(&self.attached, &self.seat, FULL, woken) {
            Ended::Cut => {
                self.seat.forget();
                namespace::detach(self.attached);
                return Step::Done(Err(Errno::EIDRM));
            }
            // Whatever the handler did, room included.
            Ended::Interrupted => return self.leave(Errno::EINTR),
            Ended::Absent => self.gone = Errno::EINVAL,
            Ended::Changed | Ended::Look => self.gone = Errno::EIDRM,
        }
        self.go_on()
    }

    fn leave(self, errno: Errno) -> Step<Sending, ()> {
        let _ = self.attached.lasting_queue().stop_waiting(&self.seat);
        self.end(Err(errno))
    }

    fn end(self, result: Result<(), Errno>) -> Step<Sending, ()> {
        self.seat.release();
        Step::Done(result)
    }
}
