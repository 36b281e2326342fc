//! The messages of an exchange: straight out of one node's segment, straight into another's.

use std::ops::Range;

use bytemuck::Pod;
use mpi::Address;
use mpi::collective::SystemOperation;
use mpi::datatype::{MutView, PartitionMut, UserDatatype, View};
use mpi::request::multiple_scope;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use ndarray::{Axis, Dimension, Ix1};
use ndshm::{Element, Handle, Read, Write};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::leaders::Leaders;
use crate::node::Node;
use crate::rows::Rows;
use crate::traffic::{Crossing, Traffic, WIDE};

/// Tags of rows, and of the places to which rows belong.
const ROWS: i32 = 0x6e67;
const PLACES: i32 = 0x6e68;

/// Writes the ancestors of the given rows of the next array: rows of the present one, which this
/// node has.
pub(crate) type Ancestors<'a> = dyn FnMut(Range<usize>, &mut [u64]) -> Result<()> + 'a;

impl Node {
    /// Sends rows of `from` to the nodes that hold them in `to`, as `traffic` says. Collective; for
    /// algorithms other than [`resample_systematic`](Node::resample_systematic).
    ///
    /// `ancestors` is called on each leader, with ranges of rows of `to` that other nodes hold. It
    /// writes the row of `from` that each is a copy of; this node must have it. Rows that stay on
    /// their node are left to the caller, in a [`for_each`](Node::for_each).
    ///
    /// Rows of 64 bytes and more cross once per ancestor and crossing, without a copy on either side.
    /// Narrow rows are put together in messages of at most 1 MiB.
    ///
    /// ```
    /// # ndshm_mpi::doctest(|job| {
    /// use ndshm_mpi::{Crossing, Node, Traffic};
    ///
    /// let node = Node::from_comm(&job.world())?;
    /// let (x, next) = (node.rows::<f64, _>(100_000)?, node.rows::<f64, _>(100_000)?);
    /// // A ring: each node sends its first 10 rows to the first 10 places of the next node.
    /// let (k, nodes, layout) = (node.index(), node.nodes(), x.layout());
    /// let first = |node: usize| layout.rows_of(node).start..layout.rows_of(node).start + 10;
    /// let (to, from) = ((k + 1) % nodes, (k + nodes - 1) % nodes);
    /// let crossing = |node: usize, rows| match node == k {
    ///     true => vec![],
    ///     false => vec![Crossing { node, rows }],
    /// };
    /// let ring = Traffic::new(&layout, k, crossing(to, first(to)), crossing(from, first(k)))?;
    /// node.exchange(&ring, &x, &next, |rows, ancestors| {
    ///     for (row, ancestor) in rows.zip(ancestors) {
    ///         *ancestor = (row - first(to).start + first(k).start) as u64;
    ///     }
    /// })?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// - [`Error::Argument`] if the arrays or the traffic do not fit together, if a node receives
    ///   other rows than are sent to it, or if an ancestor is on another node.
    /// - Same as [`sum`](Node::sum).
    pub fn exchange<T: Element + Pod, D: Dimension + 'static>(
        &self,
        traffic: &Traffic,
        from: &Rows<T, D>,
        to: &Rows<T, D>,
        mut ancestors: impl FnMut(Range<usize>, &mut [u64]),
    ) -> Result<()> {
        self.has(from).and_then(|()| self.has(to))?;
        let call = Call::new(format_args!("exchange from {from} to {to}"));
        let fits = traffic.layout() == to.layout() && traffic.node() == self.index;
        let mut possible = Ok(());
        if from.id == to.id {
            possible = Err(Error::Argument {
                call: call.text(),
                problem: "rows cannot move within one array: pass two arrays".into(),
            });
        } else if !fits || from.width() != to.width() {
            possible = Err(Error::Argument {
                call: call.text(),
                problem: format!(
                    "rows of {} and {} elements, traffic of node {} by {:?} on node {} with {:?}: both \
                     arrays need rows of one width, and the traffic the layout of the second",
                    from.width(),
                    to.width(),
                    traffic.node(),
                    traffic.layout(),
                    self.index,
                    to.layout(),
                ),
            });
        }
        let [fill, repeats] = self.lead(call, |leaders| {
            leaders.compare_traffic(call, traffic, possible)?;
            let repeats = self.exchange_as_leader(traffic, from, to, &mut |rows, places| {
                ancestors(rows, places);
                Ok(())
            })?;
            let Some(repeats) = repeats else {
                return Ok([0; 2]);
            };
            let group = (repeats.read(), to.write());
            let tiles = self.table.partition(group, Axis(0), to.layout().tile())?;
            let bits = tiles.handle().to_bits();
            self.keep((tiles, self.table.owned(repeats)));
            Ok([bits, repeats.to_bits()])
        })?;
        if repeats == 0 {
            return Ok(());
        }
        self.run_posted::<(Read<u8, Ix1>, Write<T, D>)>(fill, |tile| {
            let (repeats, mut next) = tile.views();
            if let (Some(repeats), Some(next)) = (repeats.as_slice(), next.as_slice_mut()) {
                repeat_rows(repeats, next, to.width());
            }
        })
    }

    /// The leader's part of an exchange. Returns the array of the rows that repeat the row before
    /// them, if rows are wide and some were received.
    pub(crate) fn exchange_as_leader<T: Element + Pod, D: Dimension>(
        &self,
        traffic: &Traffic,
        from: &Rows<T, D>,
        to: &Rows<T, D>,
        ancestors: &mut Ancestors<'_>,
    ) -> Result<Option<Handle<u8, Ix1>>> {
        if traffic.sends().is_empty() && traffic.receives().is_empty() {
            return Ok(None);
        }
        let Some(leaders) = &self.leaders else {
            return Ok(None);
        };
        let (source, mut target) = (
            self.table.read(from.handle())?,
            self.table.write(to.handle())?,
        );
        let mut messages = Messages {
            comm: &leaders.comm,
            traffic,
            row_bytes: from.width() * size_of::<T>(),
            has: from.range(),
            source: bytemuck::cast_slice(source.as_slice().unwrap_or_default()),
            target: bytemuck::cast_slice_mut(target.as_slice_mut().unwrap_or_default()),
            places: Vec::new(),
            failed: None,
        };
        let mut repeats = None;
        match messages.row_bytes {
            0 => {}
            1..WIDE => messages.narrow(ancestors),
            _ if traffic.receives().is_empty() => messages.wide(&mut [], ancestors),
            _ => {
                let marks = *repeats.insert(self.table.zeros::<u8, _>(to.range().len())?);
                let mut marks = self.table.write(marks)?;
                messages.wide(marks.as_slice_mut().unwrap_or_default(), ancestors);
            }
        }
        match messages.failed {
            None => Ok(repeats),
            Some(error) => Err(error),
        }
    }
}

