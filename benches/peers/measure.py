"""The timed rows: a process for each peer, which take turns."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

from harness import Samples, seconds
from install import Found
from plan import ROWS

# How long a sample should take, and all samples of a peer in a row, in seconds.
SAMPLE = 5e-3
PATIENCE = 5.0


@dataclass
class Figure:
    """The times of a peer in a row."""

    peer: str
    row: str
    samples: Samples = field(default_factory=Samples)
    # The first call, which may find fresh memory.
    first: float = 0.0
    repeats: int = 1
    # The quotients of ndshm's samples and the neighbouring ones of this peer.
    ratios: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        return Samples(self.ratios).median if self.ratios else None

    def wanted(self, most: int) -> int:
        """Return how many samples there is time for."""
        return max(3, min(most, int(PATIENCE / (self.samples.times[0] * self.repeats + 1e-9))))

    def line(self) -> str:
        ratio = "" if self.ratio is None else f"ndshm's time is {self.ratio:.3g} of it"
        return (
            f"{self.row:10} {self.peer:14} min {seconds(self.samples.least):>8}  median "
            f"{seconds(self.samples.median):>8}  p90 {seconds(self.samples.tail):>8}  first "
            f"{seconds(self.first):>8}  {ratio}"
        )

    def as_json(self) -> dict[str, object]:
        return {
            "row": self.row,
            "peer": self.peer,
            "min_ns": self.samples.least * 1e9,
            "median_ns": self.samples.median * 1e9,
            "p90_ns": self.samples.tail * 1e9,
            "first_ns": self.first * 1e9,
            "samples": len(self.samples.times),
            "ratio": self.ratio,
        }


class PeerFailed(Exception):
    """A peer has ended, or said what is no answer."""


class Peer:
    """The process of a peer."""

    def __init__(self, name: str, command: list[str], prefix: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            ["env", f"PEERS_PREFIX={prefix}-{name}", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def ask(self, question: str) -> str:
        """Send a line, and return the answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(question + "\n")
            self.process.stdin.flush()
        except OSError:
            raise PeerFailed(f"{question}: it has ended") from None
        if answer := self.process.stdout.readline().strip():
            return answer
        raise PeerFailed(f"{question}: it ended with code {self.process.wait()}")

    def prepares(self, row: str) -> bool:
        """Return whether the peer offers the row, after it is prepared."""
        return self.ask(f"prepare {row}") == "ready"

    def sample(self, row: str, times: int) -> float:
        """Return the time of a call, as the mean of some."""
        return float(self.ask(f"sample {row} {times}")) / times

    def finish(self, row: str) -> None:
        self.ask(f"finish {row}")

    def close(self) -> None:
        """End the process, as a program ends."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Measure:
    """A run of rows."""

    def __init__(self, found: Found, samples: int, prefix: str, say: Callable[[str], None]) -> None:
        self.found = found
        self.samples = samples
        self.prefix = prefix
        self.say = say
        self.peers: dict[str, Peer] = {}
        # Why a peer has no figure in a row.
        self.reasons: dict[str, str] = {}

    def rows(self, rows: list[str]) -> list[Figure]:
        """Take the samples of all rows."""
        figures: list[Figure] = []
        try:
            for row in rows:
                self.say(f"row: {row}")
                is_heavy = ROWS[row][1]
                names = list(self.found.commands)
                if is_heavy and "ndshm" in names:
                    # Memory is short for all at once: one peer after the other, beside ndshm.
                    self.close()
                    ours = self.together(row, names[:1])
                    figures += ours
                    self.close()
                    for name in names[1:]:
                        pair = self.together(row, ["ndshm", name])
                        figures += pair[1:]
                        for ours_again in pair[:1]:
                            ours[0].samples.times += ours_again.samples.times
                        # Also ndshm, whose table keeps the pages of what was freed.
                        self.close()
                else:
                    figures += self.together(row, names)
        finally:
            self.close()
        return figures

    def close(self, *names: str) -> None:
        """End the processes of peers, or of all of them."""
        for name in names or list(self.peers):
            if name in self.peers:
                self.peers.pop(name).close()

    def guarded(self, name: str, row: str, call: Callable[[Peer], object]) -> bool:
        """Call a peer. Return whether it goes on; a peer that fails is left out of the row."""
        try:
            if name not in self.peers:
                self.peers[name] = Peer(name, self.found.commands[name], self.prefix)
            call(self.peers[name])
        except (PeerFailed, ValueError) as error:
            self.reasons[f"{name}, {row}"] = str(error)
            self.close(name)
            return False
        return True

    def together(self, row: str, names: list[str]) -> list[Figure]:
        """Take the samples of some peers in turns."""
        figures: list[Figure] = []
        for name in names:
            figure = Figure(name, row)

            def begin(peer: Peer, figure: Figure = figure) -> None:
                if not peer.prepares(row):
                    return
                figure.first = peer.sample(row, 1)
                # The second call is a better guide than the first, and a tenth of a sample than one call.
                once = peer.sample(row, 1)
                once = peer.sample(row, max(1, min(10**6, int(SAMPLE / 10 / max(once, 1e-9)))))
                figure.repeats = max(1, min(10**8, int(SAMPLE / max(once, 1e-10))))
                figure.samples.times.append(peer.sample(row, figure.repeats))
                figures.append(figure)

            self.guarded(name, row, begin)
        # That sample was a warm-up: it tells how many there is time for.
        wanted = {figure.peer: figure.wanted(self.samples) for figure in figures}
        for figure in figures:
            figure.samples.times.clear()
        turns = list(figures)
        for at in range(self.samples):
            taken: dict[str, float] = {}
            for figure in list(turns):
                if at >= wanted[figure.peer]:
                    continue

                def one(peer: Peer, figure: Figure = figure) -> None:
                    taken[figure.peer] = peer.sample(row, figure.repeats)

                if self.guarded(figure.peer, row, one):
                    figure.samples.times.append(taken[figure.peer])
                else:
                    figures.remove(figure)
                    turns.remove(figure)
            for figure in figures:
                if figure.peer != "ndshm" and {"ndshm", figure.peer} <= set(taken):
                    figure.ratios.append(taken["ndshm"] / taken[figure.peer])
            # What a peer leaves in the caches is in the time of the next: another one each round.
            turns.append(turns.pop(0)) if turns else None
        for figure in figures:
            self.guarded(figure.peer, row, lambda peer: peer.finish(row))
        return figures
