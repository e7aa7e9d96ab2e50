//! What preloading needs beyond the four calls: other ways to them, and what they depend on.
//!
//! | file          | stands before                                        | so that                                |
//! |---------------|------------------------------------------------------|----------------------------------------|
//! | `credentials` | `setuid` and its like                                | permission is that of the moment       |
//! | `syscall`     | `syscall`                                            | `syscall(SYS_msgget, ...)` is ours too |
//! | `dlopen`      | `dlopen`                                             | `RTLD_DEEPBIND` does not hide us       |
//! | `files`       | `open`, `fopen`, `access`, `stat` and their like     | `/proc/sysvipc/msg` tells of ours      |
//!
//! Each is the C library's own function (the next definition, see `next`) for everything that is not ours. Part
//! of the shared library only (feature `interpose`): a static library must not define these.

pub mod credentials;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub mod dlopen;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub mod files;
mod next;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub mod syscall;

/// Looks up all the real functions now.
#[inline(always)]
pub fn prepare() {
    credentials::prepare();
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    {
        dlopen::prepare();
        files::prepare();
        syscall::prepare();
    }
}
