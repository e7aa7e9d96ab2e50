//! The next definition of a symbol: what would have been called without us.
//!
//! Invariants:
//! 1. It is the next one in the dynamic linker's order (`dlsym(RTLD_NEXT)`), so that other preloaded libraries
//!    behind us keep working.
//! 2. [`prepare`](super::prepare) looks all up when the library is loaded. Who comes earlier, the constructor of
//!    another library, has it looked up then; in a signal handler or after vfork, where dlsym(3) is not
//!    promised to work, everything is known by that time.
//! 3. dlsym(3) may allocate, and an allocator may call one of our functions: while one look-up is under way no
//!    second begins. [`Next::find`] says null, and its caller does without.

use crate::os::errno;
use core::ffi::CStr;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use libc::c_void;

/// The next definition of a symbol.
///
/// All are written at the start of every program that preloads us. So they lie in the section `.data.usysv`: data that
/// is written, as what is usually there, and a page that the dynamic linker has written to already.
#[repr(transparent)]
pub struct Next {
    /// Null until looked up. Relaxed everywhere: the address of code that was mapped before it could be found.
    address: AtomicPtr<c_void>,
}

impl Next {
    /// One that is not looked up yet.
    pub const fn new() -> Next {
        Next { address: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The address, if it has been looked up and is there.
    #[inline(always)]
    pub fn known(&self) -> *mut c_void {
        self.address.load(Ordering::Relaxed)
    }

    /// The address, or null if there is none (asked again each time: it may appear with `dlopen`), or if a
    /// look-up is under way (invariant 3).
    #[inline]
    pub fn find(&self, name: &CStr) -> *mut c_void {
        let known = self.known();
        if known.is_null() { self.look_up(name) } else { known }
    }

    #[cold]
    fn look_up(&self, name: &CStr) -> *mut c_void {
        // How many look-ups are under way, in all threads: those of other threads keep a second one from
        // beginning as well, which costs no more than a call done without the next definition.
        // SAFETY: see `Next`.
        #[unsafe(link_section = ".data.usysv")]
        static UNDER_WAY: AtomicU32 = AtomicU32::new(0);
        let mut found = ptr::null_mut();
        if UNDER_WAY.fetch_add(1, Ordering::Relaxed) == 0 {
            let before = errno::get();
            // SAFETY: the name is terminated; RTLD_NEXT looks behind the library that this code is in.
            found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
            errno::set(before);
            self.address.store(found, Ordering::Relaxed);
        }
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
        found
    }
}

/// The name in a string that ends with a zero byte, made at compile time from the one in the source.
pub const fn terminated(name: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        Err(_) => c"",
    }
}
