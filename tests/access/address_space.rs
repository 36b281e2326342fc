//! Observers with little address space.

use std::fs;

use ndarray::Ix1;
use ndshm::{Handle, HandleTable, Observer, Segment};

use crate::support::{Child, Name, Pipe};

/// Leaves this process `bytes` of address space beyond its current size.
fn limit_address_space(bytes: u64) {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let page = rustix::param::page_size() as u64;
    let limit = Some(pages * page + bytes);
    let limits = rustix::process::Rlimit {
        current: limit,
        maximum: None,
    };
    rustix::process::setrlimit(rustix::process::Resource::As, limits).unwrap();
}

/// Checks that an observer maps little. The observer is forked before the segment exists, so it
/// does not inherit the mapping.
pub fn an_observer_needs_little_address_space() {
    let name = Name::new("little");
    let (go, done) = (Pipe::new(), Pipe::new());
    let observer = Child::fork(|| {
        let (first, last) = (go.receive(), go.receive());
        limit_address_space(64 << 20);
        let observer = Observer::open(&name.0).unwrap();
        assert_eq!(observer.capacity(), 16 << 40);
        let handle = Handle::<u16, Ix1>::from_bits;
        let sum = |bits| {
            let view = observer.attach(handle(bits)).unwrap();
            // SAFETY: no process writes these arrays any more, and the observer lives.
            unsafe { view.deref_into_view() }.sum()
        };
        assert_eq!(observer.census().live, 2);
        assert_eq!((sum(first), sum(last)), (10, 20));
        let mut copied = [0; 2];
        observer.copy_bytes(handle(last), 0, &mut copied).unwrap();
        assert_eq!(copied, [2, 0]);
        let early = observer.attach(handle(first)).unwrap();
        done.send(0);
        // There are now more spans than the first mapping of the tables covers.
        let (many, newest) = (go.receive(), go.receive());
        assert_eq!(observer.census().live, many);
        assert_eq!(observer.arrays().count() as u64, many - 1);
        assert!(observer.verify().is_clean());
        assert_eq!(observer.verify().live as u64, many);
        assert_eq!(observer.find("newest").unwrap().to_bits(), newest);
        assert_eq!(sum(newest), 30);
        // SAFETY: as above.
        let early = unsafe { early.deref_into_view() };
        assert_eq!(early.sum(), 10, "former views stay valid");
        observer.reach().unwrap();
    });
    let segment = Segment::options()
        .capacity(16 << 40)
        .create(&name.0)
        .unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let first = table.from_elem(10, 1u16).unwrap();
    // This array has another class and lies far away in the data region.
    let last = table.from_elem(10, 2u16).unwrap();
    go.send(first.to_bits());
    go.send(last.to_bits());
    done.receive();
    for _ in 0..30_000 {
        table.zeros::<u8, _>(1).unwrap();
    }
    let newest = table.from_elem(10, 3u16).unwrap();
    table.publish("newest", newest).unwrap();
    // The record of the name is an array, too.
    let live = Observer::open(&name.0).unwrap().census().live;
    go.send(live);
    go.send(newest.to_bits());
    observer.join();
}

pub fn an_observer_without_address_space_names_the_remedy() {
    let name = Name::new("without");
    let (go, done) = (Pipe::new(), Pipe::new());
    let observer = Child::fork(|| {
        let first = Handle::<u16, Ix1>::from_bits(go.receive());
        let observer = Observer::open(&name.0).unwrap();
        limit_address_space(1 << 20);
        done.send(0);
        let newest = Handle::<u16, Ix1>::from_bits(go.receive());
        let unseen = [
            observer.reach().unwrap_err().to_string(),
            observer.info(newest).unwrap_err().to_string(),
            observer.attach(newest).err().unwrap().to_string(),
            observer.find("newest").unwrap_err().to_string(),
            observer
                .copy_bytes(newest, 0, &mut [])
                .unwrap_err()
                .to_string(),
        ];
        for text in unseen {
            assert!(text.contains("address space"), "{text}");
            assert!(text.contains("ulimit -v"), "{text}");
        }
        assert_eq!(observer.info(first).unwrap().shape, [10]);
        // Apply the remedy.
        let unlimited = rustix::process::Rlimit {
            current: None,
            maximum: None,
        };
        rustix::process::setrlimit(rustix::process::Resource::As, unlimited).unwrap();
        observer.reach().unwrap();
        assert_eq!(observer.info(newest).unwrap().shape, [10]);
    });
    let segment = Segment::options().create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    go.send(table.from_elem(10, 1u16).unwrap().to_bits());
    done.receive();
    for _ in 0..30_000 {
        table.zeros::<u8, _>(1).unwrap();
    }
    let newest = table.from_elem(10, 3u16).unwrap();
    table.publish("newest", newest).unwrap();
    go.send(newest.to_bits());
    observer.join();
}