/// Copies each marked row from the row before it.
pub(crate) fn repeat_rows<T: Copy>(repeats: &[u8], rows: &mut [T], width: usize) {
    for (row, _) in (repeats.iter().enumerate()).filter(|&(row, &mark)| row > 0 && mark != 0) {
        rows.copy_within((row - 1) * width..row * width, row * width);
    }
}

/// The messages of one exchange between leaders. Rows are bytes here.
struct Messages<'a> {
    comm: &'a SimpleCommunicator,
    traffic: &'a Traffic,
    row_bytes: usize,
    /// The rows of `source`.
    has: Range<usize>,
    source: &'a [u8],
    target: &'a mut [u8],
    places: Vec<u64>,
    failed: Option<Error>,
}

impl Messages<'_> {
    /// Asks for ancestors, and changes them to places in `source`. After an error it gives the first
    /// row: the other nodes wait for rows, and get the error afterwards.
    fn places(&mut self, rows: Range<usize>, ancestors: &mut Ancestors<'_>) {
        self.places.clear();
        self.places.resize(rows.len(), u64::MAX);
        let mut asked = match &self.failed {
            None => ancestors(rows.clone(), &mut self.places),
            Some(_) => Ok(()),
        };
        for (row, place) in rows.zip(&mut self.places) {
            let is_here = self.has.contains(&(*place as usize));
            if !is_here && asked.is_ok() && self.failed.is_none() {
                asked = Err(Error::Argument {
                    call: "exchange".into(),
                    problem: format!(
                        "row {row} is a copy of row {place}, but this node has rows {:?}: send only \
                         rows of this node",
                        self.has
                    ),
                });
            }
            *place = if is_here {
                *place - self.has.start as u64
            } else {
                0
            };
        }
        if let Err(error) = asked {
            self.failed.get_or_insert(error);
        }
    }

    /// All receives wait for their rows from the beginning; rows to send are put together message by
    /// message. So a node needs memory for one message, however many rows it sends.
    fn narrow(&mut self, ancestors: &mut Ancestors<'_>) {
        let traffic = self.traffic;
        let (comm, row_bytes) = (self.comm, self.row_bytes);
        let mut rest = std::mem::take(&mut self.target);
        let mut at = traffic.layout().rows_of(traffic.node()).start;
        multiple_scope(traffic.receives().len(), |scope, requests| {
            for crossing in traffic.receives() {
                let from = comm.process_at_rank(crossing.node as i32);
                for rows in Traffic::messages(crossing.rows.clone(), row_bytes) {
                    let (_, tail) = rest.split_at_mut((rows.start - at) * row_bytes);
                    let (part, tail) = tail.split_at_mut(rows.len() * row_bytes);
                    requests.add(from.immediate_receive_into_with_tag(scope, part, ROWS));
                    (rest, at) = (tail, rows.end);
                }
            }
            let mut out = Vec::new();
            for crossing in traffic.sends() {
                let to = comm.process_at_rank(crossing.node as i32);
                for rows in Traffic::messages(crossing.rows.clone(), row_bytes) {
                    self.places(rows, ancestors);
                    out.clear();
                    match row_bytes {
                        // One number: without a call for each copy.
                        8 => {
                            let (words, _) = self.source.as_chunks::<8>();
                            out.resize(self.places.len() * 8, 0);
                            let (rows, _) = out.as_chunks_mut::<8>();
                            for (row, &place) in rows.iter_mut().zip(&self.places) {
                                *row = words[place as usize];
                            }
                        }
                        _ => {
                            for &place in &self.places {
                                let start = place as usize * row_bytes;
                                out.extend_from_slice(&self.source[start..start + row_bytes]);
                            }
                        }
                    }
                    to.send_with_tag(&out[..], ROWS);
                }
            }
            requests.wait_all(&mut Vec::new());
        });
    }

    /// Rows go from and to their places by datatypes, in turns of one message for each partner.
    /// `repeats` marks the received rows that were not sent, because they repeat the one before.
    fn wide(&mut self, repeats: &mut [u8], ancestors: &mut Ancestors<'_>) {
        let bytes = self.row_bytes;
        let row = row_type(bytes);
        let tile = self.traffic.layout().tile();
        let first_row = self.traffic.layout().rows_of(self.traffic.node()).start;
        let divide = |crossings: &[Crossing]| -> Vec<Vec<Range<usize>>> {
            let messages = |rows: &Range<usize>| Traffic::messages(rows.clone(), bytes).collect();
            (crossings.iter().map(|crossing| messages(&crossing.rows))).collect()
        };
        let (sends, receives) = (
            divide(self.traffic.sends()),
            divide(self.traffic.receives()),
        );
        // Of each crossing, the row sent last and the row received last.
        let mut sent = vec![None; sends.len()];
        let mut received = vec![0; receives.len()];
        let turns = (sends.iter().chain(&receives)).map(Vec::len).max();
        for turn in 0..turns.unwrap_or(0) {
            // For each partner: the places in its message, and the rows here.
            let mut going = Vec::new();
            let crossings = self.traffic.sends().iter().zip(&sends).zip(&mut sent);
            for ((crossing, messages), sent) in crossings {
                let Some(rows) = messages.get(turn) else {
                    continue;
                };
                self.places(rows.clone(), ancestors);
                let crossing_rows = Traffic::crossing_rows(*sent, &self.places);
                *sent = self.places.last().copied();
                let here =
                    |&offset: &u32| (self.places[offset as usize] as usize * bytes) as Address;
                let sources: Vec<Address> = crossing_rows.iter().map(here).collect();
                let kind = UserDatatype::heterogeneous_indexed_block(1, &sources, &row);
                going.push((crossing.node as i32, crossing_rows, kind));
            }
            let views: Vec<_> = (going.iter())
                // SAFETY: the datatype reaches rows of `source` alone: `places` has checked them.
                .map(|(_, _, kind)| unsafe { View::with_count_and_datatype(self.source, 1, kind) })
                .collect();
            let comm = self.comm;
            let target = &mut *self.target;
            let traffic = self.traffic;
            multiple_scope(views.len(), |scope, of_rows| {
                multiple_scope(views.len(), |inner, of_places| {
                    for ((to, places, _), view) in going.iter().zip(&views) {
                        let to = comm.process_at_rank(*to);
                        let send = to.immediate_send_with_tag(inner, &places[..], PLACES);
                        of_places.add(send);
                        of_rows.add(to.immediate_send_with_tag(scope, view, ROWS));
                    }
                    let crossings = traffic.receives().iter().zip(&receives).zip(&mut received);
                    for ((crossing, messages), received) in crossings {
                        let Some(rows) = messages.get(turn) else {
                            continue;
                        };
                        let from = comm.process_at_rank(crossing.node as i32);
                        let (places, _) = from.receive_vec_with_tag::<u32>(PLACES);
                        let start = rows.start - first_row;
                        repeats[start..start + rows.len()].fill(1);
                        let mut here = Vec::with_capacity(places.len());
                        for &place in &places {
                            // A place beyond the message is not of this crate: a panic ends the job.
                            assert!((place as usize) < rows.len(), "a place in the message");
                            let place = start + place as usize;
                            repeats[place] = 0;
                            here.push((place * bytes) as Address);
                        }
                        let kind = UserDatatype::heterogeneous_indexed_block(1, &here, &row);
                        // SAFETY: the datatype reaches rows of `target` alone: those of `rows`.
                        let mut view =
                            unsafe { MutView::with_count_and_datatype(&mut *target, 1, &kind) };
                        from.receive_into_with_tag(&mut view, ROWS);
                        // A tile is filled up by one rank, which does not see other tiles: so the
                        // first row of a tile is copied here.
                        let mut places = places.into_iter().map(|place| start + place as usize);
                        let mut next = places.next();
                        for first in (rows.start.next_multiple_of(tile)..rows.end).step_by(tile) {
                            let first = first - first_row;
                            while let Some(place) = next.filter(|&place| place <= first) {
                                *received = place;
                                next = places.next();
                            }
                            if std::mem::take(&mut repeats[first]) != 0 {
                                let row = *received * bytes..(*received + 1) * bytes;
                                target.copy_within(row, first * bytes);
                            }
                        }
                        *received = places.next_back().or(next).unwrap_or(*received);
                    }
                    of_places.wait_all(&mut Vec::new());
                });
                of_rows.wait_all(&mut Vec::new());
            });
        }
    }
}

