"""A program in Rust finds an array by its name and type, and names one for Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest

import ndshm

PROGRAM = shutil.which("named_array")
NAME = f"ndshm-test-rust-{os.getpid()}"

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="the example named_array is not on the PATH: .ci/python builds it"
)


@pytest.fixture
def table() -> Iterator[ndshm.Table]:
    with ndshm.open(NAME, "x") as made:
        yield made


def run() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM or "", NAME], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("order", ["C", "F"])
def test_rust_finds_an_array_of_python(table: ndshm.Table, order: str) -> None:
    source = np.arange(12.0).reshape(4, 3)
    table["x"] = x = table.array(source.copy(order))  # type: ignore[arg-type]
    for turn in (2, 4):
        done = run()
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"doubled {x.handle}, an array of shape [4, 3]\n"
        assert (x == turn * source).all(), "in place"
        sums = table["sums"]
        assert type(sums) is ndshm.ndarray and sums.dtype == np.float64
        assert (sums == turn * source.sum(axis=1)).all()
        assert table.info("sums").owner is None, "it outlives the program"
    assert len(table.arrays()) == 2, "the earlier sums are freed"


@pytest.mark.parametrize(
    "value", [np.zeros((4, 3), "f4"), np.zeros(3), np.zeros((4, 3), "S8"), {"an": "object"}], ids=str
)
def test_rust_refuses_other_types(table: ndshm.Table, value: object) -> None:
    table["x"] = value
    done = run()
    assert done.returncode and "x" in done.stderr, done.stderr
    assert "sums" not in table


def test_rust_leaves_a_leased_array_alone(table: ndshm.Table) -> None:
    table["x"] = x = table.zeros((2, 2))
    with x.read():
        done = run()
    assert done.returncode and str(os.getpid()) in done.stderr
