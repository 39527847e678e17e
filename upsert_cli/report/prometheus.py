"""The outcome of a load -> a file in Prometheus' text format, for the textfile collector of node_exporter.

One file may tell of many collections: a load replaces what is said about its own and leaves the others alone.
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
from typing import TypeAlias

from upsert_cli.atomic import write_out
from upsert_cli.errors import LocksUnsupported, UpsertCliError
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.locks import lock_within

LOCK_SECONDS = 5.0  # seconds to wait for another load that writes the same file, which takes milliseconds

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
"""The metrics, each with the sentence that the file says about it; all are gauges."""

OUTCOMES = ("inserted", "updated", "unchanged", "duplicate", "failed")

_SAMPLE = re.compile(r'([A-Za-z_]\w*)\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\} (\S+)', re.ASCII)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"', re.ASCII)

Labels: TypeAlias = tuple[tuple[str, str], ...]
Samples: TypeAlias = dict[tuple[str, Labels], str]
"""Values as they stand in a file, by name and labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a load ended, for who watches it."""

    collection: str
    chroma: str
    exit_code: int
    seconds: float
    moment: float
    """Seconds since 1970."""

    is_success: bool
    rows: Mapping[str, int] | None = None
    """The task's counts; None where the load ended before there was a task."""

    @classmethod
    def of_task(cls, task: Task, *, exit_code: int, seconds: float) -> Ending:
        """Returns how a task ended; `seconds` counts where its record says nothing better."""
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
    def without_task(cls, collection: str, chroma: str, *, exit_code: int, seconds: float) -> Ending:
        """Returns the end of a load that came to no task."""
        return cls(
            collection=collection,
            chroma=chroma,
            exit_code=exit_code,
            seconds=seconds,
            moment=time.time(),
            is_success=False,
        )


def write_metrics(path: Path, ending: Ending) -> None:
    """Tells in a file of metrics how a load ended; what the file says about other collections stays.

    Raises:
        UpsertCliError: The file cannot be written, or holds something that is not ours.
    """
    try:
        with _alone_in(path.absolute().parent):
            samples = _merged(_read(path), ending)
            if samples is not None:
                write_out(path, _text(samples))
    except (LocksUnsupported, OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UpsertCliError(
            message=f"the metrics in {path} were not written, so they do not include this load: {reason}"
        ) from error


def _merged(samples: Samples, ending: Ending) -> Samples | None:
    """Returns the samples with an ending, or None where they tell of a later one."""
    target: Labels = (("chroma", ending.chroma), ("collection", ending.collection))
    before = float(samples.get((_RUN, target), "0"))
    if time.time() >= before > ending.moment:
        return None
    last_success = samples.get((_SUCCESS, target))
    kept = {key: value for key, value in samples.items() if not set(target) <= set(key[1])}
    ours = {_RUN: ending.moment, _DURATION: ending.seconds, _CODE: ending.exit_code}
    made = {(name, target): _number(value) for name, value in ours.items()}
    if ending.is_success:
        made[_SUCCESS, target] = _number(ending.moment)
    elif last_success is not None:
        made[_SUCCESS, target] = last_success
    if ending.rows is not None:
        made |= {(_ROWS, (*target, ("outcome", name))): _number(ending.rows[name]) for name in OUTCOMES}
        made[_DELETED, target] = _number(ending.rows["deleted"])
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
    """Returns the samples in a file.

    Raises:
        ValueError: There is something else in it, which would be lost.
    """
    try:
        # As it stands: a carriage return in a name ends no line.
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
