//! Copies the selected elements of an array out, row by row.

use ndarray::IxDyn;
use ndshm::Observer;
use ndshm::element::Order;
use ndshm::inspect::ArrayInfo;

use crate::index::Pick;
use crate::output::Failure;

/// Maximum bytes per read, unless one element is larger.
const PIECE: usize = 1 << 20;

/// Returns the distance in bytes from one index of each axis to the next.
fn strides(info: &ArrayInfo) -> Vec<u64> {
    let mut stride = info.dtype.size() as u64;
    let mut strides = vec![0; info.shape.len()];
    let mut place = |axis: usize| {
        strides[axis] = stride;
        stride = stride.saturating_mul(info.shape[axis] as u64);
    };
    match info.order {
        Order::C => (0..info.shape.len()).rev().for_each(&mut place),
        Order::F => (0..info.shape.len()).for_each(&mut place),
    }
    strides
}

/// Calls `take` with the position and the bytes of each selected element. The position counts
/// among the selected elements. The order is row by row, where a row runs along the axis that is
/// contiguous in memory.
pub fn each(
    observer: &Observer,
    info: &ArrayInfo,
    picks: &[Pick],
    mut take: impl FnMut(&IxDyn, &[u8]),
) -> Result<(), Failure> {
    if picks.iter().any(|pick| pick.count == 0) {
        return Ok(());
    }
    let size = info.dtype.size();
    let strides = strides(info);
    let inner = match info.order {
        Order::C => picks.len().checked_sub(1),
        Order::F => (!picks.is_empty()).then_some(0),
    };
    let row = inner.map_or(Pick::one(), |axis| picks[axis]);
    // Elements per read: their span, from the first to the last, must fit.
    let apart = row.step.unsigned_abs().saturating_mul(size);
    let at_once = (PIECE / apart).clamp(1, row.count);
    let mut rows: Vec<usize> = picks.iter().map(|pick| pick.count).collect();
    if let Some(axis) = inner {
        rows[axis] = 1;
    }
    let mut bytes = Vec::new();
    for start in ndarray::indices(IxDyn(&rows)) {
        let mut place = start;
        let base: u64 = (0..picks.len())
            .filter(|&axis| Some(axis) != inner)
            .map(|axis| picks[axis].index(place[axis]) as u64 * strides[axis])
            .sum();
        for first in (0..row.count).step_by(at_once) {
            let last = (first + at_once).min(row.count) - 1;
            let (a, b) = (row.index(first), row.index(last));
            let lowest = a.min(b);
            bytes.resize((a.max(b) - lowest + 1) * size, 0);
            let offset = base + (lowest * size) as u64;
            observer.copy_bytes(info.handle, offset, &mut bytes)?;
            for at in first..=last {
                if let Some(axis) = inner {
                    place[axis] = at;
                }
                let from = (row.index(at) - lowest) * size;
                take(&place, &bytes[from..from + size]);
            }
        }
    }
    Ok(())
}
