"""Window -> Plan: what the collection already holds of a window, and so what has to be embedded and written."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from upsert_cli.stream.chroma.rows import Comparison, Verdict
from upsert_cli.stream.windows import Window

STEP = 0.1  # seconds; the longest that a waiting stage sleeps before it looks whether it should end


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A window and what the collection already holds of it."""

    window: Window
    comparison: Comparison


class Collection(Protocol):
    """What documents are compared with."""

    def compare(self, ids: list[str], hashes: list[str], keys: list[tuple[str, ...]]) -> Comparison:
        """Tells what has to be done about each document."""


class InFlight:
    """The ids of the windows between their comparison and their checkpoint."""

    def __init__(self) -> None:
        """Nothing is on its way yet."""
        self._ids: dict[int, frozenset[str]] = {}
        self._changed = threading.Condition()

    def enter(self, number: int, ids: Sequence[str], ending: threading.Event) -> bool:
        """Waits until no window in flight shares an id, then adds this one; False when the stream ends instead."""
        entering = frozenset(ids)
        with self._changed:
            while not ending.is_set():
                if all(entering.isdisjoint(other) for other in self._ids.values()):
                    self._ids[number] = entering
                    return True
                self._changed.wait(STEP)
        return False

    def leave(self, number: int) -> None:
        """Takes a window out, once it is settled."""
        with self._changed:
            del self._ids[number]
            self._changed.notify_all()


def compare_windows(
    windows: Iterator[Window], collection: Collection, *, in_flight: InFlight, force: bool, ending: threading.Event
) -> Iterator[Plan]:
    """Yields each window with its comparison.

    Args:
        windows: In their order.
        collection: The one that they go into.
        in_flight: Whoever settles a window takes it out there.
        force: Whether to embed and write also what has not changed.
        ending: Ends the waiting for a window in flight.
    """
    for window in windows:
        ids = [document.id for document in window.documents]
        # An id that is still on its way to the collection would be compared with what it is about to replace.
        if not in_flight.enter(window.number, ids, ending):
            return
        comparison = collection.compare(
            ids,
            [document.upsert_hash for document in window.documents],
            [tuple(document.metadata) for document in window.documents],
        )
        yield Plan(window=window, comparison=forced(comparison) if force else comparison)


def forced(comparison: Comparison) -> Comparison:
    """Returns a comparison by which everything is written again."""
    verdicts = [Verdict.NEW if verdict is Verdict.NEW else Verdict.TEXT for verdict in comparison.verdicts]
    return replace(comparison, verdicts=verdicts)
