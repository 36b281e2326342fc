"""Trials: a process is killed at a random instant of its work. How do the others go on?"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
from peer import Plan
from raw_array_before import SharedNumpyMemManager as Manager
from rows import memory_made, nothing

Work = Callable[[], Any]
Outcome = dict[str, Any]

DEADLINE = 1.0
MEGABYTE = (1 << 20) // 8


def pause(seed: int) -> None:
    """Sleep until the instant at which the victim is to be killed."""
    time.sleep(random.Random(seed).uniform(0.001, 0.02))


def forked(run: Callable[[int], None]) -> tuple[int, int]:
    """Fork a process that writes to a pipe. Return its pid and the other end."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            run(writer)
            code = 0
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode()[:1000])
        finally:
            os._exit(code)
    os.close(writer)
    return pid, reader


def killed(work: Work, seed: int) -> None:
    """Kill a process that does the work again and again."""

    def run(writer: int) -> None:
        work()
        os.write(writer, b"1")
        while True:
            work()

    pid, reader = forked(run)
    if os.read(reader, 1000) != b"1":
        raise RuntimeError("the victim does not work")
    os.close(reader)
    pause(seed)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def survivor(work: Work) -> Outcome:
    """Do the work once in another process, within the deadline. `said` is what `work` returned."""

    def run(writer: int) -> None:
        os.write(writer, (work() or "goes on").encode())

    start = time.perf_counter()
    pid, reader = forked(run)
    wait, has_ended = 50e-6, False
    while not has_ended and time.perf_counter() - start < DEADLINE:
        time.sleep(wait)
        wait = min(wait * 2, 0.005)
        has_ended = os.waitpid(pid, os.WNOHANG)[0] == pid
    if not has_ended:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    said = os.read(reader, 1000).decode() if has_ended else None
    os.close(reader)
    took = time.perf_counter() - start
    return {"hang": not has_ended, "said": said, "seconds": took, "held": None}


def bytes_of(prefix: str) -> int:
    """Return the bytes of the shared memory objects whose names begin so."""
    return sum(file.stat().st_size for file in Path("/dev/shm").glob(f"{prefix}*"))


# Peers with a lock


def manager_create(_: Plan, seed: int) -> Outcome:
    """Create and fill arrays, and forget them."""

    def work() -> None:
        handle = Manager.createArray(MEGABYTE)
        Manager.getArray(handle)[:] = 1
        Manager.freeArray(handle)

    # A new lock, and an empty list.
    Manager._instance = None
    Manager.getInstance()
    killed(work, seed)
    return survivor(work)


def manager_write(_: Plan, seed: int) -> Outcome:
    """Write an array while the manager is locked."""
    Manager._instance = None
    manager = Manager.getInstance()
    numbers = Manager.getArray(Manager.createArray(MEGABYTE))

    def work() -> None:
        with manager.lock:
            numbers[:] = 1

    killed(work, seed)
    return survivor(work)


# Peers with names


def named(make: Callable[[str], None]) -> Callable[[Plan, int], Outcome]:
    """Return a trial that creates and fills arrays with new names, and removes them."""

    def trial(plan: Plan, seed: int) -> Outcome:
        prefix = f"{plan.prefix}-{seed}-"
        count = iter(range(10**9))
        work = lambda: make(f"{prefix}{os.getpid()}-{next(count)}")  # noqa: E731
        killed(work, seed)
        return survivor(work) | {"held": bytes_of(prefix)}

    return trial


def memory_life(name: str) -> None:
    memory = memory_made(name, MEGABYTE)
    np.ndarray(MEGABYTE, float, memory.buf)[:] = 1
    memory.close()
    memory.unlink()


def array_life(name: str) -> None:
    import SharedArray

    SharedArray.create(name, MEGABYTE)[:] = 1
    SharedArray.delete(name)


ATTACH = """
import sys
from multiprocessing import shared_memory
memory = shared_memory.SharedMemory(sys.argv[1])
print(memory.buf[0], flush=True)
while True:
    memory.buf[0] = 1
"""


def memory_attach(plan: Plan, seed: int) -> Outcome:
    """Kill another program that has opened an array of this one. Can a third one open it?"""
    name = f"{plan.prefix}-{seed}"
    memory = memory_made(name, MEGABYTE)
    victim = subprocess.Popen([sys.executable, "-c", ATTACH, name], stdout=subprocess.PIPE)
    assert victim.stdout is not None
    victim.stdout.readline()
    pause(seed)
    victim.kill()
    victim.wait()
    victim.stdout.close()
    start = time.perf_counter()
    said = "goes on"
    # Its tracker is a program in Python, and may not have begun yet.
    while said == "goes on" and time.perf_counter() - start < 5 * DEADLINE:
        if not Path(f"/dev/shm/{name}").exists():
            said = "its array has lost its name"
        time.sleep(0.005)
    took = time.perf_counter() - start
    memory.close()
    if said == "goes on":
        memory.unlink()
    else:
        # Or this program's tracker would complain about it.
        resource_tracker.unregister(f"/{name}", "shared_memory")
    return {"hang": False, "said": said, "seconds": took, "held": None}


# Pools


def report_pid(writer: int) -> None:
    os.write(writer, f"{os.getpid()}\n".encode())
    numbers = np.zeros(MEGABYTE)
    while True:
        numbers.fill(1)


