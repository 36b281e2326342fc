//! Queues between processes: each job is delivered once, whichever process is killed, and no
//! process hangs.

mod support;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ndarray::Ix1;
use ndshm::queue::OwnedArray;
use ndshm::{Handle, HandleTable, Queue, QueueHandle};
use support::{Child, DEADLINE, Pipe, table};

fn main() {
    support::run_tests![
        each_job_is_delivered_once,
        killed_consumers_lose_at_most_the_job_that_they_popped,
        killed_consumers_lose_no_job_that_they_had_not_acknowledged,
        a_waiting_consumer_gets_the_job_of_a_killed_one,
        a_forked_child_does_not_acknowledge,
        a_stopped_process_does_not_block_others,
        a_queue_that_crosses_a_fork_is_leased_anew,
        a_job_outlives_its_producer,
        a_handle_whose_producer_has_left_names_the_remedy,
        an_owned_array_outlives_its_producer,
        arrays_in_the_queue_of_a_dead_owner_are_freed,
        the_death_of_its_owner_closes_a_queue_for_those_that_wait,
        arrays_of_killed_participants_do_not_leak,
    ];
}

/// A job: its producer, its number, and the combination of both, which reveals torn jobs.
type Job = [u64; 3];

fn job(producer: u64, number: u64) -> Job {
    [producer, number, !(producer << 32 | number)]
}

#[track_caller]
fn assert_whole(job: Job) {
    assert_eq!(job, self::job(job[0], job[1]), "a torn job");
}

fn open(table: &HandleTable, name: QueueHandle<Job>) -> Queue<'_, Job> {
    table.open_queue(name).unwrap()
}

/// Runs four producers and four consumers: each job is delivered once, and each consumer sees the
/// jobs of each producer in their order.
fn each_job_is_delivered_once() {
    const PRODUCERS: u64 = 4;
    const EACH: u64 = 25_000;
    for capacity in [4, 256] {
        let table = table();
        let queue = table.queue::<Job>(capacity).unwrap();
        let name = queue.handle();
        // The number of deliveries of each job; each consumer has a row.
        let seen: [Handle<u8, Ix1>; 4] =
            [(); 4].map(|()| table.zeros((PRODUCERS * EACH) as usize).unwrap());
        let consumers = seen.map(|seen| {
            Child::fork(|| {
                let queue = open(&table, name);
                let mut seen = table.write(seen).unwrap();
                let mut last = [None; PRODUCERS as usize];
                while let Some(job) = queue.pop_timeout(DEADLINE).unwrap() {
                    assert_whole(job);
                    let last = &mut last[job[0] as usize];
                    assert!(last.is_none_or(|last| last < job[1]), "out of order");
                    *last = Some(job[1]);
                    seen[(job[0] * EACH + job[1]) as usize] += 1;
                }
                assert!(queue.is_drained(), "no job came in time");
            })
        });
        let producers: Vec<Child> = (0..PRODUCERS)
            .map(|producer| {
                Child::fork(|| {
                    let queue = open(&table, name);
                    for number in 0..EACH {
                        queue.push_timeout(job(producer, number), DEADLINE).unwrap();
                    }
                })
            })
            .collect();
        producers.into_iter().for_each(Child::join);
        queue.close();
        consumers.into_iter().for_each(Child::join);
        let total = seen
            .iter()
            .fold(None, |total: Option<ndarray::Array1<u8>>, &seen| {
                let seen = table.read(seen).unwrap().to_owned();
                Some(total.map_or(seen.clone(), |total| total + seen))
            });
        assert!(total.unwrap().iter().all(|&times| times == 1));
        assert_eq!(queue.pop().unwrap(), None);
    }
}

