//! A queue against a plain list of messages, and what becomes of participants that die or jump away.

use super::check::Finding;
use super::receive::Missing;
use super::*;
use crate::os::thread;
use crate::shm::layout::Position;
use crate::shm::layout::message;
use core::sync::atomic::AtomicU64;
use proptest::prelude::*;

fn new_queue(qbytes: u64) -> Mapping {
    let memory = Mapping::anonymous().unwrap();
    let settings = Configuration { mode: 0o666, qbytes, ..Default::default() };
    format(7, &settings, |offset, value| memory.word(offset).unwrap().store(value, Ordering::Relaxed));
    let queue = Queue::new(&memory, 1);
    assert_eq!(send(&queue, 1, b"x"), Err(Errno::EINVAL), "not born yet");
    let seat = queue.enter_as_creator().unwrap();
    assert_eq!(queue.stage().map(|(stage, _)| stage), Ok(Stage::Unborn));
    assert_eq!((queue.bear(), queue.bear()), (Ok(true), Ok(true)), "whoever comes later finds it born");
    seat.release();
    assert_eq!(queue.renounce(), Ok(false), "too late");
    memory
}

fn send(queue: &Queue, mtype: i64, text: &[u8]) -> Result<Sent, Errno> {
    let seat = queue.enter()?;
    let message = queue.prepare(&seat, mtype, text.len())?;
    // SAFETY: `prepare` made room for the text.
    unsafe { message.text.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
    let sent = queue.post(&seat, &message, &Anybody, false);
    seat.release();
    sent
}

fn receive(queue: &Queue, selector: Selector, size: u64) -> Result<Option<(i64, Vec<u8>)>, Errno> {
    let seat = queue.enter()?;
    let request = Request { selector, size, truncate: false };
    let mut received = Received::new();
    let taken = queue.take(&seat, &request, &Anybody, false, &mut received).map(|missing| {
        missing.is_none().then(|| {
            let length = received.length as usize;
            // SAFETY: the text is that long, and stays while the participant is held.
            (received.mtype, unsafe { core::slice::from_raw_parts(received.text(), length) }.to_vec())
        })
    });
    seat.release();
    taken
}

fn sound(queue: &Queue, count: usize) {
    assert_eq!(queue.check(), Finding::Sound(count as u32));
}

#[derive(Clone, Debug)]
enum Step {
    Send(i64, usize),
    Receive(Selector, u64),
}

fn mtype() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => 1..6i64,
        2 => 1..5000i64,
        1 => prop::sample::select(vec![i64::MAX, i64::MAX - 1, 1 << 40, (1 << 40) + 1, 1 << 62]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![
        6 => 0..100usize,
        2 => prop::sample::select(vec![0, 79, 80, 81, 240, 241, 496, 497, 1000, 4096, 8192]),
    ];
    let selector = prop_oneof![
        2 => Just(Selector::Any),
        3 => mtype().prop_map(Selector::Type),
        2 => mtype().prop_map(Selector::Except),
        3 => mtype().prop_map(Selector::AtMost),
    ];
    let size = prop_oneof![9 => Just(10_000u64), 1 => 0..100u64];
    prop_oneof![
        6 => (mtype(), length).prop_map(|(mtype, length)| Step::Send(mtype, length)),
        5 => (selector, size).prop_map(|(selector, size)| Step::Receive(selector, size)),
    ]
}

fn model_find(model: &[(i64, Vec<u8>)], selector: Selector) -> Option<usize> {
    match selector {
        Selector::AtMost(_) => {
            let wanted = model.iter().enumerate().filter(|(_, (mtype, _))| selector.wants(*mtype));
            wanted.min_by_key(|(_, (mtype, _))| *mtype).map(|(place, _)| place)
        }
        _ => model.iter().position(|(mtype, _)| selector.wants(*mtype)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_queue_behaves_like_a_list(steps in prop::collection::vec(step(), 1..400), qbytes in 2000..60_000u64) {
        let memory = new_queue(qbytes);
        let queue = Queue::new(&memory, 1);
        let mut model: Vec<(i64, Vec<u8>)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Send(mtype, length) => {
                    let text: Vec<u8> = (0..length).map(|at| (number * 7 + at) as u8).collect();
                    let bytes: usize = model.iter().map(|(_, text)| text.len()).sum();
                    let fits = bytes + length <= qbytes as usize && model.len() < qbytes as usize;
                    let expected = if fits { Sent::Done } else { Sent::Full };
                    prop_assert_eq!(send(&queue, mtype, &text), Ok(expected));
                    if fits {
                        model.push((mtype, text));
                    }
                }
                Step::Receive(selector, size) => {
                    let expected = match model_find(&model, selector) {
                        None => Ok(None),
                        Some(place) if model[place].1.len() as u64 > size => Err(Errno::E2BIG),
                        Some(place) => Ok(Some(model.remove(place))),
                    };
                    prop_assert_eq!(receive(&queue, selector, size), expected);
                }
            }
            sound(&queue, model.len());
        }
        // SAFETY: nothing refers to it any more.
        unsafe { memory.unmap() };
    }
}

#[test]
fn sixteen_thousand_types_are_found_and_leave_nothing() {
    let memory = new_queue(1 << 20);
    let queue = Queue::new(&memory, 1);
    for mtype in (1..=16_000).rev() {
        assert_eq!(send(&queue, mtype * 1_000_003, b"x"), Ok(Sent::Done));
    }
    for mtype in 1..=100 {
        let found = receive(&queue, Selector::Type(mtype * 160 * 1_000_003), 10).unwrap();
        assert_eq!(found.unwrap().0, mtype * 160 * 1_000_003);
    }
    sound(&queue, 15_900);
    let mut last = 0;
    for _ in 0..15_900 {
        let (mtype, _) = receive(&queue, Selector::AtMost(i64::MAX), 10).unwrap().unwrap();
        assert!(mtype > last);
        last = mtype;
    }
    sound(&queue, 0);
}

#[test]
fn a_large_queue_grows_through_its_windows() {
    let memory = new_queue(64 << 20);
    let queue = Queue::new(&memory, 1);
    let text = vec![7u8; 1 << 20];
    for _ in 0..64 {
        assert_eq!(send(&queue, 1, &text), Ok(Sent::Done));
    }
    assert_eq!(send(&queue, 1, b"x"), Ok(Sent::Full));
    sound(&queue, 64);
    for _ in 0..64 {
        assert_eq!(receive(&queue, Selector::Any, 1 << 20).unwrap().unwrap().1, text);
    }
    sound(&queue, 0);
}

#[test]
fn a_message_is_handed_to_the_first_in_line() {
    let memory = new_queue(1000);
    let queue = Queue::new(&memory, 1);
    let (inside, sent) = (std::sync::Barrier::new(2), std::sync::Barrier::new(4));
    std::thread::scope(|scope| {
        let receivers = [
            (Selector::Any, 1, waiters::TOO_BIG),
            (Selector::Type(5), 100, waiters::GO),
            (Selector::Any, 100, waiters::GO),
        ];
        for (selector, size, told) in receivers {
            let (queue, inside, sent) = (&queue, &inside, &sent);
            scope.spawn(move || {
                let seat = queue.enter().unwrap();
                let request = Request { selector, size, truncate: false };
                let taken = queue.take(&seat, &request, &Anybody, true, &mut Received::new()).unwrap();
                assert_eq!(taken, Some(Missing::InLine));
                inside.wait();
                sent.wait();
                assert_eq!(txn::value(waiters::state(queue.memory(), &seat)), told);
                assert_eq!(queue.stop_waiting(&seat), Ok(false));
                seat.release();
            });
            inside.wait();
        }
        sound(&queue, 0);
        // Nobody is asleep here, so whatever is handed over comes back, and the waiters are told to look.
        assert_eq!(send(&queue, 5, b"hello"), Ok(Sent::Done));
        sound(&queue, 1);
        sent.wait();
    });
    sound(&queue, 1);
}

/// Blocks stay with the granules of their messages, whoever takes them, and are nobody's twice.
#[test]
fn blocks_stay_with_their_granules() {
    let memory = new_queue(10_000);
    let queue = Queue::new(&memory, 1);
    let long = [7u8; 1000];
    let class = Position::class(layout::block_class(long.len()).unwrap());
    let free = || look(&memory, |tx| Ok(tx.get(class)?)).unwrap();
    for _ in 0..8 {
        for count in 1..=4 {
            assert_eq!(send(&queue, 1, &long), Ok(Sent::Done));
            sound(&queue, count);
        }
        for count in (0..4).rev() {
            assert_eq!(receive(&queue, Selector::Any, 1000).unwrap().unwrap().1, long);
            sound(&queue, count);
        }
    }
    assert_eq!(free(), 0, "none was given back");
    let used = look(&memory, |tx| Ok(tx.mark())).unwrap();
    assert!(used < 8 * layout::block_granules(3), "{used} granules are in use");
    // A short one goes out without, a longer one with another.
    for length in [10, 3000, 10, 1000, 3000] {
        assert_eq!(send(&queue, 1, &vec![7; length]), Ok(Sent::Done));
        sound(&queue, 1);
        assert_eq!(receive(&queue, Selector::Any, 9000).unwrap().unwrap().1.len(), length);
        sound(&queue, 0);
    }
    assert_ne!(free(), 0, "one was given back");
    // One that is handed to somebody who is not asleep comes back, and is sent once more.
    thread::Cookie::new().entering(|| {
        let seat = queue.enter().unwrap();
        let request = Request { selector: Selector::Any, size: 1000, truncate: false };
        let mut received = Received::new();
        for count in 1..4 {
            let waits = queue.take(&seat, &request, &Anybody, count == 1, &mut received);
            assert_eq!(waits.is_ok_and(|missing| missing == Some(Missing::InLine)), count == 1);
            assert_eq!(send(&queue, 1, &long), Ok(Sent::Done));
            sound(&queue, 1);
        }
        seat.release();
    });
}

/// Where memory is full, a sender finds all of them: of free granules, and of the one that the head names.
#[test]
fn blocks_of_free_granules_are_found() {
    let memory = new_queue(10_000);
    let queue = Queue::new(&memory, 1);
    let long = [7u8; 1000];
    let class = layout::block_class(long.len()).unwrap();
    for _ in 0..4 {
        assert_eq!(send(&queue, 1, &long), Ok(Sent::Done));
    }
    for _ in 0..4 {
        assert_eq!(receive(&queue, Selector::Any, 1000).unwrap().unwrap().1, long);
    }
    thread::Cookie::new().entering(|| {
        let seat = queue.enter().unwrap();
        let mut blocks = vec![pool::held(&memory, seat.index(), Held::Block)];
        for _ in 1..4 {
            assert_eq!(pool::reclaim(&memory, seat.index(), class), Ok(()));
            blocks.push(pool::held(&memory, seat.index(), Held::Block));
            sound(&queue, 0);
        }
        assert_eq!(pool::reclaim(&memory, seat.index(), class), Err(Errno::ENOMEM));
        seat.release();
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), 4, "{blocks:?}");
    });
    sound(&queue, 0);
}

