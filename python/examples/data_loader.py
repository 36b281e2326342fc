"""A data loader: processes prepare batches of images in shared memory, and a training loop uses them.

A loader makes a batch in place, in an array of the table, and gives it to the training loop: only the
handle is sent, and the memory of a batch goes to the next one when the loop drops it. Batches arrive
in order, and a loader is not asked for a batch that is too far ahead of the loop. What a batch looks
like depends on its number alone: not on the number of loaders, or on the loader that makes it. If a
loader is killed, another takes its place, and its batches are made again.

The same is done with a `multiprocessing.Queue` that pickles the arrays, for comparison.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import time
import zlib
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

import ndshm

Array = np.ndarray[Any, np.dtype[Any]]

IMAGES, SIDE, CROP = 128, 112, 96
BATCH = 64

# Loaders import numpy, and so share no state with this program but what they are sent.
CONTEXT = multiprocessing.get_context("spawn")


class Images:
    """Compressed images, one after the other in one array: it is in memory once."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        ramp = np.arange(SIDE, dtype="u1")
        noise = rng.integers(0, 2, (IMAGES, SIDE, SIDE, 3), "u1")
        pictures = noise + ramp[:, None, None] + ramp[None, :, None]
        blobs = [zlib.compress(picture.tobytes(), 1) for picture in pictures]
        self.ends = np.cumsum([0, *map(len, blobs)])
        self.bytes = ndshm.array(np.frombuffer(b"".join(blobs), "u1"), readonly=True)

    def decode(self, index: int) -> Array:
        """Return an image."""
        blob = self.bytes[self.ends[index] : self.ends[index + 1]]
        return np.frombuffer(zlib.decompress(blob.data), "u1").reshape(SIDE, SIDE, 3)


def prepare(images: Images, number: int, batch: Array) -> None:
    """Decode the images of a batch, and crop, mirror and scale them at random."""
    rng = np.random.default_rng([7, number])
    for place, index in enumerate(rng.integers(0, IMAGES, len(batch))):
        top, left = rng.integers(0, SIDE - CROP, 2)
        image = images.decode(int(index))[top : top + CROP, left : left + CROP]
        if rng.random() < 0.5:
            image = image[:, ::-1]
        np.multiply(image, np.float32(rng.uniform(0.9, 1.1) / 255), out=batch[place])


