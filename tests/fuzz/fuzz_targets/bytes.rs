//! Damaged bytes in a segment. The fuzzer steers them by the code that they reach.
#![no_main]

#[path = "../../hostile/mod.rs"]
mod hostile;

use std::cell::RefCell;

use hostile::changes::Changes;
use hostile::world::World;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new(dead));
}

/// Runs `life` in a child that ends without cleaning up.
fn dead(life: &dyn Fn()) {
    // SAFETY: the fuzzer has one thread while it starts, and the child does not return.
    let child = unsafe { libc::fork() };
    if child == 0 {
        life();
        // SAFETY: `_exit` has no precondition.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: `status` is a place to write to, the child is this process's own.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child failed before its death");
}

/// Turns the leak check off: a world forgets values on purpose, to keep them leased.
#[unsafe(no_mangle)]
pub extern "C" fn __lsan_is_turned_off() -> i32 {
    1
}

fuzz_target!(|bytes: &[u8]| {
    let outcome = WORLD.with_borrow_mut(|world| match bytes {
        // One value of the first byte selects a truncated file.
        [255, low, middle, high, ..] => {
            let len = u32::from_le_bytes([*low, *middle, *high, 0]);
            let name = format!("ndshm-fuzz-{}", std::process::id());
            world.open_truncated(&name, len.into())
        }
        _ => world.run(&Changes::of(bytes)),
    });
    outcome.expect("the case found a fault");
});
