"""The layout of the journal's folder, the files that go with a task, and the format of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from upsert_cli.atomic import make_folder, move_aside, read_whole, replace_file
from upsert_cli.errors import UpsertCliError, UsageFault
from upsert_cli.journal.file_access import reading_from
from upsert_cli.journal.task_ids import valid_task_id

FORMAT = 1
MIGRATIONS: dict[int, Callable[[Path], None]] = {}
"""The steps from one format to the next, by the older one; each may be repeated after a crash."""

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


class TaskFiles:
    """The paths of the files that go with a task; they may not exist."""

    def __init__(self, folder: Path, task_id: str) -> None:
        """Touch nothing.

        Raises:
            UsageFault: The id has characters that no task id can have.
        """
        if not valid_task_id(task_id):
            raise UsageFault(
                message=f"{task_id!r} cannot be a task id: use 1 to 128 letters, digits, dots, hyphens and "
                f"underscores, the first a letter or a digit"
            )
        self._folder = folder
        self._task_id = task_id

    @property
    def lease(self) -> Path:
        """The file that the runner of the task keeps locked."""
        return self._folder / "active" / f"{self._task_id}.lease"

    @property
    def progress(self) -> Path:
        """The file with the checkpoint."""
        return self._folder / "active" / f"{self._task_id}.progress"

    @property
    def receipts(self) -> Path:
        """The SQLite file that says which units are done, for a task that is loaded in units."""
        return self._folder / "active" / f"{self._task_id}.units"

    @property
    def receipts_journal(self) -> Path:
        """The file that SQLite may leave next to the receipts after a crash."""
        return self.receipts.with_name(f"{self.receipts.name}-journal")

    @property
    def missing(self) -> Path:
        """The list of the records that the task deletes at its end."""
        return self._folder / "active" / f"{self._task_id}.missing"

    @property
    def rejects(self) -> Path:
        """The rejects file."""
        return self._folder / "rejects" / f"{self._task_id}.jsonl"

    @property
    def retry(self) -> Path:
        """The file with the rejects that an attempt retries, until it is done; no task id makes such a name."""
        return self._folder / "rejects" / f"{self._task_id}~retry.jsonl"

    @property
    def timeline(self) -> Path:
        """The file with the timeline."""
        return self._folder / "courses" / f"{self._task_id}.json"

    @property
    def spool(self) -> Path:
        """The folder with what the task read from standard input."""
        return self._folder / "spool" / self._task_id

    @property
    def all(self) -> tuple[Path, ...]:
        """All of them except the spool."""
        active = (self.progress, self.lease, self.missing, self.receipts, self.receipts_journal)
        return (*active, self.rejects, self.retry, self.timeline)


class Layout:
    """The paths of a journal."""

    def __init__(self, folder: Path) -> None:
        """Touch nothing."""
        self.folder = folder
        self.meta = folder / "meta.json"
        self.allocation_lock = folder / "locks" / "allocation.lock"
        self.prune_lock = folder / "locks" / "prune.lock"
        self.pruned = folder / "pruned.json"
        self.spool = folder / "spool"
        self.servers = folder / "servers"

    def files(self, task_id: str) -> TaskFiles:
        """Return the paths of the files that go with a task."""
        return TaskFiles(self.folder, task_id)

    def names_of_task_files(self) -> frozenset[str]:
        """Return the names of the leases, checkpoints and rejects files of all tasks."""
        names: set[str] = set()
        for folder in (self.folder / "active", self.folder / "rejects"):
            with suppress(FileNotFoundError), reading_from(folder):
                names.update(path.name for path in folder.iterdir())
        return frozenset(names)

    def make_folders(self) -> None:
        """Make the folders that are missing."""
        make_folder(self.folder.resolve())  # the folder itself may be a link if its owner wants that
        for name in ("locks", "active", "rejects", "courses", "spool"):
            make_folder(self.folder / name)

    def read_format(self) -> int | None:
        """Return the format of the journal; None if nothing says it.

        Raises:
            UpsertCliError: It is newer than the newest that this version knows.
        """
        try:
            with reading_from(self.meta):
                content = read_whole(self.meta)
        except FileNotFoundError:
            return None
        if (found := _format_in(content)) is not None and found > FORMAT:
            raise UpsertCliError(
                message=f"the journal in {self.folder} has format {found}, this version knows up to {FORMAT}; "
                f"upgrade upsert-cli, or choose another folder with --journal"
            )
        return found

    def complete(self, warn: Callable[[str], None]) -> None:
        """Bring the journal to the format of this version; only the holder of the allocation lock may call this."""
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
