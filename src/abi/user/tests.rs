//! The bad pointers of `EFAULT`, each in a child that would crash if we got it wrong.

use super::*;
use crate::os::errno::Errno;
use crate::testing::{Pages, in_child};
use core::hint::black_box;
use core::ptr::with_exposed_provenance_mut;
use libc::{PROT_NONE, PROT_READ, PROT_WRITE};
use std::time::Instant;

/// The functions under test, with nothing found good before.
unsafe fn copy_in(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    unsafe { super::copy_in(dst, src, len, Good::NONE) }
}

unsafe fn copy_out(dst: *mut u8, src: *const u8, len: usize) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    unsafe { super::copy_out(dst, src, len, Good::NONE) }
}

unsafe fn read_long(src: *const c_long) -> Result<c_long, Fault> {
    // SAFETY: the caller's promise.
    unsafe { super::read_long(src) }.map(|(long, _)| long)
}

unsafe fn write_long(dst: *mut c_long, value: c_long) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    unsafe { super::write_long(dst, value) }.map(drop)
}

const OPEN: libc::c_int = PROT_READ | PROT_WRITE;

fn read(address: usize, len: usize) -> bool {
    let mut ours = [0u8; 3 * PAGE];
    assert!(len <= ours.len());
    // SAFETY: `ours` is long enough; the other side may be anything.
    unsafe { copy_in(ours.as_mut_ptr(), with_exposed_provenance_mut(address), len).is_ok() }
}

fn write(address: usize, len: usize) -> bool {
    let ours = [0x5au8; 3 * PAGE];
    assert!(len <= ours.len());
    // SAFETY: `ours` is long enough; what can be written on the other side is the test's own.
    unsafe { copy_out(with_exposed_provenance_mut(address), ours.as_ptr(), len).is_ok() }
}

fn probe(address: usize, len: usize) -> bool {
    // SAFETY: reads at most.
    unsafe { probe_read(with_exposed_provenance_mut(address), len).is_ok() }
}

/// Questions to the kernel in this process so far.
fn asked() -> u64 {
    // Relaxed: counted by this thread.
    probe::ASKED.load(Ordering::Relaxed)
}

/// Runs `test`; says how many questions it took.
fn questions(test: impl FnOnce() -> bool) -> Option<u64> {
    let before = asked();
    test().then(|| asked() - before)
}

#[test]
fn bad_addresses() {
    in_child(|| {
        errno::set(Errno(77));
        let mut right = true;
        for address in [
            0,
            1,
            8,
            4096,
            LOWEST - 1,
            usize::MAX,
            usize::MAX - 7,
            usize::MAX - 4095,
            1 << 63,
            0x0000_8000_0000_0000,
            0x0000_7fff_ffff_f000,
            0x1234_5678_9abc_def0,
        ] {
            for len in [1, 8, 64, 4096, 8192] {
                let bad = !read(address, len) && !write(address, len) && !probe(address, len);
                if !bad {
                    eprintln!("{address:#x} {len}");
                }
                right &= bad;
            }
            // Length zero never touches.
            right &= read(address, 0) && write(address, 0) && probe(address, 0);
        }
        // Ranges that wrap around or reach into the kernel.
        let good = Pages::new(1, OPEN);
        right &= !probe(good.start(), usize::MAX) && !probe(good.start(), usize::MAX / 2);
        right && errno::get() == Errno(77)
    });
}

#[test]
fn protections() {
    in_child(|| {
        let closed = Pages::new(1, PROT_NONE);
        let read_only = Pages::new(1, PROT_READ);
        let mut right = true;
        for _ in 0..2 * EARNED {
            right &= !read(closed.start(), 8) && !write(closed.start(), 8);
            right &= read(read_only.start(), 8) && !write(read_only.start(), 8);
        }
        right
    });
}

