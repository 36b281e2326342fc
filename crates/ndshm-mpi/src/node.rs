//! The ranks of one node, and the segment that they share.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::sync::OnceLock;
use std::time::Duration;

use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::*;
use ndarray::{Dimension, Ix1};
use ndshm::{Element, HandleTable, Partition, Queue, ReadGuard, Write, WriteGuard};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::init::{is_main_thread, is_rank, patience};
use crate::leaders::{self, Leaders};
use crate::rows::Rows;
use crate::together::{Arrival, Step};
use crate::{segment, together};

/// A rank's seat in the segment of its node, and the way to the other nodes.
///
/// A node is a group of ranks that can share memory; [`from_comm`](Node::from_comm) finds them. The first
/// rank of each node is its *leader*; leaders exchange messages for their nodes.
///
/// Methods named *collective* are called by all ranks with the same arguments. If a rank does not
/// call, or calls something else, one rank returns an error that names it:
/// [`Error::NotCalled`], [`Error::Unequal`]. The ranks are at different calls then, and later
/// calls return [`Error::OutOfStep`]. After other errors the ranks may go on.
///
/// The parts of a node last as long as its process, so ranks may drop their values at any time and in
/// any order: other ranks may be in the last call, and MPI frees a communicator by all its ranks
/// together. Make few nodes.
///
/// ```
/// # ndshm_mpi::doctest(|job| {
/// use ndshm_mpi::Node;
///
/// let node = Node::from_comm(&job.world())?;
/// let mut x = node.rows::<f64, _>(10_000)?;
/// let tiles = node.partition(&x, x.write())?;
/// node.for_each(&tiles, |mut x, tile| {
///     for (row, x) in tile.rows().zip(&mut x) {
///         *x = row as f64;
///     }
/// })?;
/// assert_eq!(node.sum(&x)?, 49_995_000.0);
/// assert!(node.index() < node.nodes() && node.rank() < node.ranks());
/// if node.is_first() {
///     println!("{} nodes, {} ranks in the first one", node.nodes(), node.ranks());
/// }
/// node.barrier()?;
/// # Ok(()) });
/// ```
pub struct Node {
    pub(crate) table: &'static HandleTable,
    /// `None` in ranks that are not the first of their node.
    pub(crate) leaders: Option<Leaders>,
    /// Place of this node among all, and their number.
    pub(crate) index: usize,
    pub(crate) count: usize,
    /// Place of this rank in its node, and the ranks of the node as ranks of all.
    pub(crate) rank: usize,
    pub(crate) world_ranks: Vec<i32>,
    /// Never freed: after an error it may hold messages that nobody receives, which MPICH 5 refuses,
    /// and so the text of the error would be lost.
    pub(crate) world: ManuallyDrop<SimpleCommunicator>,
    pub(crate) arrivals: ManuallyDrop<Queue<'static, Arrival>>,
    pub(crate) board: ManuallyDrop<Partition<'static, Write<u64, Ix1>>>,
    pub(crate) step: Cell<Step>,
    pub(crate) calls: Cell<u64>,
    pub(crate) history: Cell<u64>,
    pub(crate) posts: Cell<u64>,
    pub(crate) made: Cell<u64>,
    pub(crate) patience: Cell<Duration>,
    /// Values of the leader that other ranks may be opening.
    pub(crate) kept: ManuallyDrop<RefCell<Vec<Box<dyn Any>>>>,
}

impl Node {
    /// Joins the segment of this rank's node: of the ranks that can share memory by
    /// `MPI_Comm_split_type`. Collective.
    ///
    /// # Errors
    /// - [`Error::NotJoined`] if a rank cannot join the segment, as in another container or as another
    ///   user.
    /// - [`Error::NotCalled`] if a rank does not call within the
    ///   [patience](crate::Job::set_patience), and [`Error::Unequal`] if it calls
    ///   [`from_comm_by`](Node::from_comm_by).
    /// - [`Error::NoJob`] without [`init`](crate::init), and [`Error::NotMainThread`] in another thread
    ///   than that of `main`.
    /// - [`Error::Ndshm`] if there is no memory for the segment.
    pub fn from_comm(comm: &SimpleCommunicator) -> Result<Node> {
        all_call(comm, Call::new(format_args!("Node::from_comm")), Ok(()))?;
        Node::of(comm.duplicate(), comm.split_shared(comm.rank()))
    }

