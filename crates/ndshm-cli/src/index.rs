//! numpy's indices: `3`, `1:4,0`, `::2,-1`, `...,0`.

use crate::output::Failure;

/// Maximum number of elements, or of lists of them, that a command prints or selects.
pub const MOST: usize = 1 << 22;

/// The indices that an index expression selects from one axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pick {
    /// The first index.
    pub first: usize,
    /// Distance from each index to the next.
    pub step: isize,
    /// Number of indices.
    pub count: usize,
    /// `true` if the axis stays; a single number removes its axis.
    pub kept: bool,
}

impl Pick {
    fn all(len: usize) -> Pick {
        Pick {
            first: 0,
            step: 1,
            count: len,
            kept: true,
        }
    }

    /// Returns the pick for the one element of an array without axes.
    pub fn one() -> Pick {
        Pick::all(1)
    }

    /// Returns the pick of every `n`-th index of this one.
    pub fn each(self, n: usize) -> Pick {
        Pick {
            step: self.step * n as isize,
            count: self.count.div_ceil(n),
            ..self
        }
    }

    /// Returns the `at`-th selected index.
    pub fn index(&self, at: usize) -> usize {
        // No overflow: the index is within the axis, whose length is at most `isize::MAX`.
        (self.first as isize + self.step * at as isize) as usize
    }
}

/// Returns `true` if nested lists of these lengths are at most [`MOST`]. Lists count also if there
/// are no elements in them.
pub fn fits(lengths: impl IntoIterator<Item = usize>) -> bool {
    lists(lengths).is_some_and(|count| count <= MOST)
}

/// Returns the number of elements, or of lists that have none, in nested lists of these lengths.
/// Returns `None` above `isize::MAX`: there is no array of this shape.
pub fn lists(lengths: impl IntoIterator<Item = usize>) -> Option<usize> {
    let mut lengths = lengths.into_iter().map(|len| len.max(1));
    let count = lengths.try_fold(1usize, usize::checked_mul)?;
    isize::try_from(count).is_ok().then_some(count)
}

/// Parses `text` for an array of this shape. Returns one pick per axis.
pub fn parse(text: &str, shape: &[usize]) -> Result<Vec<Pick>, Failure> {
    if let Some(len) = shape.iter().find(|&&len| isize::try_from(len).is_err()) {
        return Err(Failure::damaged(format_args!(
            "an axis of {shape:?} has {len} indices, and at most {} are possible",
            isize::MAX
        )));
    }
    let text = text.trim();
    let text = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let parts: Vec<&str> = match text.trim() {
        "" => Vec::new(),
        text => text.split(',').map(str::trim).collect(),
    };
    let dots = parts.iter().filter(|part| **part == "...").count();
    let named = parts.len() - dots;
    if dots > 1 || named > shape.len() {
        return Err(Failure::usage(format_args!(
            "the index {text:?} is for {named} axes, and the array has {}: {shape:?}",
            shape.len()
        )));
    }
    // Axes that are not named stay whole: those of the dots, or the last ones.
    let whole = shape.len() - named;
    let mut picks = Vec::with_capacity(shape.len());
    for part in &parts {
        if *part == "..." {
            for _ in 0..whole {
                picks.push(Pick::all(shape[picks.len()]));
            }
        } else {
            let axis = picks.len();
            picks.push(pick(part, axis, shape[axis])?);
        }
    }
    let rest = &shape[picks.len()..];
    picks.extend(rest.iter().map(|&len| Pick::all(len)));
    Ok(picks)
}

fn pick(part: &str, axis: usize, len: usize) -> Result<Pick, Failure> {
    let number = |text: &str| -> Result<Option<i64>, Failure> {
        match text.trim() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Failure::usage(format_args!(
                    "invalid index {part:?}: write a number, or start:stop:step"
                ))
            }),
        }
    };
    let parts: Vec<&str> = part.split(':').collect();
    match parts[..] {
        [one] => match number(one)? {
            Some(at) => single(at, axis, len),
            None => Err(Failure::usage("an empty index: write : for a whole axis")),
        },
        [start, stop] => slice(number(start)?, number(stop)?, 1, len),
        [start, stop, step] => slice(
            number(start)?,
            number(stop)?,
            number(step)?.unwrap_or(1),
            len,
        ),
        _ => Err(Failure::usage(format_args!(
            "invalid index {part:?}: a slice is start:stop:step"
        ))),
    }
}

