"""Vector environments of gymnasium whose observations are written in place by worker processes.

`VectorEnv` has the interface of `gymnasium.vector.AsyncVectorEnv`, and the results of
`gymnasium.vector.SyncVectorEnv`. Any number of environments lives in a few worker processes of an
`ndshm.Pool`.
"""

from __future__ import annotations

try:
    from gymnasium.vector import AutoresetMode
except ImportError as _error:
    raise ImportError(
        "ndshm.gymnasium needs gymnasium 1.1 or later: pip install 'gymnasium>=1.1'"
    ) from _error

from ._crew import WorkerDied
from ._vector_env import VectorEnv

__all__ = ["AutoresetMode", "VectorEnv", "WorkerDied"]

for _kind in (VectorEnv, WorkerDied):
    _kind.__module__ = __name__
del _kind
