//! A data loader of unrelated programs: one reads files, any others count their lines.
//!
//! The producer reads each file into an array of the segment, and pushes it into a queue with a name.
//! Consumers find the queue and take arrays out of it. An array stays bound to its consumer until the
//! consumer acknowledges it. No program has started another one or knows it. They may start in any
//! order, join late, and be killed at any moment: then the array in their hands goes to another
//! consumer. So every file is counted.
//!
//! ```sh
//! loader=target/release/examples/loader       # cargo build --release --example loader
//! $loader consume files & $loader consume files &
//! $loader produce files src/*.rs              # prints what `wc -l src/*.rs` prints
//! ```
//!
//! `cargo run --release --example loader` does this with files of its own. It kills one of three
//! consumers while that one has a file, and compares the counts with its own.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use bytemuck::{Pod, Zeroable};
use ndarray::{ArrayView1, Ix1};
use ndshm::queue::OwnedArray;
use ndshm::{Handle, HandleTable};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The contents of a file.
type Text = Handle<u8, Ix1>;

/// A consumer's report.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Count {
    text: Text,
    lines: u64,
}

/// Files that are in the queue or with consumers at the same time, and so in memory.
const AHEAD: usize = 8;
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["produce", segment, ref files @ ..] if !files.is_empty() => produce(segment, files),
        ["consume", segment] => consume(segment, false),
        ["stall", segment] => consume(segment, true),
        [] => show(),
        _ => Err("usage: loader [produce SEGMENT FILE.. | consume SEGMENT]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loader: {error}");
            ExitCode::FAILURE
        }
    }
}

fn produce(segment: &str, files: &[&str]) -> Result<()> {
    let table = HandleTable::open_or_create(segment)?;
    // Room for all: no consumer waits for a producer that waits itself.
    let counts = table.queue::<Count>(files.len())?;
    table.publish("counts", counts.handle())?;
    let texts = table.queue::<OwnedArray<u8, Ix1>>(AHEAD)?;
    table.publish("texts", texts.handle())?;

    let mut numbers = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
        let text = table.owned(table.from_array(&ArrayView1::from(&bytes))?);
        numbers.insert(text.handle().to_bits(), number);
        texts
            .push_owned_timeout(text, PATIENCE)
            .map_err(ndshm::Error::from)?;
    }
    texts.close();
    // A consumer that dies between its report and `ack` has reported a text that comes back: the same
    // report comes twice.
    let mut lines = vec![None; files.len()];
    while lines.contains(&None) {
        let count = counts
            .pop_timeout(PATIENCE)?
            .ok_or("no consumer is at work")?;
        if let Some(&number) = numbers.get(&count.text.to_bits()) {
            lines[number] = Some(count.lines);
        }
    }
    let lines: Vec<u64> = lines.into_iter().flatten().collect();
    for (file, lines) in files.iter().zip(&lines) {
        println!("{lines:8} {file}");
    }
    println!("{:8} total", lines.iter().sum::<u64>());
    Ok(())
}

fn consume(segment: &str, stalls: bool) -> Result<()> {
    let table = HandleTable::open_or_create(segment)?;
    table.find_any_wait("texts", PATIENCE)?;
    let texts = table.find_queue::<OwnedArray<u8, Ix1>>("texts")?;
    let counts = table.find_queue::<Count>("counts")?;
    if !stalls {
        println!("at work");
    }
    while let Some(text) = texts.pop_owned_with_ack_timeout(PATIENCE)? {
        if text.deliveries() > 1 {
            eprintln!(
                "{}: its consumer has died, counting it again",
                text.handle()
            );
        }
        if stalls {
            println!("it has a text");
            std::thread::sleep(PATIENCE);
        }
        let lines = table
            .read(text.handle())?
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        let count = Count {
            text: text.handle(),
            lines: lines as u64,
        };
        counts.push_timeout(count, PATIENCE)?;
        // This program owns the text now, and frees it.
        drop(text.ack()?);
    }
    Ok(())
}

/// Shows it: a producer, three consumers, of which one is killed, and files to count.
fn show() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("ndshm-loader-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let shown = show_in(&folder);
    std::fs::remove_dir_all(&folder)?;
    shown
}

fn show_in(folder: &Path) -> Result<()> {
    let lines = |file: usize| file * file % 997;
    let files: Vec<PathBuf> = (0..200)
        .map(|file| folder.join(format!("{file:03}.txt")))
        .collect();
    for (file, path) in files.iter().enumerate() {
        std::fs::write(path, "a line\n".repeat(lines(file)))?;
    }
    let segment = format!("ndshm-loader-{}", std::process::id());
    let program = std::env::current_exe()?;
    let start = |role: &str| {
        let mut command = Command::new(&program);
        command.args([role, &segment]).stdout(Stdio::piped());
        command
    };

    let mut victim = start("stall").spawn()?;
    let producer = start("produce").args(&files).spawn()?;
    wait_for_word(&mut victim)?;
    // While the victim has its text, the producer waits for the count: the consumers are in time.
    let mut consumers = [start("consume").spawn()?, start("consume").spawn()?];
    for consumer in &mut consumers {
        wait_for_word(consumer)?;
    }
    victim.kill()?;
    victim.wait()?;

    let output = producer.wait_with_output()?;
    let counted = String::from_utf8(output.stdout)?;
    let mut expected = String::new();
    for (file, path) in files.iter().enumerate() {
        expected += &format!("{:8} {}\n", lines(file), path.display());
    }
    let total: usize = (0..files.len()).map(lines).sum();
    expected += &format!("{total:8} total\n");
    for consumer in consumers {
        if !consumer.wait_with_output()?.status.success() {
            return Err("a consumer has failed".into());
        }
    }
    if !output.status.success() || counted != expected {
        return Err(format!("the counts are wrong:\n{counted}").into());
    }
    println!(
        "{} files, {total} lines, each counted once; one of three consumers was killed",
        files.len()
    );
    Ok(())
}

/// Waits until a program prints something.
fn wait_for_word(program: &mut Child) -> Result<()> {
    let output = program.stdout.as_mut().expect("it is piped");
    Ok(output.read_exact(&mut [0])?)
}
