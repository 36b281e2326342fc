//! Searches the model that refuses a weakening, and checks those found before.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use loom_tests::steer::{BOUND, SITES, WEAKEN};

use crate::Arguments;
use crate::runs::{Ending, Model, models, weakening};
use crate::scan::{Asked, scan};
use crate::table::{self, Row};

/// The time limit for a run of one model. A slower model is of no use for finding a weakening.
const DEADLINE: Duration = Duration::from_secs(120);

/// Returns `true` if all orderings are needed and listed.
///
/// # Errors
/// If the models cannot be built or run, or if the source cannot be read.
pub fn run(arguments: &Arguments) -> io::Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()?;
    let path = root.join("loom-tests/ORDERINGS.md");
    let listed = table::parse(&std::fs::read_to_string(&path).unwrap_or_default());
    let weakenings: Vec<(Asked, &str)> = scan(&root)?
        .into_iter()
        .flat_map(|asked| {
            let weaker = weaker_than(&asked);
            weaker.iter().map(move |weaker| (asked.clone(), *weaker))
        })
        .filter(|(asked, weaker)| describe(asked, weaker).contains(&arguments.only))
        .collect();
    let models = models(&root)?;
    println!("{} weakenings, {} models", weakenings.len(), models.len());
    if arguments.check {
        return check(&root, arguments, &weakenings, &listed, &models);
    }
    let users = who_uses_what(&root, &models)?;
    let searched = in_parallel(&weakenings, |(asked, weaker)| {
        let hint = listed.iter().find(|row| row.is_of(asked, weaker));
        search(&root, asked, weaker, hint, &users, arguments.bound)
    })?;
    let survivors = searched.iter().filter(|row| row.is_none()).count();
    if survivors > 0 {
        println!(
            "{survivors} of {} survive; ORDERINGS.md is left as it was",
            weakenings.len()
        );
        return Ok(false);
    }
    if arguments.only.is_empty() {
        let rows: Vec<Row> = searched.into_iter().flatten().collect();
        std::fs::write(&path, table::print(&rows))?;
        println!("{} weakenings, no survivor: {}", rows.len(), path.display());
    }
    Ok(true)
}

fn weaker_than(asked: &Asked) -> &'static [&'static str] {
    match asked.order.as_str() {
        "SeqCst" => &["AcqRel"],
        "AcqRel" => &["Acquire", "Release"],
        _ => &["Relaxed"],
    }
}

fn describe(asked: &Asked, weaker: &str) -> String {
    let Asked {
        file,
        line,
        function,
        order,
        ..
    } = asked;
    format!("{file}:{line} {function}: {asked} {order} -> {weaker}")
}

/// Compares the table with the code, and runs the models of the rows of this share.
fn check(
    root: &Path,
    arguments: &Arguments,
    weakenings: &[(Asked, &str)],
    listed: &[Row],
    models: &[Model],
) -> io::Result<bool> {
    let unlisted: Vec<_> = weakenings
        .iter()
        .filter(|(asked, weaker)| !listed.iter().any(|row| row.is_of(asked, weaker)))
        .collect();
    for (asked, weaker) in &unlisted {
        println!("not in ORDERINGS.md: {}", describe(asked, weaker));
    }
    let stale: Vec<_> = listed
        .iter()
        .filter(|_| arguments.only.is_empty())
        .filter(|row| {
            !weakenings
                .iter()
                .any(|(asked, weaker)| row.is_of(asked, weaker))
        })
        .collect();
    for row in &stale {
        println!("not in the code: {row:?}");
    }
    let (k, n) = arguments.share;
    let share: Vec<_> = weakenings.iter().skip(k - 1).step_by(n).collect();
    let refused = in_parallel(&share, |(asked, weaker)| {
        let Some(row) = listed.iter().find(|row| row.is_of(asked, weaker)) else {
            return Ok(false);
        };
        let Some(model) = models.iter().find(|model| model.to_string() == row.model) else {
            println!("no such model: {}", row.model);
            return Ok(false);
        };
        let ending = attempt(root, model, asked, weaker, row.bound)?;
        if ending != Ending::Refused {
            println!("SURVIVES {}: {model} {ending:?}", describe(asked, weaker));
        }
        Ok(ending == Ending::Refused)
    })?;
    let caught = refused.iter().filter(|refused| **refused).count();
    println!(
        "{caught} of {} weakenings refused by the listed model",
        share.len()
    );
    Ok(unlisted.is_empty() && stale.is_empty() && caught == share.len())
}

