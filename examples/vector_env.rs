//! A vectorised environment: worker processes step many copies of a game, and the agent takes them
//! as they become ready.
//!
//! Each environment has an observation of 84 x 84 x 4 bytes, a reward and a flag for the end of an
//! episode. These lie in shared arrays, like its action and its state. The agent (this process)
//! takes any `--batch` environments that are ready, reads their observations in place, writes
//! actions, and starts their next step. No environment waits for the slowest, and nothing is copied
//! or pickled. With `--lockstep` all environments step together instead, for comparison.
//!
//! The game is *catch*: a ball falls, a paddle moves left or right, and an episode ends when the
//! ball arrives. Some steps take longer than others, as in real simulators (`--slow`).
//!
//! ```sh
//! cargo run --release --example vector_env
//! cargo run --release --example vector_env -- --backend spawn --envs 128 --batch 32
//! ```

#[path = "common/mod.rs"]
#[allow(dead_code, unused_imports, reason = "each example uses its own part")]
mod common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use common::{Bar, Crew, Result, count};
use ndarray::{ArrayView3, ArrayViewMut1, ArrayViewMut4, Axis, Ix1, Ix4, s};
use ndshm::{Handle, HandleTable, OnFailure, Partition, Pool, Segment, TileContext, Write};
use rand_core::{Rng, SeedableRng};

const SIDE: usize = 84;
/// Frames of an observation, the newest first, as usual for agents that learn from pixels.
const FRAMES: usize = 4;
/// Half the width of the paddle, in pixels.
const PADDLE: i32 = 6;
/// Pixels by which the ball and the paddle move in a step.
const SPEED: i32 = 3;

#[derive(Parser)]
struct Options {
    /// Number of environments.
    #[arg(long, default_value = "64", value_parser = from_one)]
    envs: usize,
    /// Steps of all environments together.
    #[arg(long, default_value_t = 40_000)]
    steps: usize,
    /// Number of environments that the agent takes at once.
    #[arg(long, default_value = "16", value_parser = from_one)]
    batch: usize,
    #[command(flatten)]
    crew: Crew,
    /// Additional microseconds of one step in 16.
    #[arg(long, default_value_t = 300)]
    slow: u64,
    /// Step all environments together, and wait for the slowest.
    #[arg(long)]
    lockstep: bool,
    /// Let one environment panic and one kill its worker, each time they have made this number of
    /// steps.
    #[arg(long, value_name = "STEPS", conflicts_with = "lockstep", value_parser = from_one)]
    faults: Option<usize>,
}

fn from_one(text: &str) -> std::result::Result<usize, String> {
    count(text, 1..=1_000_000)
}

/// The environment that panics, and the one that kills its worker.
const PANICS: usize = 3;
const DIES: usize = 11;

/// Parameters of a step: additional microseconds of a slow one, steps between two faults, and the
/// agent's process.
type Params = (u64, u64, u32);

impl Options {
    fn params(&self) -> Params {
        (
            self.slow,
            self.faults.map_or(u64::MAX, |steps| steps as u64),
            std::process::id(),
        )
    }
}

/// State of an environment between steps.
#[derive(Clone, Copy)]
#[repr(C)]
struct State {
    /// Column and row of the ball.
    ball: [i32; 2],
    /// Column of the paddle's middle.
    paddle: i32,
    /// State of its own generator: an episode depends only on the environment's state.
    random: u64,
}

/// The word after the state: the time of the last fault, in nanoseconds since 1970.
const FAULT: usize = State::WORDS;

impl State {
    const WORDS: usize = 4;

    fn load(words: &ArrayViewMut1<'_, u64>) -> State {
        State {
            ball: [words[0] as i32, words[1] as i32],
            paddle: words[2] as i32,
            random: words[3],
        }
    }

    fn store(&self, words: &mut ArrayViewMut1<'_, u64>) {
        words[0] = self.ball[0] as u64;
        words[1] = self.ball[1] as u64;
        words[2] = self.paddle as u64;
        words[3] = self.random;
    }

    fn next_random(&mut self) -> u64 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(self.random);
        self.random = rng.next_u64();
        rng.next_u64()
    }

    /// Places the ball at the top, and the paddle at random.
    fn reset(&mut self) {
        let random = self.next_random();
        self.ball = [(random % SIDE as u64) as i32, 0];
        self.paddle = (random >> 32) as i32 % SIDE as i32;
        self.paddle = self.paddle.abs();
    }

    /// Takes one step. Returns the reward, and `true` if the episode is over.
    fn step(&mut self, action: u8) -> (f32, bool) {
        let limit = SIDE as i32 - 1;
        self.paddle = (self.paddle + (i32::from(action) - 1) * SPEED).clamp(0, limit);
        self.ball[1] += SPEED;
        if self.ball[1] < limit {
            return (0.0, false);
        }
        let caught = (self.ball[0] - self.paddle).abs() <= PADDLE;
        self.reset();
        (if caught { 1.0 } else { -1.0 }, true)
    }

    fn draw(&self, mut frames: ndarray::ArrayViewMut3<'_, u8>) {
        for frame in (1..FRAMES).rev() {
            let (newer, mut older) =
                frames.multi_slice_mut((s![.., .., frame - 1], s![.., .., frame]));
            older.assign(&newer);
        }
        let mut newest = frames.index_axis_mut(Axis(2), 0);
        newest.fill(0);
        let pixel = |at: i32| at.clamp(0, SIDE as i32 - 1) as usize;
        newest[[pixel(self.ball[1]), pixel(self.ball[0])]] = 255;
        let paddle = pixel(self.paddle - PADDLE)..=pixel(self.paddle + PADDLE);
        newest.slice_mut(s![SIDE - 1, paddle]).fill(128);
    }
}

