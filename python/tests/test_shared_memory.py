"""`ndshm.compat.shared_memory`. CPython's own tests are in judges/cpython.py."""

from __future__ import annotations

import doctest
import importlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
import pytest

from ndshm import _ndshm
from ndshm.compat import _blocks
from ndshm.compat.shared_memory import ShareableList, SharedMemory, SharedMemoryManager, table


@pytest.fixture(autouse=True, scope="module")
def own_table(nothing_is_left: None) -> Iterator[None]:
    """Use a table of this module, and leave it at the end."""
    os.environ["NDSHM_SHARED_MEMORY"] = f"ndshm-test-blocks-{os.getpid()}"
    yield
    table().close()
    del os.environ["NDSHM_SHARED_MEMORY"]
    for key in (_blocks._FAMILY, _blocks._TABLE):
        _blocks._settings().pop(key, None)


@pytest.fixture
def block() -> Iterator[SharedMemory]:
    made = SharedMemory(create=True, size=100)
    yield made
    made.close()
    made.unlink()


@pytest.mark.parametrize("name", ["shared_memory", "raw_array_manager", "_blocks", "dask"])
def test_docstrings(name: str) -> None:
    module = importlib.import_module(f"ndshm.compat.{name}")
    failed, count = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert not failed and (count or name == "dask")


def start(code: str) -> subprocess.Popen[str]:
    """Start a program that is no child of multiprocessing."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def ask(program: subprocess.Popen[str], line: str = "") -> str:
    """Send a line to a program, and return its answer."""
    assert program.stdin is not None and program.stdout is not None
    program.stdin.write(line + "\n")
    program.stdin.flush()
    return program.stdout.readline().strip()


MAKER = """
    import os
    from ndshm.compat.shared_memory import SharedMemory
    input()
    block = SharedMemory(create=True, size=100{more})
    print(block.name, flush=True)
    input()
