//! What a live array is: element type, order and shape, in the sixteen words behind its slot.
//!
//! Word 0: dtype code 16 | schema index 16 | axes 8 | order 8. Words 1 to 8: the lengths of the
//! axes, of which only the array's own are written. Words 9 and 10: who poisoned it (pid 32 | what it
//! was writing 8), and when. Word 11: the bytes that were committed for it. Word 12: the bucket of a
//! name that it was given last. A record of names has the bucket whose they are in word 2,
//! a bundle its record's word in word 3. Word 13: the bundle that an array is a part of.

use ndarray::{Dimension, Shape, ShapeBuilder};

use crate::element::{CONTROL, DType, Element, Kind, RECORD, RecordLayout, ScalarType, schema};
use crate::layout::Layout;
use crate::segment::Memory;
use crate::sync::{Atom, Ordering};
use crate::word::Field;

const CODE: Field = Field::first(16);
const SCHEMA: Field = CODE.then(16);
const AXES: Field = SCHEMA.then(8);
const ORDER: Field = AXES.then(8);

/// A word that says to what an array of one generation belongs: number + 1 32 | generation 32.
struct Kept;

impl Kept {
    const NUMBER: Field = Field::first(32);
    const GENERATION: Field = Self::NUMBER.then(32);

    fn of(number: usize, generation: u32) -> u64 {
        let word = Self::NUMBER.set(0, number as u64 + 1);
        Self::GENERATION.set(word, u64::from(generation))
    }

    /// The number; `None` in a word of another generation.
    fn get(word: u64, generation: u32) -> Option<usize> {
        let number = Self::NUMBER.get(word).checked_sub(1)?;
        (Self::GENERATION.get(word) == u64::from(generation)).then_some(number as usize)
    }
}

/// Axes that an array can have.
pub(crate) const MAX_AXES: usize = 8;
/// The word of the first axis.
const FIRST_AXIS: usize = 1;
const POISON_PID: usize = FIRST_AXIS + MAX_AXES;
const POISON_TIME: usize = POISON_PID + 1;
const BYTES: usize = POISON_TIME + 1;
const NAMED_IN: usize = BYTES + 1;
/// Behind the one axis of a control array.
const BUCKET: usize = FIRST_AXIS + 1;
const BUNDLE: usize = BUCKET + 1;
const PART_OF: usize = NAMED_IN + 1;
const _: () = assert!(PART_OF < Layout::DESCRIPTOR_WORDS);

/// Which axis of an array is contiguous in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Order {
    /// The last one, as in C; the default of ndarray.
    #[default]
    C,
    /// The first one, as in Fortran; what `.f()` asks for.
    F,
}

/// A type or a number of axes other than the array's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the handle is for {expected}, but the array is {found}: use the type it was made with")]
pub struct TypeMismatch {
    /// What the handle says.
    pub expected: String,
    /// What the array is.
    pub found: String,
}

impl TypeMismatch {
    /// Returns the error of a caller that asks for the elements of a control array.
    #[cold]
    pub(crate) fn control() -> TypeMismatch {
        TypeMismatch {
            expected: "an array of any elements".to_owned(),
            found: CONTROL_WORDS.to_owned(),
        }
    }
}

/// What a control array is to those who ask for an array.
pub(crate) const CONTROL_WORDS: &str =
    "words of a partition, a pool, a call, a queue, a bundle or names";

/// What a control array's words mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(crate) enum ControlKind {
    /// The claims of a partition.
    Partition = 1,
    /// The mailboxes of a pool.
    Pool = 2,
    /// The cells of a queue.
    Queue = 3,
    /// The names of a bucket.
    Names = 4,
    /// A bundle: a bucket of its own.
    Bundle = 5,
    /// The results of a pool's call, or its parameters.
    Call = 6,
}

impl ControlKind {
    /// Returns the kind with that number.
    fn of(number: u16) -> Option<ControlKind> {
        use ControlKind::{Bundle, Call, Names, Partition, Pool, Queue};
        let kinds = [Partition, Pool, Queue, Names, Bundle, Call];
        kinds.into_iter().find(|&kind| kind as u16 == number)
    }

    /// Says what the words are, if no user has a handle of them: the crate alone makes, changes and
    /// frees them.
    fn internal(self) -> Option<&'static str> {
        match self {
            ControlKind::Partition | ControlKind::Queue | ControlKind::Bundle => None,
            ControlKind::Pool => Some("the mailbox of a pool"),
            ControlKind::Names => Some("a record of names"),
            ControlKind::Call => Some("the results or parameters of a pool's call"),
        }
    }
}

