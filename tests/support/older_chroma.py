"""Folders that older versions of Chroma wrote, and environments of such versions.

`tests/store/older_folders/VERSION.zip` is a folder that VERSION wrote by `SCRIPT`, some 25 KB each; `python -m
tests.support.older_chroma` writes them again. So most tests need no other version of Chroma.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSIONS = ("0.4.24", "0.5.23", "0.6.3", "1.0.20", "1.3.7")
DIMENSION = 384  # numbers of each vector, as of the default model
ROWS = 30  # records of the collection `default`

# Two collections that were never flushed, one with each kind of value; one that was; and one without a record.
SCRIPT = f"""
import sys
import chromadb

client = chromadb.PersistentClient(sys.argv[1])


def vector(row, dimension={DIMENSION}):
    return [1.0 if number == row else 0.25 for number in range(dimension)]


plain = client.create_collection("default", metadata={{"hnsw:space": "cosine"}})
rows = range({ROWS})
plain.upsert(
    ids=[f"o{{row}}" for row in rows], embeddings=[vector(row) for row in rows], documents=[f"text {{row}}" for row in rows]
)
kinds = client.create_collection("kinds", metadata={{"hnsw:space": "cosine", "made by": "me"}})
kinds.upsert(
    ids=["a", "b", "c", "\\u00fc d"],
    embeddings=[vector(row, 3) for row in range(4)],
    metadatas=[
        {{"s": "text", "i": 7, "f": 1.5, "yes": True, "no": False, "big": 2**62, "tiny": 1e-300}},
        {{"one": 1}},
        None,
        {{"\\u00dc": "\\u00f6"}},
    ],
    documents=["one", None, "three", None],
)
kinds.update(ids=["a"], metadatas=[{{"s": "changed", "new": 3}}])
kinds.delete(ids=["b"])
kinds.upsert(ids=["b"], embeddings=[vector(2, 3)], documents=["again"])
client.create_collection("empty")
flushed = client.create_collection("flushed", metadata={{"hnsw:sync_threshold": 10, "hnsw:batch_size": 5}})
for start in range(0, 33, 11):
    rows = range(start, start + 11)
    flushed.upsert(
        ids=[f"r{{row}}" for row in rows],
        embeddings=[vector(row, 40) for row in rows],
        documents=[f"doc {{row}}" for row in rows],
        metadatas=[{{"n": row}} for row in rows],
    )
flushed.delete(ids=["r3"])
"""

_ZIPS = Path(__file__).parent.parent / "store" / "older_folders"


def older_folder(version: str, folder: Path) -> Path:
    """Fill a new folder with the files that a version wrote, and return it."""
    with zipfile.ZipFile(_ZIPS / f"{version}.zip") as files:
        files.extractall(folder)
    return folder


def content_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the files and folders below a folder, each with a digest and the time of its last change."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mtime_ns,
        )
        for path in [folder, *folder.rglob("*")]
    }


def python_with(version: str, cache: Path) -> Path:
    """Return the Python of an environment that has a version of Chroma; it is made once a machine, in 10 to 20 s."""
    environment = cache / f"chroma-{version}"
    python = environment / "bin" / "python"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers of pytest may want it
        if not (environment / "made").exists():
            subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
            if (uv := shutil.which("uv")) is None:  # pip would take a minute and a half
                subprocess.run([str(python), "-m", "pip", "install", "-q", "uv"], check=True)
                uv = str(python.with_name("uv"))
            numpy = ["numpy<2"] if version.startswith("0.") else []
            command = [uv, "pip", "install", "-q", "-p", str(python), f"chromadb=={version}", *numpy]
            # As pip does, it trusts the certificates of the machine, to which a company may have added its own.
            subprocess.run(command, check=True, env=os.environ | {"UV_SYSTEM_CERTS": "1"})
            (environment / "made").touch()
    return python


def write_folder(python: Path, folder: Path) -> None:
    """Write a folder by another version of Chroma."""
    subprocess.run([str(python), "-c", SCRIPT, str(folder)], check=True, capture_output=True, timeout=300)


def _write_zips(cache: Path) -> None:
    for version in VERSIONS:
        with tempfile.TemporaryDirectory() as name:
            write_folder(python_with(version, cache), Path(name))
            with zipfile.ZipFile(_ZIPS / f"{version}.zip", "w", zipfile.ZIP_LZMA) as files:
                for path in sorted(Path(name).rglob("*")):
                    if path.is_file():
                        files.write(path, path.relative_to(name))


if __name__ == "__main__":
    _write_zips(Path(sys.argv[1]))
