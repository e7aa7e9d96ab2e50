//! System V message queues in userspace, indistinguishable from the kernel's.
//!
//! # For Rust programs
//! [`Queue`] is a message queue, with types and without unsafe code: the same queues that C programs use by the
//! four calls, in the same directory, under the same rules.
//!
//! ```
//! use usysv::{Key, MessageType, Queue, Selector};
//! # let directory = std::env::temp_dir().join(format!("usysv-doc-root-{}", std::process::id()));
//! # std::fs::create_dir(&directory)?;
//! # usysv::set_directory(&directory)?;
//!
//! let queue = Queue::create(Key::new(0x1234), 0o600)?;
//! queue.send(MessageType::new(1).unwrap(), b"hello")?;
//!
//! let mut buffer = [0; 8192];
//! let received = queue.receive(Selector::First, &mut buffer)?;
//! assert_eq!(&buffer[..received.length], b"hello");
//! queue.remove()?;
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Depend on it without default features: `cli` is for the command-line tool alone, and `interpose` for a
//! library that is preloaded. A program that contains this crate has the four C calls of this library, so that
//! its C parts use these queues too.
//!
//! [`Queue`] and what it needs, at the root of the crate, are its interface. All else is public for tests and
//! for the tool, and may change at any time.
//!
//! # Inside
//! `libusysv.so` exports `msgget`, `msgsnd`, `msgrcv` and `msgctl` with the C library's own signatures, on
//! queues that live in shared memory. The layers, top to bottom; each uses only what stands below it:
//!
//! | layer         | what it is                                                                          |
//! |---------------|-------------------------------------------------------------------------------------|
//! | [`api`]       | the Rust edge: types for what the four calls do with numbers                        |
//! | [`interpose`] | what preloading needs beyond the four calls                                         |
//! | [`abi`]       | the C edge: exported symbols, `errno`, copying caller memory                        |
//! | [`semantics`] | the four calls as Linux has them: order of errors, permissions, limits, blocking    |
//! | [`namespace`] | where queues live: directory, keys, identifiers, files, attaching                   |
//! | [`queue`]     | one queue: lists, index by type, lines of waiters, as code over transactions        |
//! | [`txn`]       | the lock-free transaction, and the participants in it                               |
//! | [`shm`]       | the layout of a queue's file, and a process's view of it                            |
//! | [`os`]        | the only system calls                                                               |

pub mod abi;
pub mod api;
#[cfg(feature = "interpose")]
pub mod interpose;
pub mod namespace;
pub mod os;
pub mod queue;
pub mod semantics;
pub mod shm;
mod start;
#[cfg(test)]
mod testing;
pub mod txn;

pub use api::{
    Error, ErrorKind, Key, MessageType, Queue, Received, Result, Selector, Settings, Status, directory,
    set_directory,
};