/// Element type, order and shape of an array; a plain value, without anything on the heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Descriptor {
    code: u16,
    schema: u16,
    pub(crate) order: Order,
    axes: u8,
    /// Zero beyond `axes`.
    lengths: [u64; MAX_AXES],
}

/// Writes the words of a descriptor.
///
/// Release: pairs with the Acquire in [`head`] and [`axes`]. A reader may still be at the array that
/// had the slot before. If it sees a word of ours, all that we did before happens before its next
/// step, and that includes the reservation.
#[inline]
fn write(words: &[Atom], head: u64, lengths: impl Iterator<Item = u64>) {
    words[0].store(head, Ordering::Release);
    for (word, length) in words[FIRST_AXIS..].iter().zip(lengths) {
        word.store(length, Ordering::Release);
    }
}

/// The word that says what the array is.
#[inline]
fn head(words: &[Atom]) -> u64 {
    words[0].load(Ordering::Acquire)
}

/// The words that hold the lengths of its axes.
#[inline]
fn axes(words: &[Atom]) -> impl Iterator<Item = u64> {
    words[FIRST_AXIS..]
        .iter()
        .map(|word| word.load(Ordering::Acquire))
}

impl Descriptor {
    /// An array of atomic words, which no typed handle opens; `kind` says what they mean.
    pub(crate) fn control(kind: ControlKind, words: usize) -> Self {
        let mut lengths = [0; MAX_AXES];
        lengths[0] = words as u64;
        Descriptor {
            code: CONTROL,
            schema: kind as u16,
            order: Order::C,
            axes: 1,
            lengths,
        }
    }

    /// An array of `dtype`, whose layout has the index `schema` if it is one of records. The caller
    /// has seen that there are at most [`MAX_AXES`] axes.
    pub(crate) fn untyped(dtype: &DType, schema: u16, order: Order, shape: &[usize]) -> Self {
        let mut lengths = [0; MAX_AXES];
        for (length, &axis) in lengths.iter_mut().zip(shape) {
            *length = axis as u64;
        }
        // Where the order makes no difference to the strides, it is C.
        let long_axes = shape.iter().filter(|&&axis| axis != 1).count();
        let same = long_axes <= 1 || shape.contains(&0);
        Descriptor {
            code: match dtype {
                DType::Scalar(scalar) => scalar.code(),
                DType::Record(_) => RECORD,
            },
            schema,
            order: if same { Order::C } else { order },
            axes: shape.len() as u8,
            lengths,
        }
    }

    #[inline]
    fn encode(&self) -> u64 {
        encode(self.code, self.schema, usize::from(self.axes), self.order)
    }

    /// Word 0 decoded, all lengths still zero; `None` for any word that `encode` does not give.
    #[inline]
    fn decode(word: u64) -> Option<Self> {
        let code = CODE.get(word) as u16;
        let descriptor = Descriptor {
            code,
            schema: SCHEMA.get(word) as u16,
            order: match ORDER.get(word) {
                0 => Order::C,
                1 => Order::F,
                _ => return None,
            },
            axes: AXES.get(word) as u8,
            lengths: [0; MAX_AXES],
        };
        let known = code == RECORD || code == CONTROL || ScalarType::from_code(code).is_some();
        (known && usize::from(descriptor.axes) <= MAX_AXES && descriptor.encode() == word)
            .then_some(descriptor)
    }

    /// Writes the descriptor of a slot that the caller has reserved.
    #[inline]
    pub(crate) fn store(&self, words: &[Atom]) {
        write(words, self.encode(), self.shape().iter().copied());
    }

    /// Notes how many bytes of the extent were committed for the array, before it is published.
    #[inline]
    pub(crate) fn note_committed(words: &[Atom], bytes: u64) {
        words[BYTES].store(bytes, Ordering::Relaxed);
    }

    /// What was noted for the array that is or was LIVE in the slot.
    pub(crate) fn committed(words: &[Atom]) -> u64 {
        words[BYTES].load(Ordering::Relaxed)
    }

    /// Notes in which bucket the array was given a name. A hint: it may come late, and be of an array
    /// that had the slot before.
    pub(crate) fn note_name(words: &[Atom], bucket: usize) {
        words[NAMED_IN].store(bucket as u64, Ordering::Relaxed);
    }

