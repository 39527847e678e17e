"""What the user names -> the files it stands for: a file, a folder, a glob, a pipe, standard input."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeAlias

from upsert_cli.errors import NoItemFiles, SourceNotFound, SourceUnreadable, UnknownFormat
from upsert_cli.stream.chroma.patience import RETRY_FOR
from upsert_cli.stream.sources.addresses import is_address, shown, source_name
from upsert_cli.stream.sources.foreign import HEAD, what_it_is
from upsert_cli.stream.sources.formats import why_unreadable
from upsert_cli.stream.sources.remote import Place, remote_files
from upsert_cli.stream.sources.suffixes import KNOWN_SUFFIXES, format_of

STDIN = "-"
PIPE_FORMAT = "jsonl"  # of standard input, and of pipes without a suffix, unless another is given

_DANGLING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # of links that lead nowhere, or around in a circle


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A file that the user named, not yet opened."""

    name: str
    """As the user would name it, in valid Unicode: `data/a.jsonl`, or `-` for standard input."""

    path: Place
    """Absolute; what is opened."""

    format: str
    """A key of `FORMATS`."""

    needs_spool: bool = False
    """It can be read only once."""


_Found: TypeAlias = tuple[FoundFile, os.stat_result]


def find_files(names: Sequence[str], *, given: str | None = None, retry_for: float = RETRY_FOR) -> list[FoundFile]:
    """Returns the files that `names` stand for, in their order; folders and globs sorted; each file once.

    Args:
        names: Files, folders, globs, pipes, addresses; `-` is standard input.
        given: The format that the user says they have, whatever their suffixes.
        retry_for: How long to repeat a request for an address that fails, in seconds.

    Raises:
        SourceNotFound: A name stands for nothing.
        NoItemFiles: A folder or a glob holds nothing that we can read.
        UnknownFormat: A file was named whose suffix we do not know.
        BadAddress: An address is none that we can read.
        SourceUnreadable: A file or folder cannot be looked at.
    """
    found: dict[tuple[int, int] | str, FoundFile] = {}
    for name in names:
        if name == STDIN:
            found.setdefault(STDIN, _stdin(given))
            continue
        if is_address(name):
            for remote in _remote(name, given, retry_for):
                found.setdefault(remote.name, remote)  # also if it is signed twice
            continue
        for file, status in _named(name, given):
            # Once, by whatever link or spelling it is named.
            found.setdefault((status.st_dev, status.st_ino), file)
    return list(found.values())


def valid_unicode(name: str) -> str:
    r"""Returns a file name as text that can be encoded; bytes that are not UTF-8 become `\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# -- one name -----------------------------------------------------------------------------------------------------


def _stdin(given: str | None) -> FoundFile:
    return FoundFile(name=STDIN, path=Path(STDIN), format=given or PIPE_FORMAT, needs_spool=True)


def _remote(address: str, given: str | None, retry_for: float) -> Iterator[FoundFile]:
    """Finds what an address stands for; what was not named itself counts where its suffix is known."""
    found = False
    try:
        for place in remote_files(address, retry_for=retry_for):
            kind = given or format_of(PurePath(shown(place.address)))
            if kind is not None:
                found = True
                yield FoundFile(name=source_name(place.address), path=place, format=kind)
            elif place.address == address:
                raise UnknownFormat(name=shown(address), known=KNOWN_SUFFIXES, content=None)
    except FileNotFoundError as error:
        raise SourceNotFound(name=shown(address)) from error
    except OSError as error:
        raise SourceUnreadable(name=shown(address), reason=why_unreadable(error)) from error
    if not found:
        raise NoItemFiles(name=shown(address), known=KNOWN_SUFFIXES)


def _named(name: str, given: str | None) -> Iterator[_Found]:
    """Finds what one name stands for: first as it is, since brackets and stars may be part of a file's name."""
    if not name:  # for Path that is the current folder, for a user it is a shell variable that was not set
        raise SourceNotFound(name="''")
    try:
        status = Path(name).stat()
    except (FileNotFoundError, NotADirectoryError):
        if not glob.has_magic(name):
            raise SourceNotFound(name=valid_unicode(name)) from None
        yield from _some(name, _in_glob(name, given))
    except ValueError:  # NUL, or what no file system can encode
        raise SourceNotFound(name=ascii(name)) from None
    except OSError as error:
        raise _unreadable(name, error) from error
    else:
        path = Path(name)
        if stat.S_ISDIR(status.st_mode):
            yield from _some(name, _in_folder(path, given))
        else:
            yield _file(path, status, given), status


