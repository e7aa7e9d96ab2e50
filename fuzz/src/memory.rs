//! Fuzzes what reads shared memory: a queue as a peer left it who wrote whatever the input says, wherever it says.
//!
//! An input is a list of steps of eight bytes each: damage (a word of the control file or the body is overwritten, at a
//! place and with a value that mean something to the code under test) and operations, in any order, on a queue that was
//! filled in one of several ways. So mutations of the input are mutations of the structure.
//!
//! What must hold, whatever was written:
//! - no crash, and no panic (debug assertions and overflow checks are on), nothing that AddressSanitizer objects to;
//! - no byte outside of a buffer handed to the library is written (canaries);
//! - every step ends: libFuzzer's `-timeout` is the watchdog, and [`SLOWEST`] below it;
//! - another queue in the same directory is untouched: its message is received as it was sent, and its invariants hold.

#![no_main]

use libc::{c_int, c_long, c_void};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use usysv::abi::exports::{msgctl, msgget, msgrcv, msgsnd};
use usysv::namespace::{self, Attached};
use usysv::os::thread::{Cookie, SLACK, caller};
use usysv::queue::check::Finding;
use usysv::queue::{Anybody, Received, Request, Selector, waiters};
use usysv::shm::layout::{self, ARENA, BLOCK_CLASSES, message, participant, settings, superblock};

/// The longest a step may take, on a machine that has other things to do.
const SLOWEST: Duration = Duration::from_secs(8);
/// Bytes at the beginning of control file and arena that are put back after each input.
const KEPT: usize = 64 * 1024;
const CANARY: u8 = 0xa5;
const LONGEST: usize = 8192;
/// Steps that are looked at in an input.
const STEPS: usize = 48;

/// A message as the caller has it, with canaries behind it.
#[repr(C)]
struct Buffer {
    mtype: c_long,
    text: [u8; LONGEST],
    canary: [u8; 256],
}

struct Bystander {
    id: c_int,
    sent: u64,
}

fn bystander() -> &'static Bystander {
    static QUEUE: OnceLock<Bystander> = OnceLock::new();
    QUEUE.get_or_init(|| {
        assert!(std::env::var_os("USYSV_DIR").is_some(), "USYSV_DIR must name a directory of its own");
        let id = msgget(libc::IPC_PRIVATE, 0o600);
        assert!(id >= 0, "no queue in USYSV_DIR");
        let sent = 0x0123_4567_89ab_cdef;
        let buffer: (c_long, u64) = (7, sent);
        // SAFETY: a message of eight bytes.
        assert_eq!(unsafe { msgsnd(id, (&raw const buffer).cast(), 8, 0) }, 0);
        Bystander { id, sent }
    })
}

impl Bystander {
    fn is_untouched(&self) {
        let mut buffer: (c_long, u64) = (0, 0);
        let flags = libc::IPC_NOWAIT | libc::MSG_COPY;
        // SAFETY: room for a message of eight bytes.
        let got = unsafe { msgrcv(self.id, (&raw mut buffer).cast(), 8, 0, flags) };
        assert_eq!((got, buffer), (8, (7, self.sent)), "another queue was harmed");
        let attached = namespace::attach(self.id as u32).expect("the other queue is there");
        assert_eq!(attached.queue().check(), Finding::Sound(1), "another queue was harmed");
    }
}

fn send(id: c_int, mtype: i64, length: usize) -> c_int {
    let mut buffer = Buffer { mtype, text: [0; LONGEST], canary: [CANARY; 256] };
    buffer.text[..length].fill(length as u8);
    // SAFETY: a text of `length` bytes, at most LONGEST.
    unsafe { msgsnd(id, (&raw const buffer).cast(), length, libc::IPC_NOWAIT) }
}

fn receive(id: c_int, size: usize, mtype: i64, flags: c_int) {
    let mut buffer = Buffer { mtype: 0, text: [CANARY; LONGEST], canary: [CANARY; 256] };
    let size = size.min(LONGEST);
    // SAFETY: room for a text of `size` bytes.
    let got = unsafe { msgrcv(id, (&raw mut buffer).cast(), size, mtype, flags | libc::IPC_NOWAIT) };
    let written = if got < 0 { 0 } else { got as usize };
    assert!(written <= size, "{got} bytes in a buffer of {size}");
    assert!(buffer.text[written..].iter().all(|&byte| byte == CANARY), "written beyond the message");
    assert!(buffer.canary.iter().all(|&byte| byte == CANARY), "written beyond the buffer");
}

fn control(id: c_int, command: c_int) -> c_int {
    let mut buffer = [CANARY; 120 + 64];
    // SAFETY: room for a `struct msqid_ds`.
    let done = unsafe { msgctl(id, command, buffer.as_mut_ptr().cast()) };
    assert!(buffer[120..].iter().all(|&byte| byte == CANARY), "written beyond the structure");
    done
}

