//! The transaction under a model checker: loom runs each model below in every interleaving, and with every
//! value that the memory model lets a load return, within a bound on preemptions.
//!
//! What is checked is `src/txn/mod.rs` itself, not a copy: it is generic over its memory. Only the memory
//! is small: two participants, a header of one or two words, logs of two entries, a handful of link words.
//!
//! Bounds: three preemptions (two where a failure is expected), two threads (three in one model). Loom's
//! memory model is that of C++11, but it has no load buffering (a load never sees a store that has yet to be
//! executed), and it remembers only the last seven stores to a word.
//!
//! A checker that finds nothing proves nothing until it is seen to find something: the second half breaks
//! the memory on purpose, in one way at a time ([`Fault`]), and asks each time for a model that fails.

use loom::sync::atomic::{AtomicU64, fence};
use loom::thread;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use usysv::txn::{Damaged, LENGTH, Memory, PREFIX, Transaction, Word, begin, first_cur, value};

/// What is wrong with the memory.
type Fault = u32;
/// Nothing.
const SOUND: Fault = 0;
/// Fences do nothing.
const NO_FENCES: Fault = 1;
/// Acquire fences do nothing.
const NO_ACQUIRE_FENCES: Fault = 2;
/// Release fences do nothing.
const NO_RELEASE_FENCES: Fault = 3;
/// A log is applied wherever the value is the old one, whatever the tag.
const NO_TAGS: Fault = 4;
/// Logs seem empty to those who might help.
const NO_HELP: Fault = 5;
/// A participant has one record instead of two.
const ONE_RECORD: Fault = 6;
/// The commit's compare-and-swap orders nothing.
const RELAXED_COMMIT: Fault = 7;
/// Applying a log orders nothing.
const RELAXED_APPLY: Fault = 8;
/// Looking at a mark orders nothing.
const RELAXED_MARK: Fault = 9;
/// Reading `cur` orders nothing.
const RELAXED_CUR: Fault = 10;
/// The mark says that a log is applied before it is.
const EARLY_MARK: Fault = 11;

/// Link words there are.
const LINKS: usize = 4;
/// Entries a log has room for.
const ENTRIES: usize = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cur,
    Applied,
    /// The header's first word, with the length of the log.
    First,
    Content,
    Link,
}

struct Atom<const F: Fault> {
    word: AtomicU64,
    /// Stored to, and never read, before each access of `word`. To save executions loom remembers only the
    /// last access of a word, and holds two loads to be independent: so the load that precedes a thread's
    /// compare-and-swap hides from it that another thread's load came before. Stores hide nothing.
    touched: AtomicU64,
    kind: Kind,
}

impl<const F: Fault> Atom<F> {
    fn new(kind: Kind, value: u64) -> Atom<F> {
        Atom { word: AtomicU64::new(value), touched: AtomicU64::new(0), kind }
    }

    fn touch(&self) {
        // Relaxed, and never read: it orders nothing.
        self.touched.store(0, Ordering::Relaxed);
    }
}

impl<const F: Fault> Word for Atom<F> {
    fn load(&self, order: Ordering) -> u64 {
        let order = match (F, self.kind) {
            (RELAXED_CUR, Kind::Cur) | (RELAXED_MARK, Kind::Applied) => Ordering::Relaxed,
            _ => order,
        };
        self.touch();
        match (F, self.kind) {
            (NO_HELP, Kind::First) => self.word.load(order) & !LENGTH,
            _ => self.word.load(order),
        }
    }

    fn store(&self, value: u64, order: Ordering) {
        self.touch();
        self.word.store(value, order);
    }

    fn swap_if(&self, old: u64, new: u64, success: Ordering) -> bool {
        self.touch();
        let success = match (F, self.kind) {
            (RELAXED_COMMIT, Kind::Cur) | (RELAXED_APPLY, Kind::Link) => Ordering::Relaxed,
            _ => success,
        };
        if (F, self.kind) == (NO_TAGS, Kind::Link) {
            let same = |now| (value(now) == value(old)).then_some(new);
            return self.word.fetch_update(success, Ordering::Relaxed, same).is_ok();
        }
        self.word.compare_exchange(old, new, success, Ordering::Relaxed).is_ok()
    }
}

/// The memory of two participants with headers of `H` words.
struct Shared<const F: Fault, const H: usize> {
    cur: Atom<F>,
    records: Vec<Vec<Atom<F>>>,
    links: Vec<Atom<F>>,
}

