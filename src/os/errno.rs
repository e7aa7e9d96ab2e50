//! Error numbers as values.
//!
//! Invariant: nothing below `abi` writes the caller's `errno`. C library calls that would are wrapped
//! in [`preserving`]; what went wrong travels as an [`Errno`].

use libc::c_int;

/// An error number of the C library, as `errno(3)` lists them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub c_int);

macro_rules! names {
    ($($name:ident)*) => {
        impl Errno {
            $(#[doc = concat!("`", stringify!($name), "`, see errno(3).")]
            pub const $name: Errno = Errno(libc::$name);)*
        }
    };
}

names! {
    E2BIG EACCES EAGAIN EEXIST EFAULT EIDRM EINTR EINVAL ENOENT ENOMEM ENOMSG ENOSPC ENOSYS
    EBUSY EPERM EROFS ENFILE EMFILE ESRCH
}

/// Where the calling thread's `errno` lives.
fn location() -> *mut c_int {
    // SAFETY: takes no argument and cannot fail; the C library owns the location.
    unsafe { libc::__errno_location() }
}

/// The calling thread's `errno`.
pub fn get() -> Errno {
    // SAFETY: the location is valid for the life of the thread.
    Errno(unsafe { *location() })
}

/// Sets the calling thread's `errno`; only the C edge does this on purpose.
pub fn set(error: Errno) {
    // SAFETY: the location is valid for the life of the thread.
    unsafe { *location() = error.0 }
}

/// Runs a C library call that reports failure as -1 and `errno`; returns the error as a value and
/// leaves `errno` as it was.
pub fn preserving<T: PartialEq + From<i8>>(call: impl FnOnce() -> T) -> Result<T, Errno> {
    let before = get();
    let value = call();
    if value == T::from(-1) {
        let error = get();
        set(before);
        Err(error)
    } else {
        Ok(value)
    }
}
