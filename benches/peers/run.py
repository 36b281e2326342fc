#!/usr/bin/env python3
"""ndshm beside its peers, in one run on one machine: `benches/peers/run.py --help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "python" / "benches")]

from deaths import Death, kill_some  # noqa: E402
from harness import processor, seconds  # noqa: E402
from install import Found, install  # noqa: E402
from measure import Figure, Measure  # noqa: E402
from plan import DEATHS, PEERS, ROWS  # noqa: E402


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8 MB for 80 MB, 10 kills, few samples")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--only", default="", help=f"peers, with commas: {','.join(PEERS)}")
    parser.add_argument("--rows", default="", help=f"rows, with commas: {','.join(ROWS)},kills")
    parser.add_argument("--kills", type=int, help="kills of each kind; by default 200")
    parser.add_argument("--wheel", type=Path, help="a wheel of ndshm, instead of building one")
    options = parser.parse_args()
    options.only = options.only.split(",") if options.only else list(PEERS)
    options.rows = options.rows.split(",") if options.rows else [*ROWS, "kills"]
    if unknown := set(options.only) - set(PEERS) | set(options.rows) - set(ROWS) - {"kills"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if options.kills is None:
        options.kills = 10 if options.quick else 200
    if options.kills < 1:
        parser.error("--kills takes a number from 1 on; `--rows` without kills leaves them out")
    return options


def say(text: str) -> None:
    """Print progress, which is not part of the results."""
    print(f"# {text}", file=sys.stderr, flush=True)


def machine() -> dict[str, object]:
    """Describe this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": time.strftime("%F %T"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "memory_bytes": memory,
        "shm_bytes": shutil.disk_usage("/dev/shm").total,
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def our_processes(mark: str) -> list[int]:
    """Return the processes that carry the mark of this run in their environment, but this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        pid = int(entry.parent.name)
        try:
            if pid != os.getpid() and f"PEERS_RUN={mark}".encode() in entry.read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue
    return found


def clean_up(mark: str) -> list[str]:
    """End what is left of this run, and remove its files. Return what was left."""
    deadline = time.monotonic() + 5
    while (left := our_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    report = []
    for pid in left:
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            os.kill(pid, signal.SIGKILL)
            report.append(f"process {name}")
        except OSError:
            continue
    for file in Path("/dev/shm").glob(f"{mark}*"):
        file.unlink(missing_ok=True)
    return report


def markdown(
    figures: list[Figure],
    deaths: list[Death],
    options: argparse.Namespace,
    sizes: dict[str, str],
) -> str:
    """Return the tables."""
    lines = []
    rows = [row for row in ROWS if row in options.rows and row != "open-view"]
    by_place = {(figure.peer, figure.row): figure for figure in figures}

    def cell(peer: str, row: str) -> str:
        figure = by_place.get((peer, row))
        text = "" if figure is None else seconds(figure.samples.median)
        view = by_place.get((peer, "open-view"))
        return f"{text} (view {seconds(view.samples.median)})" if row == "open" and view else text

    if figures:
        lines.append("| | " + " | ".join(ROWS[row][0].format(**sizes) for row in rows) + " |")
        lines.append("|---" * (len(rows) + 1) + "|")
        for peer in options.only:
            if any((peer, row) in by_place for row in rows):
                cells = " | ".join(cell(peer, row) for row in rows)
                lines.append(f"| {PEERS[peer]} | {cells} |")
        lines.append("")
    if deaths:
        columns = ("killed while it ..", "kills", "the others hang", "and otherwise", "median time")
        lines.append("| " + " | ".join((*columns, "left behind")) + " |")
        lines.append("|---" * 6 + "|")
        lines += [death.line() for death in deaths]
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    """Install, measure and print. Return the exit code."""
    options = arguments()
    mark = f"ndshm-peers-{os.getpid()}"
    about = machine()
    found = install(options.only, options.wheel, say)
    about["load_before_rows"] = round(os.getloadavg()[0], 2)
    large = 10**6 if options.quick else 10**7
    names = 1_000 if options.quick else 10_000
    # Short, because Ray has sockets below it, and their paths have at most 107 bytes.
    directory = tempfile.mkdtemp(prefix="peers-", dir="/tmp")
    environment = {
        "PEERS_RUN": mark,
        "PEERS_LARGE": str(large),
        "PEERS_SMALL": "1000",
        "PEERS_NAMES": str(names),
        "PEERS_PREFIX": mark,
        "PEERS_DIRECTORY": directory,
        "PYTHONWARNINGS": "ignore",
        # The timing of the package's own benches, and the manager of RawArrays as programs had it.
        "PYTHONPATH": os.pathsep.join(str(ROOT / "python" / part) for part in ("benches", "examples")),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    os.environ |= environment
    # A signal ends the run as Ctrl-C does: what is below is cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    figures: list[Figure] = []
    deaths: list[Death] = []
    try:
        measure = Measure(found, 7 if options.quick else 31, mark, say)
        figures = measure.rows([row for row in ROWS if row in options.rows])
        if "kills" in options.rows:
            for peer in found.commands:
                for kind, work in DEATHS[peer].items():
                    say(f"kills: {peer}, {kind}")
                    death = kill_some(peer, kind, work, found.commands[peer], options.kills, mark)
                    deaths.append(death)
    finally:
        left = clean_up(mark)
        shutil.rmtree(directory, ignore_errors=True)
    about["load_at_end"] = round(os.getloadavg()[0], 2)
    report(options, about, found, figures, deaths, measure.reasons, left, large, names)
    broken = [death for death in deaths if death.error] or left
    return 1 if broken or found.missing and not found.commands else 0


def report(
    options: argparse.Namespace,
    about: dict[str, object],
    found: Found,
    figures: list[Figure],
    deaths: list[Death],
    reasons: dict[str, str],
    left: list[str],
    large: int,
    names: int,
) -> None:
    """Print the results."""
    if options.json:
        result = {
            "machine": about,
            "versions": found.versions,
            "missing": found.missing,
            "not_measured": reasons,
            "rows": [figure.as_json() for figure in figures],
            "kills": [death.as_json() for death in deaths],
            "left": left,
        }
        print(json.dumps(result, indent=1))
        return
    memory = int(str(about["memory_bytes"])) / 2**30
    print(
        f"{about['date']}, {about['processor']}, {about['cores']} cores, {memory:.1f} GiB, Linux "
        f"{about['kernel']}, Python {about['python']}"
    )
    print(
        f"load {about['load_at_start']} at the start, {about['load_before_rows']} before the first "
        f"row, {about['load_at_end']} at the end"
    )
    print(", ".join(f"{peer} {version}" for peer, version in found.versions.items()))
    for peer, reason in found.missing.items():
        print(f"not there: {peer}: {reason}")
    for what, reason in reasons.items():
        print(f"not measured: {what}: {reason}")
    print()
    sizes = {"large": f"{large * 8 // 10**6} MB", "names": f"{names:,}"}
    print(markdown(figures, deaths, options, sizes))
    for figure in figures:
        print(figure.line())
    for what in left:
        print(f"left by a peer, and ended: {what}")


if __name__ == "__main__":
    sys.exit(main())
