"""How a function gets into a worker.

A function that the worker can import is sent as its name. The parent and the worker compare its
code, because a forked worker has the definition of the time of its fork. Others are pickled by
value: by pickle if it can, else by cloudpickle. A pickle may refer to a function of the main module by
its name, as that of a partial function does: its code is compared, too.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import pickle
import sys
import types
import zlib
from collections.abc import Callable
from typing import Any, TypeAlias

from ._errors import NdshmError

Function: TypeAlias = Callable[..., Any]
Spec: TypeAlias = tuple[Any, ...]

EXTRAS = ("rng", "state", "tile", "worker", "workers")
"""The parameters that a worker passes by name to a function that has them."""


class FunctionNotFound(NdshmError, LookupError):
    """A worker cannot import a function, or finds another one of its name."""


def spec(function: Function) -> tuple[Spec, bool]:
    """Return the form in which a function is sent, and True if it is the same in each call."""
    if isinstance(function, types.FunctionType) and _is_importable(function):
        # The print does not tell closures apart, as those of decorators, nor values of other types.
        plain = function.__closure__ is None
        plain = plain and all(type(value) in _PLAIN for value in _defaults_of(function))
        # Else cloudpickle can send the value.
        if plain or not _is_of_main(function):
            return ("name", *_name_of(function)), plain
    return by_value(function), False


_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def _defaults_of(function: types.FunctionType) -> list[Any]:
    return [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def by_value(function: Function, is_missing: bool = False) -> Spec:
    """Return a function as a pickle, and not as its name if the workers do not know that."""
    try:
        if not is_missing and not _is_of_main(function):
            inner = inner_of(function)
            named = _name_of(inner) if inner is not None and _is_importable(inner) else None
            return ("pickle", pickle.dumps(function), named)
        reason: Exception | None = None
    except Exception as error:
        reason = error
    try:
        import cloudpickle  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        raise TypeError(
            f"{_name(function)} cannot be sent to the workers, because they cannot import it as it is "
            "now: define it by `def` in a module before the pool is made, or install cloudpickle (pip "
            "install cloudpickle)"
        ) from reason
    return ("pickle", cloudpickle.dumps(function), None)


def find(spec: Spec) -> Function:
    """Return the function that was sent, in a worker."""
    if spec[0] == "pickle":
        _, pickled, named = spec
        if named is not None:
            _find_named(*named)
        loaded: Function = pickle.loads(pickled)
        return loaded
    return _find_named(*spec[1:])


def _find_named(module: str, name: str, code: tuple[int, int]) -> Function:
    try:
        found: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise FunctionNotFound(f"{module}.{name} is not known in the worker") from error
    if not isinstance(found, types.FunctionType) or _print_of(found) != code:
        raise FunctionNotFound(f"{module}.{name} is another function in the worker")
    return found


def extras(function: Function, positional: int) -> frozenset[str]:
    """Return the parameters to pass by name: those of `EXTRAS` that the function has, and that
    `positional` arguments do not reach.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return frozenset()
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = [parameter for parameter in parameters if parameter.kind in by_place]
    reached = {parameter.name for parameter in places[:positional]}
    return frozenset(
        parameter.name
        for parameter in parameters
        if parameter.name in EXTRAS and parameter.kind in by_name and parameter.name not in reached
    )


def _is_importable(function: types.FunctionType) -> bool:
    module = sys.modules.get(function.__module__)
    if module is None or "<locals>" in function.__qualname__:
        return False
    found: Any = module
    try:
        for name in function.__qualname__.split("."):
            found = getattr(found, name)
    except AttributeError:
        return False
    return found is function


def _print_of(function: types.FunctionType) -> tuple[int, int]:
    """Return a number that changes with the function's code."""
    code = function.__code__
    # Others have an address in their text.
    shown = [v if type(v) in _PLAIN else type(v).__qualname__ for v in _defaults_of(function)]
    text = repr((_text_of(code), shown, sorted(function.__kwdefaults__ or ())))
    return code.co_firstlineno, zlib.crc32(text.encode())


def _text_of(code: types.CodeType) -> tuple[Any, ...]:
    """Return all that makes the code, without addresses and orders that differ by process."""
    consts = [
        _text_of(const)
        if isinstance(const, types.CodeType)
        else sorted(map(repr, const))
        if isinstance(const, frozenset)
        else const
        for const in code.co_consts
    ]
    return code.co_code, code.co_names, code.co_varnames, consts


def _name_of(function: types.FunctionType) -> tuple[str, str, tuple[int, int]]:
    """Return what a worker finds a function by, and compares."""
    return function.__module__, function.__qualname__, _print_of(function)


def inner_of(function: Function) -> types.FunctionType | None:
    """Return the function of the main module that is called in the end, if there is one."""
    inner: Any = function.func if isinstance(function, functools.partial) else function
    inner = getattr(inner, "__func__", inner)
    if not isinstance(inner, (types.FunctionType, type)):
        inner = getattr(type(inner), "__call__", None)
    is_of_main = isinstance(inner, types.FunctionType) and inner.__module__ == "__main__"
    return inner if is_of_main else None


def _is_of_main(function: Function) -> bool:
    """Return whether pickle would send a name of the main module, which a worker may not have."""
    inner = function.func if isinstance(function, functools.partial) else function
    inner = getattr(inner, "__func__", inner)
    return getattr(inner, "__module__", None) == "__main__" and _has_cloudpickle()


def _has_cloudpickle() -> bool:
    return importlib.util.find_spec("cloudpickle") is not None


def _name(function: Function) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
