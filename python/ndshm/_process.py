"""The hooks by which tables cross a fork, and are left at the end of a process."""

from __future__ import annotations

import os
import warnings
from multiprocessing import util

from . import _ndshm
from ._caller import level_of_caller

def warn_of_sent(count: int, nbytes: int, limit: int) -> None:
    """Warn of arrays that were sent and that nobody has in view in this process."""
    warnings.warn(
        f"{count} arrays of {nbytes} bytes were sent to other processes, are not used any more in this "
        f"one, and are not freed (the limit of this warning is {limit} bytes): make them in `with "
        "ndshm.scope():`, or call free() when the receivers are done",
        ResourceWarning,
        stacklevel=level_of_caller(),
    )


def _after_fork_in_child() -> None:
    lost, errors = _ndshm.after_fork_in_child()
    # The finalizer of the parent does nothing here. A child of multiprocessing forgets this one.
    _leave_at_exit()
    if lost:
        warnings.warn(
            f"the arrays {', '.join(lost)} were freed before or during the fork: do not use their "
            "views in this process",
            RuntimeWarning,
            stacklevel=2,
        )
    for error in errors:
        warnings.warn(
            f"this process could not join a table of its parent: {error}; do not use its arrays in "
            "this process, because their bytes may become those of others",
            RuntimeWarning,
            stacklevel=2,
        )


def _leave_at_exit(_: object = None) -> None:
    # It runs after everything else that multiprocessing does at the end of a process: children that
    # it waits for may have to open a table of this process yet.
    util.Finalize(None, _ndshm.leave_all, exitpriority=-1000)


os.register_at_fork(
    before=_ndshm.before_fork,
    after_in_parent=_ndshm.after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
# A child of multiprocessing forgets the finalizers of its parent, and then calls the hooks. They
# belong to an object that may be gone: this one stays.
util.register_after_fork(_leave_at_exit, _leave_at_exit)
_leave_at_exit()
