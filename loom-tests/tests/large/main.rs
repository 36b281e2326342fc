//! Random programs that are too large for loom. They run under shuttle, in random schedules and
//! with kills; their histories are compared with a sequential reference.

#[cfg(shuttle)]
mod audit;
#[cfg(shuttle)]
mod check;
#[cfg(shuttle)]
mod history;
#[cfg(shuttle)]
mod known;
#[cfg(shuttle)]
mod participant;
#[cfg(shuttle)]
mod program;
#[cfg(shuttle)]
mod reference;
#[cfg(shuttle)]
mod rounds;
#[cfg(shuttle)]
mod run;
#[cfg(shuttle)]
mod world;

fn main() {
    #[cfg(shuttle)]
    check::main();
}
