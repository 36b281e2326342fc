//! Source locations of calls with kernels. Only a model checker reports them.

/// Does nothing; in a model, records the location of the caller's caller.
#[inline(always)]
pub(crate) fn note<F: 'static>(_kernel: &F) {}

/// Calls `open`; in a model, attributes its accesses to the call that was given `kernel`.
#[inline(always)]
pub(crate) fn at_call_of<F: 'static, R>(_kernel: &F, open: impl FnOnce() -> R) -> R {
    open()
}