    /// What was noted last in the slot.
    pub(crate) fn named_in(words: &[Atom]) -> u64 {
        words[NAMED_IN].load(Ordering::Relaxed)
    }

    /// Writes which bucket's names the control array holds, before it is published as that generation.
    ///
    /// Relaxed, and so is the look: the word says itself of which generation it is.
    pub(crate) fn store_bucket(words: &[Atom], bucket: usize, generation: u32) {
        words[BUCKET].store(Kept::of(bucket, generation), Ordering::Relaxed);
    }

    /// What [`Descriptor::store_bucket`] wrote for that generation.
    pub(crate) fn bucket(words: &[Atom], generation: u32) -> Option<usize> {
        Kept::get(words[BUCKET].load(Ordering::Relaxed), generation)
    }

    /// The word of a bundle's bucket.
    pub(crate) fn bundle(words: &[Atom]) -> &Atom {
        &words[BUNDLE]
    }

    /// Notes that the array of that generation is a part of a bundle. The caller has a lease, so that
    /// the slot keeps it, and owns it, so that nobody else does the same.
    pub(crate) fn store_part(words: &[Atom], bundle: usize, generation: u32) {
        words[PART_OF].store(Kept::of(bundle, generation), Ordering::Relaxed);
    }

    /// Notes that it is not any more; the duties are the same.
    pub(crate) fn clear_part(words: &[Atom]) {
        words[PART_OF].store(0, Ordering::Relaxed);
    }

    /// The bundle that the array of that generation is a part of.
    pub(crate) fn part_of(words: &[Atom], generation: u32) -> Option<usize> {
        Kept::get(words[PART_OF].load(Ordering::Relaxed), generation)
    }

    /// Reads the descriptor of a slot; `None` if the words are of none.
    ///
    /// The caller reads the slot word before and after, both times LIVE in the same generation;
    /// then these are the words of that generation:
    /// - none is older: they were written before the slot word became LIVE, and the caller's first
    ///   look acquired that;
    /// - none is newer: a later descriptor is written after a later reservation of the slot. To
    ///   read one of its words is to synchronise with its writer (see [`write`]), so that the caller's second look sees that reservation, or what
    ///   came after it, and not the same generation LIVE.
    ///
    /// Before that second look the value may be of mixed generations: it is to be believed only
    /// afterwards, and is harmless until then.
    #[inline]
    pub(crate) fn load(words: &[Atom]) -> Option<Self> {
        let mut descriptor = Self::decode(head(words))?;
        let own = &mut descriptor.lengths[..usize::from(descriptor.axes)];
        for (length, word) in own.iter_mut().zip(axes(words)) {
            *length = word;
        }
        Some(descriptor)
    }

    /// As [`Descriptor::store`], for an array of `T` with that `shape`, and without the detour of a
    /// value. The caller has seen that there are at most [`MAX_AXES`] axes.
    #[inline]
    pub(crate) fn store_typed<T: Element>(
        words: &[Atom],
        schema: u16,
        order: Order,
        shape: &[usize],
    ) {
        let head = encode(T::KIND.code(), schema, shape.len(), order);
        write(words, head, shape.iter().map(|&length| length as u64));
    }

