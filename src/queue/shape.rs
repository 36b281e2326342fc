//! The positions of a queue's cells, from the number of cells and the job type.

/// Cells that a queue may have.
pub(crate) const MAX_CAPACITY: usize = 1 << 24;

/// The bytes that all cells may take if each one starts on a cache line. The cells of a larger
/// queue are packed: neighbours in the order are seldom in use at the same moment.
const SPREAD: u64 = 1 << 20;
const LINE: u64 = 64;

/// The job type of a queue. Every process of the segment must compute the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct JobType {
    /// A hash of the type's name.
    pub(crate) name: u64,
    pub(crate) size: u64,
    pub(crate) align: u64,
}

/// The layout of a number of cells (a power of two) for a job type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    /// log2 of the number of cells.
    pub(super) shift: u32,
    pub(super) stride: u64,
    /// Bytes from a cell's word to its job.
    pub(super) job: u64,
    /// Bytes from a cell's word to the number of its job's deliveries.
    pub(super) deliveries: u64,
}

impl Shape {
    /// Returns the layout, or `None` if no queue has this shape.
    pub(super) fn new(capacity: u64, job: JobType) -> Option<Shape> {
        let known = capacity.is_power_of_two()
            && capacity <= MAX_CAPACITY as u64
            && job.align.is_power_of_two()
            && job.align <= LINE;
        if !known {
            return None;
        }
        let to_job = job.align.max(8);
        let end = to_job.checked_add(job.size)?.checked_next_multiple_of(8)?;
        // Before the job if its alignment leaves room there, otherwise behind it.
        let (deliveries, end) = match to_job {
            8 => (end, end.checked_add(8)?),
            _ => (8, end),
        };
        let dense = end.checked_next_multiple_of(to_job)?;
        let spread = dense.checked_next_multiple_of(LINE)?;
        let fits = spread
            .checked_mul(capacity)
            .is_some_and(|all| all <= SPREAD);
        Some(Shape {
            shift: capacity.ilog2(),
            stride: if fits { spread } else { dense },
            job: to_job,
            deliveries,
        })
    }

    /// Returns the bytes of all cells, or `None` on overflow.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.stride.checked_mul(1 << self.shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(capacity: u64, size: u64, align: u64) -> Option<Shape> {
        let name = 0;
        Shape::new(capacity, JobType { name, size, align })
    }

    fn stride(capacity: u64, size: u64, align: u64) -> u64 {
        shape(capacity, size, align).unwrap().stride
    }

    #[test]
    fn cells_start_on_lines_while_they_take_up_to_1_mib() {
        assert_eq!(stride(8, 8, 8), 64);
        assert_eq!(stride(8, 57, 1), 128);
        assert_eq!(stride(1 << 14, 8, 8), 64, "1 MiB");
        assert_eq!(stride(8, 48, 8), 64);
        assert_eq!(stride(1 << 15, 8, 8), 24);
        assert_eq!(stride(1 << 15, 9, 1), 32, "a word is aligned");
        assert_eq!(stride(1 << 15, 16, 16), 32, "no word behind it");
        assert_eq!(stride(1 << 14, 64, 64), 128);
    }

    #[test]
    fn a_job_lies_behind_its_cells_word() {
        let place = |align| shape(4, 64, align).unwrap().job;
        assert_eq!([1, 8, 16, 64].map(place), [8, 8, 16, 64]);
        let most = shape(1 << 24, 8, 8).unwrap();
        assert_eq!((most.shift, most.bytes()), (24, Some(24 << 24)));
        let deliveries = |size, align| shape(4, size, align).unwrap().deliveries;
        assert_eq!(
            [deliveries(8, 8), deliveries(3, 1), deliveries(32, 16)],
            [16, 16, 8]
        );
        let huge = shape(4, 1 << 62, 1).unwrap();
        assert_eq!(huge.bytes(), None);
    }

    #[test]
    fn no_queue_has_other_capacities_and_alignments() {
        for capacity in [0, 3, 1 << 25] {
            assert_eq!(shape(capacity, 8, 8), None, "{capacity}");
        }
        for align in [0, 3, 128] {
            assert_eq!(shape(4, 8, align), None, "{align}");
        }
        for size in [u64::MAX - 7, u64::MAX - 15, u64::MAX - 63] {
            assert_eq!(shape(4, size, 8), None, "{size}");
        }
    }
}
