"""Kills: processes of each peer that run trials, and what they say of them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import seconds
from plan import PEERS

# Trials run in so many processes at a time, because most of them wait for a deadline.
LANES = 4


@dataclass
class Death:
    """The outcomes of the kills of one kind."""

    peer: str
    kind: str
    work: str
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    # Files that exist after all programs of the kind have ended.
    files: int = 0
    bytes: int = 0
    error: str = ""

    @property
    def hangs(self) -> int:
        return sum(outcome["hang"] for outcome in self.outcomes)

    @property
    def said(self) -> dict[str, int]:
        """Return the answers of the others, and how often each came."""
        return dict(Counter(str(outcome["said"]) for outcome in self.outcomes if outcome["said"]))

    @property
    def median(self) -> float | None:
        """Return the median time of the others that did not hang."""
        times = [outcome["seconds"] for outcome in self.outcomes if not outcome["hang"]]
        return statistics.median(times) if times else None

    @property
    def held(self) -> tuple[int, int]:
        """Return in how many trials the dead still held memory afterwards, and how many bytes in all."""
        held = [outcome["held"] or 0 for outcome in self.outcomes]
        return sum(bytes > 0 for bytes in held), sum(held)

    def line(self) -> str:
        if self.error:
            return f"| {PEERS[self.peer]}: {self.work} | | {self.error} | | | |"
        count = len(self.outcomes)
        said = ", ".join(f"{said} ({times})" for said, times in sorted(self.said.items()))
        median = "" if self.median is None else seconds(self.median)
        left = []
        if self.held[0]:
            left.append(f"{size(self.held[1])} in {self.held[0]}")
        if self.files:
            left.append(f"{self.files} file{'s' * (self.files > 1)}, {size(self.bytes)}")
        return (
            f"| {PEERS[self.peer]}: {self.work} | {count} | {self.hangs} | {said} | {median} | "
            f"{'; '.join(left) or 'nothing'} |"
        )

    def as_json(self) -> dict[str, object]:
        return {
            "peer": self.peer,
            "kind": self.kind,
            "work": self.work,
            "kills": len(self.outcomes),
            "hangs": self.hangs,
            "said": self.said,
            "median_ns": None if self.median is None else self.median * 1e9,
            "trials_with_memory_held": self.held[0],
            "bytes_held": self.held[1],
            "files_left": self.files,
            "bytes_left": self.bytes,
            "error": self.error,
        }


def size(count: int) -> str:
    return f"{count / 1e6:.3g} MB" if count >= 10_000 else f"{count} bytes"


def files_left(prefix: str, directory: Path) -> list[Path]:
    """Return the shared memory of the kind, and the files that iceoryx2 has in its directory."""
    left = list(Path("/dev/shm").glob(f"{prefix}*"))
    return left + [file for file in directory.rglob(f"{prefix}*") if file.is_file()]


def kill_some(
    peer: str, kind: str, work: str, command: list[str], kills: int, mark: str
) -> Death:
    """Run trials of one kind, and look for what they leave."""
    death = Death(peer, kind, work)
    prefix = f"{mark}-{peer}-{kind}"
    directory = Path(os.environ["PEERS_DIRECTORY"]) / f"{peer}-{kind}"
    directory.mkdir()
    environment = os.environ | {"PEERS_PREFIX": prefix, "PEERS_DIRECTORY": str(directory)}
    # Ray's daemons are there once.
    lanes = 1 if peer == "ray" else min(LANES, kills)
    counts = [kills // lanes + (lane < kills % lanes) for lane in range(lanes)]
    processes = [
        subprocess.Popen(
            [*command, "trials", kind, str(count), str(1 + sum(counts[:lane]))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for lane, count in enumerate(counts)
    ]
    for process, count in zip(processes, counts, strict=True):
        try:
            # A trial may wait for three deadlines, and starts processes.
            out, errors = process.communicate(timeout=120 + 15 * count)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
        outcomes = [line for line in out.splitlines() if line.startswith("{")]
        death.outcomes += map(json.loads, outcomes)
        if len(outcomes) != count:
            why = errors.strip().splitlines() or out.strip().splitlines() or ["no output"]
            death.error = f"{len(outcomes)} of {count} trials ended: {why[-1]}"
    # The trackers of multiprocessing end some time after their programs.
    deadline = time.monotonic() + 5
    while (left := files_left(prefix, directory)) and time.monotonic() < deadline:
        time.sleep(0.1)
    death.files = len(left)
    death.bytes = sum(file.stat().st_size for file in left)
    for file in left:
        file.unlink(missing_ok=True)
    return death
