//! Foreign pools: workers that are forked by hand, or are another run of this program, with deaths
//! in every phase.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use ndarray::{Axis, Ix1};
use ndshm::error::{LeaseError, PoolError};
use ndshm::pool::foreign::{Answer, ForeignHandle, ForeignPool, ForeignWorker, WorkerAnswer};
use ndshm::{HandleTable, PartitionHandle, Segment, Write};
use support::{Child, DEADLINE, Name, eventually, table};

/// Environment variable: the segment and the pool of a foreign worker that this program becomes.
const WORKER: &str = "NDSHM_TEST_FOREIGN_WORKER";

const SHORT: Duration = Duration::from_millis(20);

// The numbers of calls.
const ECHO: u64 = 1;
const FAIL: u64 = 2;
const DIE: u64 = 3;
const ANSWER_AND_DIE: u64 = 4;
const HANG: u64 = 5;
const LEAVE: u64 = 6;
const FILL: u64 = 7;
const FILL_AND_DIE: u64 = 8;
const FORK: u64 = 9;
/// Works until it is not wanted any more.
const WORK: u64 = 10;
/// Answers with the number of such calls so far.
const COUNT: u64 = 11;

fn main() {
    if let Ok(order) = std::env::var(WORKER) {
        let (name, bits) = order.split_once(' ').unwrap();
        let table = HandleTable::join(&Segment::open(name).unwrap()).unwrap();
        serve(&table, ForeignHandle::from_bits(bits.parse().unwrap()));
        return;
    }
    support::run_tests![
        workers_answer_each_call,
        another_program_is_a_worker,
        bytes_of_any_length_cross,
        a_round_is_shared,
        a_worker_that_dies_in_a_call_is_reported,
        a_worker_that_dies_at_any_time_is_replaced,
        a_worker_may_leave,
        a_call_is_given_up,
        a_call_is_cancelled,
        a_call_is_announced_again,
        workers_notice_the_end_of_the_pool,
        workers_notice_the_death_of_the_parent,
        forked_copies_do_nothing,
        mistakes_are_errors,
        a_pool_is_not_for_other_uses,
        work_is_counted,
        random_deaths_lose_no_answer,
    ];
}

/// Serves calls until the pool ends.
fn serve(table: &HandleTable, handle: ForeignHandle) {
    let Ok(mut worker) = ForeignWorker::attach(table, handle, None, DEADLINE) else {
        return;
    };
    let mut count = 0u8;
    loop {
        let call = match worker.next(SHORT) {
            Ok(Some(call)) => call,
            Ok(None) => continue,
            Err(error) => {
                assert!(error.is_gone(), "{error}");
                let again = worker.next(SHORT);
                assert!(
                    again.is_err_and(|error| error.is_gone()),
                    "once gone, always gone"
                );
                return;
            }
        };
        match call.number {
            ECHO => worker.finish(&call.bytes).unwrap(),
            FAIL => worker.fail(&call.bytes).unwrap(),
            DIE => support::die(),
            ANSWER_AND_DIE => {
                worker.finish(&call.bytes).unwrap();
                support::die();
            }
            HANG => support::sleep_for_ever(),
            LEAVE => return,
            WORK => {
                while worker.is_wanted() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                worker.finish(b"stopped").unwrap();
                assert!(!worker.is_wanted());
            }
            COUNT => {
                count += 1;
                worker.finish(&[count]).unwrap();
            }
            FILL | FILL_AND_DIE => {
                let number = worker.worker();
                let done = fill(
                    table,
                    &call.bytes,
                    call.number == FILL_AND_DIE && number == 0,
                );
                worker.count_tiles(done, 0);
                worker.finish(&done.to_le_bytes()).unwrap();
            }
            FORK => {
                // The child has a copy of the value.
                let mut worker_or_none = Some(worker);
                let child = Child::fork(|| {
                    let mut worker = worker_or_none.take().unwrap();
                    assert!(matches!(worker.finish(&[]), Err(PoolError::Forked)));
                    assert!(matches!(worker.next(SHORT), Err(PoolError::Forked)));
                });
                child.join();
                worker = worker_or_none.unwrap();
                worker.finish(&call.bytes).unwrap();
            }
            number => panic!("{number}"),
        }
    }
}