"""


def test_a_block_of_a_killed_program_goes(block: SharedMemory) -> None:
    with start(MAKER.format(more="")) as program:
        name = ask(program)
        other = SharedMemory(name)
        other.buf[0] = 7
        program.kill()
    with pytest.raises(FileNotFoundError):
        SharedMemory(name)
    assert other.buf[0] == 7, "the bytes stay for those who have them"
    other.close()
    with pytest.raises(FileNotFoundError):
        other.unlink()


def test_an_untracked_block_stays() -> None:
    with start(MAKER.format(more=", track=False")) as program:
        # This process is to be in the table when the other leaves.
        table()
        name = ask(program)
        program.kill()
    left = SharedMemory(name)
    left.close()
    left.unlink()


def test_blocks_that_were_left_are_freed() -> None:
    before = len(table().handles())
    with start(MAKER.format(more="")) as program:
        name = ask(program)
        program.kill()
    _blocks._Joined.next_look = 0.0
    made = SharedMemory(create=True, size=1)
    assert len(table().handles()) <= before + 2
    assert "/" + name not in _ndshm.names(table(), "/")
    made.close()
    made.unlink()


def test_kills_at_any_moment_leave_nothing() -> None:
    code = """
        from ndshm.compat.shared_memory import SharedMemory
        input()
        print("go", flush=True)
        kept = []
        while True:
            block = SharedMemory(create=True, size=100)
            if len(kept) < 50:
                kept.append(block)
            else:
                block.close()
                block.unlink()
    """
    table().reap()
    _blocks._Joined.next_look = 0.0
    _blocks._free_left(table())
    before = table().handles()
    for round in range(12):
        with start(code) as program:
            assert ask(program) == "go"
            time.sleep(0.001 * round)
            program.kill()
    left = len(table().handles())
    assert left > len(before), "the kills were late enough"
    _blocks._Joined.next_look = 0.0
    _blocks._free_left(table())
    assert set(table().handles()) <= set(before)


def test_a_name_of_a_killed_program_is_free() -> None:
    with start(MAKER.format(more="")) as program:
        name = ask(program)
        program.kill()
    _blocks._Joined.next_look = float("inf")
    made = SharedMemory(name, create=True, size=10)
    assert bytes(made.buf) == bytes(10)
    made.close()
    made.unlink()
    _blocks._Joined.next_look = 0.0


@pytest.mark.parametrize("more", ["", ", track=False"])
def test_the_last_process_is_killed(more: str) -> None:
    """The next program frees what was tracked, and removes the table with the rest at its end."""
    name = f"ndshm-test-killed-{os.getpid()}"
    os.environ["NDSHM_SHARED_MEMORY"], before = name, os.environ["NDSHM_SHARED_MEMORY"]
    try:
        with start(MAKER.format(more=more)) as program:
            block = ask(program)
            program.kill()
        code = f"""
            from ndshm.compat.shared_memory import SharedMemory
            input()
            try:
                SharedMemory({block!r})
            except FileNotFoundError:
                print("gone")
            else:
                print("there")
        """
        with start(code) as program:
            assert ask(program) == ("there" if more else "gone")
    finally:
        os.environ["NDSHM_SHARED_MEMORY"] = before
    assert not [file for file in os.listdir("/dev/shm") if name in file]


def make(name: str) -> str:
    made = SharedMemory(name, create=True, size=10)
    made.buf[0] = 42
    made.close()
    return made.name


def test_a_block_of_a_worker_outlives_it(context: BaseContext, block: SharedMemory) -> None:
    name = f"worker-{os.getpid()}"
    with context.Pool(1) as pool:
        assert pool.apply(make, (name,)) == name
        pool.terminate()
        pool.join()
    made = SharedMemory(name)
    assert made.buf[0] == 42
    made.close()
    made.unlink()


def test_children_are_told_the_table(context: BaseContext, block: SharedMemory) -> None:
    """The environment of a fork server is that of its start."""
    name = os.environ.pop("NDSHM_SHARED_MEMORY")
    try:
        with context.Pool(1) as pool:
            assert pool.apply(size_of, (block.name,)) == block.size
    finally:
        os.environ["NDSHM_SHARED_MEMORY"] = name


def size_of(name: str) -> int:
    found = SharedMemory(name)
    found.close()
    return found.size


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_block_of_a_worker_that_was_started_first(method: str, tmp_path: Path) -> None:
    """Its parent has not used the module at that time, and finds the block."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(f"""
        import multiprocessing

        def make():
            from ndshm.compat.shared_memory import SharedMemory
            return SharedMemory(create=True, size=10).name

        if __name__ == "__main__":
            with multiprocessing.get_context({method!r}).Pool(1) as pool:
                pool.apply(len, ((),))
                from ndshm.compat.shared_memory import SharedMemory, table
                table()
                name = pool.apply(make)
                pool.close()
                pool.join()
            table().reap()
            block = SharedMemory(name)
            block.close()
            block.unlink()
            print("found")
    """))
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "found\n" and not done.stderr, done.stderr


def fill(block: SharedMemory, values: ShareableList[int]) -> None:
    np.ndarray(5, "u1", block.buf)[:] = range(5)
    values[0] += 1


def test_arguments_of_a_process(context: BaseContext, block: SharedMemory) -> None:
    values = ShareableList([1, 2, 3])
    child = context.Process(target=fill, args=(block, values))  # type: ignore[attr-defined]
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert bytes(block.buf[:5]) == bytes(range(5))
    assert list(values) == [2, 2, 3]
    values.shm.close()
    values.shm.unlink()


def test_a_manager(context: BaseContext) -> None:
    with SharedMemoryManager(ctx=context) as manager:
        block, values = manager.SharedMemory(100), manager.ShareableList(range(3))
        assert isinstance(block, SharedMemory) and isinstance(values, ShareableList)
        again = SharedMemory(block.name)
        again.close()
        names = [block.name, values.shm.name]
    for name in names:
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)


def test_close_refuses_while_there_are_views(block: SharedMemory) -> None:
    other = SharedMemory(block.name)
    view = np.frombuffer(other.buf, "u1")
    with pytest.raises(BufferError, match="1 views"):
        other.close()
    view[0] = 5
    del view
    other.close()
    assert block.buf[0] == 5


COUNT = 2000
"""Arrays that use all places of freed ones of their size."""


def test_an_array_on_a_closed_block_keeps_its_bytes() -> None:
    made = SharedMemory(create=True, size=4096)
    array = np.ndarray(512, "f8", made.buf)
    array[:] = 1.5
    made.close()
    made.unlink()
    # One of them would take the place.
    others = [table().full(513, 7.0) for _ in range(COUNT)]
    places = {other.ctypes.data for other in others}
    assert (array == 1.5).all() and array.ctypes.data not in places
    address = array.ctypes.data
    del array, others
    others = [table().full(513, 7.0) for _ in range(COUNT)]
    assert address in {other.ctypes.data for other in others}, "it is free with the last view"


def test_exceptions(block: SharedMemory) -> None:
    with pytest.raises(FileExistsError) as taken:
        SharedMemory(block.name, create=True, size=1)
    assert taken.value.filename == "/" + block.name
    with pytest.raises(FileNotFoundError):
        SharedMemory("there-is-none")
    with pytest.raises(OSError, match="too long"):
        SharedMemory("x" * 300, create=True, size=1)
    with pytest.raises(ValueError, match="null"):
        SharedMemory("a\0b")
    for size in (0, -1):
        with pytest.raises(ValueError, match="size"):
            SharedMemory(create=True, size=size)
    with pytest.raises(MemoryError):
        SharedMemory(create=True, size=1 << 60)
    with pytest.raises(TypeError):
        SharedMemory(create=True, size=1.5)  # type: ignore[arg-type]
    other = table().zeros((2, 2))
    _ndshm.publish_block(table(), "/matrix", other)
    with pytest.raises(TypeError, match="not made"):
        SharedMemory("matrix")
    other.free()


def test_a_pickle_has_the_name(block: SharedMemory) -> None:
    same = pickle.loads(pickle.dumps(block))
    same.buf[1] = 9
    assert block.buf[1] == 9 and same.size == 100
    same.close()
    same.close()
    assert same.buf is None


def test_a_fork_that_outlives_its_parent() -> None:
    """The family's first process has ended: the child begins a family."""
    code = """
        import os, time
        from ndshm.compat.shared_memory import SharedMemory
        input()
        first = SharedMemory(create=True, size=1)
        parent = os.getpid()
        if os.fork():
            os._exit(0)
        while os.getppid() == parent:
            time.sleep(0.01)
        block = SharedMemory(create=True, size=100)
        print(block.name, flush=True)
        input()
        block.unlink()
        print("unlinked", flush=True)
    """
    with start(code) as program:
        name = ask(program)
        program.wait(30)
        other = SharedMemory(name)
        other.close()
        assert ask(program) == "unlinked"


