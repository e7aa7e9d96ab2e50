//! A queue's memory: where everything lies in the file, and how a process sees it.

pub mod layout;
mod mapping;

pub use mapping::{Mapping, expect_to_write, half_of, place};
