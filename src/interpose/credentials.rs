//! The C library's functions that change credentials: each does what it always did and tells us.
//!
//! The kernel checks permissions with the credentials of the moment; we keep decisions (see
//! [`crate::os::credentials`]) and must hear of every change. So these symbols stand before the C
//! library's: they call [`changed`], the next definition of the same name, and [`changed`] again. Where the C
//! library changes the calling thread only, it is [`changed_here`].
//!
//! Invariants:
//! 1. Return value and `errno` are those of the real function; `errno` is untouched if that leaves it so.
//! 2. The real function is the next definition (see `next`): other preloaded libraries (fakeroot) behind us
//!    keep working.
//! 3. Without a next definition the system call is made, which changes the calling thread only (the C
//!    library would change all threads); `initgroups`, which is more than a system call, gives `ENOSYS`.
//!
//! Part of the preloaded library only (feature `interpose`): a static library must not define these.

use super::next::{Next, terminated};
use crate::os::credentials::{changed, changed_here};
use crate::os::errno::{self, Errno};
use crate::os::raw;
use core::ffi::CStr;
use libc::{c_char, c_int, c_long, c_void, gid_t, size_t, uid_t};

/// System calls that exist twice where ids were once 16 bits wide.
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
mod number {
    pub use libc::{
        SYS_setfsgid32 as SETFSGID, SYS_setfsuid32 as SETFSUID, SYS_setgid32 as SETGID,
        SYS_setgroups32 as SETGROUPS, SYS_setregid32 as SETREGID, SYS_setresgid32 as SETRESGID,
        SYS_setresuid32 as SETRESUID, SYS_setreuid32 as SETREUID, SYS_setuid32 as SETUID,
    };
}
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
mod number {
    pub use libc::{
        SYS_setfsgid as SETFSGID, SYS_setfsuid as SETFSUID, SYS_setgid as SETGID, SYS_setgroups as SETGROUPS,
        SYS_setregid as SETREGID, SYS_setresgid as SETRESGID, SYS_setresuid as SETRESUID,
        SYS_setreuid as SETREUID, SYS_setuid as SETUID,
    };
}

/// "Leave this id as it is."
const SAME: c_int = -1;

/// Defines one symbol: its signature in the C library, and the system call for want of the real one.
macro_rules! pass_on {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $announce:ident else $instead:expr;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of the C library, announced. ")]
            #[doc = "cbindgen:ignore"]
            ///
            /// # Safety
            /// What the real function asks for: pointers, where it takes any, must be valid for it.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
                let address = next::$name.0.find(next::$name.1);
                $announce();
                let result = if address.is_null() {
                    $instead
                } else {
                    type Real = unsafe extern "C" fn($($type),*) -> c_int;
                    // SAFETY: the C library's function of this name has this signature.
                    let real = unsafe { core::mem::transmute::<*mut c_void, Real>(address) };
                    // SAFETY: the caller's promise.
                    unsafe { real($($argument),*) }
                };
                $announce();
                result
            }
        )*

        #[allow(non_upper_case_globals, reason = "named as the symbols are")]
        mod next {
            use super::{CStr, Next, terminated};
            $(
                // The name is written out in the source without a zero byte, and here with one.
                pub static $name: (Next, &CStr) = (
                    Next::new(),
                    terminated(concat!(stringify!($name), "\0")),
                );
            )*
        }

        /// Looks up all the real functions now.
        #[inline(always)]
        pub fn prepare() {
            $(next::$name.0.find(next::$name.1);)*
        }

        #[cfg(test)]
        static ALL: &[&(Next, &CStr)] = &[$(&next::$name),*];
    };
}

pass_on! {
    fn setuid(uid: uid_t) changed else raw(number::SETUID, [uid as usize, 0, 0]);
    fn seteuid(uid: uid_t) changed else raw(number::SETRESUID, [SAME as usize, uid as usize, SAME as usize]);
    fn setreuid(ruid: uid_t, euid: uid_t) changed else raw(number::SETREUID, [ruid as usize, euid as usize, 0]);
    fn setresuid(ruid: uid_t, euid: uid_t, suid: uid_t) changed
        else raw(number::SETRESUID, [ruid as usize, euid as usize, suid as usize]);
    fn setgid(gid: gid_t) changed else raw(number::SETGID, [gid as usize, 0, 0]);
    fn setegid(gid: gid_t) changed else raw(number::SETRESGID, [SAME as usize, gid as usize, SAME as usize]);
    fn setregid(rgid: gid_t, egid: gid_t) changed else raw(number::SETREGID, [rgid as usize, egid as usize, 0]);
    fn setresgid(rgid: gid_t, egid: gid_t, sgid: gid_t) changed
        else raw(number::SETRESGID, [rgid as usize, egid as usize, sgid as usize]);
    fn setgroups(size: size_t, list: *const gid_t) changed else raw(number::SETGROUPS, [size, list.addr(), 0]);
    fn initgroups(user: *const c_char, group: gid_t) changed else {
        let _ = (user, group);
        errno::set(Errno::ENOSYS);
        -1
    };
    fn setfsuid(uid: uid_t) changed_here else raw(number::SETFSUID, [uid as usize, 0, 0]);
    fn setfsgid(gid: gid_t) changed_here else raw(number::SETFSGID, [gid as usize, 0, 0]);
    fn capset(header: *mut c_void, data: *const c_void) changed_here
        else raw(libc::SYS_capset, [header.addr(), data.addr(), 0]);
    // Another user namespace, and all capabilities in it or none.
    fn unshare(flags: c_int) changed else raw(libc::SYS_unshare, [flags as usize, 0, 0]);
    fn setns(fd: c_int, kind: c_int) changed else raw(libc::SYS_setns, [fd as usize, kind as usize, 0]);
}

