//! The contents of a bucket, as the words of its record: names, and the traces of renames.
//!
//! Word 0: names 16 | departures 16 | words 32. A name: length 8 | arriving 1 | spare 23 | pid 32,
//! the handle, the [`Arrival`] if the arriving bit is set, the text. A [`Departure`] has 3 words.
//! Nothing follows.

use crate::descriptor::NAME_COPY;
use crate::handle::AnyHandle;
use crate::sync::Word;
use crate::word::{BucketIndex, BucketWord, Field, SeatId};

/// The largest length of a name, in bytes.
pub(crate) const MAX_NAME: usize = 255;
const TEXT_WORDS: usize = MAX_NAME.div_ceil(8);

const NAMES: Field = Field::first(16);
const DEPARTURES: Field = NAMES.then(16);
const WORDS: Field = DEPARTURES.then(32);

const LENGTH: Field = Field::first(8);
const ARRIVING: Field = LENGTH.then(1);
const SPARE: Field = ARRIVING.then(23);
const PID: Field = SPARE.then(32);

/// The other bucket of a rename, and the mover: bucket 32 | place 16 | seat 12 | spare 4.
const BUCKET: Field = Field::first(32);
const PLACE: Field = BUCKET.then(16);
const SEAT: Field = PLACE.then(SeatId::BITS);

const LEAD_BITS: u32 = 32 + 16 + SeatId::BITS;

const NAME_WORDS: usize = 2;
const ARRIVAL_WORDS: usize = 4;
const DEPARTURE_WORDS: usize = 3;

/// A name: 1 to 255 bytes of UTF-8, as words with zeros behind the text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    length: u8,
    words: [u64; TEXT_WORDS],
}

impl core::fmt::Debug for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.text().fmt(f)
    }
}

impl Name {
    /// Creates a name. Returns `None` if the text is empty or too long.
    pub(crate) fn new(text: &str) -> Option<Name> {
        let length = u8::try_from(text.len()).ok().filter(|&length| length > 0)?;
        let mut words = [0; TEXT_WORDS];
        bytemuck::cast_slice_mut(&mut words)[..text.len()].copy_from_slice(text.as_bytes());
        Some(Name { length, words })
    }

    fn words(&self) -> &[u64] {
        &self.words[..usize::from(self.length).div_ceil(8)]
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..usize::from(self.length)]
    }

    pub(crate) fn starts_with(&self, prefix: &str) -> bool {
        self.bytes().starts_with(prefix.as_bytes())
    }

    /// Returns the text. A name is UTF-8: it was created from a text, or decoded.
    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(self.bytes()).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        self.as_str().to_owned()
    }

    /// Returns the bucket of the name among `buckets`, a power of two.
    pub(crate) fn bucket(&self, buckets: usize) -> BucketIndex {
        Self::bucket_of(Self::hash(self.bytes()), buckets)
    }

    /// Returns the bucket of the names with this hash.
    pub(crate) fn bucket_of(hash: u64, buckets: usize) -> BucketIndex {
        BucketIndex::new(hash as usize & (buckets - 1))
    }

    /// Returns the hash that determines the bucket of a name. Part of the layout.
    #[inline]
    pub(crate) fn hash(name: &[u8]) -> u64 {
        // Multiplicative hashing, by 2⁶⁴ divided by the golden ratio: Knuth, The Art of Computer
        // Programming, volume 3, section 6.4. The better upper half is folded into the lower half.
        let mix = |hash: u64, word: u64| {
            let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^ (hash >> 32)
        };
        let (words, rest) = name.as_chunks::<8>();
        let hash = words.iter().fold(name.len() as u64, |hash, word| {
            mix(hash, u64::from_le_bytes(*word))
        });
        match rest {
            [] => hash,
            rest => {
                let mut last = [0; 8];
                last[..rest.len()].copy_from_slice(rest);
                mix(hash, u64::from_le_bytes(last))
            }
        }
    }
}

