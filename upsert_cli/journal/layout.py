"""What lies where in the journal's folder, and the format that it has."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from upsert_cli.atomic import make_folder, move_aside, read_whole, replace_file
from upsert_cli.errors import InvalidTaskId, JournalTooNew
from upsert_cli.journal.state_files import reading_from
from upsert_cli.journal.task import valid_task_id

FORMAT = 1
MIGRATIONS: dict[int, Callable[[Path], None]] = {}
"""What brings a journal's folder from one format to the next, by the former; after a crash it has to run again."""

README = """\
This folder belongs to upsert-cli. It keeps the tasks that were run on this machine: what `upsert-cli list` shows, what
`upsert-cli restart` needs, and the items that could not be loaded. Removing it forgets the tasks and touches no
collection. Please do not edit it while upsert-cli runs.

    tasks-*.json      the tasks, up to 500 a file; each is an ordinary TinyDB file, `.bak` is the generation before
    active/           *.lease: locked by the process that runs a task; *.progress: how far it is;
                      *.units: which parts of it are done, if several processes load it;
                      *.missing: the records that it is to delete in its end
    rejects/          the items that could not be loaded, one JSON object a line; *~retry.jsonl: those being retried
    courses/          how far a task was at which second, for the chart of `upsert-cli report`
    spool/            what was read from standard input, so that a restart can read it again
    servers/          *.lease: locked by the process that loads into a collection on a server
    locks/            empty files that are locked for milliseconds; never remove one while upsert-cli runs
    pruned.json       the tasks whose files a prune is removing, should it be interrupted
    *.damaged-*       files that were found damaged and moved aside; `upsert-cli journal check` lists them
"""


class Layout:
    """The paths of a journal."""

    def __init__(self, folder: Path) -> None:
        """Touches nothing."""
        self.folder = folder
        self.meta = folder / "meta.json"
        self.allocation_lock = folder / "locks" / "allocation.lock"
        self.prune_lock = folder / "locks" / "prune.lock"
        self.pruned = folder / "pruned.json"
        self.spool = folder / "spool"
        self.servers = folder / "servers"

    def lease(self, task_id: str) -> Path:
        """Returns the file that the runner of a task keeps locked."""
        return self.folder / "active" / f"{_checked(task_id)}.lease"

    def progress(self, task_id: str) -> Path:
        """Returns the file with the checkpoint of a task."""
        return self.folder / "active" / f"{_checked(task_id)}.progress"

    def receipts(self, task_id: str) -> Path:
        """Returns the file that says which units of a task are done, where it is loaded in units."""
        return self.folder / "active" / f"{_checked(task_id)}.units"

    def rejects(self, task_id: str) -> Path:
        """Returns the file with the items of a task that could not be loaded."""
        return self.folder / "rejects" / f"{_checked(task_id)}.jsonl"

    def retry(self, task_id: str) -> Path:
        """Returns the file with the rejects that an attempt retries, until it is done; no task id makes such a name."""
        return self.folder / "rejects" / f"{_checked(task_id)}~retry.jsonl"

    def course(self, task_id: str) -> Path:
        """Returns the file with the course of a task."""
        return self.folder / "courses" / f"{_checked(task_id)}.json"

    def missing(self, task_id: str) -> Path:
        """Returns the file with the records that a task is to delete in its end."""
        return self.folder / "active" / f"{_checked(task_id)}.missing"

    def spooled(self, task_id: str) -> Path:
        """Returns the folder with what a task read from standard input."""
        return self.spool / _checked(task_id)

    def files_of(self, task_id: str) -> tuple[Path, ...]:
        """Returns the files that go with a task, but for its receipts and its spool; they may not exist."""
        each_file = (self.progress, self.lease, self.rejects, self.retry, self.course, self.missing)
        return tuple(path_of(task_id) for path_of in each_file)

    def names_of_task_files(self) -> frozenset[str]:
        """Returns the names of the files that go with tasks: leases, checkpoints, rejects."""
        names: set[str] = set()
        for folder in (self.folder / "active", self.folder / "rejects"):
            with suppress(FileNotFoundError), reading_from(folder):
                names.update(path.name for path in folder.iterdir())
        return frozenset(names)

    def make_folders(self) -> None:
        """Makes the folders that are missing."""
        make_folder(self.folder.resolve())  # the folder itself may be a link, by its owner's wish
        for name in ("locks", "active", "rejects", "courses", "spool"):
            make_folder(self.folder / name)

    def read_format(self) -> int | None:
        """Returns the format of the journal; None where nothing says it.

        Raises:
            JournalTooNew: It is newer than what this version knows.
        """
        try:
            with reading_from(self.meta):
                content = read_whole(self.meta)
        except FileNotFoundError:
            return None
        if (found := _format_in(content)) is not None and found > FORMAT:
            raise JournalTooNew(path=str(self.folder), found=found, known=FORMAT)
        return found

    def complete(self, warn: Callable[[str], None]) -> None:
        """Brings the journal to the format of this version; only the holder of the allocation lock may call this."""
        found = self.read_format()
        if found is None:
            self._set_damaged_meta_aside(warn)
            self._write_format(FORMAT)
        for step in range(FORMAT if found is None else found, FORMAT):
            MIGRATIONS[step](self.folder)
            self._write_format(step + 1)
        readme = self.folder / "README"
        if not readme.exists():
            replace_file(readme, README.encode("ascii"), durable=False)

    def _write_format(self, number: int) -> None:
        replace_file(self.meta, json.dumps({"format": number}).encode("ascii"), durable=True)

    def _set_damaged_meta_aside(self, warn: Callable[[str], None]) -> None:
        if self.meta.exists():
            aside = move_aside(self.meta)
            warn(f"{self.meta} does not say the journal's format; it was moved to {aside.name} and taken as {FORMAT}")


def _format_in(content: bytes) -> int | None:
    try:
        match json.loads(content):
            case {"format": int(number)} if all(step in MIGRATIONS for step in range(number, FORMAT)):
                return number
    except (ValueError, RecursionError):
        return None
    return None


def _checked(task_id: str) -> str:
    if not valid_task_id(task_id):
        raise InvalidTaskId(task_id=task_id)
    return task_id