/// Kills producers and consumers at work, a hundred times. Each job that a producer has noted as
/// pushed was delivered, except for at most one per killed consumer. No job is delivered twice.
fn killed_consumers_lose_at_most_the_job_that_they_popped() {
    const ROUNDS: u64 = 100;
    const MOST: u64 = 200_000;
    let table = table();
    let queue = table.queue::<Job>(8).unwrap();
    let name = queue.handle();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut lost = 0;
    let mut delivered = 0;
    for round in 0..ROUNDS {
        // Word 0 counts the jobs after their push has returned. Jobs beyond the largest number are
        // not counted.
        let pushed: [Handle<u64, Ix1>; 2] = [(); 2].map(|()| table.zeros(1).unwrap());
        let seen: [Handle<u8, Ix1>; 2] = [(); 2].map(|()| table.zeros(2 * MOST as usize).unwrap());
        let mut producers: Vec<Child> = (0..2)
            .map(|producer| {
                Child::fork(|| {
                    let queue = open(&table, name);
                    let mut pushed = table.write(pushed[producer]).unwrap();
                    for number in 0..MOST {
                        queue
                            .push_timeout(job(producer as u64, number), DEADLINE)
                            .unwrap();
                        pushed[0] = number + 1;
                    }
                })
            })
            .collect();
        let mut consumers: Vec<Child> = seen
            .iter()
            .map(|&seen| {
                Child::fork(|| {
                    let queue = open(&table, name);
                    let mut seen = table.write(seen).unwrap();
                    while let Some(job) = queue.pop_timeout(DEADLINE).unwrap() {
                        assert_whole(job);
                        seen[(job[0] * MOST + job[1]) as usize] += 1;
                    }
                })
            })
            .collect();
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        std::thread::sleep(Duration::from_micros(3000 + next() % 3000));
        // Kill one of each at different moments. The others go on.
        consumers.swap_remove((next() % 2) as usize).kill();
        std::thread::sleep(Duration::from_micros(next() % 1000));
        producers.swap_remove((next() % 2) as usize).kill();
        std::thread::sleep(Duration::from_micros(next() % 1000));
        producers.pop().unwrap().kill();
        table.reap().unwrap();
        // There are no more pushes: the last consumer drains the queue.
        let start = Instant::now();
        while !queue.is_empty() {
            assert!(start.elapsed() < DEADLINE, "the last consumer hangs");
            std::thread::sleep(Duration::from_micros(200));
        }
        // The consumer is idle and sleeps now: this kill loses nothing.
        std::thread::sleep(Duration::from_millis(2));
        consumers.pop().unwrap().kill();
        let report = table.reap().unwrap();
        assert_eq!(report.jobs, 0, "a sleeper takes nothing");
        for array in pushed {
            // The call fails if the process was killed before it wrote anything.
            let _ = table.clear_poison(array);
        }
        let seen = seen.map(|handle| {
            let _ = table.clear_poison(handle);
            let seen = table.read(handle).unwrap().to_owned();
            table.free(handle).unwrap();
            seen
        });
        // A killed process may have popped a job without noting it.
        let mut missing = 0;
        for (producer, &pushed) in pushed.iter().enumerate() {
            let count = table.read(pushed).unwrap()[0];
            for number in 0..MOST {
                let at = (producer as u64 * MOST + number) as usize;
                let times = seen[0][at] + seen[1][at];
                assert!(
                    times <= 1,
                    "round {round}: {producer}'s job {number} was delivered twice"
                );
                match number.cmp(&count) {
                    std::cmp::Ordering::Less => missing += u64::from(times == 0),
                    // The job was pushed, but its producer was killed before noting it.
                    std::cmp::Ordering::Equal => {}
                    std::cmp::Ordering::Greater => assert_eq!(times, 0, "never pushed"),
                }
            }
        }
        assert!(missing <= 1, "round {round}: {missing} jobs are lost");
        lost += missing;
        delivered += seen.iter().flatten().filter(|&&times| times > 0).count();
        for array in pushed {
            table.free(array).unwrap();
        }
    }
    assert!(delivered > 1000, "too few jobs were delivered");
    // All cells are available.
    for number in 0..8 {
        queue.push(job(0, number)).unwrap();
    }
    assert!(queue.push(job(0, 9)).unwrap_err().is_full());
    println!("{delivered} jobs delivered, {lost} popped by the dead");
}