def load(orders: Connection, table: ndshm.Table, images: Images) -> None:
    """Make the batches that are ordered, until there are no more orders."""
    while (order := orders.recv()) is not None:
        number, is_fatal = order
        batch = table.empty((BATCH, CROP, CROP, 3), "f4")
        prepare(images, number, batch[: BATCH // 2] if is_fatal else batch)
        if is_fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        orders.send((number, ndshm.give(batch)))
        # Without this view, the training loop alone decides how long it lives.
        del batch


class Loader:
    """A process, and the batches that it was asked for."""

    def __init__(self, table: ndshm.Table, images: Images) -> None:
        self.orders, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=load, args=(theirs, table, images), daemon=True)
        self.process.start()
        # Else the pipe would not end with the process.
        theirs.close()
        self.ordered: list[int] = []

    def order(self, number: int, is_fatal: bool) -> None:
        """Ask for a batch."""
        self.ordered.append(number)
        try:
            self.orders.send((number, is_fatal))
        except OSError:
            pass  # It is dead, and the end of its pipe tells.

    def receive(self) -> tuple[int, ndshm.ndarray] | None:
        """Return the next batch, or None if the process is dead."""
        try:
            number, batch = self.orders.recv()
        except (EOFError, OSError):
            return None
        self.ordered.remove(number)
        return number, batch

    def end(self) -> None:
        """End the process."""
        try:
            self.orders.send(None)
        except OSError:
            pass
        self.process.join()
        self.orders.close()


class Loaders:
    """Loaders that work ahead of a training loop."""

    def __init__(self, table: ndshm.Table, images: Images, count: int) -> None:
        self.table, self.images = table, images
        self.loaders = [Loader(table, images) for _ in range(count)]
        self.ahead = 2 * count + 1
        self.made_again: list[int] = []

    def batches(self, count: int, fatal: int = -1) -> Iterator[ndshm.ndarray]:
        """Yield the batches in order. The loader of batch `fatal` is killed while it makes it."""
        missing = list(range(count))
        ready: dict[int, ndshm.ndarray] = {}
        for number in range(count):
            while number not in ready:
                # At most `ahead` + 1 batches exist or are being made, with the one that the loop
                # has: so memory is bounded.
                while missing and missing[0] < number + self.ahead:
                    loader = min(self.loaders, key=lambda loader: len(loader.ordered))
                    loader.order(missing[0], missing[0] == fatal)
                    del missing[0]
                ends = wait([loader.orders for loader in self.loaders])
                for loader in [loader for loader in self.loaders if loader.orders in ends]:
                    received = loader.receive()
                    if received is None:
                        self.replace(loader)
                        missing = sorted(missing + loader.ordered)
                        fatal = -1
                    else:
                        ready[received[0]] = received[1]
            yield ready.pop(number)

    def replace(self, loader: Loader) -> None:
        """Start another loader for one that is dead."""
        loader.end()
        if loader.process.exitcode != -signal.SIGKILL:
            raise SystemExit(f"a loader has failed: exit code {loader.process.exitcode}")
        self.made_again += loader.ordered
        self.loaders[self.loaders.index(loader)] = Loader(self.table, self.images)
        # Frees the batch that it was making.
        self.table.reap()

    def end(self) -> None:
        """End all loaders."""
        for loader in self.loaders:
            loader.end()


def load_for_queue(orders: Any, results: Any, images: Images) -> None:
    """Make batches as `load` does, in memory of this process."""
    while (number := orders.get()) is not None:
        batch = np.empty((BATCH, CROP, CROP, 3), "f4")
        prepare(images, number, batch)
        results.put((number, batch))


def batches_of_queue(images: Images, count: int, loaders: int) -> Iterator[Array]:
    """Yield the batches in order, from processes that pickle them into a queue."""
    orders, results = CONTEXT.Queue(), CONTEXT.Queue()
    processes = [
        CONTEXT.Process(target=load_for_queue, args=(orders, results, images), daemon=True)
        for _ in range(loaders)
    ]
    for process in processes:
        process.start()
    ready: dict[int, Array] = {}
    ahead = 2 * loaders + 1
    for number in range(min(ahead, count)):
        orders.put(number)
    for number in range(count):
        while number not in ready:
            try:
                made, batch = results.get(timeout=30)
            except queue.Empty:
                raise SystemExit("a loader of the queue has failed") from None
            ready[made] = batch
        yield ready.pop(number)
        if number + ahead < count:
            orders.put(number + ahead)
    for _ in processes:
        orders.put(None)
    for process in processes:
        process.join()


def train(batches: Iterator[Any]) -> tuple[int, float]:
    """Use all batches. Return a digest of their bytes, and the batches a second after the first."""
    weights, digest, count, start = np.zeros(3, "f4"), 0, 0, 0.0
    for batch in batches:
        if not count:
            start = time.perf_counter()
        count += 1
        means = batch[:, ::4, ::4].mean(axis=(1, 2))
        weights -= 0.1 * (means @ weights - means[:, 0]) @ means / len(batch)
        digest = zlib.crc32(batch, digest)
    digest = zlib.crc32(weights.data, digest)
    return digest, (count - 1) / (time.perf_counter() - start)


def train_with(images: Images, loaders: int, count: int, fatal: int = -1) -> tuple[int, float]:
    """Train with loaders that give their batches. Print how it went."""
    # A table for the batches: its end gives their memory back.
    with ndshm.Table() as table:
        source = Loaders(table, images, loaders)
        digest, rate = train(source.batches(count, fatal))
        source.end()
        again = f", batches {sorted(source.made_again)} made again" if source.made_again else ""
        print(f"ndshm, loaders: {loaders}, {rate:6.1f} batches/s, digest {digest:08x}{again}")
        assert (fatal in source.made_again) == (fatal >= 0)
        found = table.stat()
        assert found.arrays == 0 and found.made >= count, found
    return digest, rate


def main(count: int = 24) -> None:
    """Train in several ways on the same batches."""
    images = Images()
    size = BATCH * CROP * CROP * 3 * 4
    print(f"{count} batches of {size / 1e6:.1f} MB")
    digest, rate = train_with(images, 2, count)
    other, rate_of_queue = train(batches_of_queue(images, count, 2))
    print(f"Queue, loaders: 2, {rate_of_queue:6.1f} batches/s, digest {other:08x}")
    print(f"{rate / rate_of_queue:.1f} times as fast")
    alone, _ = train_with(images, 1, count)
    survived, _ = train_with(images, 3, count, fatal=count // 2)
    assert digest == other == alone == survived


if __name__ == "__main__":
    main()
