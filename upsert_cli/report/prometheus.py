"""Prometheus metrics of loads, in a file for the textfile collector of node_exporter.

One file may hold the metrics of many collections: a load replaces those of its own and keeps the others.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from upsert_cli.atomic import write_out
from upsert_cli.errors import LocksUnsupported, UpsertCliError
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.locks import lock_within

if TYPE_CHECKING:
    from upsert_cli.load.request import LoadRequest

LOCK_SECONDS = 5.0  # seconds to wait while another load writes the file, which takes milliseconds

_PREFIX = "upsert_cli_"
_RUN, _SUCCESS = f"{_PREFIX}last_run_timestamp_seconds", f"{_PREFIX}last_success_timestamp_seconds"
_DURATION, _CODE = f"{_PREFIX}last_run_duration_seconds", f"{_PREFIX}last_run_exit_code"
_ROWS, _DELETED = f"{_PREFIX}last_run_rows", f"{_PREFIX}last_run_deleted_records"

HELP = {
    _SUCCESS: "When a load was last done, exit code 0 or 3, in seconds since 1970.",
    _RUN: "When a load last ended, in seconds since 1970.",
    _DURATION: "Seconds that the last attempt at the last load took.",
    _CODE: "Exit code of the last load.",
    _ROWS: "Rows that the last load read in all of its attempts, by what became of them.",
    _DELETED: "Records that the last load deleted.",
}
"""The metrics with their help texts; all are gauges."""

OUTCOMES = ("inserted", "updated", "unchanged", "duplicate", "failed")

_SAMPLE = re.compile(r'([A-Za-z_]\w*)\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\} (\S+)', re.ASCII)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"', re.ASCII)

Labels: TypeAlias = tuple[tuple[str, str], ...]
Samples: TypeAlias = dict[tuple[str, Labels], str]
"""Values as written in a file, by name and labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadEnd:
    """The end of a load."""

    collection: str
    chroma: str
    exit_code: int
    seconds: float
    moment: float
    """Seconds since 1970."""

    is_success: bool
    rows: Mapping[str, int] | None = None
    """The counts of the task; None if the load ended without a task."""

    @classmethod
    def of_task(cls, task: Task, *, exit_code: int, seconds: float) -> LoadEnd:
        """Return the end of a task; `seconds` is used if its record has no duration."""
        ended = task.finished_at
        return cls(
            collection=task.collection,
            chroma=task.chroma,
            exit_code=exit_code,
            seconds=task.seconds.get("total", seconds),
            moment=time.time() if ended is None else datetime.fromisoformat(ended).timestamp(),
            is_success=task.status is TaskStatus.DONE and exit_code in (0, 3),
            rows=task.counts.as_json(),
        )

    @classmethod
    def of_request(cls, request: LoadRequest, *, exit_code: int, seconds: float) -> LoadEnd:
        """Return the end of a load without a task."""
        return cls(
            collection=request.collection,
            chroma=request.chroma,
            exit_code=exit_code,
            seconds=seconds,
            moment=time.time(),
            is_success=False,
        )


def write_metrics(path: Path, end: LoadEnd) -> None:
    """Write the end of a load to a file, and keep the metrics of other collections.

    Raises:
        UpsertCliError: The file cannot be written, or has metrics of other programs.
    """
    try:
        with _alone_in(path.absolute().parent):
            samples = _merged(_read(path), end)
            if samples is not None:
                write_out(path, _text(samples))
    except (LocksUnsupported, OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UpsertCliError(
            message=f"the metrics in {path} were not written, so they do not include this load: {reason}"
        ) from error


def _merged(samples: Samples, end: LoadEnd) -> Samples | None:
    """Return the samples with the end of a load, or None if they have a later one."""
    target: Labels = (("chroma", end.chroma), ("collection", end.collection))
    before = float(samples.get((_RUN, target), "0"))
    if time.time() >= before > end.moment:
        return None
    last_success = samples.get((_SUCCESS, target))
    kept = {key: value for key, value in samples.items() if not set(target) <= set(key[1])}
    ours = {_RUN: end.moment, _DURATION: end.seconds, _CODE: end.exit_code}
    made = {(name, target): _number(value) for name, value in ours.items()}
    if end.is_success:
        made[_SUCCESS, target] = _number(end.moment)
    elif last_success is not None:
        made[_SUCCESS, target] = last_success
    if end.rows is not None:
        made |= {(_ROWS, (*target, ("outcome", name))): _number(end.rows[name]) for name in OUTCOMES}
        made[_DELETED, target] = _number(end.rows["deleted"])
    return kept | made


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _text(samples: Samples) -> str:
    return "".join(f"{line}\n" for line in _lines(samples))


def _lines(samples: Samples) -> Iterator[str]:
    for name, sentence in HELP.items():
        if found := sorted((labels, value) for (of, labels), value in samples.items() if of == name):
            yield from (f"# HELP {name} {sentence}", f"# TYPE {name} gauge")
            for labels, value in found:
                shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
                yield f"{name}{{{shown}}} {value}"


def _read(path: Path) -> Samples:
    """Return the samples in a file.

    Raises:
        ValueError: The file has other content, which would be lost.
    """
    try:
        # Not `splitlines`: a carriage return in a name does not end a line.
        lines = path.read_bytes().decode("utf-8").split("\n") if path.is_file() else []
    except UnicodeDecodeError as error:
        raise ValueError("it holds something else than metrics") from error
    samples: Samples = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _SAMPLE.fullmatch(line)
        if found is None or found[1] not in HELP:
            raise ValueError(f"line {number} is no metric of upsert-cli's, and it would be lost; name another file")
        float(found[3])
        samples[found[1], tuple((name, _plain(text)) for name, text in _LABEL.findall(found[2]))] = found[3]
    return samples


def _escaped(text: str) -> str:
    valid = text.encode("utf-8", "replace").decode("utf-8")
    return valid.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other loads from writing metrics into a folder; the lock is on the folder itself, and leaves no file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not lock_within(descriptor, folder, seconds=LOCK_SECONDS):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)
