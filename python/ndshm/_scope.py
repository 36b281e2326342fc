"""The scopes that are entered, for the Rust side."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

# A thread starts without any, and a task of an event loop with those of the task that made it.
entered: ContextVar[tuple[Any, ...]] = ContextVar("ndshm_scopes")
