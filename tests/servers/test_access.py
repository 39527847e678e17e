"""Access to a server: who gets in, which credentials are sent, that none of them leaks, and Chroma Cloud's quotas."""

from __future__ import annotations

import base64
import json
from functools import partial

import pytest

from tests.support.chroma_server import ChromaServer
from tests.support.command_lines import command_lines_until_the_end
from tests.support.items import Items
from tests.support.proxy import Call, Fault, Proxy
from tests.support.terminal import Terminal

MARKER = "marker-of-a-token-4711"
CLOUD_ROWS = 300  # in one write and in one answer


def guard(call: Call) -> Fault | None:
    """Let in only requests with the token, and repeat their token to all others."""
    if call.headers.get("X-Chroma-Token") == MARKER:
        return None
    return Fault(status=401, message=f"not {call.headers}")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("variable", marks=pytest.mark.slow),
        "file",
        "header",
        pytest.param("headers file", marks=pytest.mark.slow),
    ],
)
def test_a_token_gives_access_and_is_never_shown(
    tiny: Terminal, proxy: Proxy, vectored: Items, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    """A token is taken from the environment or a file, and shows up in no output, file or command line."""
    tiny.write("a.jsonl", vectored(3))
    text = f"X-Chroma-Token: {MARKER}\nX-Other: {MARKER}\n" if "header" in kind else f"{MARKER}\n"
    name = "UPSERT_CLI_CHROMA_HEADERS" if "header" in kind else "UPSERT_CLI_CHROMA_TOKEN"
    if "file" in kind:
        path = tmp_path_factory.mktemp("secret") / "token"
        path.write_text(text)
        tiny.env[f"{name}_FILE"] = str(path)
    else:
        tiny.env[name] = text.strip()
    failing: list[Call] = []

    def plan(call: Call) -> Fault | None:
        if call.is_write and not failing:
            failing.append(call)
            return Fault(status=500, message=f"the server quotes {call.headers}")
        return guard(call)

    proxy.plan = plan
    line = f"upsert-cli run a.jsonl -v --json --chroma {proxy.url} --collection {kind.replace(' ', '-')}"
    tiny.forks = "header" not in kind  # a started one shows its command line
    process = tiny.start(f"{line} --task-id t")
    seen = command_lines_until_the_end(process)
    said = "".join(process.communicate())
    assert process.returncode == 0, said
    assert "the server quotes" in said
    proxy.plan = lambda call: Fault(status=500, message=f"again {call.headers}") if call.is_write else guard(call)
    failed = tiny.type(f"{line} --force --retry-for 0.5 --task-id u", expect=1)
    kept = "".join(path.read_text(errors="replace") for path in tiny.folder.rglob("*") if path.is_file())
    for what in (seen, said, failed.stdout, failed.stderr, kept, json.dumps(tiny.info("u"))):
        assert MARKER not in what
    assert "again {" in failed.stderr


@pytest.mark.parametrize("token", [None, "another-token", "sp ace\nline"])
def test_a_wrong_token_is_named_at_once(tiny: Terminal, proxy: Proxy, vectored: Items, token: str | None) -> None:
    """Without the right token a load ends with one line that names the token's variables but no token."""
    tiny.write("a.jsonl", vectored(1))
    proxy.plan = guard
    if token is not None:
        tiny.env["UPSERT_CLI_CHROMA_TOKEN"] = token
    tiny.env["CHROMA_API_KEY"] = MARKER  # which is for the cloud, and opens no other server
    odd = token is not None and "\n" in token
    done = tiny.type(f"upsert-cli run a.jsonl --chroma {proxy.url}", expect=2 if odd else 1)
    says = "UPSERT_CLI_CHROMA_TOKEN cannot be used" if odd else "refuses access (401)"
    assert says in done.stderr.splitlines()[-1]
    assert token is None or token not in done.stderr
    assert len(proxy.calls) == (0 if odd else 1)


def cloud(call: Call) -> Fault | None:
    """Let in only requests with the token, and refuse to return more records at once than Chroma Cloud does."""
    body = json.loads(call.body) if call.body else {}
    if len(call.ids) > CLOUD_ROWS or (body.get("limit") or 0) > CLOUD_ROWS:
        return Fault(status=422, message="Quota exceeded")
    return guard(call)


def test_the_chunks_of_an_item_are_searched_within_the_quotas(
    tiny: Terminal, shared_server: ChromaServer, proxy: Proxy
) -> None:
    """An item that is split is loaded into the cloud, and once more in fewer chunks."""
    proxy.plan = cloud
    tiny.env |= {"UPSERT_CLI_CHROMA_CLOUD_URL": proxy.url, "CHROMA_API_KEY": MARKER}
    found = []
    for words in (2_000, 3):
        tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": " ".join(["word"] * words)}}])
        tiny.type("upsert-cli run a.jsonl --split --chroma cloud --collection split-in-cloud")
        found.append(len(shared_server.records("split-in-cloud")))
    assert found[0] > found[1] == 1
    assert proxy.faults == 0


def test_the_cloud_and_its_quotas(tiny: Terminal, shared_server: ChromaServer, proxy: Proxy, vectored: Items) -> None:
    """The cloud gets its key, at most 300 records a request, and no row over its quotas; each such row is named."""
    proxy.plan = cloud
    tiny.env |= {"UPSERT_CLI_CHROMA_CLOUD_URL": proxy.url, "CHROMA_API_KEY": MARKER}
    items = vectored(700)
    items[1]["object_id"] = "i" * 129
    items[2]["payload"]["text"] = "é" * 8_193
    items[3]["payload"] |= {f"key-{number}": number for number in range(40)}
    items[4]["payload"]["k" * 37] = 1
    items[5]["payload"]["long"] = "v" * 4_097
    items[6]["payload"]["text"] = "v" * 4_097  # not a value of the metadata
    tiny.write("a.jsonl", items)
    tiny.type("upsert-cli run a.jsonl --chroma cloud --collection quotas --task-id t --batch-size 700", expect=3)
    details = {failed["row"]: failed["detail"] for failed in tiny.info("t")["failed_items"]}
    assert details == {
        2: "the id has 129 bytes, and the cloud takes 128",
        3: "the text has 16,386 bytes, and the cloud takes 16,384",
        4: "the metadata has 41 keys, and the cloud takes 32",
        5: f"the metadata key '{'k' * 37}' has 37 bytes, and the cloud takes 36",
        6: "metadata 'long' has 4,097 bytes, and the cloud takes 4,096",
    }
    tiny.type("upsert-cli verify t")
    assert proxy.faults == 0
    assert max(len(call.ids) for call in proxy.writes) == CLOUD_ROWS
    assert len(shared_server.records("quotas")) == 695
    assert tiny.info("t")["chroma"] == proxy.url
    del tiny.env["CHROMA_API_KEY"]
    refused = tiny.type("upsert-cli run a.jsonl --chroma cloud --collection quotas", expect=1)
    assert "for the cloud also CHROMA_API_KEY" in refused.stderr


def test_a_quota_that_we_do_not_know_rejects_the_row(tiny: Terminal, proxy: Proxy, vectored: Items) -> None:
    """A row that a server refuses because of an unknown quota is found, and rejected with the server's reason."""
    tiny.write("a.jsonl", vectored(40))
    proxy.plan = lambda call: (
        Fault(status=422, message="Quota exceeded: no 00013 here")
        if call.is_write and "obj-00013" in call.ids
        else None
    )
    tiny.type(f"upsert-cli run a.jsonl --task-id t --chroma {proxy.url} --collection own_quota", expect=3)
    [failed] = tiny.info("t")["failed_items"]
    assert failed["object_id"] == "obj-00013"
    assert "Quota exceeded: no 00013 here" in failed["detail"]


@pytest.mark.parametrize("status", [400, 404, 422, 500])
@pytest.mark.parametrize("kind", ["token file", "basic header"])
def test_a_server_that_sends_credentials_back_gets_them_nowhere(
    tiny: Terminal, proxy: Proxy, vectored: Items, kind: str, status: int
) -> None:
    """If an answer with any status quotes our headers, no message, file or report contains them."""
    tiny.write("a.jsonl", vectored(1))
    basic = base64.b64encode(f"ann:{MARKER}".encode()).decode()
    path = tiny.folder / "credentials"
    path.write_text(MARKER if kind == "token file" else f"Authorization: Basic {basic}\n")
    variable = "UPSERT_CLI_CHROMA_TOKEN_FILE" if kind == "token file" else "UPSERT_CLI_CHROMA_HEADERS_FILE"
    summary = tiny.folder / "summary.md"
    tiny.env |= {variable: str(path), "GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}

    def quote(call: Call) -> Fault | None:
        said = f"{call.headers} {MARKER} {MARKER.encode().hex()} ann:{MARKER}"
        body = json.dumps({"error": "InvalidArgumentError", "message": said}).encode()
        return Fault(status=status, body=body) if call.is_write else None

    proxy.plan = quote
    line = f"upsert-cli run a.jsonl --task-id t -v --json --retry-for 0 --chroma {proxy.url} --collection quoting"
    done = tiny.type(f"{line} --metrics-file m.prom", expect=None)
    assert done.returncode in {1, 3}
    page = tiny.type("upsert-cli report t --html page.html")
    kept = "".join(
        each.read_text(errors="replace") for each in tiny.folder.rglob("*") if each.is_file() and each != path
    )
    shown = done.stdout + done.stderr + page.stdout + json.dumps(tiny.info("t")) + kept
    assert "***" in shown
    assert MARKER not in shown
    assert basic.rstrip("=") not in shown


def _always(fault: Fault, _: Call) -> Fault:
    return fault


@pytest.mark.parametrize("body", ['{{"you sent": "{}"}}', "you sent {}"])
def test_credentials_are_masked_before_an_answer_is_cut(tiny: Terminal, proxy: Proxy, body: str) -> None:
    """A token at the point where a long answer is cut is masked first, so that no part of it is shown."""
    tiny.env["UPSERT_CLI_CHROMA_TOKEN"] = token = f"{MARKER}-" * 12
    for before in ("", "x" * 60):
        fault = Fault(status=200, body=body.format(before + token).encode())
        proxy.plan = partial(_always, fault)
        said = tiny.type(f"upsert-cli collections list --chroma {proxy.url}", expect=1).stderr
        assert MARKER not in said
        assert "***" in said


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("UPSERT_CLI_CHROMA_TOKEN", "to\1k-secret"),
        ("UPSERT_CLI_CHROMA_TOKEN_FILE", "to\1k-secret"),
        ("UPSERT_CLI_CHROMA_TOKEN_FILE", "\n"),
        ("UPSERT_CLI_CHROMA_TOKEN_FILE", None),
        ("UPSERT_CLI_CHROMA_HEADERS", "no-colon-secret"),
        ("UPSERT_CLI_CHROMA_HEADERS_FILE", "X-A: sécret"),
        ("UPSERT_CLI_CHROMA_HEADERS_FILE", "no-colon-secret"),
    ],
)
def test_credentials_that_cannot_be_used_are_named_by_their_variable(
    tiny: Terminal, variable: str, text: str | None
) -> None:
    """The message names the variable that was used, and its file, but never their content."""
    path = tiny.folder / "credentials"
    if text is not None:
        path.write_text(text)
    tiny.env[variable] = str(path) if variable.endswith("_FILE") else text or ""
    said = tiny.type("upsert-cli collections --chroma http://127.0.0.1:9", expect=2).stderr
    source = f"{variable} ({path})" if variable.endswith("_FILE") else variable
    assert f"{source} cannot be used: " in said
    assert "secret" not in said