/// Adds 1 to each tile of a partition. Returns the number of tiles.
fn fill(table: &HandleTable, bytes: &[u8], dies: bool) -> u64 {
    let bits = u64::from_le_bytes(bytes.try_into().unwrap());
    let tiles = PartitionHandle::<Write<u64, Ix1>>::from_bits(bits);
    let tiles = table.open_partition(tiles).unwrap();
    let mut done = 0;
    if let Some(mut part) = tiles.enter().unwrap() {
        while let Some(mut tile) = part.claim().unwrap() {
            let mut views = tile.views();
            views += 1;
            done += 1;
            if dies {
                support::die();
            }
        }
    }
    done
}

fn start(table: &HandleTable, workers: usize) -> (ForeignPool<&HandleTable>, Vec<Child>) {
    let mut pool = ForeignPool::new(table, workers).unwrap();
    let handle = pool.handle();
    let children = (0..workers).map(|_| fork(table, handle)).collect();
    assert!(pool.wait_for_workers(workers, DEADLINE).unwrap());
    (pool, children)
}

fn fork(table: &HandleTable, handle: ForeignHandle) -> Child {
    Child::fork(|| serve(table, handle))
}

/// Calls, waits, and returns the answers.
fn call(pool: &mut ForeignPool<&HandleTable>, number: u64, bytes: &[u8]) -> Vec<WorkerAnswer> {
    pool.call(number, bytes).unwrap();
    assert!(pool.wait(DEADLINE).unwrap(), "the call does not end");
    pool.end().unwrap()
}

fn outcomes(answers: Vec<WorkerAnswer>) -> Vec<Answer> {
    answers.into_iter().map(|answer| answer.outcome).collect()
}

fn workers_answer_each_call() {
    let table = table();
    let (mut pool, children) = start(&table, 3);
    for round in 0..200u64 {
        let bytes = round.to_le_bytes();
        let answers = call(&mut pool, ECHO, &bytes);
        let pids = pool.pids().unwrap();
        for (at, answer) in answers.iter().enumerate() {
            assert_eq!((answer.worker, Some(answer.pid)), (at, pids[at]));
        }
        assert_eq!(outcomes(answers), vec![Answer::Finished(bytes.to_vec()); 3]);
    }
    assert_eq!(
        outcomes(call(&mut pool, FAIL, b"why")),
        vec![Answer::Failed(b"why".to_vec()); 3]
    );
    drop(pool);
    children.into_iter().for_each(Child::join);
}

fn another_program_is_a_worker() {
    let name = Name::new("foreign");
    let segment = Segment::create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let mut pool = ForeignPool::new(&table, 2).unwrap();
    let order = format!("{} {}", name.0, pool.handle().to_bits());
    let start = || {
        let program = std::env::current_exe().unwrap();
        Command::new(program).env(WORKER, &order).spawn().unwrap()
    };
    let mut programs = [start(), start()];
    assert!(pool.wait_for_workers(2, DEADLINE).unwrap());
    let answers = call(&mut pool, ECHO, b"hello");
    let mut pids: Vec<u32> = answers.iter().map(|answer| answer.pid).collect();
    let mut expected: Vec<u32> = programs.iter().map(|program| program.id()).collect();
    pids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(pids, expected);
    assert_eq!(
        outcomes(answers),
        vec![Answer::Finished(b"hello".to_vec()); 2]
    );
    programs[0].kill().unwrap();
    let answers = outcomes(call(&mut pool, ECHO, b"again"));
    assert!(
        answers.contains(&Answer::Finished(b"again".to_vec())),
        "{answers:?}"
    );
    assert_eq!(pool.deaths(), 1);
    drop(pool);
    let statuses = programs.map(|mut program| program.wait().unwrap());
    assert!(statuses[1].success());
}