impl<const F: Fault, const H: usize> Shared<F, H> {
    fn new(links: [u64; LINKS]) -> Arc<Shared<F, H>> {
        let record = || {
            let content = (1..H + 2 * ENTRIES).map(|_| Atom::new(Kind::Content, 0));
            let first = [Kind::Applied, Kind::First].map(|kind| Atom::new(kind, 0));
            assert_eq!(first.len(), PREFIX + 1);
            first.into_iter().chain(content).collect()
        };
        Arc::new(Shared {
            cur: Atom::new(Kind::Cur, first_cur()),
            records: (0..4).map(|_| record()).collect(),
            links: links.map(|value| Atom::new(Kind::Link, value)).into(),
        })
    }
}

impl<const F: Fault, const H: usize> Memory for Shared<F, H> {
    type Word = Atom<F>;

    fn cur(&self) -> Option<&Atom<F>> {
        Some(&self.cur)
    }

    fn record(&self, record: u32) -> Option<&[Atom<F>]> {
        let record = if F == ONE_RECORD { record & !1 } else { record };
        self.records.get(record as usize).map(Vec::as_slice)
    }

    fn link(&self, position: u32) -> Option<&Atom<F>> {
        self.links.get(position as usize)
    }

    fn fence(order: Ordering) {
        match (F, order) {
            (NO_FENCES, _)
            | (NO_ACQUIRE_FENCES, Ordering::Acquire)
            | (NO_RELEASE_FENCES, Ordering::Release) => {}
            _ => fence(order),
        }
    }

    fn pause() {
        thread::yield_now();
    }
}

/// The memory as a participant sees it that will not live to apply its whole log.
struct Dying<'a, const F: Fault, const H: usize> {
    memory: &'a Shared<F, H>,
    /// How many link words it still reaches.
    left: Cell<usize>,
}

impl<const F: Fault, const H: usize> Memory for Dying<'_, F, H> {
    type Word = Atom<F>;

    fn cur(&self) -> Option<&Atom<F>> {
        self.memory.cur()
    }

    fn record(&self, record: u32) -> Option<&[Atom<F>]> {
        self.memory.record(record)
    }

    fn link(&self, position: u32) -> Option<&Atom<F>> {
        self.left.set(self.left.get().checked_sub(1)?);
        self.memory.link(position)
    }

    fn fence(order: Ordering) {
        Shared::<F, H>::fence(order);
    }

    fn pause() {
        thread::yield_now();
    }
}

const DAMAGED: &str = "model: damaged";

/// Runs `body` until what it did is committed.
fn transact<'m, const F: Fault, const H: usize>(
    memory: &'m Shared<F, H>,
    participant: u32,
    mut body: impl FnMut(&mut Transaction<'m, Atom<F>, H>),
) {
    loop {
        // The quick way first, as a call does.
        let mut transaction = Transaction::to_look_at([0; H]);
        if !transaction.begin_quickly(memory, participant).expect(DAMAGED) {
            transaction.begin(memory, participant).expect(DAMAGED);
        }
        body(&mut transaction);
        if F == EARLY_MARK {
            // As if `commit` marked its record applied while it writes it.
            for which in [participant << 1, participant << 1 | 1] {
                let seq = (transaction.mark_of(0) >> 25) & ((1 << 39) - 1);
                memory.records[which as usize][0].store(seq, Ordering::Relaxed);
            }
        }
        if transaction.commit(memory).expect(DAMAGED) {
            return;
        }
        thread::yield_now();
    }
}

/// Like [`transact`], but the participant dies after its commit with `applied` entries of its log applied.
fn transact_and_die<'m, const F: Fault, const H: usize>(
    memory: &'m Shared<F, H>,
    participant: u32,
    applied: usize,
    mut body: impl FnMut(&mut Transaction<'m, Atom<F>, H>),
) {
    loop {
        let mut transaction = begin(memory, participant).expect(DAMAGED);
        body(&mut transaction);
        let dying = Dying { memory, left: Cell::new(applied) };
        match transaction.commit(&dying) {
            Ok(false) => thread::yield_now(),
            died => return assert_eq!(died, Err(Damaged), "model: it lived"),
        }
    }
}

fn get<const F: Fault, const H: usize>(
    transaction: &Transaction<Atom<F>, H>,
    memory: &Shared<F, H>,
    position: u32,
) -> u64 {
    u64::from(transaction.get(memory, position).expect(DAMAGED))
}

