"""Renames of collections, which the unfinished tasks follow, also if the process dies in between.

A note in the journal is written before the first step, and removed after the last one. It names the collections by
their ids, which no rename changes, so the tasks follow them to their present names, however many steps were made.
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
from upsert_cli.store.locate import location_at

NAME_BYTES = 8  # of the hash that names a note; a journal hardly ever has more than one note


@dataclass(frozen=True, slots=True, kw_only=True)
class RenameNote:
    """A note about a rename that is about to begin."""

    chroma: str
    name: str
    to: str

    kept: str | None
    """The new name of the collection that now has the name `to`; None if there is no such collection."""

    collection: str
    """The id of the collection to rename."""

    tasks: Mapping[str, str]
    """The id of the collection that each unfinished task began to fill, by the id of the task."""


@contextmanager
def followed_by_tasks(journal: Journal, chroma: str, name: str, to: str, *, kept: str | None) -> Iterator[None]:
    """Let the unfinished tasks follow the collections that the block renames.

    Args:
        journal: The journal with the tasks.
        chroma: The target, whose lease this process has.
        name: The collection to rename.
        to: Its new name.
        kept: The new name of the collection that has that name now, if there is one.

    Raises:
        JournalUnwritable: There are unfinished tasks, but no note can be written; the block has not begun.
    """
    ids = _ids(journal, chroma, name, to, kept)
    tasks = {task.id: ids[now] for now in ids for task in journal.unfinished_in(chroma, collection=now)}
    if not tasks:
        yield
        return
    # The note is named for the collection, so that the next rename replaces a note which a crash left unfinished.
    identity = f"{chroma}\0{ids[name]}".encode("utf-8", "surrogatepass")
    path = journal.layout.renames / f"{hashlib.blake2b(identity, digest_size=NAME_BYTES).hexdigest()}.json"
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
    """Complete the renames in a target whose process died, and return their notes.

    `kept` in such a note is None if the collection of that name was not renamed before the process died.

    Args:
        journal: The journal with the notes.
        chroma: The target, as `canonical_target` spells it.
        check: Called while the last write of a dead process ends; may raise to give up.

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
    """Let the tasks of a note follow their collections, drop the note, and return it; see `complete_renames`."""
    names = {identifier: now for now, identifier in _ids(journal, note.chroma, note.name, note.to, note.kept).items()}
    for task_id, collection in note.tasks.items():
        if collection in names:  # or another program deleted it, or gave it another name
            follow_rename(journal, task_id, collection=names[collection])
    drop_note(path)
    return note if note.kept in names.values() else replace(note, kept=None)


def _ids(journal: Journal, chroma: str, *names: str | None) -> dict[str, str]:
    """Return the ids of the collections with some names, by their names; those that do not exist are left out."""
    states = {
        name: location_at(chroma, name, leases=journal.layout.servers).state() for name in names if name is not None
    }
    return {name: state.id for name, state in states.items() if state is not None}


def _read(path: Path) -> RenameNote | None:
    with suppress(TypeError):  # another process completed the rename and dropped the note, or the file is no note
        return RenameNote(**read_json(path))
    return None
