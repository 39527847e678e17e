"""The search for files at an address: one file, or in an object store also a folder or a glob."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from upsert_cli.errors import SourceUnreadable, UsageFault, reason_of
from upsert_cli.sources.addresses import WEB_SCHEMES, scheme_of, shown_address, why_refused
from upsert_cli.sources.object_stores import is_object, objects_below
from upsert_cli.sources.remote import RemoteFile
from upsert_cli.sources.source_faults import not_found
from upsert_cli.sources.tree import Tree, TreePath, divided_at_glob


def locate_address(address: str, *, retry_for: float) -> RemoteFile | ObjectTree:
    """Return the file at an address, or the tree of a folder or a glob.

    Args:
        address: Of a web server or an object store.
        retry_for: How long to repeat a request that fails, in seconds.

    Raises:
        UsageFault: Nothing is read from such an address, or there is nothing.
        SourceUnreadable: The store cannot be asked.
    """
    if (reason := why_refused(address)) is not None:
        raise UsageFault(message=f"the address {shown_address(address)} cannot be read: {reason}")
    try:
        if scheme_of(address) in WEB_SCHEMES or is_object(address, retry_for=retry_for):
            return RemoteFile(address, retry_for)
        return ObjectTree(address, retry_for=retry_for)
    except FileNotFoundError as error:
        raise not_found(shown_address(address)) from error
    except OSError as error:
        raise SourceUnreadable(name=shown_address(address), reason=reason_of(error)) from error


class ObjectTree(Tree):
    """The objects below an address, whose names have all been listed."""

    globs_match_folders = False

    def __init__(self, address: str, *, retry_for: float) -> None:
        """List the names below a folder or a glob.

        Raises:
            FileNotFoundError: There is no such folder.
            OSError: The store cannot be asked.
        """
        root, pattern = divided_at_glob(address.rstrip("/").split("/"))
        super().__init__(shown_address(address), pattern)
        self._root = "/".join(root)
        self._retry_for = retry_for
        self._names: dict[TreePath, tuple[set[str], set[str]]] = {(): (set(), set())}
        """The names of the folders and of the objects in each folder."""

        for parts in objects_below(self._root, retry_for=retry_for):
            self._add(parts)

    def _add(self, parts: Sequence[str]) -> None:
        *folder, name = parts
        for depth, inner in enumerate(folder):
            self._names[tuple(folder[:depth])][0].add(inner)
            self._names.setdefault(tuple(folder[: depth + 1]), (set(), set()))
        self._names[tuple(folder)][1].add(name)

    def name_of(self, path: TreePath) -> str:
        """Return the name that the user would give a path."""
        return shown_address(self._address(path))

    def file_at(self, path: TreePath) -> RemoteFile:
        """Return an object to read."""
        return RemoteFile(self._address(path), self._retry_for)

    def is_folder(self, path: TreePath) -> bool:
        """Check whether the names of objects begin with a path."""
        return path in self._names

    def is_file(self, path: TreePath) -> bool:
        """Check whether a path is the name of an object."""
        return path != () and self.is_folder(path[:-1]) and path[-1] in self._names[path[:-1]][1]

    def names_in(self, folder: TreePath) -> tuple[list[str], list[str]]:
        """Return the names of the folders and of the objects in a folder."""
        folders, objects = self._names[folder]
        return sorted(folders), sorted(objects)

    def files(self) -> Iterator[tuple[TreePath, bool]]:
        """Yield the data files in the order of their addresses, as stores list them."""
        yield from sorted(super().files(), key=lambda found: self._address(found[0]))

    def _address(self, path: TreePath) -> str:
        return "/".join((self._root, *path))
