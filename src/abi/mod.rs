//! The C edge: exported symbols, the only writer of `errno`, and the caller's memory.

pub mod calls;
pub mod edge;
pub mod exports;
pub mod user;
