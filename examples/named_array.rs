//! Finds an array that a Python program has named, writes it in place, and names another for that program.
//!
//! ```text
//! >>> import ndshm, numpy as np
//! >>> t = ndshm.open("app")
//! >>> t["x"] = np.ones((4, 3))
//! ```
//!
//! Then `cargo run --example named_array app` doubles `t["x"]`, and `t["sums"]` has the sums of its rows.

use ndarray::{Axis, Ix2};
use ndshm::HandleTable;

fn main() -> ndshm::Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "app".into());
    let table = HandleTable::open(&name)?;
    // The element type and the number of axes are checked.
    let x = table.find::<f64, Ix2>("x")?;
    let sums = {
        let mut x = table.write(x)?;
        *x *= 2.0;
        table.from_array(&x.sum_axis(Axis(1)))?
    };
    // It outlives this program.
    table.detach(sums)?;
    if let Some(before) = table.replace("sums", sums)? {
        table.free(before)?;
    }
    println!("doubled {x}, an array of shape {:?}", table.info(x)?.shape);
    Ok(())
}