/// Observation, reward, done, action, state: each tile holds those of one environment.
type Envs = (
    Write<u8, Ix4>,
    Write<f32, Ix1>,
    Write<bool, Ix1>,
    Write<u8, Ix1>,
    Write<u64, ndarray::Ix2>,
);

type Views<'a> = (
    ArrayViewMut4<'a, u8>,
    ArrayViewMut1<'a, f32>,
    ArrayViewMut1<'a, bool>,
    ArrayViewMut1<'a, u8>,
    ndarray::ArrayViewMut2<'a, u64>,
);

/// Returns the time in nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_nanos() as u64
}

/// Fails, if it is time to: half-way in a step.
fn fail(mut state: ArrayViewMut1<'_, u64>, faults: u64, agent: u32, tile: &TileContext) {
    if tile.run() % faults != faults - 1 {
        return;
    }
    let is_process = std::process::id() != agent;
    if tile.index() == PANICS || tile.index() == DIES && is_process {
        state.fill(u64::MAX);
        state[FAULT] = now();
    }
    match tile.index() {
        PANICS => panic!("the emulator has crashed"),
        // SAFETY: no precondition.
        DIES if is_process => drop(unsafe { libc::raise(libc::SIGKILL) }),
        _ => {}
    }
}

/// Takes one step of each environment in a tile. This is the kernel.
fn step(views: Views<'_>, params: &Params, tile: &TileContext) {
    let (mut observation, mut reward, mut done, action, mut states) = views;
    let &(slow, faults, agent) = params;
    fail(states.row_mut(0), faults, agent, tile);
    for env in 0..action.len() {
        let mut words = states.row_mut(env);
        let mut state = State::load(&words);
        (reward[env], done[env]) = state.step(action[env]);
        if state.next_random().is_multiple_of(16) {
            std::thread::sleep(Duration::from_micros(slow));
        }
        state.draw(observation.index_axis_mut(Axis(0), env));
        state.store(&mut words);
    }
}

/// Returns the agent's action: towards the ball, as seen in the newest frame.
fn act(observation: ArrayView3<'_, u8>) -> u8 {
    let newest = observation.index_axis(Axis(2), 0);
    let ball = newest.indexed_iter().find(|&(_, &pixel)| pixel == 255);
    let bottom = newest.row(SIDE - 1);
    let paddle: Vec<usize> = (0..SIDE).filter(|&column| bottom[column] == 128).collect();
    match (ball, paddle.is_empty()) {
        (Some(((_, ball), _)), false) => {
            let middle = paddle.iter().sum::<usize>() as f64 / paddle.len() as f64;
            match ball as f64 - middle {
                left if left < -1.5 => 0,
                right if right > 1.5 => 2,
                _ => 1,
            }
        }
        _ => 1,
    }
}

/// Statistics of the agent.
#[derive(Default)]
struct Seen {
    steps: usize,
    episodes: usize,
    reward: f64,
    /// Milliseconds from each panic of an environment to its report.
    panics: Vec<f64>,
    /// The same for each death of a worker.
    deaths: Vec<f64>,
}

impl Seen {
    /// Reads one environment, and writes its next action.
    fn look(&mut self, views: Views<'_>) {
        let (observation, reward, done, mut action, _) = views;
        for env in 0..action.len() {
            self.steps += 1;
            self.episodes += usize::from(done[env]);
            self.reward += f64::from(reward[env]);
            action[env] = act(observation.index_axis(Axis(0), env));
        }
    }
}

/// Returns a word of the state with which an environment begins.
fn first_state(env: usize, word: usize) -> u64 {
    match word {
        // The balls start at different heights, or all episodes would end at once.
        1 => (env * SPEED as usize % SIDE) as u64,
        3 => env as u64 + 1,
        FAULT => 0,
        _ => SIDE as u64 / 2,
    }
}

/// Makes a failed environment anew. Returns the milliseconds since its fault.
fn reset(views: Views<'_>, env: usize) -> f64 {
    let (mut observation, mut reward, mut done, mut action, mut states) = views;
    let after = now().saturating_sub(states[[0, FAULT]]) as f64 / 1e6;
    for ((_, word), value) in states.indexed_iter_mut() {
        *value = first_state(env, word);
    }
    observation.fill(0);
    reward.fill(0.0);
    done.fill(false);
    action.fill(1);
    after
}

