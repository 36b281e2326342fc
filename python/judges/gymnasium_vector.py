"""Runs gymnasium's own tests of vector environments on `ndshm.gymnasium.VectorEnv`.

    python judges/gymnasium_vector.py [CHECKOUT]

The tests are not in gymnasium's packages. They come from a checkout of its repository that has
them, or from GitHub, and are checked against a digest. They run unchanged, under pytest, and a
plugin puts the class into the places of `AsyncVectorEnv`, and in a second run also into those of
`SyncVectorEnv`. What counts are the tests that make one. Without gymnasium, or without its tests,
it prints a line, and is skipped.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections import Counter
from pathlib import Path

COMMIT = "3f0476a8cc224dcce2167cc4b6971ae0f04d5cfc"
"""The commit of the tests. Gymnasium calls itself 1.4.0 there."""

SOURCE = f"https://github.com/Farama-Foundation/Gymnasium/archive/{COMMIT}.tar.gz"

HELPERS = [
    *("tests/__init__.py", "tests/testing_env.py"),
    *("tests/spaces/__init__.py", "tests/spaces/utils.py"),
    *("tests/vector/__init__.py", "tests/vector/testing_utils.py"),
    *("tests/envs/__init__.py", "tests/envs/registration/__init__.py"),
    *("tests/wrappers/__init__.py", "tests/wrappers/utils.py", "tests/wrappers/vector/__init__.py"),
]

INSTEAD_OF_ASYNC = [
    "tests/vector/test_async_vector_env.py",
    "tests/vector/test_autoreset_mode.py",
    "tests/vector/test_observation_mode.py",
    "tests/vector/test_vector_env.py",
    "tests/vector/test_vector_env_info.py",
    "tests/envs/registration/test_make_vec.py",
]

INSTEAD_OF_SYNC = [
    "tests/vector/test_vector_wrapper.py",
    "tests/wrappers/vector/test_dict_info_to_list.py",
    "tests/wrappers/vector/test_normalize_observation.py",
    "tests/wrappers/vector/test_normalize_reward.py",
    "tests/wrappers/vector/test_record_episode_statistics.py",
    "tests/wrappers/vector/test_transform_action.py",
    "tests/wrappers/vector/test_transform_observation.py",
    "tests/wrappers/vector/test_vectorize_transform.py",
]

DIGEST = "a8628768ec0fc119375d98c126b07cd1d063a0a8d86a91f4c3735a5af215d205"
"""SHA-256 of the files above, each with its name."""

LONGEST = 240
"""Seconds for a run."""

WORDING = "the exception is the same, and its text is another"

NOT_APPLICABLE = {
    "test_custom_space_async_vector_env_shared_memory": (
        "DID NOT RAISE",
        "it asserts that a custom space is refused with shared_memory=True; here it is pickled",
    ),
    "test_async_vector_subenv_error": (
        "assert 0 == 3",
        "it asserts warnings that the worker of an environment that raised is shut down; here it "
        "goes on",
    ),
    "test_equivalence_with_wrapper": (
        "has no attribute 'envs'",
        "it reads SyncVectorEnv's list of environments, which are in the workers here",
    ),
    "TestVectorEnvObservationModes::test_invalid_observation_mode": ("Regex", WORDING),
    "TestVectorEnvObservationModes::test_obs_mode_same_different_spaces": ("Regex", WORDING),
    "test_partial_reset_failure": ("Regex", WORDING),
}
"""Tests that have to fail: the text in the failure, and the reason."""

NEEDS = "gymnasium.error.DependencyNotInstalled"
"""In the failure of a test that needs another package, as those that render."""

PLUGIN = '''
import json, os, sys
import gymnasium, gymnasium.vector as vector
import gymnasium.vector.async_vector_env as async_vector_env
import gymnasium.vector.sync_vector_env as sync_vector_env
import ndshm.gymnasium

MADE = []

class AsyncVectorEnv(ndshm.gymnasium.VectorEnv):
    def __init__(self, *args, **kwargs):
        MADE.append(True)
        super().__init__(*args, **kwargs)

class SyncVectorEnv(AsyncVectorEnv):
    def __init__(self, env_fns, copy=True, observation_mode="same", autoreset_mode="NextStep"):
        modes = {"observation_mode": observation_mode, "autoreset_mode": autoreset_mode}
        super().__init__(env_fns, copy=copy, **modes)

vector.AsyncVectorEnv = async_vector_env.AsyncVectorEnv = AsyncVectorEnv
if os.environ["NDSHM_JUDGE"] == "sync":
    vector.SyncVectorEnv = sync_vector_env.SyncVectorEnv = SyncVectorEnv

OUTCOMES = []

def pytest_runtest_setup(item):
    MADE.clear()

def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        OUTCOMES.append((report.nodeid, report.outcome, bool(MADE), report.longreprtext))

def pytest_sessionfinish():
    with open(os.environ["NDSHM_JUDGE_OUT"], "w") as out:
        json.dump(OUTCOMES, out)
'''


def digest(files: dict[str, bytes]) -> str:
    """Return the SHA-256 of files with their names."""
    sums = hashlib.sha256()
    for name in sorted(files):
        sums.update(f"{name} {hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return sums.hexdigest()


def tests(checkout: str | None) -> dict[str, bytes] | None:
    """Return the files of the tests, or None if there are none."""
    wanted = {*HELPERS, *INSTEAD_OF_ASYNC, *INSTEAD_OF_SYNC}
    if checkout is not None:
        return {name: (Path(checkout) / name).read_bytes() for name in wanted}
    try:
        with urllib.request.urlopen(SOURCE, timeout=60) as answer:
            archive = io.BytesIO(answer.read())
    except OSError as error:
        print(f"gymnasium: skipped, its tests cannot be fetched from {SOURCE}: {error}")
        return None
    files = {}
    with tarfile.open(fileobj=archive) as tar:
        for member in tar:
            name = member.name.partition("/")[2]
            content = tar.extractfile(member) if name in wanted else None
            if content is not None:
                files[name] = content.read()
    return files


def judge(folder: Path, kind: str, names: list[str]) -> bool:
    """Run tests, and print the counts."""
    out = folder / "outcomes.json"
    out.unlink(missing_ok=True)
    variables = {
        **os.environ,
        "NDSHM_JUDGE": kind,
        "NDSHM_JUDGE_OUT": str(out),
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "judge_plugin", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(folder), "-c", os.devnull, "-p", "no:timeout", *names]
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=LONGEST
    )
    if not out.exists():
        print(f"{kind}: the tests did not run\n{done.stdout}\n{done.stderr}")
        return False
    wrong, counts, reasons = [], Counter[str](), Counter[str]()
    for test, outcome, has_made, text in json.loads(out.read_text()):
        name = test.partition("::")[2]
        expected, reason = NOT_APPLICABLE.get(name.partition("[")[0], ("", ""))
        if outcome == "failed":
            if reason and expected in text:
                reasons[f"{name.partition('[')[0]}: {reason}"] += 1
            elif NEEDS in text:
                counts["skipped"] += 1
            else:
                wrong.append((test, text))
        elif has_made:
            counts[outcome] += 1
            # Had one of them passed, the table would be wrong.
            if reason and outcome == "passed" and "Sync" not in name:
                wrong.append((test, "it was to fail"))
    version = importlib.metadata.version("gymnasium")
    of = counts["passed"] + len(wrong)
    print(f"gymnasium {version}, instead of {kind}: {counts['passed']} of {of} tests pass")
    for reason, count in reasons.items():
        print(f"  does not apply ({count}): {reason}")
    if counts["skipped"]:
        print(f"  skipped ({counts['skipped']}): they skip themselves, or need packages such as pygame")
    for name, text in wrong:
        print(f"  FAILED: {name}\n{text}")
    return counts["passed"] > 0 and not wrong


def main(checkout: str | None) -> bool:
    try:
        importlib.metadata.version("gymnasium")
        importlib.metadata.version("pytest")
    except importlib.metadata.PackageNotFoundError as error:
        print(f"gymnasium: skipped, {error}")
        return True
    files = tests(checkout)
    if files is None:
        return True
    if digest(files) != DIGEST:
        print(f"the tests are not those of {COMMIT}: their digest is {digest(files)}")
        return False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        (folder / "judge_plugin.py").write_text(PLUGIN)
        return all(
            [
                judge(folder, "async", INSTEAD_OF_ASYNC),
                judge(folder, "sync", INSTEAD_OF_SYNC),
            ]
        )


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1] if sys.argv[1:] else None))
