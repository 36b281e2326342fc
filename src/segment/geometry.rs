//! The geometry of a segment: from its options, or from the header of a file.

use super::address_space_limit;
use super::options::SegmentOptions;
use crate::layout::{Geometry, Header, HeaderError, LAYOUT_VERSION, Layout, SCALE};
use crate::segment::error::SegmentError;
use crate::word::SeatId;

/// The default capacity of a shared segment. It is halved until the segment can be mapped.
pub(super) const SHARED_CAPACITY: u64 = 16 << 40;

/// The default capacity of an in-process segment.
pub(super) const IN_PROCESS_CAPACITY: u64 = SCALE.in_process_capacity;

const LEAST_CAPACITY: u64 = 16 << 20;
const MOST_DEFAULT_ARRAYS: u64 = 1 << 22;

impl SegmentOptions {
    /// Returns the geometries to try, the preferred one first.
    pub(super) fn geometries(&self, largest: u64) -> Result<Vec<Geometry>, SegmentError> {
        self.geometries_within(address_space_limit(), largest)
    }

    /// Returns the geometries to try where the address space has this limit.
    fn geometries_within(
        &self,
        limit: Option<u64>,
        largest: u64,
    ) -> Result<Vec<Geometry>, SegmentError> {
        let shape = |capacity| self.geometry(capacity);
        if let Some(capacity) = self.capacity {
            return Ok(vec![shape(capacity)?]);
        }
        // Leave half of a limited address space to the rest of the program.
        let largest = limit
            .and_then(|limit| (limit / 2).checked_ilog2())
            .map_or(largest, |log2| largest.min(LEAST_CAPACITY.max(1 << log2)));
        let least = LEAST_CAPACITY.min(largest);
        std::iter::successors(Some(largest), |capacity| Some(capacity / 2))
            .take_while(|&capacity| capacity >= least)
            .map(shape)
            .collect()
    }

    /// Returns the geometry of a segment of which only the size is known.
    pub(super) fn geometry_of_size(&self, size: u64) -> Result<Option<Geometry>, SegmentError> {
        let candidates = self.geometries(SHARED_CAPACITY)?;
        Ok(candidates
            .into_iter()
            .find(|&geometry| Layout::new(geometry).total == size))
    }

    fn geometry(&self, capacity: u64) -> Result<Geometry, SegmentError> {
        if capacity == 0 || capacity > Geometry::MAX_CAPACITY {
            return Err(SegmentError::Capacity {
                capacity,
                max: Geometry::MAX_CAPACITY,
            });
        }
        if self.seats == 0 || self.seats > SeatId::MAX_SEATS {
            return Err(SegmentError::Seats {
                seats: self.seats,
                max: SeatId::MAX_SEATS,
            });
        }
        let arrays = self.arrays.unwrap_or_else(|| {
            (capacity >> 12).clamp(SCALE.min_default_arrays, MOST_DEFAULT_ARRAYS)
        });
        if arrays > Geometry::MAX_SLOTS {
            return Err(SegmentError::Arrays {
                arrays,
                max: Geometry::MAX_SLOTS,
            });
        }
        let spans = arrays
            .next_power_of_two()
            .div_ceil(u64::from(Geometry::SPAN_SLOTS)) as u32;
        Ok(Geometry {
            capacity: capacity.next_multiple_of(Geometry::CAPACITY_UNIT),
            seats: self.seats.next_power_of_two(),
            spans: spans.max(Geometry::MIN_SPANS),
            span_slots: Geometry::SPAN_SLOTS,
        })
    }
}

/// Returns the geometry in a header word, if a file of this size can have it.
pub(super) fn geometry_in(header: u64, size: u64, what: &str) -> Result<Geometry, SegmentError> {
    let not_ours = |problem| SegmentError::NotOurs {
        what: what.into(),
        problem,
        header,
        size,
    };
    match Header::decode(header) {
        Ok(geometry) if Layout::new(geometry).total == size => Ok(geometry),
        Ok(_) => Err(not_ours("its size is not the one that its header says")),
        Err(HeaderError::NotOurs { .. }) => Err(not_ours("it starts with something else")),
        Err(HeaderError::Version { found }) => Err(SegmentError::Version {
            what: what.into(),
            found,
            supported: LAYOUT_VERSION,
        }),
    }
}

/// Creates a segment of the first of these geometries that the system does not refuse as too large.
pub(super) fn make_largest<T>(
    geometries: Vec<Geometry>,
    mut make: impl FnMut(Geometry) -> Result<T, SegmentError>,
) -> Result<T, SegmentError> {
    let mut refused = None;
    for geometry in geometries {
        match make(geometry) {
            Err(error) if can_be_smaller(&error) => refused = Some(error),
            outcome => return outcome,
        }
    }
    // There is at least one geometry, so `refused` is set here.
    Err(refused.unwrap_or(SegmentError::AddressSpace {
        bytes: 0,
        limit: None,
    }))
}