/// A receiver that looks again from its place in line may have been served since it looked at its state.
#[test]
fn who_looks_again_finds_what_was_handed_over() {
    // One call: both participants are in use in it.
    thread::Cookie::new().entering(|| [0, 1].map(look_again_after));
}

fn look_again_after(others: usize) {
    let memory = new_queue(1000);
    let queue = Queue::new(&memory, 1);
    let seat = queue.enter().unwrap();
    let request = Request { selector: Selector::Type(5), size: 10, truncate: false };
    let mut received = Received::new();
    assert_eq!(queue.take(&seat, &request, &Anybody, true, &mut received), Ok(Some(Missing::InLine)));
    let sender = queue.enter().unwrap();
    let message = queue.prepare(&sender, 5, 3).unwrap();
    // SAFETY: a prepared message has room for its text.
    unsafe { message.text.copy_from(b"abc".as_ptr(), 3) };
    // Its sender was stopped before it could wake anybody.
    let handed = run(&memory, sender.index(), |tx| {
        let granule = tx.held(sender.index(), Held::Spare)?;
        tx.hold(sender.index(), Held::Spare, 0)?;
        let offer = waiters::offer(tx, granule, 5, 3, &mut Aftermath::default())?;
        Ok(Verdict::Commit(matches!(offer, waiters::Offer::Taken(_))))
    });
    assert_eq!(handed, Ok(true));
    sender.release();
    for _ in 0..others {
        assert_eq!(send(&queue, 5, b"later"), Ok(Sent::Done));
    }
    sound(&queue, others);
    assert_eq!(queue.take(&seat, &request, &Anybody, true, &mut received), Ok(None));
    // SAFETY: the text is that long.
    assert_eq!(unsafe { core::slice::from_raw_parts(received.text(), 3) }, b"abc");
    seat.release();
    sound(&queue, others);
    assert_eq!(look(&memory, |tx| Ok(tx.handed())), Ok(0));
}

