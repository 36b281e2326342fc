"""The spaces of a vector environment, and the arrays for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from gymnasium import Space
from gymnasium.spaces.utils import is_space_dtype_shape_equiv
from gymnasium.vector.utils import batch_differing_spaces, batch_space

from .._table import Table
from ._layout import BASIC, Layout
from ._letters import ROOM, WORDS, Arrays

Mode: TypeAlias = str | tuple[Space[Any], Space[Any]]
Found: TypeAlias = tuple[dict[str, Any], str | None, Space[Any], Space[Any]]
"""The metadata, render mode, observation space and action space of an environment."""


@dataclass
class Spaces:
    """The spaces of a vector environment, by the names of its attributes."""

    single_observation_space: Space[Any]
    observation_space: Space[Any]
    single_action_space: Space[Any]
    action_space: Space[Any]


def spaces_of(found: list[Found], mode: Mode) -> Spaces:
    """Return the spaces of a vector environment. Raise `RuntimeError` if those of its environments
    cannot be batched.
    """
    _, _, observations, actions = found[0]
    count = len(found)
    if isinstance(mode, tuple) and len(mode) == 2:
        for space in mode:
            if not isinstance(space, Space):
                raise TypeError(f"observation_mode has a {type(space)}: pass two spaces")
        batched, observations = mode
    elif mode == "same":
        batched = batch_space(observations, count)
    elif mode == "different":
        batched = batch_differing_spaces([space for _, _, space, _ in found])
    else:
        raise ValueError(
            f"the observation_mode {mode!r} is not known: pass 'same', 'different', or a tuple of the "
            "batched and the single observation space"
        )
    for env, (_, _, space, its_actions) in enumerate(found):
        if mode == "same" and space != observations:
            raise RuntimeError(
                f"environment {env} has the observation space {space}, and environment 0 has "
                f"{observations}: pass observation_mode='different'"
            )
        if mode != "same" and not is_space_dtype_shape_equiv(space, observations):
            raise RuntimeError(
                f"environment {env} has the observation space {space}, whose shapes or dtypes differ "
                f"from {observations}: they cannot be batched"
            )
        if its_actions != actions:
            raise RuntimeError(
                f"environment {env} has the action space {its_actions}, and environment 0 has "
                f"{actions}: they cannot be batched"
            )
    return Spaces(observations, batched, actions, batch_space(actions, count))


def make_arrays(table: Table, count: int, layout: Layout, actions: Space[Any]) -> Arrays:
    """Make the arrays of a vector environment."""
    has_array = isinstance(actions, BASIC) and actions.shape is not None
    return Arrays(
        doors=table.zeros(count, "u1"),
        words=table.zeros((count, WORDS), "i8"),
        inbox=table.zeros((count, ROOM), "u1"),
        outbox=table.zeros((count, ROOM), "u1"),
        rewards=table.zeros(count, "f8"),
        terminations=table.zeros(count, "?"),
        truncations=table.zeros(count, "?"),
        actions=table.zeros((count, *actions.shape), actions.dtype) if has_array else None,  # type: ignore[misc]
        observations=[table.zeros((count, *part.shape), part.dtype) for part in layout.arrays],
    )
