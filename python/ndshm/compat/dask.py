"""Makes dask.distributed send arrays of tables as their handles, wherever it sends them.

Arguments of tasks are pickled, and so are sent as handles anyway. For results, and for what is
scattered, dask has a way of its own to send arrays, which copies their bytes. `register` tells it
to pickle arrays of tables instead.

`import ndshm` calls it if `distributed` was imported before, as it is in workers. A program that
imports ndshm first, and scatters arrays, calls it itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .._array import ndarray

__all__ = ["register"]


def _pickle_instead(array: ndarray, context: Any = None) -> Any:
    # Dask then tries its next serializer, which is pickle. The receiver needs to know nothing.
    raise NotImplementedError(f"{type(array).__name__} is pickled")


def register() -> None:
    """Tell dask.distributed to pickle arrays of tables. A second call does nothing.

    Raises `ImportError` if `distributed` is not installed.
    """
    import_module("distributed.protocol").dask_serialize.register(ndarray)(_pickle_instead)
