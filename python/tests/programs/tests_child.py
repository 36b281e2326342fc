"""What a child of a test's program runs."""

from __future__ import annotations

import time
from typing import Any


def late(x: Any) -> None:
    """Print the sum of an array, after the main program has ended."""
    time.sleep(0.3)
    print(x.sum(), flush=True)