fn bytes_of_any_length_cross() {
    let table = table();
    let arrays = table.arrays().count();
    let (mut pool, children) = start(&table, 2);
    for length in [0, 1, 7, 8, 191, 192, 193, 383, 384, 385, 4096, 1_000_003] {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + at / 256) as u8).collect();
        let answers = outcomes(call(&mut pool, ECHO, &bytes));
        assert!(
            answers == vec![Answer::Finished(bytes.clone()); 2],
            "{length}"
        );
        let answers = outcomes(call(&mut pool, FAIL, &bytes));
        assert!(answers == vec![Answer::Failed(bytes); 2], "{length}");
    }
    drop(pool);
    children.into_iter().for_each(Child::join);
    table.reap().unwrap();
    assert_eq!(table.arrays().count(), arrays, "an array is left");
}

fn a_round_is_shared() {
    let table = table();
    let x = table.zeros::<u64, _>(1000).unwrap();
    let (mut pool, children) = start(&table, 2);
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    for _ in 0..20 {
        let round = tiles.begin().unwrap();
        let answers = call(&mut pool, FILL, &tiles.handle().to_bits().to_le_bytes());
        round.finish(DEADLINE).unwrap();
        let done = outcomes(answers).into_iter().map(|answer| match answer {
            Answer::Finished(bytes) => u64::from_le_bytes(bytes.try_into().unwrap()),
            other => panic!("{other:?}"),
        });
        assert_eq!(done.sum::<u64>(), 100);
    }
    // A worker dies in a tile: it is torn, and the other worker does the rest.
    let round = tiles.begin().unwrap();
    let answers = call(
        &mut pool,
        FILL_AND_DIE,
        &tiles.handle().to_bits().to_le_bytes(),
    );
    let ended = round.finish(DEADLINE);
    let died = answers.iter().any(|answer| answer.outcome == Answer::Died);
    assert_eq!(ended.is_err(), died, "{ended:?} {answers:?}");
    assert_eq!(table.read(x).is_err(), died, "a torn tile is poisoned");
    drop((pool, tiles));
    drop(children);
}

fn a_worker_that_dies_in_a_call_is_reported() {
    let table = table();
    for number in [DIE, ANSWER_AND_DIE, HANG] {
        let (mut pool, children) = start(&table, 2);
        let pids = pool.pids().unwrap();
        pool.call(number, b"x").unwrap();
        if number == HANG {
            assert!(!pool.wait(SHORT).unwrap(), "they hang");
            children.into_iter().for_each(Child::kill);
        }
        let start = Instant::now();
        assert!(pool.wait(DEADLINE).unwrap());
        assert!(start.elapsed() < DEADLINE / 2);
        let answers = pool.end().unwrap();
        assert_eq!(answers.len(), 2, "{answers:?}");
        for answer in &answers {
            assert_eq!(pids[answer.worker], Some(answer.pid));
            match number {
                // The answer is there, or the death was noticed first.
                ANSWER_AND_DIE => assert_eq!(answer.outcome, Answer::Finished(b"x".to_vec())),
                _ => assert_eq!(answer.outcome, Answer::Died),
            }
        }
        eventually("both deaths are noticed", || {
            pool.pids().unwrap() == [None, None]
        });
        assert_eq!(pool.deaths(), 2);
        assert!(matches!(
            pool.call(ECHO, b""),
            Err(PoolError::NoWorkers { places: 2 })
        ));
    }
}

