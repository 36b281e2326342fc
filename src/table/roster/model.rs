//! The roster of a model, which forks no process: tables need no places.

use crate::segment::Segment;
use crate::word::SeatId;

pub(super) struct Place;

impl Place {
    pub(super) fn enter(_segment: &Segment, _seat: SeatId, _token: u64) -> Place {
        Place
    }

    pub(super) fn number(&self) -> u64 {
        0
    }

    pub(super) fn set(&self, _seat: SeatId, _token: u64) {}

    pub(super) fn leave(&self) {}
}
