//! ndshm itself.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{PipeWriter, Read, Write};
use std::sync::RwLock;
use std::time::{Duration, Instant};

use ndarray::{Array1, Axis, Ix1};
use ndshm::error::{LeaseError, PoolError};
use ndshm::object::Tensor;
use ndshm::{Handle, HandleTable, Pool, Segment};
use ndshm_peers::process::Process;
use ndshm_peers::{
    Outcome, Plan, Subject, each, in_child, mixed, scattered, serve, trial_arguments,
};
use rustix::process::{Pid, Signal};

fn main() {
    let plan = Plan::read();
    match trial_arguments() {
        Some((kind, trials, seed)) => killed(&plan, &kind, seed..seed + trials),
        None => serve(|row| subject(&plan, row)),
    }
}

/// A table that a subject has for the rest of the process.
fn table() -> &'static HandleTable {
    // By default a segment returns this much memory to the system, and `put` would always find
    // fresh pages.
    let segment = Segment::options()
        .retain(8 << 30)
        .anonymous()
        .expect("a segment");
    Box::leak(Box::new(HandleTable::join(&segment).expect("a seat")))
}

fn subject(plan: &Plan, row: &str) -> Result<Subject, String> {
    let table = table();
    let made = move |len: usize| {
        each(move || {
            let x = table.uninit::<f64, _>(len).expect("memory for the bench");
            table.free(x).expect("nobody else frees it");
        })
    };
    match row {
        "share" => Ok(made(plan.large)),
        "create" => Ok(made(plan.small)),
        "open" | "open-view" => {
            let x = table
                .zeros::<f64, _>(plan.large)
                .expect("memory for the bench");
            let is_leased = row == "open";
            Ok(in_child(|| {
                let table = HandleTable::join(table.segment()).expect("a seat");
                if is_leased {
                    each(move || table.read(x).expect("nobody writes")[0])
                } else {
                    each(move || {
                        let attached = table.attach(x).expect("it lives");
                        // SAFETY: nothing writes the array in this bench.
                        let view = unsafe { attached.view_unsynchronized() };
                        view[0]
                    })
                }
            }))
        }
        "tasks" => {
            let x = table.zeros::<f64, _>(2).expect("memory for the bench");
            let tiles = table.partition(x.write(), Axis(0), 1).expect("an axis");
            let mut pool = Pool::fork(table, 2).expect("workers");
            Ok(each(move || {
                pool.for_each(&tiles, &(), |_, _, _| {}).expect("a step")
            }))
        }
        "put" => {
            let arrays = dictionary(plan);
            Ok(each(move || {
                let object = table.put_object(&arrays).expect("memory for the bench");
                table.free(object).expect("nobody else frees it");
            }))
        }
        "get" => {
            let object = table
                .put_object(&dictionary(plan))
                .expect("memory for the bench");
            Ok(each(move || {
                let object = table.open_object(object).expect("it lives");
                let read: HashMap<&str, Tensor<'_, f64, Ix1>> =
                    object.get().expect("the type that was put");
                read.values().map(|array| array.view()[0]).sum::<f64>()
            }))
        }
        "find" => {
            let names: Vec<String> = (0..plan.names).map(|at| format!("array-{at}")).collect();
            for name in &names {
                let x = table.zeros::<f64, _>(4).expect("memory for the bench");
                table.publish(name, x).expect("the name is free");
            }
            let mut next = scattered(names.len());
            Ok(each(move || {
                let x: Handle<f64, Ix1> = table.find(&names[next()]).expect("it is there");
                table.read(x).expect("nobody writes")[0]
            }))
        }
        _ => Err("not measured".to_owned()),
    }
}

fn dictionary(plan: &Plan) -> HashMap<String, Tensor<'static, f64, Ix1>> {
    (0..20)
        .map(|at| {
            (
                format!("array {at}"),
                Array1::from_elem(plan.large, f64::from(at)).into(),
            )
        })
        .collect()
}

const MEGABYTE: usize = (1 << 20) / 8;

fn killed(plan: &Plan, kind: &str, trials: std::ops::Range<u64>) {
    for trial in trials {
        // A named segment, so that a name could stay behind.
        let name = format!("{}-{kind}-{trial}", plan.prefix);
        let table = HandleTable::open_or_create(&name).expect("a segment");
        let mut outcome = match kind {
            "create" => creating(&table, trial),
            "write" => writing(&table, trial),
            "task" => in_a_task(&table, trial),
            _ => panic!("what is {kind}?"),
        };
        table.reap().expect("a seat");
        let own = std::process::id();
        let of_the_dead = table.arrays().filter(|array| array.owner != Some(own));
        outcome.held = Some(of_the_dead.map(|array| array.bytes).sum());
        outcome.print();
    }
}