#[test]
fn what_was_left_by_a_jump_is_healed() {
    let memory = new_queue(1000);
    let queue = Queue::new(&memory, 1);
    // A participant not given back, and its stack frame gone: as after siglongjmp.
    #[inline(never)]
    fn leave(queue: &Queue) {
        let _ground = std::hint::black_box([0u8; 4096]);
        let seat = queue.enter().unwrap();
        let request = Request { selector: Selector::Any, size: 10, truncate: false };
        assert!(queue.take(&seat, &request, &Anybody, true, &mut Received::new()).unwrap().is_some());
    }
    leave(&queue);
    assert_eq!(queue.status(&Anybody).unwrap().receivers, 1);
    assert_eq!(send(&queue, 1, b"x"), Ok(Sent::Done));
    assert_eq!(queue.status(&Anybody).unwrap().receivers, 0);
    sound(&queue, 1);
}

/// A handler that interrupts the healing of what a jump left does not heal it as well, and then use it.
#[test]
fn what_is_being_healed_is_in_use() {
    let memory = new_queue(1000);
    let queue = Queue::new(&memory, 1);
    #[inline(never)]
    fn leave(queue: &Queue) {
        let _ground = std::hint::black_box([0u8; 4096]);
        queue.enter().unwrap();
    }
    #[inline(never)]
    fn interrupt(queue: &Queue) -> u32 {
        let _ground = std::hint::black_box([0u8; 4096]);
        thread::Cookie::new().entering(|| {
            let seat = queue.enter().unwrap();
            let index = seat.index();
            seat.release();
            index
        })
    }
    leave(&queue);
    thread::Cookie::new().entering(|| {
        let txn::Recovery::Seat(seat) = Seat::recover(&memory, 1, thread::caller().stack()) else {
            panic!("nothing was left");
        };
        assert_ne!(interrupt(&queue), seat.index());
        seat.release();
        assert!(!thread::caller().lane().is_busy());
    });
}

