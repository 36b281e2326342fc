"""Runs CPython's own tests of shared memory on ndshm, under three start methods.

    python judges/cpython.py [PYTHON ...]

The tests are `_TestSharedMemory` of the package `test` of the interpreter, unchanged. They run in a
throwaway virtual environment whose start-up puts the classes of `ndshm.compat.shared_memory` into
`multiprocessing.shared_memory`: in all processes, also in those that the tests start with `-E` or
`-I`, which ignore PYTHONPATH. Other interpreters can be named if they can import ndshm's wheel and
numpy; they are skipped, with a line, if they cannot.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import Any

METHODS = ("fork", "forkserver", "spawn")

LONGEST = 120
"""Seconds for the tests of one start method."""

NOT_APPLICABLE = {
    "test_shared_memory_cleaned_after_process_termination": (
        "resource_tracker: There appear to be 1 leaked shared_memory objects",
        "its last line asserts the tracker's warning of a leak, and there is neither; the lines "
        "before, which see the block of a killed process go, pass",
    ),
    "test_shared_memory_tracking": (
        "resource_tracker: There appear to be 1 leaked shared_memory objects",
        "it asserts that a second program that attaches a block destroys it and warns",
    ),
}
"""Tests that have to fail: the text of the assertion that fails, and the reason."""

STARTUP = """
from multiprocessing import shared_memory
from ndshm.compat import shared_memory as compat
shared_memory.SharedMemory = compat.SharedMemory
shared_memory.ShareableList = compat.ShareableList
"""

TESTS = """
import json, os, sys, unittest
import multiprocessing.shared_memory
assert multiprocessing.shared_memory.SharedMemory.__module__ == "ndshm.compat.shared_memory"
import test._test_multiprocessing as tests
tests.install_tests_in_module_dict(globals(), os.environ["NDSHM_JUDGE"])

class Result(unittest.TextTestResult):
    passed = ()
    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += (test._testMethodName,)

if __name__ == "__main__":
    main = unittest.main(
        argv=["judge", "-v", "WithProcessesTestSharedMemory"], exit=False,
        testRunner=unittest.TextTestRunner(verbosity=2, resultclass=Result),
    )
    result = main.result
    named = lambda pairs: [(getattr(t, "_testMethodName", str(t)), text) for t, text in pairs]
    print(json.dumps({
        "passed": result.passed, "skipped": named(result.skipped),
        "failed": named(result.failures + result.errors),
    }))
"""


def environment(folder: Path) -> Path:
    """Make the virtual environment of the interpreter that runs this. Return its interpreter."""
    import numpy

    import ndshm

    venv.create(folder, with_pip=False, symlinks=True)
    base = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=base))
    found = {str(Path(module.__file__ or "").parents[1]) for module in (ndshm, numpy)}
    (packages / "ndshm_judge.py").write_text(STARTUP)
    # A sitecustomize would be hidden by the one that some distributions have.
    lines = [*sorted(found), "import ndshm_judge"]
    (packages / "ndshm_judge.pth").write_text("\n".join(lines) + "\n")
    return folder / "bin" / "python"


def judge(python: Path, folder: Path, method: str) -> bool:
    """Run the tests under a start method, and print the counts."""
    program = folder / "judge_tests.py"
    program.write_text(TESTS)
    variables = {
        **os.environ,
        "NDSHM_JUDGE": method,
        "NDSHM_SHARED_MEMORY": f"ndshm-judge-{method}-{os.getpid()}",
    }
    done = subprocess.run(
        [python, program], capture_output=True, text=True, timeout=LONGEST, env=variables
    )
    try:
        outcome: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        print(f"{method}: the tests did not run\n{done.stderr}")
        return False
    wrong = []
    not_applicable = []
    for name, text in outcome["failed"]:
        expected, reason = NOT_APPLICABLE.get(name, (None, ""))
        if expected is not None and expected in text and "AssertionError" in text:
            not_applicable.append((name, reason))
        else:
            wrong.append((name, text))
    # Had one of them passed, the table would be wrong.
    wrong += [(name, "it was to fail") for name in outcome["passed"] if name in NOT_APPLICABLE]
    passed = len(outcome["passed"])
    of = passed + len(outcome["failed"]) - len(not_applicable)
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"CPython {version}, {method}: {passed} of {of} tests pass")
    for name, reason in not_applicable:
        print(f"  does not apply: {name}: {reason}")
    for name, reason in outcome["skipped"]:
        print(f"  skipped: {name}: {reason}")
    for name, text in wrong:
        print(f"  FAILED: {name}\n{text}")
    return passed > 0 and not wrong


def here() -> bool:
    """Judge the interpreter that runs this."""
    try:
        importlib.import_module("test._test_multiprocessing")
    except ImportError as error:
        print(f"CPython {sys.version.split()[0]}: skipped, it has no tests: {error}")
        return True
    before = set(os.listdir("/dev/shm"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = environment(folder / "venv")
        outcomes = [judge(python, folder, method) for method in METHODS]
    left = {name for name in os.listdir("/dev/shm") if name not in before and "judge" in name}
    if left:
        print(f"left in /dev/shm: {sorted(left)}")
    return all(outcomes) and not left


def other(python: str) -> bool:
    """Judge another interpreter."""
    probe = subprocess.run([python, "-c", "import ndshm, numpy"], capture_output=True, text=True)
    if probe.returncode != 0:
        reason = (probe.stderr.strip().splitlines() or ["it cannot be run"])[-1]
        print(f"{python}: skipped: {reason}")
        return True
    return subprocess.run([python, __file__]).returncode == 0


if __name__ == "__main__":
    sys.exit(not all([other(python) for python in sys.argv[1:]] if sys.argv[1:] else [here()]))
