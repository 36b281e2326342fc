//! The descriptor of a live array: element type, order and shape, in the sixteen words of its slot.
//!
//! Word 0: dtype code 16 | schema index 16 | axes 8 | order 8. Words 1 to 8: the lengths of the
//! axes; only the array's own axes are written. Words 9 and 10: the pid of the poisoner 32 | the
//! kind of its writing 8 | the slot of the partition with its torn tiles, plus one 24, and the time. Word 11: the bytes that were committed for the array. Word 12:
//! the bucket of the name that the array was given last. A record of names stores its bucket in
//! word 2 and a copy of its only name in words 3 to 7, a bundle stores its record's word in word 3.
//! Word 13: the bundle that an array is a part of.

use ndarray::{Dimension, Shape, ShapeBuilder};

use crate::element::{
    CONTROL, DType, Element, Kind, OPAQUE, OpaqueType, Order, RECORD, RecordLayout, ScalarType,
    schema,
};
use crate::handle::AnyHandle;
use crate::layout::Layout;
use crate::memory::Memory;
use crate::sync::{Atom, Ordering};
use crate::word::{BucketIndex, BucketWord, Field, SlotIndex};

const CODE: Field = Field::first(16);
const SCHEMA: Field = CODE.then(16);
const AXES: Field = SCHEMA.then(8);
const ORDER: Field = AXES.then(8);

/// A word that stores a bucket for the array of one generation: number + 1 32 | generation 32.
struct Kept;

impl Kept {
    const NUMBER: Field = Field::first(32);
    const GENERATION: Field = Self::NUMBER.then(32);

    fn of(bucket: BucketIndex, generation: u32) -> u64 {
        let word = Self::NUMBER.set(0, bucket.get() as u64 + 1);
        Self::GENERATION.set(word, u64::from(generation))
    }

    /// Returns the bucket, or `None` if the word is of another generation.
    fn get(word: u64, generation: u32) -> Option<BucketIndex> {
        let number = Self::NUMBER.get(word).checked_sub(1)?;
        let bucket = BucketIndex::new(number as usize);
        (Self::GENERATION.get(word) == u64::from(generation)).then_some(bucket)
    }
}

/// Number of axes that an array can have.
pub(crate) const MAX_AXES: usize = 8;
/// The word of the first axis.
const FIRST_AXIS: usize = 1;
const POISON_PID: usize = FIRST_AXIS + MAX_AXES;
const POISON_TIME: usize = POISON_PID + 1;
const BYTES: usize = POISON_TIME + 1;
const NAMED_IN: usize = BYTES + 1;
/// This and the next word follow the single axis of a control array.
const BUCKET: usize = FIRST_AXIS + 1;
const BUNDLE: usize = BUCKET + 1;
/// The first of the [`NAME_COPY`] words with the copy of a name. They are on one cache line with the
/// words before them.
const NAME: usize = BUCKET + 1;
const PART_OF: usize = NAMED_IN + 1;
const _: () = assert!(PART_OF < Layout::DESCRIPTOR_WORDS);

/// The number of words of a descriptor that can hold a copy of a name.
pub(crate) const NAME_COPY: usize = 5;
const _: () = assert!(NAME + NAME_COPY <= POISON_PID);

/// A handle does not fit its use: the array has another element type or another number of axes, or it is a
/// queue and no array.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{handle} names {found}, not {expected}: {remedy}")]
#[non_exhaustive]
pub struct WrongKind {
    /// The handle.
    pub handle: AnyHandle,
    /// What the call needs.
    pub expected: String,
    /// What the handle names.
    pub found: String,
    /// What to do.
    pub remedy: &'static str,
}

const USE_ITS_TYPE: &str = "use the type that it was created with";

impl WrongKind {
    /// Returns the error of a caller that asks for the elements of a control array.
    #[cold]
    pub(crate) fn control(handle: AnyHandle) -> WrongKind {
        WrongKind {
            handle,
            expected: "an array".to_owned(),
            found: CONTROL_WORDS.to_owned(),
            remedy: USE_ITS_TYPE,
        }
    }

    /// Returns the error of a caller that expects something else in the array with these words.
    #[cold]
    pub(crate) fn found_in(
        handle: AnyHandle,
        words: &[Atom],
        memory: &Memory,
        expected: impl Into<String>,
    ) -> WrongKind {
        let descriptor = Descriptor::load(words);
        WrongKind {
            handle,
            expected: expected.into(),
            found: descriptor.map_or_else(
                || "a damaged descriptor".to_owned(),
                |descriptor| descriptor.describe(memory),
            ),
            remedy: USE_ITS_TYPE,
        }
    }
}

