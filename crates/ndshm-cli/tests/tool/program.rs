//! Programs for the tool to inspect: a live one that holds leases, and killed ones.

use std::io::{PipeReader, PipeWriter, Read, Write};

use ndarray::{Array, Ix1, ShapeBuilder};
use ndshm::bytemuck::{Pod, Zeroable};
use ndshm::element::{OpaqueType, Order};
use ndshm::{AnyHandle, Complex, Handle, HandleTable, Segment, SegmentOptions};

use crate::support::{Child, DEADLINE, Name, Pipe, exit_at_once};

#[derive(Clone, Copy, Pod, Zeroable)]
#[bytemuck(crate = "ndshm::bytemuck")]
#[repr(C)]
pub struct Point {
    position: [f32; 2],
    id: u64,
}

ndshm::record!(Point {
    position: [f32; 2],
    id: u64
});

/// The arrays of [`populate`], in the order of their creation.
#[derive(Clone, Copy)]
pub enum Which {
    /// f64 (4, 3): 0.5, 1.5, ...
    Plain,
    /// i16 (2, 3) in Fortran order: -1, 0, 1, ... along rows.
    Fortran,
    /// bool (5): one is true.
    Flags,
    /// Complex<f64> (2): 1-2i, 0.
    Complex,
    /// Records (2).
    Records,
    /// f32 (4): NaN, infinity, 0, 2; leased for reading.
    Odd,
    /// u128 without axes: the largest value.
    Scalar,
    /// u8 (1,000,000): its index modulo 251.
    Large,
    /// u64 (8): leased for writing.
    Leased,
    /// Opaque `<f2` (2): 1, -2.
    Halves,
}

pub fn options() -> SegmentOptions {
    Segment::options().capacity(1 << 28).seats(8)
}

/// Makes one array of each kind.
pub fn populate(table: &HandleTable) -> Vec<AnyHandle> {
    let plain = Array::from_shape_fn((4, 3), |(row, column)| (3 * row + column) as f64 + 0.5);
    let made = table.zeros::<f64, _>((4, 3)).unwrap();
    table.write(made).unwrap().assign(&plain);
    let fortran = table.zeros::<i16, _>((2, 3).f()).unwrap();
    let rows = Array::from_shape_fn((2, 3), |(row, column)| (3 * row + column) as i16 - 1);
    table.write(fortran).unwrap().assign(&rows);
    let flags = table.zeros::<bool, _>(5).unwrap();
    table.write(flags).unwrap()[3] = true;
    let complex = table.zeros::<Complex<f64>, _>(2).unwrap();
    table.write(complex).unwrap()[0] = Complex::new(1.0, -2.0);
    let records = table.zeros::<Point, _>(2).unwrap();
    table.write(records).unwrap()[1] = Point {
        position: [0.25, -1.0],
        id: 7,
    };
    let odd = table.zeros::<f32, _>(4).unwrap();
    let numbers = [f32::NAN, f32::INFINITY, 0.0, 2.0];
    table
        .write(odd)
        .unwrap()
        .assign(&Array::from(numbers.to_vec()));
    let scalar = table.zeros::<u128, _>(()).unwrap();
    table.write(scalar).unwrap()[()] = u128::MAX;
    let large = table.zeros::<u8, _>(1_000_000).unwrap();
    let mut guard = table.write(large).unwrap();
    for (at, byte) in guard.iter_mut().enumerate() {
        *byte = (at % 251) as u8;
    }
    drop(guard);
    let leased = table.zeros::<u64, _>(8).unwrap();
    table.publish("layer/plain", made).unwrap();
    table.publish("also plain", made).unwrap();
    table.publish("größe\x1b[31m", large).unwrap();
    let half = OpaqueType::new("<f2", 2, 2).unwrap().into();
    let halves = [0x00, 0x3c, 0x00, 0xc0];
    let halves = table.from_bytes(&half, &[2], Order::C, &halves).unwrap();
    vec![
        made.into(),
        fortran.into(),
        flags.into(),
        complex.into(),
        records.into(),
        odd.into(),
        scalar.into(),
        large.into(),
        leased.into(),
        halves,
    ]
}

/// A live program that always holds a write lease and a read lease.
pub struct Live {
    /// The segment's name on the tool's command line.
    pub place: String,
    child: Option<Child>,
    /// Requests to the program; it leaves when this is closed.
    ask: Option<PipeWriter>,
    tell: Pipe,
    handles: Vec<AnyHandle>,
    /// Removes the name if the test fails.
    _name: Option<Name>,
}

/// Seconds until a forgotten program ends itself.
const PATIENCE: u32 = 150;

impl Live {
    /// Starts a program in a named segment.
    pub fn named(what: &str) -> Live {
        let name = Name::new(what);
        let place = name.0.clone();
        let made = place.clone();
        Live::start(place, Some(name), move || options().create(&made).unwrap())
    }