/// Kills consumers at random while they work. Each notes a job before it acknowledges it: each job is
/// noted, by several consumers only if one of them was killed. A job that was acknowledged is not
/// delivered again.
fn killed_consumers_lose_no_job_that_they_had_not_acknowledged() {
    const JOBS: u64 = 2_000;
    const CONSUMERS: usize = 3;
    const KILLS: u64 = 60;
    let table = table();
    let queue = table.queue::<Job>(8).unwrap();
    let name = queue.handle();
    // Each life of a consumer has a row: 1 for a job that it got, 2 for one that it acknowledged.
    let row = || table.zeros::<u8, _>(JOBS as usize).unwrap();
    let start = |seen: Handle<u8, Ix1>| {
        Child::fork(|| {
            let queue = open(&table, name);
            let mut seen = table.write(seen).unwrap();
            while let Some(job) = queue.pop_with_ack_timeout(DEADLINE).unwrap() {
                assert_whole(*job);
                let at = job[1] as usize;
                seen[at] = 1;
                // At work most of the time, so that kills hit consumers with a job.
                std::thread::sleep(Duration::from_micros(200));
                job.ack().unwrap();
                seen[at] = 2;
            }
            assert!(queue.is_drained(), "no job came in time");
        })
    };
    let producer = Child::fork(|| {
        let queue = open(&table, name);
        for number in 0..JOBS {
            queue.push_timeout(job(0, number), DEADLINE).unwrap();
        }
        queue.close();
    });
    let mut rows = Vec::new();
    let mut begin = || {
        let row = row();
        rows.push(row);
        start(row)
    };
    let mut consumers: Vec<Child> = (0..CONSUMERS).map(|_| begin()).collect();
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..KILLS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(random % 4000));
        let victim = (random >> 32) as usize % CONSUMERS;
        // Nobody reaps but the consumers that wait, and this process in its own allocations.
        consumers.swap_remove(victim).kill();
        consumers.push(begin());
    }
    producer.join();
    consumers.into_iter().for_each(Child::join);
    table.reap().unwrap();
    assert!(queue.is_drained());
    let (mut delivered, mut acknowledged) = (vec![0u64; JOBS as usize], vec![0; JOBS as usize]);
    for &row in &rows {
        let _ = table.clear_poison(row);
        for (at, &noted) in table.read(row).unwrap().iter().enumerate() {
            delivered[at] += u64::from(noted > 0);
            acknowledged[at] += u64::from(noted == 2);
        }
    }
    assert!(delivered.iter().all(|&times| times >= 1), "a job is lost");
    assert!(acknowledged.iter().all(|&times| times <= 1), "done twice");
    let again: u64 = delivered.iter().map(|times| times - 1).sum();
    assert!(
        (1..=KILLS).contains(&again),
        "{again} jobs of {KILLS} victims"
    );
    println!("{JOBS} jobs, {KILLS} consumers killed, {again} jobs delivered again");
    // All cells are available.
    assert!(queue.is_empty() && table.verify().unwrap().is_clean());
}

/// Kills a consumer that has a job, without a pool and without a call that reaps: another consumer
/// that waits gets the job, also from a closed queue.
fn a_waiting_consumer_gets_the_job_of_a_killed_one() {
    let table = table();
    for close in [false, true] {
        let queue = table.queue::<Job>(2).unwrap();
        queue.push(job(1, 1)).unwrap();
        let pipe = Pipe::new();
        let victim = Child::fork(|| {
            let queue = open(&table, queue.handle());
            let job = queue.pop_with_ack().unwrap().unwrap();
            pipe.send(job[1]);
            support::sleep_for_ever();
        });
        assert_eq!(pipe.receive(), 1);
        if close {
            queue.close();
        }
        assert!(!queue.is_drained() && queue.is_empty());
        let waiting = Child::fork(|| {
            let queue = open(&table, queue.handle());
            let found = queue.pop_with_ack_timeout(DEADLINE).unwrap().unwrap();
            assert_eq!((*found, found.deliveries()), (job(1, 1), 2));
            found.ack().unwrap();
        });
        std::thread::sleep(Duration::from_millis(5));
        victim.kill();
        waiting.join();
        assert_eq!(queue.is_drained(), close);
    }
}