/// A queue in one of several conditions.
fn queue(kind: u8) -> c_int {
    let id = msgget(libc::IPC_PRIVATE, 0o600);
    assert!(id >= 0, "no queue: {}", std::io::Error::last_os_error());
    let texts: &[(i64, usize)] = match kind % 6 {
        0 => &[],
        1 => &[(1, 0), (1, 8), (1, 80), (2, 8)],
        2 => &[(5, 10), (3, 10), (9, 10), (5, 10), (1 << 40, 10), (3, 10), (i64::MAX, 10), (64, 1)],
        3 => &[(1, 100), (2, 500), (1, 3000), (3, 100), (4, 8)],
        4 => &[(1, 1); 30],
        _ => &[(2, 81), (7, 8192), (2, 240), (3, 241)],
    };
    for &(mtype, length) in texts {
        assert_eq!(send(id, mtype, length), 0);
    }
    if kind.is_multiple_of(2) {
        // Builds the index by type, and leaves free granules and blocks.
        receive(id, LONGEST, -4, 0);
        receive(id, LONGEST, 5, 0);
    }
    if kind.is_multiple_of(3) {
        receive(id, LONGEST, 2, libc::MSG_EXCEPT);
    }
    id
}

struct Step([u8; 8]);

impl Step {
    fn kind(&self) -> u8 {
        self.0[0]
    }
    fn small(&self) -> u64 {
        u64::from(self.0[1])
    }
    fn wide(&self) -> u64 {
        u64::from(u16::from_le_bytes([self.0[2], self.0[3]]))
    }
    fn raw(&self) -> u64 {
        u64::from(u32::from_le_bytes([self.0[4], self.0[5], self.0[6], self.0[7]]))
    }

    /// A value that the code might take for something.
    fn value(&self, before: u64) -> u64 {
        let (raw, low) = (self.raw(), self.raw() & 63);
        const TAG: u64 = !((1 << 25) - 1);
        match self.small() & 15 {
            0 => 0,
            1 => raw,
            2 => raw << 32 | raw >> 7,
            3 => low,
            4 => before & TAG | low,
            5 => before & TAG | low | 1 << 24,
            6 => before & TAG | raw & !TAG,
            7 => before.wrapping_add(raw),
            8 => before ^ 1 << low,
            9 => before & !0xffff_ffff | raw,
            10 => before & 0xffff_ffff | raw << 32,
            11 => u64::MAX,
            12 => u64::from(layout::GRANULES) - low,
            13 => before & TAG | (layout::GRANULES as u64 - low),
            14 => low << 32 | raw & 63,
            _ => before & !0xffff_ffff | low,
        }
    }

    /// Which word is overwritten.
    fn place(&self) -> u64 {
        let wide = self.wide();
        // The first few participants and granules are the ones in use.
        let someone = match wide & 0xf {
            15 => layout::MAX_PARTICIPANTS - 1,
            few => (few & 3) as u32,
        };
        let within = wide >> 4;
        let granule = |number: u64, offset: u64| ARENA + (number % 512) * layout::GRANULE + offset;
        match self.kind() % 8 {
            0 => superblock::CUR,
            1 => (within % 128) * 8,
            2 => superblock::CLASSES + within % u64::from(BLOCK_CLASSES) * 8,
            // The header, in one of the records.
            3 => {
                let record = participant::RECORDS + (within & 1) * participant::RECORD_WORDS * 8;
                let word = (within >> 1) % participant::RECORD_WORDS;
                layout::participant_offset(someone) + record + word * 8
            }
            4 => layout::participant_offset(someone) + (within % 16) * 8,
            5 => {
                let place = (within & 1) * settings::SIZE + (within >> 1) % 5 * 8;
                layout::participant_offset(someone) + participant::SETTINGS + place
            }
            6 => granule(wide % 64, (wide / 64) % 9 * 8),
            _ => granule(wide % 64, [message::TYPE, message::LENGTH, 0, 8][(wide / 64 % 4) as usize]),
        }
    }
}

