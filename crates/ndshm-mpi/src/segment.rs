//! One anonymous segment per node, handed from its first rank to the others through a socket.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use mpi::topology::{Process, SimpleCommunicator};
use mpi::traits::*;
use ndshm::Segment;

use crate::error::{Error, Result};

/// How long one rank waits for another that is in the same call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The name of the socket, and a secret that only the ranks of the node know.
const KEY: usize = 32;

/// Returns the node's segment. Collective among `ranks`, the ranks of the node, which are the ranks
/// `world_ranks` of all.
///
/// The segment has no name, so nothing is left behind, however the job ends. It is pinned, because
/// a network driver may have registered its pages.
pub(crate) fn of_node(ranks: &SimpleCommunicator, world_ranks: &[i32]) -> Result<Segment> {
    let first = ranks.process_at_rank(0);
    let mut key = [0u8; KEY];
    if ranks.rank() != 0 {
        first.broadcast_into(&mut key[..]);
        return receive(ranks, &key, world_ranks);
    }
    let made = make(&mut key, world_ranks.len());
    if made.is_err() {
        key = [0; KEY];
    }
    first.broadcast_into(&mut key[..]);
    let (segment, listener) = made?;
    let mut failed = None;
    for (rank, &world_rank) in world_ranks.iter().enumerate().skip(1) {
        // One after the other: no backlog is exceeded, and an outcome has a rank.
        let process = ranks.process_at_rank(rank as i32);
        process.send(&[1u8]);
        let mut report = report_of(&process);
        if report.is_none() {
            let sent = serve(&listener, &key, &segment);
            report = report_of(&process).map(|(host, problem)| match sent {
                Ok(()) => (host, problem),
                Err(error) => (host, format!("{problem} (its first rank: {error})")),
            });
        }
        if let Some((host, problem)) = report
            && failed.is_none()
        {
            failed = Some(Error::NotJoined {
                rank: world_rank,
                host,
                leader: world_ranks[0],
                problem,
            });
        }
    }
    let mut outcome = [u8::from(failed.is_some())];
    first.broadcast_into(&mut outcome[..]);
    match failed {
        Some(error) => Err(error),
        None => Ok(segment),
    }
}

/// Receives a rank's report: its machine and problem, or `None` if all is well.
fn report_of(process: &Process<'_>) -> Option<(String, String)> {
    let (report, _) = process.receive_vec::<u8>();
    let report = String::from_utf8_lossy(&report).into_owned();
    let (host, problem) = report.split_once('\n')?;
    Some((host.to_owned(), problem.to_owned()))
}

/// Seats of a node beside those of its ranks: for pools of theirs, and programs that look.
const MORE_SEATS: usize = 256;

fn make(key: &mut [u8; KEY], ranks: usize) -> Result<(Segment, UnixListener)> {
    let problem = |error: io::Error| Error::Argument {
        call: "Node::from_comm".into(),
        problem: format!("no socket for the segment of this node: {error}"),
    };
    let seats = (ranks + MORE_SEATS) as u32;
    let segment = Segment::options().pinned(true).seats(seats).anonymous()?;
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(key));
    random.map_err(problem)?;
    let listener = address(key).and_then(|address| UnixListener::bind_addr(&address));
    let listener = listener.map_err(problem)?;
    listener.set_nonblocking(true).map_err(problem)?;
    Ok((segment, listener))
}

/// Returns an address without a file, which vanishes with the socket.
fn address(key: &[u8; KEY]) -> io::Result<SocketAddr> {
    let name: String = key[..KEY / 2].iter().map(|b| format!("{b:02x}")).collect();
    SocketAddr::from_abstract_name(format!("ndshm-mpi-{name}"))
}

/// Sends the segment to the rank whose turn it is.
fn serve(listener: &UnixListener, key: &[u8; KEY], segment: &Segment) -> Result<(), String> {
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let setup = stream
                    .set_nonblocking(false)
                    .and_then(|()| stream.set_read_timeout(Some(TIMEOUT)));
                setup.map_err(|error| error.to_string())?;
                let mut secret = [0; KEY / 2];
                // Anybody on the machine can connect, so only the secret counts.
                if stream.read_exact(&mut secret).is_ok() && secret == key[KEY / 2..] {
                    return segment
                        .send_to(&stream, TIMEOUT)
                        .map_err(|error| error.to_string());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
        if start.elapsed() > TIMEOUT {
            return Err(format!("no connection within {TIMEOUT:?}"));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Receives the segment from the first rank, and tells it the outcome.
fn receive(ranks: &SimpleCommunicator, key: &[u8; KEY], world_ranks: &[i32]) -> Result<Segment> {
    let first = ranks.process_at_rank(0);
    let elsewhere = || Error::Elsewhere {
        rank: world_ranks[0],
    };
    if *key == [0; KEY] {
        return Err(elsewhere());
    }
    first.receive_vec::<u8>();
    let report = |problem: Option<&String>| match problem {
        Some(problem) => first.send(format!("{}\n{problem}", host()).as_bytes()),
        None => first.send(&[0u8; 0]),
    };
    let connected = connect(key);
    report(connected.as_ref().err());
    let received = connected.and_then(|stream| {
        let received = Segment::receive_from(&stream, TIMEOUT).map_err(|error| error.to_string());
        report(received.as_ref().err());
        received
    });
    let mut outcome = [0u8];
    first.broadcast_into(&mut outcome[..]);
    match (received, outcome) {
        (Ok(segment), [0]) => Ok(segment),
        _ => Err(elsewhere()),
    }
}

fn connect(key: &[u8; KEY]) -> Result<UnixStream, String> {
    let text = |error: io::Error| format!("cannot connect to its first rank: {error}");
    let mut stream = address(key)
        .and_then(|address| UnixStream::connect_addr(&address))
        .map_err(text)?;
    stream.write_all(&key[KEY / 2..]).map_err(text)?;
    Ok(stream)
}

/// Returns the name of this machine.
fn host() -> String {
    mpi::environment::processor_name().unwrap_or_else(|_| "an unknown machine".into())
}