/// The new name of a rename. It is no name before the old name has left its bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Arrival {
    /// The word of the record that the arrival came with. No other arrival ever has the same id.
    pub(crate) id: BucketWord,
    /// The bucket that the old name leaves, with its word `seen` and the place of the name in it.
    pub(crate) from: BucketIndex,
    pub(crate) seen: BucketWord,
    pub(crate) place: usize,
    pub(crate) mover: Renamer,
}

/// The participant that renames: its seat, and the epoch in which it holds the seat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Renamer {
    pub(crate) seat: SeatId,
    pub(crate) epoch: u64,
}

/// The trace that a renamed name leaves in its old bucket. From then on the arrival is a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Departure {
    pub(crate) id: BucketWord,
    pub(crate) to: BucketIndex,
    pub(crate) mover: Renamer,
}

/// The value of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Value {
    pub(crate) handle: AnyHandle,
    /// The process that gave the name.
    pub(crate) pid: u32,
    pub(crate) arrival: Option<Arrival>,
}

/// The contents of a bucket.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Contents {
    pub(crate) names: Vec<(Name, Value)>,
    pub(crate) departures: Vec<Departure>,
}

impl Contents {
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.departures.is_empty()
    }

    /// Returns the place of `name` among the names.
    pub(crate) fn position(&self, name: &Name) -> Option<usize> {
        self.names.iter().position(|(other, _)| other == name)
    }

    /// Returns the number of words of the record, or `None` if there are too many names for one.
    pub(crate) fn words(&self) -> Option<usize> {
        let fits = |count: usize, field: Field| count as u64 <= field.max();
        if !fits(self.names.len(), NAMES) || !fits(self.departures.len(), DEPARTURES) {
            return None;
        }
        let name = |(name, value): &(Name, Value)| {
            let arrival = value.arrival.map_or(0, |_| ARRIVAL_WORDS);
            NAME_WORDS + arrival + name.words().len()
        };
        let names: usize = self.names.iter().map(name).sum();
        Some(1 + names + self.departures.len() * DEPARTURE_WORDS)
    }

    /// Returns the entry of the only name, with zeros behind it. Returns zeros if there is more than
    /// that name, or if it does not fit.
    pub(super) fn only_entry(&self) -> [u64; NAME_COPY] {
        let mut entry = [0; NAME_COPY];
        let fits = self.words().is_some_and(|words| words <= 1 + NAME_COPY);
        if let ([_], [], true) = (&*self.names, &*self.departures, fits) {
            let mut at = 0;
            self.encode(|word| {
                if at > 0 {
                    entry[at - 1] = word;
                }
                at += 1;
            });
        }
        entry
    }

    /// Calls `put` with each word, in order.
    pub(crate) fn encode(&self, mut put: impl FnMut(u64)) {
        let words = self.words().unwrap_or(0) as u64;
        let head = NAMES.set(0, self.names.len() as u64);
        let head = DEPARTURES.set(head, self.departures.len() as u64);
        put(WORDS.set(head, words));
        for (name, value) in &self.names {
            let head = LENGTH.set(0, u64::from(name.length));
            let head = ARRIVING.set(head, u64::from(value.arrival.is_some()));
            put(PID.set(head, u64::from(value.pid)));
            put(value.handle.to_bits());
            if let Some(arrival) = value.arrival {
                put(arrival.id.bits());
                put(arrival.seen.bits());
                put(lead(arrival.from, arrival.place, arrival.mover.seat));
                put(arrival.mover.epoch);
            }
            name.words().iter().copied().for_each(&mut put);
        }
        for departure in &self.departures {
            put(departure.id.bits());
            put(lead(departure.to, 0, departure.mover.seat));
            put(departure.mover.epoch);
        }
    }

    /// Decodes a record. Returns `None` if no participant writes such words. Reads no word beyond
    /// the record.
    pub(crate) fn decode(get: impl Fn(usize) -> Option<u64>) -> Option<Contents> {
        let mut contents = Contents::default();
        let Contents { names, departures } = &mut contents;
        decode_with(
            get,
            |name, value| names.push((*name, value)),
            |departure| departures.push(departure),
        )?;
        Some(contents)
    }
}