/// The system call itself, for this thread, with the C library's way of telling an error.
fn raw(call: c_long, [first, second, third]: [usize; 3]) -> c_int {
    // SAFETY: the kernel checks ids and pointers; credentials are not memory.
    match unsafe { raw::call!(call, first, second, third) } {
        Ok(result) => result as c_int,
        Err(error) => {
            errno::set(error);
            -1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::credentials::{euid, generation};
    use crate::testing::{in_child, is_root};

    /// Under test our symbols are in the executable, so the C library's are the next.
    #[test]
    fn all_real_functions_are_found() {
        prepare();
        for next in ALL {
            let found = next.0.find(next.1);
            assert!(!found.is_null(), "{:?}", next.1);
            // SAFETY: RTLD_DEFAULT finds the first definition: ours.
            let first = unsafe { libc::dlsym(libc::RTLD_DEFAULT, next.1.as_ptr()) };
            // An executable need not export its symbols; where it does, they are not the ones found.
            assert!(first == found || !first.is_null(), "{:?}", next.1);
        }
        assert_eq!(ALL.len(), 15);
        assert_ne!(next::seteuid.0.find(next::seteuid.1), seteuid as *mut c_void);
    }

    /// `libc::seteuid` links to the symbol above, as a program's call does under preload.
    #[test]
    fn seteuid_is_noticed_and_done() {
        if !is_root() {
            return;
        }
        in_child(|| {
            let before = generation();
            errno::set(Errno(77));
            // SAFETY: only the child's credentials change.
            let result = unsafe { libc::seteuid(65534) };
            result == 0
                && euid() == 65534
                && generation() == before.wrapping_add(2)
                && errno::get() == Errno(77)
        });
    }

    #[test]
    fn failures_keep_the_real_errno() {
        if !is_root() {
            return;
        }
        in_child(|| {
            // SAFETY: only the child's credentials change.
            unsafe {
                let dropped = libc::setresuid(65534, 65534, 65534) == 0;
                let before = generation();
                let refused = libc::setuid(0) == -1 && errno::get() == Errno::EPERM;
                let invalid = libc::seteuid(u32::MAX) == -1 && errno::get() == Errno::EINVAL;
                dropped && refused && invalid && generation() == before.wrapping_add(4)
            }
        });
    }

    #[test]
    fn each_function_reaches_the_kernel() {
        if !is_root() {
            return;
        }
        in_child(|| {
            let (mut ids, mut groups) = ([0u32; 3], [0u32; 8]);
            // SAFETY: only the child's credentials change; the pointers are valid.
            unsafe {
                let mut right = libc::setgroups(2, [7, 8].as_ptr()) == 0;
                right &= libc::getgroups(8, groups.as_mut_ptr()) == 2 && groups[..2] == [7, 8];
                right &= libc::initgroups(c"root".as_ptr(), 9) == 0;
                let count = libc::getgroups(8, groups.as_mut_ptr());
                right &= count > 0 && groups.contains(&9);
                right &= libc::setfsgid(11) == 0 && libc::setfsgid(u32::MAX) == 11;
                right &= libc::setfsuid(12) == 0 && libc::setfsuid(u32::MAX) == 12;
                right &= libc::setresgid(1, 2, 3) == 0 && libc::setegid(1) == 0;
                libc::getresgid(&mut ids[0], &mut ids[1], &mut ids[2]);
                right &= ids == [1, 1, 3];
                right &= libc::setregid(3, 3) == 0 && libc::setgid(4) == 0;
                right &= libc::getegid() == 4;
                let mut header = [0x2008_0522u32, 0];
                let none = [0u32; 6];
                right &= libc::setreuid(0, 0) == 0;
                right &= capset(header.as_mut_ptr().cast(), none.as_ptr().cast()) == 0;
                right &= libc::setuid(5) == -1 && errno::get() == Errno::EPERM;
                right
            }
        });
    }

    /// What is done when there is no next definition.
    #[test]
    fn raw_calls_do_the_same() {
        if !is_root() {
            return;
        }
        in_child(|| {
            let same = SAME as usize;
            let done = raw(number::SETRESUID, [same, 65534, same]) == 0 && euid() == 65534;
            let back = raw(number::SETRESUID, [same, 0, same]) == 0 && euid() == 0;
            done && back
        });
    }
}
