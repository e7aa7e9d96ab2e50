//! The only system calls.
//!
//! Everything that leaves the process goes through here, and everything here leaves `errno` as it
//! found it: the raw calls report their error as a value, never through the caller's `errno`.

pub mod clock;
pub mod credentials;
pub mod environment;
pub mod errno;
pub mod file;
pub mod frames;
pub mod futex;
pub mod memory;
pub mod probe;
pub mod process;
pub mod raw;
pub mod signals;
pub mod support;
pub mod sysctl;
pub mod thread;
