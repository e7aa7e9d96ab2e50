//! A queue's mapped memory as transactions see it.

use super::Memory;
use crate::shm::Mapping;
use crate::shm::layout::{Position, participant, superblock};
use core::sync::atomic::{AtomicU64, Ordering};

impl Memory for Mapping {
    type Word = AtomicU64;

    #[inline(always)]
    fn cur(&self) -> Option<&AtomicU64> {
        self.word(superblock::CUR)
    }

    #[inline(always)]
    fn record(&self, record: u32) -> Option<&[AtomicU64]> {
        const LENGTH: usize = participant::RECORD_WORDS as usize;
        let start = participant::RECORDS as usize / 8 + (record & 1) as usize * LENGTH;
        self.participant(record >> 1)?.get(start..start + LENGTH)
    }

    #[inline(always)]
    fn link(&self, position: u32) -> Option<&AtomicU64> {
        self.word(Position(position).offset()?)
    }

    #[inline(always)]
    fn fence(order: Ordering) {
        core::sync::atomic::fence(order);
    }

    #[inline(always)]
    fn pause() {
        core::hint::spin_loop();
    }
}
