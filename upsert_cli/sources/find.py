"""Names as the user gives them, as files: a file, a folder, a glob, a pipe, standard input, or an address."""

from __future__ import annotations

import glob
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import stat_result
from pathlib import Path, PurePath
from typing import TypeAlias

from upsert_cli.errors import SourceUnreadable, UsageFault, reason_of
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.addresses import WEB_SCHEMES, is_address, scheme_of, shown, source_name, why_refused
from upsert_cli.sources.folders import MISSING, DiskTree, status_of, valid_unicode
from upsert_cli.sources.formats import COLLECTION_FORMAT, KNOWN_SUFFIXES, STDIN, format_name_of, is_collection
from upsert_cli.sources.found_file import CollectionReader, FoundFile, no_collections
from upsert_cli.sources.remote import RemoteFile
from upsert_cli.sources.source_faults import not_found, unknown_format
from upsert_cli.sources.tree import Tree, TreePath, divided_at_glob, is_partition

SHOWN_PARTITIONS = 3  # folders in a message
PIPE_FORMAT = "jsonl"  # default of standard input, and of pipes without a suffix

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
        Refusal: A folder belongs to a table with a log of its valid files.
        SourceUnreadable: A file or folder cannot be accessed.
    """
    finder = _Finder(collection_at, format_name, retry_for, report)
    found: dict[Hashable, FoundFile] = {}
    for name in names:
        for identity, file in finder.find(name):
            found.setdefault(identity, file)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _Finder:
    """The options of a search; see `find_files`."""

    collection_at: Callable[[str], CollectionReader]
    format_name: str | None
    retry_for: float
    report: Callable[[str], object]

    def find(self, name: str) -> Iterable[_Found]:
        """Return the files of a name."""
        if name == STDIN:
            format_name = self.format_name or PIPE_FORMAT
            return [(STDIN, FoundFile(name=STDIN, path=Path(STDIN), format=format_name, spooled=True))]
        if is_collection(name):
            reader = self.collection_at(name)
            return [(reader, FoundFile(name=valid_unicode(name), path=reader, format=COLLECTION_FORMAT))]
        return self._find_remote(name) if is_address(name) else self._find_local(name)

    # -- on this machine ------------------------------------------------------------------------------------------

    def _find_local(self, name: str) -> Iterator[_Found]:
        """Yield the files of a path or a glob; the name of an existing file is no glob, although it may have stars."""
        if not name:  # for Path the current folder, but for a user a shell variable that was not set
            raise not_found("''")
        path = Path(name)
        try:
            status = status_of(path, absent=MISSING)
        except ValueError:  # NUL, or a name that no file system can encode
            raise not_found(ascii(name)) from None
        if status is None and not glob.has_magic(name):
            raise not_found(valid_unicode(name))
        if status is not None and not stat.S_ISDIR(status.st_mode):
            yield self._local(path, status)
            return
        folder, pattern = divided_at_glob(path.parts) if status is None else (path.parts, ())
        tree = DiskTree(Path(*folder))
        yield from self._below(valid_unicode(name), tree, pattern, lambda parts: self._regular(tree.path(parts)))

    def _regular(self, path: Path) -> _Found | None:
        """Return a regular file, or None for any other: a pipe would block."""
        status = status_of(path)
        return self._local(path, status) if status is not None and stat.S_ISREG(status.st_mode) else None

    def _local(self, path: Path, status: stat_result) -> _Found:
        """Return a file or a pipe."""
        name = valid_unicode(str(path))
        is_pipe = stat.S_ISFIFO(status.st_mode)
        if not is_pipe and not stat.S_ISREG(status.st_mode):
            raise SourceUnreadable(name=name, reason="neither a file nor a folder nor a pipe")
        format_name = self.format_name or format_name_of(path) or (PIPE_FORMAT if is_pipe else None)
        if format_name is None:
            raise unknown_format(name, path=path)
        file = FoundFile(name=name, path=path.absolute(), format=format_name, spooled=is_pipe)
        return (status.st_dev, status.st_ino), file

    # -- on servers -----------------------------------------------------------------------------------------------

    def _find_remote(self, address: str) -> Iterator[_Found]:
        """Yield the files of an address: a file, or in an object store also a folder or a glob."""
        if (reason := why_refused(address)) is not None:
            raise UsageFault(message=f"the address {shown(address)} cannot be read: {reason}")
        from upsert_cli.sources.object_stores import ObjectTree, is_object  # late: local files do without

        try:
            if scheme_of(address) in WEB_SCHEMES or is_object(address, retry_for=self.retry_for):
                yield self._remote(address)
                return
            folder, pattern = divided_at_glob(address.rstrip("/").split("/"))
            tree = ObjectTree("/".join(folder), retry_for=self.retry_for)
        except FileNotFoundError as error:
            raise not_found(shown(address)) from error
        except OSError as error:
            raise SourceUnreadable(name=shown(address), reason=reason_of(error)) from error
        found = self._below(shown(address), tree, pattern, lambda path: self._remote(tree.address(path)))
        yield from sorted(found, key=lambda each: str(each[1].path))

    def _remote(self, address: str) -> _Found:
        """Return the file at an address, which is one file even if it is signed twice."""
        format_name = self.format_name or format_name_of(PurePath(shown(address)))
        if format_name is None:
            raise unknown_format(shown(address))
        name = source_name(address)
        return name, FoundFile(name=name, path=RemoteFile(address, self.retry_for), format=format_name)

    # -- in a tree ------------------------------------------------------------------------------------------------

    def _below(
        self, name: str, tree: Tree, pattern: Sequence[str], file_at: Callable[[TreePath], _Found | None]
    ) -> Iterator[_Found]:
        """Yield the files in a tree that have a known suffix, or that may have the given format."""
        is_empty = True
        partitions: dict[str, None] = {}  # in the order of their discovery
        for path, is_matched in tree.files(pattern):
            if self._may_be_read(PurePath(path[-1]), is_matched=is_matched):
                partitions |= dict.fromkeys(filter(is_partition, path[:-1]))
                if (found := file_at(path)) is not None:
                    is_empty = False
                    yield found
        if is_empty:
            looked_for = f"looked for {', '.join(KNOWN_SUFFIXES)}"
            if tree.skipped:
                looked_for += f", but not in {_hidden(len(tree.skipped))}"
            raise UsageFault(message=f"{name} holds no file of items; {looked_for}")
        if tree.skipped:
            self.report(f"{name}: skipped {_hidden(len(tree.skipped))}")
        if partitions:
            examples = ", ".join(f"`{part}`" for part in [*partitions][:SHOWN_PARTITIONS])
            more = ", ..." if len(partitions) > SHOWN_PARTITIONS else ""
            self.report(f"{name}: the values in names of folders, such as {examples}{more}, are not stored")

    def _may_be_read(self, file: PurePath, *, is_matched: bool) -> bool:
        """Check whether a file in a folder, or one that a glob matches, is in a known format.

        With a format given, a folder also stands for its files without a suffix, and a glob for all that it matches.
        """
        return bool(format_name_of(file) or (self.format_name and (is_matched or not file.suffix)))


def _hidden(count: int) -> str:
    those = "file or folder whose name begins" if count == 1 else "files or folders whose names begin"
    return f"{count:,} {those} with `_` or `.`"
