//! Runs another process instruction by instruction, to any of them, and kills it there.
//!
//! To reach instruction k, the process runs to a breakpoint near before k, found by counting how
//! often its address is reached. From there it is stepped.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::ptr;

use crate::support::exit_at_once;

/// The instruction that traps, and the distance of the program counter behind it afterwards.
#[cfg(target_arch = "x86_64")]
const BREAKPOINT: (&[u8], u64) = (&[0xcc], 1);
#[cfg(target_arch = "aarch64")]
const BREAKPOINT: (&[u8], u64) = (&[0x00, 0x00, 0x20, 0xd4], 0);

/// The instruction that enters the kernel.
#[cfg(target_arch = "x86_64")]
const SYSCALL: &[u8] = &[0x0f, 0x05];
#[cfg(target_arch = "aarch64")]
const SYSCALL: &[u8] = &[0x01, 0x00, 0x00, 0xd4];

/// Marks the begin and the end of a victim's operation.
#[inline(never)]
pub extern "C" fn mark() {
    std::hint::black_box(());
}

/// The way in which a process stopped or ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// By this signal.
    Signal(i32),
    Exited(i32),
    Killed(i32),
}

/// A forked child under control, stopped at its first [`mark`].
pub struct Victim {
    pid: i32,
    text: File,
    gone: bool,
}

/// Returns `true` if this process may trace its children, which some containers forbid.
pub fn may_trace() -> bool {
    let child = crate::support::Child::fork(|| {
        // SAFETY: the request takes no address; nothing is traced further, because the child ends
        // at once.
        let answer = unsafe { libc::ptrace(libc::PTRACE_TRACEME) };
        exit_at_once(i32::from(answer != 0));
    });
    let end = child.wait_within(crate::support::DEADLINE);
    end.is_some_and(|end| end.success())
}