fn a_worker_that_dies_at_any_time_is_replaced() {
    let table = table();
    let (mut pool, mut children) = start(&table, 2);
    for turn in 0..20 {
        // While it waits for a call, spinning or asleep.
        std::thread::sleep(Duration::from_micros(100 * turn * turn));
        let child = children.remove(0);
        let pid = child.pid();
        child.kill();
        children.push(fork(&table, pool.handle()));
        eventually("the new worker is there", || {
            let pids = pool.pids().unwrap();
            pids.iter().flatten().count() == 2 && !pids.contains(&Some(pid))
        });
        let answers = outcomes(call(&mut pool, ECHO, &[turn as u8]));
        assert_eq!(answers, vec![Answer::Finished(vec![turn as u8]); 2]);
    }
    assert_eq!(pool.deaths(), 20);
}

fn a_worker_may_leave() {
    let table = table();
    let (mut pool, children) = start(&table, 2);
    assert_eq!(
        outcomes(call(&mut pool, LEAVE, b"")),
        [Answer::Left, Answer::Left]
    );
    children.into_iter().for_each(Child::join);
    assert_eq!((pool.pids().unwrap(), pool.deaths()), (vec![None, None], 0));
}

fn a_call_is_given_up() {
    let table = table();
    let (mut pool, children) = start(&table, 1);
    pool.call(HANG, b"").unwrap();
    assert!(!pool.wait(SHORT).unwrap());
    assert_eq!(outcomes(pool.end().unwrap()), [Answer::Running]);
    assert!(pool.end().unwrap().is_empty() && pool.wait(SHORT).unwrap());
    // The worker is still there, and still hangs in the first call.
    assert_eq!(pool.call(ECHO, b"").unwrap(), 1);
    assert!(!pool.wait(SHORT).unwrap());
    children.into_iter().for_each(Child::kill);
    assert!(pool.wait(DEADLINE).unwrap());
    assert_eq!(outcomes(pool.end().unwrap()), [Answer::Died]);
}

fn a_call_is_cancelled() {
    let table = table();
    let (mut pool, children) = start(&table, 2);
    pool.cancel().unwrap();
    pool.call(WORK, b"").unwrap();
    assert!(!pool.wait(SHORT).unwrap() && !pool.wait_until(SHORT, || false).unwrap());
    pool.cancel().unwrap();
    assert!(pool.wait(DEADLINE).unwrap());
    // A worker that had not begun has no answer.
    for outcome in outcomes(pool.end().unwrap()) {
        let stopped = Answer::Finished(b"stopped".to_vec());
        assert!([stopped, Answer::Running].contains(&outcome));
    }
    assert_eq!(call(&mut pool, ECHO, b"next").len(), 2);
    // Workers that do not stop are waited for, until they die.
    pool.call(HANG, b"").unwrap();
    assert!(!pool.wait(SHORT).unwrap());
    pool.cancel().unwrap();
    assert!(!pool.wait(SHORT).unwrap());
    children.into_iter().for_each(Child::kill);
    assert!(pool.wait(DEADLINE).unwrap());
    assert_eq!(outcomes(pool.end().unwrap()), [Answer::Died, Answer::Died]);
}

fn a_call_is_announced_again() {
    let table = table();
    let (mut pool, children) = start(&table, 1);
    pool.announce().unwrap();
    pool.call(COUNT, b"").unwrap();
    for _ in 0..100 {
        assert!(pool.wait_until(DEADLINE, || false).unwrap());
        pool.announce().unwrap();
    }
    assert!(pool.wait(DEADLINE).unwrap());
    let count = Answer::Finished(vec![101]);
    assert_eq!(outcomes(pool.end().unwrap()), [count]);
    // A failure is reported, though the call is announced again and then cancelled.
    pool.call(FAIL, b"why").unwrap();
    assert!(pool.wait_until(DEADLINE, || false).unwrap());
    pool.announce().unwrap();
    pool.cancel().unwrap();
    assert!(pool.wait(DEADLINE).unwrap());
    let why = Answer::Failed(b"why".to_vec());
    assert_eq!(outcomes(pool.end().unwrap()), [why]);
    // A worker that dies in the second job has died.
    pool.call(COUNT, b"").unwrap();
    assert!(pool.wait_until(DEADLINE, || false).unwrap());
    children.into_iter().for_each(Child::kill);
    pool.announce().unwrap();
    assert!(pool.wait_until(DEADLINE, || false).unwrap());
    assert_eq!(outcomes(pool.end().unwrap()), [Answer::Died]);
}

