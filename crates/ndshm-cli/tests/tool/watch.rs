//! Tests of `watch`, in a terminal that the test reads.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZero;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::time::{Duration, Instant};

use ndarray::Axis;
use ndshm::HandleTable;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::program::{Live, Which, options, populate};
use crate::runs::{self, open_terminal, piped};
use crate::support::{DEADLINE, Name};

/// Rows and columns of the terminal.
const SIZE: (u16, u16) = (40, 120);

fn nonzero(number: u16) -> NonZero<u16> {
    NonZero::new(number).expect("a terminal has rows and columns")
}

/// A run of `watch` in a terminal.
struct Session {
    child: Child,
    terminal: File,
    screen: vt100::Parser,
}

impl Session {
    fn start(args: &[&str]) -> Session {
        let (own, theirs) = open_terminal(SIZE);
        let child = runs::command(args)
            .stdin(theirs.try_clone().unwrap())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs)
            .spawn()
            .unwrap();
        Session {
            child,
            terminal: File::from(own),
            screen: vt100::Parser::new(nonzero(SIZE.0), nonzero(SIZE.1), 0),
        }
    }

    /// Processes the output that arrives within `time`. Returns `false` if the other end is closed.
    fn take(&mut self, time: Duration) -> bool {
        let fd = self.terminal.as_fd();
        let mut polled = [PollFd::new(&fd, PollFlags::IN)];
        if rustix::event::poll(&mut polled, Some(&time.try_into().unwrap())) == Ok(0) {
            return true;
        }
        let mut piece = [0; 1 << 16];
        match self.terminal.read(&mut piece) {
            Ok(read) if read > 0 => {
                self.screen.process(&piece[..read]);
                true
            }
            _ => false,
        }
    }

    /// Waits until the screen shows all of the texts.
    #[track_caller]
    fn shows(&mut self, texts: &[&str]) {
        let start = Instant::now();
        loop {
            let screen = self.screen.screen().contents();
            if texts.iter().all(|text| screen.contains(text)) {
                return;
            }
            let there = self.take(Duration::from_millis(50));
            assert!(
                there && start.elapsed() < DEADLINE,
                "not all of {texts:?} in:\n{screen}"
            );
        }
    }

    fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    /// Checks that the tool ends with this code and restores the terminal.
    #[track_caller]
    fn ends_with(mut self, code: i32) -> String {
        let start = Instant::now();
        while self.take(Duration::from_millis(50)) && start.elapsed() < DEADLINE {}
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > DEADLINE {
                self.child.kill().unwrap();
                panic!("watch hangs: {}", self.child.wait().unwrap());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let screen = self.screen.screen();
        assert_eq!(status.code(), Some(code), "{}", screen.contents());
        assert!(!screen.alternate_screen(), "the old screen is not restored");
        assert!(!screen.hide_cursor(), "the cursor is hidden");
        assert!(is_cooked(&self.terminal), "keys are not echoed");
        screen.contents()
    }
}

/// Returns `true` if the terminal driver delivers lines and echoes the keys.
fn is_cooked(terminal: impl AsFd) -> bool {
    let modes = rustix::termios::tcgetattr(terminal).unwrap().local_modes;
    let both = rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO;
    modes.contains(both)
}

pub fn watch_follows_a_live_segment() {
    let name = Name::new("watch");
    let table = HandleTable::join(&options().create(&name.0).unwrap()).unwrap();
    let x = table.zeros::<f64, _>(40).unwrap();
    table.publish("weights", x).unwrap();
    let tiles = table.partition(x.write(), Axis(0), 10).unwrap();
    let round = tiles.begin().unwrap();
    let mut part = tiles.enter().unwrap().unwrap();
    drop(part.claim().unwrap().unwrap());
    let held = part.claim().unwrap().unwrap();

    let mut session = Session::start(&["watch", &name.0, "--interval", "30"]);
    let pid = std::process::id().to_string();
    session.shows(&["memory", "1 of 4", "running", "weights", "1 arrays", &pid]);
    drop(held);
    session.shows(&["2 of 4"]);
    let more: Vec<_> = (0..60).map(|_| table.zeros::<u8, _>(10).unwrap()).collect();
    session.shows(&["61 arrays", "of 61"]);
    session.press("\x1b[6~\x1b[6~\x1b[6~\x1b[6~\x1b[6~\x1b[6~\x1b[6~");
    session.shows(&["to 61 of 61"]);
    for array in more {
        table.free(array).unwrap();
    }
    session.shows(&["arrays 1 to 1 of 1"]);
    while part.claim().unwrap().is_some() {}
    drop(part);
    round.finish(DEADLINE).unwrap();
    session.shows(&["over"]);
    session.press("q");
    session.ends_with(0);
    // The program goes on undisturbed.
    table.write(x).unwrap().fill(1.0);
    assert!(table.verify().unwrap().is_clean());
}

pub fn watch_shows_a_dead_segment() {
    let live = Live::named("watched");
    let mut session = Session::start(&["watch", &live.place, "--interval", "30"]);
    session.shows(&["participants", "layer/plain"]);
    let dead = live.kill();
    session.shows(&["dead", "no live process is in it", "layer/plain"]);
    session.press("\x03");
    session.ends_with(0);
    piped(&["plot", &dead.place, &dead.array(Which::Plain)]).ends_with(0);
    let mut again = Session::start(&["watch", &dead.place]);
    again.shows(&["no live process is in it"]);
    let pid = Pid::from_child(&again.child);
    kill_process(pid, Signal::TERM).unwrap();
    again.ends_with(0);
}