impl Victim {
    /// Forks a child that runs `life`, up to its first mark.
    pub fn start(life: impl FnOnce()) -> io::Result<Victim> {
        // SAFETY: this program starts no thread.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: the request takes no address; the parent is the tracer.
            unsafe { libc::ptrace(libc::PTRACE_TRACEME) };
            // SAFETY: `raise` has no precondition.
            unsafe { libc::raise(libc::SIGSTOP) };
            life();
            exit_at_once(0);
        }
        check(i64::from(pid))?;
        let text = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"));
        let mut victim = Victim {
            pid,
            text: text?,
            gone: false,
        };
        victim.expect(Stop::Signal(libc::SIGSTOP))?;
        let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
        victim.request(libc::PTRACE_SETOPTIONS, options as usize)?;
        victim.run_to(mark as *const () as u64)?;
        Ok(victim)
    }

    /// Returns the next instruction's address.
    pub fn counter(&self) -> io::Result<u64> {
        Ok(program_counter(&mut self.registers()?).to_owned())
    }

    /// Runs one instruction. Returns `false` if the process ended by it.
    pub fn step(&mut self) -> io::Result<bool> {
        self.request(libc::PTRACE_SINGLESTEP, 0)?;
        match self.wait()? {
            Stop::Signal(libc::SIGTRAP) => Ok(true),
            Stop::Exited(_) | Stop::Killed(_) => Ok(false),
            stop => Err(unexpected(stop)),
        }
    }

    /// Records the addresses of all instructions from here to the next mark, and stops there.
    pub fn record(&mut self) -> io::Result<Trace> {
        let mut addresses = vec![self.counter()?];
        while self.step()? {
            let at = self.counter()?;
            if at == mark as *const () as u64 {
                return Trace::new(self, addresses);
            }
            addresses.push(at);
        }
        Err(io::Error::other("it ended before the second mark"))
    }

    /// Runs the first `k` instructions of `trace`. Returns `false` if the process did not follow
    /// the recorded path.
    pub fn run(&mut self, trace: &Trace, k: usize) -> io::Result<bool> {
        let (anchor, hits) = trace.anchor(k);
        let address = trace.addresses[anchor];
        let mut left = hits;
        while left > 0 {
            if !self.step()? {
                return Ok(false);
            }
            if self.counter()? != address && !self.run_to(address)? {
                return Ok(false);
            }
            left -= 1;
        }
        for _ in anchor..k {
            if !self.step()? {
                return Ok(false);
            }
        }
        Ok(trace
            .addresses
            .get(k)
            .is_none_or(|&at| self.counter().is_ok_and(|now| now == at)))
    }

    /// Runs any `k` instructions, but not beyond the next mark.
    pub fn walk(&mut self, k: usize) -> io::Result<()> {
        for _ in 0..k {
            if !self.step()? || self.counter()? == mark as *const () as u64 {
                break;
            }
        }
        Ok(())
    }

    /// Goes from an instruction that enters the kernel into the call; with `out`, to its return.
    pub fn enter_kernel(&mut self, out: bool) -> io::Result<()> {
        for _ in 0..=usize::from(out) {
            self.request(libc::PTRACE_SYSCALL, 0)?;
            // The kernel marks such a stop by the eighth bit.
            self.expect(Stop::Signal(libc::SIGTRAP | 0x80))?;
        }
        Ok(())
    }

    /// Lets the process run to its end. Returns its exit code.
    pub fn finish(mut self) -> io::Result<i32> {
        self.request(libc::PTRACE_CONT, 0)?;
        match self.wait()? {
            Stop::Exited(code) => Ok(code),
            stop => Err(unexpected(stop)),
        }
    }

    /// Kills the process where it is, and waits until it is gone.
    pub fn kill(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        if !self.gone {
            // SAFETY: the pid is of a child that was not waited for yet.
            check(i64::from(unsafe { libc::kill(self.pid, libc::SIGKILL) }))?;
            while !self.gone {
                self.wait()?;
            }
        }
        Ok(())
    }

    /// Continues until the process reaches `address`. Returns `false` if it ended before.
    fn run_to(&mut self, address: u64) -> io::Result<bool> {
        let (trap, beyond) = BREAKPOINT;
        let mut original = [0; 4];
        let original = &mut original[..trap.len()];
        self.text.read_exact_at(original, address)?;
        self.text.write_all_at(trap, address)?;
        loop {
            self.request(libc::PTRACE_CONT, 0)?;
            match self.wait()? {
                Stop::Signal(libc::SIGTRAP) => break,
                // The signal of a child of the victim; it would be ignored.
                Stop::Signal(libc::SIGCHLD) => {}
                Stop::Exited(_) | Stop::Killed(_) => return Ok(false),
                stop => return Err(unexpected(stop)),
            }
        }
        self.text.write_all_at(original, address)?;
        let mut registers = self.registers()?;
        let counter = program_counter(&mut registers);
        if *counter != address + beyond {
            return Err(io::Error::other("a trap that is not the breakpoint"));
        }
        *counter = address;
        self.set_registers(&mut registers)?;
        Ok(true)
    }

    fn registers(&self) -> io::Result<libc::user_regs_struct> {
        let mut registers = MaybeUninit::<libc::user_regs_struct>::zeroed();
        self.register_set(libc::PTRACE_GETREGSET, registers.as_mut_ptr())?;
        // SAFETY: it is a struct of integers, and zeros are a value of it, too.
        Ok(unsafe { registers.assume_init() })
    }

    fn set_registers(&self, registers: &mut libc::user_regs_struct) -> io::Result<()> {
        self.register_set(libc::PTRACE_SETREGSET, registers)
    }

    fn register_set(
        &self,
        request: libc::c_uint,
        registers: *mut libc::user_regs_struct,
    ) -> io::Result<()> {
        let mut place = libc::iovec {
            iov_base: registers.cast(),
            iov_len: size_of::<libc::user_regs_struct>(),
        };
        // SAFETY: the general registers are read into, or written from, a struct of their size,
        // which lives over the call.
        check(unsafe { libc::ptrace(request, self.pid, libc::NT_PRSTATUS, &raw mut place) })
    }

    fn request(&self, request: libc::c_uint, data: usize) -> io::Result<()> {
        let none = ptr::null_mut::<libc::c_void>();
        // SAFETY: the requests made here take a number as data, and no address.
        check(unsafe { libc::ptrace(request, self.pid, none, data) })
    }

    fn expect(&mut self, expected: Stop) -> io::Result<()> {
        match self.wait()? {
            stop if stop == expected => Ok(()),
            stop => Err(unexpected(stop)),
        }
    }

    fn wait(&mut self) -> io::Result<Stop> {
        let mut status = 0;
        // SAFETY: `status` is a place to write to; the pid is of a child not waited for yet.
        check(i64::from(unsafe {
            libc::waitpid(self.pid, &raw mut status, 0)
        }))?;
        self.gone = libc::WIFEXITED(status) || libc::WIFSIGNALED(status);
        Ok(if libc::WIFSTOPPED(status) {
            Stop::Signal(libc::WSTOPSIG(status))
        } else if libc::WIFEXITED(status) {
            Stop::Exited(libc::WEXITSTATUS(status))
        } else {
            Stop::Killed(libc::WTERMSIG(status))
        })
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The instructions of one operation.
pub struct Trace {
    /// The address of each, in the order of execution.
    pub addresses: Vec<u64>,
    /// For each: the number of times that its address was reached so far, from 1; the first
    /// instruction is not counted.
    arrivals: Vec<u32>,
    /// Those that enter the kernel.
    pub syscalls: Vec<usize>,
}

impl Trace {
    fn new(victim: &Victim, addresses: Vec<u64>) -> io::Result<Trace> {
        let mut counts: HashMap<u64, u32> = HashMap::new();
        let mut arrivals = vec![0; addresses.len()];
        for (at, address) in addresses.iter().enumerate().skip(1) {
            let count = counts.entry(*address).or_default();
            *count += 1;
            arrivals[at] = *count;
        }
        let mut enters: HashMap<u64, bool> = HashMap::new();
        let mut syscalls = Vec::new();
        for (at, &address) in addresses.iter().enumerate() {
            let enters = enters.entry(address).or_insert_with(|| {
                let mut bytes = [0; 4];
                let bytes = &mut bytes[..SYSCALL.len()];
                victim.text.read_exact_at(bytes, address).is_ok() && bytes == SYSCALL
            });
            if *enters {
                syscalls.push(at);
            }
        }
        Ok(Trace {
            addresses,
            arrivals,
            syscalls,
        })
    }

    /// Returns an instruction near before `k`, and how often its address is reached until then. An
    /// arrival costs about three times a step.
    fn anchor(&self, k: usize) -> (usize, u32) {
        let last = k.min(self.addresses.len() - 1);
        let cost = |&at: &usize| (k - at) + 3 * self.arrivals[at] as usize;
        let best = (0..=last).rev().take(4096).min_by_key(cost).unwrap_or(0);
        match cost(&best) < k {
            true => (best, self.arrivals[best]),
            false => (0, 0),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn program_counter(registers: &mut libc::user_regs_struct) -> &mut u64 {
    &mut registers.rip
}

#[cfg(target_arch = "aarch64")]
fn program_counter(registers: &mut libc::user_regs_struct) -> &mut u64 {
    &mut registers.pc
}

fn unexpected(stop: Stop) -> io::Error {
    io::Error::other(format!("an unexpected stop: {stop:?}"))
}

fn check(outcome: i64) -> io::Result<()> {
    match outcome {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
