"""Limits of the system: open files and their size, memory, the clock; an error names the limit behind a failure."""

from __future__ import annotations

import errno
import resource
import time
from collections.abc import Iterator, Sequence

from upsert_cli.errors import UpsertCliError
from upsert_cli.redaction import error_line

NEEDED_FILES = 64  # descriptors that a load may need at once; Chroma alone needs more than 24
USUAL_FILES = 1_024  # descriptors, the soft limit on most systems
NEEDED_MEMORY = 640 << 20  # bytes of address space that the default model and Chroma's client need

SET_CLOCK = "set the clock (`date` shows it), then try again"

_FILE_ERRORS = (errno.EMFILE, errno.ENFILE)
_SIZE_ERRORS = (errno.EFBIG,)
_MEMORY_ERRORS = (errno.ENOMEM,)
_FILE_WORDS = ("too many open files",)
_SIZE_WORDS = ("disk i/o error", "file too large")
_MEMORY_WORDS = ("bad_alloc", "bad allocation", "cannot allocate memory", "failed to allocate memory")


def raise_file_limit() -> None:
    """Raise the soft limit of open files to the usual number, as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = USUAL_FILES if hard == resource.RLIM_INFINITY else min(USUAL_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def require_resources() -> None:
    """Check that this process may use the resources that a model and Chroma need.

    Raises:
        UpsertCliError: The limit of open files or memory is too low, or the clock is before 1970.
    """
    if time.time() < 0:
        raise UpsertCliError(
            message=f"the clock of this machine is before 1970, which Chroma cannot store; {SET_CLOCK}"
        )
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < NEEDED_FILES:
        raise _too_few_files(f"this needs {NEEDED_FILES}")
    memory = memory_limit()
    if memory is not None and memory < NEEDED_MEMORY:
        raise out_of_memory(f"this needs {NEEDED_MEMORY >> 20} MiB")


def limit_reached(error: BaseException, *, by_words: bool = False) -> UpsertCliError | None:
    """Return the error that names the limit behind a failure, or None if no limit caused it.

    Args:
        error: The failure; its causes are examined too.
        by_words: Whether to examine the text, for libraries whose errors say it in no other way.
    """
    for each in _chain(error):
        text = str(each).lower() if by_words else ""
        if _has(each, _FILE_ERRORS) or any(word in text for word in _FILE_WORDS):
            return _too_few_files("no more can be opened")
        if isinstance(each, MemoryError) or _has(each, _MEMORY_ERRORS) or any(word in text for word in _MEMORY_WORDS):
            return out_of_memory("there is no more")
        size = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        is_size = _has(each, _SIZE_ERRORS) or any(word in text for word in _SIZE_WORDS)
        if is_size and size != resource.RLIM_INFINITY:
            return _too_small_files(size)
    return None


def library_fault(error: Exception, *, problem: str, remedy: str) -> UpsertCliError:
    """Return the error for a failure in a library: the limit that caused it, or else the problem with its message."""
    return limit_reached(error, by_words=True) or UpsertCliError(
        message=f"{problem} ({error_line(error, with_class=True)}); {remedy}"
    )


def memory_limit() -> int | None:
    """Return the bytes of memory that this process may use; None without a limit."""
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=None)


def out_of_memory(what: str) -> UpsertCliError:
    """Return the error for a lack of memory, with the limit of this process."""
    limit = memory_limit()
    if limit is None:
        return UpsertCliError(
            message=f"the memory of this machine, its container or its GPU is used up: {what}; free some or add more, "
            "or use less with a smaller --batch-size and --token-budget"
        )
    return UpsertCliError(
        message=f"the memory of this process is limited to {limit >> 20:,} MiB, and {what}; raise the limit "
        "(`ulimit -v unlimited`, `ulimit -d unlimited`, or what starts the process) and try again"
    )


def _too_few_files(what: str) -> UpsertCliError:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return UpsertCliError(
        message=f"this process is limited to {limit:,} open files, and {what}; raise the limit "
        f"(`ulimit -n {USUAL_FILES}`, or what starts the process, such as LimitNOFILE= of systemd) and try again"
    )


def _too_small_files(size: int) -> UpsertCliError:
    return UpsertCliError(
        message=f"the files that this process writes are limited to {size:,} bytes; raise the limit (`ulimit -f "
        "unlimited`, or what starts the process, such as LimitFSIZE= of systemd) and try again"
    )


def _has(error: BaseException, numbers: Sequence[int]) -> bool:
    """Check that an error is the system's, with one of some numbers."""
    return isinstance(error, OSError) and error.errno in numbers


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