fn a_forked_child_does_not_acknowledge() {
    let table = table();
    let queue = table.queue::<Job>(2).unwrap();
    queue.push(job(1, 1)).unwrap();
    let mut held = Some(queue.pop_with_ack().unwrap().unwrap());
    Child::fork(|| {
        let error = held.take().unwrap().ack().unwrap_err();
        assert!(error.to_string().contains("forked child"), "{error}");
    })
    .join();
    Child::fork(|| assert!(held.take().unwrap().give_back().is_err())).join();
    Child::fork(|| drop(held.take())).join();
    assert!(
        queue.pop().unwrap().is_none(),
        "it is bound to this process"
    );
    held.take().unwrap().give_back().unwrap();
    assert_eq!(queue.pop().unwrap(), Some(job(1, 1)));
}

/// Stops processes at arbitrary points: the others go on without them.
fn a_stopped_process_does_not_block_others() {
    let table = table();
    let queue = table.queue::<Job>(64).unwrap();
    let name = queue.handle();
    let busy = |producer: u64| {
        Child::fork(|| {
            let queue = open(&table, name);
            for number in 0.. {
                queue.push_timeout(job(producer, number), DEADLINE).unwrap();
                queue.pop_timeout(DEADLINE).unwrap();
            }
        })
    };
    for attempt in 0..20 {
        let stopped = [busy(0), busy(1)];
        std::thread::sleep(Duration::from_micros(2000 + attempt * 137));
        for child in &stopped {
            child.signal(libc::SIGSTOP);
        }
        let start = Instant::now();
        for number in 0..10_000 {
            queue.push(job(2, number)).unwrap();
            let popped = queue.pop().unwrap().expect("a job was there");
            assert_whole(popped);
        }
        assert!(start.elapsed() < DEADLINE);
        while queue.pop().unwrap().is_some() {}
        stopped.into_iter().for_each(Child::kill);
        table.reap().unwrap();
        while queue.pop().unwrap().is_some() {}
    }
}

fn a_queue_that_crosses_a_fork_is_leased_anew() {
    let table = table();
    let mut queue = Some(table.queue::<Job>(4).unwrap());
    // The child's copy belongs to the parent: dropping it neither closes nor frees the queue.
    Child::fork(|| drop(queue.take())).join();
    Child::fork(|| {
        queue.as_ref().unwrap().push(job(1, 1)).unwrap();
        drop(queue.take());
    })
    .join();
    let queue = queue.unwrap();
    assert!(!queue.is_closed());
    assert_eq!(queue.pop().unwrap(), Some(job(1, 1)));
    // A child dies with its bit set, which says that it may have been in a cell.
    let pipe = Pipe::new();
    let child = Child::fork(|| {
        queue.push(job(1, 2)).unwrap();
        pipe.send(1);
        std::thread::sleep(DEADLINE);
    });
    pipe.receive();
    child.kill();
    assert_eq!(table.reap().unwrap().leases, 1);
    assert_eq!(queue.pop().unwrap(), Some(job(1, 2)));
}

/// Checks that a waiting consumer receives each job although its producer ends right after the
/// push.
fn a_job_outlives_its_producer() {
    let table = table();
    let queue = table.queue::<Job>(4).unwrap();
    let name = queue.handle();
    for attempt in 0..50 {
        let pipe = Pipe::new();
        let child = Child::fork(|| {
            let queue = open(&table, name);
            pipe.send(0);
            queue.push(job(3, attempt)).unwrap();
            support::exit_at_once(0);
        });
        pipe.receive();
        let start = Instant::now();
        assert_eq!(queue.pop_timeout(DEADLINE).unwrap(), Some(job(3, attempt)));
        assert!(start.elapsed() < DEADLINE / 2);
        child.join();
        // The child has not released its lease.
        table.reap().unwrap();
    }
}

