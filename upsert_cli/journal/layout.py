"""The layout of a journal's folder: its format, the paths of its files, and the ids that name them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from upsert_cli.atomic import make_folder, move_aside, replace_file
from upsert_cli.errors import UpsertCliError, UsageFault
from upsert_cli.journal.files import locked, read_json, reading_from, write_json, writing_to

ID_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"  # 32 characters that all look different
ID_SUFFIX = 4  # characters; a million ids a second, and `Journal.create` refuses one that is taken
LATEST = "latest"  # stands for the newest task on the command line, so no task has this id
FORMAT = 1
MIGRATIONS: dict[int, Callable[[Path], None]] = {}
"""The steps from one format to the next, by the older one; each may be repeated after a crash."""

README = """\
This folder belongs to upsert-cli. It keeps the tasks that were run on this machine: what `upsert-cli list` shows, what
`upsert-cli restart` needs, and the items that could not be loaded. Removing it forgets the tasks and touches no
collection. Please do not edit it while upsert-cli runs.

    tasks-*.json      the tasks, up to 500 a file; each is an ordinary TinyDB file, `.bak` is the generation before
    active/           *.lease: locked by the process that runs a task; *.progress: how far it is;
                      *.units: which units of it are loaded, if several processes load it;
                      *.missing: the records that it will delete at its end
    rejects/          the items that could not be loaded, one JSON object a line; *~retry.jsonl: those being retried
    courses/          how far a task was at which second, for the chart of `upsert-cli report`
    spool/            standard input as it was read, so that a restart can read it again
    servers/          *.lease: locked by the process that loads into a collection on a server
    locks/            empty files that are locked for milliseconds; never remove one while upsert-cli runs
    renames/          *.json: the tasks that follow a collection to its new name, should a rename be interrupted
    pruned.json       the tasks whose files a prune is removing, should it be interrupted
    *.damaged-*       files that were found damaged and moved aside; `upsert-cli journal check` lists them
"""

_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SEGMENT = re.compile(r"tasks-(\d{6,})\.json(\..+)?")
_READABLE = ("", ".bak")  # ends of the names of a segment and of its previous generation


def new_task_id(now: datetime | None = None) -> str:
    """Return an id that sorts by time and that a person can read aloud: `20261123-210312-k3f9`."""
    moment = datetime.now(UTC) if now is None else now.astimezone(UTC)
    suffix = "".join(ID_ALPHABET[byte % len(ID_ALPHABET)] for byte in os.urandom(ID_SUFFIX))
    return f"{moment:%Y%m%d-%H%M%S}-{suffix}"


def valid_task_id(text: str) -> bool:
    """Check whether `text` can be a task's id, and so a part of a file name."""
    return _TASK_ID.fullmatch(text) is not None


class TaskFiles:
    """The paths of the files that go with a task, whether they exist or not."""

    def __init__(self, folder: Path, task_id: str) -> None:
        """Compute the paths below a journal's folder.

        Raises:
            UsageFault: This cannot be a task id.
        """
        if not valid_task_id(task_id):
            raise UsageFault(
                message=f"{task_id!r} cannot be a task id: use 1 to 128 letters, digits, dots, hyphens and "
                f"underscores, the first a letter or a digit"
            )
        active, rejects = folder / "active", folder / "rejects"
        self.lease = active / f"{task_id}.lease"
        """Locked by the runner of the task."""

        self.progress = active / f"{task_id}.progress"
        """The checkpoint."""

        self.receipts = active / f"{task_id}.units"
        """An SQLite file with the units that are done, for a task that is loaded in units."""

        self.receipts_journal = active / f"{task_id}.units-journal"
        """The file that SQLite may leave next to the receipts after a crash."""

        self.missing = active / f"{task_id}.missing"
        """The list of the records to delete at the end of the task."""

        self.rejects = rejects / f"{task_id}.jsonl"
        self.retry = rejects / f"{task_id}~retry.jsonl"
        """The rejects that an attempt retries, until it is done; no task id has a tilde."""

        self.timeline = folder / "courses" / f"{task_id}.json"
        self.spool = folder / "spool" / task_id
        """The folder with the copy of standard input that the task reads."""

    @property
    def of_attempt(self) -> tuple[Path, ...]:
        """The files without which the next attempt begins at the start."""
        return (self.progress, self.retry, self.missing, self.receipts, self.receipts_journal)

    @property
    def all(self) -> tuple[Path, ...]:
        """All files, and the spool."""
        return (*self.of_attempt, self.lease, self.rejects, self.timeline, self.spool)


