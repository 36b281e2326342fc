"""`python -m ndshm`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ndshm", *arguments],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PATH": path},
    )  # fmt: skip


def test_the_tool_gets_the_arguments(tmp_path: Path) -> None:
    tool = tmp_path / "ndshm"
    tool.write_text('#!/bin/sh\necho "$0: $1, $2"\nexit 3\n')
    tool.chmod(0o755)
    done = run(f"{tmp_path}:{os.environ['PATH']}", "show", "a name")
    assert done.stdout == f"{tool}: show, a name\n"
    assert done.returncode == 3


def test_without_the_tool_it_says_how_to_install_it(tmp_path: Path) -> None:
    done = run(str(tmp_path), "ls")
    assert done.returncode == 127
    assert "cargo install ndshm-cli" in done.stderr and not done.stdout


def test_the_tool_shows_a_table_of_this_package() -> None:
    import shutil

    import ndshm

    if shutil.which("ndshm") is None:
        pytest.skip("the tool ndshm is not on the PATH")
    with ndshm.open(f"ndshm-test-main-{os.getpid()}") as table:
        array = table.zeros((4, 3))
        done = run(os.environ["PATH"], "show", table.name or "")
        assert done.returncode == 0, done.stderr
        assert array.handle.removeprefix("ndshm:") in done.stdout