/// Checks a producer that pushes the handle of its array and ends: the array is freed with the
/// producer, the error names that cause and `detach`, and `detach` helps.
fn a_handle_whose_producer_has_left_names_the_remedy() {
    let table = table();
    let queue = table.queue::<u64>(4).unwrap();
    let name = queue.handle();
    for detach in [false, true] {
        Child::fork(|| {
            let table = HandleTable::join(table.segment()).unwrap();
            let array: Handle<f64, Ix1> = table.from_elem(100, 2.0).unwrap();
            if detach {
                table.detach(array).unwrap();
            }
            let queue = table.open_queue(name).unwrap();
            queue.push(array.to_bits()).unwrap();
        })
        .join();
        let array: Handle<f64, Ix1> = Handle::from_bits(queue.pop().unwrap().unwrap());
        match table.read(array).map(|array| array.sum()) {
            Ok(sum) => assert!(detach && sum == 200.0),
            Err(error) => {
                let text = error.to_string();
                assert!(!detach, "{text}");
                assert!(text.contains("its owner left"), "{text}");
                assert!(text.contains("detach or a queue's push_owned lets an array outlive"));
            }
        }
    }
}

type Arrays = OwnedArray<u64, Ix1>;

/// Checks producers that push an array and end at once: the array belongs to the queue, then to the
/// consumer.
fn an_owned_array_outlives_its_producer() {
    let table = table();
    let queue = table.queue::<Arrays>(4).unwrap();
    let name = queue.handle();
    for attempt in 0..20 {
        Child::fork(|| {
            let table = HandleTable::join(table.segment()).unwrap();
            let array = table.owned(table.from_elem(100, attempt).unwrap());
            let queue = table.open_queue(name).unwrap();
            queue.push_owned_timeout(array, DEADLINE).unwrap();
            if attempt % 2 == 0 {
                support::exit_at_once(0);
            }
        })
        .join();
        table.reap().unwrap();
        let array = queue.pop_owned_timeout(DEADLINE).unwrap();
        let array = array.expect("the array is in the queue");
        assert_eq!(table.read(array.handle()).unwrap().sum(), 100 * attempt);
    }
    assert_eq!(table.arrays().count(), 0);
}

/// Checks that a queue is freed with its owner, and the arrays in it with the queue.
fn arrays_in_the_queue_of_a_dead_owner_are_freed() {
    let table = table();
    Child::fork(|| {
        let table = HandleTable::join(table.segment()).unwrap();
        let queue = table.queue::<Arrays>(4).unwrap();
        for number in 0..3 {
            let array = table.from_elem(100, number).unwrap();
            queue.push_owned(table.owned(array)).unwrap();
        }
        support::exit_at_once(0);
    })
    .join();
    let report = table.reap().unwrap();
    assert_eq!(report.arrays_freed, 4, "the queue and its arrays");
    let found = table.verify().unwrap();
    assert!(found.is_clean(), "{found}");
    assert_eq!((found.live, found.retired), (0, 0));
}

/// Kills the owner of a queue while others wait: they get the jobs that are left, and then the end.
fn the_death_of_its_owner_closes_a_queue_for_those_that_wait() {
    let table = table();
    let pipe = Pipe::new();
    let owner = Child::fork(|| {
        let table = HandleTable::join(table.segment()).unwrap();
        let (full, idle) = (
            table.queue::<Job>(2).unwrap(),
            table.queue::<Job>(2).unwrap(),
        );
        full.push(job(0, 1)).unwrap();
        full.push(job(0, 2)).unwrap();
        pipe.send(full.handle().to_bits());
        pipe.send(idle.handle().to_bits());
        support::sleep_for_ever();
    });
    let full = QueueHandle::from_bits(pipe.receive());
    let idle = QueueHandle::from_bits(pipe.receive());
    let ready = Pipe::new();
    let consumer = Child::fork(|| {
        let queue = open(&table, idle);
        ready.send(1);
        assert_eq!(queue.pop_timeout(DEADLINE).unwrap(), None);
        assert!(
            queue.is_closed() && queue.is_drained(),
            "nothing came in time"
        );
    });
    let producer = Child::fork(|| {
        let queue = open(&table, full);
        ready.send(2);
        let refused = queue.push_timeout(job(1, 1), DEADLINE).unwrap_err();
        assert!(refused.is_closed(), "{refused}");
        for number in [1, 2] {
            assert_eq!(queue.pop_timeout(DEADLINE).unwrap(), Some(job(0, number)));
        }
        assert_eq!(queue.pop_timeout(DEADLINE).unwrap(), None);
    });
    let impatient = Child::fork(|| {
        let queue = open(&table, idle);
        ready.send(4);
        support::eventually("short waits find the queue closed", || {
            assert_eq!(queue.pop_timeout(Duration::from_millis(2)).unwrap(), None);
            queue.is_closed()
        });
    });
    assert_eq!(ready.receive() + ready.receive() + ready.receive(), 7);
    owner.kill();
    impatient.join();
    consumer.join();
    producer.join();
    assert!(table.open_queue(idle).is_err());
    table.reap().unwrap();
    assert!(table.verify().unwrap().is_clean());
}

