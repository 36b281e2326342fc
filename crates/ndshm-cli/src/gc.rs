//! `ndshm gc`: removes what crashed programs left behind.

mod report;

use std::os::unix::fs::{FileExt, MetadataExt};

use ndshm::segment::Removal;
use ndshm::{HandleTable, Observer, Segment};

use crate::output::{Code, Failure, Output};
use crate::survey::{self, FoundSegment, State};
use crate::target::Place;

const HELP: &str = "\
Without --yes nothing is changed: the command prints what it would do.

A named segment is removed if no process is in it. The library itself decides this, under its own \
lock: a name is never removed while a process opens it. A persistent segment stays unless \
--persistent is given. If a segment is in use, everything that its dead participants held is \
reclaimed, as by the next process that joins. A segment that is damaged or of another release, \
and a file that begins with zeros (a segment whose creator died at once, or any program's file), \
is left alone unless it is named.

JSON: a list of {segment, finding: deserted|persistent|dead_seats|damaged|unfinished, dead_seats, \
resident, action: remove|reap|none, done, command, problem}. `done` is false in a dry run; \
`command` is the command that cleans up what is not done, or null.

Exit code 1 if there is something to do and no --yes, 4 if something could not be done.";

/// Clean up after crashed programs; only a dry run without --yes
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Only these segments: names, or PID:FD
    segments: Vec<String>,
    /// Make the changes
    #[arg(long)]
    yes: bool,
    /// Also remove persistent segments
    #[arg(long)]
    persistent: bool,
}

/// The problem of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Finding {
    /// No process is in it.
    Deserted,
    /// No process is in it, and it is persistent.
    Persistent,
    /// A process is in it, and a participant has died in it.
    DeadSeats,
    /// It is a segment, but cannot be opened: damaged, or of another release.
    Damaged,
    /// It begins with zeros.
    Unfinished,
}

impl Finding {
    fn name(self) -> &'static str {
        match self {
            Finding::Deserted => "deserted",
            Finding::Persistent => "persistent",
            Finding::DeadSeats => "dead_seats",
            Finding::Damaged => "damaged",
            Finding::Unfinished => "unfinished",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Finding::Deserted => "no process is in it",
            Finding::Persistent => "no process is in it, but it is persistent",
            Finding::DeadSeats => "some of its participants died",
            Finding::Damaged => "cannot be opened: damaged, or of another release",
            Finding::Unfinished => "begins with zeros: never initialized, or not a segment",
        }
    }
}

/// A segment that needs cleaning up.
pub struct Leftover {
    place: Place,
    finding: Finding,
    dead: usize,
    resident: u64,
    removed: bool,
    problem: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Remove,
    Reap,
    None,
}

impl Leftover {
    /// Returns `true` if `--yes` cleans it up without further options.
    pub fn is_cleanable(&self) -> bool {
        matches!(self.finding, Finding::Deserted | Finding::DeadSeats)
    }

    fn action(&self, args: &Args) -> Action {
        let named = !args.segments.is_empty();
        match self.finding {
            Finding::Deserted => Action::Remove,
            Finding::Persistent if args.persistent => Action::Remove,
            Finding::DeadSeats => Action::Reap,
            Finding::Damaged | Finding::Unfinished if named => Action::Remove,
            _ => Action::None,
        }
    }
}

/// Finds the leftovers and, with `--yes`, removes them.
pub fn run(args: &Args, out: &Output) -> Result<Code, Failure> {
    let mut leftovers = match args.segments.is_empty() {
        true => all(),
        false => {
            let named = args.segments.iter().map(|text| one(Place::parse(text)));
            let named: Vec<Option<Leftover>> = named.collect::<Result<_, _>>()?;
            named.into_iter().flatten().collect()
        }
    };
    if args.yes {
        for leftover in &mut leftovers {
            match perform(
                &leftover.place,
                leftover.finding,
                leftover.action(args),
                args,
            ) {
                Ok(()) => leftover.removed = leftover.action(args) != Action::None,
                Err(failure) => leftover.problem = Some(failure.to_string()),
            }
        }
    }
    match out.json() {
        true => out.document(
            &leftovers
                .iter()
                .map(|it| report::document(it, args))
                .collect(),
        )?,
        false => report::print(&leftovers, args, out)?,
    }
    let open = |leftover: &Leftover| leftover.action(args) != Action::None && !leftover.removed;
    Ok(match leftovers.iter().any(open) {
        true if args.yes => Code::Refused,
        true => Code::Problem,
        false => Code::Done,
    })
}

