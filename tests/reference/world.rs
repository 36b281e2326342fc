//! The reference, and the interpreter that compares each answer with it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ndarray::{Array, ArrayD, Axis, Dimension, IntoDimension, Ix0, Ix1, Ix2, Ix4, IxDyn};
use ndarray::{ShapeBuilder, Slice};
use ndshm::error::LeaseError;
use ndshm::inspect::{ArrayInfo, ReapReport};
use ndshm::{AnyHandle, Handle, HandleTable};
use proptest::sample::Index;

use crate::program::{Form, Make, Step};
use crate::sample::{AnyLease, KINDS, Sample, numbers, with_kind};

/// The reference's knowledge of an array.
pub struct Known {
    pub handle: AnyHandle,
    pub kind: usize,
    strides: Vec<isize>,
    pub contents: ArrayD<u64>,
    owner: Option<usize>,
    pub freed: bool,
    pub poisoned: bool,
    /// The table that writes it or has opened a round on it; `Some(None)`: a round that its opener
    /// has left.
    pub writer: Option<Option<usize>>,
    /// Read leases and participations in rounds, by table.
    pub readers: [usize; crate::program::TABLES],
}

impl Known {
    pub fn is_readable(&self) -> bool {
        !self.freed && !self.poisoned && self.writer.is_none()
    }

    pub fn is_writable(&self) -> bool {
        self.is_readable() && self.readers.iter().all(|&count| count == 0)
    }

    fn check_refusal(&self, error: &LeaseError) {
        let own = std::process::id();
        match error {
            LeaseError::Stale { handle } => assert!(self.freed && *handle == self.handle),
            LeaseError::Busy { pid, .. } if self.writer == Some(None) => assert_eq!(*pid, 0),
            LeaseError::Busy { pid, .. } => assert!(!self.freed && *pid == own),
            LeaseError::Poisoned { pid, .. } => {
                assert!(self.poisoned && self.writer.is_none() && *pid == own);
            }
            other => panic!("{other}"),
        }
    }
}

struct Lease<'t> {
    array: usize,
    table: usize,
    writes: bool,
    guard: Box<dyn AnyLease + 't>,
}

/// All arrays so far, and the current leases.
pub struct World<'t> {
    pub tables: &'t [HandleTable],
    pub arrays: Vec<Known>,
    leases: Vec<Lease<'t>>,
}

pub fn typed<T>(handle: AnyHandle) -> Handle<T, IxDyn> {
    Handle::from_bits(handle.to_bits())
}