fn set<'m, const F: Fault, const H: usize>(
    transaction: &mut Transaction<'m, Atom<F>, H>,
    memory: &'m Shared<F, H>,
    position: u32,
    value: u64,
) {
    transaction.set(memory, position, value as u32).expect(DAMAGED);
}

/// Counts in the header, and in link word 0 the same.
fn count<'m, const F: Fault>(transaction: &mut Transaction<'m, Atom<F>, 1>, memory: &'m Shared<F, 1>) {
    transaction.header[0] += 1;
    let counted = transaction.header[0];
    set(transaction, memory, 0, counted);
}

/// Two participants count at the same time. Every count is there, in the header and in the link word, and
/// whatever was committed rested on a snapshot in which the two agreed.
fn both_count<const F: Fault>() {
    let memory = Shared::<F, 1>::new([0; LINKS]);
    let one = |memory: &Shared<F, 1>, participant| {
        let mut seen = (0, 0);
        transact(memory, participant, |transaction| {
            seen = (transaction.header[0], get(transaction, memory, 0));
            if transaction.still(memory) {
                assert_eq!(seen.0, seen.1, "model: the snapshot disagrees with itself");
            }
            count(transaction, memory);
        });
        assert_eq!(seen.0, seen.1, "model: committed on what was not so");
    };
    let theirs = Arc::clone(&memory);
    let other = thread::spawn(move || one(&theirs, 1));
    one(&memory, 0);
    other.join().expect("model: a thread failed");
    let last = begin::<_, 1>(&*memory, 0).expect(DAMAGED);
    assert_eq!((last.header[0], get(&last, &memory, 0)), (2, 2), "model: a count is lost");
}

/// Counts in the header, and in link words 0 and 1 the same.
fn both<'m, const F: Fault>(transaction: &mut Transaction<'m, Atom<F>, 1>, memory: &'m Shared<F, 1>) {
    count(transaction, memory);
    let counted = transaction.header[0];
    set(transaction, memory, 1, counted);
}

/// A participant dies after its commit, with none or one of two entries applied. The other one sees both,
/// and so does everybody afterwards.
fn the_dead_are_helped<const F: Fault>(applied: usize) {
    let memory = Shared::<F, 1>::new([0; LINKS]);
    let theirs = Arc::clone(&memory);
    let dying = thread::spawn(move || {
        transact_and_die(&theirs, 1, applied, |transaction| both(transaction, &theirs));
    });
    transact(&memory, 0, |transaction| {
        let seen = [transaction.header[0], get(transaction, &memory, 0), get(transaction, &memory, 1)];
        if transaction.still(&*memory) {
            assert_eq!(seen, [seen[0]; 3], "model: half a transaction");
        }
        both(transaction, &memory);
    });
    dying.join().expect("model: a thread failed");
    let last = begin::<_, 1>(&*memory, 0).expect(DAMAGED);
    let seen = [last.header[0], get(&last, &memory, 0), get(&last, &memory, 1)];
    assert_eq!(seen, [2; 3], "model: what the dead committed is lost");
}

/// A link word goes to and fro between two values, three commits in all; so that a helper held up between
/// its look at the log and its compare-and-swap finds the value it expects, but not the word.
fn late_helpers_fail<const F: Fault>() {
    let memory = Shared::<F, 1>::new([0; LINKS]);
    let toggle = |memory: &Shared<F, 1>, participant| {
        transact(memory, participant, |transaction| {
            let seen = (transaction.header[0] % 2, get(transaction, memory, 0));
            if transaction.still(memory) {
                assert_eq!(seen.0, seen.1, "model: a change came late");
            }
            transaction.header[0] += 1;
            set(transaction, memory, 0, 1 - seen.1 % 2);
        });
    };
    let theirs = Arc::clone(&memory);
    let other = thread::spawn(move || {
        toggle(&theirs, 1);
        toggle(&theirs, 1);
    });
    toggle(&memory, 0);
    other.join().expect("model: a thread failed");
    let last = begin::<_, 1>(&*memory, 0).expect(DAMAGED);
    assert_eq!((last.header[0], get(&last, &memory, 0)), (3, 1), "model: a change came late");
}

