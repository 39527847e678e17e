"""Names as the user gives them, as files: a file, a folder, a glob, a pipe, standard input, or an address."""

from __future__ import annotations

import glob
import os
import shlex
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeAlias

from upsert_cli.errors import SourceUnreadable, UsageFault
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.addresses import WEB_SCHEMES, is_address, scheme_of, shown, source_name, why_refused
from upsert_cli.sources.folders import DiskTree, FolderSearch, TreePath, inaccessible, status_of, valid_unicode
from upsert_cli.sources.formats import KNOWN_SUFFIXES, format_name_of
from upsert_cli.sources.remote import FilePath, RemoteFile
from upsert_cli.sources.unreadable import HEAD, kind_of_file, why_unreadable

STDIN = "-"
PIPE_FORMAT = "jsonl"  # of standard input, and of pipes without a suffix, unless another is given


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A file that the user named, not yet opened."""

    name: str
    """As the user would name it, in valid Unicode: `data/a.jsonl`, or `-` for standard input."""

    path: FilePath
    """Absolute; the file to open."""

    format: str
    """A key of `formats.SUFFIXES`."""

    needs_spool: bool = False
    """It can be read only once."""


_Found: TypeAlias = tuple[Hashable, FoundFile]
"""A file, and a value that is equal for the same file under another name."""

_Report: TypeAlias = Callable[[str], object]


def find_files(
    names: Sequence[str], *, given: str | None = None, retry_for: float = RETRY_FOR, report: _Report = lambda _: None
) -> list[FoundFile]:
    """Return the files that `names` stand for, in their order; those of folders and globs sorted; each file once.

    Args:
        names: Files, folders, globs, pipes, addresses; `-` is standard input.
        given: The format that the user specified, which overrides suffixes.
        retry_for: How long to repeat a request that fails, in seconds.
        report: Called with notes about folders and globs, such as how many files were skipped.

    Raises:
        UsageFault: A name stands for nothing that can be read.
        Refusal: A folder belongs to a table whose log says which of its files are valid.
        SourceUnreadable: A file or folder cannot be accessed.
    """
    found: dict[Hashable, FoundFile] = {}
    for name in names:
        if name == STDIN:
            stdin = FoundFile(name=STDIN, path=Path(STDIN), format=given or PIPE_FORMAT, needs_spool=True)
            found.setdefault(STDIN, stdin)
        else:
            files = _remote(name, given, retry_for, report) if is_address(name) else _local(name, given, report)
            for identity, file in files:
                found.setdefault(identity, file)
    return list(found.values())


def not_found(name: str) -> UsageFault:
    """Return the error for a name of nothing."""
    return UsageFault(message=f"{name} does not exist; name a file, a folder or a glob, or `-` for standard input")


# -- on this machine ----------------------------------------------------------------------------------------------


def _local(name: str, given: str | None, report: _Report) -> Iterator[_Found]:
    """Yield the files of a name, which is a glob only if there is no file of this name, since it may contain stars."""
    if not name:  # for Path that is the current folder, for a user it is a shell variable that was not set
        raise not_found("''")
    path = Path(name)
    files: Iterable[tuple[TreePath, bool]]
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if not glob.has_magic(name):
            raise not_found(valid_unicode(name)) from None
        fixed, pattern = _divided(path.parts)
        tree = DiskTree(Path(*fixed))
        search = FolderSearch(tree)
        files = search.matching(pattern)
    except ValueError:  # NUL, or a name that no file system can encode
        raise not_found(ascii(name)) from None
    except OSError as error:
        raise inaccessible(path, error) from error
    else:
        if not stat.S_ISDIR(status.st_mode):
            yield _identified(path, status, given)
            return
        tree = DiskTree(path)
        search = FolderSearch(tree)
        files = ((file, False) for file in search.below())
    is_empty = True
    for found in _wanted(tree, search, files, given):
        is_empty = False
        yield found
    if is_empty:
        raise _no_files(valid_unicode(name), search)
    _report_notes(search, valid_unicode(name), report)


def _wanted(
    tree: DiskTree, search: FolderSearch, files: Iterable[tuple[TreePath, bool]], given: str | None
) -> Iterator[_Found]:
    """Yield the regular files that have a known suffix, or may have the given format: a pipe would block."""
    for parts, is_matched in files:
        path = tree.path(parts)
        # With a format given, a folder also stands for its files without a suffix, and a glob for all that it matches.
        if format_name_of(path) or (given and (is_matched or not path.suffix)):
            search.add_partitions(parts[:-1])
            if (status := status_of(path)) is not None and stat.S_ISREG(status.st_mode):
                yield _identified(path, status, given)


def _identified(path: Path, status: os.stat_result, given: str | None) -> _Found:
    name = valid_unicode(str(path))
    is_pipe = stat.S_ISFIFO(status.st_mode)
    if not is_pipe and not stat.S_ISREG(status.st_mode):
        raise SourceUnreadable(name=name, reason="neither a file nor a folder nor a pipe")
    format_name = given or format_name_of(path) or (PIPE_FORMAT if is_pipe else None)
    if format_name is None:
        raise _unknown_format(name, content=_content(path))
    file = FoundFile(name=name, path=path.absolute(), format=format_name, needs_spool=is_pipe)
    return (status.st_dev, status.st_ino), file


def _content(path: Path) -> str | None:
    """Return the kind of a file by its first bytes, with a remedy."""
    try:
        with path.open("rb") as file:
            found = kind_of_file(file.read(HEAD))
    except OSError:  # that it has no suffix is the first thing to correct
        return None
    return None if found is None else "; ".join(found).replace("FILE", shlex.quote(str(path)))


# -- at an address ------------------------------------------------------------------------------------------------


def _remote(address: str, given: str | None, retry_for: float, report: _Report) -> Iterator[_Found]:
    """Yield the files of an address: a file, or in an object store also a folder or a glob."""
    if (reason := why_refused(address)) is not None:
        raise UsageFault(message=f"the address {shown(address)} cannot be read: {reason}")
    from upsert_cli.sources.object_stores import ObjectTree, is_object  # late: local files do without

    try:
        if scheme_of(address) in WEB_SCHEMES or is_object(address, retry_for=retry_for):
            if (file := _at_address(address, given, retry_for)) is None:
                raise _unknown_format(shown(address), content=None)
            yield file.name, file  # also once if it is signed twice
            return
        fixed, pattern = _divided(address.rstrip("/").split("/"))
        tree = ObjectTree("/".join(fixed), retry_for=retry_for)
    except FileNotFoundError as error:
        raise not_found(shown(address)) from error
    except OSError as error:
        raise SourceUnreadable(name=shown(address), reason=why_unreadable(error)) from error
    search = FolderSearch(tree)
    paths = [path for path, _ in search.matching(pattern)] if pattern else search.below()
    is_empty = True
    for path in sorted(paths, key=tree.address):
        if (file := _at_address(tree.address(path), given, retry_for)) is not None:
            is_empty = False
            search.add_partitions(path[:-1])
            yield file.name, file
    if is_empty:
        raise _no_files(shown(address), search)
    _report_notes(search, shown(address), report)


def _at_address(address: str, given: str | None, retry_for: float) -> FoundFile | None:
    """Return the file at an address, or None if its format is unknown."""
    format_name = given or format_name_of(PurePath(shown(address)))
    if format_name is None:
        return None
    return FoundFile(name=source_name(address), path=RemoteFile(address, retry_for), format=format_name)


# -- names and errors ---------------------------------------------------------------------------------------------


def _divided(parts: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the parts of a name before the first one that is a pattern, and the others."""
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return parts[:fixed], parts[fixed:]


def _report_notes(search: FolderSearch, name: str, report: _Report) -> None:
    for note in search.notes(name):
        report(note)


def _no_files(name: str, search: FolderSearch) -> UsageFault:
    looked_for = f"looked for {', '.join(KNOWN_SUFFIXES)}"
    if search.skipped:
        looked_for += f", but not in {search.skipped:,} files or folders whose names begin with `_` or `.`"
    return UsageFault(message=f"{name} holds no file of items; {looked_for}")


def _unknown_format(name: str, *, content: str | None) -> UsageFault:
    """Return the error for an unknown suffix; `content` is the kind of the file by its first bytes, with a remedy."""
    if content is not None:
        return UsageFault(message=f"{name} has no suffix that tells its format; it is {content}")
    hint = "; `jq -c '.[]'` converts a JSON array to JSONL" if name.lower().endswith(".json") else ""
    return UsageFault(
        message=f"{name} has none of the suffixes {', '.join(KNOWN_SUFFIXES)}; "
        f"--format says what it is, such as --format jsonl{hint}"
    )
