"""Heavy packages, imported without what nobody here needs of them: a third of the CPU of starting a load is imports."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

HTTPX_PROGRAM = "httpx._main"  # httpx's command line, with rich, which costs as much as the rest of httpx

_T = TypeVar("_T")


@contextmanager
def lean_imports() -> Iterator[None]:
    """Lets what is imported inside be imported without collecting garbage, and without the command line of httpx.

    Chroma and fastembed both bring httpx along, which does without the program where its packages are missing.
    """
    collecting = gc.isenabled()
    gc.disable()
    program = sys.modules.get(HTTPX_PROGRAM)
    sys.modules.setdefault(HTTPX_PROGRAM, None)  # type: ignore[arg-type]  # means: not to be found
    try:
        yield
    finally:
        if program is None:
            sys.modules.pop(HTTPX_PROGRAM, None)
        if collecting:
            gc.enable()


@contextmanager
def unchecked_overrides() -> Iterator[None]:
    """Lets classes that are defined inside mark what they override without a look at the signatures.

    Chroma's 160 methods are compared with those of their base classes at each import, a fifth of what that costs.
    """
    try:
        import overrides
    except ImportError:  # of a version of Chroma that does without
        yield
        return
    kept = overrides.override, overrides.overrides
    overrides.override = overrides.overrides = _marked  # type: ignore[assignment]
    try:
        yield
    finally:
        overrides.override, overrides.overrides = kept


def _marked(method: _T | None = None, **_: Any) -> _T | Callable[[_T], _T]:
    """Stands in for the decorator `override`, in either of its forms."""

    def mark(one: _T) -> _T:
        one.__override__ = True  # type: ignore[attr-defined]
        return one

    return mark if method is None else mark(method)