/// Description of a control array in errors of callers that expect an array.
pub(crate) const CONTROL_WORDS: &str =
    "words of a partition, a pool, a call, a queue, a bundle or names";

/// The meaning of a control array's words.
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
    /// The mailbox of a foreign pool.
    Foreign = 7,
}

impl ControlKind {
    /// Returns the kind with this number.
    fn of(number: u16) -> Option<ControlKind> {
        use ControlKind::{Bundle, Call, Foreign, Names, Partition, Pool, Queue};
        let kinds = [Partition, Pool, Queue, Names, Bundle, Call, Foreign];
        kinds.into_iter().find(|&kind| kind as u16 == number)
    }

    /// Returns a description of the words for an error text.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ControlKind::Partition => "a partition",
            ControlKind::Queue => "a queue",
            ControlKind::Bundle => "a bundle",
            ControlKind::Pool => "the mailbox of a pool",
            ControlKind::Names => "a record of names",
            ControlKind::Call => "the results or parameters of a pool's call",
            ControlKind::Foreign => "the mailbox of a foreign pool",
        }
    }

    /// Returns `true` if the words are internal: users have no handle of them, and only the crate
    /// creates, changes and frees them.
    fn is_internal(self) -> bool {
        matches!(
            self,
            ControlKind::Pool | ControlKind::Names | ControlKind::Call | ControlKind::Foreign
        )
    }
}

/// Element type, order and shape of an array: a plain value, with nothing on the heap.
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
/// Release: pairs with the Acquire in [`head`] and [`axes`]. A reader may still be reading the
/// array that had the slot before. If it sees one of our words, then everything that we did before,
/// including the reservation, happens before the reader's next step.
#[inline]
fn write(words: &[Atom], head: u64, lengths: impl Iterator<Item = u64>) {
    words[0].store(head, Ordering::Release);
    for (word, length) in words[FIRST_AXIS..].iter().zip(lengths) {
        word.store(length, Ordering::Release);
    }
}

/// Reads the first word: type, number of axes and order.
#[inline]
fn head(words: &[Atom]) -> u64 {
    words[0].load(Ordering::Acquire)
}

/// Reads the lengths of the axes.
#[inline]
fn axes(words: &[Atom]) -> impl Iterator<Item = u64> {
    words[FIRST_AXIS..]
        .iter()
        .map(|word| word.load(Ordering::Acquire))
}

impl Descriptor {
    /// Creates the descriptor of an array of atomic words, which no typed handle opens. `kind` is
    /// their meaning.
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