pub fn watch_sorts_and_filters() {
    let live = Live::named("sorted");
    let mut session = Session::start(&["watch", &live.place, "--interval", "30"]);
    session.shows(&["by slot", "participants, by seat", "1 to 10 of 10"]);
    session.press("/also");
    session.shows(&[
        "filter: also_",
        "1 to 1 of 1 (filtered, 10 in all)",
        "layer/plain",
    ]);
    // A letter that is a command is a part of the filter while it is typed.
    session.press("q");
    session.shows(&["filter: alsoq_", "arrays: none (filtered"]);
    session.press("\x7f\r");
    session.shows(&["filter: also  q leaves", "1 to 1 of 1"]);
    session.press("/");
    session.shows(&["filter: _"]);
    session.press("x");
    session.shows(&["filter: x_", "1 to 1 of 1 (filtered"]);
    session.press("\x1b");
    session.shows(&["1 to 10 of 10, by slot"]);
    session.press("ss");
    session.shows(&["by bytes"]);
    session.press("rp");
    session.shows(&["by bytes, reversed", "participants, by cpu"]);
    session.press("q");
    session.ends_with(0);

    // The same choices without a terminal.
    let listed = |more: &[&str]| {
        let args = [&["watch", &live.place, "--once"], more].concat();
        let text = piped(&args).ends_with(0).out.clone();
        let rows = text.lines().filter(|line| line.contains("│ndshm:"));
        rows.map(str::to_owned).collect::<Vec<_>>()
    };
    let by_bytes = listed(&["--sort", "bytes"]);
    assert!(by_bytes[0].contains("976.5 KiB"), "{by_bytes:?}");
    let reversed = listed(&["--sort", "bytes", "--reverse"]);
    assert!(reversed[9].contains("976.5 KiB"), "{reversed:?}");
    let by_name = listed(&["--sort", "name"]);
    assert!(by_name[0].contains("also plain"), "{by_name:?}");
    let leased = listed(&["--sort", "leases"]);
    assert!(leased[0].contains(&live.array(Which::Leased)), "{leased:?}");
    assert_eq!(listed(&["--filter", "COMPLEX"]).len(), 1);
    piped(&["watch", &live.place, "--sort", "colour"]).ends_with(2);
    live.leave();
}

pub fn watch_measures_rates() {
    let name = Name::new("rates");
    let table = HandleTable::join(&options().create(&name.0).unwrap()).unwrap();
    let mut child = runs::command(&["watch", &name.0, "--json", "--interval", "20"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seats = lines.map(|line| {
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        line["seats"][0].clone()
    });
    let first = seats.next().unwrap();
    assert_eq!(
        (&first["owned"], &first["made_per_s"], &first["cpu"]),
        (&json!(0), &json!(null), &json!(null))
    );
    let start = Instant::now();
    let mut seen = |key: &str, work: &mut dyn FnMut()| loop {
        work();
        let seat = seats.next().unwrap();
        if seat[key].as_f64() > Some(0.0) {
            return seat;
        }
        assert!(start.elapsed() < DEADLINE, "{key}: {seat}");
    };
    let mut arrays = Vec::new();
    let seat = seen("made_per_s", &mut || {
        arrays.push(table.zeros::<u8, _>(1000).unwrap());
    });
    let owned = seat["owned"].as_u64().unwrap();
    assert_eq!(seat["owned_bytes"].as_u64(), Some(1000 * owned), "{seat}");
    seen("freed_per_s", &mut || {
        for array in arrays.drain(..) {
            table.free(array).unwrap();
        }
    });
    seen("cpu", &mut || {
        std::hint::black_box((0..1_000_000u64).fold(1, |a, b| a ^ b.rotate_left(3)));
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

pub fn watch_survives_damage() {
    let name = Name::new("damaged");
    let segment = options().create(&name.0).unwrap();
    let table = HandleTable::join(&segment).unwrap();
    let handles = populate(&table);
    let file = File::options()
        .write(true)
        .open(format!("/dev/shm/{}", name.0))
        .unwrap();
    // The words of the first 2,048 slots, among them those of all arrays.
    file.write_all_at(&[0xa5; 1 << 14], 0x4000).unwrap();
    let mut session = Session::start(&["watch", &name.0, "--interval", "30"]);
    session.shows(&["arrays: none"]);
    session.press("q");
    session.ends_with(0);
    piped(&["plot", &name.0, &handles[0].to_string()]).ends_with(3);
    // The header.
    file.write_all_at(&[0xa5; 8], 0).unwrap();
    let session = Session::start(&["watch", &name.0]);
    let said = session.ends_with(1);
    assert!(said.contains("ndshm: "), "{said}");
    piped(&["plot", &name.0, &handles[0].to_string()]).ends_with(1);
    std::mem::forget(table);
}

pub fn watch_once_needs_no_terminal() {
    let live = Live::named("lines");
    piped(&["watch", &live.place]).ends_with(2);
    let text = piped(&["watch", &live.place, "--once"]);
    let text = &text.ends_with(0).out;
    assert!(
        text.contains("participants") && text.contains("layer/plain"),
        "{text}"
    );
    let line = runs::json(&["watch", &live.place, "--once"]);
    let line = line.ends_with(0).json();
    assert_eq!(line["arrays"], 10);
    assert_eq!(line["seats"][0]["pid"], live.pid());
    assert_eq!(line["seats"][0]["writes"], 1);
    assert_eq!(line["made_per_s"], json!(null));
    live.leave();
}