impl<'t> World<'t> {
    pub fn new(tables: &'t [HandleTable]) -> World<'t> {
        World {
            tables,
            arrays: Vec::new(),
            leases: Vec::new(),
        }
    }

    /// Runs steps; `depth` is the number of enclosing rounds.
    pub fn run(&mut self, steps: &[Step], depth: usize) {
        for step in steps {
            match step {
                Step::Make(table, how, kind, form, seed) => {
                    with_kind!(*kind, T => self.make::<T>(*table, *how, *kind, form, *seed));
                }
                _ if self.arrays.is_empty() => {}
                Step::Read(table, array) => self.lease(*table, array, false),
                Step::Write(table, array) => self.lease(*table, array, true),
                Step::Free(table, array) => {
                    let (table, known) = self.pick(*table, array);
                    assert_eq!(table.free(known.handle).is_ok(), !known.freed);
                    known.freed = true;
                }
                Step::Detach(at, array) => {
                    let (table, known) = self.pick(*at, array);
                    let owned = known.owner.is_none_or(|owner| owner == *at);
                    let detached = table.detach(known.handle).is_ok();
                    assert_eq!(detached, !known.freed && owned);
                    if detached {
                        known.owner = None;
                    }
                }
                Step::Adopt(owner, array) => {
                    let (table, known) = self.pick(*owner, array);
                    let adopted = table.adopt(known.handle).is_ok();
                    assert_eq!(adopted, !known.freed && known.owner.is_none());
                    if adopted {
                        known.owner = Some(*owner);
                    }
                }
                Step::Panic(table, array, seed) => self.panic_while_writing(*table, array, *seed),
                Step::ClearPoison(table, array) => {
                    let (table, known) = self.pick(*table, array);
                    match table.clear_poison(known.handle) {
                        Ok(()) => {
                            assert!(!known.freed && known.writer.is_none());
                            known.poisoned = false;
                        }
                        Err(error) => {
                            assert!(known.freed || known.writer.is_some());
                            known.check_refusal(&error);
                        }
                    }
                }
                Step::Round(plan) => self.round(plan, depth),
                Step::Visit(array, seed) => self.visit(array, *seed),
                Step::WrongType(table, array) => {
                    let (table, known) = self.pick(*table, array);
                    let axes = known.contents.ndim();
                    let other = with_kind!((known.kind + 1) % KINDS, T => {
                        known.handle.downcast::<T, IxDyn>(table).err()
                    });
                    let rank = with_kind!(known.kind, T => match axes {
                        1 => known.handle.downcast::<T, Ix2>(table).err(),
                        _ => known.handle.downcast::<T, Ix1>(table).err(),
                    });
                    for error in [other, rank] {
                        match error.expect("an array of another type") {
                            LeaseError::WrongKind(_) => assert!(!known.freed),
                            error => known.check_refusal(&error),
                        }
                    }
                }
                Step::List(table) => self.list(*table),
                Step::Reap(table) => {
                    let report = self.tables[*table].reap().unwrap();
                    assert_eq!(report, ReapReport::default(), "no participant is dead");
                }
                Step::Trim(table) => {
                    self.tables[*table].trim().unwrap();
                }
                _ if self.leases.is_empty() => {}
                Step::Fill(lease, seed) => {
                    let at = lease.index(self.leases.len());
                    let lease = &mut self.leases[at];
                    if lease.writes {
                        let known = &mut self.arrays[lease.array];
                        let shape = known.contents.shape().to_vec();
                        known.contents = with_kind!(known.kind, T => numbers::<T>(&shape, *seed));
                        lease.guard.fill(&known.contents);
                    }
                }
                Step::Look(lease) => self.look(lease.index(self.leases.len())),
                Step::Release(lease) => self.release(lease.index(self.leases.len())),
            }
        }
    }

    fn pick(&mut self, table: usize, array: &Index) -> (&'t HandleTable, &mut Known) {
        let at = array.index(self.arrays.len());
        (&self.tables[table], &mut self.arrays[at])
    }

    fn make<T: Sample>(&mut self, owner: usize, how: Make, kind: usize, form: &Form, seed: u64) {
        let shape = &form.shape[..];
        match shape {
            _ if form.dynamic => self.make_dim::<T, _>(owner, how, kind, IxDyn(shape), form, seed),
            [] => self.make_dim::<T, _>(owner, how, kind, Ix0(), form, seed),
            &[a] => self.make_dim::<T, _>(owner, how, kind, Ix1(a), form, seed),
            &[a, b] => self.make_dim::<T, _>(owner, how, kind, Ix2(a, b), form, seed),
            &[a, b, c, d] => self.make_dim::<T, _>(owner, how, kind, Ix4(a, b, c, d), form, seed),
            _ => self.make_dim::<T, _>(owner, how, kind, IxDyn(shape), form, seed),
        }
    }

    fn make_dim<T: Sample, D: Dimension>(
        &mut self,
        owner: usize,
        how: Make,
        kind: usize,
        dim: D,
        form: &Form,
        seed: u64,
    ) {
        let table = &self.tables[owner];
        let shape = dim.slice().to_vec();
        let mut contents = numbers::<T>(&shape, seed);
        let with_order = || dim.clone().set_f(form.fortran);
        let mut layout = Array::<u8, D>::zeros(with_order());
        let handle: Handle<T, D> = match how {
            Make::Zeros => {
                contents.fill(0);
                table.zeros(with_order()).unwrap()
            }
            Make::Elem => {
                contents.fill(T::of(seed).number());
                table.from_elem(with_order(), T::of(seed)).unwrap()
            }
            Make::ShapeFn => {
                let element = |index: D::Pattern| T::of(contents[index.into_dimension().slice()]);
                table.from_shape_fn(with_order(), element).unwrap()
            }
            Make::Array => {
                let mut source = Array::from_elem(with_order(), T::of(0));
                source
                    .view_mut()
                    .into_dyn()
                    .zip_mut_with(&contents, |x, &number| *x = T::of(number));
                table.from_array(&source).unwrap()
            }
            Make::SlicedView => {
                // The source is twice as long and backwards along each axis.
                let mut long = dim.clone();
                long.slice_mut().iter_mut().for_each(|len| *len *= 2);
                let mut source = Array::from_elem(long.set_f(form.fortran), T::of(seed));
                let mut view = source.view_mut();
                for axis in 0..shape.len() {
                    view.slice_axis_inplace(Axis(axis), Slice::new(0, None, -2));
                }
                view.view_mut()
                    .into_dyn()
                    .zip_mut_with(&contents, |x, &number| *x = T::of(number));
                let in_c = view.is_standard_layout() || !view.t().is_standard_layout();
                layout = Array::zeros(dim.clone().set_f(!in_c));
                table.from_array(&view).unwrap()
            }
            Make::Uninit => {
                let handle = table.uninit(with_order()).unwrap();
                let mut guard = table.write::<T, D>(handle).unwrap();
                guard
                    .view_mut()
                    .into_dyn()
                    .zip_mut_with(&contents, |x, &number| *x = T::of(number));
                handle
            }
            Make::Owned => {
                let owned = table.owned(table.zeros::<T, _>(with_order()).unwrap());
                owned.handle()
            }
        };
        let freed = matches!(how, Make::Owned);
        if !freed {
            let guard = table.read(handle).unwrap();
            assert_eq!(guard.raw_dim(), dim);
            assert_eq!(guard.view().into_dyn().mapv(T::number), contents);
        }
        self.arrays.push(Known {
            handle: handle.into(),
            kind,
            strides: layout.strides().to_vec(),
            contents,
            owner: Some(owner),
            freed,
            poisoned: false,
            writer: None,
            readers: Default::default(),
        });
    }

    fn lease(&mut self, table: usize, array: &Index, writes: bool) {
        let array = array.index(self.arrays.len());
        let (from, known) = (&self.tables[table], &mut self.arrays[array]);
        let granted = with_kind!(known.kind, T => match writes {
            true => from
                .write(typed::<T>(known.handle))
                .map(|guard| Box::new(guard) as Box<dyn AnyLease + 't>),
            false => from
                .read(typed::<T>(known.handle))
                .map(|guard| Box::new(guard) as Box<dyn AnyLease + 't>),
        });
        match granted {
            Ok(guard) => {
                assert!(if writes {
                    known.is_writable()
                } else {
                    known.is_readable()
                });
                match writes {
                    true => known.writer = Some(Some(table)),
                    false => known.readers[table] += 1,
                }
                self.leases.push(Lease {
                    array,
                    table,
                    writes,
                    guard,
                });
                self.look(self.leases.len() - 1);
            }
            Err(error) => {
                assert!(!if writes {
                    known.is_writable()
                } else {
                    known.is_readable()
                });
                known.check_refusal(&error);
            }
        }
    }

    fn look(&self, at: usize) {
        let lease = &self.leases[at];
        let known = &self.arrays[lease.array];
        assert_eq!(lease.guard.numbers(), known.contents);
        // Along an axis with one index, the stride means nothing.
        let shape = known.contents.shape().iter();
        for ((&len, here), there) in shape.zip(lease.guard.strides()).zip(&known.strides) {
            assert!(len == 1 || here == *there);
        }
    }

    fn release(&mut self, at: usize) {
        self.look(at);
        let lease = self.leases.swap_remove(at);
        let known = &mut self.arrays[lease.array];
        match lease.writes {
            true => known.writer = None,
            false => known.readers[lease.table] -= 1,
        }
    }

    fn panic_while_writing(&mut self, table: usize, array: &Index, seed: u64) {
        let (table, known) = self.pick(table, array);
        let shape = known.contents.shape().to_vec();
        with_kind!(known.kind, T => {
            let Ok(mut guard) = table.write(typed::<T>(known.handle)) else {
                assert!(!known.is_writable());
                return;
            };
            known.contents = numbers::<T>(&shape, seed);
            guard.zip_mut_with(&known.contents, |x, &number| *x = T::of(number));
            // Unlike `panic!`, this prints nothing.
            let unwound = catch_unwind(AssertUnwindSafe(move || {
                let _guard = guard;
                resume_unwind(Box::new("expected"))
            }));
            let Err(_) = unwound;
        });
        known.poisoned = true;
    }

    fn visit(&mut self, array: &Index, seed: u64) {
        let visitor = HandleTable::join(self.tables[0].segment()).unwrap();
        let gone = visitor.from_elem(100, seed).unwrap();
        let kept = visitor.from_elem((3, 4), seed as i64).unwrap();
        visitor.detach(kept).unwrap();
        let at = array.index(self.arrays.len());
        let known = &mut self.arrays[at];
        // What the visitor adopts leaves with it.
        let adopted = visitor.adopt(known.handle).is_ok();
        assert_eq!(adopted, !known.freed && known.owner.is_none());
        known.freed |= adopted;
        self.arrays.push(Known {
            handle: kept.into(),
            kind: 2,
            strides: vec![4, 1],
            contents: ArrayD::from_elem(IxDyn(&[3, 4]), seed),
            owner: None,
            freed: false,
            poisoned: false,
            writer: None,
            readers: Default::default(),
        });
        drop(visitor);
        let error = self.tables[0].read(gone).unwrap_err();
        assert!(matches!(error, LeaseError::Stale { .. }), "{error}");
    }

    pub fn list(&self, table: usize) {
        let mut listed: Vec<ArrayInfo> = self.tables[table].arrays().collect();
        listed.sort_by_key(|info| info.handle);
        let mut live: Vec<&Known> = self.arrays.iter().filter(|known| !known.freed).collect();
        live.sort_by_key(|known| known.handle);
        assert_eq!(listed.len(), live.len());
        let own = std::process::id();
        for (info, known) in listed.iter().zip(live) {
            assert_eq!(info.handle, known.handle);
            assert_eq!(info.shape, known.contents.shape());
            let size = with_kind!(known.kind, T => size_of::<T>());
            assert_eq!(info.bytes, (known.contents.len() * size) as u64);
            assert_eq!(info.owner, known.owner.map(|_| own));
            let writer = known.writer.map(|table| table.map_or(0, |_| own));
            assert_eq!((info.writer, info.poisoned), (writer, known.poisoned));
            let readers = known.readers.iter().filter(|&&count| count > 0).count();
            assert_eq!(info.readers, vec![own; readers]);
        }
    }

    /// Releases all leases. Returns the handles of arrays that outlive the tables.
    pub fn end(mut self) -> Vec<AnyHandle> {
        while !self.leases.is_empty() {
            self.release(0);
        }
        self.list(0);
        let detached = |known: &&Known| !known.freed && known.owner.is_none();
        let detached = self.arrays.iter().filter(detached);
        let mut handles: Vec<AnyHandle> = detached.map(|known| known.handle).collect();
        handles.sort();
        handles
    }
}