    /// Creates the descriptor of an array of `dtype`. `schema` is the index of its layout if it is
    /// a record, or of its text if it is opaque. The caller has checked that there are at most
    /// [`MAX_AXES`] axes.
    pub(crate) fn untyped(dtype: &DType, schema: u16, order: Order, shape: &[usize]) -> Self {
        let mut lengths = [0; MAX_AXES];
        for (length, &axis) in lengths.iter_mut().zip(shape) {
            *length = axis as u64;
        }
        // If both orders give the same strides, store C.
        let long_axes = shape.iter().filter(|&&axis| axis != 1).count();
        let same = long_axes <= 1 || shape.contains(&0);
        Descriptor {
            code: match dtype {
                DType::Scalar(scalar) => scalar.code(),
                DType::Record(_) => RECORD,
                DType::Opaque(_) => OPAQUE,
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

    /// Decodes word 0, with all lengths zero. Returns `None` for any word that `encode` does not
    /// produce.
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
        let known =
            matches!(code, RECORD | CONTROL | OPAQUE) || ScalarType::from_code(code).is_some();
        (known && usize::from(descriptor.axes) <= MAX_AXES && descriptor.encode() == word)
            .then_some(descriptor)
    }

    /// Writes the descriptor of a slot that the caller has reserved.
    #[inline]
    pub(crate) fn store(&self, words: &[Atom]) {
        write(words, self.encode(), self.shape().iter().copied());
    }

    /// Stores how many bytes of the extent were committed for the array. Called before it is
    /// published.
    #[inline]
    pub(crate) fn note_committed(words: &[Atom], bytes: u64) {
        words[BYTES].store(bytes, Ordering::Relaxed);
    }

    /// Returns the committed bytes of the array that is or was LIVE in the slot.
    pub(crate) fn committed(words: &[Atom]) -> u64 {
        words[BYTES].load(Ordering::Relaxed)
    }

    /// Stores the bucket in which the array was given a name. This is a hint: it may be late, or be
    /// about an array that had the slot before.
    pub(crate) fn note_name(words: &[Atom], bucket: BucketIndex) {
        words[NAMED_IN].store(bucket.get() as u64, Ordering::Relaxed);
    }

    /// Returns the bucket that was stored last in the slot.
    pub(crate) fn named_in(words: &[Atom]) -> BucketIndex {
        BucketIndex::new(words[NAMED_IN].load(Ordering::Relaxed) as usize)
    }

    /// Stores the bucket whose names the control array holds. Called before it is published as that
    /// generation.
    ///
    /// Relaxed, as is the load in `bucket`: the word itself carries its generation.
    pub(crate) fn store_bucket(words: &[Atom], bucket: BucketIndex, generation: u32) {
        words[BUCKET].store(Kept::of(bucket, generation), Ordering::Relaxed);
    }

    /// Returns the bucket that [`Descriptor::store_bucket`] stored for this generation.
    pub(crate) fn bucket(words: &[Atom], generation: u32) -> Option<BucketIndex> {
        Kept::get(words[BUCKET].load(Ordering::Relaxed), generation)
    }

    /// Stores the copy of a record's only name, or zeros if it has none. Called before the record is
    /// published.
    ///
    /// Release: pairs with the Acquire in [`Descriptor::name_word`], as in [`write`].
    pub(crate) fn store_name(words: &[Atom], copy: [u64; NAME_COPY]) {
        for (word, copied) in words[NAME..].iter().zip(copy) {
            word.store(copied, Ordering::Release);
        }
    }

    /// Returns one of the words that [`Descriptor::store_name`] stored. The conditions are those of
    /// [`Descriptor::load`].
    #[inline]
    pub(crate) fn name_word(words: &[Atom], at: usize) -> u64 {
        words[NAME..][..NAME_COPY][at].load(Ordering::Acquire)
    }

    /// Returns the word of a bundle's bucket.
    pub(crate) fn bundle(words: &[Atom]) -> &Atom<BucketWord> {
        words[BUNDLE].typed()
    }

    /// Marks the array of this generation as a part of a bundle. The caller holds a lease, so the
    /// slot keeps its array, and owns the array, so no other participant calls this at the same
    /// time.
    pub(crate) fn store_part(words: &[Atom], bundle: BucketIndex, generation: u32) {
        words[PART_OF].store(Kept::of(bundle, generation), Ordering::Relaxed);
    }

    /// Removes the mark. The caller has the same duties as for [`Descriptor::store_part`].
    pub(crate) fn clear_part(words: &[Atom]) {
        words[PART_OF].store(0, Ordering::Relaxed);
    }

    /// Returns the bundle that the array of this generation is a part of.
    pub(crate) fn part_of(words: &[Atom], generation: u32) -> Option<BucketIndex> {
        Kept::get(words[PART_OF].load(Ordering::Relaxed), generation)
    }

    /// Reads the descriptor of a slot; returns `None` if the words are not a descriptor.
    ///
    /// The caller reads the slot word before and after. If both reads see LIVE in the same
    /// generation, the words belong to that generation:
    /// - No word is older: the words were written before the slot word became LIVE, and the
    ///   caller's first read acquired that.
    /// - No word is newer: a later descriptor is written after a later reservation of the slot.
    ///   Reading one of its words synchronises with its writer (see [`write`]). The caller's second
    ///   read then sees that reservation or a later state, not the same generation LIVE.
    ///
    /// Before the second read, the value may mix generations. It must not be trusted until then,
    /// but is harmless.
    #[inline]
    pub(crate) fn load(words: &[Atom]) -> Option<Self> {
        let mut descriptor = Self::decode(head(words))?;
        let own = &mut descriptor.lengths[..usize::from(descriptor.axes)];
        for (length, word) in own.iter_mut().zip(axes(words)) {
            *length = word;
        }
        Some(descriptor)
    }

    /// Does the same as [`Descriptor::store`] for an array of `T` with this `shape`, without
    /// building a value. The caller has checked that there are at most [`MAX_AXES`] axes.
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

    /// Reads the shape, as ndarray's constructors take it, and the size in bytes of an array that
    /// should be of `T` and `D`. The conditions are those of [`Descriptor::load`]. Returns `None`
    /// for any other array; [`Descriptor::why_not`] returns the reason.
    ///
    /// `same_schema(index, text)` returns `true` if the layout at `index` is `text`; it is called
    /// only if both are records. Within a segment a layout has one index, so a caller that has one
    /// answer of [`schema::schema_index_matches`] may compare indices from then on.
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
            // On every supported target `usize` has 64 bits, so this is the stored value.
            *axis = length as usize;
        }
        let bytes = bytes_of(size_of::<T>(), dim.slice().iter().map(|&axis| axis as u64))?;
        Some((dim.set_f(ORDER.get(head) == 1), bytes))
    }

