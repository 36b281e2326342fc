"""Modules with the interfaces of others, for programs that move to ndshm.

`ndshm.compat.shared_memory` stands in for `multiprocessing.shared_memory`, and
`ndshm.compat.raw_array_manager` for the manager class over `multiprocessing.RawArray` of a
well-known answer on Stack Overflow. Import them by their full names.
"""
