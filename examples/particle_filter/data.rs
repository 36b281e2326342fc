//! The observations: of the Nile, or from a file.

use std::path::Path;

use crate::Result;

/// Observations at equal intervals.
#[derive(Debug, PartialEq)]
pub struct Series {
    pub name: String,
    /// Time of the first observation, for the axis of the plot.
    pub first: i64,
    pub values: Vec<f64>,
}

/// Annual flow of the Nile at Aswan from 1871 to 1970, in 10^8 cubic metres (G. W. Cobb, "The
/// problem of the Nile", Biometrika 65, 1978; Durbin and Koopman's running example).
#[rustfmt::skip]
const NILE: [u16; 100] = [
    1120, 1160,  963, 1210, 1160, 1160,  813, 1230, 1370, 1140,
     995,  935, 1110,  994, 1020,  960, 1180,  799,  958, 1140,
    1100, 1210, 1150, 1250, 1260, 1220, 1030, 1100,  774,  840,
     874,  694,  940,  833,  701,  916,  692, 1020, 1050,  969,
     831,  726,  456,  824,  702, 1120, 1100,  832,  764,  821,
     768,  845,  864,  862,  698,  845,  744,  796, 1040,  759,
     781,  865,  845,  944,  984,  897,  822, 1010,  771,  676,
     649,  846,  812,  742,  801, 1040,  860,  874,  848,  890,
     744,  749,  838, 1050,  918,  986,  797,  923,  975,  815,
    1020,  906,  901, 1170,  912,  746,  919,  718,  714,  740,
];

impl Series {
    pub fn nile() -> Series {
        Series {
            name: "Nile at Aswan, annual flow in 10^8 m^3".into(),
            first: 1871,
            values: NILE.map(f64::from).to_vec(),
        }
    }

    /// Reads one number per line. Ignores empty lines, and comments from `#` on.
    pub fn read(path: &Path) -> Result<Series> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read the data in {}: {error}", path.display()))?;
        let name = path.file_name().unwrap_or(path.as_os_str());
        Ok(Series {
            name: name.to_string_lossy().into_owned(),
            first: 1,
            values: parse(&text).map_err(|error| format!("{}:{error}", path.display()))?,
        })
    }
}

fn parse(text: &str) -> std::result::Result<Vec<f64>, String> {
    let mut values = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let number = text.split('#').next().unwrap_or_default().trim();
        if number.is_empty() {
            continue;
        }
        match number.parse::<f64>() {
            Ok(value) if value.is_finite() => values.push(value),
            _ => {
                return Err(format!(
                    "{line}: {number:?} is not a finite number; give one observation a line"
                ));
            }
        }
    }
    if values.is_empty() {
        return Err(" there is no observation; give one number a line".into());
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nile_is_complete() {
        let values = Series::nile().values;
        assert_eq!(values.len(), 100);
        // The series has a published mean of 919.35.
        assert_eq!(values.iter().sum::<f64>(), 91_935.0);
    }

    #[test]
    fn comments_and_empty_lines_do_not_count() {
        assert_eq!(
            parse("# flow\n1.5\n\n -2e3 # low\n").unwrap(),
            [1.5, -2000.0]
        );
    }

    #[test]
    fn errors_name_the_line_and_the_text() {
        let error = parse("1\n2\n3,4\n").unwrap_err();
        assert!(error.starts_with("3: \"3,4\""), "{error}");
        assert!(parse("1\nNaN\n").unwrap_err().starts_with("2:"));
        assert!(parse("\n# nothing\n").is_err());
    }
}