    /// Returns why [`Descriptor::load_typed`] returned `None`: the mismatch, or `None` if the words
    /// are not a descriptor.
    #[cold]
    pub(crate) fn why_not<T: Element, D: Dimension>(
        words: &[Atom],
        memory: &Memory,
        handle: AnyHandle,
        same_schema: impl FnOnce(u16, &'static str) -> bool,
    ) -> Option<WrongKind> {
        let descriptor = Self::load(words)?;
        let same = is_of::<T, D>(descriptor.encode(), same_schema);
        (!same).then(|| descriptor.mismatch::<T, D>(memory, handle))
    }

    /// Returns the lengths of the axes.
    #[inline]
    pub(crate) fn shape(&self) -> &[u64] {
        &self.lengths[..usize::from(self.axes)]
    }

    pub(crate) fn is_control(&self) -> bool {
        self.code == CONTROL
    }

    /// Returns `true` if `words` describe a bundle.
    pub(crate) fn is_bundle(words: &[Atom]) -> bool {
        Descriptor::load(words)
            .is_some_and(|descriptor| descriptor.is_control_of(ControlKind::Bundle))
    }

    /// Returns `true` if the words are a control array of this kind.
    pub(crate) fn is_control_of(&self, kind: ControlKind) -> bool {
        self.is_control() && self.schema == kind as u16
    }

    /// Returns a description of the words if they are internal: a control array that only the crate
    /// itself may own, name or free. Returns `None` for anything that users have handles of.
    pub(crate) fn internal(&self) -> Option<&'static str> {
        ControlKind::of(self.schema)
            .filter(|kind| self.is_control() && kind.is_internal())
            .map(ControlKind::name)
    }

    /// Returns the index of the text in the table of layouts, or `None` if the elements need none.
    fn schema(&self) -> Option<u16> {
        matches!(self.code, RECORD | OPAQUE).then_some(self.schema)
    }

    /// Returns the size of the array with elements of `element_size` bytes; see [`bytes_of`].
    #[inline]
    pub(crate) fn bytes(&self, element_size: usize) -> Option<u64> {
        bytes_of(element_size, self.shape().iter().copied())
    }

    /// Returns the size of the array in bytes if its elements are known or are control words.
    pub(crate) fn bytes_in(&self, memory: &Memory) -> Option<u64> {
        let size = match self.is_control() {
            true => size_of::<u64>(),
            false => self.dtype(memory)?.size(),
        };
        self.bytes(size)
    }

    #[cold]
    fn mismatch<T: Element, D: Dimension>(&self, memory: &Memory, handle: AnyHandle) -> WrongKind {
        let expected = match D::NDIM {
            Some(axes) => format!("an array of {} with {}", T::dtype(), count_of_axes(axes)),
            None => format!("an array of {} with any number of axes", T::dtype()),
        };
        WrongKind {
            handle,
            expected,
            found: self.describe(memory),
            remedy: match self.code {
                OPAQUE => {
                    "use read_untyped, write_untyped and find_any, because no type of Rust \
                           has such elements"
                }
                _ => USE_ITS_TYPE,
            },
        }
    }

    /// Returns the type of the elements. Returns `None` for a control array, and if the segment
    /// does not have the elements' layout.
    pub(crate) fn dtype(&self, memory: &Memory) -> Option<DType> {
        match self.schema() {
            Some(index) => {
                let text = schema::read(memory, index)?;
                match self.code {
                    OPAQUE => Some(OpaqueType::parse(&text)?.into()),
                    _ => Some(DType::Record(RecordLayout::parse(&text)?.into())),
                }
            }
            None => ScalarType::from_code(self.code).map(DType::Scalar),
        }
    }

    fn describe(&self, memory: &Memory) -> String {
        let axes = count_of_axes(usize::from(self.axes));
        match (self.dtype(memory), self.schema()) {
            (Some(dtype), _) => format!("an array of {dtype} with {axes}"),
            (None, Some(index)) => format!("an array of unreadable layout {index} with {axes}"),
            (None, None) => match ControlKind::of(self.schema) {
                Some(kind) if self.is_control() => kind.name().to_owned(),
                _ => CONTROL_WORDS.to_owned(),
            },
        }
    }
}

/// The element type and the number of axes of an array. They never change.
#[derive(Clone, Copy)]
pub(crate) struct ArrayType(u64);

impl ArrayType {
    /// The type of no array.
    pub(crate) const NONE: ArrayType = ArrayType(0);

    /// Reads the type of the array whose descriptor is in these words at this moment.
    pub(crate) fn load(words: &[Atom]) -> ArrayType {
        ArrayType(head(words))
    }

