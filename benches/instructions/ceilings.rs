//! The ceilings, and what a count may be beside them.
//!
//! How many instructions a call takes is for the compiler to say as well. The file therefore says
//! with which one its counts were made, one an architecture, and the rule is:
//! - With that compiler a count may be over its ceiling by 3 %, for code that is inlined or not as
//!   its neighbours change, and below by 10 %: then the ceiling is to be lowered.
//! - With another compiler it may be over by 25 %. That it is below says nothing.
//! - Where the file has no ceilings for the architecture, and for a call that it does not know,
//!   there is nothing to be kept.

use std::fmt;
use std::fmt::Write as _;
use std::process::Command;

/// Percent that a count may be over its ceiling, with the compiler of the file and with others.
const OVER: usize = 3;
const OVER_ELSEWHERE: usize = 25;
/// Percent that it may be below, with the compiler of the file.
const BELOW: usize = 10;

const HEADING: &str = "\
# Instructions of each call: architecture, compiler, instructions, name.
# Written by `cargo bench --bench instructions -- --update`; `ceilings.rs` has the rule.
";

/// Whether a count is in its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Within,
    Over,
    /// So far below that the ceiling holds nothing.
    Below,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Within => "",
            Verdict::Over => "  over",
            Verdict::Below => "  far below: lower the ceiling by --update",
        })
    }
}

struct Ceiling {
    architecture: String,
    compiler: String,
    instructions: usize,
    name: String,
}

/// What the file says, and who asks.
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
        let read = |line| parse(line).unwrap_or_else(|| panic!("no line of ceilings: {line:?}"));
        Ceilings {
            all: lines.map(read).collect(),
            compiler: compiler(),
        }
    }

    /// Those of this architecture.
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

    /// Makes these the ceilings of this architecture and compiler.
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
                write!(f, "ceilings of this compiler, {OVER} % over may be")
            }
            Some(Ceiling { compiler, .. }) => write!(
                f,
                "ceilings are of rustc {compiler}, {OVER_ELSEWHERE} % over may be"
            ),
        }
    }
}

fn path() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/instructions/ceilings.txt")
}

/// The version of the compiler that cargo runs.
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