/// Decodes a record as [`Contents::decode`] does. Calls `on_name` with each name, then `on_departure`
/// with each departure, possibly before it returns `None`.
pub(crate) fn decode_with(
    get: impl Fn(usize) -> Option<u64>,
    mut on_name: impl FnMut(&Name, Value),
    mut on_departure: impl FnMut(Departure),
) -> Option<()> {
    let mut reader = Reader::new(get)?;
    while let Some(entry) = reader.name()? {
        let mut name = Name {
            length: entry.length,
            words: [0; TEXT_WORDS],
        };
        for (at, word) in name.words[..entry.text_words()].iter_mut().enumerate() {
            *word = (reader.get)(entry.text + at)?;
        }
        // The words behind are zero already.
        let read = &bytemuck::cast_slice::<u64, u8>(&name.words)[..entry.text_words() * 8];
        let zeros = &read[usize::from(name.length)..];
        if zeros.iter().any(|&byte| byte != 0) || str::from_utf8(name.bytes()).is_err() {
            return None;
        }
        on_name(&name, entry.value);
    }
    while let Some(departure) = reader.departure()? {
        on_departure(departure);
    }
    (reader.at == reader.end).then_some(())
}

/// Searches for `name` in the words of a record. Returns `None` if they are not a record. Does not
/// check the words behind the name.
pub(crate) fn find(get: impl Fn(usize) -> Option<u64>, name: &Name) -> Option<Option<Value>> {
    let mut reader = Reader::new(get)?;
    while let Some(entry) = reader.name()? {
        let same = |(at, &word): (usize, &u64)| (reader.get)(entry.text + at) == Some(word);
        if entry.length == name.length && name.words().iter().enumerate().all(same) {
            return Some(Some(entry.value));
        }
    }
    Some(None)
}

/// Returns the words of a record with one name, whose entry has these words. Returns `None` if they
/// are no name without an arrival, or are more than fit. Reads no word behind the entry.
#[inline]
pub(super) fn of_entry(entry: impl Fn(usize) -> u64) -> Option<[u64; 1 + NAME_COPY]> {
    let head = entry(0);
    let length = LENGTH.get(head) as usize;
    let words = 1 + NAME_WORDS + length.div_ceil(8);
    if length == 0 || ARRIVING.get(head) != 0 || words > 1 + NAME_COPY {
        return None;
    }
    let mut record = [0; 1 + NAME_COPY];
    record[0] = WORDS.set(NAMES.set(0, 1), words as u64);
    record[1] = head;
    for (at, word) in record[1..words].iter_mut().enumerate().skip(1) {
        *word = entry(at);
    }
    Some(record)
}

/// Decodes a record that [`of_entry`] has returned. Returns `None` if no participant writes such words.
#[inline]
pub(super) fn decode_only(record: &[u64; 1 + NAME_COPY]) -> Option<(&str, Value)> {
    let [_, head, handle, ref text @ ..] = *record;
    let length = LENGTH.get(head) as usize;
    let value = Value {
        handle: AnyHandle::from_bits(handle),
        pid: PID.get(head) as u32,
        arrival: None,
    };
    // The words behind the last one are zero already.
    let last = text.get(length.div_ceil(8).checked_sub(1)?)?;
    let behind = last.unbounded_shr(8 * ((length as u32 - 1) % 8 + 1));
    let clean = SPARE.get(head) == 0 && behind == 0;
    let text = bytemuck::cast_slice(text).get(..length).filter(|_| clean)?;
    Some((str::from_utf8(text).ok()?, value))
}

/// Packs a bucket, a place and the seat of a mover into a word.
fn lead(bucket: BucketIndex, place: usize, seat: SeatId) -> u64 {
    let word = BUCKET.set(0, bucket.get() as u64);
    SEAT.set(PLACE.set(word, place as u64), seat.field())
}

/// A name's entry without its text.
struct RawName {
    length: u8,
    value: Value,
    /// The first word of the text.
    text: usize,
}

impl RawName {
    fn text_words(&self) -> usize {
        usize::from(self.length).div_ceil(8)
    }
}

/// A cursor over the words of a record.
struct Reader<G> {
    get: G,
    at: usize,
    end: usize,
    names: u64,
    departures: u64,
}