    /// Returns `true` for an array of `T` and `D`. `same_schema` is that of [`Descriptor::load_typed`].
    #[inline]
    pub(crate) fn is<T: Element, D: Dimension>(
        self,
        same_schema: impl FnOnce(u16, &'static str) -> bool,
    ) -> bool {
        is_of::<T, D>(self.0, same_schema)
    }
}

/// Returns `true` if `head` is the first word of an array of `T` and `D`, in either order.
#[inline(always)]
fn is_of<T: Element, D: Dimension>(
    head: u64,
    same_schema: impl FnOnce(u16, &'static str) -> bool,
) -> bool {
    let expected = encode(T::KIND.code(), 0, D::NDIM.unwrap_or(0), Order::C);
    let any_axes = if D::NDIM.is_none() { AXES.mask() } else { 0 };
    // For scalars with a known number of axes, one comparison decides.
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

/// Returns the size in bytes of an array of this shape with elements of `element_size` bytes, or
/// `None` if it exceeds the maximum of ndarray.
///
/// An array with an axis of length 0 takes no bytes, but its other axes must still multiply to less
/// than `isize::MAX`, because ndarray requires it of every view.
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
        // The product is not 0, so every partial product is smaller.
        Some(bytes) if bytes > 0 && bytes <= isize::MAX as u64 => Some(bytes),
        _ => bytes_of_unusual(element_size, shape),
    }
}

/// Does the same as [`bytes_of`], for shapes with an axis of length 0 or with too many bytes.
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

/// The part that a participant was writing when it died or panicked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum HalfWritten {
    /// The array, under a lease of the whole array.
    Array,
    /// Tiles of a round: [`ReapReport::torn`](crate::inspect::ReapReport::torn) and
    /// [`RoundError`](crate::error::RoundError) list them.
    Tiles,
    /// A round that it had opened: nobody has collected its results.
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

/// The participant that left an array half-written, for the error of the next lease; and the
/// partition whose torn tiles account for the poison.
///
/// The slot word alone decides that the array is poisoned. Every participant that poisons it, or
/// leases it poisoned to write outside of torn tiles, stores its note before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PoisonNote {
    pub(crate) pid: u32,
    /// Seconds since 1970.
    pub(crate) time: u64,
    pub(crate) what: HalfWritten,
    /// The partition with the torn tiles, if nothing else of the array is half-written.
    pub(crate) torn_in: Option<SlotIndex>,
}

impl PoisonNote {
    const PID: Field = Field::first(32);
    const WHAT: Field = Self::PID.then(8);
    const TORN_IN: Field = Self::WHAT.then(24);

    /// Creates the note that `pid` left the array half-written, with the current time.
    pub(crate) fn now(pid: u32, what: HalfWritten) -> PoisonNote {
        // Miri isolates programs from the system clock.
        let now = match cfg!(miri) {
            true => std::time::UNIX_EPOCH,
            false => std::time::SystemTime::now(),
        };
        let since = now.duration_since(std::time::UNIX_EPOCH);
        PoisonNote {
            pid,
            time: since.map_or(0, |since| since.as_secs()),
            what,
            torn_in: None,
        }
    }

    /// Returns the note with the partition that has the torn tiles.
    pub(crate) fn torn_in(self, partition: Option<SlotIndex>) -> PoisonNote {
        PoisonNote {
            torn_in: partition,
            ..self
        }
    }

    /// Stores the note. Called before a Release poisons the slot word, which publishes the note.
    pub(crate) fn store(self, words: &[Atom]) {
        let what = match self.what {
            HalfWritten::Array => 0,
            HalfWritten::Tiles => 1,
            HalfWritten::Round => 2,
        };
        let who = Self::WHAT.set(u64::from(self.pid), what);
        let partition = self.torn_in.map_or(0, |slot| slot.get() as u64 + 1);
        // A number that does not fit says that no partition accounts for the poison.
        let partition = Some(partition).filter(|&slot| slot <= Self::TORN_IN.max());
        let who = Self::TORN_IN.set(who, partition.unwrap_or(0));
        words[POISON_PID].store(who, Ordering::Relaxed);
        words[POISON_TIME].store(self.time, Ordering::Relaxed);
    }

    /// Loads the note. Called after an Acquire has seen the slot word poisoned.
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
            torn_in: (Self::TORN_IN.get(who) as usize)
                .checked_sub(1)
                .map(SlotIndex::new),
        }
    }
}

crate::message::debug_is_display!(WrongKind);

#[cfg(test)]
mod notes;
#[cfg(test)]
mod tests;
