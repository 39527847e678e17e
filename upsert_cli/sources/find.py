"""The files that a user names: by a path, a folder, a glob, a pipe, standard input, an address, or a collection."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeAlias

from upsert_cli.errors import UsageFault
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.addresses import is_address, shown_address, source_name
from upsert_cli.sources.folders import identity_of, locate, valid_unicode
from upsert_cli.sources.formats import COLLECTION_FORMAT, KNOWN_SUFFIXES, STDIN, format_name_of, is_collection
from upsert_cli.sources.remote import FilePath, RemoteFile
from upsert_cli.sources.source import CollectionReader, FoundFile, no_collections
from upsert_cli.sources.source_faults import unknown_format
from upsert_cli.sources.tree import Tree, is_partition

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
    """Return the files that `names` stand for, in the order of the names and sorted in folders; each file once.

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

    def find(self, name: str) -> Iterator[_Found]:
        """Yield the files of a name."""
        if name == STDIN:
            format_name = self.format_name or PIPE_FORMAT
            yield STDIN, FoundFile(name=STDIN, path=Path(STDIN), format=format_name, spooled=True)
        elif is_collection(name):
            reader = self.collection_at(name)
            yield reader, FoundFile(name=valid_unicode(name), path=reader, format=COLLECTION_FORMAT)
        elif isinstance(found := self._located(name), Tree):
            yield from self._files_in(found)
        else:
            yield self._file(found)

    def _located(self, name: str) -> FilePath | Tree:
        if not is_address(name):
            return locate(name)
        from upsert_cli.sources.object_tree import locate_address  # late: local files do not need it

        return locate_address(name, retry_for=self.retry_for)

    def _file(self, path: FilePath) -> _Found:
        return self._remote_file(path) if isinstance(path, RemoteFile) else self._local_file(path)

    def _local_file(self, path: Path) -> _Found:
        identity, is_pipe = identity_of(path)
        name = valid_unicode(str(path))
        format_name = self.format_name or format_name_of(path) or (PIPE_FORMAT if is_pipe else None)
        if format_name is None:
            raise unknown_format(name, path=path)
        return identity, FoundFile(name=name, path=path.absolute(), format=format_name, spooled=is_pipe)

    def _remote_file(self, file: RemoteFile) -> _Found:
        format_name = self.format_name or format_name_of(PurePath(shown_address(file.address)))
        if format_name is None:
            raise unknown_format(shown_address(file.address))
        name = source_name(file.address)  # the same file, even if its address is signed twice
        return name, FoundFile(name=name, path=file, format=format_name)

    def _files_in(self, tree: Tree) -> Iterator[_Found]:
        """Yield the files in a tree that have a known suffix, or that may have the given format."""
        is_empty = True
        partitions: dict[str, None] = {}  # in the order of their discovery
        for path, is_matched in tree.files():
            if self._may_be_read(PurePath(path[-1]), is_matched=is_matched):
                partitions |= dict.fromkeys(filter(is_partition, path[:-1]))
                if (file := tree.file_at(path)) is not None:
                    is_empty = False
                    yield self._file(file)
        if is_empty:
            looked_for = f"looked for {', '.join(KNOWN_SUFFIXES)}"
            if tree.skipped:
                looked_for += f", but not in {_hidden(len(tree.skipped))}"
            raise UsageFault(message=f"{tree.name} holds no file of items; {looked_for}")
        if tree.skipped:
            self.report(f"{tree.name}: skipped {_hidden(len(tree.skipped))}")
        if partitions:
            examples = ", ".join(f"`{part}`" for part in [*partitions][:SHOWN_PARTITIONS])
            more = ", ..." if len(partitions) > SHOWN_PARTITIONS else ""
            self.report(f"{tree.name}: the values in names of folders, such as {examples}{more}, are not stored")

    def _may_be_read(self, file: PurePath, *, is_matched: bool) -> bool:
        """Check whether a file in a folder, or a match of a glob, has a known format.

        With a format given, a folder also stands for its files without a suffix, and a glob for all its matches.
        """
        return bool(format_name_of(file) or (self.format_name and (is_matched or not file.suffix)))


def _hidden(count: int) -> str:
    those = "file or folder whose name begins" if count == 1 else "files or folders whose names begin"
    return f"{count:,} {those} with `_` or `.`"