/// A granule (its link is word 1) is taken from one list (word 0), written privately, and published in
/// another (word 2). A reader with an older snapshot that meets the private value learns that its snapshot is
/// old.
fn the_private_stays_private<const F: Fault>() {
    const FROM: u32 = 0;
    const GRANULE: u32 = 1;
    const TO: u32 = 2;
    let memory = Shared::<F, 1>::new([1, 7, 0, 0]);
    let theirs = Arc::clone(&memory);
    let taker = thread::spawn(move || {
        transact(&theirs, 1, |transaction| set(transaction, &theirs, FROM, 0));
        transact(&theirs, 1, |transaction| {
            transaction.privately(&*theirs, GRANULE, 9).expect(DAMAGED);
            set(transaction, &theirs, TO, 1);
        });
    });
    for _ in 0..2 {
        let transaction = begin::<_, 1>(&*memory, 0).expect(DAMAGED);
        let seen = [FROM, TO, GRANULE].map(|position| get(&transaction, &memory, position));
        if transaction.still(&*memory) {
            assert!(matches!(seen, [1, 0, 7] | [0, 0, _] | [0, 1, 9]), "model: believed {seen:?}");
        }
    }
    taker.join().expect("model: a thread failed");
    let last = begin::<_, 1>(&*memory, 0).expect(DAMAGED);
    let seen = [FROM, TO, GRANULE].map(|position| get(&last, &memory, position));
    assert_eq!(seen, [0, 1, 9], "model: what was published is lost");
}

/// The same with two who want the granule, one of whom only changes its link: that must never hit the
/// private value.
fn the_private_is_not_changed<const F: Fault>() {
    let memory = Shared::<F, 1>::new([1, 7, 0, 0]);
    let theirs = Arc::clone(&memory);
    let taker = thread::spawn(move || {
        transact(&theirs, 1, |transaction| set(transaction, &theirs, 0, 0));
        // Back to the first value: the tag alone tells the words apart.
        transact(&theirs, 1, |transaction| transaction.privately(&*theirs, 1, 7).expect(DAMAGED));
        let last = begin::<_, 1>(&*theirs, 0).expect(DAMAGED);
        assert_eq!(get(&last, &theirs, 1), 7, "model: somebody changed what is private");
    });
    let mut changed = false;
    transact(&memory, 0, |transaction| {
        changed = get(transaction, &memory, 0) == 1;
        if changed {
            set(transaction, &memory, 1, 8);
        }
    });
    taker.join().expect("model: a thread failed");
    let last = begin::<_, 1>(&*memory, 0).expect(DAMAGED);
    assert_eq!(get(&last, &memory, 1), 7, "model: somebody changed what is private, {changed}");
}

/// Two header words and two link words always change together; a reader never believes that they differ.
/// Three commits, so that the record that the reader looks at is written again meanwhile.
fn snapshots_are_whole<const F: Fault>() {
    let memory = Shared::<F, 2>::new([0; LINKS]);
    let theirs = Arc::clone(&memory);
    let writer = thread::spawn(move || {
        for _ in 0..3 {
            transact(&theirs, 1, |transaction| {
                let next = transaction.header[0] + 1;
                transaction.header = [next; 2];
                set(transaction, &theirs, 0, next);
                set(transaction, &theirs, 1, next);
            });
        }
    });
    let transaction = begin::<_, 2>(&*memory, 0).expect(DAMAGED);
    let [first, second] = transaction.header;
    assert_eq!(first, second, "model: a torn header");
    let links = [get(&transaction, &memory, 1), get(&transaction, &memory, 0)];
    if transaction.still(&*memory) {
        assert_eq!(links, [first; 2], "model: a torn snapshot");
    }
    writer.join().expect("model: a thread failed");
}

/// A commit with a log, by one who dies, is followed by one that changes the header alone, and that by a
/// reader: who has nothing to apply must yet see what was applied before.
fn nothing_to_apply_hides_nothing<const F: Fault>() {
    let memory = Shared::<F, 2>::new([0; LINKS]);
    let (first, second) = (Arc::clone(&memory), Arc::clone(&memory));
    let dying = thread::spawn(move || {
        transact_and_die(&first, 1, 0, |transaction| {
            transaction.header[0] += 1;
            set(transaction, &first, 0, 1);
        });
    });
    let header_only = thread::spawn(move || {
        transact(&second, 0, |transaction| transaction.header[1] += 1);
    });
    let transaction = begin::<_, 2>(&*memory, 0).expect(DAMAGED);
    let seen = get(&transaction, &memory, 0);
    if transaction.still(&*memory) {
        assert_eq!(seen, transaction.header[0], "model: an empty log hid a full one");
    }
    dying.join().expect("model: a thread failed");
    header_only.join().expect("model: a thread failed");
    let last = begin::<_, 2>(&*memory, 0).expect(DAMAGED);
    assert_eq!((last.header, get(&last, &memory, 0)), ([1, 1], 1), "model: something is lost");
}

