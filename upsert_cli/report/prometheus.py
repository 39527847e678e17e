"""Prometheus metrics of loads, in a file for the textfile collector of node_exporter.

One file may hold the metrics of many collections; a load replaces only the metrics of its collection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from upsert_cli.atomic import write_out
from upsert_cli.counts import OUTCOMES
from upsert_cli.errors import SOME_REJECTED, LocksUnsupported, UpsertCliError, reason_of
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.locks import locked_folder

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

_SAMPLE = re.compile(r'(?P<name>[A-Za-z_]\w*)\{(?P<labels>(?:\w+="(?:[^"\\]|\\.)*",?)*)\} (?P<value>\S+)', re.ASCII)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"', re.ASCII)

Labels: TypeAlias = tuple[tuple[str, str], ...]
Samples: TypeAlias = dict[tuple[str, Labels], str]
"""Values as written in a file, by name and labels."""


def write_metrics(path: Path, ended: Task | LoadRequest, *, exit_code: int, seconds: float) -> None:
    """Write the end of a load to a file, and keep the metrics of other collections.

    Args:
        path: The file.
        ended: The task at its end, or the request of a load that ended without a task.
        exit_code: The exit code of the process.
        seconds: The duration, for a task whose record has none.

    Raises:
        UpsertCliError: The file cannot be written, or has metrics of other programs.
    """
    target: Labels = (("chroma", ended.chroma), ("collection", ended.collection))
    samples = _samples(ended, target, exit_code=exit_code, seconds=seconds)
    try:
        with locked_folder(path.absolute().parent, seconds=LOCK_SECONDS):
            before = _read(path)
            newest = float(before.get((_RUN, target), "0"))
            is_overtaken = float(samples[_RUN, target]) < newest <= time.time()  # by a load that ended later
            if not is_overtaken:
                write_out(path, _text(_without(before, target) | samples))
    except (LocksUnsupported, OSError, ValueError) as error:
        raise UpsertCliError(
            message=f"the metrics in {path} were not written, so they do not include this load: {reason_of(error)}"
        ) from error


def _samples(ended: Task | LoadRequest, target: Labels, *, exit_code: int, seconds: float) -> Samples:
    values: dict[tuple[str, Labels], float] = {}
    moment = time.time()
    if isinstance(ended, Task):
        counts = ended.counts.as_json()
        values = {(_ROWS, (*target, ("outcome", name))): counts[name] for name in OUTCOMES}
        values[_DELETED, target] = counts["deleted"]
        seconds = ended.seconds.get("total", seconds)
        moment = moment if ended.finished_at is None else datetime.fromisoformat(ended.finished_at).timestamp()
        if ended.status is TaskStatus.DONE and exit_code in (0, SOME_REJECTED):
            values[_SUCCESS, target] = moment
    values |= {(_RUN, target): moment, (_DURATION, target): seconds, (_CODE, target): exit_code}
    return {key: f"{value:.3f}".rstrip("0").rstrip(".") for key, value in values.items()}


def _without(samples: Samples, target: Labels) -> Samples:
    """Return the samples without those of a target, but with the time of its last success."""
    return {key: value for key, value in samples.items() if not set(target) <= set(key[1]) or key == (_SUCCESS, target)}


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
        raise ValueError("it holds something other than metrics") from error
    samples: Samples = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _SAMPLE.fullmatch(line)
        if found is None or found["name"] not in HELP:
            raise ValueError(f"line {number} is no metric of upsert-cli's, and it would be lost; name another file")
        labels = tuple((name, _plain(text)) for name, text in _LABEL.findall(found["labels"]))
        float(found["value"])  # raises a ValueError for anything but a number
        samples[found["name"], labels] = found["value"]
    return samples


def _escaped(text: str) -> str:
    valid = text.encode("utf-8", "replace").decode("utf-8")
    return valid.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text)
