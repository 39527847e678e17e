"""What the user names -> the files it stands for: a file, a folder, a glob, a pipe, standard input."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import shlex
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeAlias

from upsert_cli.errors import NoItemFiles, SourceNotFound, SourceUnreadable, UnknownFormat
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.addresses import is_address, shown, source_name
from upsert_cli.sources.foreign import HEAD, what_it_is
from upsert_cli.sources.formats import why_unreadable
from upsert_cli.sources.listing import ICEBERG_FOLDER, Listing, is_named, refuse_table
from upsert_cli.sources.remote import Place, remote_files
from upsert_cli.sources.suffixes import KNOWN_SUFFIXES, format_of

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


def find_files(
    names: Sequence[str],
    *,
    given: str | None = None,
    retry_for: float = RETRY_FOR,
    report: Callable[[str], object] = lambda _: None,
) -> list[FoundFile]:
    """Returns the files that `names` stand for, in their order; folders and globs sorted; each file once.

    Args:
        names: Files, folders, globs, pipes, addresses; `-` is standard input.
        given: The format that the user says they have, whatever their suffixes.
        retry_for: How long to repeat a request for an address that fails, in seconds.
        report: Called with what the user should know about a folder or a glob, such as what was skipped in it.

    Raises:
        SourceNotFound: A name stands for nothing.
        NoItemFiles: A folder or a glob holds nothing that we can read.
        TableFolder: A folder is that of a table whose log says which of its files are valid.
        UnknownFormat: A file was named whose suffix we do not know.
        BadAddress: An address is none that we can read.
        SourceUnreadable: A file or folder cannot be looked at.
    """
    found: dict[tuple[int, int] | str, FoundFile] = {}
    for name in names:
        if name == STDIN:
            found.setdefault(STDIN, _stdin(given))
            continue
        listing = Listing()
        if is_address(name):
            for remote in _remote(name, given, retry_for, listing):
                found.setdefault(remote.name, remote)  # also if it is signed twice
        else:
            for file, status in _Finder(given, listing).named(name):
                # Once, by whatever link or spelling it is named.
                found.setdefault((status.st_dev, status.st_ino), file)
        for note in listing.notes(shown(name) if is_address(name) else valid_unicode(name)):
            report(note)
    return list(found.values())


def valid_unicode(name: str) -> str:
    r"""Returns a file name as text that can be encoded; bytes that are not UTF-8 become `\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# -- one name -----------------------------------------------------------------------------------------------------


def _stdin(given: str | None) -> FoundFile:
    return FoundFile(name=STDIN, path=Path(STDIN), format=given or PIPE_FORMAT, needs_spool=True)


def _remote(address: str, given: str | None, retry_for: float, listing: Listing) -> Iterator[FoundFile]:
    """Finds what an address stands for; what was not named itself counts where its suffix is known."""
    found = False
    try:
        for place in remote_files(address, listing, retry_for=retry_for):
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
        raise NoItemFiles(name=shown(address), known=KNOWN_SUFFIXES, skipped=listing.skipped)


@dataclass(frozen=True, slots=True)
class _Finder:
    """Finds the files that one name stands for."""

    given: str | None
    """The format that the user says they have."""

    listing: Listing

    def named(self, name: str) -> Iterator[_Found]:
        """Yield the files of a name: first as it is, since brackets and stars may be part of a file's name."""
        if not name:  # for Path that is the current folder, for a user it is a shell variable that was not set
            raise SourceNotFound(name="''")
        try:
            status = Path(name).stat()
        except (FileNotFoundError, NotADirectoryError):
            if not glob.has_magic(name):
                raise SourceNotFound(name=valid_unicode(name)) from None
            yield from self._some(name, self._in_glob(name))
        except ValueError:  # NUL, or what no file system can encode
            raise SourceNotFound(name=ascii(name)) from None
        except OSError as error:
            raise _unreadable(name, error) from error
        else:
            path = Path(name)
            if stat.S_ISDIR(status.st_mode):
                yield from self._some(name, self._in_folder(path))
            else:
                yield self._file(path, status), status

    def _file(self, path: Path, status: os.stat_result) -> FoundFile:
        name = valid_unicode(str(path))
        is_pipe = stat.S_ISFIFO(status.st_mode)
        if not is_pipe and not stat.S_ISREG(status.st_mode):
            raise SourceUnreadable(name=name, reason="neither a file nor a folder nor a pipe")
        kind = self.given or format_of(path) or (PIPE_FORMAT if is_pipe else None)
        if kind is None:
            raise UnknownFormat(name=name, known=KNOWN_SUFFIXES, content=_content(path))
        return FoundFile(name=name, path=path.absolute(), format=kind, needs_spool=is_pipe)

    def _some(self, name: str, files: Iterator[_Found]) -> Iterator[_Found]:
        first = next(files, None)
        if first is None:
            raise NoItemFiles(name=valid_unicode(name), known=KNOWN_SUFFIXES, skipped=self.listing.skipped)
        yield first
        yield from files

    def _in_folder(self, top: Path) -> Iterator[_Found]:
        """Yield the files of items below a folder, sorted, also behind symbolic links."""
        for folder, names in self._walk(top):
            for name in names:
                path = folder / name
                if format_of(path) or (self.given and not path.suffix):  # with a format given, also without a suffix
                    self.listing.add_partitions(folder.relative_to(top))
                    yield from self._if_file(path)

    def _walk(self, top: Path) -> Iterator[tuple[Path, list[str]]]:
        """Yield each folder of data once, with the names of its files of data, sorted."""
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
            metadata = _names(path / ICEBERG_FOLDER) if ICEBERG_FOLDER in folders else ()
            refuse_table(valid_unicode(folder), folders, metadata=metadata)
            kept = self.listing.kept(path, sorted(folders), are_folders=True)
            folders[:] = [name for name in kept if is_new(path / name)]
            yield path, self.listing.kept(path, sorted(files), are_folders=False)

    def _in_glob(self, pattern: str) -> Iterator[_Found]:
        parts = Path(pattern).parts
        fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
        top = Path(*parts[:fixed])
        for path in self._matches(top, parts[fixed:]):
            status = _status(path)
            if status and stat.S_ISDIR(status.st_mode):
                self.listing.add_partitions(path.relative_to(top))
                yield from self._in_folder(path)
            elif self.given or format_of(path):
                self.listing.add_partitions(path.parent.relative_to(top))
                yield from self._if_file(path)

    def _matches(self, folder: Path, pattern: Sequence[str]) -> Iterator[Path]:
        """Yield what a glob stands for; the standard library's never comes back from two links that go in circles."""
        if not pattern or (status := _status(folder)) is None or not stat.S_ISDIR(status.st_mode):
            yield from [] if pattern else [folder]
        elif pattern[0] == "**":
            for below, _ in self._walk(folder) if pattern[1:] else [(folder, [])]:
                yield from self._matches(below, pattern[1:])
        elif glob.has_magic(pattern[0]):
            for name in sorted(_names(folder)):
                if fnmatch.fnmatchcase(name, pattern[0]) and self._is_meant(folder / name, pattern[0]):
                    yield from self._matches(folder / name, pattern[1:])
        else:
            yield from self._matches(folder / pattern[0], pattern[1:])

    def _is_meant(self, path: Path, pattern: str) -> bool:
        """Tell whether a glob stands for what it matches: for what is no data only if it says so, as `_*` does."""
        return is_named(path.name, pattern) or bool(
            self.listing.kept(path.parent, [path.name], are_folders=path.is_dir())
        )

    def _if_file(self, path: Path) -> Iterator[_Found]:
        """Take what was found but not named: only what is a file, since a pipe would block."""
        if (status := _status(path)) is not None and stat.S_ISREG(status.st_mode):
            yield self._file(path, status), status


def _content(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            found = what_it_is(file.read(HEAD))
    except OSError:  # that it has no suffix is the first thing to correct
        return None
    return None if found is None else "; ".join(found).replace("FILE", shlex.quote(str(path)))


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError as error:
        raise _unreadable(str(folder), error) from error


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
