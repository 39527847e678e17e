"""Ids of tasks: their form, new ones, and the short forms that users type."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from upsert_cli.errors import TaskNotFound, UsageFault

if TYPE_CHECKING:
    from upsert_cli.journal.journal import Journal

LATEST = "latest"  # stands for the newest task on the command line, and so is not a task id
ID_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"  # 32 characters, none of which looks like another
ID_SUFFIX = 4  # characters; a million ids a second, and `create` refuses one that is taken
NAMED_CANDIDATES = 10  # ids that the message about an ambiguous prefix names

_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def new_task_id(now: datetime | None = None) -> str:
    """Return an id that sorts by time and that a person can read aloud: `20261123-210312-k3f9`.

    Args:
        now: A moment with its time zone; None: this one.
    """
    moment = datetime.now(UTC) if now is None else now.astimezone(UTC)
    suffix = "".join(ID_ALPHABET[byte % len(ID_ALPHABET)] for byte in os.urandom(ID_SUFFIX))
    return f"{moment:%Y%m%d-%H%M%S}-{suffix}"


def valid_task_id(text: str) -> bool:
    """Check whether `text` can be a task's id, and so a part of a file name."""
    return _TASK_ID.fullmatch(text) is not None


def resolve_task_id(journal: Journal, name: str) -> str:
    """Return the id that a user means: an id, a prefix that only one id has, or `latest` for the newest task.

    Raises:
        TaskNotFound: No id begins like that, or a damaged file may hold that very id.
        UsageFault: Several ids do.
    """
    journal.check_format()
    try:
        journal.table.find(name)
    except TaskNotFound as error:
        candidates = [] if error.unreadable else _candidates(journal, name)
        if not candidates:
            raise
        if len(candidates) > 1:
            raise _ambiguous(name, candidates) from None
        return candidates[0]
    return name


def _candidates(journal: Journal, name: str) -> list[str]:
    if name != LATEST:
        return [*journal.table.ids_from(name)]
    newest = next(journal.newest_first(), None)
    return [] if newest is None else [newest.id]


def _ambiguous(prefix: str, candidates: Sequence[str]) -> UsageFault:
    named, more = candidates[:NAMED_CANDIDATES], len(candidates) - NAMED_CANDIDATES
    others = f" and {more:,} more" if more > 0 else ""
    return UsageFault(
        message=f"{prefix!r} is the beginning of {len(candidates):,} task ids: {', '.join(named)}{others}; "
        f"type more of the id, or `latest` for the newest task"
    )
