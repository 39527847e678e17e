"""Renames of collections: the unfinished tasks follow them, also if the process dies in between.

A note in the journal is written before the first step and removed after the last. It names the collections by their
ids, which no rename changes, so the tasks follow them to the names that they have, however many steps were made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from upsert_cli.atomic import make_folder
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.claims import follow_rename
from upsert_cli.journal.files import drop_note, read_json, write_json, writing_to
from upsert_cli.journal.journal import Journal
from upsert_cli.store.location import location_at

NAME_BYTES = 8  # of a hash that names a file; a journal has hardly ever more than one of them


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameNote:
    """A rename that is about to begin."""

    chroma: str
    name: str
    to: str

    kept: str | None
    """The new name of the collection that has the name `to` now; None if there is none."""

    collection: str
    """The id of the collection that is renamed."""

    tasks: Mapping[str, str]
    """The id of the collection that each unfinished task began to fill."""


@contextmanager
def followed_by_tasks(journal: Journal, chroma: str, name: str, to: str, *, kept: str | None) -> Iterator[None]:
    """Let the unfinished tasks follow the collections that the block renames, to the names that they have after it.

    Args:
        journal: Knows the tasks.
        chroma: The target, whose lease is held.
        name: The collection that is renamed.
        to: Its new name.
        kept: The new name of the collection that has that name now, if there is one.

    Raises:
        JournalUnwritable: There are such tasks, and no note can be made; the block was not begun.
    """
    ids = _ids(journal, chroma, name, to, kept)
    tasks = {task.id: ids[now] for now in ids for task in journal.unfinished_in(chroma, collection=now)}
    if not tasks:
        yield
        return
    # Named for the collection, so that the next rename takes the place of a note that a death left half written.
    place = f"{chroma}\0{ids[name]}".encode("utf-8", "surrogatepass")
    path = journal.layout.renames / f"{hashlib.blake2b(place, digest_size=NAME_BYTES).hexdigest()}.json"
    note = RenameNote(chroma=chroma, name=name, to=to, kept=kept, collection=ids[name], tasks=tasks)
    with writing_to(path):
        make_folder(path.parent)
    write_json(path, asdict(note), durable=True)
    try:
        yield
    except UpsertCliError:
        with suppress(UpsertCliError):  # the note stays, and the first error is the one that counts
            _complete(journal, path, note)
        raise
    _complete(journal, path, note)


def complete_renames(journal: Journal, chroma: str, *, check: Callable[[], None] = lambda: None) -> list[RenameNote]:
    """Complete the renames in a target whose process died, and return them with what was kept; leave others alone.

    Args:
        journal: Has the notes.
        chroma: The target, as `canonical_target` spells it.
        check: Called while the last write of a dead process ends, and may raise to give up.

    Raises:
        UpsertCliError: The target cannot be read.
    """
    found = []
    for path in sorted(journal.layout.renames.glob("*.json")):
        note = _read(path)
        if note is not None and note.chroma == chroma:
            location = location_at(chroma, note.name, leases=journal.layout.servers)
            if location.await_orphan(check) is None:
                found.append(_complete(journal, path, note))
    return found


def _complete(journal: Journal, path: Path, note: RenameNote) -> RenameNote:
    names = {identifier: now for now, identifier in _ids(journal, note.chroma, note.name, note.to, note.kept).items()}
    for task_id, collection in note.tasks.items():
        if collection in names:  # otherwise it was deleted, or renamed again, by somebody else
            follow_rename(journal, task_id, collection=names[collection])
    drop_note(path)
    return note if note.kept in names.values() else replace(note, kept=None)


def _ids(journal: Journal, chroma: str, *names: str | None) -> dict[str, str]:
    """Return the ids of those collections that exist, by their present names."""
    states = {
        name: location_at(chroma, name, leases=journal.layout.servers).state() for name in names if name is not None
    }
    return {name: state.id for name, state in states.items() if state is not None}


def _read(path: Path) -> RenameNote | None:
    with suppress(TypeError):  # it is complete by now, or not ours
        return RenameNote(**read_json(path))
    return None
