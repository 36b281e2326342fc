//! Limits of a process: file size, address space, descriptors, mappings.

use std::ptr;

use ndarray::Ix1;
use ndshm::error::{JoinError, LeaseError, SegmentError};
use ndshm::{Handle, HandleTable, Segment};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::{Bytes, MIB, assert_usable, no_memory, report, says};
use crate::support::{Child, Name};

/// A lowered soft limit. Drop restores it.
struct Limit {
    resource: Resource,
    before: Rlimit,
}

impl Limit {
    fn new(resource: Resource, limit: u64) -> Limit {
        let before = getrlimit(resource);
        let lower = Rlimit {
            current: Some(limit),
            ..before
        };
        setrlimit(resource, lower).unwrap();
        Limit { resource, before }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        setrlimit(self.resource, self.before).unwrap();
    }
}

fn small() -> ndshm::SegmentOptions {
    Segment::options().capacity(MIB as u64)
}

pub fn a_file_size_limit_is_an_error() {
    let name = Name::new("fsize");
    let held = Name::new("fsize-held");
    let table = HandleTable::join(&small().create(&held.0).unwrap()).unwrap();
    let limit = Limit::new(Resource::Fsize, MIB as u64);
    let mut text = String::new();
    for refused in [
        Segment::anonymous(),
        small().anonymous(),
        small().create(&name.0),
        Segment::open_or_create(&name.0),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, SegmentError::FileSize { limit, .. } if limit == MIB as u64));
        text = says(
            error,
            &["file size limit of 1 MiB", "smaller capacity", "ulimit -f"],
        );
    }
    assert!(!name.exists());
    // The existing segment does not grow, so the limit does not concern it.
    let fits: Bytes = table.from_elem(MIB / 2, 1).unwrap();
    table.free(fits).unwrap();
    assert_usable(&table);
    drop(limit);
    assert_usable(&HandleTable::join(&small().create(&name.0).unwrap()).unwrap());
    report("RLIMIT_FSIZE of 1 MiB", text);
}

/// Returns the bytes of address space that this process has mapped.
fn mapped() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    pages * 4096
}

pub fn an_address_space_limit_is_an_error() {
    let name = Name::new("as");
    let limit = Limit::new(Resource::As, mapped() + (3 << 29));
    let mut text = String::new();
    let large = || Segment::options().capacity(4 << 30);
    for refused in [
        large().anonymous(),
        large().in_process(),
        large().create(&name.0),
    ] {
        let error = refused.unwrap_err();
        assert!(
            matches!(error, SegmentError::AddressSpace { limit: Some(_), .. }),
            "{error}"
        );
        text = says(
            error,
            &[
                "address space",
                "RLIMIT_AS is 1",
                "smaller capacity",
                "ulimit -v",
            ],
        );
    }
    assert!(!name.exists());
    // The default capacity is as much as fits into half of the limit, although 1 GiB could be
    // mapped.
    let segment = Segment::anonymous().unwrap();
    let capacity = segment.capacity();
    assert_eq!(capacity, 1 << 29);
    assert_usable(&HandleTable::join(&segment).unwrap());
    drop(segment);
    drop(limit);
    assert_usable(&HandleTable::join(&large().create(&name.0).unwrap()).unwrap());
    report(
        "RLIMIT_AS of 1.5 GiB more",
        format!("default capacity {} MiB; {text}", capacity >> 20),
    );
}

pub fn an_open_segment_works_under_an_address_space_limit() {
    let name = Name::new("as-after");
    let segment = Segment::options()
        .capacity(1 << 30)
        .create(&name.0)
        .unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let array: Handle<u64, Ix1> = table.from_elem(1000, 5).unwrap();
    // The limit leaves room for the process itself, but not for a second mapping of the segment.
    let limit = Limit::new(Resource::As, mapped() + (64 << 20));
    let large: Bytes = table.from_elem(8 * MIB, 1).unwrap();
    table.free(large).unwrap();
    // A forked child maps its own description over the same addresses, which needs no more of them.
    Child::fork(|| {
        assert_eq!(table.read(array).unwrap()[999], 5);
        let own: Bytes = table.from_elem(MIB, 1).unwrap();
        table.free(own).unwrap();
        let error = Segment::open(&name.0).unwrap_err();
        assert!(
            matches!(error, SegmentError::AddressSpace { .. }),
            "{error}"
        );
        says(error, &["1 GiB", "RLIMIT_AS", "ulimit -v"]);
    })
    .join();
    drop(limit);
    // Below the present size even that exchange may be refused, but only with an error.
    let text = {
        let child = Child::fork(|| {
            let limit = Limit::new(Resource::As, mapped() / 2);
            let first = table.read(array).map(|view| view[999]);
            drop(limit);
            match first {
                Ok(element) => println!("  RLIMIT_AS below the mapped size: read {element}"),
                Err(error) => {
                    let text = says(error, &["address space", "RLIMIT_AS", "ulimit -v"]);
                    println!("  RLIMIT_AS below the mapped size: {text}");
                }
            }
            assert_eq!(table.read(array).unwrap()[999], 5);
        });
        child.join();
        "alloc, fork and lease go on with 64 MiB of address space left"
    };
    assert_eq!(table.read(array).unwrap()[0], 5);
    assert_usable(&table);
    report("RLIMIT_AS after opening", text);
}

