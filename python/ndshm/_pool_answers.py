"""The answers of the workers to a call: the results, or the exception that they amount to."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any

from ._errors import NdshmError
from ._pool_calls import Answer, Call, Ended
from ._pool_errors import WorkerDied, spell, tile_of, unpack


def check(
    ended: Ended,
    call: Call | None,
    killed: bool,
    exitcode: Callable[[int, int], int | None],
) -> list[Answer]:
    """Raise the error of a call that has ended, or return its answers.

    Pass `killed` if the pool has killed workers because of an error. `exitcode` returns the exit
    code of a worker that has died, by its number and its pid.
    """
    answers, torn, missing = ended
    if torn or missing or any(kind != "finished" for _, _, kind, _ in answers):
        discard(answers)
    if killed:
        for _, pid, kind, body in answers:
            if kind == "failed":
                raise _failure(pid, body, call, missing)
    for worker, pid, kind, _ in answers:
        if kind in ("died", "left"):
            torn_rows, missing_rows = (
                [] if call is None else call.rows_of(tiles) for tiles in (torn, missing)
            )
            raise WorkerDied(pid, exitcode(worker, pid), torn_rows, missing_rows)
    for _, pid, kind, body in answers:
        if kind == "failed":
            raise _failure(pid, body, call, missing)
        if kind == "lost":
            raise NdshmError(
                f"the answer of worker {pid} was lost: it has ended before that was read"
            )
    if call is not None and (torn or missing):
        left = spell(call.rows_of([*torn, *missing]))
        raise NdshmError(
            f"no worker has run the rows {left} of the call to their end; call again"
        )
    return answers


def _failure(pid: int, body: bytes, call: Call | None, missing: list[int]) -> Exception:
    """Return the exception of a worker, with a note of the rows."""
    raised = unpack(body)
    tile = tile_of(body)
    if tile is not None and call is not None:
        rows = call.rows_of([tile])[0]
        note = f"raised in worker {pid} of the pool, on tile {tile}: rows {rows.start}:{rows.stop}"
        if call.writes():
            note += "; the arrays that it writes are poisoned: see x.recover() and x.clear_poison()"
        if missing:
            note += f"; the rows {spell(call.rows_of(missing))} were not run"
        raised.add_note(note)
    return raised


def loads(bodies: Iterable[bytes]) -> list[Any]:
    """Load results. If one cannot be loaded, the others are all the same: the arrays in them are this
    process's then, and are freed.
    """
    results: list[Any] = []
    failure: Exception | None = None
    for body in bodies:
        try:
            results.append(pickle.loads(body))
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return results


def discard(answers: list[Answer]) -> None:
    """Free the arrays in results that nobody gets."""
    for _, _, kind, body in answers:
        if kind == "finished" and body:
            try:
                pickle.loads(body)
            except Exception:
                # The arrays that it had loaded before are freed.
                pass
