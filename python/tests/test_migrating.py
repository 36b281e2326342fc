"""The programs of MIGRATING.md run as they stand, and print what the page says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ndshm
from documentation import unique

PAGE = Path(__file__).parent.parent / "MIGRATING.md"

SECTION = re.compile(r"^## (.*)$", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)

NEEDED = {
    "From joblib": "joblib",
    "From dask.distributed, on one machine": "distributed",
    "From gymnasium's AsyncVectorEnv, or EnvPool": "gymnasium",
}
"""Sections whose programs need another package."""

AT_LEAST = 10
"""Programs that the page has, so that a test of none does not pass."""


def sections() -> dict[str, list[tuple[str, str]]]:
    """The programs of each section, with what they print."""
    parts = SECTION.split(PAGE.read_text())[1:]
    found = {
        title: [(code, printed) for code, printed in BLOCK.findall(text)]
        for title, text in zip(parts[::2], parts[1::2])
    }
    return {title: blocks for title, blocks in found.items() if blocks}


def test_the_programs_are_found() -> None:
    assert sum(len(blocks) for blocks in sections().values()) >= AT_LEAST
    assert PAGE.read_text().count("```python") == sum(map(len, sections().values()))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("title", sections())
def test_programs(title: str, tmp_path: Path) -> None:
    package = NEEDED.get(title)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    running: list[subprocess.Popen[str]] = []
    try:
        for place, (code, printed) in enumerate(sections()[title]):
            path = tmp_path / f"program{place}.py"
            path.write_text(unique(code))
            program = subprocess.Popen(
                [sys.executable, "-W", "error::ResourceWarning", path],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            running.append(program)
            if "input()" in code:
                # It runs beside the next ones.
                assert program.stdout is not None
                assert program.stdout.readline() == "ready\n", program.communicate(timeout=30)
                continue
            out, err = program.communicate(timeout=60)
            assert program.returncode == 0 and not err, err
            assert printed and out == printed
    finally:
        for program in running:
            if program.poll() is None:
                _, err = program.communicate("\n", timeout=30)
                assert program.returncode == 0, err


def test_the_names_of_the_tables_exist() -> None:
    """What the tables call `ndshm.something` is there."""
    modules = {"compat", "gymnasium", "py"}
    for name in set(re.findall(r"\bndshm\.(\w+)", PAGE.read_text())) - modules:
        assert hasattr(ndshm, name), name
