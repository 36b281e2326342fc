"""What is measured: peers, rows and kinds of death."""

from __future__ import annotations

PEERS = {
    "ndshm": "**ndshm**",
    "ndshm-python": "**ndshm**, Python",
    "pool": "`multiprocessing.Pool`, pickled",
    "SharedMemory": "`multiprocessing.shared_memory`",
    "SharedArray": "SharedArray",
    "manager": "a lock around a list of RawArrays",
    "ray": "Ray",
    "shared_memory": "crate shared_memory",
    "boost": "Boost.Interprocess",
    "iceoryx2": "iceoryx2",
}

# A row, what it is called with large arrays, and whether it needs so much memory that one peer at a
# time is compared with ndshm.
ROWS = {
    "share": ("share an array of {large}", False),
    "open": ("open it there", False),
    "open-view": ("open it there, without a lease", False),
    "tasks": ("two empty tasks on two workers", False),
    "create": ("create and free 8 kB", False),
    "find": ("find one of {names} names", False),
    "put": ("put a dictionary of 20 x {large}", True),
    "get": ("open it", True),
}

# The deaths of each peer: the kind, and what the victim does.
DEATHS = {
    "ndshm": {
        "write": "writes under a lease",
        "create": "creates, fills and frees",
        "task": "runs a task of `Pool`",
    },
    "ndshm-python": {
        "write": "writes under a lease",
        "create": "creates, fills and frees",
        "task": "runs a task of `ndshm.Pool`",
    },
    "pool": {
        "task": "runs a task of `Pool`",
        "executor-task": "runs a task of `ProcessPoolExecutor`",
    },
    "SharedMemory": {
        "create": "creates, fills and unlinks",
        "attach": "has opened an array of another program",
    },
    "SharedArray": {"create": "creates, fills and deletes"},
    "manager": {
        "write": "writes under the manager's lock",
        "create": "creates, fills and frees",
    },
    "ray": {"task": "runs a task"},
    "shared_memory": {"create": "creates, fills and drops"},
    "boost": {
        "write": "writes under an `interprocess_mutex`",
        "write-file-lock": "writes under a `file_lock`",
        "create": "allocates, fills and deallocates",
        "create-empty": "allocates and deallocates",
    },
    "iceoryx2": {"create": "loans, fills and sends"},
}