def pool_task(_: Plan, seed: int) -> Outcome:
    """Kill a worker of a Pool in its task. Does the task end, and does the pool take another one?"""
    reader, writer = os.pipe()
    pool = multiprocessing.get_context("fork").Pool(2)
    result = pool.apply_async(report_pid, (writer,))
    victim = int(os.read(reader, 100))
    pause(seed)
    os.kill(victim, signal.SIGKILL)
    start = time.perf_counter()
    try:
        result.get(DEADLINE)
        hangs, said = False, "no error"
    except multiprocessing.TimeoutError:
        hangs, said = True, "the pool takes other tasks"
    except Exception as error:
        hangs, said = False, type(error).__name__
    took = time.perf_counter() - start
    try:
        pool.apply_async(nothing, (0,)).get(DEADLINE)
    except multiprocessing.TimeoutError:
        said = "the pool takes no other task"
    return {"hang": hangs, "said": said, "seconds": took, "held": None}


def executor_task(_: Plan, seed: int) -> Outcome:
    """Kill a worker of a ProcessPoolExecutor in its task."""
    reader, writer = os.pipe()
    executor = ProcessPoolExecutor(2, multiprocessing.get_context("fork"))
    future = executor.submit(report_pid, writer)
    victim = int(os.read(reader, 100))
    pause(seed)
    os.kill(victim, signal.SIGKILL)
    start = time.perf_counter()
    said = None
    try:
        future.result(DEADLINE)
    except BrokenProcessPool:
        said = "is told, and the pool is broken"
    except TimeoutError:
        pass
    took = time.perf_counter() - start
    return {"hang": said is None, "said": said, "seconds": took, "held": None}


# ndshm


def held_by_others(table: Any) -> int:
    """Return the bytes of arrays that other processes own, after the dead were looked for."""
    table.reap()
    return sum(array.nbytes for array in table.arrays() if array.owner != os.getpid())


def ndshm_create(plan: Plan, seed: int) -> Outcome:
    """Create, fill and free arrays."""
    import ndshm

    with ndshm.open(f"{plan.prefix}-create-{seed}") as table:

        def work() -> None:
            x = table.empty(MEGABYTE)
            with x.write() as a:
                a[:] = 1
            x.free()

        killed(work, seed)
        return survivor(work) | {"held": held_by_others(table)}


def ndshm_write(plan: Plan, seed: int) -> Outcome:
    """Write an array under a lease."""
    import ndshm

    with ndshm.open(f"{plan.prefix}-write-{seed}") as table:
        x = table.zeros(MEGABYTE)

        def work() -> None:
            with x.write() as a:
                a[:] = 1

        def other() -> str:
            try:
                with x.write(timeout=None) as a:
                    a[:] = 2
            except ndshm.Poisoned:
                with x.recover() as a:
                    a[:] = 2
                return "is told, and repairs"
            return "goes on"

        killed(work, seed)
        return survivor(other) | {"held": held_by_others(table)}


def write_until_killed(x: Any, writer: int) -> None:
    os.write(writer, f"{os.getpid()}\n".encode())
    start = time.perf_counter()
    while time.perf_counter() - start < 5:
        x.fill(1)


def ndshm_task(plan: Plan, seed: int) -> Outcome:
    """Kill a worker of an ndshm.Pool in its tile."""
    import threading

    import ndshm

    reader, writer = os.pipe()
    at = 0.0

    def kill() -> None:
        nonlocal at
        victim = int(os.read(reader, 100).split()[0])
        pause(seed)
        at = time.perf_counter()
        os.kill(victim, signal.SIGKILL)

    with ndshm.Table() as table:
        x = table.zeros(MEGABYTE)
        with ndshm.Pool(2, table, context="fork") as pool:
            pool.for_tiles(nothing, (x,), MEGABYTE)
            killer = threading.Thread(target=kill)
            killer.start()
            said = "no error"
            try:
                pool.for_tiles(write_until_killed, (x,), MEGABYTE, writer)
            except ndshm.WorkerDied as error:
                said = "is told the rows" if error.rows else "is told"
            took = time.perf_counter() - at
            killer.join()
            x.clear_poison()
            pool.for_tiles(nothing, (x,), MEGABYTE)
    return {"hang": took > DEADLINE, "said": said, "seconds": took, "held": None}


TRIALS: dict[str, dict[str, Callable[[Plan, int], Outcome]]] = {
    "manager": {"create": manager_create, "write": manager_write},
    "SharedMemory": {"create": named(memory_life), "attach": memory_attach},
    "SharedArray": {"create": named(array_life)},
    "pool": {"task": pool_task, "executor-task": executor_task},
    "ndshm-python": {"create": ndshm_create, "write": ndshm_write, "task": ndshm_task},
}


def in_group(trial: Callable[[Plan, int], Outcome], plan: Plan, seed: int) -> str:
    """Run a trial in a process group of its own, and end what it leaves. Return its outcome as text."""

    def run(writer: int) -> None:
        os.setpgid(0, 0)
        os.write(writer, json.dumps(trial(plan, seed)).encode())
        # What a pool waits for at its end may never come.
        os.killpg(0, signal.SIGKILL)

    pid, reader = forked(run)
    text = os.read(reader, 10_000).decode()
    os.waitpid(pid, 0)
    os.close(reader)
    return text


def run(name: str, kind: str, count: int, seed: int, plan: Plan) -> None:
    """Print the outcomes of trials, a line each."""
    # Ray prints messages of its own to the standard output, also in the middle of a line. They go to the
    # error output, and the outcomes to the standard output of before.
    outcomes = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if name == "ray":
        import with_ray

        with with_ray.started(plan):
            for at in range(seed, seed + count):
                print(json.dumps(with_ray.trial(plan, at)), file=outcomes, flush=True)
        return
    trial = TRIALS[name][kind]
    # The tracker of a program that has made a SharedMemory before it forked: that of all its processes.
    resource_tracker.ensure_running()
    for at in range(seed, seed + count):
        if name == "pool":
            print(in_group(trial, plan, at), file=outcomes, flush=True)
        else:
            print(json.dumps(trial(plan, at)), file=outcomes, flush=True)
