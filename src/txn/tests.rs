//! The transaction with real threads and the processor's own words. Small, so that Miri can run it too: it sees what
//! loom's model (`tests/transaction_model.rs`) does not, the log's uninitialised places and the pointers into the memory.

use super::*;
use core::sync::atomic::fence;
use std::sync::Barrier;
use std::thread;

const LINKS: usize = 3;
const HEADER: usize = 2;

/// Three participants, a header of two words, three link words.
struct Small {
    cur: AtomicU64,
    records: [[AtomicU64; PREFIX + HEADER + 2 * LOG]; 6],
    links: [AtomicU64; LINKS],
}

impl Small {
    fn new() -> Small {
        Small {
            cur: AtomicU64::new(first_cur()),
            records: [const { [const { AtomicU64::new(0) }; PREFIX + HEADER + 2 * LOG] }; 6],
            links: [const { AtomicU64::new(0) }; LINKS],
        }
    }
}

impl Memory for Small {
    type Word = AtomicU64;

    fn cur(&self) -> Option<&AtomicU64> {
        Some(&self.cur)
    }

    fn record(&self, record: u32) -> Option<&[AtomicU64]> {
        self.records.get(record as usize).map(|record| &record[..])
    }

    fn link(&self, position: u32) -> Option<&AtomicU64> {
        self.links.get(position as usize)
    }

    fn fence(order: Ordering) {
        fence(order);
    }

    fn pause() {
        thread::yield_now();
    }
}

/// A snapshot: the header, and the values of all link words; `None` if it was not one.
fn snapshot(memory: &Small) -> Option<([u64; HEADER], [u32; LINKS])> {
    let transaction: Transaction<_, HEADER> = begin(memory, 0).unwrap();
    let links = [0, 1, 2].map(|position| transaction.get(memory, position).unwrap());
    transaction.still(memory).then_some((transaction.header, links))
}

/// Adds one to all link words and to the header's first word; the second is the sum of who did.
fn count(memory: &Small, participant: u32) {
    loop {
        let mut transaction: Transaction<_, HEADER> = begin(memory, participant).unwrap();
        transaction.header[0] += 1;
        transaction.header[1] += u64::from(participant);
        let changed = (0..LINKS as u32).try_for_each(|position| {
            let value = transaction.get(memory, position)?;
            // Twice: the second finds the entry in the log.
            transaction.set(memory, position, value)?;
            transaction.set(memory, position, value + 1)
        });
        assert_eq!(changed, Ok(()));
        if transaction.commit(memory).unwrap() {
            return;
        }
    }
}

#[test]
fn threads_count_together() {
    let times: u32 = if cfg!(miri) { 6 } else { 5_000 };
    let memory = Small::new();
    let start = Barrier::new(3);
    thread::scope(|scope| {
        for participant in 0..2 {
            let (memory, start) = (&memory, &start);
            scope.spawn(move || {
                start.wait();
                (0..times).for_each(|_| count(memory, participant));
            });
        }
        start.wait();
        let mut last = 0;
        for _ in 0..times {
            let Some((header, links)) = snapshot(&memory) else { continue };
            assert_eq!(links.map(u64::from), [header[0]; LINKS], "one moment");
            assert!(header[0] >= last && header[1] <= header[0], "no way back");
            last = header[0];
        }
    });
    let (header, links) = snapshot(&memory).unwrap();
    assert_eq!((header, links), ([2 * u64::from(times), times.into()], [2 * times; LINKS]));
}

#[test]
fn a_log_that_is_full_is_refused() {
    let memory = Small::new();
    let mut transaction: Transaction<_, HEADER> = begin(&memory, 0).unwrap();
    for entry in 0..LOG as u32 {
        assert_eq!(transaction.room(), LOG - entry as usize);
        // Positions of one's own: what they name does not matter here.
        assert_eq!(transaction.change(100 + entry, &memory.links[0], 1), Ok(()));
    }
    assert_eq!(transaction.change(99, &memory.links[0], 1), Err(Damaged));
    assert_eq!(transaction.set(&memory, 0, 1), Err(Damaged));
    assert_eq!(transaction.set(&memory, 100, 2), Ok(()), "one that is there can be changed");
}
