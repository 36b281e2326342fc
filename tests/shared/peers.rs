//! Peers: threads that wait for the end of others, forks, and deaths.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ndshm::error::LeaseError;
use ndshm::{Gone, Handle, HandleTable, Segment, SharedTable, Watch};

use crate::support::{Child, DEADLINE, Pipe, sleep_for_ever};
use crate::threads::{Vector, segment};

/// Starts a process that owns an array of the name `x` and lives on. Returns the array.
fn serve(segment: &Segment) -> (Child, Vector) {
    let pipe = Pipe::new();
    let child = Child::fork(|| {
        let table = SharedTable::of(segment).unwrap();
        let x: Vector = table.from_elem(3, 7).unwrap();
        table.publish("x", x).unwrap();
        pipe.send(x.to_bits());
        sleep_for_ever();
    });
    let x = Handle::from_bits(pipe.receive());
    (child, x)
}

pub fn a_thread_watches_while_others_use_the_table() {
    let segment = segment();
    for _ in 0..10 {
        let (server, x) = serve(&segment);
        let table = SharedTable::of(&segment).unwrap();
        let owner = table.owner(x).unwrap().unwrap();
        assert_eq!(owner.pid(), server.pid());
        assert_eq!(table.peers().unwrap(), [owner, table.peer().unwrap()]);

        let mut watch = table.watch();
        watch.peer(owner);
        assert_eq!(watch.name("x").unwrap(), x.into());
        let (began, begins) = mpsc::channel();
        let watcher = thread::spawn(move || {
            assert_eq!(watch.wait(Duration::ZERO).unwrap(), None);
            began.send(()).unwrap();
            let gone = [watch.wait(DEADLINE).unwrap(), watch.wait(DEADLINE).unwrap()];
            assert!(watch.is_empty());
            gone
        });
        begins.recv().unwrap();
        // Calls that would wait for the watcher if it slept under the lock: it is told to end after
        // them.
        for number in 0..1000 {
            let y: Vector = table.from_elem(3, number).unwrap();
            assert_eq!(table.owner(y).unwrap(), Some(table.peer().unwrap()));
            table.free(y).unwrap();
        }
        assert!(!watcher.is_finished() && table.is_alive(owner).unwrap());
        server.kill();
        let gone = watcher.join().unwrap();
        assert_eq!(gone[0], Some(Gone::Peer(owner)));
        let name = Gone::Name {
            name: "x".into(),
            handle: x.into(),
        };
        match &gone[1] {
            Some(gone) => assert_eq!(*gone, name),
            None => panic!("the name has gone, too"),
        }
        assert!(!table.is_alive(owner).unwrap());
        assert!(matches!(table.owner(x), Err(LeaseError::Stale { .. })));
    }
}

/// The child of a fork goes on with its parent's list, by a seat of its own.
pub fn a_watch_crosses_a_fork() {
    let segment = segment();
    let (server, x) = serve(&segment);
    let table = SharedTable::of(&segment).unwrap();
    let ours = table.peer().unwrap();
    let owner = table.owner(x).unwrap().unwrap();
    let mut watch = table.watch();
    watch.peer(owner);
    let (ready, over) = (Pipe::new(), Pipe::new());
    let child = Child::fork(|| {
        let mine = table.peer().unwrap();
        assert_ne!(mine, ours);
        assert!(table.is_alive(ours).unwrap() && table.is_alive(owner).unwrap());
        assert_eq!(watch.wait(Duration::ZERO).unwrap(), None);
        ready.send(mine.seat() as u64);
        assert_eq!(watch.wait(DEADLINE).unwrap(), Some(Gone::Peer(owner)));
        over.send(1);
        sleep_for_ever();
    });
    let seat = ready.receive();
    let mine = table
        .peers()
        .unwrap()
        .into_iter()
        .find(|peer| peer.pid() == child.pid());
    let mine = mine.unwrap();
    assert_eq!(mine.seat() as u64, seat);
    server.kill();
    assert_eq!(watch.wait(DEADLINE).unwrap(), Some(Gone::Peer(owner)));
    assert_eq!(over.receive(), 1);
    watch.peer(mine);
    child.kill();
    assert_eq!(watch.wait(DEADLINE).unwrap(), Some(Gone::Peer(mine)));
}

/// Peers of the two kinds of tables are the same values.
pub fn both_tables_tell_the_same_peers() {
    fn ends<T: ndshm::TableAccess>(mut watch: Watch<T>, table: HandleTable) {
        let peer = table.peer().unwrap();
        watch.peer(peer);
        assert_eq!(watch.wait(Duration::ZERO).unwrap(), None);
        drop(table);
        assert_eq!(watch.wait(DEADLINE).unwrap(), Some(Gone::Peer(peer)));
    }
    let segment = segment();
    let (one, all) = (
        HandleTable::join(&segment).unwrap(),
        SharedTable::of(&segment).unwrap(),
    );
    assert_eq!(one.peers().unwrap(), all.peers().unwrap());
    assert!(one.is_alive(all.peer().unwrap()).unwrap());
    assert!(all.is_alive(one.peer().unwrap()).unwrap());
    ends(one.watch(), HandleTable::join(&segment).unwrap());
    ends(all.watch(), HandleTable::join(&segment).unwrap());
}
