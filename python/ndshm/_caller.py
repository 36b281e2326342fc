"""The frame that warnings of the package point to."""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(__file__)


def level_of_caller() -> int:
    """Return the `stacklevel` of the first frame outside of the package, for the caller."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and os.path.dirname(frame.f_code.co_filename) == _HERE:
        frame, level = frame.f_back, level + 1
    return level
