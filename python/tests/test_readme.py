"""The whole programs of both READMEs, and the examples in docstrings of the extension module."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from documentation import run_examples, unique
from ndshm import _ndshm

PACKAGE = Path(__file__).parent.parent
READMES = [PACKAGE / "README.md", PACKAGE.parent / "README.md"]
# A block of Python, and the block of text that follows it, which is what the program prints.
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
PROGRAMS = [BLOCK.findall(readme.read_text()) for readme in READMES]


@pytest.mark.parametrize(
    "text, shown", [program for programs in PROGRAMS for program in programs], ids=lambda _: ""
)
def test_program_of_a_readme(text: str, shown: str, tmp_path: Path) -> None:
    if "gymnasium" in text:
        pytest.importorskip("gymnasium")
    program = tmp_path / "program.py"
    program.write_text(unique(text))
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=50, cwd=tmp_path
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert not shown or done.stdout == shown


def test_the_readmes_have_programs() -> None:
    assert all(PROGRAMS)


def test_docstrings_of_the_extension_module() -> None:
    # Doctest looks for examples in Python code alone.
    values = {name: value for name, value in vars(_ndshm).items() if not name.startswith("__")}
    for name, kind in list(values.items()):
        if inspect.isclass(kind):
            values |= {f"{name}.{method}": value for method, value in vars(kind).items()}
    for name, value in values.items():
        run_examples(inspect.getdoc(value) or "", name, {"__name__": "__main__"})