/// A queue's memory as seen by a participant that stops right after its commit.
struct Stopping<'a>(&'a Mapping);

impl txn::Memory for Stopping<'_> {
    type Word = AtomicU64;
    fn cur(&self) -> Option<&Self::Word> {
        self.0.cur()
    }
    fn record(&self, record: u32) -> Option<&[Self::Word]> {
        self.0.record(record)
    }
    fn link(&self, _: u32) -> Option<&Self::Word> {
        None
    }
    fn fence(order: Ordering) {
        Mapping::fence(order);
    }
    fn pause() {}
}

#[test]
fn a_fresh_block_says_its_class_whoever_applied_the_log() {
    const CLASS: u32 = 2;
    let memory = new_queue(10_000);
    let queue = Queue::new(&memory, 1);
    #[inline(never)]
    fn leave(queue: &Queue) -> u32 {
        // So that all of `leave_deep` lies below whatever is called instead.
        let ground = std::hint::black_box([0u8; 16384]);
        let block = leave_deep(queue);
        std::hint::black_box(&ground);
        block
    }
    #[inline(never)]
    fn leave_deep(queue: &Queue) -> u32 {
        let seat = queue.enter().unwrap();
        let mut begun: txn::Transaction<AtomicU64, { tx::WORDS }> =
            txn::begin(queue.memory, seat.index()).unwrap();
        let block = (begun.header[1] >> 24) as u32 & 0xff_ffff;
        begun.header[1] += u64::from(layout::block_granules(CLASS)) << 24;
        for (which, value) in [(Held::Block, block), (Held::Fresh, CLASS + 1)] {
            begun.set(queue.memory, Position::participant(seat.index(), which).0, value).unwrap();
        }
        assert_eq!(begun.commit(&Stopping(queue.memory)), Err(Damaged));
        block
    }
    let block = leave(&queue);
    assert_eq!(send(&queue, 1, b"x"), Ok(Sent::Done));
    assert_eq!(pool::class_of(&memory, block), Ok(CLASS));
    sound(&queue, 1);
}