impl<G: Fn(usize) -> Option<u64>> Reader<G> {
    fn new(get: G) -> Option<Self> {
        let head = get(0)?;
        Some(Reader {
            get,
            at: 1,
            end: WORDS.get(head) as usize,
            names: NAMES.get(head),
            departures: DEPARTURES.get(head),
        })
    }

    fn next(&mut self) -> Option<u64> {
        let word = (self.at < self.end).then(|| (self.get)(self.at))??;
        self.at += 1;
        Some(word)
    }

    /// Returns the next name, if any is left. Returns `None` if the words are invalid.
    fn name(&mut self) -> Option<Option<RawName>> {
        let Some(left) = self.names.checked_sub(1) else {
            return Some(None);
        };
        self.names = left;
        let head = self.next()?;
        let length = LENGTH.get(head) as u8;
        let handle = AnyHandle::from_bits(self.next()?);
        let arrival = match ARRIVING.get(head) {
            0 => None,
            _ => Some(self.arrival()?),
        };
        let entry = RawName {
            length,
            value: Value {
                handle,
                pid: PID.get(head) as u32,
                arrival,
            },
            text: self.at,
        };
        self.at += entry.text_words();
        (length > 0 && SPARE.get(head) == 0 && self.at <= self.end).then_some(Some(entry))
    }

    fn lead(&mut self) -> Option<u64> {
        self.next().filter(|&lead| lead >> LEAD_BITS == 0)
    }

    fn arrival(&mut self) -> Option<Arrival> {
        let (id, seen) = (self.next()?, self.next()?);
        let lead = self.lead()?;
        Some(Arrival {
            id: BucketWord::from_bits(id),
            from: BucketIndex::new(BUCKET.get(lead) as usize),
            seen: BucketWord::from_bits(seen),
            place: PLACE.get(lead) as usize,
            mover: Renamer {
                seat: SeatId::from_field(SEAT.get(lead)),
                epoch: self.next()?,
            },
        })
    }

    fn departure(&mut self) -> Option<Option<Departure>> {
        let Some(left) = self.departures.checked_sub(1) else {
            return Some(None);
        };
        self.departures = left;
        let id = BucketWord::from_bits(self.next()?);
        let lead = self.lead().filter(|&lead| PLACE.get(lead) == 0)?;
        Some(Some(Departure {
            id,
            to: BucketIndex::new(BUCKET.get(lead) as usize),
            mover: Renamer {
                seat: SeatId::from_field(SEAT.get(lead)),
                epoch: self.next()?,
            },
        }))
    }
}

