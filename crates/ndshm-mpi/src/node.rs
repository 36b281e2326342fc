//! The ranks of one node, and the segment that they share.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::time::Duration;

use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::*;
use ndarray::{Dimension, Ix1};
use ndshm::{Element, HandleTable, Partition, Queue, ReadGuard, Segment, Write, WriteGuard};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::init::patience;
use crate::leaders::{self, Leaders};
use crate::rows::Rows;
use crate::together::Arrival;
use crate::{segment, together};

/// A rank's seat in the segment of its node, and the way to the other nodes.
///
/// A node is what [`from_comm`](Node::from_comm) finds: the ranks that can share memory. The first
/// rank of each node is its *leader*; leaders exchange messages for their nodes.
///
/// Methods named *collective* are called by all ranks with the same arguments. If a rank does not
/// call, or calls something else, one rank returns an error that names it:
/// [`Error::NotCalled`], [`Error::Unequal`].
///
/// A node lasts as long as its process: its table is never dropped.
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
    pub(crate) calls: Cell<u64>,
    pub(crate) history: Cell<u64>,
    pub(crate) posts: Cell<u64>,
    pub(crate) made: Cell<u64>,
    pub(crate) patience: Cell<Duration>,
    /// Values of the leader that other ranks may be opening.
    pub(crate) kept: RefCell<Vec<Box<dyn Any>>>,
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
    /// - [`Error::Ndshm`] if there is no memory for the segment.
    pub fn from_comm(comm: &SimpleCommunicator) -> Result<Node> {
        all_call(comm, Call::new(format_args!("Node::from_comm")))?;
        Node::of(comm.duplicate(), comm.split_shared(comm.rank()))
    }

    /// Joins the segment of all ranks of this machine that pass the same `color`. Collective.
    ///
    /// For one segment per memory node of a large machine, or for a job that behaves as if it ran on
    /// several machines.
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
        if color < 0 {
            return Err(Error::Argument {
                call: "Node::from_comm_by".into(),
                problem: format!("the colour {color} is negative: count nodes from 0"),
            });
        }
        all_call(comm, Call::new(format_args!("Node::from_comm_by")))?;
        let ranks = comm.split_by_color(Color::with_value(color));
        // Every rank has a colour.
        Node::of(comm.duplicate(), ranks.ok_or(Error::Initialized)?)
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

        let joined = segment::of_node(&ranks, &world_ranks);
        let segment = first_failure(&world, joined)?;
        // Partitions and queues borrow the table: see `ndshm::guide::structs`.
        let table: &'static HandleTable = Box::leak(Box::new(HandleTable::join(&segment)?));
        let mut names = [0u64; 2];
        let made = match rank {
            0 => {
                let (arrivals, board) = together::make(table, world_ranks.len())?;
                names = [arrivals.handle().to_bits(), board.handle().to_bits()];
                Some((arrivals, board))
            }
            _ => None,
        };
        ranks.process_at_rank(0).broadcast_into(&mut names[..]);
        let (arrivals, board) = match made {
            Some(made) => made,
            None => together::open(table, names)?,
        };
        ranks.barrier();
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
            calls: Cell::new(0),
            history: Cell::new(0),
            posts: Cell::new(0),
            made: Cell::new(0),
            patience: Cell::new(patience()),
            kept: RefCell::default(),
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

    /// Returns the communicator of all ranks: a duplicate, so a program's messages in it do not meet
    /// those of this crate.
    pub fn comm(&self) -> SimpleCommunicator {
        self.world.duplicate()
    }

    /// Returns this rank's seat in the segment of its node, for everything that ndshm can do with
    /// arrays of one machine.
    pub fn table(&self) -> &HandleTable {
        self.table
    }

    /// Leases this node's rows of a global array for reading. Not collective.
    ///
    /// # Errors
    /// See [`HandleTable::read`].
    pub fn read<T: Element, D: Dimension>(&self, x: &Rows<T, D>) -> Result<ReadGuard<'_, T, D>> {
        Ok(self.table.read(x.handle())?)
    }

    /// Leases this node's rows of a global array for writing. Not collective: no other rank of the
    /// node may have a lease.
    ///
    /// # Errors
    /// See [`HandleTable::write`].
    pub fn write<T: Element, D: Dimension>(&self, x: &Rows<T, D>) -> Result<WriteGuard<'_, T, D>> {
        Ok(self.table.write(x.handle())?)
    }

    /// Waits until all ranks have called. Collective.
    ///
    /// # Errors
    /// [`Error::NotCalled`] and [`Error::Unequal`] on one rank, [`Error::Elsewhere`] on the others.
    pub fn barrier(&self) -> Result<()> {
        self.lead(Call::new(format_args!("barrier")), |_| Ok([]))
            .map(|[]| ())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Other ranks may still be in the last call. All of it goes with this process's seat.
        std::mem::forget(self.kept.take());
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
/// Errors name ranks of `comm`.
fn all_call(comm: &SimpleCommunicator, call: Call) -> Result<()> {
    let agreed = leaders::agree(comm, |rank| rank, call, call.after(0), None, patience());
    if let Err(Error::Elsewhere { .. }) = agreed {
        together::step_aside();
    }
    agreed
}

/// Returns the error of the first rank that has one there, and tells all others of it.
fn first_failure(world: &SimpleCommunicator, outcome: Result<Segment>) -> Result<Segment> {
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
        Ok(segment) if first == none => Ok(segment),
        Err(error) if first == world.rank() => Err(error),
        _ => {
            together::step_aside();
            Err(Error::Elsewhere { rank: first })
        }
    }
}
