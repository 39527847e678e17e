"""The writer's process: holds the folder's lease, opens the collection, and does what comes through the pipe.

It ends when its parent closes the pipe or dies, after the write in flight; signals do not reach it. So it is this
process that holds the lease: a parent that was killed may leave a write running for a moment.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TypeAlias

from upsert_cli.errors import TargetBusy, UpsertCliError
from upsert_cli.limits import limit_reached
from upsert_cli.locks import Holder, Lease, LeaseHeld
from upsert_cli.store.base import Leased, Store, Target
from upsert_cli.store.folder import unusable
from upsert_cli.store.leasing import Ledger, await_orphan, take_lease
from upsert_cli.store.locations import Location, Upkeep
from upsert_cli.store.requests import Close, Request, Told

READ_SECONDS = 5.0  # seconds that others may write without a pause before a reader gives up


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The first message: what to open, and how."""

    target: Target
    location: Location
    """Where it is, and what lets us in."""

    task_id: str | None
    lease_timeout: float
    """Seconds to wait for another holder of the folder."""

    rows: int | None
    """Rows that are going to be written at most, where that is known."""

    serve: Serve
    """What the process does; a function that can be imported."""

    parent: int = field(default_factory=os.getpid)
    """The process that the writer works for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a request; before the first one, that the lease is taken, and then that the collection is open."""

    value: object = None
    error: Exception | None = None


Serve: TypeAlias = Callable[[Connection, Start], None]


class ParentGone(Exception):
    """Raised when the parent closed the pipe, or died."""


def main() -> None:
    """Serves the parent at the other end of the descriptor that is given as the only argument."""
    connection = Connection(int(sys.argv[1]))
    try:
        start: Start = connection.recv()
    except EOFError:
        return
    start.serve(connection, start)


def serve(connection: Connection, start: Start) -> None:
    """Opens the collection and answers requests until the parent has no more."""
    try:
        answer = _work(connection, start)
    except ParentGone:
        return
    except BaseException as error:  # noqa: BLE001  # the engine's panics are no Exception; all goes to the parent
        answer = Answer(error=_portable(error))
    # Last of all, when the lease is free: a parent that has this answer may start the next writer.
    with suppress(ParentGone):
        _send(connection, answer)


def _work(connection: Connection, start: Start) -> Answer:
    location, target = start.location, start.target
    location.enter()
    upkeep = location.upkeep
    if upkeep is None:
        _end_with(connection)
    elif target.reads_only and (copied := upkeep.readable_copy()) is not None:
        return _work_on_copy(connection, start, copied)
    if target.beside_others:
        if upkeep is not None:
            _await_writer(connection, upkeep)
        return _read(connection, start, location)
    holder = Holder.this_process(start.task_id, parent=start.parent)
    with _take_lease(connection, start, holder) as lease:
        ledger = Ledger(lease, holder, target.collection)
        try:
            if upkeep is not None:
                if not target.reads_only or upkeep.reading_flushes():
                    upkeep.require_alone(parent=start.parent)
                else:
                    upkeep.probe()
            _send(connection, Answer(value=Leased(empty=_is_empty(location))))
            if target.reads_only:
                answer = _read(connection, start, location)
                ledger.close(clean=ledger.was_clean)
                return answer
            store, opened = location.open(
                target,
                unclean=not ledger.was_clean,
                rows=start.rows,
                ledger=ledger,
                notify=lambda message: _send(connection, Told(message=message)),
            )
        except BaseException:
            ledger.close(clean=ledger.was_clean)  # nothing was written
            raise
        try:
            _send(connection, Answer(value=opened))
            _answer_requests(connection, store)
        except BaseException:
            store.abandon()
            raise
        store.close()
        ledger.close(clean=True)
    return Answer()


def _is_empty(location: Location) -> bool:
    """Tell whether a collection does not exist, or never had a record; that is not yet known for a server's."""
    return not location.is_shared and ((info := location.describe()) is None or info.dimension is None)


def _work_on_copy(connection: Connection, start: Start, copied: AbstractContextManager[Location]) -> Answer:
    """Answer requests from a copy of a folder that cannot be written to, since Chroma only opens what it can write."""
    if not start.target.beside_others:
        holder = await_orphan(start.location.holder, lambda: _check_parent(connection))
        if holder is not None:
            raise start.location.in_use(holder)
    with copied as location:
        return _read(connection, start, location)


def _read(connection: Connection, start: Start, location: Location) -> Answer:
    """Answer requests that only read."""
    store, opened = location.open(start.target)
    try:
        _send(connection, Answer(value=opened))
        _answer_requests(connection, store)
    finally:
        store.abandon()
    return Answer()


def _await_writer(connection: Connection, upkeep: Upkeep) -> None:
    """Waits for a moment in which nobody writes to the database: Chroma would wait for 1,000 seconds."""
    until = time.monotonic() + READ_SECONDS
    while True:
        try:
            upkeep.probe()
        except TargetBusy:
            if time.monotonic() >= until:
                raise
        else:
            return
        _check_parent(connection)


def _check_parent(connection: Connection) -> None:
    if connection.poll():  # nothing is sent before the collection is open, so this is the end of the pipe
        raise ParentGone


def _end_with(connection: Connection) -> None:
    """Ends this process the moment that the pipe ends, also in the middle of a request.

    A server carries on with what it was sent, or does not; to wait for it would only keep the lease from the next load.
    """

    def watch() -> None:
        poll = select.poll()
        poll.register(connection.fileno(), 0)  # nothing but the end
        poll.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _answer_requests(connection: Connection, store: Store) -> None:
    while True:
        request = _receive(connection)
        if isinstance(request, Close):
            return
        try:
            answer = Answer(value=request.carry_out(store))
        except BaseException as error:  # noqa: BLE001  # as above
            answer = Answer(error=_portable(error))
        del request  # a batch's memory is not kept while waiting for the next one
        _send(connection, answer)


def _take_lease(connection: Connection, start: Start, holder: Holder) -> Lease:
    told = False

    def check(other: Holder) -> None:
        nonlocal told
        _check_parent(connection)
        if not (told or start.lease_timeout):  # else the parent has said so
            _send(connection, Told(message=f"waiting for the last write of {other}, whose command has died"))
            told = True

    path = start.location.lease_path()
    try:
        return take_lease(path, holder, timeout=start.lease_timeout, check=check)
    except LeaseHeld as error:
        raise start.location.in_use(error.holder) from error
    except OSError as error:
        raise unusable(path, error) from error


def _receive(connection: Connection) -> Request:
    try:
        request: Request = connection.recv()
    except (EOFError, ConnectionError) as error:
        raise ParentGone from error
    return request


def _send(connection: Connection, answer: Answer | Told) -> None:
    try:
        connection.send(answer)
    except OSError as error:
        raise ParentGone from error


def _portable(error: BaseException) -> Exception:
    """Returns an error that survives the pipe; one that is a bug carries its traceback as text."""
    if isinstance(error, UpsertCliError):
        return error
    if (limit := limit_reached(error)) is not None:
        return limit
    return RuntimeError(f"the writer's process failed: {''.join(traceback.format_exception(error)).strip()}")