/// Kills producers and consumers at work: each array is in the queue or was freed with its owner,
/// and no array is delivered twice.
fn arrays_of_killed_participants_do_not_leak() {
    const ROUNDS: u64 = 60;
    let table = table();
    let queue = table.queue::<Arrays>(8).unwrap();
    let name = queue.handle();
    let mut delivered = 0;
    for round in 0..ROUNDS {
        let counts: [Handle<u64, Ix1>; 2] = [(); 2].map(|()| table.zeros(1).unwrap());
        let producers = [0u64, 1].map(|producer| {
            Child::fork(|| {
                let table = HandleTable::join(table.segment()).unwrap();
                let queue = table.open_queue(name).unwrap();
                for number in 0.. {
                    let whole = table.from_elem(16, producer << 32 | number).unwrap();
                    queue
                        .push_owned_timeout(table.owned(whole), DEADLINE)
                        .unwrap();
                }
            })
        });
        let consumers = counts.map(|count| {
            Child::fork(|| {
                let table = HandleTable::join(table.segment()).unwrap();
                let queue = table.open_queue(name).unwrap();
                let mut count = table.write(count).unwrap();
                let mut seen = HashSet::new();
                while let Some(array) = queue.pop_owned_timeout(DEADLINE).unwrap() {
                    let view = table.read(array.handle()).unwrap();
                    let value = view[0];
                    assert!(view.iter().all(|&element| element == value), "a torn array");
                    assert!(seen.insert(value), "an array was delivered twice");
                    count[0] += 1;
                }
            })
        });
        std::thread::sleep(Duration::from_micros(3000 + round * 91));
        let victims = producers.into_iter().chain(consumers);
        // The first victims die while the others go on, in an order that changes.
        let mut victims: Vec<Child> = victims.collect();
        victims.rotate_left((round % 4) as usize);
        victims.into_iter().for_each(|victim| {
            victim.kill();
            table.reap().unwrap();
        });
        for count in counts {
            table.clear_poison(count).unwrap();
            delivered += table.read(count).unwrap()[0];
            table.free(count).unwrap();
        }
        let held = table.arrays().count();
        let mut left = 0;
        while let Some(array) = queue.pop_owned().unwrap() {
            let view = table.read(array.handle()).unwrap();
            assert!(
                view.iter().all(|&element| element == view[0]),
                "a torn array"
            );
            left += 1;
        }
        assert_eq!(
            held, left,
            "round {round}: an array is in no queue and has no owner"
        );
        assert_eq!(table.arrays().count(), 0);
    }
    assert!(
        delivered > 100,
        "too few arrays were delivered: {delivered}"
    );
    // All cells are available.
    for number in 0..8 {
        let array = table.from_elem(1, number).unwrap();
        queue.push_owned(table.owned(array)).unwrap();
    }
    assert_eq!(table.arrays().count(), 8);
    drop(queue);
    assert_eq!(
        table.arrays().count(),
        0,
        "the queue's arrays are freed with it"
    );
}
