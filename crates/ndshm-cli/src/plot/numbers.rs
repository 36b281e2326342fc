//! Reads the numbers of an array, or of a part of it, as `f64`.

use ndarray::{ArrayD, Axis};
use ndshm::Observer;
use ndshm::element::{DType, ScalarType};
use ndshm::inspect::ArrayInfo;

use crate::copy;
use crate::index::Pick;
use crate::output::Failure;
use crate::value::Value;

/// Maximum count of numbers.
const MOST: usize = 10_000_000;

/// Position of the number in an element.
pub struct Field {
    dtype: DType,
    offset: usize,
}

impl Field {
    /// Returns the element itself, or the first number of a record's field.
    pub fn of(dtype: &DType, name: Option<&str>) -> Result<Field, Failure> {
        let whole = |scalar: ScalarType, offset| Field {
            dtype: DType::Scalar(scalar),
            offset,
        };
        match (dtype, name) {
            (DType::Scalar(scalar), None) => Ok(whole(*scalar, 0)),
            (DType::Scalar(_), Some(name)) => Err(Failure::usage(format_args!(
                "--field {name}: the elements are {dtype}, which has no fields"
            ))),
            (DType::Record(layout), name) => {
                let names: Vec<&str> = layout.fields().iter().map(|field| &*field.name).collect();
                let wanted = name.ok_or_else(|| {
                    Failure::usage(format_args!(
                        "the elements are records: choose a field with --field, one of {names:?}"
                    ))
                })?;
                let field = layout.fields().iter().find(|field| *field.name == *wanted);
                let field = field.ok_or_else(|| {
                    Failure::usage(format_args!("no field {wanted:?}; there are {names:?}"))
                })?;
                Ok(whole(field.dtype, field.offset))
            }
            (DType::Opaque(_), _) => Err(Failure::usage(format_args!(
                "the elements are {dtype}, which the tool cannot read as numbers; export the \
                 array, and plot it in numpy"
            ))),
        }
    }

    fn number(&self, element: &[u8]) -> f64 {
        let value = element
            .get(self.offset..)
            .and_then(|bytes| Value::decode(&self.dtype, bytes));
        match value {
            Some(Value::Unsigned(value)) => value as f64,
            Some(Value::Signed(value)) => value as f64,
            Some(Value::F32(value)) => value.into(),
            Some(Value::F64(value)) => value,
            Some(Value::Complex32(value)) => value.re.hypot(value.im).into(),
            Some(Value::Complex64(value)) => value.re.hypot(value.im),
            Some(Value::Bool(value)) => f64::from(u8::from(value)),
            Some(Value::InvalidBool(_) | Value::Opaque(_) | Value::Record(_)) | None => f64::NAN,
        }
    }
}

/// The numbers that were taken.
pub struct Sample {
    /// The numbers, without the axes of single indices.
    pub values: ArrayD<f64>,
    /// Every `step`-th index of the first axis that stays was taken.
    pub step: usize,
}

/// Takes the selected numbers, or every n-th along the first axis if there are too many.
pub fn take(
    observer: &Observer,
    info: &ArrayInfo,
    picks: &[Pick],
    field: &Field,
) -> Result<Sample, Failure> {
    let mut picks = picks.to_vec();
    let count = |picks: &[Pick]| {
        let product = picks
            .iter()
            .try_fold(1usize, |n, pick| n.checked_mul(pick.count));
        product.unwrap_or(usize::MAX)
    };
    let mut step = 1;
    if let Some(first) = picks.iter().position(|pick| pick.kept) {
        let rest = count(&[&picks[..first], &picks[first + 1..]].concat()).max(1);
        let keep = (MOST / rest).max(1);
        if picks[first].count > keep {
            step = picks[first].count.div_ceil(keep);
            picks[first] = picks[first].each(step);
        }
    }
    if count(&picks) > MOST {
        return Err(Failure::usage(format_args!(
            "the slice has more than {MOST} numbers of {:?}, even with one index of the first \
             axis: select fewer with --slice",
            info.shape
        )));
    }
    let shape: Vec<usize> = picks.iter().map(|pick| pick.count).collect();
    let mut values = ArrayD::from_elem(shape, f64::NAN);
    copy::each(observer, info, &picks, |place, element| {
        values[place] = field.number(element);
    })?;
    for axis in (0..picks.len()).rev().filter(|&axis| !picks[axis].kept) {
        values.index_axis_inplace(Axis(axis), 0);
    }
    Ok(Sample { values, step })
}