    /// Joins the segment of all ranks of this machine that pass the same `color`. Collective.
    ///
    /// For one segment per memory node of a large machine, or for a job that behaves as if it ran on
    /// several machines. Ranks of different machines are on different nodes, with any colours.
    ///
    /// ```
    /// # ndshm_mpi::doctest(|job| {
    /// use mpi::traits::Communicator;
    /// use ndshm_mpi::Node;
    ///
    /// let world = job.world();
    /// // Two nodes, of which the first has one rank more if the number of ranks is odd.
    /// let node = Node::from_comm_by(&world, world.rank() * 2 / world.size())?;
    /// # let _ = node;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Same as [`from_comm`](Node::from_comm), and [`Error::Argument`] if the colour is negative.
    pub fn from_comm_by(comm: &SimpleCommunicator, color: i32) -> Result<Node> {
        let call = Call::new(format_args!("Node::from_comm_by"));
        let possible = match color {
            0.. => Ok(()),
            _ => Err(Error::Argument {
                call: call.text(),
                problem: format!("the colour {color} is negative: count nodes from 0"),
            }),
        };
        all_call(comm, call, possible)?;
        let machine = comm.split_shared(comm.rank());
        // MPI_Comm_split gives a communicator to each rank with a colour, and all have one.
        let ranks = machine.split_by_color(Color::with_value(color));
        Node::of(comm.duplicate(), ranks.unwrap_or(machine))
    }

    fn of(world: SimpleCommunicator, ranks: SimpleCommunicator) -> Result<Node> {
        let rank = ranks.rank() as usize;
        let mut world_ranks = vec![0; ranks.size() as usize];
        ranks.all_gather_into(&world.rank(), &mut world_ranks[..]);
        let leaders = world.split_by_color(match rank {
            0 => Color::with_value(0),
            _ => Color::undefined(),
        });
        let leaders = leaders.map(|comm| {
            let mut ranks = vec![0; comm.size() as usize];
            comm.all_gather_into(&world.rank(), &mut ranks[..]);
            Leaders {
                comm: ManuallyDrop::new(comm),
                world_ranks: ranks,
            }
        });
        let of_leader = |leaders: &Leaders| [leaders.comm.rank(), leaders.comm.size()];
        let mut place = leaders.as_ref().map_or([0; 2], of_leader);
        ranks.process_at_rank(0).broadcast_into(&mut place[..]);

        let segment = first_failure(&world, segment::of_node(&ranks, &world_ranks))?;
        // Partitions and queues borrow the table: see `ndshm::guide::structs`.
        let joined = HandleTable::join(&segment).map_err(Error::from);
        let table: &'static HandleTable = Box::leak(Box::new(first_failure(&world, joined)?));
        let made = (rank == 0).then(|| together::make(table, world_ranks.len()));
        let mut names = match &made {
            Some(Ok((arrivals, board))) => [arrivals.handle().to_bits(), board.handle().to_bits()],
            _ => [0u64; 2],
        };
        ranks.process_at_rank(0).broadcast_into(&mut names[..]);
        let opened = match made {
            Some(made) => made,
            // The leader has the error.
            None if names == [0; 2] => Err(Error::Elsewhere {
                rank: world_ranks[0],
            }),
            None => together::open(table, names),
        };
        let (arrivals, board) = first_failure(&world, opened)?;
        Ok(Node {
            table,
            leaders,
            index: place[0] as usize,
            count: place[1] as usize,
            rank,
            world_ranks,
            world: ManuallyDrop::new(world),
            arrivals: ManuallyDrop::new(arrivals),
            board: ManuallyDrop::new(board),
            step: Cell::new(Step::In),
            calls: Cell::new(0),
            history: Cell::new(0),
            posts: Cell::new(0),
            made: Cell::new(0),
            patience: Cell::new(patience()),
            kept: ManuallyDrop::default(),
        })
    }

    /// Sets the time that a collective call waits for other ranks, and a round for its tiles; that of
    /// the [job](crate::Job::set_patience) by default. Not collective.
    pub fn set_patience(&self, patience: Duration) {
        self.patience.set(patience);
    }

