"""Install and build the peers below target/peers, from the registries alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = ROOT / "target" / "peers"
CARGO_TARGET = Path(os.environ.get("CARGO_TARGET_DIR", TARGET / "cargo"))
PYTHON = TARGET / "python" / "bin" / "python"
RUST = HERE / "rust" / "Cargo.toml"

# Pinned, so that a run does not depend on its day. The crates are pinned by rust/Cargo.lock.
WHEELS = {"numpy": "numpy==2.4.6", "SharedArray": "SharedArray==3.2.4", "ray": "ray==2.60.0"}


class Missing(Exception):
    """The reason for which a peer is not there."""


@dataclass
class Found:
    """What was installed."""

    # The command that starts a peer, and its version.
    commands: dict[str, list[str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    # Why a peer is not there.
    missing: dict[str, str] = field(default_factory=dict)


def run(*command: str | Path, **environment: str) -> str:
    """Run a command. Return its output, or raise `Missing` with the end of what it said."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=os.environ | environment,
        )
    except OSError as error:
        raise Missing(f"{command[0]}: {error.strerror}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        errors = [line for line in said if "error" in line.lower()] or said[-1:] or ["no output"]
        raise Missing(f"{Path(command[0]).name} failed: {errors[-1].strip()[:200]}")
    return done.stdout.strip()


def pip(*what: str | Path) -> None:
    """Install packages into the environment."""
    options = ["--quiet", "--disable-pip-version-check"]
    run(PYTHON, "-m", "pip", "install", *options, *what, CARGO_TARGET_DIR=str(CARGO_TARGET))


def version_of(package: str) -> str:
    """Return the version of a package in the environment."""
    return run(
        PYTHON, "-c", f"from importlib.metadata import version; print(version({package!r}))"
    )


def environment() -> None:
    """Make the environment of the peers in Python."""
    if sys.version_info < (3, 11):
        raise Missing("it needs CPython 3.11 or later")
    if not PYTHON.exists():
        try:
            venv.create(PYTHON.parents[1], with_pip=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Missing(f"no environment of Python can be made: {error}") from None
    pip(WHEELS["numpy"])


def boost() -> tuple[list[str], str]:
    """Build the peer in C++, with Boost's headers of this machine or of its package."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise Missing(f"there is no {compiler}")
    headers = TARGET / "boost" / "usr" / "include"
    flags: list[str | Path] = []
    if not Path("/usr/include/boost/interprocess").exists():
        if not (headers / "boost" / "interprocess").exists():
            unpack_boost(headers.parents[1])
        flags = ["-isystem", headers]
    program = TARGET / "boost-peer"
    source = HERE / "cpp" / "boost.cpp"
    run(compiler, "-O2", "-std=c++17", *flags, source, "-o", program, "-lrt", "-pthread")
    return [str(program)], run(program, "version")


def unpack_boost(into: Path) -> None:
    """Unpack the headers of the distribution's package, without installing it."""
    if shutil.which("apt-get") is None:
        raise Missing("there is neither /usr/include/boost nor apt-get")
    listed = run("apt-cache", "depends", "libboost-dev").splitlines()
    package = next((line.split()[-1] for line in listed if "Depends: libboost" in line), None)
    if package is None:
        raise Missing("apt-get has no libboost-dev: run apt-get update")
    into.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["apt-get", "download", package], cwd=into, capture_output=True)
    archive = next(into.glob("*.deb"), None)
    if done.returncode != 0 or archive is None:
        raise Missing(f"apt-get download {package} failed: run apt-get update")
    run("dpkg-deb", "-x", archive, into)
    archive.unlink()


def cargo(program: str, *options: str) -> tuple[list[str], str]:
    """Build a peer in Rust."""
    where: list[str | Path] = ["--manifest-path", RUST, "--target-dir", CARGO_TARGET]
    run("cargo", "build", "--release", "--locked", "--quiet", *where, "--bin", program, *options)
    return [str(CARGO_TARGET / "release" / program)], locked(program)


def locked(crate: str) -> str:
    """Return the version of a crate in the lock file."""
    for entry in RUST.with_name("Cargo.lock").read_text().split("[[package]]"):
        lines = entry.strip().splitlines()
        if lines and lines[0] == f'name = "{crate}"':
            return lines[1].split('"')[1]
    return "?"


def peer_in_python(name: str, package: str = "", what: str | Path = "") -> tuple[list[str], str]:
    """Install what a peer in Python needs."""
    if what:
        # The version may be that of another build, which pip would keep.
        pip("--force-reinstall", "--no-deps", what)
    elif package:
        pip(WHEELS[package])
    command = [str(PYTHON), str(HERE / "python" / "peer.py"), name]
    return command, version_of(package) if package else run(PYTHON, "-V").split()[-1]


def install(wanted: list[str], wheel: Path | None, say: Callable[[str], None]) -> Found:
    """Install the peers that are wanted, as far as they can be."""
    found = Found()
    TARGET.mkdir(parents=True, exist_ok=True)
    of_package = wheel or ROOT / "python"
    makers: dict[str, Callable[[], tuple[list[str], str]]] = {
        "ndshm": lambda: cargo("ndshm"),
        "ndshm-python": lambda: peer_in_python("ndshm-python", "ndshm", of_package),
        "pool": lambda: peer_in_python("pool"),
        "SharedMemory": lambda: peer_in_python("SharedMemory"),
        "SharedArray": lambda: peer_in_python("SharedArray", "SharedArray"),
        "manager": lambda: peer_in_python("manager"),
        "ray": lambda: peer_in_python("ray", "ray"),
        "shared_memory": lambda: cargo("shared_memory"),
        "boost": boost,
        "iceoryx2": lambda: cargo("iceoryx2", "--features", "iceoryx2"),
    }
    in_python = {"ndshm-python", "pool", "SharedMemory", "SharedArray", "manager", "ray"}
    no_python = ""
    if in_python & set(wanted):
        try:
            environment()
        except Missing as reason:
            no_python = str(reason)
    for name in wanted:
        say(f"installing {name}")
        try:
            if no_python and name in in_python:
                raise Missing(no_python)
            found.commands[name], found.versions[name] = makers[name]()
        except Missing as reason:
            found.missing[name] = str(reason)
    return found