fn workers_notice_the_end_of_the_pool() {
    let table = table();
    for called in [false, true] {
        let (mut pool, children) = start(&table, 2);
        let handle = pool.handle();
        if called {
            pool.call(ECHO, b"").unwrap();
        }
        drop(pool);
        children.into_iter().for_each(Child::join);
        let late = ForeignWorker::attach(&table, handle, None, Duration::ZERO);
        assert!(late.is_err_and(|error| error.is_gone()));
    }
}

fn workers_notice_the_death_of_the_parent() {
    let table = table();
    for calls in [false, true] {
        let pipe = support::Pipe::new();
        let parent = Child::fork(|| {
            let table = HandleTable::join(table.segment()).unwrap();
            let mut pool = ForeignPool::new(&table, 1).unwrap();
            pipe.send(pool.handle().to_bits());
            assert!(pool.wait_for_workers(1, DEADLINE).unwrap());
            if calls {
                pool.call(ECHO, b"x").unwrap();
            }
            pipe.send(1);
            support::sleep_for_ever();
        });
        let handle = ForeignHandle::from_bits(pipe.receive());
        let mut worker = ForeignWorker::attach(&table, handle, Some(0), DEADLINE).unwrap();
        pipe.receive();
        parent.kill();
        let start = Instant::now();
        let mut seen = 0;
        let error = loop {
            match worker.next(DEADLINE) {
                Ok(Some(call)) => {
                    seen += 1;
                    worker.finish(&call.bytes).unwrap();
                }
                Ok(None) => panic!("the worker hangs"),
                Err(error) => break error,
            }
        };
        assert!(error.is_gone(), "{error}");
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(seen, u64::from(calls));
        drop(worker);
        let late = ForeignWorker::attach(&table, handle, None, DEADLINE);
        assert!(late.is_err_and(|error| error.is_gone()));
    }
}

fn forked_copies_do_nothing() {
    let table = table();
    let (pool, children) = start(&table, 1);
    let mut pool = Some(pool);
    let child = Child::fork(|| {
        let mut pool = pool.take().unwrap();
        assert!(matches!(pool.call(ECHO, b""), Err(PoolError::Forked)));
        assert!(matches!(pool.wait(SHORT), Err(PoolError::Forked)));
        assert!(matches!(pool.end(), Err(PoolError::Forked)));
        assert!(matches!(pool.pids(), Err(PoolError::Forked)));
        assert!(pool.stats().is_empty());
    });
    child.join();
    let mut pool = pool.unwrap();
    // The worker forks, too, and answers itself.
    for number in [FORK, ECHO] {
        assert_eq!(
            outcomes(call(&mut pool, number, b"x")),
            [Answer::Finished(b"x".to_vec())]
        );
    }
    assert_eq!(pool.deaths(), 0);
    drop(pool);
    children.into_iter().for_each(Child::join);
}

fn mistakes_are_errors() {
    let table = table();
    let seats = table.segment().max_seats() as usize;
    for workers in [0, seats, usize::MAX] {
        let pool = ForeignPool::new(&table, workers);
        assert!(matches!(pool, Err(PoolError::Workers { .. })), "{workers}");
    }
    let mut pool = ForeignPool::new(&table, 2).unwrap();
    let attach = |worker| ForeignWorker::attach(&table, pool.handle(), worker, SHORT);
    let error = attach(Some(2)).unwrap_err().to_string();
    assert!(error.contains("place 2 of the 2 places"), "{error}");
    let mut first = attach(Some(1)).unwrap();
    assert_eq!((first.worker(), first.places()), (1, 2));
    let second = attach(None).unwrap();
    assert_eq!(second.worker(), 0);
    let error = attach(None).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the 2 places of this pool are all taken"),
        "{error}"
    );
    assert!(matches!(first.finish(b""), Err(PoolError::NothingToAnswer)));
    assert!(first.next(Duration::ZERO).unwrap().is_none());
    assert_eq!(pool.call(ECHO, b"").unwrap(), 2);
    assert!(matches!(pool.call(ECHO, b""), Err(PoolError::CallOpen)));
    assert!(first.next(SHORT).unwrap().is_some());
    assert!(matches!(first.next(SHORT), Err(PoolError::NotAnswered)));
    // All live in one process, and one has the parent's seat.
    first.finish(b"").unwrap();
    drop(second);
    assert!(pool.wait(DEADLINE).unwrap());
    assert_eq!(
        outcomes(pool.end().unwrap()),
        [Answer::Left, Answer::Finished(vec![])]
    );
}