/// Every start and length around the border of a good page and a hole: the bytes before the hole are
/// there, and no others.
#[test]
fn hole_after_a_valid_page() {
    in_child(|| {
        let pages = Pages::new(3, OPEN);
        pages.remove(2);
        let end = 2 * PAGE;
        let mut right = true;
        for before in [1usize, 3, 7, 8, 9, 100, 4095, 4096, 4097, 8192] {
            for after in [0usize, 1, 8, 4000] {
                // SAFETY: the two pages are ours.
                unsafe { pages.at(0).write_bytes(0, end) };
                let result = write(pages.start() + end - before, before + after);
                right &= result == (after == 0);
                // SAFETY: as above.
                let bytes = unsafe { core::slice::from_raw_parts(pages.at(0), end) };
                right &= bytes[..end - before].iter().all(|&byte| byte == 0);
                right &= bytes[end - before..].iter().all(|&byte| byte == 0x5a);
                right &= read(pages.start() + end - before, before + after) == (after == 0);
            }
        }
        right
    });
}

#[test]
fn first_page_bad_second_good() {
    in_child(|| {
        let pages = Pages::new(2, OPEN);
        pages.protect(0, PROT_NONE);
        !write(pages.start() + 4000, 200) && {
            // SAFETY: the page is ours.
            unsafe { *pages.at(PAGE) == 0 }
        }
    });
}

#[test]
fn file_beyond_its_end() {
    in_child(|| {
        // SAFETY: a file of our own, its mapping, and a look at the end of it.
        unsafe {
            let fd = libc::memfd_create(c"usysv".as_ptr(), 0);
            if fd < 0 || libc::ftruncate(fd, 100) != 0 {
                return false;
            }
            let map = libc::mmap(ptr::null_mut(), 2 * PAGE, OPEN, libc::MAP_SHARED, fd, 0);
            let start = map.expose_provenance();
            read(start, 200) && write(start, 200) && !read(start + PAGE, 8) && !write(start + PAGE, 8)
        }
    });
}

/// What tests do: use a page, take it away, use it again, bring it back.
#[test]
fn page_taken_away_before_it_is_trusted() {
    in_child(|| {
        let pages = Pages::new(1, OPEN);
        let start = pages.start();
        let mut right = true;
        for _ in 0..10 {
            // One good answer follows below.
            for _ in 0..EARNED - 2 {
                right &= read(start, 64) && write(start, 64);
            }
            pages.protect(0, PROT_READ);
            right &= !write(start, 64) && read(start, 64);
            pages.protect(0, PROT_NONE);
            right &= !read(start, 64) && !write(start, 64);
            pages.protect(0, OPEN);
        }
        right &= read(start, 64);
        pages.remove(0);
        right && !read(start, 64) && !write(start, 64)
    });
}

#[test]
fn steady_state_asks_nothing() {
    in_child(|| {
        let heap = vec![1u8; 3 * PAGE];
        let heap = heap.as_ptr().expose_provenance();
        let long =
            |times: usize, len: usize| questions(|| (0..times).all(|_| read(heap, len) && write(heap, len)));
        // Three or four pages, both ways.
        let first = long(EARNED, 3 * PAGE - 16).is_some_and(|count| count >= 6 * EARNED as u64);
        let steady = long(1000, 3 * PAGE - 16) == Some(0) && long(1000, 100) == Some(0);

        let mut stack = [0u8; 100];
        let stack = stack.as_mut_ptr().expose_provenance();
        let first = first && questions(|| read(stack, 100) && write(stack, 100)) <= Some(4);
        let stacked = questions(|| (0..1000).all(|_| read(stack, 100) && write(stack, 100)));
        first && steady && stacked == Some(0)
    });
}

/// Tests run on threads of the harness's, so the main thread's stack needs a program of its own: this
/// binary again, which [`ON_MAIN_THREAD`] ends before the harness starts.
#[test]
fn steady_state_on_the_main_thread_s_stack() {
    let program = std::env::current_exe().unwrap();
    let status = std::process::Command::new(program).env("USYSV_ON_MAIN_THREAD", "1").status();
    assert_eq!(status.unwrap().code(), Some(42));
}

#[used]
#[unsafe(link_section = ".init_array")]
static ON_MAIN_THREAD: extern "C" fn() = {
    extern "C" fn run() {
        // SAFETY: the name is terminated; nobody changes the environment yet.
        if unsafe { libc::getenv(c"USYSV_ON_MAIN_THREAD".as_ptr()) }.is_null() {
            return;
        }
        let mut stack = [0u8; 100];
        let stack = stack.as_mut_ptr().expose_provenance();
        let right = read(stack, 100)
            && write(stack, 100)
            && questions(|| (0..1000).all(|_| read(stack, 100) && write(stack, 100))) == Some(0);
        // SAFETY: ends the process, on its only thread.
        unsafe { libc::_exit(if right { 42 } else { 1 }) }
    }
    run
};

