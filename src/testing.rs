//! Help for unit tests that may crash, change the process's identity, or enter a sandbox: they run in
//! a forked child with a watchdog.

use core::ptr;
use libc::{c_int, c_long, c_void, sock_filter, sock_fprog};

/// Runs `test` in a forked child; fails if it returns false, crashes, or takes 20 seconds.
pub fn in_child(test: impl FnOnce() -> bool) {
    // SAFETY: the child runs only `test`, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: a watchdog and the way out; neither touches memory.
        unsafe {
            libc::alarm(20);
            let passed = std::panic::catch_unwind(core::panic::AssertUnwindSafe(test));
            libc::_exit(if matches!(passed, Ok(true)) { 0 } else { 1 });
        }
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(status == 0, "child: exit {}, signal {}", status >> 8, status & 0x7f);
}

/// Tells whether tests that need root can run; says so past the harness's capture where they cannot.
pub fn is_root() -> bool {
    use std::io::Write;
    let root = crate::os::credentials::euid() == 0;
    if !root {
        let _ = writeln!(std::io::stderr(), "SKIPPED: a test that needs root");
    }
    root
}

/// Anonymous pages of their own, unmapped at the end.
pub struct Pages {
    start: *mut u8,
    length: usize,
}

impl Pages {
    /// Maps `count` pages.
    pub fn new(count: usize, protection: c_int) -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let length = count * 4096;
        // SAFETY: a mapping at an address of the kernel's choice disturbs nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        Self { start: start.cast(), length }
    }

    /// The address of the first byte.
    pub fn start(&self) -> usize {
        self.start.expose_provenance()
    }

    /// A pointer to byte `offset`.
    pub fn at(&self, offset: usize) -> *mut u8 {
        self.start.wrapping_add(offset)
    }

    /// Changes the protection of page `page`.
    pub fn protect(&self, page: usize, protection: c_int) {
        // SAFETY: the page is ours, and the tests expect what follows.
        let result = unsafe { libc::mprotect(self.at(page * 4096).cast(), 4096, protection) };
        assert_eq!(result, 0);
    }

    /// Unmaps page `page`.
    pub fn remove(&self, page: usize) {
        // SAFETY: the page is ours, and the tests expect what follows.
        let result = unsafe { libc::munmap(self.at(page * 4096).cast(), 4096) };
        assert_eq!(result, 0);
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range is ours; holes in it do not matter.
        unsafe { libc::munmap(self.start.cast::<c_void>(), self.length) };
    }
}

/// Makes the given system calls fail with EPERM in this process from now on.
pub fn forbid(calls: &[c_long]) {
    let statement = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0)];
    for call in calls {
        filter.push(sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: u32::try_from(*call).unwrap(),
        });
        let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
        filter.push(statement(libc::BPF_RET | libc::BPF_K, refuse));
    }
    filter.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    let program = sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_mut_ptr() };
    // SAFETY: the program outlives the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

/// Runs `prepare` in a forked child and kills that.
pub fn in_child_killed(prepare: impl FnOnce()) {
    // SAFETY: the child runs only `prepare`, and kills itself.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        prepare();
        // SAFETY: asks for our own end.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status & 0x7f, libc::SIGKILL);
}
