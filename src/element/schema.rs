//! The segment's table of record layouts and opaque types, from which a reader learns what the
//! elements of an unknown array are.
//!
//! An entry is: word 0, a hash of the text and the READY bit; word 1, the bytes of the text; then
//! the text, eight bytes per word. Each word changes once, from zero to its final value (and word 0
//! then gains READY), by one compare-and-swap:
//! 1. word 0: 0 → hash. The entry is claimed for texts of this hash.
//! 2. the other words: 0 → the text's. Every participant with this text that finds the entry
//!    claimed writes them too, so a claimer that dies blocks nobody.
//! 3. word 0: hash → hash + READY, by any participant that has seen its own text in all words.
//!
//! Two texts of one hash may race for an entry. One of them wins the first word in which they
//! differ, and the other goes on to the next entry. In the worst case each wins a word, and the
//! entry stays unused for ever. Every text visits the same entries in the same order, and an entry
//! that has refused a text keeps refusing it. Therefore a text has one index in a segment.

use super::fields::LayoutError;
use crate::layout::Layout;
use crate::memory::Memory;
use crate::sync::{Atom, Ordering};
use crate::word::fnv1a;

/// Words before an entry's text.
const HEAD: usize = 2;

/// Bytes of the longest text.
pub(crate) const MAX_TEXT: usize = (Layout::SCHEMA_WORDS - HEAD) * 8;

/// Bit of word 0: the text of the entry is complete.
const READY: u64 = 1;

/// Returns the index of `text` in the segment, and enters the text if it is new.
///
/// Lock-free; a few loads if the segment has the layout already. `text` has no NUL bytes.
pub(crate) fn intern(memory: &Memory, text: &str) -> Result<u16, LayoutError> {
    if text.len() > MAX_TEXT {
        let limit = MAX_TEXT;
        return Err(LayoutError::TooLong {
            bytes: text.len(),
            limit,
        });
    }
    (0..Layout::SCHEMAS)
        .find(|&index| Entry::of(memory, index).is_some_and(|entry| entry.admit(text)))
        .map(|index| index as u16)
        .ok_or(LayoutError::TooMany {
            limit: Layout::SCHEMAS,
        })
}

/// Returns the text at `index`, or `None` if there is none or it is invalid.
pub(crate) fn read(memory: &Memory, index: u16) -> Option<String> {
    Entry::of(memory, usize::from(index))?.read()
}

/// Returns `true` if the entry at `index` is `text`, without allocating.
pub(crate) fn schema_index_matches(memory: &Memory, index: u16, text: &str) -> bool {
    Entry::of(memory, usize::from(index)).is_some_and(|entry| entry.is(text))
}

struct Entry<'m> {
    state: &'m Atom,
    len: &'m Atom,
    text: &'m [Atom],
}

impl<'m> Entry<'m> {
    fn of(memory: &'m Memory, index: usize) -> Option<Self> {
        (index < Layout::SCHEMAS)
            .then(|| Entry::new(memory.schema(index)))
            .flatten()
    }

    /// Returns `None` if the words do not even hold the head.
    fn new(words: &'m [Atom]) -> Option<Self> {
        match words {
            [state, len, text @ ..] => Some(Entry { state, len, text }),
            _ => None,
        }
    }

    /// Returns `true` if this entry is `text` and ready for readers. After `false` it never will
    /// be.
    fn admit(&self, text: &str) -> bool {
        self.admit_as(claim_of(text), text)
    }

    fn admit_as(&self, claimed: u64, text: &str) -> bool {
        // Acquire in both cases: pairs with the Release below, of the participant that set READY.
        let state = match self.state.load(Ordering::Acquire) {
            0 => self
                .state
                .compare_exchange(0, claimed, Ordering::Relaxed, Ordering::Acquire)
                .map_or_else(|now| now, |_| claimed),
            state => state,
        };
        if state & !READY != claimed {
            return false;
        }
        if state & READY != 0 {
            return self.holds(text);
        }
        if !self.fill(text) {
            return false;
        }
        // Release: pairs with the Acquire above. We have seen the final value of every word,
        // whichever helper wrote it, so every participant that sees READY sees them too. The
        // exchange fails only if another participant has set READY; the text is complete in that
        // case as well.
        let ready = claimed | READY;
        match self
            .state
            .compare_exchange(claimed, ready, Ordering::Release, Ordering::Relaxed)
        {
            Ok(_) => true,
            Err(now) => now == ready,
        }
    }