/// The victim creates, fills and frees arrays. The other one creates, fills and frees one.
fn creating(table: &HandleTable, trial: u64) -> Outcome {
    let make = |table: &HandleTable| {
        let x = table
            .uninit::<f64, _>(MEGABYTE)
            .expect("memory for the bench");
        table.write(x).expect("nobody else has it").fill(1.0);
        table.free(x).expect("nobody else frees it");
    };
    let joined = || HandleTable::join(table.segment()).expect("a seat");
    Outcome::of(
        trial,
        || {
            let table = joined();
            move || make(&table)
        },
        || {
            make(&joined());
            "goes on".to_owned()
        },
    )
}

/// The victim writes an array under a lease. The other one writes it, too.
fn writing(table: &HandleTable, trial: u64) -> Outcome {
    let x = table
        .zeros::<f64, _>(MEGABYTE)
        .expect("memory for the bench");
    let joined = || HandleTable::join(table.segment()).expect("a seat");
    Outcome::of(
        trial,
        || {
            let table = joined();
            move || table.write(x).expect("nobody else has it").fill(1.0)
        },
        || {
            let table = joined();
            loop {
                match table.write(x) {
                    Ok(mut x) => {
                        x.fill(2.0);
                        return "goes on".to_owned();
                    }
                    Err(LeaseError::Busy { .. }) => std::thread::sleep(Duration::from_millis(1)),
                    Err(LeaseError::Poisoned { .. }) => {
                        table
                            .recover(x, |mut x| x.fill(2.0))
                            .expect("nobody else has it");
                        return "is told, and repairs".to_owned();
                    }
                    Err(error) => return error.to_string(),
                }
            }
        },
    )
}

/// Where a worker reports its process when its task begins. Workers inherit it by the fork.
static BEGAN: RwLock<Option<PipeWriter>> = RwLock::new(None);

/// A worker of a pool is killed in its task. The other one is the parent, which waits for the call.
fn in_a_task(table: &HandleTable, trial: u64) -> Outcome {
    let x = table.zeros::<f64, _>(1).expect("memory for the bench");
    let tiles = table.partition(x.write(), Axis(0), 1).expect("an axis");
    let (mut began, begin) = std::io::pipe().expect("a pipe");
    *BEGAN.write().expect("no panic") = Some(begin);
    // The task gives up after 5 s, so the call ends in any case.
    let pool = Pool::builder().workers(2).deadline(Duration::from_secs(5));
    let mut pool = pool.fork(table).expect("workers");
    pool.for_each(&tiles, &(), |_, _, _| {}).expect("a step");
    let mut killer = Process::fork(|| {
        move |micros| {
            let mut pid = [0; 4];
            began.read_exact(&mut pid).expect("a task begins");
            std::thread::sleep(Duration::from_micros(micros));
            let now = ndshm_peers::process::now();
            let pid = Pid::from_raw(i32::from_ne_bytes(pid)).expect("a process");
            rustix::process::kill_process(pid, Signal::KILL).expect("a worker");
            now.as_nanos() as u64
        }
    });
    killer.ask(1_000 + mixed(trial) % 19_000);
    let answer = pool.for_each(&tiles, &(), |mut x, _, _| {
        let pid = std::process::id().to_ne_bytes();
        let begin = BEGAN.read().expect("no panic");
        let mut begin = begin.as_ref().expect("inherited");
        begin.write_all(&pid).expect("the killer reads");
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(4) {
            black_box(&mut x).fill(1.0);
        }
    });
    let ended = ndshm_peers::process::now();
    let took = ended.saturating_sub(Duration::from_nanos(killer.answer()));
    let said = match answer {
        Ok(()) => Some("no error".to_owned()),
        _ if took > Duration::from_secs(1) => None,
        Err(PoolError::WorkerDied { rows, .. }) => {
            table.clear_poison(x).expect("the round has ended");
            pool.for_each(&tiles, &(), |_, _, _| {})
                .expect("a new worker");
            match rows[..] {
                [] => Some("is told".to_owned()),
                [..] => Some("is told the rows".to_owned()),
            }
        }
        Err(error) => Some(error.to_string()),
    };
    Outcome {
        said,
        took,
        held: None,
    }
}