fn print_reports(faults: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
        println!(
            "{} {faults} reported after {median:.2} ms (median), {longest:.2} ms at most",
            times.len()
        );
    }
}

fn main() -> Result<()> {
    ndshm::become_worker();
    let options = Options::parse();
    let table = HandleTable::join(&Segment::anonymous()?)?;
    let observation: Handle<u8, Ix4> = table.zeros((options.envs, SIDE, SIDE, FRAMES))?;
    let reward = table.zeros::<f32, _>(options.envs)?;
    let done = table.from_elem(options.envs, false)?;
    let action = table.from_elem(options.envs, 1u8)?;
    let shape = (options.envs, State::WORDS + 1);
    let states = table.from_shape_fn(shape, |(env, word)| first_state(env, word))?;
    let group = (
        observation.write(),
        reward.write(),
        done.write(),
        action.write(),
        states.write(),
    );
    let envs = table.partition(group, Axis(0), 1)?;
    let mut pool = options.crew.start(&table)?;
    pool.set_profiling(true);

    let start = Instant::now();
    let seen = match options.lockstep {
        true => together(&options, &table, &envs, &mut pool)?,
        false => as_they_become_ready(&options, &envs, &mut pool)?,
    };
    let took = start.elapsed().as_secs_f64();

    let bytes = (seen.steps * SIDE * SIDE * FRAMES) as f64;
    println!(
        "{} environments on {}, {}",
        options.envs,
        options.crew.describe(&pool),
        match options.lockstep {
            true => "all together".to_owned(),
            false => format!("{} at a time as they become ready", options.batch),
        }
    );
    println!(
        "{} steps in {took:.2} s: {:.0} a second, {:.0} MB of observations a second",
        seen.steps,
        seen.steps as f64 / took,
        bytes / took / 1e6
    );
    println!(
        "{} episodes, mean reward {:+.3}",
        seen.episodes,
        seen.reward / seen.episodes.max(1) as f64
    );
    for worker in pool.stats() {
        println!("{worker}");
    }
    print_reports("panics", seen.panics);
    print_reports("deaths", seen.deaths);
    // The paddle reaches every ball that is not too far away, so it catches most of them.
    if seen.episodes > 100 && seen.reward < 0.5 * seen.episodes as f64 {
        return Err("the agent misses the ball: its observations must be wrong".into());
    }
    Ok(())
}

/// Takes environments as they become ready. With `--faults` it makes those anew that have failed.
fn as_they_become_ready(
    options: &Options,
    envs: &Partition<'_, Envs>,
    pool: &mut Pool<'_>,
) -> Result<Seen> {
    let mut seen = Seen::default();
    let bar = Bar::new(options.steps);
    let policy = match options.faults {
        Some(_) => OnFailure::Skip,
        None => OnFailure::Fail,
    };
    let started = pool.start(envs, &options.params(), step)?;
    let mut running = started.on_failure(policy);
    while seen.steps < options.steps {
        let arrived = running.wait_any(options.batch)?;
        for failed in arrived.failed {
            // A tile is one environment.
            let (env, mut after) = (failed.index(), 0.0);
            failed.repair(|views| after = reset(views, env))?.rerun();
            seen.panics.push(after);
        }
        for lost in arrived.lost {
            let (env, mut after) = (lost.index(), 0.0);
            lost.repair(|views| after = reset(views, env))?.rerun();
            seen.deaths.push(after);
        }
        for mut ready in arrived.ready {
            seen.look(ready.views());
            ready.rerun();
        }
        bar.show(seen.steps);
    }
    running.finish()?;
    bar.clear();
    Ok(seen)
}

/// Steps all environments, then looks at all.
fn together(
    options: &Options,
    table: &HandleTable,
    envs: &Partition<'_, Envs>,
    pool: &mut Pool<'_>,
) -> Result<Seen> {
    let mut seen = Seen::default();
    let bar = Bar::new(options.steps);
    let (observation, reward, done, action, states) = envs.group();
    while seen.steps < options.steps {
        pool.for_each(envs, &options.params(), step)?;
        seen.look((
            table.write(observation.handle())?.view_mut(),
            table.write(reward.handle())?.view_mut(),
            table.write(done.handle())?.view_mut(),
            table.write(action.handle())?.view_mut(),
            table.write(states.handle())?.view_mut(),
        ));
        bar.show(seen.steps);
    }
    bar.clear();
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    #[test]
    fn the_paddle_follows_the_ball() {
        let mut frames = Array3::zeros((SIDE, SIDE, FRAMES));
        let mut state = State {
            ball: [10, 0],
            paddle: 60,
            random: 1,
        };
        let outcome = loop {
            state.draw(frames.view_mut());
            let action = act(frames.view());
            let before = state.paddle;
            match state.step(action) {
                (_, false) => assert!(state.paddle <= before),
                over => break over,
            }
        };
        assert_eq!(outcome, (1.0, true));
        assert_eq!(frames.iter().filter(|&&pixel| pixel == 255).count(), FRAMES);
    }
}
