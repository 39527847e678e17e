"""The child process of a store: takes the lease, opens the collection, and answers the calls from the pipe.

Signals do not reach it. It ends when its parent closes the pipe or dies, but completes the write in flight first. That
is why the child holds the lease, not the parent.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from upsert_cli.errors import UpsertCliError
from upsert_cli.leases import Holder
from upsert_cli.limits import limit_reached
from upsert_cli.store.base import Store
from upsert_cli.store.location import Location
from upsert_cli.store.target import Opened, Target

METHODS = {name for name in vars(Store) if not name.startswith("_")} - {"close", "abandon"}
"""The methods that a parent may call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first message: the collection to open, and how."""

    target: Target
    location: Location
    """The location of the target, with the credentials for a server."""

    task_id: str | None = None
    lease_timeout: float = 0.0
    """Seconds to wait for another holder of the lease."""

    parent: int = field(default_factory=os.getpid)
    """The process that started the child."""


Call: TypeAlias = tuple[str, Sequence[Any], Mapping[str, Any]]
"""One of the `METHODS` of a store with its arguments; or `close`, which ends the process."""

Answer: TypeAlias = object
"""The result of a call, or the exception that the parent raises; a string between two answers is shown to the user.

Two answers come before the first call: whether the collection is empty, once the lease is taken, and then `Opened`.
"""


class ParentGone(Exception):
    """Raised when the parent closed the pipe, or died."""


def main() -> None:
    """Serve the parent at the other end of the descriptor that is the only argument, until it closes the pipe."""
    connection = Connection(int(sys.argv[1]))
    answer: Answer = None
    try:
        _work(connection, _receive(connection))
    except ParentGone:
        return
    except BaseException as error:  # noqa: BLE001  # a panic of Chroma's engine is no Exception
        answer = _portable(error)
    # Sent once the lease is free, since a parent that has this answer may start the next process.
    with suppress(ParentGone):
        _send(connection, answer)


def _work(connection: Connection, start: Start) -> None:
    """Open the collection as its target needs it, and serve it."""
    location, target = start.location, start.target
    location.enter()
    if location.is_shared:
        _end_with(connection)
    if target.reads_only and (copied := location.readable_copy(lambda text: _send(connection, text))) is not None:
        # No lease can be taken in a folder that cannot be written to.
        holder = None if target.beside_others else location.await_orphan(lambda: _check_parent(connection))
        if holder is not None:
            raise location.in_use(holder)
        with copied as copy:
            _serve(connection, *copy.open(target), flush=False)
    elif target.beside_others:
        location.await_writer(lambda: _check_parent(connection))
        _serve(connection, *location.open(target), flush=False)
    else:
        _work_alone(connection, start)


def _work_alone(connection: Connection, start: Start) -> None:
    """Open the collection under its lease, and record for the next holder whether everything written is flushed."""
    location, target = start.location, start.target
    is_announced = start.lease_timeout > 0  # by the parent, which chose to wait

    def check(other: Holder) -> None:
        nonlocal is_announced
        _check_parent(connection)
        if not is_announced:
            _send(connection, f"waiting for the last write of {other}, whose command has died")
            is_announced = True

    holder = Holder.this_process(start.task_id, parent=start.parent)
    with location.take_lease(holder, timeout=start.lease_timeout, check=check) as lease:
        clean = lease.was_clean
        try:
            if target.reads_only and not location.reading_flushes():
                location.probe()
            else:
                location.require_alone(parent=start.parent)
            _send(connection, _is_empty(location))
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
            with suppress(OSError):  # the disk is full; the next holder then checks the index closely
                lease.write(replace(lease.holder, clean=clean))


def _is_empty(location: Location) -> bool:
    """Return whether the collection is missing or never had a record; always False for a server."""
    return not location.is_shared and ((info := location.describe()) is None or info.dimension is None)


def _serve(connection: Connection, store: Store, opened: Opened, *, flush: bool) -> None:
    """Answer calls until the parent closes the store; after an error, the store is abandoned."""
    try:
        _send(connection, opened)
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
            answer = getattr(store, method)(*args, **options)
        except BaseException as error:  # noqa: BLE001  # a panic of Chroma's engine is no Exception
            answer = _portable(error)
        del args, options  # a batch must not stay in memory while the process waits for the next one
        _send(connection, answer)


def _portable(error: BaseException) -> Exception:
    """Return an error that survives the pipe; an error that is a bug carries its traceback as text."""
    if isinstance(error, UpsertCliError):
        return error
    if (limit := limit_reached(error)) is not None:
        return limit
    return RuntimeError(f"the child process of the store failed: {''.join(traceback.format_exception(error)).strip()}")


# -- the pipe ----------------------------------------------------------------------------------------------------------


def _receive(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, ConnectionError) as error:
        raise ParentGone from error


def _send(connection: Connection, answer: Answer) -> None:
    try:
        connection.send(answer)
    except OSError as error:
        raise ParentGone from error


def _check_parent(connection: Connection) -> None:
    """Check that the parent lives, before the collection is open: until then, only the end of the pipe can arrive."""
    if connection.poll():
        raise ParentGone


def _end_with(connection: Connection) -> None:
    """End this process as soon as the pipe ends, even in the middle of a call.

    A server completes a request or drops it. Waiting for the answer would only keep the lease from the next load.
    """

    def watch() -> None:
        poll = select.poll()
        poll.register(connection.fileno(), 0)  # no events but the end of the pipe
        poll.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