/// Returns a row as one datatype, so that messages count rows: an element count would not fit 31
/// bits.
pub(crate) fn row_type(bytes: usize) -> UserDatatype {
    const PIECE: usize = 1 << 20;
    let byte = u8::equivalent_datatype();
    match (i32::try_from(bytes), bytes.is_multiple_of(8)) {
        (Ok(bytes), true) => UserDatatype::contiguous(bytes / 8, &u64::equivalent_datatype()),
        (Ok(bytes), false) => UserDatatype::contiguous(bytes, &byte),
        // Pieces, and the bytes after them.
        (Err(_), _) => {
            let piece = UserDatatype::contiguous(PIECE as i32, &byte);
            let pieces = UserDatatype::contiguous((bytes / PIECE) as i32, &piece);
            let rest = UserDatatype::contiguous((bytes % PIECE) as i32, &byte);
            let end = (bytes - bytes % PIECE) as Address;
            UserDatatype::structured(&[1, 1], &[0, end], &[pieces.as_ref(), rest.as_ref()])
        }
    }
}

impl Leaders {
    /// Checks that each node expects the rows that others send to it. `possible` is the error that a node has
    /// found before. All leaders call this.
    fn compare_traffic(&self, call: Call, traffic: &Traffic, possible: Result<()>) -> Result<()> {
        let words = |from: usize, to: usize, rows: &Range<usize>| {
            [from, to, rows.start, rows.end].map(|word| word as u64)
        };
        let me = traffic.node();
        let sends: Vec<_> = (traffic.sends().iter())
            .map(|crossing| words(me, crossing.node, &crossing.rows))
            .collect();
        let receives: Vec<_> = (traffic.receives().iter())
            .map(|crossing| words(crossing.node, me, &crossing.rows))
            .collect();
        // Both ends of a crossing have one hash: all differences of the nodes add up to 0.
        let hash = |words: &[u64; 4]| {
            (words.iter()).fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
                let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                mixed ^ (mixed >> 29)
            })
        };
        let sum = |all: &[[u64; 4]]| all.iter().map(hash).fold(0, u64::wrapping_add);
        let mine = [
            sum(&sends).wrapping_sub(sum(&receives)),
            u64::from(possible.is_err()),
        ];
        let mut of_all = [0; 2];
        (self.comm).all_reduce_into(&mine[..], &mut of_all[..], SystemOperation::sum());
        if of_all == [0; 2] {
            return Ok(());
        }
        self.settle(possible)?;
        let (sent, expected) = (self.gather_words(&sends), self.gather_words(&receives));
        let lacks = |some: &[[u64; 4]], others: &[[u64; 4]]| {
            some.iter().find(|one| !others.contains(one)).copied()
        };
        let remedy = "make the traffic of all nodes from the same numbers";
        let (reporter, problem) = match (lacks(&sent, &expected), lacks(&expected, &sent)) {
            (Some([from, to, start, end]), _) => (
                from,
                format!(
                    "node {from} sends rows {start}..{end} to node {to}, which does not receive \
                     them: {remedy}"
                ),
            ),
            (None, Some([from, to, start, end])) => (
                to,
                format!(
                    "node {to} receives rows {start}..{end} from node {from}, which does not send \
                     them: {remedy}"
                ),
            ),
            (None, None) => (0, format!("rows are sent twice: {remedy}")),
        };
        let call = call.text();
        self.settle(match self.comm.rank() as u64 == reporter {
            true => Err(Error::Argument { call, problem }),
            false => Ok(()),
        })
    }

    /// Gathers the words of all nodes.
    fn gather_words(&self, mine: &[[u64; 4]]) -> Vec<[u64; 4]> {
        let mut counts = vec![0i32; self.comm.size() as usize];
        let flat = mine.as_flattened();
        (self.comm).all_gather_into(&(flat.len() as i32), &mut counts[..]);
        let places: Vec<i32> = (counts.iter())
            .scan(0, |end, count| Some(std::mem::replace(end, *end + count)))
            .collect();
        let len: i32 = counts.iter().sum();
        let mut all = vec![[0; 4]; len as usize / 4];
        let mut parts = PartitionMut::new(all.as_flattened_mut(), counts, places);
        self.comm.all_gather_varcount_into(flat, &mut parts);
        all
    }
}

#[cfg(test)]
mod tests {
    use mpi::raw::AsRaw;

    use super::*;

    #[test]
    fn a_row_of_any_number_of_bytes_is_one_datatype() {
        let _job = mpi::initialize().expect("no other test of the library uses MPI");
        for bytes in [
            0,
            5,
            8,
            (1 << 31) - 8,
            (1 << 31) + 5,
            5 << 31,
            (1 << 40) + 1,
        ] {
            let kind = row_type(bytes);
            let (mut lower, mut extent) = (0, 0);
            // SAFETY: the datatype is committed, and the places are of this function.
            unsafe {
                mpi::ffi::MPI_Type_get_extent(kind.as_raw(), &mut lower, &mut extent);
            }
            assert_eq!((lower, extent), (0, bytes as Address), "{bytes}");
        }
    }
}
