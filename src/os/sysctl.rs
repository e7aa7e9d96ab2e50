//! Reading one number from a file of the kernel's, such as `/proc/sys/kernel/msgmax`.
//!
//! Invariants: raw system calls only, because the C library's `open` may be interposed (by ourselves,
//! who answer for these very files); no descriptor stays open; `errno` stays as it was; no allocation.

use super::errno::Errno;
use super::raw::call;
use super::signals::{HeldBack, held_back_for};
use core::ffi::CStr;
use libc::{c_int, c_long};

/// Room for any 64-bit number with its line end, and one more byte to notice what is longer.
const ROOM: usize = 32;

/// The decimal number in the file at `path`; nothing if there is no such file or no such number in it.
pub fn read_u64(path: &CStr) -> Option<u64> {
    held_back_for(|held| read_u64_while(held, path))
}

/// The same, where signals are held back already: a handler that jumped away in the middle would leave the descriptor
/// open.
pub fn read_u64_while(_: &HeldBack, path: &CStr) -> Option<u64> {
    let mut text = [0u8; ROOM];
    let length = read(path, &mut text).ok()?;
    if length == ROOM {
        return None;
    }
    parse(text.get(..length)?)
}

/// Reads the beginning of the file; returns the number of bytes.
fn read(path: &CStr, text: &mut [u8; ROOM]) -> Result<usize, Errno> {
    let flags: c_int = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: `path` is terminated; nothing but a descriptor is created.
    let fd = unsafe { call!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) }?;
    let mut length = 0usize;
    let outcome = loop {
        let Some(rest) = text.get_mut(length..).filter(|rest| !rest.is_empty()) else {
            break Ok(length);
        };
        // SAFETY: `rest` is ours and as long as we say.
        match unsafe { call!(libc::SYS_read, fd, rest.as_mut_ptr(), rest.len()) } {
            Ok(count @ 1..) => {
                length = length.saturating_add(usize::try_from(count).unwrap_or(0));
                // These files are one line, and what ends there is whole: no need to ask for the end.
                if text.get(..length).is_some_and(|read| read.ends_with(b"\n")) {
                    break Ok(length);
                }
            }
            Ok(_) => break Ok(length),
            Err(Errno::EINTR) => {}
            Err(error) => break Err(error),
        }
    };
    // Linux closes the descriptor whatever close(2) returns.
    // SAFETY: the descriptor is ours and not used any more.
    let _: Result<c_long, Errno> = unsafe { call!(libc::SYS_close, fd) };
    outcome
}

/// The number that `text` consists of, white space around it aside.
fn parse(text: &[u8]) -> Option<u64> {
    let digits = text.trim_ascii();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &digit| {
        let digit = digit.checked_sub(b'0').filter(|&digit| digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::errno;
    use std::ffi::CString;

    #[test]
    fn numbers() {
        for (text, value) in [
            ("8192\n", Some(8192)),
            ("0", Some(0)),
            ("  32000 \n", Some(32000)),
            ("18446744073709551615\n", Some(u64::MAX)),
            ("18446744073709551616\n", None),
            ("-1\n", None),
            ("+1\n", None),
            ("12 13\n", None),
            ("0x10\n", None),
            ("\n", None),
            ("", None),
        ] {
            assert_eq!(parse(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn files() {
        errno::set(Errno(77));
        assert!(read_u64(c"/proc/sys/kernel/pid_max").is_some_and(|max| max > 300));
        assert_eq!(read_u64(c"/proc/sys/kernel/ostype"), None);
        assert_eq!(read_u64(c"/proc/sys/kernel"), None);
        assert_eq!(read_u64(c"/proc/no/such/file"), None);
        assert_eq!(read_u64(c"/dev/null"), None);
        assert_eq!(read_u64(c"/dev/zero"), None);
        assert_eq!(errno::get(), Errno(77));
    }

    #[test]
    fn long_files_are_refused() {
        let path = std::env::temp_dir().join(format!("usysv-sysctl-{}", std::process::id()));
        let name = CString::new(path.to_str().unwrap()).unwrap();
        for (zeros, value) in [(30, Some(7)), (31, None), (1000, None)] {
            std::fs::write(&path, "0".repeat(zeros) + "7").unwrap();
            assert_eq!(read_u64(&name), value, "{zeros} zeros");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
