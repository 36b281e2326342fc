//! The extension module of the Python package ndshm: arrays in shared memory as numpy arrays.
//!
//! The package in `python/ndshm` is its only user; programs import that. Each file here is one
//! subject, and `register` adds its classes and functions to the module.
//!
//! Locks of this module are held only by threads that are attached to the interpreter, and no
//! Python code runs and no Python object is dropped while one is held. So a fork, which only an
//! attached thread makes, finds all of them free, and a finalizer finds none that its own thread
//! holds.

#![allow(
    clippy::disallowed_types,
    reason = "the models of the crate do not include this module"
)]

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
compile_error!("the Python package ndshm is for Linux on x86-64 and aarch64");

mod array;
mod blocks;
mod copy;
mod dtype;
mod error;
mod fork;
mod found;
mod kept;
mod layout;
mod lease;
mod look;
mod methods;
mod names;
mod object;
mod object_array;
mod peers;
mod pickle;
mod pin;
mod pool;
mod process;
mod readonly;
mod scope;
mod segment;
mod sent;
mod shape;
mod table;
mod wrap;

use pyo3::prelude::*;

#[pymodule]
fn _ndshm(module: &Bound<'_, PyModule>) -> PyResult<()> {
    dtype::fill_cells(module.py())?;
    blocks::register(module)?;
    fork::register(module)?;
    lease::register(module)?;
    look::register(module)?;
    methods::register(module)?;
    names::register(module)?;
    object::register(module)?;
    object_array::register(module)?;
    peers::register(module)?;
    pickle::register(module)?;
    pin::register(module)?;
    pool::register(module)?;
    process::register(module)?;
    scope::register(module)?;
    table::register(module)?;
    wrap::register(module)?;
    // The package says which names are public.
    module.delattr("__all__")
}