    /// As [`Descriptor::load`], for who expects an array of `T` and `D`: its shape as ndarray's
    /// constructors take it, and its size in bytes. [`Descriptor::why_not`] says why it is `None`.
    ///
    /// `same_schema(index, text)` says whether the layout at `index` is `text`; it is asked only if
    /// both are records. Within a segment a layout has one index, so a caller that once got an
    /// answer from [`schema::schema_index_matches`] may compare indices from then on.
    #[inline(always)]
    pub(crate) fn load_typed<T: Element, D: Dimension>(
        words: &[Atom],
        same_schema: impl FnOnce(u16, &'static str) -> bool,
    ) -> Option<(Shape<D>, u64)> {
        let head = head(words);
        if !is_of::<T, D>(head, same_schema) {
            return None;
        }
        let mut dim = D::zeros(AXES.get(head) as usize);
        for (axis, length) in dim.slice_mut().iter_mut().zip(self::axes(words)) {
            // On the 64-bit targets that there are, an axis is what it was stored as.
            *axis = length as usize;
        }
        let bytes = bytes_of(size_of::<T>(), dim.slice().iter().map(|&axis| axis as u64))?;
        Some((dim.set_f(ORDER.get(head) == 1), bytes))
    }

    /// Why [`Descriptor::load_typed`] gives nothing: the array is another one than expected, or,
    /// with `None`, the words are of no array.
    #[cold]
    pub(crate) fn why_not<T: Element, D: Dimension>(
        words: &[Atom],
        memory: &Memory,
        same_schema: impl FnOnce(u16, &'static str) -> bool,
    ) -> Option<TypeMismatch> {
        let descriptor = Self::load(words)?;
        let same = is_of::<T, D>(descriptor.encode(), same_schema);
        (!same).then(|| descriptor.mismatch::<T, D>(memory))
    }

    /// The lengths of the axes.
    #[inline]
    pub(crate) fn shape(&self) -> &[u64] {
        &self.lengths[..usize::from(self.axes)]
    }

    pub(crate) fn is_control(&self) -> bool {
        self.code == CONTROL
    }

    /// Whether the words are of that kind.
    pub(crate) fn is_control_of(&self, kind: ControlKind) -> bool {
        self.is_control() && self.schema == kind as u16
    }

    /// Says what the words are, if they are a control array that only the crate itself may own, name
    /// or free. `None` for all that users have handles of.
    pub(crate) fn internal(&self) -> Option<&'static str> {
        ControlKind::of(self.schema)
            .filter(|_| self.is_control())?
            .internal()
    }

    /// The index of the record's layout; `None` if the elements are no records.
    pub(crate) fn schema(&self) -> Option<u16> {
        (self.code == RECORD).then_some(self.schema)
    }

    /// Bytes that the array takes with elements of `element_size` bytes; see [`bytes_of`].
    #[inline]
    pub(crate) fn bytes(&self, element_size: usize) -> Option<u64> {
        bytes_of(element_size, self.shape().iter().copied())
    }

    /// Bytes that the array takes, if it is one of elements or of control words.
    #[cfg(not(loom))]
    pub(crate) fn bytes_in(&self, memory: &Memory) -> Option<u64> {
        let size = match self.is_control() {
            true => size_of::<u64>(),
            false => self.dtype(memory)?.size(),
        };
        self.bytes(size)
    }

    #[cold]
    fn mismatch<T: Element, D: Dimension>(&self, memory: &Memory) -> TypeMismatch {
        let expected = match D::NDIM {
            Some(axes) => format!("{} with {}", T::dtype(), count_of_axes(axes)),
            None => format!("{} with any number of axes", T::dtype()),
        };
        TypeMismatch {
            expected,
            found: self.describe(memory),
        }
    }

    /// The type of the elements; `None` for a control array, and for a record whose layout the
    /// segment does not tell.
    pub(crate) fn dtype(&self, memory: &Memory) -> Option<DType> {
        match self.schema() {
            Some(index) => {
                let text = schema::read(memory, index)?;
                Some(DType::Record(RecordLayout::parse(&text)?.into()))
            }
            None => ScalarType::from_code(self.code).map(DType::Scalar),
        }
    }

    fn describe(&self, memory: &Memory) -> String {
        let axes = count_of_axes(usize::from(self.axes));
        match (self.dtype(memory), self.schema()) {
            (Some(dtype), _) => format!("{dtype} with {axes}"),
            (None, Some(index)) => format!("a record of unreadable layout {index} with {axes}"),
            (None, None) => CONTROL_WORDS.to_owned(),
        }
    }
}

/// Whether `head` is the first word of an array of `T` and `D`, in either order.
#[inline(always)]
fn is_of<T: Element, D: Dimension>(
    head: u64,
    same_schema: impl FnOnce(u16, &'static str) -> bool,
) -> bool {
    let expected = encode(T::KIND.code(), 0, D::NDIM.unwrap_or(0), Order::C);
    let any_axes = if D::NDIM.is_none() { AXES.mask() } else { 0 };
    // One comparison says it all of scalars with a known number of axes.
    let either = SCHEMA.mask() | ORDER.set(0, 1) | any_axes;
    head & !either == expected
        && AXES.get(head) as usize <= MAX_AXES
        && match T::KIND {
            Kind::Scalar(_) => true,
            Kind::Record(record) => same_schema(SCHEMA.get(head) as u16, record.text()),
        }
}

#[inline]
fn encode(code: u16, schema: u16, axes: usize, order: Order) -> u64 {
    let word = CODE.set(0, u64::from(code));
    let word = SCHEMA.set(word, u64::from(schema));
    let word = AXES.set(word, axes as u64);
    let order = match order {
        Order::C => 0,
        Order::F => 1,
    };
    ORDER.set(word, order)
}

/// Bytes that an array of that shape takes with elements of `element_size` bytes; `None` if that
/// exceeds what an ndarray may have.
///
/// An array with an axis of length 0 takes none, but its other axes must still multiply to less
/// than `isize::MAX`: ndarray demands it of every view.
#[inline]
pub(crate) fn bytes_of(
    element_size: usize,
    shape: impl Iterator<Item = u64> + Clone,
) -> Option<u64> {
    let plain = shape
        .clone()
        .try_fold(element_size as u64, |bytes, length| {
            bytes.checked_mul(length)
        });
    match plain {
        // Not empty, and so every partial product is less.
        Some(bytes) if bytes > 0 && bytes <= isize::MAX as u64 => Some(bytes),
        _ => bytes_of_unusual(element_size, shape),
    }
}

/// As [`bytes_of`], for shapes with an axis of length 0, or of too many bytes.
#[cold]
fn bytes_of_unusual(element_size: usize, shape: impl Iterator<Item = u64>) -> Option<u64> {
    let mut empty = false;
    let mut bytes = element_size as u64;
    for length in shape {
        empty |= length == 0;
        bytes = bytes.checked_mul(length.max(1))?;
    }
    (bytes <= isize::MAX as u64).then_some(if empty { 0 } else { bytes })
}

fn count_of_axes(axes: usize) -> String {
    match axes {
        1 => "1 axis".to_owned(),
        _ => format!("{axes} axes"),
    }
}

/// What a participant was writing when it died or panicked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum HalfWritten {
    /// The array, under a lease of all of it.
    Array,
    /// Tiles of a round: [`ReapReport::torn`](crate::ReapReport::torn) and
    /// [`RoundError`](crate::RoundError) say which.
    Tiles,
    /// A round that it had opened: what is done of it, nobody has collected.
    Round,
}

impl core::fmt::Display for HalfWritten {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            HalfWritten::Array => "all of it",
            HalfWritten::Tiles => "tiles of it",
            HalfWritten::Round => "it in a round of its own",
        })
    }
}

