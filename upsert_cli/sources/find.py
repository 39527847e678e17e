"""Names as the user gives them, as files: a file, a folder, a glob, a pipe, standard input, or an address."""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeAlias

from upsert_cli.errors import SourceUnreadable, UsageFault, reason_of
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.addresses import WEB_SCHEMES, is_address, scheme_of, shown, source_name, why_refused
from upsert_cli.sources.folders import DiskTree, Tree, TreePath, status_of, valid_unicode
from upsert_cli.sources.formats import (
    COLLECTION_FORMAT,
    KNOWN_SUFFIXES,
    STDIN,
    format_name_of,
    is_collection,
    unknown_format,
)
from upsert_cli.sources.remote import RemoteFile
from upsert_cli.sources.source import CollectionReader, FoundFile, no_collections, not_found

SHOWN_PARTITIONS = 3  # folders in a message
PIPE_FORMAT = "jsonl"  # of standard input, and of pipes without a suffix, unless another is given


_Found: TypeAlias = tuple[Hashable, FoundFile]
"""A file, and a value that is equal for the same file under another name."""


def find_files(
    names: Sequence[str],
    *,
    collection_at: Callable[[str], CollectionReader] = no_collections,
    format_name: str | None = None,
    retry_for: float = RETRY_FOR,
    report: Callable[[str], object] = lambda _: None,
) -> list[FoundFile]:
    """Return the files that `names` stand for, in their order; those of folders and globs sorted; each file once.

    Args:
        names: Files, folders, globs, pipes, addresses, collections; `-` is standard input.
        collection_at: Returns the reader of a collection by its address.
        format_name: The format that the user specified, which overrides suffixes.
        retry_for: How long to repeat a request that fails, in seconds.
        report: Called with notes about folders and globs, such as how many files were skipped.

    Raises:
        UsageFault: A name stands for nothing that can be read.
        Refusal: A folder belongs to a table whose log says which of its files are valid.
        SourceUnreadable: A file or folder cannot be accessed.
    """
    finder = _Finder(format_name, retry_for, report)
    found: dict[Hashable, FoundFile] = {}
    for name in names:
        if name == STDIN:
            stdin = FoundFile(name=STDIN, path=Path(STDIN), format=format_name or PIPE_FORMAT, spooled=True)
            found.setdefault(STDIN, stdin)
            continue
        if is_collection(name):
            reader = collection_at(name)
            found.setdefault(reader, FoundFile(name=valid_unicode(name), path=reader, format=COLLECTION_FORMAT))
            continue
        for identity, file in finder.remote(name) if is_address(name) else finder.local(name):
            found.setdefault(identity, file)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _Finder:
    """Finds the files of one name."""

    format_name: str | None
    retry_for: float
    report: Callable[[str], object]

    def local(self, name: str) -> Iterator[_Found]:
        """Yield the files of a name, which is a glob only if there is no file of this name, since it may have stars."""
        if not name:  # for Path that is the current folder, for a user it is a shell variable that was not set
            raise not_found("''")
        path = Path(name)
        try:
            status = status_of(path, absent=(errno.ENOENT, errno.ENOTDIR))
        except ValueError:  # NUL, or a name that no file system can encode
            raise not_found(ascii(name)) from None
        if status is not None and not stat.S_ISDIR(status.st_mode):
            yield self._identified(path, status)
        elif status is not None or glob.has_magic(name):
            fixed, pattern = (path.parts, ()) if status is not None else _divided(path.parts)
            tree = DiskTree(Path(*fixed))
            yield from self._below(valid_unicode(name), tree, pattern, lambda parts: self._regular(tree.path(parts)))
        else:
            raise not_found(valid_unicode(name))

    def _regular(self, path: Path) -> _Found | None:
        """Return a regular file of this machine, or None for any other: a pipe would block."""
        status = status_of(path)
        return self._identified(path, status) if status is not None and stat.S_ISREG(status.st_mode) else None

    def _identified(self, path: Path, status: os.stat_result) -> _Found:
        name = valid_unicode(str(path))
        is_pipe = stat.S_ISFIFO(status.st_mode)
        if not is_pipe and not stat.S_ISREG(status.st_mode):
            raise SourceUnreadable(name=name, reason="neither a file nor a folder nor a pipe")
        format_name = self.format_name or format_name_of(path) or (PIPE_FORMAT if is_pipe else None)
        if format_name is None:
            raise unknown_format(name, path=path)
        file = FoundFile(name=name, path=path.absolute(), format=format_name, spooled=is_pipe)
        return (status.st_dev, status.st_ino), file

    def remote(self, address: str) -> Iterator[_Found]:
        """Yield the files of an address: a file, or in an object store also a folder or a glob."""
        if (reason := why_refused(address)) is not None:
            raise UsageFault(message=f"the address {shown(address)} cannot be read: {reason}")
        from upsert_cli.sources.object_stores import ObjectTree, is_object  # late: local files do without

        try:
            if scheme_of(address) in WEB_SCHEMES or is_object(address, retry_for=self.retry_for):
                yield self._at_address(address)
                return
            fixed, pattern = _divided(address.rstrip("/").split("/"))
            tree = ObjectTree("/".join(fixed), retry_for=self.retry_for)
        except FileNotFoundError as error:
            raise not_found(shown(address)) from error
        except OSError as error:
            raise SourceUnreadable(name=shown(address), reason=reason_of(error)) from error
        found = self._below(shown(address), tree, pattern, lambda path: self._at_address(tree.address(path)))
        yield from sorted(found, key=lambda each: str(each[1].path))

    def _at_address(self, address: str) -> _Found:
        format_name = self.format_name or format_name_of(PurePath(shown(address)))
        if format_name is None:
            raise unknown_format(shown(address))
        name = source_name(address)  # one file, even if it is signed twice
        return name, FoundFile(name=name, path=RemoteFile(address, self.retry_for), format=format_name)

    def _below(
        self, name: str, tree: Tree, pattern: Sequence[str], file_at: Callable[[TreePath], _Found | None]
    ) -> Iterator[_Found]:
        """Yield the files in a tree that have a known suffix, or that may have the given format."""
        is_empty = True
        partitions: dict[str, None] = {}
        for path, is_matched in tree.files(pattern):
            file = PurePath(path[-1])
            # With a format given, a folder stands also for files without a suffix, and a glob for all that it matches.
            if format_name_of(file) or (self.format_name and (is_matched or not file.suffix)):
                partitions |= {part: None for part in path[:-1] if part.strip("_").partition("=")[1]}
                if (found := file_at(path)) is not None:
                    is_empty = False
                    yield found
        if is_empty:
            looked_for = f"looked for {', '.join(KNOWN_SUFFIXES)}"
            if tree.skipped:
                looked_for += f", but not in {_hidden(len(tree.skipped))}"
            raise UsageFault(message=f"{name} holds no file of items; {looked_for}")
        for note in _notes(len(tree.skipped), [*partitions]):
            self.report(f"{name}: {note}")


def _notes(skipped: int, partitions: Sequence[str]) -> Iterator[str]:
    """Yield what the user should know about a search: how much was skipped, and which values are lost."""
    if skipped:
        yield f"skipped {_hidden(skipped)}"
    if partitions:
        examples = ", ".join(f"`{part}`" for part in partitions[:SHOWN_PARTITIONS])
        more = ", ..." if len(partitions) > SHOWN_PARTITIONS else ""
        yield f"the values in names of folders, such as {examples}{more}, are not stored"


def _hidden(count: int) -> str:
    those = "file or folder whose name begins" if count == 1 else "files or folders whose names begin"
    return f"{count:,} {those} with `_` or `.`"


def _divided(parts: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the parts of a name before the first one that is a pattern, and the others."""
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return parts[:fixed], parts[fixed:]