    /// Returns the place of this node among all, from 0. Global arrays have their rows in this
    /// order.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the number of nodes.
    pub fn nodes(&self) -> usize {
        self.count
    }

    /// Returns the place of this rank in its node, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Returns the number of ranks of this node.
    pub fn ranks(&self) -> usize {
        self.world_ranks.len()
    }

    /// Returns `true` in the first rank of each node.
    pub fn is_leader(&self) -> bool {
        self.rank == 0
    }

    /// Returns `true` in the first rank of the first node, which prints for all.
    pub fn is_first(&self) -> bool {
        self.rank == 0 && self.index == 0
    }

    /// Returns a communicator of all ranks in which this crate sends no messages.
    pub fn comm(&self) -> &SimpleCommunicator {
        &self.world
    }

    /// Returns this rank's seat in the segment of its node, for everything that ndshm can do with
    /// arrays of one machine.
    pub fn table(&self) -> &HandleTable {
        self.table
    }

    /// Leases this node's rows of a global array for reading. Not collective.
    ///
    /// # Errors
    /// See [`HandleTable::read`]; [`Error::Argument`] if another `Node` made `x`.
    pub fn read<T: Element, D: Dimension>(&self, x: &Rows<T, D>) -> Result<ReadGuard<'_, T, D>> {
        self.has(x)?;
        Ok(self.table.read(x.handle())?)
    }

    /// Leases this node's rows of a global array for writing. Not collective: no other rank of the
    /// node may have a lease.
    ///
    /// # Errors
    /// See [`HandleTable::write`]; [`Error::Argument`] if another `Node` made `x`.
    pub fn write<T: Element, D: Dimension>(&self, x: &Rows<T, D>) -> Result<WriteGuard<'_, T, D>> {
        self.has(x)?;
        Ok(self.table.write(x.handle())?)
    }

    /// Waits until all ranks have called. Collective.
    ///
    /// # Errors
    /// [`Error::NotCalled`] and [`Error::Unequal`] on one rank, [`Error::Elsewhere`] on the others;
    /// [`Error::OutOfStep`] after such an error.
    pub fn barrier(&self) -> Result<()> {
        self.lead(Call::new(format_args!("barrier")), |_| Ok([]))
            .map(|[]| ())
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("index", &self.index)
            .field("nodes", &self.count)
            .field("rank", &self.rank)
            .field("ranks", &self.world_ranks)
            .finish_non_exhaustive()
    }
}

/// Waits for all ranks of a communicator, as no collective call of MPI does, and compares their calls.
/// Errors name ranks of `comm`. `possible` has the error of this rank's arguments.
fn all_call(comm: &SimpleCommunicator, call: Call, possible: Result<()>) -> Result<()> {
    /// Messages of a call that failed may still come, and are no answers to a later one.
    static OUT_OF_STEP: OnceLock<()> = OnceLock::new();

    if !is_rank() {
        return Err(Error::NoJob);
    }
    if !is_main_thread() {
        return Err(Error::NotMainThread);
    }
    if OUT_OF_STEP.get().is_some() {
        return Err(Error::OutOfStep { call: call.text() });
    }
    let failed = possible.is_err().then(|| comm.rank());
    let agreed = leaders::agree(comm, |rank| rank, call, call.after(0), failed, patience());
    if let Err(Error::NotCalled { .. } | Error::Unequal { .. }) = agreed {
        OUT_OF_STEP.get_or_init(|| ());
    }
    possible?;
    if let Err(Error::Elsewhere { .. }) = agreed {
        together::step_aside();
    }
    agreed
}

/// Returns the error of the first rank that has one there, and tells all others of it.
fn first_failure<T>(world: &SimpleCommunicator, outcome: Result<T>) -> Result<T> {
    let none = world.size();
    // A rank whose leader has the error names that one.
    let failed = match &outcome {
        Ok(_) => none,
        Err(Error::Elsewhere { rank }) => *rank,
        Err(_) => world.rank(),
    };
    let mut first = none;
    world.all_reduce_into(&failed, &mut first, mpi::collective::SystemOperation::min());
    match outcome {
        Ok(made) if first == none => Ok(made),
        Err(error) if first == world.rank() => Err(error),
        _ => {
            together::step_aside();
            Err(Error::Elsewhere { rank: first })
        }
    }
}
