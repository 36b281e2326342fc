"""The vector environment."""

from __future__ import annotations

import multiprocessing
import operator
from typing import Any, TypeAlias

import numpy as np
from gymnasium.error import NoAsyncCallError
from numpy.typing import ArrayLike, NDArray

from .._errors import NdshmError
from ._arguments import Seed, masked, numbers, seeds_of
from ._exchange import Infos
from ._letters import CALL, SET
from ._life import Life

Step: TypeAlias = tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Infos]


class VectorEnv(Life):
    """Environments that live in a few worker processes, and write their observations in place.

    `env_fns` are functions that make the environments. `workers` is the number of processes, by
    default one for each processor, and at most one for each environment. An environment stays in
    its worker. `context` is a start method of `multiprocessing` or one of its contexts, and `table`
    the table of the arrays.

    The other arguments are those of `gymnasium.vector.AsyncVectorEnv`. With `copy=False` the
    observations that are returned are the shared arrays, which the next step changes. Spaces that
    are no arrays of one shape, such as `Text` or `Graph`, are pickled; `shared_memory=False` does
    that with all. The results are those of `gymnasium.vector.SyncVectorEnv`, for any number of
    workers.

    >>> import gymnasium as gym, numpy as np
    >>> from ndshm.gymnasium import VectorEnv
    >>> envs = VectorEnv([lambda: gym.make("CartPole-v1")] * 4, workers=2)
    >>> observations, infos = envs.reset(seed=42)
    >>> observations, rewards, terminations, truncations, infos = envs.step(envs.action_space.sample())
    >>> observations.shape, rewards
    ((4, 4), array([1., 1., 1., 1.]))

    `send` and `recv` step some environments at a time: `recv(k)` returns the first k that are ready.

    >>> envs.send(np.array([0, 1, 0, 1]))
    >>> for _ in range(100):
    ...     observations, rewards, terminations, truncations, infos = envs.recv(2)
    ...     envs.send(np.array([1, 0]), infos["env_ids"])
    >>> envs.close()

    An exception in an environment is raised by the call that waits for it, with its traceback as the
    cause; its attribute `env_ids` tells which environments failed. They stay as they are, and the
    others have taken their step. `WorkerDied` names the environments of a worker that has died.
    After either, `restart` makes environments anew.

    Call `close` at the end: it closes the environments. A vector that is dropped without kills its
    workers, and the environments are not closed.
    """

    __module__ = "ndshm.gymnasium"

    # ---- reset ----------------------------------------------------------------------------------

    def reset(self, *, seed: Seed = None, options: dict[str, Any] | None = None) -> tuple[Any, Infos]:
        """Reset the environments, and return their observations and infos.

        Environment i gets `seed + i`, or its own of a list. `options["reset_mask"]`, an array of
        bools, resets some of them. Environments that were lost are there again.
        """
        self.reset_async(seed=seed, options=options)
        return self.reset_wait()

    def reset_async(self, seed: Seed = None, options: dict[str, Any] | None = None) -> None:
        """Begin to reset the environments. `reset_wait` returns the results, or `recv` some."""
        if self._waiting == "recv":
            # The answers of environments that were sent are dropped.
            self._waiting = None
        self._check_idle("reset_async", True)
        seeds = seeds_of(seed, self.num_envs)
        envs = self._everyone
        if options is not None and "reset_mask" in options:
            options = dict(options)
            envs = masked(options.pop("reset_mask"), self.num_envs)
        self._exchange.reset(envs, seeds, options)
        self._resetting = set(envs)
        self._waiting = "reset"

    def reset_wait(self, timeout: float | None = None) -> tuple[Any, Infos]:
        """Wait for the environments of `reset_async`, and return observations and infos.

        Raise `multiprocessing.TimeoutError` after `timeout` seconds.
        """
        self._check_waiting("reset")
        infos = self._exchange.infos(self._wait(sorted(self._resetting), timeout))
        return self._exchange.batch.all(self.copy), infos

    def restart(
        self,
        env_ids: ArrayLike | None = None,
        *,
        seed: Seed = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, Infos]:
        """Make environments anew and reset them. Return the observations of all, and the infos.

        `env_ids` are by default those that were lost with their worker. A list of seeds has one for
        each environment of the vector.

        Between `send` and `recv` it makes environments anew that were received, and they are sent
        next. Only their rows of the observations are valid then, because others may be in a step.
        """
        self._check_open()
        if self._waiting != "recv":
            self._check_idle("restart", True)
        seeds = seeds_of(seed, self.num_envs)
        self._crew.recover()
        if env_ids is None:
            envs = sorted(self._crew.lost)
        else:
            envs = numbers(env_ids, self.num_envs) if np.size(env_ids) else []
        if busy := self._crew.busy.intersection(envs):
            raise ValueError(f"the environments {sorted(busy)} are in a step: receive them first")
        try:
            if envs:
                self._exchange.reset(envs, seeds, options, make=True)
                # They are received so if another worker dies meanwhile.
                self._resetting.update(envs)
                self._crew.wait_for(envs, None)
            letters = self._exchange.collect(envs)
        finally:
            self._forget_received()
        return self._exchange.batch.all(self.copy), self._exchange.infos(letters)

    # ---- step -----------------------------------------------------------------------------------

    def step(self, actions: Any) -> Step:
        """Take a step in each environment, and return the results of all."""
        self.step_async(actions)
        return self.step_wait()

    def step_async(self, actions: Any) -> None:
        """Begin to take a step in each environment. `step_wait` returns the results."""
        self._check_idle("step_async")
        self._check_made(self._everyone)
        self._exchange.step(self._everyone, actions, self.action_space, True)
        self._waiting = "step"

    def step_wait(self, timeout: float | None = None) -> Step:
        """Wait for the environments of `step_async`, and return the results.

        Raise `multiprocessing.TimeoutError` after `timeout` seconds; then it can be called again.
        """
        self._check_waiting("step")
        exchange = self._exchange
        # It stores the objects of observations.
        infos = exchange.infos(self._wait(self._everyone, timeout))
        return (
            *(exchange.batch.all(self.copy), exchange.rewards.copy()),
            *(exchange.terminations.copy(), exchange.truncations.copy(), infos),
        )

    # ---- some environments at a time ------------------------------------------------------------

    def send(self, actions: Any, env_ids: ArrayLike | None = None) -> None:
        """Begin to take a step in some environments, by default in all, and do not wait.

        `actions` are a batch with one for each of `env_ids`. A worker takes the steps of its
        environments one after another, in any order.
        """
        self._check_open()
        if self._waiting not in (None, "recv"):
            self._check_idle("send")
        envs = self._everyone if env_ids is None else numbers(env_ids, self.num_envs)
        if self._waiting is None:
            self._check_idle("send")
        elif busy := self._crew.busy.intersection(envs):
            raise ValueError(
                f"the environments {sorted(busy)} have not been received since they were sent: pass "
                "infos['env_ids'] of recv"
            )
        self._check_made(envs)
        self._exchange.step(envs, actions, self.action_space, False)
        self._waiting = "recv"

    def recv(self, count: int = 1, timeout: float | None = None) -> Step:
        """Wait for `count` of the environments that were sent, or all of them if these are fewer.

        Return their results in the order in which they were ready. `infos["env_ids"]` is an array
        of their numbers, and the other infos have one place for each of them. After `reset_async`
        it returns environments that were reset, with rewards of 0. After a timeout it can be called
        again.

        Raise the exception of an environment that has raised one, and receive that environment alone.
        The same holds for infos that cannot be unpickled here. The next call receives the others.
        """
        self._check_open()
        if self._waiting not in ("recv", "reset") or not self._crew.busy:
            raise NoAsyncCallError("Calling `recv` without any prior call to `send`.", "recv")
        wanted = operator.index(count)
        if wanted < 1:
            raise ValueError(f"{wanted} environments cannot be received: pass a number from 1 on")
        exchange = self._exchange
        wanted = min(wanted, len(self._crew.busy))
        try:
            envs = self._crew.wait_any(wanted, timeout)
        except NdshmError:
            self._waiting = "recv"
            self._forget_received()
            raise
        if not envs:
            # `reset_wait` is still possible.
            raise multiprocessing.TimeoutError(
                f"{wanted} environments were not ready after {timeout} second(s): call recv again"
            )
        self._waiting = "recv"
        reset = [env in self._resetting for env in envs] if self._resetting else None
        try:
            letters = exchange.collect(exchange.failed(envs)[:1] or envs)
        finally:
            self._forget_received()
        infos = exchange.infos(letters, {env: place for place, env in enumerate(envs)})
        infos["env_ids"] = np.array(envs)
        rewards, ended = exchange.rewards[envs], exchange.terminations[envs]
        truncated = exchange.truncations[envs]
        if reset is not None:
            rewards[reset], ended[reset], truncated[reset] = 0.0, False, False
        return exchange.batch.some(envs, self.copy), rewards, ended, truncated, infos

    # ---- other calls ----------------------------------------------------------------------------

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[misc,override,unused-ignore]
        """Return the seeds of the environments."""
        return self.get_attr("np_random_seed")

    @property  # type: ignore[misc,override,unused-ignore]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override,unused-ignore]
        """Return copies of the generators of the environments."""
        return self.get_attr("np_random")

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of each environment, or get an attribute. Return the results."""
        self.call_async(name, *args, **kwargs)
        return self.call_wait()

    def call_async(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        """Begin to call a method of each environment. `call_wait` returns the results."""
        self._check_idle("call_async")
        self._check_made(self._everyone)
        self._exchange.order(CALL, [(name, args, kwargs)])
        self._waiting = "call"

    def call_wait(self, timeout: float | None = None) -> tuple[Any, ...]:
        """Wait for the environments of `call_async`, and return the results."""
        self._check_waiting("call")
        return tuple(result for _, result in self._wait(self._everyone, timeout))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of each environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of each environment: to its value of a list or tuple, or to one value."""
        self._check_idle("set_attr")
        self._check_made(self._everyone)
        if not isinstance(values, (list, tuple)):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(
                f"{len(values)} values were passed for {self.num_envs} environments: pass a list with "
                "one for each, or one value"
            )
        self._exchange.order(SET, [(name, value) for value in values])
        self._wait(self._everyone, None)

    def render(self) -> tuple[Any, ...]:
        """Return the rendered frame of each environment."""
        return self.call("render")