def test_finalizers_at_the_end_of_the_interpreter() -> None:
    """They run after the process has left the table."""
    code = """
        import atexit
        atexit.register(lambda: (late.close(), late.unlink()))
        from ndshm.compat.shared_memory import SharedMemory, table
        import os

        class Owner:
            def __init__(self):
                self.block = SharedMemory(create=True, size=100)
            def __del__(self):
                assert table.__globals__["_Joined"].table.closed
                self.block.close()
                self.block.unlink()
                os.write(1, b"finalized ")

        owner = Owner()
        late = SharedMemory(create=True, size=10)
        again = SharedMemory(late.name)
    """
    name = f"ndshm-test-end-{os.getpid()}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True,
        text=True, timeout=60, check=False, env={**os.environ, "NDSHM_SHARED_MEMORY": name},
    )  # fmt: skip
    assert done.stdout == "finalized " and not done.stderr, done.stderr
    assert name not in os.listdir("/dev/shm")


def test_threads_begin_a_family_at_once() -> None:
    code = """
        import multiprocessing, sys, threading
        from ndshm.compat.shared_memory import SharedMemory, table
        table()
        sys.setswitchinterval(1e-6)
        settings = multiprocessing.process.current_process()._config

        def make():
            start.wait()
            blocks.append(SharedMemory(create=True, size=10))

        for _ in range(100):
            settings.pop("ndshm_family", None)
            start = threading.Barrier(4)
            blocks = []
            threads = [threading.Thread(target=make) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for block in blocks:
                SharedMemory(block.name).close()
                block.close()
                block.unlink()
        print(len(blocks))
    """
    with start(code) as program:
        assert ask(program) == "4"


def test_signals_leave_nothing(context: BaseContext) -> None:
    table()
    before = len(table().handles())
    with start(MAKER.format(more="")) as program:
        ask(program)
        program.send_signal(signal.SIGTERM)
    table().reap()
    _blocks._Joined.next_look = 0.0
    _blocks._free_left(table())
    assert len(table().handles()) <= before
