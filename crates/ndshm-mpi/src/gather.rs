//! Global arrays in the memory of one rank, or of all.

use bytemuck::Pod;
use mpi::datatype::{MutView, PartitionMut, View};
use mpi::traits::*;
use ndarray::{Array, Dimension};
use ndshm::{Element, Handle};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::exchange::row_type;
use crate::node::Node;
use crate::rows::Rows;
use crate::traffic::Traffic;

/// Tag of gathered rows.
const GATHERED: i32 = 0x6e69;

impl Node {
    /// Gathers a global array in the first rank of the first node, which gets it, and all others
    /// `None`. Collective.
    ///
    /// ```
    /// # ndshm_mpi::doctest(|job| {
    /// let node = ndshm_mpi::Node::from_comm(&job.world())?;
    /// let x = node.rows::<f64, _>((10_000, 2))?;
    /// if let Some(all) = node.gather(&x)? {
    ///     assert_eq!(all.dim(), (10_000, 2));
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// See [`sum`](Node::sum).
    pub fn gather<T: Element + Pod, D: Dimension + 'static>(
        &self,
        x: &Rows<T, D>,
    ) -> Result<Option<Array<T, D>>> {
        self.has(x)?;
        let mut gathered = None;
        self.lead(Call::new(format_args!("gather of {x}")), |leaders| {
            let mine = self.table.read(x.handle())?;
            let bytes = x.width() * size_of::<T>();
            let local: &[T] = mine.as_slice().unwrap_or_default();
            let layout = x.layout();
            let part = |rows: &std::ops::Range<usize>, first: usize| {
                (rows.start - first) * bytes..(rows.end - first) * bytes
            };
            if self.index > 0 {
                let root = leaders.comm.process_at_rank(0);
                let range = x.range();
                for rows in Traffic::messages(range.clone(), bytes.max(1)) {
                    let local: &[u8] = bytemuck::cast_slice(local);
                    let rows = &local[part(&rows, range.start)];
                    let (kind, count) = (row_type(bytes), rows.len() / bytes.max(1));
                    // SAFETY: so many rows are in the slice.
                    let view = unsafe { View::with_count_and_datatype(rows, count as i32, &kind) };
                    root.send_with_tag(&view, GATHERED);
                }
                return Ok([]);
            }
            let len = layout.rows() * x.width();
            let mut all = Vec::new();
            all.try_reserve_exact(len).map_err(|error| Error::Argument {
                call: format!("gather of {x}"),
                problem: format!(
                    "no memory for {len} elements of {} bytes in the first rank: {error}; gather a \
                     smaller array, or save it with Node::checkpoint",
                    size_of::<T>()
                ),
            })?;
            all.resize(len, T::zeroed());
            all[..local.len()].copy_from_slice(local);
            for node in 1..self.count {
                let from = leaders.comm.process_at_rank(node as i32);
                for rows in Traffic::messages(layout.rows_of(node), bytes.max(1)) {
                    let all: &mut [u8] = bytemuck::cast_slice_mut(&mut all);
                    let rows = &mut all[part(&rows, 0)];
                    let (kind, count) = (row_type(bytes), rows.len() / bytes.max(1));
                    // SAFETY: so many rows are in the slice.
                    let mut view =
                        unsafe { MutView::with_count_and_datatype(rows, count as i32, &kind) };
                    from.receive_into_with_tag(&mut view, GATHERED);
                }
            }
            let mut shape = mine.raw_dim();
            shape[0] = layout.rows();
            gathered = Some(shaped(shape, all)?);
            Ok([])
        })
        .map(|[]| gathered)
    }

    /// Gathers a global array on all nodes. All ranks get a copy of it. Collective.
    ///
    /// For small arrays, such as one of [`rows_per_tile`](Node::rows_per_tile): a node needs room for
    /// all of it.
    ///
    /// # Errors
    /// - [`Error::Argument`] for 2^31 rows or more.
    /// - Same as [`sum`](Node::sum).
    pub fn gather_everywhere<T: Element + Pod, D: Dimension + 'static>(
        &self,
        x: &Rows<T, D>,
    ) -> Result<Array<T, D>> {
        self.has(x)?;
        let call = Call::new(format_args!("gather_everywhere of {x}"));
        let [all] = self.lead(call, |_| {
            let all = self.first_alone(self.gather_in_segment(x))?;
            self.keep(self.table.owned(all));
            Ok([all.to_bits()])
        })?;
        let all = self.table.read(Handle::<T, D>::from_bits(all))?;
        Ok(all.to_owned())
    }

    /// The leader's part: gathers an array in the segment of each node.
    pub(crate) fn gather_in_segment<T: Element + Pod, D: Dimension + 'static>(
        &self,
        x: &Rows<T, D>,
    ) -> Result<Handle<T, D>> {
        let layout = x.layout();
        if i32::try_from(layout.rows()).is_err() {
            return Err(Error::Argument {
                call: format!("gather_everywhere of {x}"),
                problem: format!(
                    "{} rows are too many for all nodes: use Node::gather, or save them",
                    layout.rows()
                ),
            });
        }
        let mine = self.table.read(x.handle())?;
        let mut shape = mine.raw_dim();
        shape[0] = layout.rows();
        let all = self.table.zeros::<T, _>(shape)?;
        let Some(leaders) = &self.leaders else {
            return Ok(all);
        };
        let (counts, places): (Vec<i32>, Vec<i32>) = (0..self.count)
            .map(|node| layout.rows_of(node))
            .map(|rows| (rows.len() as i32, rows.start as i32))
            .unzip();
        let kind = row_type(x.width() * size_of::<T>());
        let mut target = self.table.write(all)?;
        let target: &mut [u8] = bytemuck::cast_slice_mut(target.as_slice_mut().unwrap_or_default());
        let source: &[u8] = bytemuck::cast_slice(mine.as_slice().unwrap_or_default());
        // SAFETY: the array has so many rows.
        let source =
            unsafe { View::with_count_and_datatype(source, x.range().len() as i32, &kind) };
        // SAFETY: the array has so many rows.
        let mut target =
            unsafe { MutView::with_count_and_datatype(target, layout.rows() as i32, &kind) };
        let mut target = PartitionMut::new(&mut target, counts, places);
        leaders.comm.all_gather_varcount_into(&source, &mut target);
        Ok(all)
    }
}

fn shaped<T, D: Dimension>(shape: D, elements: Vec<T>) -> Result<Array<T, D>> {
    Array::from_shape_vec(shape, elements).map_err(|error| Error::Argument {
        call: "gather".into(),
        problem: error.to_string(),
    })
}