/// A thread's stack is trusted at once while it runs there, and not after the thread has gone.
#[test]
fn stack_of_a_thread_that_is_gone() {
    in_child(|| {
        extern "C" fn body(answer: *mut libc::c_void) -> *mut libc::c_void {
            let mut buffer = [0u8; 64];
            let buffer = buffer.as_mut_ptr().expose_provenance();
            let right = read(buffer, 64)
                && write(buffer, 64)
                && questions(|| (0..100).all(|_| read(buffer, 64) && write(buffer, 64))) == Some(0);
            let answer: *mut usize = answer.cast();
            // SAFETY: the creator waits for us and owns the word.
            unsafe { *answer = if right { buffer } else { 0 } };
            ptr::null_mut()
        }
        let stack = Pages::new(64, OPEN);
        let mut buffer = 0usize;
        // SAFETY: the stack outlives the thread, which is joined.
        unsafe {
            let mut attributes: libc::pthread_attr_t = core::mem::zeroed();
            libc::pthread_attr_init(&mut attributes);
            libc::pthread_attr_setstack(&mut attributes, stack.at(0).cast(), 64 * PAGE);
            let mut thread = core::mem::zeroed();
            let argument = (&raw mut buffer).cast();
            if libc::pthread_create(&mut thread, &attributes, body, argument) != 0 {
                return false;
            }
            libc::pthread_join(thread, ptr::null_mut());
        }
        let page = (buffer - stack.start()) / PAGE;
        stack.protect(page, PROT_NONE);
        buffer != 0 && !read(buffer, 64) && !write(buffer, 64)
    });
}

/// More pages than the table holds: always asked about, always right.
#[test]
fn more_pages_than_the_table_holds() {
    in_child(|| {
        let pages = Pages::new(4 * SETS, OPEN);
        let mut right = true;
        for _ in 0..3 {
            for page in 0..4 * SETS {
                right &= read(pages.start() + page * PAGE, 1);
            }
        }
        // A newcomer earns its place all the same.
        let last = pages.start() + 8;
        right &= (0..EARNED).all(|_| read(last, 8));
        right && questions(|| (0..100).all(|_| read(last, 8))) == Some(0)
    });
}

/// Two pages that share a set do not drive each other out.
#[test]
fn two_hot_pages_in_one_set() {
    in_child(|| {
        let pages = Pages::new(2 * SETS, OPEN);
        let first = pages.start();
        let set = |page: usize| ptr::from_ref(READABLE.set(page));
        let Some(second) = (1..2 * SETS).map(|n| first + n * PAGE).find(|&page| set(page) == set(first))
        else {
            return false;
        };
        let both = |times| (0..times).all(|_| read(first, 8) && read(second, 8));
        both(EARNED) && questions(|| both(1000)) == Some(0)
    });
}

#[test]
fn contents_arrive() {
    let source: Vec<u8> = (0..=255).cycle().take(3 * PAGE).collect();
    let mut there = vec![0u8; 3 * PAGE];
    let mut back = vec![0u8; 3 * PAGE];
    for (start, len) in [(0, 1), (5, 8), (4090, 100), (1, 8192), (4095, 2), (0, 3 * PAGE)] {
        there.fill(0);
        back.fill(0);
        // SAFETY: all three are long enough for start + len.
        unsafe {
            copy_out(there.as_mut_ptr().add(start), source.as_ptr(), len).unwrap();
            copy_in(back.as_mut_ptr(), there.as_ptr().add(start), len).unwrap();
        }
        assert_eq!(back[..len], source[..len]);
        assert!(there[..start].iter().chain(&there[start + len..]).all(|&byte| byte == 0));
    }
}

