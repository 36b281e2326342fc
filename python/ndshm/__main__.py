"""`python -m ndshm` runs the tool `ndshm`, which looks into tables."""

from __future__ import annotations

import os
import shutil
import sys

MISSING = """\
The tool `ndshm` is not on the PATH. It is a program in Rust, and not part of the Python package:

    cargo install ndshm-cli                         # or, in a clone of the repository:
    cargo install --path crates/ndshm-cli

Cargo puts it into ~/.cargo/bin, which has to be in the PATH.
"""


def main() -> int:
    """Replace this process by the tool. Return 127 if it is not installed, as shells do."""
    tool = shutil.which("ndshm")
    if tool is None:
        sys.stderr.write(MISSING)
        return 127
    sys.stdout.flush()
    os.execv(tool, [tool, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
