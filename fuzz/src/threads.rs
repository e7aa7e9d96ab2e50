//! Threads at full speed on one queue, for ThreadSanitizer: what one writes and another reads must be ordered.
//!
//! Nothing but the C library's threads and atomics is used beside the library: the standard library that comes with a
//! compiler is not instrumented, so its own mutexes and reference counts would be taken for races.
//!
//! `threads NUMBER` passes that many messages for each sender; `threads race` races on purpose, to see it reported.

use libc::{c_int, c_long, c_void};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use usysv::abi::exports::{msgctl, msgget, msgrcv, msgsnd};

const SENDERS: u64 = 2;
const RECEIVERS: u64 = 2;

static QUEUE: AtomicI32 = AtomicI32::new(0);
static EACH: AtomicU64 = AtomicU64::new(20_000);
static RECEIVED: AtomicU64 = AtomicU64::new(0);
static SUM: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);
static mut RACY: u64 = 0;

#[repr(C)]
struct Message {
    mtype: c_long,
    number: u64,
    rest: [u8; 300],
}

extern "C" fn send(me: *mut c_void) -> *mut c_void {
    let id = QUEUE.load(Ordering::Relaxed);
    for number in 0..EACH.load(Ordering::Relaxed) {
        let mtype = 1 + (number % 3) as c_long;
        let message = Message { mtype, number, rest: [number as u8; 300] };
        let size = if number % 10 == 0 { 308 } else { 8 + (number % 64) as usize };
        // Blocks now and then: the queue is short.
        // SAFETY: a text of `size` bytes.
        if unsafe { msgsnd(id, (&raw const message).cast(), size, 0) } != 0 {
            WRONG.fetch_add(1, Ordering::Relaxed);
        }
        let mut status = std::mem::MaybeUninit::<libc::msqid_ds>::uninit();
        if number % 100 == me.addr() as u64 {
            // SAFETY: room for the structure.
            unsafe { msgctl(id, libc::IPC_STAT, status.as_mut_ptr()) };
        }
    }
    std::ptr::null_mut()
}

extern "C" fn receive(me: *mut c_void) -> *mut c_void {
    let id = QUEUE.load(Ordering::Relaxed);
    let all = SENDERS * EACH.load(Ordering::Relaxed);
    loop {
        let taken = RECEIVED.fetch_add(1, Ordering::Relaxed);
        if taken >= all {
            return std::ptr::null_mut();
        }
        let mut message = Message { mtype: 0, number: 0, rest: [0; 300] };
        let wanted = if taken % 3 == me.addr() as u64 { -3 } else { 0 };
        // SAFETY: room for a text of 308 bytes.
        let got = unsafe { msgrcv(id, (&raw mut message).cast(), 308, wanted, 0) };
        let right = got >= 8 && message.rest[..got as usize - 8].iter().all(|&byte| byte == message.number as u8);
        WRONG.fetch_add(u64::from(!right), Ordering::Relaxed);
        SUM.fetch_add(message.number, Ordering::Relaxed);
    }
}

extern "C" fn race(_: *mut c_void) -> *mut c_void {
    for _ in 0..1000 {
        // SAFETY: none: this is the race on purpose.
        unsafe { (&raw mut RACY).write((&raw const RACY).read() + 1) };
    }
    std::ptr::null_mut()
}

fn run(roles: &[(extern "C" fn(*mut c_void) -> *mut c_void, usize)]) {
    let mut threads = [0 as libc::pthread_t; 8];
    for (thread, &(role, number)) in threads.iter_mut().zip(roles) {
        let argument = std::ptr::without_provenance_mut(number);
        // SAFETY: the place is valid, and the role takes a number.
        assert_eq!(unsafe { libc::pthread_create(thread, std::ptr::null(), role, argument) }, 0);
    }
    for &thread in &threads[..roles.len()] {
        // SAFETY: started above, joined once.
        unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
    }
}

fn main() {
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument == "race" {
        run(&[(race, 0), (race, 1)]);
        return;
    }
    if let Ok(each) = argument.parse() {
        EACH.store(each, Ordering::Relaxed);
    }
    let id: c_int = msgget(libc::IPC_PRIVATE, 0o600);
    assert!(id >= 0, "no queue");
    QUEUE.store(id, Ordering::Relaxed);
    assert_eq!(SENDERS + RECEIVERS, 4);
    run(&[(send, 0), (send, 1), (receive, 0), (receive, 1)]);
    // SAFETY: the buffer is not looked at.
    unsafe { msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    let each = EACH.load(Ordering::Relaxed);
    assert_eq!(WRONG.load(Ordering::Relaxed), 0);
    assert_eq!(SUM.load(Ordering::Relaxed), SENDERS * (each * (each - 1) / 2));
    println!("threads: {} messages passed", SENDERS * each);
}