#[cfg(test)]
mod words;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn encoded(contents: &Contents) -> Vec<u64> {
        let mut words = Vec::new();
        contents.encode(|word| words.push(word));
        words
    }

    fn any_name() -> impl Strategy<Value = Name> {
        "[a-z/é]{1,120}".prop_map(|text| Name::new(&text).unwrap())
    }

    fn any_mover() -> impl Strategy<Value = Renamer> {
        (1u64..2048, any::<u64>()).prop_map(|(seat, epoch)| Renamer {
            seat: SeatId::from_field(seat),
            epoch,
        })
    }

    fn any_arrival() -> impl Strategy<Value = Arrival> {
        let words = any::<(u64, u64)>();
        (words, any::<u32>(), any::<u16>(), any_mover()).prop_map(
            |((id, seen), from, place, mover)| Arrival {
                id: BucketWord::from_bits(id),
                from: BucketIndex::new(from as usize),
                seen: BucketWord::from_bits(seen),
                place: usize::from(place),
                mover,
            },
        )
    }

    fn any_contents() -> impl Strategy<Value = Contents> {
        let arrival = proptest::option::of(any_arrival());
        let value = (any::<u64>(), any::<u32>(), arrival).prop_map(|(bits, pid, arrival)| Value {
            handle: AnyHandle::from_bits(bits),
            pid,
            arrival,
        });
        let departure =
            (any::<u64>(), any::<u32>(), any_mover()).prop_map(|(id, to, mover)| Departure {
                id: BucketWord::from_bits(id),
                to: BucketIndex::new(to as usize),
                mover,
            });
        (vec((any_name(), value), 0..5), vec(departure, 0..3))
            .prop_map(|(names, departures)| Contents { names, departures })
    }

    #[test]
    fn fields_do_not_overlap() {
        for fields in [
            &[NAMES, DEPARTURES, WORDS][..],
            &[LENGTH, ARRIVING, SPARE, PID],
            &[BUCKET, PLACE, SEAT],
        ] {
            crate::word::testing::assert_disjoint(fields);
        }
    }

    #[test]
    fn names_have_1_to_255_bytes() {
        assert!(Name::new("").is_none());
        assert_eq!(Name::new("é").unwrap().text(), "é");
        let longest = "x".repeat(MAX_NAME);
        assert_eq!(Name::new(&longest).unwrap().text(), longest);
        assert!(Name::new(&(longest + "x")).is_none());
    }

    #[test]
    fn golden_buckets() {
        let bucket = |text| Name::new(text).unwrap().bucket(1 << 17).get();
        assert_eq!(
            ["a", "weights", "layer/12/bias"].map(bucket),
            [74_351, 71_761, 81_372],
            "programs of this layout version look for the names there"
        );
    }

    #[test]
    fn names_that_differ_little_go_to_many_buckets() {
        let buckets = 1 << 12;
        let mut counts = vec![0; buckets];
        for at in 0..buckets * 8 {
            let name = Name::new(&format!("layer/{at}/weights")).unwrap();
            counts[name.bucket(buckets).get()] += 1;
        }
        // 8 a bucket on average, with a deviation of 3: 30 is seven deviations off.
        assert!(
            counts.iter().all(|&count| count < 30),
            "{:?}",
            counts.iter().max()
        );
    }

    proptest! {
        #[test]
        fn contents_round_trip(contents in any_contents()) {
            let words = encoded(&contents);
            prop_assert_eq!(Some(words.len()), contents.words());
            let get = |at: usize| words.get(at).copied();
            let decoded = Contents::decode(get);
            prop_assert!(decoded == Some(contents.clone()));
            for (name, _) in &contents.names {
                let first = contents.position(name).unwrap();
                prop_assert_eq!(find(get, name), Some(Some(contents.names[first].1)));
            }
            prop_assert_eq!(find(get, &Name::new("Other").unwrap()), Some(None));
        }

        #[test]
        fn an_entry_decodes_as_its_record(
            name in "[a-z/é]{1,25}|[é]{11}[a-z]{2}",
            (bits, pid) in any::<(u64, u32)>(),
            changes in vec((0..NAME_COPY, any::<u64>(), 0u32..64), 0..3),
        ) {
            let value = Value { handle: AnyHandle::from_bits(bits), pid, arrival: None };
            let name = Name::new(&name).unwrap();
            let contents = Contents { names: vec![(name, value)], departures: vec![] };
            let mut entry = contents.only_entry();
            for (at, bits, by) in changes {
                entry[at] ^= bits << by;
            }
            if let Some(record) = of_entry(|at| entry[at]) {
                let expected = Contents::decode(|at| record.get(at).copied());
                let decoded = decode_only(&record);
                prop_assert_eq!(decoded.is_some(), expected.is_some());
                if let (Some((name, value)), Some(contents)) = (decoded, expected) {
                    prop_assert_eq!((contents.names[0].0.as_str(), contents.names[0].1), (name, value));
                }
            }
        }

        #[test]
        fn any_words_decode_to_contents_that_encode_to_them(
            contents in any_contents(),
            changes in vec((any::<prop::sample::Index>(), any::<u64>()), 0..3),
            name in any_name(),
        ) {
            let mut words = encoded(&contents);
            for (at, value) in changes {
                let at = at.index(words.len());
                words[at] ^= value;
            }
            let get = |at: usize| words.get(at).copied();
            let _ = find(get, &name);
            if let Some(decoded) = Contents::decode(get) {
                let again = encoded(&decoded);
                prop_assert_eq!(&words[..again.len()], &again[..]);
            }
        }
    }
}