fn damage(attached: &Attached, step: &Step) {
    if let Some(word) = attached.mapping().word(step.place()) {
        word.store(step.value(word.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}

/// What a waiting receiver or sender does, without its sleep.
fn wait(attached: &Attached, step: &Step) {
    let queue = attached.lasting_queue();
    let Ok(seat) = queue.enter() else { return };
    let size = step.wide();
    if step.small() & 16 == 0 {
        let selector = match step.small() % 4 {
            0 => Selector::Any,
            1 => Selector::Type(step.raw() as i64),
            2 => Selector::Except(step.raw() as i64),
            _ => Selector::AtMost(step.raw() as i64),
        };
        let request = Request { selector, size, truncate: step.small() & 32 != 0 };
        let mut received = Received::new();
        if let Ok(Some(_)) = queue.take(&seat, &request, &Anybody, true, &mut received) {
            // Somebody may send meanwhile.
            if step.small() & 64 != 0 {
                send(attached.id() as c_int, 1 + (step.raw() & 7) as i64, (step.wide() & 127) as usize);
            }
            let state = waiters::state(queue.memory(), &seat);
            if let Some(bed) = waiters::bed(queue.memory(), &seat, state ^ 1, 0) {
                bed.sleep();
            }
            let _ = queue.take_handed(&seat, &mut received);
            if queue.stop_waiting(&seat) == Ok(true) {
                let _ = queue.take_handed(&seat, &mut received);
            }
        }
    } else if let Ok(message) = queue.prepare(&seat, 1, size as usize) {
        // SAFETY: `prepare` vouches for the room.
        unsafe { message.text.write_bytes(1, size as usize) };
        let _ = queue.post(&seat, &message, &Anybody, true);
        let _ = queue.stop_waiting(&seat);
    }
    // Left in line, as by one that was killed: the next owner heals.
    seat.release();
}

fn operate(id: c_int, attached: &Attached, step: &Step) {
    let mtype = step.raw() as i64;
    match step.kind() % 16 {
        0 => drop(send(id, 1 + mtype, step.wide() as usize % 100)),
        1 => drop(send(id, 1 + mtype % 8, step.wide() as usize % (LONGEST + 1))),
        2 => receive(id, step.wide() as usize, 0, if step.small() & 1 != 0 { libc::MSG_NOERROR } else { 0 }),
        3 => receive(id, LONGEST, mtype % 8, 0),
        4 => receive(id, LONGEST, -mtype, 0),
        5 => receive(id, LONGEST, mtype % 8, libc::MSG_EXCEPT),
        6 => receive(id, step.wide() as usize, mtype % 64, libc::MSG_COPY),
        7 => drop(control(id, libc::IPC_STAT)),
        8 => drop(control(id % 32768, 13)),
        9 => drop(control(0, 12)),
        10 => set(id, step),
        11 | 12 => wait(attached, step),
        13 => drop(attached.queue().check()),
        14 => attached.queue().recover(caller().stack()),
        _ => {
            if step.small() & 0xf0 == 0xf0 {
                control(id, libc::IPC_RMID);
            } else {
                attached.queue().is_removed();
            }
        }
    }
}

fn set(id: c_int, step: &Step) {
    // SAFETY: integers all of them.
    let mut to: libc::msqid_ds = unsafe { std::mem::zeroed() };
    to.msg_perm.mode = 0o600;
    to.msg_qbytes = step.wide();
    // SAFETY: a whole structure.
    unsafe { msgctl(id, libc::IPC_SET, &mut to) };
}

/// What is put back after an input, so that the queue can be removed like any other.
struct Kept {
    control: Vec<u64>,
    arena: Vec<u64>,
}

fn words(attached: &Attached, offset: u64) -> &[AtomicU64] {
    attached.mapping().words(offset, KEPT / 8).expect("mapped")
}

fn keep(attached: &Attached) -> Kept {
    let copy = |offset| words(attached, offset).iter().map(|word| word.load(Ordering::Relaxed)).collect();
    Kept { control: copy(0), arena: copy(ARENA) }
}

fn put_back(attached: &Attached, kept: &Kept) {
    for (offset, kept) in [(0, &kept.control), (ARENA, &kept.arena)] {
        for (word, &kept) in words(attached, offset).iter().zip(kept) {
            word.store(kept, Ordering::Relaxed);
        }
    }
}

fn remove_files(id: c_int) {
    let directory = std::env::var("USYSV_DIR").unwrap_or_default();
    let _ = std::fs::remove_file(format!("{directory}/usysv.q.{}", id % 32768));
    let _ = std::fs::remove_file(format!("{directory}/usysv.b.{id}"));
}

#[inline(never)]
fn run(id: c_int, steps: &[u8]) {
    let attached = namespace::attach(id as u32).expect("made just now");
    let kept = keep(&attached);
    for bytes in steps.chunks_exact(8).take(STEPS) {
        let step = Step(bytes.try_into().expect("eight bytes"));
        let begun = Instant::now();
        if step.kind() < 128 {
            damage(&attached, &step);
        } else {
            operate(id, &attached, &step);
        }
        assert!(begun.elapsed() < SLOWEST, "kind {} took {:?}", step.kind() % 16, begun.elapsed());
    }
    put_back(&attached, &kept);
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, steps)) = data.split_first() else { return };
    let bystander = bystander();
    let id = queue(kind);
    // As one call, whose frames the calls within it leave alone; theirs lie further down than that may be mistaken for it.
    Cookie::new().entering(|| {
        let further_down = std::hint::black_box([0u8; 4 * SLACK]);
        run(id, steps);
        std::hint::black_box(&further_down);
    });
    // SAFETY: the buffer is not looked at.
    unsafe { msgctl(id, libc::IPC_RMID, std::ptr::null_mut::<c_void>().cast()) };
    remove_files(id);
    bystander.is_untouched();
});
