//! Two processes, one array: the program starts itself again and passes a handle to the child.

use ndarray::Ix2;
use ndshm::{Handle, HandleTable};

fn main() -> ndshm::Result<()> {
    let table = HandleTable::open_or_create("two_processes")?;
    if let Some(handle) = std::env::args().nth(1) {
        let x: Handle<f64, Ix2> = handle.parse()?; // the other process has 8 bytes ...
        table.write(x)?.row_mut(1).fill(1.5); // ... and writes the very array
    } else {
        let x = table.zeros::<f64, _>((3, 4))?;
        let program = std::env::current_exe().expect("a program knows where it is");
        let mut other = std::process::Command::new(program);
        other.arg(x.to_string()).status().expect("it starts again");
        println!("{}", table.read(x)?);
    }
    Ok(())
}