/// Reserves address space without access, in pieces of at least `least` bytes.
fn hog(least: usize) -> Vec<(usize, usize)> {
    let mut taken = Vec::new();
    let mut len = 1usize << 46;
    while len >= least {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            len /= 2;
        } else {
            taken.push((at.addr(), len));
        }
    }
    taken
}

fn release(taken: Vec<(usize, usize)>) {
    for (at, len) in taken {
        // SAFETY: a mapping of this test that nothing uses.
        let answer = unsafe { libc::munmap(ptr::without_provenance_mut(at), len) };
        assert_eq!(answer, 0);
    }
}

pub fn exhausted_address_space_is_an_error() {
    let name = Name::new("hog");
    // Pieces of less than 1 GiB stay free for the allocator of this process.
    let taken = hog(1 << 30);
    let large = || Segment::options().capacity(64 << 30);
    let mut text = String::new();
    for refused in [
        large().anonymous(),
        large().in_process(),
        large().create(&name.0),
    ] {
        let error = refused.unwrap_err();
        text = says(
            error,
            &[
                "no room in the address space",
                "64",
                "GiB",
                "smaller capacity",
            ],
        );
    }
    assert!(!name.exists());
    // The default capacity is halved until the mapping succeeds.
    let segment = Segment::anonymous().unwrap();
    let capacity = segment.capacity();
    assert!(capacity < 1 << 31, "{capacity}");
    assert_usable(&HandleTable::join(&segment).unwrap());
    let pieces = taken.len();
    release(taken);
    assert_usable(&HandleTable::join(&large().create(&name.0).unwrap()).unwrap());
    report(
        "address space used up",
        format!(
            "{pieces} reservations; default capacity {} MiB; {text}",
            capacity >> 20
        ),
    );
}

pub fn exhausted_mappings_are_an_error() {
    const PAGE: usize = 4096;
    let most: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(65_530);
    if most > 300_000 {
        println!("  skipped: {most} mappings (vm.max_map_count) are too many to exhaust");
        return;
    }
    let segment = small().anonymous().unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let array: Handle<u64, Ix1> = table.from_elem(1000, 5).unwrap();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let len = 2 * most * PAGE;
    // SAFETY: a fresh mapping at an address of the kernel's choice replaces nothing.
    let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    // Each second page gets another access right, which makes it a mapping of its own.
    let split = (0..most)
        .take_while(|at| {
            let page = start.wrapping_byte_add((2 * at + 1) * PAGE);
            // SAFETY: a page of the reservation above, which nothing accesses.
            unsafe { libc::mprotect(page, PAGE, libc::PROT_READ) == 0 }
        })
        .count();
    assert!(split < most, "the mappings do not run out");
    let refused = Segment::anonymous();
    let child = Child::fork(|| {
        // Exchanging the mapping in place needs no further mapping.
        assert_eq!(table.read(array).unwrap()[999], 5);
        let own: Bytes = table.from_elem(MIB / 4, 1).unwrap();
        table.free(own).unwrap();
    });
    child.join();
    // SAFETY: the reservation above, which nothing accesses.
    assert_eq!(unsafe { libc::munmap(start, len) }, 0);
    let text = match refused {
        Ok(_) => panic!("there was a mapping left"),
        Err(error) => says(
            error,
            &[
                "map",
                &format!("has about {most}, the maximum"),
                "vm.max_map_count",
            ],
        ),
    };
    assert_usable(&table);
    assert_usable(&HandleTable::join(&Segment::anonymous().unwrap()).unwrap());
    report(
        "mappings used up",
        format!("{split} pages split off; {text}"),
    );
}

