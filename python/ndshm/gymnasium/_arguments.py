"""What the calls of a vector environment take: seeds, masks, numbers of environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Seed: TypeAlias = int | Sequence[int | None] | None


def seeds_of(seed: Seed, count: int) -> Sequence[int | None]:
    """Return the seed of each environment."""
    if seed is None:
        return [None] * count
    if isinstance(seed, (int, np.integer)):
        return [int(seed) + env for env in range(count)]
    if len(seed) != count:
        raise ValueError(
            f"{len(seed)} seeds were passed for {count} environments: pass one for each, or one number"
        )
    return seed


def masked(mask: Any, count: int) -> list[int]:
    """Return the environments that a mask selects."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask)
        raise TypeError(
            f"options['reset_mask'] is a {kind}: pass a numpy array of dtype bool, as terminations"
        )
    if mask.shape != (count,) or not mask.any():
        raise ValueError(
            f"options['reset_mask'] is {mask}: pass an array of shape ({count},) with at least one True"
        )
    return [int(env) for env in np.flatnonzero(mask)]


def numbers(env_ids: ArrayLike, count: int) -> list[int]:
    """Return numbers of environments as a list."""
    ids = np.array(env_ids, ndmin=1).ravel()
    envs: list[int] = ids.tolist()
    if not envs or ids.dtype.kind not in "iu" or len(set(envs)) < len(envs):
        raise ValueError(f"env_ids is {env_ids!r}: pass numbers of environments, each once")
    if min(envs) < 0 or max(envs) >= count:
        raise ValueError(f"env_ids is {env_ids!r}: pass numbers from 0 to {count - 1}")
    return envs