    /// Writes `text`. Returns `false` if a word holds another text; the word then keeps it.
    fn fill(&self, text: &str) -> bool {
        // Relaxed: READY publishes the words. A failed exchange reads a final value.
        let put = |word: &Atom, value| {
            let outcome = word.compare_exchange(0, value, Ordering::Relaxed, Ordering::Relaxed);
            outcome.map_or_else(|now| now == value, |_| true)
        };
        text.len().div_ceil(8) <= self.text.len()
            && put(self.len, text.len() as u64)
            && self
                .text
                .iter()
                .zip(packed(text))
                .all(|(word, value)| put(word, value))
    }

    /// Returns `true` if the words are those of `text`. The caller has acquired READY.
    fn holds(&self, text: &str) -> bool {
        // Relaxed: the words are final since READY, see `admit_as`.
        self.len.load(Ordering::Relaxed) == text.len() as u64
            && text.len().div_ceil(8) <= self.text.len()
            && self
                .text
                .iter()
                .zip(packed(text))
                .all(|(word, value)| word.load(Ordering::Relaxed) == value)
    }

    fn is(&self, text: &str) -> bool {
        // Relaxed: see `read`.
        self.state.load(Ordering::Relaxed) == claim_of(text) | READY && self.holds(text)
    }

    fn read(&self) -> Option<String> {
        // Relaxed: the caller has the index from a descriptor. Its writer had seen READY and the
        // final value of every word before it wrote the descriptor, so the caller sees them too.
        if self.state.load(Ordering::Relaxed) & READY == 0 {
            return None;
        }
        let len = usize::try_from(self.len.load(Ordering::Relaxed)).ok()?;
        let words = self.text.get(..len.div_ceil(8))?;
        let mut bytes: Vec<u8> = words
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
            .collect();
        bytes.truncate(len);
        String::from_utf8(bytes).ok()
    }
}

/// Packs the text into words of eight bytes. No word is zero, because the text has no NUL bytes.
fn packed(text: &str) -> impl Iterator<Item = u64> {
    debug_assert!(!text.is_empty() && !text.contains('\0'));
    text.as_bytes().chunks(8).map(|chunk| {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(bytes)
    })
}