    /// Starts a program in an anonymous segment.
    pub fn anonymous() -> Live {
        let mut live = Live::start(String::new(), None, || options().anonymous().unwrap());
        let pid = live.pid();
        let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut fds = links.filter_map(|entry| {
            let entry = entry.unwrap();
            let link = std::fs::read_link(entry.path()).unwrap();
            let ours = link.to_str().unwrap().starts_with("/memfd:ndshm");
            ours.then(|| entry.file_name().into_string().unwrap())
        });
        live.place = format!("{pid}:{}", fds.next().expect("its segment is open"));
        live
    }

    fn start(place: String, name: Option<Name>, make: impl FnOnce() -> Segment) -> Live {
        let tell = Pipe::new();
        let (asked, ask) = std::io::pipe().unwrap();
        let mut ask = Some(ask);
        let child = Child::fork(|| {
            ask.take();
            // SAFETY: `alarm` has no precondition; its signal ends the child.
            unsafe { libc::alarm(PATIENCE) };
            live(&make(), asked, &tell);
            // The parent removes the names.
            exit_at_once(0);
        });
        let handles = (0..=Which::Halves as u64)
            .map(|_| Handle::<u8, Ix1>::from_bits(tell.receive()).into())
            .collect();
        Live {
            place,
            child: Some(child),
            ask,
            tell,
            handles,
            _name: name,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it lives").pid()
    }

    /// Returns the text of an array's handle.
    pub fn array(&self, which: Which) -> String {
        self.handles[which as usize].to_string()
    }

    pub fn arrays(&self) -> Vec<String> {
        self.handles.iter().map(AnyHandle::to_string).collect()
    }

    /// Checks that the program goes on with its work and finds no damage.
    #[track_caller]
    pub fn is_undisturbed(&mut self) {
        self.ask
            .as_mut()
            .expect("it lives")
            .write_all(b"w")
            .unwrap();
        assert_eq!(self.tell.receive(), 1, "the program goes on");
    }

    /// Lets the program leave normally.
    pub fn leave(mut self) {
        drop(self.ask.take());
        self.child.take().expect("it lives").join();
    }

    /// Kills the program. Its segment stays until the name is dropped.
    pub fn kill(mut self) -> Dead {
        self.child.take().expect("it lives").kill();
        Dead {
            place: self.place.clone(),
            handles: self.handles.clone(),
            _name: self._name.take(),
        }
    }
}

/// The segment that a killed program left behind.
pub struct Dead {
    pub place: String,
    handles: Vec<AnyHandle>,
    _name: Option<Name>,
}

impl Dead {
    pub fn array(&self, which: Which) -> String {
        self.handles[which as usize].to_string()
    }

    pub fn arrays(&self) -> Vec<String> {
        self.handles.iter().map(AnyHandle::to_string).collect()
    }

    pub fn exists(&self) -> bool {
        std::path::Path::new("/dev/shm").join(&self.place).exists()
    }
}

fn live(segment: &Segment, mut asked: PipeReader, tell: &Pipe) {
    let table = HandleTable::join(segment).unwrap();
    let handles = populate(&table);
    let leased = Handle::<u64, Ix1>::from_bits(handles[Which::Leased as usize].to_bits());
    let odd = Handle::<f32, Ix1>::from_bits(handles[Which::Odd as usize].to_bits());
    let large = Handle::<u8, Ix1>::from_bits(handles[Which::Large as usize].to_bits());
    let mut writer = table.write(leased).unwrap();
    let reader = table.read(odd).unwrap();
    for handle in &handles {
        tell.send(handle.to_bits());
    }
    while asked.read_exact(&mut [0]).is_ok() {
        writer[0] += 1;
        let sum: u64 = table
            .write(large)
            .unwrap()
            .iter()
            .map(|&byte| u64::from(byte))
            .sum();
        let made = table.from_elem::<u16, _>(300, 9).unwrap();
        let same = table.read(made).unwrap().iter().all(|&number| number == 9);
        table.free(made).unwrap();
        let found = table.verify().unwrap();
        let well = found.is_clean() && found.writers == 1 && found.readers == 1;
        tell.send(u64::from(well && same && sum > 0 && reader[3] == 2.0));
    }
}

/// Joins the segment `name` in a child, and kills the child while it writes one of the arrays.
pub fn die_in(name: &str, array: &str) {
    let told = Pipe::new();
    let array: AnyHandle = array.parse().unwrap();
    let victim = Child::fork(|| {
        let table = HandleTable::open(name).unwrap();
        let handle = Handle::<f64, ndarray::Ix2>::from_bits(array.to_bits());
        let _own = table.zeros::<u8, _>(10).unwrap();
        let _guard = table.write(handle).unwrap();
        told.send(1);
        std::thread::sleep(2 * DEADLINE);
    });
    told.receive();
    victim.kill();
}
