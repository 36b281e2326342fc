//! A moment, written as a date and a time of day.

use core::fmt;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
/// Days in 400 years, the period of the calendar.
const DAYS_PER_ERA: u64 = 146_097;
/// Days from 1 March of the year 0 to 1 January 1970.
const DAYS_BEFORE_1970: u64 = 719_468;

/// Seconds since 1970, written as UTC: `2026-11-29 07:12:03 UTC`.
pub(crate) struct Utc(pub(crate) u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.0 / SECONDS_PER_DAY);
        let second = self.0 % SECONDS_PER_DAY;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"
        )
    }
}

/// Returns the year, month and day of the Gregorian calendar, `days` after 1 January 1970.
///
/// Any number of seconds that a `u64` holds gives fewer than 2^48 days, so nothing overflows.
fn date(days: u64) -> (u64, u64, u64) {
    // Start the year in March: then the leap day is the last day of its year.
    let days = days + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let leap_days = day_of_era / 1460 + day_of_era / (DAYS_PER_ERA - 1) - day_of_era / 36_524;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, each five months have 153 days.
    let months_after_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_after_march + 2) / 5 + 1;
    let (month, next_year) = match months_after_march {
        0..10 => (months_after_march + 3, 0),
        _ => (months_after_march - 9, 1),
    };
    (era * 400 + year_of_era + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_written_as_dates() {
        let known = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_000_000_000, "2001-09-09 01:46:40 UTC"),
            (1_709_164_800, "2024-02-29 00:00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (1_735_689_600, "2025-01-01 00:00:00 UTC"),
            (2_147_483_648, "2038-01-19 03:14:08 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (253_402_300_800, "10000-01-01 00:00:00 UTC"),
        ];
        for (seconds, text) in known {
            assert_eq!(Utc(seconds).to_string(), text);
        }
    }

    #[test]
    fn any_number_of_seconds_is_written() {
        assert_eq!(Utc(u64::MAX).to_string(), "584554051223-11-09 07:00:15 UTC");
    }

    #[test]
    fn each_day_of_400_years_follows_the_one_before() {
        let mut before = date(0);
        for days in 1..=DAYS_PER_ERA {
            let (year, month, day) = date(days);
            let next_day = (before.0, before.1, before.2 + 1);
            let next_month = (before.0, before.1 + 1, 1);
            let leap =
                year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
            let length = match before.1 {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = match before {
                (_, _, day) if day < length => next_day,
                (year, 12, _) => (year + 1, 1, 1),
                _ => next_month,
            };
            assert_eq!((year, month, day), expected);
            before = (year, month, day);
        }
    }
}
