"""Reading files of numpy into a table."""

from __future__ import annotations

import ast
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ._copy import read

if TYPE_CHECKING:
    from ._array import ndarray
    from ._table import Table


def load_npy(table: Table, path: str | os.PathLike[str], readonly: bool) -> ndarray:
    """Create an array from an `npy` file."""
    with open(path, "rb") as file:
        shape, fortran, dtype = _read_header(file)
        made: ndarray = table.empty(shape, dtype, "F" if fortran else "C")
        if made.nbytes:
            flat = made.view(np.ndarray).reshape(-1, order="A").view(np.uint8)
            missing = _read_rest(file, flat.data)
            if missing:
                raise ValueError(
                    f"{os.fspath(path)!r} has {missing} bytes less than its header says: "
                    "it is truncated"
                )
    if readonly:
        made.flags.writeable = False
    return made


def _read_rest(file: Any, to: memoryview) -> int:
    """Read the bytes that follow. Return how many are missing at the end of the file."""
    if file.seekable():
        return read(file.fileno(), to, file.tell())
    while to.nbytes:
        count = file.readinto(to)
        if not count:
            break
        to = to[count:]
    return to.nbytes


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type. The file is then at the first byte of the elements."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    if version != (3, 0):
        raise ValueError(f"the file has the version {version}: 1.0 to 3.0 are known")
    # As 2.0, in UTF-8. Numpy has no public function for it.
    length = file.read(4)
    text = file.read(int.from_bytes(length, "little"))
    if len(length) < 4 or len(text) < int.from_bytes(length, "little"):
        raise ValueError("the file ends in its header: it is truncated")
    header = ast.literal_eval(text.decode())
    dtype = np.lib.format.descr_to_dtype(header["descr"])
    return tuple(header["shape"]), bool(header["fortran_order"]), dtype