fn a_pool_is_not_for_other_uses() {
    let table = table();
    let pool = ForeignPool::new(&table, 1).unwrap();
    // No call of a user reaches the words.
    let any = ndshm::AnyHandle::from(pool.handle());
    assert!(matches!(table.free(any), Err(LeaseError::Internal { .. })));
    assert!(table.detach(any).is_err() && table.adopt(any).is_err());
    assert!(table.read_untyped(any).is_err());
    // Handles of other things are refused.
    let x = table.zeros::<u64, _>(1000).unwrap();
    let queue = table.queue::<u64>(64).unwrap();
    let others = [x.to_bits(), queue.handle().to_bits(), 0, u64::MAX];
    for bits in others {
        let handle = ForeignHandle::from_bits(bits);
        assert!(
            ForeignWorker::attach(&table, handle, None, SHORT).is_err(),
            "{bits:x}"
        );
    }
    assert_eq!(table.read(x).unwrap().sum(), 0, "nothing was written");
}

fn work_is_counted() {
    let table = table();
    let x = table.zeros::<u64, _>(100).unwrap();
    let (mut pool, _children) = start(&table, 2);
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    pool.set_profiling(true);
    for _ in 0..3 {
        let round = tiles.begin().unwrap();
        call(&mut pool, FILL, &tiles.handle().to_bits().to_le_bytes());
        round.finish(DEADLINE).unwrap();
    }
    let stats = pool.stats();
    assert_eq!(stats.iter().map(|worker| worker.tiles).sum::<u64>(), 30);
    for worker in &stats {
        assert_eq!(worker.calls, 3);
        assert!(
            worker.busy > Duration::ZERO && worker.pid.is_some(),
            "{worker}"
        );
    }
}

/// Workers are killed at random moments, and are replaced. Each answer is the worker's own, and
/// each call has one for each worker that was there.
fn random_deaths_lose_no_answer() {
    let table = table();
    let (mut pool, mut children) = start(&table, 3);
    let mut finished = 0;
    for turn in 0..300u64 {
        let expected = pool.call(ECHO, &turn.to_le_bytes()).unwrap();
        if turn % 3 == 0 {
            let pause = Duration::from_nanos(turn * 977 % 100_000);
            let start = Instant::now();
            while start.elapsed() < pause {}
            children.remove(0).kill();
            children.push(fork(&table, pool.handle()));
        }
        assert!(pool.wait(DEADLINE).unwrap(), "turn {turn}");
        let answers = pool.end().unwrap();
        assert!(answers.len() >= expected, "{answers:?} in turn {turn}");
        for answer in answers {
            match answer.outcome {
                Answer::Finished(bytes) => {
                    assert_eq!(bytes, turn.to_le_bytes());
                    finished += 1;
                }
                Answer::Died => {}
                other => panic!("{other:?} in turn {turn}"),
            }
        }
        eventually("three workers are there", || {
            pool.pids().unwrap().iter().flatten().count() == 3
        });
    }
    assert_eq!(pool.deaths(), 100);
    // Each death costs at most the answer of the dead.
    assert!(finished >= 800, "{finished}");
}
