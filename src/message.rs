//! Parts of the texts of errors.

mod utc;

use core::fmt;
use core::ops::Range;

pub(crate) use utc::Utc;

/// Implements `Debug` by the text of `Display`.
///
/// Rust prints the `Debug` form of an error that `main` returns, or that meets an `unwrap`. Its
/// reader needs the values, the limit and the remedy, not the name of a variant.
macro_rules! debug_is_display {
    ($($error:ty),+) => {$(
        impl core::fmt::Debug for $error {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        }
    )+};
}
pub(crate) use debug_is_display;

/// A number of bytes, written in a suitable unit, as in the texts of errors. The number is rounded
/// down. The alternate form adds the exact number where the unit rounds.
///
/// ```
/// use ndshm::inspect::Bytes;
///
/// assert_eq!(Bytes(1536 << 10).to_string(), "1.5 MiB");
/// assert_eq!(format!("{:#}", Bytes((1 << 20) + 1)), "1 MiB (1048577 bytes)");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} bytes", self.0);
        }
        let power = self.0.ilog2() / 10;
        let unit = UNITS[power as usize - 1];
        let shift = power * 10;
        // Round down: a message must not overstate a limit.
        let tenths = ((self.0 >> (shift - 10)) * 10) >> 10;
        match tenths % 10 {
            0 => write!(f, "{} {unit}", tenths / 10)?,
            tenth => write!(f, "{}.{tenth} {unit}", tenths / 10)?,
        }
        let exact = u128::from(self.0) * 10 == u128::from(tenths) << shift;
        match f.alternate() && !exact {
            true => write!(f, " ({} bytes)", self.0),
            false => Ok(()),
        }
    }
}

/// A name of the array behind a handle, if it has one: ` ("weights")`.
pub(crate) struct Called<'e>(pub(crate) &'e Option<String>);

impl fmt::Display for Called<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, " ({name:?})"),
            None => Ok(()),
        }
    }
}

/// Rows of tiles: `rows 10..20, 40..50, 60..70 and 3 more ranges`.
pub(crate) struct Rows<'e>(pub(crate) &'e [Range<usize>]);

impl fmt::Display for Rows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMED: usize = 3;
        f.write_str("rows ")?;
        for (at, rows) in self.0.iter().take(NAMED).enumerate() {
            let between = if at == 0 { "" } else { ", " };
            write!(f, "{between}{rows:?}")?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            1 => f.write_str(" and 1 more range"),
            more => write!(f, " and {more} more ranges"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_rows_are_cut_short() {
        let said = |count: usize| {
            let rows: Vec<_> = (0..count).map(|at| at * 10..at * 10 + 5).collect();
            Rows(&rows).to_string()
        };
        assert_eq!(said(1), "rows 0..5");
        assert_eq!(said(3), "rows 0..5, 10..15, 20..25");
        assert_eq!(said(4), "rows 0..5, 10..15, 20..25 and 1 more range");
        assert_eq!(said(9), "rows 0..5, 10..15, 20..25 and 6 more ranges");
    }

    #[test]
    fn bytes_are_written_in_their_unit() {
        let written = [
            0,
            1023,
            1024,
            1536,
            64 << 20,
            (512 << 20) + 1,
            16 << 40,
            u64::MAX,
        ];
        assert_eq!(
            written.map(|bytes| Bytes(bytes).to_string()),
            [
                "0 bytes",
                "1023 bytes",
                "1 KiB",
                "1.5 KiB",
                "64 MiB",
                "512 MiB",
                "16 TiB",
                "15.9 EiB"
            ]
        );
    }

    #[test]
    fn the_alternate_form_adds_the_exact_number_where_the_unit_rounds() {
        let written = [1023, 1024, 1536, 1537, 192 << 40, (192 << 40) + 1, u64::MAX];
        assert_eq!(
            written.map(|bytes| format!("{:#}", Bytes(bytes))),
            [
                "1023 bytes",
                "1 KiB",
                "1.5 KiB",
                "1.5 KiB (1537 bytes)",
                "192 TiB",
                "192 TiB (211106232532993 bytes)",
                "15.9 EiB (18446744073709551615 bytes)"
            ]
        );
    }
}