/// Explores a model; returns how many executions that took, and what failed.
fn check(preemptions: usize, model: fn()) -> (usize, Result<(), Box<dyn Any + Send>>) {
    let executions = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    let result = catch_unwind(AssertUnwindSafe(|| {
        builder.check(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            model();
        });
    }));
    (executions.load(Ordering::Relaxed), result)
}

/// The model must hold, and take at least so many executions to explore.
fn holds(name: &str, preemptions: usize, at_least: usize, model: fn()) {
    let start = Instant::now();
    let (executions, result) = check(preemptions, model);
    let seconds = start.elapsed().as_secs_f64();
    println!("{name}: {executions} executions, {preemptions} preemptions, {seconds:.1} s");
    if let Err(failure) = result {
        std::panic::resume_unwind(failure);
    }
    assert!(executions >= at_least, "{name}: explored only {executions} of {at_least} executions");
}

/// The model must fail, by one of its own assertions.
fn fails(name: &str, preemptions: usize, model: fn()) {
    let start = Instant::now();
    let (executions, result) = check(preemptions, model);
    let seconds = start.elapsed().as_secs_f64();
    let failure = result.expect_err(name);
    let text = failure.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| failure.downcast_ref::<&str>().copied()).unwrap_or_default();
    println!("{name}: failed after {executions} executions, {seconds:.1} s: {text}");
    assert!(text.contains("model:"), "{name}: failed otherwise: {text}");
}

macro_rules! hold {
    ($($name:ident($model:expr, $preemptions:expr, $at_least:expr);)*) => {
        mod holds {
            use super::*;
            $(#[test]
            fn $name() {
                holds(stringify!($name), $preemptions, $at_least, || $model);
            })*
        }
    };
}

macro_rules! fail {
    ($($name:ident($model:expr);)*) => {
        mod fails {
            use super::*;
            $(#[test]
            fn $name() {
                fails(stringify!($name), 2, || $model);
            })*
        }
    };
}

// The last number: somewhat less than are explored at present.
hold! {
    both_count_at_once(both_count::<SOUND>(), 3, 4_000);
    the_dead_are_helped_with_nothing_applied(the_dead_are_helped::<SOUND>(0), 3, 3_500);
    the_dead_are_helped_with_half_applied(the_dead_are_helped::<SOUND>(1), 3, 4_000);
    late_helpers_change_nothing(late_helpers_fail::<SOUND>(), 3, 18_000);
    private_values_are_not_believed(the_private_stays_private::<SOUND>(), 3, 160_000);
    private_values_are_not_changed(the_private_is_not_changed::<SOUND>(), 3, 6_000);
    whole_snapshots(snapshots_are_whole::<SOUND>(), 3, 300_000);
    empty_logs_hide_nothing(nothing_to_apply_hides_nothing::<SOUND>(), 3, 70_000);
    // The fence that follows in `begin` orders as much: the acquire load of the mark asks for no more.
    relaxed_looks_at_the_mark(nothing_to_apply_hides_nothing::<RELAXED_MARK>(), 2, 5_000);
}

fail! {
    without_fences(snapshots_are_whole::<NO_FENCES>());
    without_acquire_fences(snapshots_are_whole::<NO_ACQUIRE_FENCES>());
    without_release_fences_in_records(snapshots_are_whole::<NO_RELEASE_FENCES>());
    without_release_fences_before_private_stores(the_private_stays_private::<NO_RELEASE_FENCES>());
    without_tags_against_late_helpers(late_helpers_fail::<NO_TAGS>());
    without_tags_on_private_words(the_private_is_not_changed::<NO_TAGS>());
    without_help(the_dead_are_helped::<NO_HELP>(0));
    without_a_second_record(snapshots_are_whole::<ONE_RECORD>());
    with_a_relaxed_commit(both_count::<RELAXED_COMMIT>());
    with_relaxed_application(snapshots_are_whole::<RELAXED_APPLY>());
    with_relaxed_looks_at_cur(both_count::<RELAXED_CUR>());
    with_an_early_mark(the_dead_are_helped::<EARLY_MARK>(1));
}
