"""The workers of a pool: their processes, and the end of a call that they have."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from multiprocessing import util
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from time import monotonic

from . import _ndshm
from ._errors import NdshmError
from ._pool_answers import check, discard
from ._pool_calls import Answer, Call, Ended
from ._pool_worker import main

_SLICE = 0.04
_GRACE = 1.0


class Crew:
    """The workers of a pool."""

    def __init__(self, table: _ndshm.Table, context: BaseContext, workers: int) -> None:
        self._table, self._context = table, context
        self.core = _ndshm.PoolParent(table, workers)
        # In a forked child the workers are the parent's.
        self._pid = os.getpid()
        self._processes: list[BaseProcess | None] = [None] * workers
        self._poll = select.poll()
        # All workers live and are set up.
        self._is_whole = False
        # Some workers are new: they are not set up, and have none of the calls.
        self.has_fresh = False
        # No look at the workers is needed before that time.
        self.alive_until = 0.0
        # A call hands out its tiles one by one.
        self.is_running = False
        self._finalize = util.Finalize(
            self, _end, args=(self.core, self._processes), exitpriority=15
        )

    def __len__(self) -> int:
        return len(self._processes)

    @property
    def pids(self) -> list[int | None]:
        """The processes of the workers, in their order."""
        return [None if process is None else process.pid for process in self._processes]

    @property
    def method(self) -> str:
        """The start method of the processes."""
        method: str = self._context.get_start_method()
        return method

    # ---- calls ----------------------------------------------------------------------------------

    def call(self, number: int, body: bytes, call: Call | None) -> list[Answer]:
        """Call all workers with bytes, and return their answers."""
        try:
            ended = self.core.call(number, body)
        except BaseException:
            self.give_up()
            raise
        return self.check(ended, call)

    def check(self, ended: Ended, call: Call | None, killed: bool = False) -> list[Answer]:
        """Raise the error of a call that has ended, or return its answers. Pass `killed` if workers
        were killed because of an error.
        """
        try:
            return check(ended, call, killed, self._exitcode)
        except BaseException:
            self.doubt()
            raise

    def cancel(self) -> bool:
        """Cancel the open call. Return True if workers were killed for that."""
        if self.core.cancel(_GRACE):
            return False
        # They are in long tiles. The arrays of these are poisoned.
        self.kill()
        self.core.cancel(_GRACE)
        return True

    def abort(self) -> None:
        """End an open call that an exception interrupts, as KeyboardInterrupt."""
        is_open = self.core.is_open
        self.is_running = False
        if not is_open:
            return
        self.cancel()
        self.doubt()
        with suppress(NdshmError):
            discard(self.core.end()[0])

    def give_up(self) -> None:
        """End an open call because of an exception, which the caller raises."""
        # Another thread may have closed the pool.
        with suppress(RuntimeError):
            self.abort()

    # ---- processes ------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Return False if workers have to be replaced or set up."""
        if self.is_running:
            raise RuntimeError("a call of the pool is running: finish() it first")
        return self._is_whole and not self._poll.poll(0)

    def doubt(self) -> None:
        """Look at the workers before the next call."""
        self._is_whole, self.alive_until = False, 0.0

    def trust(self) -> None:
        """Note that all workers live and are set up."""
        self._is_whole, self.has_fresh = True, False

    def fill(self) -> None:
        """Start the workers that are missing, and wait for them."""
        hired: set[int | None] = set()
        while True:
            for worker, process in enumerate(self._processes):
                if process is not None and process.is_alive():
                    continue
                if process is not None:
                    if process.pid in hired:
                        raise NdshmError(
                            f"worker {process.pid} ended with exit code {process.exitcode} before "
                            "it was ready, see its message above: with spawn and forkserver it "
                            "imports the main module of the program, which makes its pool below "
                            '`if __name__ == "__main__":`'
                        )
                    self._poll.unregister(process.sentinel)
                    self._processes[worker] = None
                    process.join()
                    process.close()
                hired.add(self._hire(worker))
            if self.core.wait_for_workers(len(self), _SLICE):
                return

    def _hire(self, worker: int) -> int | None:
        """Start a worker, and return its pid."""
        process: BaseProcess = self._context.Process(  # type: ignore[attr-defined]
            target=main,
            args=(self._table, self.core.handle, worker, len(self)),
            name=f"ndshm-worker-{worker}",
            daemon=True,
        )
        # A Ctrl-C that comes before the worker has its handler is blocked until then.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            self.has_fresh = True
            process.start()
            self._processes[worker] = process
            self._poll.register(process.sentinel, select.POLLIN)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process.pid

    def _exitcode(self, worker: int, pid: int) -> int | None:
        """Return the exit code of a worker that has died."""
        process = self._processes[worker]
        if process is None or process.pid != pid:
            return None
        process.join(_GRACE)
        return process.exitcode

    def dead(self) -> tuple[int, int | None] | None:
        """Return the pid and the exit code of a worker that has ended."""
        for process in self._processes:
            if process is not None and process.pid is not None and not process.is_alive():
                return process.pid, process.exitcode
        return None

    def kill(self) -> None:
        """Kill the workers, and wait for them."""
        if os.getpid() != self._pid:
            return
        for process in self._processes:
            if process is not None:
                process.kill()
        for process in self._processes:
            if process is not None:
                process.join()

    def end(self) -> None:
        """End the workers, and wait for them."""
        self._finalize()


def _end(core: _ndshm.PoolParent, processes: list[BaseProcess | None]) -> None:
    """End the workers of a pool that is closed, dropped, or left when the interpreter ends."""
    core.close()
    deadline = monotonic() + 5.0
    for process in processes:
        if process is None:
            continue
        process.join(max(0.0, deadline - monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
