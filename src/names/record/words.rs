//! The words of a record, one by one, and words that are not a record.

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn mover(seat: u64, epoch: u64) -> Renamer {
    Renamer {
        seat: SeatId::from_field(seat),
        epoch,
    }
}

fn value(bits: u64, pid: u32) -> Value {
    Value {
        handle: AnyHandle::from_bits(bits),
        pid,
        arrival: None,
    }
}

/// Returns a name, an arrival and a departure.
fn contents() -> Contents {
    let arrival = Arrival {
        id: BucketWord::from_bits(7),
        from: BucketIndex::new(8),
        seen: BucketWord::from_bits(9),
        place: 10,
        mover: mover(11, 12),
    };
    let arriving = Value {
        arrival: Some(arrival),
        ..value(6, 4)
    };
    let departure = Departure {
        id: BucketWord::from_bits(13),
        to: BucketIndex::new(14),
        mover: mover(15, 16),
    };
    Contents {
        names: vec![(name("ab"), value(5, 3)), (name("ninebytes"), arriving)],
        departures: vec![departure],
    }
}

fn golden() -> Vec<u64> {
    vec![
        2 | 1 << 16 | 15 << 32,
        2 | 3 << 32,
        5,
        u64::from_le_bytes(*b"ab\0\0\0\0\0\0"),
        9 | 1 << 8 | 4 << 32,
        6,
        7,
        9,
        8 | 10 << 32 | 11 << 48,
        12,
        u64::from_le_bytes(*b"ninebyte"),
        u64::from(b's'),
        13,
        14 | 15 << 48,
        16,
    ]
}

fn decoded(words: &[u64]) -> Option<Contents> {
    Contents::decode(|at| words.get(at).copied())
}

fn found(words: &[u64], text: &str) -> Option<Option<Value>> {
    find(|at| words.get(at).copied(), &name(text))
}

#[test]
fn golden_words() {
    let contents = contents();
    let mut words = Vec::new();
    contents.encode(|word| words.push(word));
    assert_eq!(words, golden());
    assert_eq!(contents.words(), Some(15));
    assert_eq!(decoded(&words), Some(contents));
    // Words behind a record are not read.
    words.push(u64::MAX);
    assert!(decoded(&words).is_some());
}

#[test]
fn a_name_is_found_by_all_of_its_text() {
    let (words, contents) = (golden(), contents());
    for (name, value) in &contents.names {
        assert_eq!(found(&words, &name.text()), Some(Some(*value)));
    }
    for other in ["a", "ac", "abc", "ab\0", "ninebyte", "ninebytez", "other"] {
        assert_eq!(found(&words, other), Some(None), "{other}");
    }
    assert_eq!(contents.position(&name("ninebytes")), Some(1));
    assert_eq!(contents.position(&name("nine")), None);
    assert_eq!(found(&[], "ab"), None);
}

#[test]
fn the_entry_of_an_only_short_name_is_a_record_by_itself() {
    let one = |text: &str| Contents {
        names: vec![(name(text), value(5, 3))],
        departures: vec![],
    };
    for text in ["a", "ab", "ninebytes", "twenty-four bytes, or so"] {
        let record = of_entry(|at| one(text).only_entry()[at]).unwrap();
        assert_eq!(decoded(&record), Some(one(text)), "{text}");
        let mut words = Vec::new();
        one(text).encode(|word| words.push(word));
        assert_eq!(record[..words.len()], words);
        assert_eq!(record[words.len()..], [0; 6][words.len()..]);
    }
    let all = contents();
    let arriving = Contents {
        names: vec![(name("a"), all.names[1].1)],
        departures: vec![],
    };
    let departed = Contents {
        names: vec![],
        departures: all.departures.clone(),
    };
    let both = Contents {
        departures: all.departures.clone(),
        ..one("a")
    };
    let long = one("twenty-five bytes, or more");
    for contents in [all, arriving, departed, both, long, Contents::default()] {
        assert_eq!(contents.only_entry(), [0; 5], "{contents:?}");
    }
}

