//! Opening a name beside the process that creates it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use ndshm::{Observer, Segment, SegmentOptions};

use crate::support::Name;
use crate::tracer::{Victim, mark, may_trace};

/// Stops of the opener, one at each entry into the kernel and one at each return. They cover the looks
/// at a file that has no size yet, and at the finished segment.
const STOPS: usize = 60;

fn options() -> SegmentOptions {
    let options = Segment::options().capacity(256 << 10).seats(8);
    options.open_timeout(Duration::from_secs(20))
}

/// Stops an opener at each of its system calls in turn. Meanwhile a creator, which had only made the
/// empty file, finishes the segment.
pub fn an_opener_that_stands_still_beside_a_creator_is_not_refused() {
    if !may_trace() {
        println!("(skipped: no right to trace a child by ptrace)");
        return;
    }
    beside_a_creator(|name| drop(options().open(name).unwrap()));
    beside_a_creator(|name| drop(Observer::open(name).unwrap()));
}

/// Calls `open` in a child with a name whose file is empty until the child has been stopped.
fn beside_a_creator(open: impl Fn(&str)) {
    let finished = Name::new("finished");
    let segment = options().create(&finished.0).unwrap();
    let file = File::open(finished.path()).unwrap();
    let (size, mut header) = (file.metadata().unwrap().len(), [0; 8]);
    file.read_exact_at(&mut header, 0).unwrap();
    for stops in 0..STOPS {
        let name = Name::new("created");
        let mut create = OpenOptions::new();
        let created = create.write(true).create_new(true).mode(0o600);
        let created = created.open(name.path()).unwrap();
        let mut opener = Victim::start(|| {
            mark();
            open(&name.0);
        })
        .unwrap();
        for _ in 0..stops {
            opener.enter_kernel(false).unwrap();
        }
        created.set_len(size).unwrap();
        created.write_all_at(&header, 0).unwrap();
        assert_eq!(opener.finish().unwrap(), 0, "after {stops} stops");
    }
    drop(segment);
}