/// A model, its run time with few preemptions, and the places in the source that it uses.
struct User {
    model: Model,
    took: Duration,
    sites: Vec<String>,
}

/// Runs each model unweakened with few preemptions, and returns them with the quickest first.
///
/// Leaves out a model that does not pass with few (because it requires that some event occurs).
fn who_uses_what(root: &Path, models: &[Model]) -> io::Result<Vec<User>> {
    let users = in_parallel(models, |model| {
        let path = std::env::temp_dir().join(format!("ndshm-sites-{}-{model}", std::process::id()));
        let mut passed = true;
        let start = Instant::now();
        for bound in ["0", "1"] {
            let variables = [(SITES, &*path.to_string_lossy()), (BOUND, bound)];
            passed &= model.run(root, &variables, DEADLINE)? == Ending::Passed;
        }
        let took = start.elapsed();
        let sites = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(&path);
        if !passed {
            println!("{model} does not pass unweakened with few preemptions: skipped");
        }
        Ok(passed.then(|| User {
            model: model.clone(),
            took,
            sites: sites.lines().map(str::to_owned).collect(),
        }))
    })?;
    let mut users: Vec<User> = users.into_iter().flatten().collect();
    users.sort_by_key(|user| user.took);
    Ok(users)
}

/// Returns the row of the first model that refuses the weakening.
fn search(
    root: &Path,
    asked: &Asked,
    weaker: &str,
    hint: Option<&Row>,
    users: &[User],
    most: usize,
) -> io::Result<Option<Row>> {
    let part = if asked.look { "Look" } else { "Change" };
    let place = format!("{} {} {} {part} ", asked.file, asked.line, asked.column);
    let using: Vec<&User> = users
        .iter()
        .filter(|user| user.sites.iter().any(|site| site.starts_with(&place)))
        .collect();
    let hinted = hint.and_then(|row| {
        let user = using
            .iter()
            .find(|user| user.model.to_string() == row.model)?;
        Some((*user, row.bound))
    });
    let rest = (0..=most).flat_map(|bound| using.iter().map(move |user| (*user, bound)));
    for (User { model, .. }, bound) in hinted.into_iter().chain(rest) {
        if attempt(root, model, asked, weaker, bound)? == Ending::Refused {
            println!("{}: {model}, bound {bound}", describe(asked, weaker));
            return Ok(Some(Row {
                file: asked.file.clone(),
                function: asked.function.clone(),
                operation: asked.to_string(),
                order: asked.order.clone(),
                weaker: weaker.to_owned(),
                model: model.to_string(),
                bound,
            }));
        }
    }
    let names: Vec<String> = using.iter().map(|user| user.model.to_string()).collect();
    println!(
        "SURVIVES {}: {}",
        describe(asked, weaker),
        match names.len() {
            0 => "no model uses it".to_owned(),
            _ => names.join(", "),
        }
    );
    Ok(None)
}

fn attempt(
    root: &Path,
    model: &Model,
    asked: &Asked,
    weaker: &str,
    bound: usize,
) -> io::Result<Ending> {
    let variables = [
        (WEAKEN, &*weakening(asked, weaker)),
        (BOUND, &*bound.to_string()),
    ];
    model.run(root, &variables, DEADLINE)
}

/// Calls `work` on each item, on one thread per processor. Returns the results in order.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> io::Result<R> + Sync,
) -> io::Result<Vec<R>> {
    let next = Mutex::new(0..items.len());
    let results = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(at) = next.lock().ok().and_then(|mut next| next.next()) {
                    let result = work(&items[at]);
                    if let Ok(mut results) = results.lock() {
                        results.insert(at, result);
                    }
                }
            });
        }
    });
    let results = results
        .into_inner()
        .unwrap_or_else(|results| results.into_inner());
    results.into_values().collect()
}
