"""Arrays through the pools of other packages: executors, dask and Ray, where they are installed."""

from __future__ import annotations

import importlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ndshm
from ndshm.compat.dask import register


def add(x: Any, row: int) -> float:
    x[row] += row
    return float(x[row].sum())


def fill(x: Any, value: float) -> str:
    x[:] = value
    return str(x.handle)


def result_of(n: int) -> Any:
    return ndshm.give(ndshm.full(n, 3.0))


def check_pool(submit: Any) -> None:
    """Check that workers write in place, get parts, may not write what is read-only, and give."""
    x = ndshm.zeros((4, 1000))
    assert submit(add, x, 2) == 2000
    assert submit(add, x[:, ::2], 3) == 1500
    assert x[:, 0].tolist() == [0, 0, 2, 3] and x[3, 1] == 0
    frozen = ndshm.array(x, readonly=True)
    with pytest.raises(ValueError, match="read-only"):
        submit(add, frozen, 0)
    made = submit(result_of, 100)
    assert isinstance(made, ndshm.ndarray) and made.is_owned
    assert made.sum() == 300


def test_an_executor(context: BaseContext) -> None:
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        check_pool(lambda function, *rest: pool.submit(function, *rest).result(30))


def optional(name: str) -> Any:
    """Import a package, or skip the test with a line that says why."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        reason = f"{name} is not installed for this Python: {error}"
        print(f"skipped: {reason}")
        return pytest.skip(reason)


@pytest.mark.timeout(120)
def test_dask_distributed() -> None:
    distributed = optional("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):

        def submit(function: Any, *rest: Any) -> Any:
            return client.submit(function, *rest, pure=False).result(timeout=30)

        check_pool(submit)
        register()
        x = ndshm.zeros(1000)
        scattered = client.scatter(x)
        assert client.submit(add, scattered, 0, pure=False).result(timeout=30) == 0
        assert client.submit(fill, scattered, 5.0, pure=False).result(timeout=30) == x.handle
        assert (x == 5).all()


@pytest.mark.timeout(120)
def test_ray() -> None:
    ray = optional("ray")
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        logging_level="error",
        # Workers import this module.
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}},
    )
    try:
        remote_add, remote_result = ray.remote(add), ray.remote(result_of)
        tasks = {add: remote_add, result_of: remote_result}

        def submit(function: Any, *rest: Any) -> Any:
            return ray.get(tasks[function].remote(*rest), timeout=60)

        x = ndshm.zeros((4, 1000))
        # Tasks write in place, which Ray's own objects refuse.
        ray.get([remote_add.remote(x, row) for row in range(4)], timeout=60)
        assert x[:, 0].tolist() == [0, 1, 2, 3]
        check_pool(submit)
        assert np.array_equal(ray.get(ray.put(x)), x)
    finally:
        ray.shutdown()