/// Returns the number of open descriptors.
fn open_files() -> usize {
    // The open directory is one of the entries.
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Holds all descriptors below the limit but `left`.
struct Files {
    _limit: Limit,
    held: Vec<std::fs::File>,
}

impl Files {
    fn leaving(left: usize) -> Files {
        let limit = Limit::new(Resource::Nofile, 64);
        let mut held = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            held.push(file);
        }
        held.truncate(held.len() - left);
        Files {
            _limit: limit,
            held,
        }
    }
}

pub fn exhausted_descriptors_are_an_error() {
    let name = Name::new("files");
    let held = Name::new("files-held");
    let table = HandleTable::join(&small().create(&held.0).unwrap()).unwrap();
    let before = open_files();
    type Make<'a> = (&'a str, &'a dyn Fn() -> Result<Segment, SegmentError>);
    let inheritable = || table.segment().inheritable_fd();
    let passed = inheritable().unwrap();
    let makes: [Make; 5] = [
        ("anonymous", &|| small().anonymous()),
        ("create", &|| small().create(&name.0)),
        ("open_or_create", &|| small().open_or_create(&name.0)),
        ("open", &|| Segment::open(&held.0)),
        ("from_fd", &|| Segment::from_fd(inheritable()?)),
    ];
    for (what, make) in makes {
        let mut refused = 0;
        let mut text = String::new();
        for left in 0..6 {
            let files = Files::leaving(left);
            let made = make();
            // A table needs no descriptor beyond those of its segment.
            let joined = made.as_ref().ok().map(HandleTable::join);
            let open = files.held.len();
            drop(files);
            match made {
                Ok(segment) => {
                    assert!(joined.unwrap().is_ok(), "{what} with {left} of {open}");
                    assert_usable(&HandleTable::join(&segment).unwrap());
                }
                Err(error) => {
                    assert_eq!(refused, left, "{what} worked with fewer");
                    refused += 1;
                    text = says(error, &["descriptor", "64", "close some", "ulimit -n"]);
                }
            }
            assert!(!name.exists(), "{what} with {left} left a name");
            assert_eq!(
                open_files(),
                before + 1,
                "{what} with {left} lost descriptors"
            );
        }
        assert!((1..6).contains(&refused), "{what}: {refused}");
        report(
            "descriptors exhausted",
            format!("{what} needs {refused}; {text}"),
        );
    }
    drop(passed);
    let files = Files::leaving(0);
    let error = table.segment().inheritable_fd().unwrap_err();
    says(error, &["descriptor", "64", "ulimit -n"]);
    drop(files);
    assert_usable(&table);
}

pub fn a_forked_child_without_descriptors_gets_an_error() {
    for segment in [
        small().anonymous().unwrap(),
        small().create(&Name::new("files-fork").0).unwrap(),
    ] {
        let table = HandleTable::join(&segment).unwrap();
        let array: Handle<u64, Ix1> = table.from_elem(1000, 5).unwrap();
        Child::fork(|| {
            let files = Files::leaving(0);
            let error = table.read(array).map(drop).unwrap_err();
            assert!(
                matches!(&error, LeaseError::Join(JoinError::Segment(_))),
                "{error}"
            );
            let text = says(error, &["descriptor", "64", "close some", "ulimit -n"]);
            says(
                table.zeros::<u8, _>(10).unwrap_err(),
                &["descriptor", "ulimit -n"],
            );
            says(table.free(array).unwrap_err(), &["descriptor", "ulimit -n"]);
            drop(files);
            // The refused calls of the child have not changed the state of the parent.
            assert_eq!(table.read(array).unwrap()[999], 5);
            assert_usable(&table);
            report("no descriptor for the rebind after a fork", text);
        })
        .join();
        assert_eq!(table.read(array).unwrap()[0], 5);
        assert_usable(&table);
    }
}

pub fn available_memory_is_known_without_descriptors() {
    let table = HandleTable::join(&Segment::anonymous().unwrap()).unwrap();
    let files = Files::leaving(0);
    // /proc cannot be read now, but the machine's memory is already known.
    let refused = no_memory(table.zeros::<u8, _>(8 << 40).unwrap_err());
    let fits: Bytes = table.zeros(2 * MIB).unwrap();
    drop(files);
    table.free(fits).unwrap();
    assert_usable(&table);
    report("8 TiB while no descriptor is left", refused);
}