class Layout:
    """The folder of a journal: its paths and its format."""

    def __init__(self, folder: Path, *, warn: Callable[[str], None]) -> None:
        """Read nothing yet; `warn` is called with damage that is found, and how it was handled."""
        self.folder = folder
        self._warn = warn
        self.meta = folder / "meta.json"
        self.prune_lock = folder / "locks" / "prune.lock"
        self.pruned = folder / "pruned.json"
        self.spool = folder / "spool"
        self.servers = folder / "servers"
        self.renames = folder / "renames"

    def names_of_task_files(self) -> frozenset[str]:
        """Return the names of the leases, checkpoints and rejects files of all tasks."""
        names: set[str] = set()
        for folder in (self.folder / "active", self.folder / "rejects"):
            with suppress(FileNotFoundError), reading_from(folder):
                names.update(path.name for path in folder.iterdir())
        return frozenset(names)

    @contextmanager
    def allocation(self) -> Iterator[None]:
        """Hold the lock under which tasks are created and removed.

        Before the block begins, the folder is completed and brought to this version's format.
        """
        self.read_format()  # raises before anything is written into a journal of a newer format
        with writing_to(self.folder):
            make_folder(self.folder.resolve())  # the user may have made a link of the folder itself
            for name in ("locks", "active", "rejects", "courses", "spool"):
                make_folder(self.folder / name)
        with locked(self.folder / "locks" / "allocation.lock"):
            with writing_to(self.folder):
                self._complete()
            yield

    def check_format(self) -> None:
        """Raise for a journal of a newer format, and migrate one of an older format."""
        found = self.read_format()
        if found is not None and found < FORMAT:
            with self.allocation():
                return

    def read_format(self) -> int | None:
        """Return the format of the journal; None if its folder does not state one.

        Raises:
            UpsertCliError: The format is newer than this version.
        """
        match read_json(self.meta):
            case {"format": int(found)} if found > FORMAT:
                raise UpsertCliError(
                    message=f"the journal in {self.folder} has format {found}, this version knows up to {FORMAT}; "
                    f"upgrade upsert-cli, or choose another folder with --journal"
                )
            case {"format": int(found)} if all(step in MIGRATIONS for step in range(found, FORMAT)):
                return found
        return None

    def _complete(self) -> None:
        found = self.read_format()
        if found is None:
            if self.meta.exists():
                aside = move_aside(self.meta).name
                self._warn(
                    f"{self.meta} does not say the journal's format; it was moved to {aside} and taken as {FORMAT}"
                )
            write_json(self.meta, {"format": FORMAT}, durable=True)
        for step in range(FORMAT if found is None else found, FORMAT):
            MIGRATIONS[step](self.folder)
            write_json(self.meta, {"format": step + 1}, durable=True)
        readme = self.folder / "README"
        if not readme.exists():
            replace_file(readme, README.encode("ascii"), durable=False)


def segment_numbers(folder: Path) -> list[int]:
    """Return the numbers of the segments, the newest first; none if there is no journal."""
    return sorted({number for number, suffix in _names(folder) if suffix in _READABLE}, reverse=True)


def next_number(folder: Path) -> int:
    """Return the number of the newest segment, or the next number if that segment was moved aside."""
    names = _names(folder)
    newest = max((number for number, _ in names), default=0)
    moved = any(number == newest and ".damaged-" in suffix for number, suffix in names)
    live = any(number == newest and suffix in _READABLE for number, suffix in names)
    return newest + 1 if moved and not live else newest


def number_of(path: Path) -> int | None:
    """Return the number in the name of a segment's file, also of one that was moved aside; None for other files."""
    match = _SEGMENT.fullmatch(path.name)
    return int(match[1]) if match else None


def _names(folder: Path) -> list[tuple[int, str]]:
    try:
        with reading_from(folder):
            matches = [_SEGMENT.fullmatch(path.name) for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return [(int(match[1]), match[2] or "") for match in matches if match]
