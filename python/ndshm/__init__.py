"""Arrays in shared memory: real numpy arrays whose pickle is a handle.

>>> import ndshm
>>> x = ndshm.zeros((1000, 3))      # any process that receives it sees the same bytes
>>> x[0] = 1.5
>>> float(x.sum())
4.5
"""

import sys as _sys

from . import _process as _process
from ._array import free, give, ndarray, portable
from ._errors import (
    Busy,
    Closed,
    Full,
    InvalidName,
    NameNotFound,
    NameTaken,
    NdshmError,
    NotPicklable,
    PickleRefused,
    Poisoned,
    ReadOnly,
    Stale,
    TypeMismatch,
    Unreachable,
)
from ._look import ArrayInfo, TableStat, Verification
from ._ndshm import _attach as _attach
from ._ndshm import _attach_object as _attach_object
from ._object import Ref, get
from ._peers import Peer
from ._pool import Pool
from ._pool_calls import readonly, whole
from ._pool_errors import KernelError, WorkerDied
from ._running import Running
from ._table import (
    Table,
    array,
    default,
    empty,
    full,
    load_npy,
    open,
    put,
    scope,
    zeros,
    zeros_like,
)

__all__ = [
    "ArrayInfo",
    "Busy",
    "Closed",
    "Full",
    "InvalidName",
    "KernelError",
    "NameNotFound",
    "NameTaken",
    "NdshmError",
    "NotPicklable",
    "PickleRefused",
    "Poisoned",
    "ReadOnly",
    "Peer",
    "Pool",
    "Ref",
    "Running",
    "Stale",
    "Table",
    "TableStat",
    "TypeMismatch",
    "Unreachable",
    "Verification",
    "WorkerDied",
    "array",
    "default",
    "empty",
    "free",
    "full",
    "get",
    "give",
    "load_npy",
    "ndarray",
    "open",
    "portable",
    "put",
    "readonly",
    "scope",
    "whole",
    "zeros",
    "zeros_like",
]

# The names under which users know them.
for _name in __all__:
    globals()[_name].__module__ = __name__
_attach_object.__module__ = __name__
del _name

# Dask has a way of its own to send arrays.
if "distributed.protocol" in _sys.modules:
    from .compat.dask import register as _register

    _register()
