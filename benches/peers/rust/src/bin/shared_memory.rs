//! The crate shared_memory: an object of the system for each array. It has no lock and no pool.

use std::hint::black_box;

use ndshm_peers::{Outcome, Plan, Subject, each, in_child, scattered, serve, trial_arguments};
use shared_memory::{Shmem, ShmemConf};

fn main() {
    let plan = Plan::read();
    if let Some((kind, trials, seed)) = trial_arguments() {
        assert_eq!(kind, "create", "there is no lock to die under");
        for trial in seed..seed + trials {
            killed(&plan, trial).print();
        }
        return;
    }
    serve(|row| subject(&plan, row));
}

fn create(name: &str, bytes: usize) -> Shmem {
    ShmemConf::new()
        .os_id(name)
        .size(bytes)
        .create()
        .expect("a new object")
}

fn first(name: &str) -> f64 {
    let memory = ShmemConf::new().os_id(name).open().expect("it exists");
    // SAFETY: the object has more than 8 bytes, begins at a page, and nothing writes it.
    unsafe { memory.as_ptr().cast::<f64>().read() }
}

fn subject(plan: &Plan, row: &str) -> Result<Subject, String> {
    let name = format!("/{}-{row}", plan.prefix);
    let (large, small) = (plan.large * 8, plan.small * 8);
    match row {
        "share" => Ok(each(move || drop(create(&name, large)))),
        "create" => Ok(each(move || drop(create(&name, small)))),
        "open" => {
            let memory = create(&name, large);
            let mut child = in_child(|| each(move || first(&name)));
            Ok(Box::new(move |times| {
                black_box(&memory);
                child(times)
            }))
        }
        "find" => {
            let names: Vec<String> = (0..plan.names).map(|at| format!("{name}-{at}")).collect();
            let memory: Vec<Shmem> = names.iter().map(|name| create(name, 32)).collect();
            let mut next = scattered(names.len());
            Ok(each(move || {
                black_box(&memory);
                first(&names[next()])
            }))
        }
        _ => Err("the crate has memory, and nothing else".to_owned()),
    }
}

/// The victim makes and fills objects of 1 MB, each with a name of its own. The other one makes one.
fn killed(plan: &Plan, trial: u64) -> Outcome {
    let make = |name: &str| {
        let memory = create(name, 1 << 20);
        // SAFETY: nobody else has an object of this name, which has so many bytes.
        unsafe { memory.as_ptr().write_bytes(1, 1 << 20) };
    };
    Outcome::of(
        trial,
        || {
            let mut at = 0;
            move || {
                at += 1;
                make(&format!("/{}-{trial}-{at}", plan.prefix));
            }
        },
        || {
            make(&format!("/{}-{trial}-other", plan.prefix));
            "goes on".to_owned()
        },
    )
}