fn single(at: i64, axis: usize, len: usize) -> Result<Pick, Failure> {
    let from_start = if at < 0 {
        at.checked_add(len as i64)
    } else {
        Some(at)
    };
    match from_start.and_then(|at| usize::try_from(at).ok()) {
        Some(first) if first < len => Ok(Pick {
            first,
            step: 1,
            count: 1,
            kept: false,
        }),
        _ => Err(Failure::usage(format_args!(
            "index {at} is outside axis {axis}, which has {len} indices"
        ))),
    }
}

/// Works like Python's `slice.indices`: bounds beyond the axis are cut to it.
fn slice(start: Option<i64>, stop: Option<i64>, step: i64, len: usize) -> Result<Pick, Failure> {
    if step == 0 {
        return Err(Failure::usage("a slice's step cannot be 0"));
    }
    let len = len as i64;
    let (least, most) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let bound = |bound: Option<i64>, default| match bound {
        None => default,
        Some(at) if at < 0 => at.saturating_add(len).clamp(least, most),
        Some(at) => at.clamp(least, most),
    };
    let (start, stop) = match step > 0 {
        true => (bound(start, least), bound(stop, most)),
        false => (bound(start, most), bound(stop, least)),
    };
    let way = if step > 0 { stop - start } else { start - stop };
    let count = match way {
        ..=0 => 0,
        way => ((way - 1) as u64 / step.unsigned_abs() + 1) as usize,
    };
    Ok(Pick {
        first: if count == 0 { 0 } else { start as usize },
        // A single index needs no step, and the given one may be huge.
        step: if count > 1 { step as isize } else { 1 },
        count,
        kept: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(text: &str, shape: &[usize]) -> Vec<Vec<usize>> {
        let picks = parse(text, shape).unwrap();
        assert_eq!(picks.len(), shape.len());
        let of = |pick: &Pick| (0..pick.count).map(|at| pick.index(at)).collect();
        picks.iter().map(of).collect()
    }

    #[test]
    fn slices_are_numpys() {
        assert_eq!(indices("3", &[5]), [[3]]);
        assert_eq!(indices("-1", &[5]), [[4]]);
        assert_eq!(indices("1:4,0", &[5, 2]), [vec![1, 2, 3], vec![0]]);
        assert_eq!(indices("::2,-1", &[5, 2]), [vec![0, 2, 4], vec![1]]);
        assert_eq!(indices("::-1", &[3]), [[2, 1, 0]]);
        assert_eq!(indices("-2:-9:-1", &[3]), [[1, 0]]);
        assert_eq!(indices("::-2", &[4]), [[3, 1]]);
        assert_eq!(indices("2:99", &[4]), [[2, 3]]);
        assert_eq!(indices("3:1", &[4]), [[0; 0]]);
        assert_eq!(indices("", &[2, 1]), [vec![0, 1], vec![0]]);
        assert_eq!(indices("...,1", &[1, 1, 3]), [[0], [0], [1]]);
        assert_eq!(indices("[0, ...]", &[1, 2]), [vec![0], vec![0, 1]]);
        assert_eq!(indices("::9223372036854775807", &[4]), [[0]]);
        assert_eq!(indices("::-9223372036854775808", &[4]), [[3]]);
        assert_eq!(indices("-9223372036854775808:", &[1]), [[0]]);
        assert_eq!(indices(":", &[0]), [[0; 0]]);
    }

    #[test]
    fn a_number_takes_its_axis_away() {
        let picks = parse("0,:", &[2, 2]).unwrap();
        assert_eq!((picks[0].kept, picks[1].kept), (false, true));
    }

    #[test]
    fn what_is_no_index_is_told() {
        for (text, told) in [
            ("5", "outside axis 0, which has 5"),
            ("-6", "outside axis 0"),
            ("0,0", "for 2 axes, and the array has 1"),
            ("a", "invalid index"),
            ("::0", "cannot be 0"),
            ("1:2:3:4", "start:stop:step"),
            (",", "for 2 axes"),
            ("99999999999999999999", "invalid index"),
            ("-9223372036854775808", "outside"),
        ] {
            let failure = parse(text, &[5]).unwrap_err().to_string();
            assert!(failure.contains(told), "{text}: {failure}");
        }
        assert!(parse("...,...", &[5]).is_err());
        assert!(parse("0:1", &[usize::MAX, 0]).is_err());
        assert!(parse("0", &[]).is_err());
    }
}
