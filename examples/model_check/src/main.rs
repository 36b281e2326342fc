//! Runs the simulation on forked workers.

/// Does nothing: a model has neither forks nor shared mappings, and uses only the library.
#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use model_check::{divide, heat, two_steps};
    use ndarray::Axis;
    use ndshm::{HandleTable, Pool, Segment};

    let table = HandleTable::join(&Segment::anonymous()?)?;
    let rod = table.from_shape_fn(100_000, |at| if at < 1_000 { 1.0f32 } else { 0.0 })?;
    let other = table.zeros::<f32, _>(100_000)?;
    let there = divide(&table, other, rod, 4_096)?;
    let back = divide(&table, rod, other, 4_096)?;
    let all = table.partition(rod.read(), Axis(0), 4_096)?;
    let mut pool = Pool::fork(&table, 2)?;
    for _ in 0..500 {
        two_steps(&mut pool, &there, &back, 0.25)?;
    }
    println!("heat after 1,000 steps: {}", heat(&mut pool, &all)?);
    println!("at the edge: {:.3}", table.read(rod)?[1_000]);
    Ok(())
}
