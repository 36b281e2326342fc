"""Timing of several subjects in turn, and what is printed of it."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

Call = Callable[[], object]

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def seconds(value: float) -> str:
    """Return a time as text, in a unit that fits."""
    scale, unit = next((u for u in UNITS if abs(value) >= u[0]), UNITS[-1])
    return f"{value / scale:.3g} {unit}"


@dataclass
class Samples:
    """Times of one call, in seconds."""

    times: list[float] = field(default_factory=list)

    @property
    def least(self) -> float:
        return min(self.times)

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def tail(self) -> float:
        """The time that nine of ten samples do not exceed."""
        return sorted(self.times)[(len(self.times) * 9 - 1) // 10]


@dataclass
class Mark:
    """A bound on the time of the subject, or on its quotient by the time of a peer.

    With `beyond` the bound is for the time by which the subject exceeds that peer.
    """

    most: float
    against: str | None = None
    beyond: str | None = None


class Bench:
    """A run: takes samples of rows, and prints them."""

    def __init__(self, samples: int, as_json: bool, only: str) -> None:
        self.samples = samples
        self.as_json = as_json
        self.only = only
        self.missed: list[str] = []

    def wants(self, name: str) -> bool:
        """Return whether the run includes a row."""
        return self.only in name

    def say(self, text: str) -> None:
        """Print a line for people."""
        print(f"# {text}" if self.as_json else text, file=sys.stderr if self.as_json else sys.stdout, flush=True)

    def row(
        self,
        name: str,
        subjects: dict[str, Call],
        marks: list[Mark] | None = None,
        *,
        samples: int | None = None,
        alone: bool = False,
    ) -> None:
        """Time the subjects in turn. The first one given is ndshm's; the others are its peers.

        A sample repeats a call for about 5 ms. Neighbouring samples of two subjects see the same
        load of the machine, so their quotients are more exact than their times.

        Calls that no other process and thread takes part in are run `alone`: what counts is then
        their processor time, which includes the kernel's, but not the turns of other programs.
        """
        if not self.wants(name):
            return
        clock = time.thread_time if alone else time.perf_counter
        repeats = {}
        for who, call in subjects.items():
            call()
            once = one_sample(call, 1, clock)
            repeats[who] = max(1, min(100_000, int(5e-3 / max(once, 1e-8))))
        taken = {who: Samples() for who in subjects}
        turns = list(subjects.items())
        for _ in range(samples or self.samples):
            for who, call in turns:
                taken[who].times.append(one_sample(call, repeats[who], clock))
            # What a subject leaves in the caches is in the time of the next: another one each round.
            turns.append(turns.pop(0))
        self.show(name, taken, marks or [])

    def show(self, name: str, taken: dict[str, Samples], marks: list[Mark]) -> None:
        """Print a row."""
        ours, *_ = taken.values()
        self.say(f"\n{name}")
        for who, peer in taken.items():
            quotient = statistics.median(
                a / b for a, b in zip(ours.times, peer.times, strict=True)
            )
            if self.as_json:
                line: dict[str, object] = {
                    "name": f"{name}/{who}",
                    "min_ns": peer.least * 1e9,
                    "median_ns": peer.median * 1e9,
                    "p90_ns": peer.tail * 1e9,
                }
                if peer is not ours:
                    line["ratio"] = quotient
                print(json.dumps(line), flush=True)
            ratio = "" if peer is ours else f"ratio {quotient:.3g}"
            self.say(
                f"  {who:44} min {seconds(peer.least):>8}  median {seconds(peer.median):>8}"
                f"  p90 {seconds(peer.tail):>8}  {ratio}"
            )
        for mark in marks:
            self.judge(name, taken, mark)

    def judge(self, name: str, taken: dict[str, Samples], mark: Mark) -> None:
        """Print whether a mark is met."""
        ours, *_ = taken.values()
        if mark.against is not None:
            peer = taken[mark.against]
            value = statistics.median(a / b for a, b in zip(ours.times, peer.times, strict=True))
            text, got = f"<= {mark.most:g} x {mark.against}", f"{value:.3g}"
        elif mark.beyond is not None:
            peer = taken[mark.beyond]
            value = statistics.median(a - b for a, b in zip(ours.times, peer.times, strict=True))
            text, got = f"<= {seconds(mark.most)} beyond {mark.beyond}", seconds(value)
        else:
            value = ours.median
            text, got = f"<= {seconds(mark.most)}", seconds(value)
        met = value <= mark.most
        if not met:
            self.missed.append(f"{name}: {got} (mark {text})")
        if self.as_json:
            print(json.dumps({"name": name, "mark": text, "value": value, "met": met}), flush=True)
        self.say(f"  {'met' if met else 'MISSED':44} {got}, mark {text}")


def one_sample(call: Call, repeats: int, clock: Callable[[], float]) -> float:
    """Return the time of one call, as the mean of some."""
    collects = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        for _ in range(repeats):
            call()
        return (clock() - start) / repeats
    finally:
        if collects:
            gc.enable()


def processor() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "processor not named"


def machine() -> str:
    """Return a line on the machine and the versions."""
    versions = []
    for package in ("numpy", "joblib", "ray", "SharedArray", "pandas", "pyarrow"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            pass
    return (
        f"{time.strftime('%F %T')}, {len(os.sched_getaffinity(0))} cores, {processor()}, load "
        f"{os.getloadavg()[0]:.1f}, Linux {platform.release()}, Python {platform.python_version()}, "
        + ", ".join(versions)
    )