#[test]
fn a_killed_waiter_is_taken_out_of_line() {
    let memory = new_queue(1000);
    let queue = Queue::new(&memory, 1);
    crate::testing::in_child_killed(|| {
        let seat = queue.enter().unwrap();
        let request = Request { selector: Selector::Any, size: 10, truncate: false };
        let _ = queue.take(&seat, &request, &Anybody, true, &mut Received::new());
    });
    let receivers = |queue: &Queue| queue.status(&Anybody).unwrap().receivers;
    assert_eq!(receivers(&queue), 1);
    assert_eq!(send(&queue, 1, b"x"), Ok(Sent::Done));
    assert_eq!(receivers(&queue), 0);
    sound(&queue, 1);
}

#[test]
fn what_a_killed_sender_handed_to_nobody_asleep_counts_again() {
    let memory = new_queue(1000);
    let queue = Queue::new(&memory, 1);
    let (in_line, done) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let seat = queue.enter().unwrap();
            let request = Request { selector: Selector::Any, size: 10, truncate: false };
            let waits = queue.take(&seat, &request, &Anybody, true, &mut Received::new());
            assert_eq!(waits, Ok(Some(Missing::InLine)));
            in_line.wait();
            done.wait();
            assert_eq!(queue.stop_waiting(&seat), Ok(false));
            seat.release();
        });
        in_line.wait();
        crate::testing::in_child_killed(|| {
            let seat = queue.enter().unwrap();
            queue.prepare(&seat, 1, 0).unwrap();
            let granule = pool::held(&memory, seat.index(), Held::Spare);
            let handed = run(&memory, seat.index(), |tx| {
                let offer = waiters::offer(tx, granule, 1, 0, &mut Aftermath::default())?;
                let waiters::Offer::Taken(handover) = offer else { return Err(Stop::Damaged) };
                waiters::owe(&memory, seat.index(), Some(handover))?;
                tx.hold(seat.index(), Held::Spare, 0)?;
                Ok(Verdict::Commit(()))
            });
            // And dies before it finds out that nobody sleeps there.
            assert!(handed.is_ok());
        });
        let counted = queue.status(&Anybody).map(|status| status.qnum);
        done.wait();
        assert_eq!(counted, Ok(1));
    });
    sound(&queue, 1);
}

#[test]
fn participants_grow_and_all_can_be_taken() {
    let memory = new_queue(1000);
    let queue = Queue::new(&memory, 1);
    let (done, taken) = (std::sync::Barrier::new(101), std::sync::Barrier::new(101));
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let seat = queue.enter().unwrap();
                taken.wait();
                done.wait();
                seat.release();
            });
        }
        taken.wait();
        assert_eq!(send(&queue, 1, b"x"), Ok(Sent::Done));
        done.wait();
    });
    assert!(txn::seats(&memory) >= 101);
    sound(&queue, 1);
}