@pytest.mark.parametrize("kind", ["variable", "file", "headers", "proxy"])
def test_refused_credentials_are_named_by_their_variable(tiny: Terminal, proxy: Proxy, kind: str) -> None:
    """A server or a proxy that refuses access has the variable and the file named that were used for it."""
    path = tiny.folder / "credentials"
    path.write_text("wrong-credentials")
    proxy.plan = lambda _: Fault(status=407 if kind == "proxy" else 403)
    tiny.env |= {
        "variable": {"UPSERT_CLI_CHROMA_TOKEN": "wrong-credentials"},
        "file": {"UPSERT_CLI_CHROMA_TOKEN_FILE": str(path)},
        "headers": {"UPSERT_CLI_CHROMA_HEADERS": "X-Key: wrong-credentials"},
        "proxy": {"HTTP_PROXY": f"http://ann:wrong-credentials@{proxy.url.removeprefix('http://')}", "NO_PROXY": ""},
    }[kind]
    url = "http://chroma.invalid" if kind == "proxy" else proxy.url
    said = tiny.type(f"upsert-cli collections --chroma {url}", expect=1).stderr
    names = {
        "variable": "UPSERT_CLI_CHROMA_TOKEN",
        "file": f"UPSERT_CLI_CHROMA_TOKEN_FILE ({path})",
        "headers": "UPSERT_CLI_CHROMA_HEADERS",
        "proxy": "HTTP_PROXY",
    }
    assert names[kind] in said
    assert "refuses access" in said
    assert "wrong-credentials" not in said


@pytest.mark.parametrize(
    ("name", "value"), [("SSL_CERT_FILE", "/nowhere"), ("HTTPS_PROXY", "ftp://p:1"), ("HTTPS_PROXY", "socks5://p:1")]
)
def test_a_setting_for_connections_that_cannot_be_used(terminal: Terminal, name: str, value: str) -> None:
    """Certificates or a proxy that the client cannot use are no bug, and the error names the variables."""
    terminal.env[name] = value
    failed = terminal.type("upsert-cli collections list --chroma https://chroma.example", expect=1)
    assert failed.stderr.startswith("error: no connection to https://chroma.example can be made (")
    assert name in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
