//! Participants that look for the owners of arrays, and wait for the end of others, in programs
//! without a pool.

mod support;

use std::time::{Duration, Instant};

use ndarray::Ix1;
use ndshm::bytemuck::{self, Zeroable};
use ndshm::error::LeaseError;
use ndshm::{Gone, Handle, HandleTable, Peer};
use support::{Child, DEADLINE, Pipe, table};

fn main() {
    support::run_tests![
        the_end_of_a_process_is_reported_with_its_names,
        a_stopped_process_lives,
        a_reap_beside_looks_skips_no_seat,
        a_seat_that_is_taken_again_is_another_participant,
        a_child_is_a_participant_of_its_own,
        values_that_nobody_sent_are_dead,
        the_array_of_a_dead_process_is_not_the_first,
    ];
}

/// Sends an array that the process owns under the name `x`, and then lives on.
fn serve(table: &HandleTable, pipe: &Pipe) {
    let table = HandleTable::join(table.segment()).unwrap();
    let x = table.zeros::<f64, _>(3).unwrap();
    table.publish("x", x).unwrap();
    pipe.send(x.to_bits());
    support::sleep_for_ever();
}

fn the_end_of_a_process_is_reported_with_its_names() {
    let table = table();
    let pipe = Pipe::new();
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let server = Child::fork(|| serve(&table, &pipe));
        let x: Handle<f64, Ix1> = Handle::from_bits(pipe.receive());
        let owner = table.owner(x).unwrap().unwrap();
        assert_eq!(owner.pid(), server.pid());
        assert!(table.is_alive(owner).unwrap());
        assert!(table.peers().unwrap().contains(&owner));

        let mut watch = table.watch();
        watch.peer(owner);
        assert_eq!(watch.name("x").unwrap(), x.into());
        assert_eq!(watch.wait(Duration::from_millis(1)).unwrap(), None);
        let killed = Instant::now();
        server.kill();
        let gone = watch.wait(DEADLINE).unwrap();
        longest = longest.max(killed.elapsed());
        assert_eq!(gone, Some(Gone::Peer(owner)));
        assert!(matches!(table.owner(x), Err(LeaseError::Stale { .. })));
        let Some(Gone::Name { name, handle }) = watch.wait(Duration::ZERO).unwrap() else {
            panic!("the name has gone, too");
        };
        assert_eq!((name.as_str(), handle), ("x", x.into()));
        assert!(watch.is_empty());
        assert_eq!(
            watch.wait(DEADLINE).unwrap(),
            None,
            "nothing is left to wait for"
        );
    }
    println!("reported at most {longest:?} after the kill began");
}

fn a_stopped_process_lives() {
    let table = table();
    let pipe = Pipe::new();
    let server = Child::fork(|| serve(&table, &pipe));
    let x: Handle<f64, Ix1> = Handle::from_bits(pipe.receive());
    let owner = table.owner(x).unwrap().unwrap();
    server.signal(libc::SIGSTOP);
    support::eventually("the process stops", || {
        support::state_of(server.pid()) == Some('T')
    });
    let mut watch = table.watch();
    watch.peer(owner);
    assert_eq!(watch.wait(Duration::from_millis(30)).unwrap(), None);
    // What is not of the dead is not taken back: the name goes when it is removed.
    watch.name("x").unwrap();
    table.unpublish("x").unwrap();
    assert!(matches!(
        watch.wait(DEADLINE).unwrap(),
        Some(Gone::Name { .. })
    ));
    server.kill();
    assert_eq!(watch.wait(DEADLINE).unwrap(), Some(Gone::Peer(owner)));
}

/// A process asks all the time who lives, while others die: each reap takes back all of the dead.
fn a_reap_beside_looks_skips_no_seat() {
    let table = table();
    let ready = Pipe::new();
    let looker = Child::fork(|| {
        ready.send(1);
        loop {
            table.peers().unwrap();
        }
    });
    ready.receive();
    for _ in 0..100 {
        Child::fork(|| {
            let table = HandleTable::join(table.segment()).unwrap();
            table.zeros::<f64, _>(3).unwrap();
            support::die();
        })
        .wait_within(DEADLINE)
        .unwrap();
        assert_eq!(table.reap().unwrap().seats, 1);
    }
    looker.kill();
}

fn a_seat_that_is_taken_again_is_another_participant() {
    let table = table();
    let first = HandleTable::join(table.segment()).unwrap();
    let x = first.zeros::<f64, _>(3).unwrap();
    let before = first.peer().unwrap();
    first.detach(x).unwrap();
    assert_eq!(table.owner(x).unwrap(), None);
    drop(first);
    let second = HandleTable::join(table.segment()).unwrap();
    second.adopt(x).unwrap();
    let after = second.peer().unwrap();
    assert_eq!(after.seat(), before.seat());
    assert_ne!(after, before);
    assert_eq!(table.owner(x).unwrap(), Some(after));
    assert!(table.is_alive(after).unwrap() && !table.is_alive(before).unwrap());
    assert_eq!(table.peers().unwrap(), [table.peer().unwrap(), after]);
}

fn a_child_is_a_participant_of_its_own() {
    let table = table();
    let x = table.zeros::<f64, _>(3).unwrap();
    let ours = table.peer().unwrap();
    Child::fork(|| {
        // The child's copy of the table takes a seat of its own.
        let mine = table.peer().unwrap();
        assert_ne!(mine, ours);
        assert_eq!(mine.pid(), std::process::id());
        assert_eq!(table.owner(x).unwrap(), Some(ours));
        assert!(table.is_alive(ours).unwrap());
    })
    .join();
}

fn values_that_nobody_sent_are_dead() {
    let table = table();
    let mut words = [u64::MAX; 2];
    for seat in [0_u64, 1, 7, 255, 2047, 2048, 0xffff_ffff] {
        words[0] = u64::from(std::process::id()) << 32 | seat;
        let peer: Peer = bytemuck::cast(words);
        assert!(!table.is_alive(peer).unwrap(), "{peer:?}");
        let mut watch = table.watch();
        watch.peer(peer);
        assert_eq!(watch.wait(DEADLINE).unwrap(), Some(Gone::Peer(peer)));
    }
    let nobody = Peer::zeroed();
    assert!(!table.is_alive(nobody).unwrap());
    assert!(table.owner(Handle::<f64, Ix1>::from_bits(3)).is_err());
    assert!(table.watch().name("nothing").is_err());
}

/// A process creates an array and dies while another one fills its own: the other one is the first.
fn the_array_of_a_dead_process_is_not_the_first() {
    let table = table();
    let (x, is_new) = table
        .get_or_create("x", 3, |mut x: ndarray::ArrayViewMut1<'_, u64>| {
            x.fill(1);
            Child::fork(|| {
                let table = HandleTable::join(table.segment()).unwrap();
                table
                    .publish("x", table.zeros::<u64, _>(3).unwrap())
                    .unwrap();
                support::exit_at_once(0);
            })
            .join();
        })
        .unwrap();
    assert!(is_new);
    assert_eq!(table.owner(x).unwrap(), Some(table.peer().unwrap()));
    assert_eq!(table.read(x).unwrap().sum(), 3);
}
