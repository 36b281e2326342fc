"""The documentation's examples as tests run them: on tables of names that no other run has."""

from __future__ import annotations

import doctest
import os
import re
from typing import Any

FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL

OPENED = re.compile(r"""\bndshm\.open\("([^"]+)\"""")


def unique(text: str) -> str:
    """Return the text with the pid of this process in each name of a table that it opens.

    So two runs on one machine do not meet, and the check of what is left in /dev/shm covers them.
    """
    for name in set(OPENED.findall(text)):
        text = text.replace(f'"{name}"', f'"{name}-{os.getpid()}"')
    return text


def run_examples(text: str, name: str, names: dict[str, Any]) -> int:
    """Run the examples of a text, and return their number. Fail as doctest reports it."""
    test = doctest.DocTestParser().get_doctest(unique(text), names, name, None, 0)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    printed: list[str] = []
    runner.run(test, out=printed.append)
    assert not runner.failures, "".join(printed)
    return len(test.examples)