/// Returns word 0 of an entry claimed for `text`: its FNV-1a hash with the READY bit clear; never
/// 0.
///
/// In a model all texts have the same hash, because the race of two texts for one entry is the case
/// to check.
fn claim_of(text: &str) -> u64 {
    if cfg!(loom) {
        return READY << 1;
    }
    match fnv1a(text) & !READY {
        0 => READY << 1,
        claim => claim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "x:f64@0;pos:3*f64@8;size=32;align=8";

    fn words(count: usize) -> Vec<Atom> {
        (0..count).map(|_| Atom::zero()).collect()
    }

    fn entry(words: &[Atom]) -> Entry<'_> {
        Entry::new(words).unwrap()
    }

    #[test]
    fn golden_hash() {
        assert_eq!(claim_of("size=1;align=1"), 0x1038_2a48_d207_5016);
        assert_eq!(MAX_TEXT, 2032, "named by the message in record.rs");
    }

    #[test]
    fn an_entry_admits_one_text_and_is_empty_before() {
        let words = words(8);
        assert_eq!(entry(&words).read(), None);
        assert!(!entry(&words).is(TEXT));
        assert!(entry(&words).admit(TEXT));
        assert!(entry(&words).admit(TEXT), "a second time, it is found");
        assert!(entry(&words).is(TEXT));
        assert_eq!(entry(&words).read().as_deref(), Some(TEXT));
        assert!(!entry(&words).admit("y:u8@0;size=1;align=1"));
        assert!(!entry(&words).is("y:u8@0;size=1;align=1"));
    }

    #[test]
    fn a_claimer_that_died_at_any_word_blocks_nobody() {
        let whole = words(8);
        assert!(entry(&whole).admit(TEXT));
        for written in 0..8 {
            let words = words(8);
            words[0].store(claim_of(TEXT), Ordering::Relaxed);
            for at in 1..=written.min(7) {
                words[at].store(whole[at].load(Ordering::Relaxed), Ordering::Relaxed);
            }
            assert_eq!(
                entry(&words).read(),
                None,
                "not ready after {written} words"
            );
            assert!(entry(&words).admit(TEXT), "after {written} words");
            assert_eq!(entry(&words).read().as_deref(), Some(TEXT));
        }
    }

    #[test]
    fn a_text_of_the_same_hash_is_not_mixed_in() {
        let words = words(8);
        // Another text with our hash got as far as its second word.
        words[0].store(claim_of(TEXT), Ordering::Relaxed);
        words[1].store(TEXT.len() as u64, Ordering::Relaxed);
        words[3].store(u64::from_le_bytes(*b"otherbit"), Ordering::Relaxed);
        assert!(!entry(&words).admit(TEXT));
        assert_eq!(entry(&words).read(), None);
        assert!(!entry(&words).admit(TEXT), "the entry stays unused");
    }

    #[test]
    fn threads_that_enter_at_once_agree() {
        let texts: Vec<String> = (0..4)
            .map(|at| format!("f{at}:u8@0;size=1;align=1"))
            .collect();
        for _ in 0..200 {
            let table: Vec<Vec<Atom>> = (0..4).map(|_| words(8)).collect();
            let index_of = |text: &str| table.iter().position(|words| entry(words).admit(text));
            let found: Vec<Vec<_>> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| scope.spawn(|| texts.iter().map(|text| index_of(text)).collect()))
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            for (text, index) in texts.iter().zip(&found[0]) {
                let index = index.expect("four texts fit in four entries");
                assert_eq!(entry(&table[index]).read().as_deref(), Some(&text[..]));
            }
            assert!(found.iter().all(|indices| *indices == found[0]));
        }
    }

    mod in_a_segment {
        use super::*;
        use crate::element::testing::HeapMemory;

        #[test]
        fn layouts_get_indices_in_turn_until_the_table_is_full() {
            let memory = &*HeapMemory::new();
            let text = |at: usize| format!("f{at}:u8@0;size=1;align=1");
            for at in 0..Layout::SCHEMAS {
                assert_eq!(intern(memory, &text(at)), Ok(at as u16));
            }
            let limit = Layout::SCHEMAS;
            assert_eq!(
                intern(memory, &text(limit)),
                Err(LayoutError::TooMany { limit })
            );
            assert_eq!(
                intern(memory, &text(7)),
                Ok(7),
                "known ones are still found"
            );
            assert_eq!(read(memory, 7), Some(text(7)));
            assert!(schema_index_matches(memory, 7, &text(7)));
            assert!(!schema_index_matches(memory, 8, &text(7)));
            assert!(!schema_index_matches(memory, u16::MAX, &text(7)));
            assert_eq!(read(memory, u16::MAX), None);
        }

        #[test]
        fn the_longest_text_fits_and_a_longer_one_is_refused() {
            let memory = &*HeapMemory::new();
            let longest = "x".repeat(MAX_TEXT);
            assert_eq!(intern(memory, &longest), Ok(0));
            assert_eq!(read(memory, 0), Some(longest));
            let bytes = MAX_TEXT + 1;
            assert_eq!(
                intern(memory, &"x".repeat(bytes)),
                Err(LayoutError::TooLong {
                    bytes,
                    limit: MAX_TEXT
                })
            );
        }
    }

    proptest! {
        #[test]
        fn a_text_round_trips(text in "[^\0]{1,12}") {
            let words = words(HEAD + 6);
            prop_assert!(entry(&words).admit(&text));
            prop_assert_eq!(entry(&words).read(), Some(text));
        }

        #[test]
        fn any_words_are_decoded(bits: [u64; 6], small in 0u64..40, text in "[a-z]{1,40}") {
            let words = words(6);
            for (word, bits) in words.iter().zip(bits) {
                word.store(bits, Ordering::Relaxed);
            }
            for len in [bits[1], small] {
                words[1].store(len, Ordering::Relaxed);
                for state in [bits[0], claim_of(&text) | READY, claim_of(&text), 0] {
                    words[0].store(state, Ordering::Relaxed);
                    if let Some(read) = entry(&words).read() {
                        prop_assert_eq!(read.len() as u64, len);
                    }
                    let known = entry(&words).is(&text);
                    prop_assert!(!known || entry(&words).admit(&text));
                }
            }
        }
    }
}