#[test]
fn threads_lose_and_double_nothing() {
    const EACH: u64 = 30_000;
    let memory = new_queue(4096);
    let queue = Queue::new(&memory, 1);
    let sums: Vec<std::sync::Mutex<(u64, u64)>> = (0..4).map(|_| Default::default()).collect();
    std::thread::scope(|scope| {
        for sender in 0..2u64 {
            let queue = &queue;
            scope.spawn(move || {
                for number in 0..EACH {
                    let length = if number % 50 == 0 { 300 } else { 8 };
                    let mut text = vec![number as u8; length];
                    text[..8].copy_from_slice(&number.to_le_bytes());
                    while send(queue, (sender * 2 + number % 2 + 1) as i64, &text) == Ok(Sent::Full) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        for receiver in 0..2i64 {
            let (queue, sums) = (&queue, &sums);
            scope.spawn(move || {
                let mut last = [0u64; 5];
                for _ in 0..EACH {
                    let selector = Selector::AtMost(4);
                    let (mtype, text) = loop {
                        match receive(queue, selector, 1000).unwrap() {
                            Some(message) => break message,
                            None => std::thread::yield_now(),
                        }
                    };
                    let number = u64::from_le_bytes(text[..8].try_into().unwrap());
                    assert!(text[8..].iter().all(|&byte| byte == number as u8), "torn");
                    assert!(last[mtype as usize] <= number + 1, "out of order");
                    last[mtype as usize] = number + 1;
                    let mut sum = sums[mtype as usize - 1].lock().unwrap();
                    *sum = (sum.0 + 1, sum.1 + number);
                }
                receiver
            });
        }
    });
    let even: u64 = (0..EACH).step_by(2).sum();
    let odd: u64 = (1..EACH).step_by(2).sum();
    for (place, sum) in sums.iter().enumerate() {
        let expected = if place % 2 == 0 { even } else { odd };
        assert_eq!(*sum.lock().unwrap(), (EACH / 2, expected));
    }
    sound(&queue, 0);
}

/// Overwrites a link word behind everybody's back, as a hostile peer can.
fn forge(memory: &Mapping, position: Position, value: u32) {
    let word = memory.word(position.offset().unwrap()).unwrap();
    let tag = word.load(Ordering::Relaxed) & !u64::from(txn::LARGEST);
    word.store(tag | u64::from(value), Ordering::Relaxed);
}

/// Overwrites some bits of a word, likewise.
fn forge_bits(memory: &Mapping, offset: u64, value: u32, bits: core::ops::Range<u32>) {
    let place = memory.word(offset).unwrap();
    let mask = u64::MAX >> (64 - bits.len()) << bits.start;
    let rest = place.load(Ordering::Relaxed) & !mask;
    place.store(rest | u64::from(value) << bits.start, Ordering::Relaxed);
}

#[test]
fn a_ring_of_messages_has_an_end() {
    for (selector, types) in [
        (Selector::Type(9), 1),
        (Selector::Type(9), 7),
        (Selector::AtMost(9), 3),
        (Selector::Except(2), 1),
        (Selector::AtMost(1), 2),
    ] {
        let memory = new_queue(10_000);
        let queue = Queue::new(&memory, 1);
        for number in 0..100 {
            assert_eq!(send(&queue, 2 + number % types, b"x"), Ok(Sent::Done));
        }
        let first = look(&memory, |tx| Ok(tx.first()?)).unwrap();
        let last = look(&memory, |tx| Ok(tx.tail())).unwrap();
        forge(&memory, Position::granule(last, message::NEXT), first);
        // No answer could be relied upon; but there is one.
        assert_eq!(receive(&queue, selector, 10), Err(DAMAGED), "{selector:?}, {types} types");
    }
}

#[test]
fn an_owner_marked_dead_and_alive_is_not_healed_for_ever() {
    let memory = new_queue(10_000);
    let queue = Queue::new(&memory, 1);
    let offset = layout::participant_offset(2) + participant::OWNER;
    memory.half(offset).unwrap().store(libc::FUTEX_OWNER_DIED | 1, Ordering::Relaxed);
    forge(&memory, Position::participant(2, Held::State), waiters::HANDED | 5);
    // `handed`, in the annex.
    let annex = look(&memory, |tx| Ok(tx.annexed())).unwrap();
    forge_bits(&memory, layout::annex_offset(annex).unwrap() + 8, 1, 32..64);
    assert_eq!(receive(&queue, Selector::Any, 10), Ok(None));
    assert_eq!(queue.status(&Anybody).unwrap().qnum, 0);
}

#[test]
fn a_forged_watermark_reserves_nothing() {
    let memory = new_queue(10_000);
    let queue = Queue::new(&memory, 1);
    // `mark`, in the header.
    let cur = memory.word(superblock::CUR).unwrap().load(Ordering::Relaxed);
    let record = layout::record_offset(txn::named_by(cur)).unwrap();
    forge_bits(&memory, record + (PREFIX as u64 + 1) * 8, layout::GRANULES - 5, 24..48);
    // The first may have a granule that was free.
    let _ = send(&queue, 1, b"x");
    assert_eq!(send(&queue, 1, &[0; 1000]), Err(DAMAGED));
    let reserved = look(&memory, |tx| Ok(tx.reserved())).unwrap();
    assert_eq!(reserved, GRANULES_PER_PAGE);
}

#[test]
fn a_length_that_no_block_has_is_not_believed() {
    let memory = new_queue(10_000);
    let queue = Queue::new(&memory, 1);
    for (length, block) in
        [(81u64, 0u64), (u64::from(u32::MAX), 0), (1 << 23, 65_500), (100, 1 << 24), (9 << 20, 2)]
    {
        assert_eq!(send(&queue, 1, b"x"), Ok(Sent::Done));
        let granule = look(&memory, |tx| Ok(tx.first()?)).unwrap();
        let word = plain_word(&memory, granule);
        word.store(length | block << 32, Ordering::Relaxed);
        let mut room = vec![0u8; 200];
        // SAFETY: there is that much room.
        let peeked = unsafe { queue.peek(0, room.as_mut_ptr(), 80, &Anybody) };
        assert!(matches!(peeked, Err(DAMAGED | Errno::E2BIG)), "{length} in {block}: {peeked:?}");
        word.store(1, Ordering::Relaxed);
        assert_eq!(receive(&queue, Selector::Any, 10).unwrap().unwrap().1, b"x");
    }
}

fn plain_word(memory: &Mapping, granule: u32) -> &core::sync::atomic::AtomicU64 {
    memory.word(layout::granule_offset(granule) + message::LENGTH).unwrap()
}

/// Who waits on an empty queue watches the link to the next message, on any other queue `cur`; and sees both kinds of
/// change either way, whatever a peer noted as its guess.
#[test]
fn who_watches_sees_messages_and_all_else() {
    let memory = new_queue(1000);
    let queue = Queue::new(&memory, 1);
    let seat = queue.enter().unwrap();
    memory
        .half(layout::participant_offset(seat.index()) + participant::PEER)
        .unwrap()
        .store(u32::MAX, Ordering::Relaxed);
    let sees = |change: &dyn Fn()| {
        let lookout = queue.lookout(queue.moment());
        assert!(!queue.spin(&seat, &lookout, 3), "nothing has happened");
        change();
        queue.spin(&seat, &lookout, 3)
    };
    let set = |mode| queue.configure(&|settings| Ok(Configuration { mode, ..settings })).map(drop);
    assert!(sees(&|| set(0o600).unwrap()), "other settings, of an empty queue");
    assert!(sees(&|| assert!(send(&queue, 1, b"x").is_ok())), "a message, in an empty queue");
    assert!(sees(&|| assert!(send(&queue, 2, b"y").is_ok())), "a second one");
    assert!(sees(&|| drop(receive(&queue, Selector::Any, 80))), "one less");
    assert!(sees(&|| drop(receive(&queue, Selector::Any, 80))), "none any more");
    assert!(sees(&|| queue.remove(&|_| Ok(()), &|_| {}).unwrap()), "the end");
    seat.release();
}
