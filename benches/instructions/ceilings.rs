//! The ceilings, and the permitted range of a count around its ceiling.
//!
//! The number of instructions also depends on the compiler. The file therefore names the compiler
//! of its counts, one per architecture. The rule is:
//! - With that compiler a count may be over its ceiling by 3 %, because inlining varies with
//!   neighbouring code, and below by 10 %. Further below, the ceiling must be lowered.
//! - With another compiler a count may be over by 25 %, and below by any amount.
//! - If the file has no ceiling for the architecture or for the call, any count passes.

use std::fmt;
use std::fmt::Write as _;
use std::process::Command;

/// Percent by which a count may exceed its ceiling, with the file's compiler and with others.
const OVER: usize = 3;
const OVER_ELSEWHERE: usize = 25;
/// Percent by which a count may be below its ceiling, with the file's compiler.
const BELOW: usize = 10;

const HEADING: &str = "\
# Instructions of each call: architecture, compiler, instructions, name.
# Written by `cargo bench --bench instructions -- --update`; `ceilings.rs` states the rule.
";

/// The result of a check of a count against its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Within,
    Over,
    /// So far below its ceiling that a regression would go unnoticed.
    Below,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Within => "",
            Verdict::Over => "  over",
            Verdict::Below => "  far below: lower the ceiling with --update",
        })
    }
}

struct Ceiling {
    architecture: String,
    compiler: String,
    instructions: usize,
    name: String,
}

/// The ceilings of the file, and the compiler in use.
pub struct Ceilings {
    all: Vec<Ceiling>,
    compiler: String,
}

impl Ceilings {
    /// Reads the file.
    pub fn load() -> Ceilings {
        let text = std::fs::read_to_string(path()).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let parse = |line: &str| {
            let mut parts = line.splitn(4, ' ');
            Some(Ceiling {
                architecture: parts.next()?.to_owned(),
                compiler: parts.next()?.to_owned(),
                instructions: parts.next()?.parse().ok()?,
                name: parts.next()?.to_owned(),
            })
        };
        let read = |line| parse(line).unwrap_or_else(|| panic!("not a ceiling: {line:?}"));
        Ceilings {
            all: lines.map(read).collect(),
            compiler: compiler(),
        }
    }

    /// Returns the ceilings of this architecture.
    fn ours(&self) -> impl Iterator<Item = &Ceiling> {
        let here = |ceiling: &&Ceiling| ceiling.architecture == std::env::consts::ARCH;
        self.all.iter().filter(here)
    }

    fn find(&self, name: &str) -> Option<&Ceiling> {
        self.ours().find(|ceiling| ceiling.name == name)
    }

    pub fn of(&self, name: &str) -> Option<usize> {
        self.find(name).map(|ceiling| ceiling.instructions)
    }

    pub fn judge(&self, name: &str, instructions: usize) -> Verdict {
        let Some(ceiling) = self.find(name) else {
            return Verdict::Within;
        };
        let same = ceiling.compiler == self.compiler;
        let over = if same { OVER } else { OVER_ELSEWHERE };
        let percent = instructions * 100;
        if percent > ceiling.instructions * (100 + over) {
            Verdict::Over
        } else if same && percent < ceiling.instructions * (100 - BELOW) {
            Verdict::Below
        } else {
            Verdict::Within
        }
    }

    /// Writes these counts as the ceilings of this architecture and compiler.
    pub fn update(&self, counted: &[(String, usize)]) -> std::io::Result<()> {
        let mut text = HEADING.to_owned();
        let architecture = std::env::consts::ARCH;
        let others = self.all.iter().filter(|c| c.architecture != architecture);
        let kept = others.map(|c| (&*c.architecture, &*c.compiler, c.instructions, &*c.name));
        let new = counted
            .iter()
            .map(|(name, instructions)| (architecture, &*self.compiler, *instructions, &**name));
        for (architecture, compiler, instructions, name) in kept.chain(new) {
            let _ = writeln!(text, "{architecture} {compiler} {instructions} {name}");
        }
        std::fs::write(path(), text)
    }
}

impl fmt::Display for Ceilings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (architecture, own) = (std::env::consts::ARCH, &self.compiler);
        write!(f, "{architecture}, rustc {own}: ")?;
        match self.ours().next() {
            None => f.write_str("no ceilings are known"),
            Some(ceiling) if ceiling.compiler == *own => {
                write!(f, "ceilings of this compiler, tolerance {OVER} %")
            }
            Some(Ceiling { compiler, .. }) => write!(
                f,
                "ceilings of rustc {compiler}, tolerance {OVER_ELSEWHERE} %"
            ),
        }
    }
}

fn path() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/instructions/ceilings.txt")
}

/// Returns the version of the compiler that cargo runs.
fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let version = text.ok().and_then(|text| {
        let version = text.split(' ').nth(1)?;
        Some(version.trim().to_owned())
    });
    version.unwrap_or_else(|| "unknown".to_owned())
}
