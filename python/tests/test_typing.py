"""The types: mypy and stubtest find nothing to say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None, reason="mypy is not installed"
)


@pytest.mark.parametrize("arguments", [["mypy", "--strict", "-p", "ndshm"], ["mypy.stubtest", "ndshm"]])
def test_types(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True, text=True, timeout=300, check=False, cwd=HERE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