/// Returns `true` if a smaller segment may succeed.
pub(super) fn can_be_smaller(error: &SegmentError) -> bool {
    matches!(
        error,
        SegmentError::AddressSpace { .. }
            | SegmentError::FileSize { .. }
            | SegmentError::Os {
                call: "ftruncate",
                ..
            }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(options: SegmentOptions) -> Geometry {
        let geometries = options.geometries(SHARED_CAPACITY).unwrap();
        assert_eq!(geometries.len(), 1);
        geometries[0]
    }

    #[test]
    fn the_default_is_halved_down_to_the_least() {
        let geometries = SegmentOptions::new().geometries(SHARED_CAPACITY).unwrap();
        let first = geometries[0];
        assert_eq!((first.capacity, first.seats), (16 << 40, 256));
        assert_eq!((first.slots(), first.span_slots), (1 << 22, 64));
        let last = geometries[geometries.len() - 1];
        assert_eq!((last.capacity, last.slots()), (16 << 20, 1 << 16));
        let halved = geometries
            .windows(2)
            .all(|two| two[0].capacity == 2 * two[1].capacity);
        assert!(halved);
    }

    #[test]
    fn half_of_a_limited_address_space_is_left_to_the_program() {
        let capacities = |limit, largest| -> Vec<u64> {
            let options = SegmentOptions::new();
            let geometries = options.geometries_within(limit, largest).unwrap();
            geometries.iter().map(|one| one.capacity).collect()
        };
        let mib = |count: u64| count << 20;
        assert_eq!(capacities(None, mib(64)), [mib(64), mib(32), mib(16)]);
        assert_eq!(capacities(Some(mib(64)), mib(64)), [mib(32), mib(16)]);
        assert_eq!(capacities(Some(mib(65)), mib(64)), [mib(32), mib(16)]);
        assert_eq!(capacities(Some(mib(127)), mib(64)), [mib(32), mib(16)]);
        assert_eq!(capacities(Some(mib(128)), mib(64)).len(), 3);
        assert_eq!(capacities(Some(mib(1024)), mib(64)).len(), 3);
        assert_eq!(capacities(Some(mib(20)), mib(64)), [mib(16)], "the least");
        assert_eq!(capacities(Some(2), mib(64)), [mib(16)]);
        assert_eq!(capacities(None, mib(8)), [mib(8)], "the least, or less");
    }

    #[test]
    fn the_default_of_an_in_process_segment_is_smaller() {
        let options = SegmentOptions::new();
        let geometries = options.geometries_within(None, IN_PROCESS_CAPACITY);
        assert_eq!(geometries.unwrap()[0].capacity, 64 << 30);
    }

    #[test]
    fn explicit_numbers_are_rounded_up_and_kept() {
        let options = SegmentOptions::new().capacity(1).seats(5).arrays(65_537);
        let geometry = one(options);
        assert_eq!(
            (geometry.capacity, geometry.seats, geometry.slots()),
            (65536, 8, 1 << 17)
        );
        let geometry = one(SegmentOptions::new().capacity(65537).seats(1).arrays(0));
        assert_eq!(
            (geometry.capacity, geometry.seats, geometry.slots()),
            (131072, 1, 1 << 16)
        );
        let geometry = one(SegmentOptions::new().capacity(5 << 30));
        assert_eq!(geometry.slots(), 1 << 21, "1.25 million rounded up");
    }

    #[test]
    fn the_largest_geometry_survives_the_header() {
        let options = SegmentOptions::new()
            .capacity(Geometry::MAX_CAPACITY)
            .seats(SeatId::MAX_SEATS)
            .arrays(Geometry::MAX_SLOTS);
        let geometry = one(options);
        assert_eq!(Header::decode(Header::encode(&geometry)), Ok(geometry));
    }

    #[test]
    fn numbers_out_of_range_are_named_with_their_limit() {
        let refused =
            |options: SegmentOptions| options.geometries(SHARED_CAPACITY).unwrap_err().to_string();
        let text = refused(SegmentOptions::new().capacity(0));
        assert!(
            text.contains("capacity of 0 bytes") && text.contains("TiB"),
            "{text}"
        );
        let text = refused(SegmentOptions::new().capacity(Geometry::MAX_CAPACITY + 1));
        assert!(
            text.contains(&(Geometry::MAX_CAPACITY + 1).to_string()),
            "{text}"
        );
        let text = refused(SegmentOptions::new().seats(0));
        assert!(text.contains("0 seats") && text.contains("2048"), "{text}");
        let text = refused(SegmentOptions::new().capacity(1 << 20).seats(2049));
        assert!(text.contains("2049 seats"), "{text}");
        let text = refused(SegmentOptions::new().arrays(Geometry::MAX_SLOTS + 1));
        assert!(text.contains("268435457 arrays"), "{text}");
    }

    #[test]
    fn a_size_tells_the_geometry() {
        let options = SegmentOptions::new();
        let geometry = options.geometry(1 << 30).unwrap();
        let size = Layout::new(geometry).total;
        assert_eq!(options.geometry_of_size(size).unwrap(), Some(geometry));
        assert_eq!(options.geometry_of_size(size + 1).unwrap(), None);
        assert_eq!(
            options.capacity(1 << 20).geometry_of_size(size).unwrap(),
            None
        );
    }
}