/// Who left an array half-written, for the error that the next lease gets. A hint: it is written
/// beside the slot word, and the word alone says that the array is poisoned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PoisonNote {
    pub(crate) pid: u32,
    /// Seconds since 1970.
    pub(crate) time: u64,
    pub(crate) what: HalfWritten,
}

impl PoisonNote {
    const PID: Field = Field::first(32);
    const WHAT: Field = Self::PID.then(8);

    /// `pid` left it so, as noticed now.
    pub(crate) fn now(pid: u32, what: HalfWritten) -> PoisonNote {
        // Miri isolates a program from the time of day.
        let now = match cfg!(miri) {
            true => std::time::UNIX_EPOCH,
            false => std::time::SystemTime::now(),
        };
        let since = now.duration_since(std::time::UNIX_EPOCH);
        PoisonNote {
            pid,
            time: since.map_or(0, |since| since.as_secs()),
            what,
        }
    }

    /// Called before the slot word is poisoned by a Release, which publishes the note.
    pub(crate) fn store(self, words: &[Atom]) {
        let what = match self.what {
            HalfWritten::Array => 0,
            HalfWritten::Tiles => 1,
            HalfWritten::Round => 2,
        };
        let who = Self::WHAT.set(u64::from(self.pid), what);
        words[POISON_PID].store(who, Ordering::Relaxed);
        words[POISON_TIME].store(self.time, Ordering::Relaxed);
    }

    /// Called after the slot word was seen poisoned by an Acquire.
    pub(crate) fn load(words: &[Atom]) -> PoisonNote {
        let who = words[POISON_PID].load(Ordering::Relaxed);
        PoisonNote {
            pid: Self::PID.get(who) as u32,
            what: match Self::WHAT.get(who) {
                1 => HalfWritten::Tiles,
                2 => HalfWritten::Round,
                _ => HalfWritten::Array,
            },
            time: words[POISON_TIME].load(Ordering::Relaxed),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod notes;
#[cfg(all(test, not(loom)))]
mod tests;