def _file(path: Path, status: os.stat_result, given: str | None) -> FoundFile:
    name = valid_unicode(str(path))
    is_pipe = stat.S_ISFIFO(status.st_mode)
    if not is_pipe and not stat.S_ISREG(status.st_mode):
        raise SourceUnreadable(name=name, reason="neither a file nor a folder nor a pipe")
    kind = given or format_of(path) or (PIPE_FORMAT if is_pipe else None)
    if kind is None:
        raise UnknownFormat(name=name, known=KNOWN_SUFFIXES, content=_content(path))
    return FoundFile(name=name, path=path.absolute(), format=kind, needs_spool=is_pipe)


def _content(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            found = what_it_is(file.read(HEAD))
    except OSError:  # that it has no suffix is the first thing to correct
        return None
    return None if found is None else "; ".join(found).replace("FILE", shlex.quote(str(path)))


def _some(name: str, files: Iterator[_Found]) -> Iterator[_Found]:
    first = next(files, None)
    if first is None:
        raise NoItemFiles(name=valid_unicode(name), known=KNOWN_SUFFIXES)
    yield first
    yield from files


# -- many files ---------------------------------------------------------------------------------------------------


def _in_folder(top: Path, given: str | None) -> Iterator[_Found]:
    """Yields the files of items below a folder, sorted, also behind symbolic links."""
    for folder, names in _walk(top):
        for name in names:
            path = folder / name
            # With a format given, also what has no suffix; `_SUCCESS` and the like are notes of the writer.
            if format_of(path) or (given and not path.suffix and name[0] != "_"):
                yield from _if_file(path, given)


def _walk(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yields each folder once, with the names of its files, sorted; hidden ones are left out."""
    seen: set[tuple[int, int]] = set()

    def is_new(folder: Path) -> bool:
        status = _status(folder)
        if status is None or (status.st_dev, status.st_ino) in seen:
            return False  # a link back up would lead around for ever
        seen.add((status.st_dev, status.st_ino))
        return True

    is_new(top)
    for folder, folders, files in os.walk(top, onerror=_refuse, followlinks=True):
        path = Path(folder)
        folders[:] = [name for name in sorted(folders) if name[0] != "." and is_new(path / name)]
        yield path, [name for name in sorted(files) if name[0] != "."]


def _in_glob(pattern: str, given: str | None) -> Iterator[_Found]:
    parts = Path(pattern).parts
    fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    for path in _matches(Path(*parts[:fixed]), parts[fixed:]):
        status = _status(path)
        if status and stat.S_ISDIR(status.st_mode):
            yield from _in_folder(path, given)
        elif given or format_of(path):
            yield from _if_file(path, given)


def _matches(folder: Path, pattern: Sequence[str]) -> Iterator[Path]:
    """Yields what a glob stands for; the standard library's never comes back from two links that go in circles."""
    if not pattern or (status := _status(folder)) is None or not stat.S_ISDIR(status.st_mode):
        yield from [] if pattern else [folder]
    elif pattern[0] == "**":
        for below, _ in _walk(folder) if pattern[1:] else [(folder, [])]:
            yield from _matches(below, pattern[1:])
    elif glob.has_magic(pattern[0]):
        for name in sorted(_names(folder)):
            if fnmatch.fnmatchcase(name, pattern[0]) and (name[0] != "." or pattern[0][0] == "."):
                yield from _matches(folder / name, pattern[1:])
    else:
        yield from _matches(folder / pattern[0], pattern[1:])


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError as error:
        raise _unreadable(str(folder), error) from error


def _if_file(path: Path, given: str | None) -> Iterator[_Found]:
    """Takes what was found but not named: only what is a file, since a pipe would block."""
    if (status := _status(path)) is not None and stat.S_ISREG(status.st_mode):
        yield _file(path, status, given), status


def _status(path: Path) -> os.stat_result | None:
    """Returns None for a link that leads nowhere."""
    try:
        return path.stat()
    except OSError as error:
        if error.errno in _DANGLING:
            return None
        raise _unreadable(str(path), error) from error


def _refuse(error: OSError) -> None:
    raise _unreadable(str(error.filename), error) from error


def _unreadable(name: str, error: OSError) -> SourceUnreadable:
    return SourceUnreadable(name=valid_unicode(name), reason=why_unreadable(error))
