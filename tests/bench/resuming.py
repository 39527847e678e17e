"""S8: the bytes that a restart reads of a file before the row at which it continues.

A load of a large file is stopped in the middle by a signal; its restart runs under strace, which tells where in the
file each read was. The fingerprint's look at both ends of the file, by which a restart knows that it is still the same,
is told apart from what the reader reads.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.bench import Bench
from tests.bench.measuring import CommandFailed, cost_of, python
from tests.bench.results import Result, at_most, shown
from upsert_cli.sources.fingerprint import EDGE

ROWS = 2_000
BYTES = 20_000  # of a payload, so that the file is much larger than the bytes that the fingerprint reads
GROUP_ROWS = 100  # rows a row group
STEP = 0.02  # seconds between two looks at a load
LONGEST = 300.0  # seconds that a load may take to come half way

_CALL = re.compile(r"(?:^|\s)(read|pread64|lseek|mmap)\((\d*)(?:<([^>]*)>)?,?(.*)\) += (-?\d+)")


def resuming(bench: Bench) -> Iterator[Result]:
    """Measure JSONL and Parquet."""
    if shutil.which("strace") is None:
        yield shown("S8", "bytes that a restart reads before its row", "strace is not installed")
        return
    lines = bench.made("resume.jsonl", _write)
    parquet = bench.made(
        "resume.parquet",
        lambda path: cost_of(python("-m", "tests.bench.fat", str(lines), str(path), "0", "0", str(GROUP_ROWS))),
    )
    for source in (lines, parquet):
        begin = _stop_half_way(bench, source)
        if begin <= EDGE:
            raise CommandFailed(f"the load of {source.name} was not stopped half way, but at byte {begin}")
        log = bench.fresh("strace")
        command = bench.command("restart", source.name, "-q")
        cost_of(["strace", "-f", "-qq", "-y", "-o", str(log), "-e", "trace=read,pread64,lseek", *command])
        reads = list(_reads(log, source))
        before = sum(max(0, min(start + size, begin) - max(start, EDGE)) for start, size in reads)
        looked = sum(max(0, min(start + size, EDGE) - start) for start, size in reads if start < EDGE)
        yield at_most(
            "S8",
            f"bytes of {source.suffix[1:]} read by a restart before its row, beside the fingerprint's {EDGE >> 20} MiB",
            before,
            0,
            unit="bytes",
            skipped_bytes=begin,
            file_bytes=source.stat().st_size,
            read_of_the_first_edge_bytes=looked,
        )


def _stop_half_way(bench: Bench, source: Path) -> int:
    """Load until half of the rows are committed, and return the byte at which the next row, or its group, begins."""
    names = ["run", str(source), "--task-id", source.name, "--chroma", str(bench.fresh("resume"))]
    options = ["--model-path", str(bench.tiny_model), "--batch-size", str(GROUP_ROWS), "-q"]
    with subprocess.Popen(bench.command(*names, *options), stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + LONGEST
        while _position(bench, source)["row"] < ROWS // 2 and process.poll() is None and time.monotonic() < until:
            time.sleep(STEP)
        process.send_signal(signal.SIGTERM)  # a shell's background job ignores SIGINT
    position = _position(bench, source)
    return int(position["offset"]) if source.suffix == ".jsonl" else _group_start(source, int(position["row"]))


def _position(bench: Bench, source: Path) -> dict[str, Any]:
    """Return the position in the checkpoint file: the byte at which the next row begins."""
    from upsert_cli.journal.progress import read_checkpoint

    checkpoint = read_checkpoint(bench.folder / "journal" / "active" / f"{source.name}.progress")
    return checkpoint.position if checkpoint is not None else {"row": 0, "offset": 0}


def _group_start(source: Path, row: int) -> int:
    code = (
        "import sys, pyarrow.parquet as pq\nmetadata = pq.ParquetFile(sys.argv[1]).metadata\nrow, group = int(sys.argv[2]), 0\n"
        "while row >= metadata.row_group(group).num_rows:\n    row -= metadata.row_group(group).num_rows\n    group += 1\n"
        "columns = [metadata.row_group(group).column(place) for place in range(metadata.num_columns)]\n"
        "print(min(column.dictionary_page_offset or column.data_page_offset for column in columns))"
    )
    return int(cost_of(python("-c", code, str(source), str(row))).out)


def _reads(log: Path, source: Path) -> Iterator[tuple[int, int]]:
    """Yield where each read of the source began, and how many bytes it got."""
    at: dict[tuple[str, str], int] = {}
    with log.open(errors="replace") as lines:
        for line in lines:
            found = _CALL.search(line)
            if found is None or found[3] != str(source) or int(found[5]) < 0:
                continue
            name, descriptor, result = found[1], (line.split()[0], found[2]), int(found[5])
            if name == "lseek":
                at[descriptor] = result
            elif name == "pread64":
                yield int(found[4].rpartition(",")[2]), result
            else:
                start = at.get(descriptor, 0)
                at[descriptor] = start + result
                yield start, result


def _write(path: Path) -> None:
    with path.open("w") as file:
        for number in range(ROWS):
            # Not compressible to nothing, or the Parquet file would be as small as the fingerprint's edges.
            blob = "".join(f"{(number * 7_919 + place * 104_729) % 1_000_003:x}" for place in range(BYTES // 5))
            payload = {"text": f"text {number}", "blob": blob}
            file.write(json.dumps({"object_id": f"row-{number}", "payload": payload}) + "\n")


MEASURES = {"S8": resuming}
