"""The examples of the docstrings and of the README, and the programs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ndshm
from documentation import run_examples

HERE = Path(__file__).parent.parent
MODULES = [f"ndshm.{module.name}" for module in pkgutil.iter_modules(ndshm.__path__)]


@pytest.mark.parametrize("name", ["ndshm", *MODULES])
def test_docstrings(name: str) -> None:
    if name == "ndshm.gymnasium":
        pytest.importorskip("gymnasium")
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        run_examples(test.docstring or "", test.name, test.globs)


def test_readme() -> None:
    assert run_examples((HERE / "README.md").read_text(), "README.md", {}) >= 8


@pytest.mark.parametrize("path", sorted((HERE / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples(path: Path) -> None:
    for example, package in (("nodes_ray", "ray"), ("nodes_dask", "distributed")):
        if path.stem == example:
            pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_every_public_name_has_docs() -> None:
    for name in ndshm.__all__:
        assert getattr(ndshm, name).__doc__, name
    for kind in (ndshm.ndarray, ndshm.Table, ndshm.Ref):
        for name in dir(kind):
            if not name.startswith("_") and not hasattr(np.ndarray, name):
                assert getattr(kind, name).__doc__, name