#[test]
fn words_that_are_no_entry_of_an_only_short_name_are_refused() {
    let head = |length: u64, arriving: u64| ARRIVING.set(LENGTH.set(0, length), arriving);
    let of = |head: u64| of_entry(|at| [head, 5, 0, 0, 0][at]);
    assert!(of(head(24, 0)).is_some());
    for damaged in [head(0, 0), head(25, 0), head(255, 0), head(1, 1), 0] {
        assert_eq!(of(damaged), None);
    }
}

#[test]
fn a_name_prints_as_its_text() {
    assert_eq!(format!("{:?}", name("ab")), "\"ab\"");
}

/// Changes one word of a record, and checks that it is refused.
#[track_caller]
fn assert_refused(at: usize, change: impl FnOnce(u64) -> u64) {
    let mut words = golden();
    words[at] = change(words[at]);
    assert_eq!(decoded(&words), None);
}

#[test]
fn words_that_no_participant_writes_are_of_no_record() {
    // The counts of names and departures must match the words.
    assert_refused(0, |head| head - 1);
    assert_refused(0, |head| head + 1);
    assert_refused(0, |head| head - (1 << 16));
    assert_refused(0, |head| head + (1 << 16));
    // The number of words must match.
    assert_refused(0, |head| head - (1 << 32));
    assert_refused(0, |head| head + (1 << 32));
    // A name without a text, spare bits, a byte behind the text, invalid UTF-8.
    assert_refused(1, |head| head - 2);
    assert_refused(1, |head| head | 1 << 9);
    assert_refused(3, |text| text | 1 << 16);
    assert_refused(3, |text| text | 0x80);
    assert_refused(11, |text| text | 1 << 8);
    // Spare bits of an arrival and of a departure, and a place in a departure.
    assert_refused(8, |lead| lead | 1 << 60);
    assert_refused(13, |lead| lead | 1 << 60);
    assert_refused(13, |lead| lead | 1 << 32);
    // A name without a text, in a record that is just as long.
    assert_eq!(decoded(&[1 | 3 << 32, 3 << 32, 5]), None);
    assert_eq!(found(&[1 | 3 << 32, 3 << 32, 5], "ab"), None);
    // Missing words.
    for len in 0..15 {
        assert_eq!(decoded(&golden()[..len]), None);
    }
}

#[test]
fn a_search_ends_at_words_of_no_record() {
    let mut words = golden();
    words[1] = 0;
    assert_eq!(found(&words, "ninebytes"), None);
    // The text of the last name would lie beyond the end.
    let mut words = golden();
    words[0] = 2 | 11 << 32;
    assert_eq!(found(&words, "other"), None);
    assert!(found(&words, "ab").unwrap().is_some());
    words[0] = 2 | 12 << 32;
    assert_eq!(found(&words, "other"), Some(None));
}

#[test]
fn a_record_is_empty_without_names_and_traces() {
    assert!(Contents::default().is_empty());
    let of = |names, traces| {
        let mut contents = contents();
        contents.names.truncate(names);
        contents.departures.truncate(traces);
        contents
    };
    assert!(!of(1, 0).is_empty() && !of(0, 1).is_empty());
    assert_eq!(of(0, 0).words(), Some(1));
    assert_eq!(of(1, 0).words(), Some(4));
    assert_eq!(of(0, 1).words(), Some(4));
}

#[test]
fn a_record_counts_up_to_65535_names_and_traces() {
    let (names, departures) = (contents().names, contents().departures);
    let many = |of_names: usize, of_traces: usize| Contents {
        names: vec![names[0]; of_names],
        departures: vec![departures[0]; of_traces],
    };
    assert_eq!(many(0xffff, 0xffff).words(), Some(1 + 6 * 0xffff));
    assert_eq!(many(0x1_0000, 0).words(), None);
    assert_eq!(many(0, 0x1_0000).words(), None);
}

#[test]
fn no_word_behind_a_record_is_read() {
    for end in 1..=15 {
        let mut words = golden();
        words[0] = 2 | 1 << 16 | end << 32;
        let get = |at: usize| {
            assert!(at < end as usize, "word {at} of {end}");
            Some(words[at])
        };
        assert_eq!(Contents::decode(get).is_some(), end == 15);
        let found = find(get, &name("other"));
        assert_eq!(found, (end >= 12).then_some(None));
    }
}