/// Returns all leftovers of this user, also anonymous segments with dead participants.
pub fn all() -> Vec<Leftover> {
    let mut leftovers: Vec<Leftover> = survey::all(false)
        .into_iter()
        .filter_map(|found| of_found(found).ok().flatten())
        .collect();
    leftovers.extend(
        survey::unfinished()
            .into_iter()
            .map(|(place, resident)| Leftover {
                place,
                finding: Finding::Unfinished,
                dead: 0,
                resident,
                removed: false,
                problem: None,
            }),
    );
    leftovers
}

/// Returns the leftover at `place`; `None` if there is nothing to clean up.
fn one(place: Place) -> Result<Option<Leftover>, Failure> {
    let file = place.file()?;
    let mut first = [0; 8];
    let read = file.read_at(&mut first, 0);
    let metadata = file.metadata();
    match (read, metadata, &place) {
        (Ok(read), Ok(metadata), Place::Named(_))
            if first[..read].iter().all(|&byte| byte == 0) =>
        {
            Ok(Some(Leftover {
                place,
                finding: Finding::Unfinished,
                dead: 0,
                resident: metadata.blocks().saturating_mul(512),
                removed: false,
                problem: None,
            }))
        }
        _ => match survey::inspect(place.clone(), file) {
            Some(found) => of_found(found),
            None => Err(Failure::damaged(format_args!(
                "{place} is not a segment of ndshm"
            ))),
        },
    }
}

fn of_found(found: FoundSegment) -> Result<Option<Leftover>, Failure> {
    let named = matches!(found.place, Place::Named(_));
    let (finding, dead) = match &found.state {
        State::Inspected(contents) if named && !contents.members && contents.persistent => {
            (Finding::Persistent, contents.dead)
        }
        State::Inspected(contents) if named && !contents.members => {
            (Finding::Deserted, contents.dead)
        }
        State::Inspected(contents) if contents.dead > 0 => (Finding::DeadSeats, contents.dead),
        State::Damaged(_) | State::Version(_) if named => (Finding::Damaged, 0),
        _ => return Ok(None),
    };
    Ok(Some(Leftover {
        finding,
        dead,
        resident: found.resident(),
        removed: false,
        problem: None,
        place: found.place,
    }))
}

fn perform(place: &Place, finding: Finding, action: Action, args: &Args) -> Result<(), Failure> {
    match (action, place) {
        (Action::None, _) => Ok(()),
        (Action::Remove, Place::Named(name)) => {
            let options = Segment::options().persistent(args.persistent);
            let removal = match finding {
                Finding::Unfinished => options.remove_unfinished(name)?,
                _ => options.remove(name)?,
            };
            match removal {
                Removal::Removed => Ok(()),
                Removal::Persistent => Err(Failure::refused(
                    "it is persistent: --persistent removes it",
                )),
                _ => Err(Failure::refused("a process is in it now")),
            }
        }
        (Action::Remove | Action::Reap, _) => {
            // Joining reaps the dead.
            HandleTable::join(&place.enter()?)?;
            let dead = |observer: Observer| -> Result<usize, Failure> {
                Ok(observer.seats()?.iter().filter(|seat| !seat.alive).count())
            };
            match place.observe().and_then(dead) {
                Ok(0) => Ok(()),
                // The join above was the last process to leave, and removed the name.
                Err(_) if place.file().is_err() => Ok(()),
                Ok(left) => Err(Failure::refused(format_args!("{left} dead seats are left"))),
                Err(failure) => Err(failure),
            }
        }
    }
}
