"""The child process of a store: takes the lease, opens the collection, and answers the calls from the pipe.

It ends when its parent closes the pipe or dies, after the write in flight; signals do not reach it. So the child holds
the lease: a parent that was killed may leave a write running for a moment.
"""

from __future__ import annotations

import functools
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

from upsert_cli.errors import TargetBusy, UpsertCliError
from upsert_cli.limits import limit_reached
from upsert_cli.locks import Holder
from upsert_cli.store.base import Store
from upsert_cli.store.location import Location
from upsert_cli.store.target import Opened, Target

READ_SECONDS = 5.0  # seconds that others may write without a pause before a reader gives up
# Settings that chromadb reads from the environment when it is imported, and refuses to be imported if they look wrong.
CHROMA_SETTINGS = {"IS_PERSISTENT", "ALLOW_RESET", "ANONYMIZED_TELEMETRY", "MIGRATIONS", "MIGRATIONS_HASH_ALGORITHM"}
# For glibc's allocator. Blocks of 1 MiB go back when they are freed, and Chroma's many threads share one arena, since
# the next write cannot use the memory that is free in another thread's (measured over 36,000 first upserts: 1.8 instead
# of 2.6 KB a row, and 50 MB less from the start, for 5 % of the process's CPU).
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20), "MALLOC_ARENA_MAX": "1"}
METHODS = {name for name in vars(Store) if not name.startswith("_")} - {"close", "abandon"}
"""The methods that a parent may call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first message: what to open, and how."""

    target: Target
    location: Location
    """Where it is, with the credentials for a server."""

    task_id: str | None = None
    lease_timeout: float = 0.0
    """Seconds to wait for another holder of the folder."""

    parent: int = field(default_factory=os.getpid)
    """The process that started the child."""


Call: TypeAlias = tuple[str, Sequence[Any], Mapping[str, Any]]
"""A call of one of the `METHODS` of a store, with its arguments; or of `close`, which ends the process."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a call.

    Before the first call come whether the collection is empty, as soon as the lease is taken, and then the collection
    as `Opened`. A plain string between two answers is a message for the user.
    """

    value: object = None
    error: Exception | None = None


class ParentGone(Exception):
    """Raised when the parent closed the pipe, or died."""


def environment() -> dict[str, str]:
    """Return the environment of the process."""
    environment: dict[str, str] = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("CHROMA_") and name.upper() not in CHROMA_SETTINGS
    }
    # It imports from the same places as this process.
    environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return ALLOCATOR | environment


def main() -> None:
    """Serve the parent at the other end of the descriptor that is the only argument, until it closes the pipe."""
    connection = Connection(int(sys.argv[1]))
    try:
        _work(connection, _receive(connection))
        answer = Answer()
    except ParentGone:
        return
    except BaseException as error:  # noqa: BLE001  # the engine's panics are no Exception; all goes to the parent
        answer = Answer(error=_portable(error))
    # Last of all, when the lease is free: a parent that has this answer may start the next process.
    with suppress(ParentGone):
        _send(connection, answer)


def _work(connection: Connection, start: Start) -> None:
    location, target = start.location, start.target
    location.enter()
    if location.is_shared:
        _end_with(connection)
    notify = functools.partial(_send, connection)
    if target.reads_only and (copied := location.readable_copy(notify)) is not None:
        # No lease can be taken in a folder that cannot be written to.
        holder = None if target.beside_others else location.await_orphan(lambda: _check_parent(connection))
        if holder is not None:
            raise location.in_use(holder)
        with copied as copy:
            _serve(connection, *copy.open(target), flush=False)
    elif target.beside_others:
        _await_writer(connection, location)
        _serve(connection, *location.open(target), flush=False)
    else:
        _work_alone(connection, start)


def _work_alone(connection: Connection, start: Start) -> None:
    """Open the collection under its lease, and leave to the next holder whether everything written is flushed."""
    location, target = start.location, start.target
    holder = Holder.this_process(start.task_id, parent=start.parent)
    notified = start.lease_timeout > 0  # the parent has reported it

    def check(other: Holder) -> None:
        nonlocal notified
        _check_parent(connection)
        if not notified:
            _send(connection, f"waiting for the last write of {other}, whose command has died")
            notified = True

    with location.take_lease(holder, timeout=start.lease_timeout, check=check) as lease:
        clean = lease.was_clean
        try:
            if target.reads_only and not location.reading_flushes():
                location.probe()
            else:
                location.require_alone(parent=start.parent)
            _send(connection, Answer(_is_empty(location)))
            store, opened = location.open(
                target,
                unclean=not lease.was_clean,
                lease=lease,
                notify=lambda text: _send(connection, text),
            )
            clean = target.reads_only and lease.was_clean  # until everything is flushed
            _serve(connection, store, opened, flush=not target.reads_only)
            clean = lease.was_clean or not (target.reads_only or target.as_a_whole)
        finally:
            with suppress(OSError):  # on a full disk the next holder looks more closely, that is all
                lease.write(replace(lease.holder, clean=clean))


def _is_empty(location: Location) -> bool:
    """Tell whether a collection does not exist, or never had a record; that is not yet known for a server's."""
    return not location.is_shared and ((info := location.describe()) is None or info.dimension is None)


def _serve(connection: Connection, store: Store, opened: Opened, *, flush: bool) -> None:
    """Answer calls until one closes the store."""
    try:
        _send(connection, Answer(opened))
        _answer_calls(connection, store)
    except BaseException:
        store.abandon()
        raise
    if flush:
        store.close()
    else:
        store.abandon()


def _answer_calls(connection: Connection, store: Store) -> None:
    while True:
        method, args, options = _receive(connection)
        if method == "close":
            return
        try:
            if method not in METHODS:
                raise ValueError(f"{method} is not a method that a parent may call")
            answer = Answer(getattr(store, method)(*args, **options))
        except BaseException as error:  # noqa: BLE001  # as above
            answer = Answer(error=_portable(error))
        del args, options  # a batch's memory is not kept while waiting for the next one
        _send(connection, answer)


def _await_writer(connection: Connection, location: Location) -> None:
    """Wait for a moment in which nobody writes to the database: Chroma would wait for 1,000 seconds."""
    until = time.monotonic() + READ_SECONDS
    while True:
        try:
            return location.probe()
        except TargetBusy:
            if time.monotonic() >= until:
                raise
        _check_parent(connection)


def _check_parent(connection: Connection) -> None:
    if connection.poll():  # nothing is sent before the collection is open, so this is the end of the pipe
        raise ParentGone


def _end_with(connection: Connection) -> None:
    """End this process as soon as the pipe ends, even in the middle of a call.

    A server completes a request or does not; waiting for it would only keep the lease from the next load.
    """

    def watch() -> None:
        poll = select.poll()
        poll.register(connection.fileno(), 0)  # nothing but the end
        poll.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _receive(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, ConnectionError) as error:
        raise ParentGone from error


def _send(connection: Connection, message: Answer | str) -> None:
    try:
        connection.send(message)
    except OSError as error:
        raise ParentGone from error


def _portable(error: BaseException) -> Exception:
    """Return an error that survives the pipe; one that is a bug carries its traceback as text."""
    if isinstance(error, UpsertCliError):
        return error
    if (limit := limit_reached(error)) is not None:
        return limit
    return RuntimeError(f"the child process of the store failed: {''.join(traceback.format_exception(error)).strip()}")