#[test]
fn longs() {
    let pages = Pages::new(2, OPEN);
    pages.protect(1, PROT_NONE);
    for offset in [0, 8, 1, 4088] {
        let place: *mut c_long = pages.at(offset).cast();
        // SAFETY: the page is ours.
        unsafe {
            assert_eq!(write_long(place, c_long::MIN + 5), Ok(()));
            assert_eq!(read_long(place), Ok(c_long::MIN + 5));
        }
    }
    let across: *mut c_long = pages.at(4092).cast();
    // SAFETY: the first half is ours, the second is closed.
    unsafe {
        let before = across.cast::<u32>().read_unaligned();
        assert_eq!(write_long(across, -1), Err(Fault));
        assert_eq!(read_long(across), Err(Fault));
        // All or nothing: the half that could be written is as it was.
        assert_eq!(across.cast::<u32>().read_unaligned(), before);
        assert_eq!(read_long(ptr::null()), Err(Fault));
        assert_eq!(write_long(ptr::null_mut(), 1), Err(Fault));
    }
}

/// Figures for the documentation: `cargo test --release --lib -- --ignored --nocapture costs`.
#[test]
#[ignore = "prints figures, checks nothing"]
fn costs() {
    fn time(name: &str, rounds: u32, mut work: impl FnMut()) {
        let best = (0..5)
            .map(|_| {
                let start = Instant::now();
                (0..rounds).for_each(|_| work());
                start.elapsed().as_secs_f64() * 1e9 / f64::from(rounds)
            })
            .fold(f64::MAX, f64::min);
        println!("{name:40} {best:8.1} ns");
    }
    let heap = vec![1u8; 16384];
    let heap = black_box(heap.as_ptr().cast_mut());
    let mut stack = [1u8; 8192 + 64];
    let stack = black_box(stack.as_mut_ptr());
    let mut ours = [0u8; 8192 + 64];
    let ours = black_box(ours.as_mut_ptr());
    for len in [8usize, 64, 1024, 8192] {
        // SAFETY: all buffers are longer than `len`.
        unsafe {
            for (place, theirs) in [("heap", heap), ("stack", stack)] {
                time(&format!("memcpy  {len:5} {place}"), 1_000_000, || {
                    ptr::copy_nonoverlapping(black_box(theirs), ours, black_box(len));
                });
                time(&format!("copy_in {len:5} {place}"), 1_000_000, || {
                    black_box(copy_in(ours, black_box(theirs), black_box(len))).unwrap();
                });
                time(&format!("copy_out {len:4} {place}"), 1_000_000, || {
                    black_box(copy_out(black_box(theirs), ours, black_box(len))).unwrap();
                });
            }
        }
    }
    // SAFETY: both are good.
    unsafe {
        time("read_long heap", 1_000_000, || {
            black_box(read_long(black_box(heap.cast()))).unwrap();
        });
        time("read_long stack", 1_000_000, || {
            black_box(read_long(black_box(stack.cast()))).unwrap();
        });
    }
    let pages = Pages::new(4 * SETS, OPEN);
    let mut page = 0;
    let mut next = || {
        page = (page + 1) % (4 * SETS);
        pages.at(page * PAGE)
    };
    // SAFETY: the pages are ours.
    unsafe {
        time("copy_in 64, page unknown", 100_000, || copy_in(ours, next(), 64).unwrap());
        time("copy_out 64, page unknown", 100_000, || copy_out(next(), ours, 64).unwrap());
    }
    for address in [0usize, 1 << 40] {
        time(&format!("read_long, bad {address:#x}"), 100_000, || {
            // SAFETY: may be anything.
            black_box(unsafe { read_long(with_exposed_provenance_mut(address)) }).unwrap_err();
        });
    }
}

/// What was found good for the type counts for the text in the same page, and for no other.
#[test]
fn the_page_of_the_type_is_not_looked_up_again() {
    in_child(|| {
        let pages = Pages::new(2, OPEN);
        pages.remove(1);
        let mut ours = [0u8; 64];
        // SAFETY: `ours` is long enough; the other side may be anything.
        unsafe {
            let (_, good) = super::read_long(pages.at(0).cast()).unwrap();
            let before = asked();
            super::copy_in(ours.as_mut_ptr(), pages.at(8), 64, good) == Ok(())
                && asked() == before
                && super::copy_in(ours.as_mut_ptr(), pages.at(PAGE - 8), 16, good) == Err(Fault)
                && super::copy_in(ours.as_mut_ptr(), pages.at(PAGE), 8, good) == Err(Fault)
        }
    });
}
