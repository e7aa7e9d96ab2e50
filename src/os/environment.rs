//! The environment, read at start-up. In a program with more rights than its caller (set-user-ID and the
//! like) it says nothing: its caller wrote it.

use core::ffi::CStr;

/// The value of a variable. What it points to is the environment's: to be copied at once, and asked for
/// only while nothing else changes the environment.
pub fn variable(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: asks for a number; what the system does not tell is 0.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    // SAFETY: the name is a C string.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if secure || value.is_null() {
        return None;
    }
    // SAFETY: a value of the environment is a C string.
    Some(unsafe { CStr::from_ptr(value) }.to_bytes()).filter(|value| !value.is_empty())
}

/// The value of a variable that is a decimal number.
pub fn number(name: &CStr) -> Option<u64> {
    core::str::from_utf8(variable(name)?).ok()?.parse().ok().filter(|&number| number < u64::MAX - 1)
}
