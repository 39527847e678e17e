"""Addresses that differ in their query are different sources everywhere; one that is signed again is the same source."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.terminal import Terminal
from tests.support.web_servers import WebServer, web_server
from upsert_cli.sources.addresses import source_name


def _page(name: str, rows: int = 5) -> bytes:
    items = ({"object_id": f"{name}-{n}", "payload": {"text": f"page {name} {n}"}} for n in range(rows))
    return "".join(f"{json.dumps(item)}\n" for item in items).encode()


@pytest.fixture
def web() -> Iterator[WebServer]:
    """Return a web server of three pages with one path, and one file that is open by a signature."""
    with web_server() as server:
        server.files |= {f"/a.jsonl?page={n}": _page(f"p{n}") for n in (1, 2, 3)}
        server.files["/b.jsonl"] = _page("b")
        yield server


S3 = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=K{n}%2Fs3&X-Amz-Date=2026112{n}T000000Z&X-Amz-Expires={n}00"
SIGNED = {
    "S3": f"{S3}&X-Amz-SignedHeaders=host&X-Amz-Security-Token=t{{n}}&X-Amz-Signature={{n}}",
    "S3 in lower case": "x-amz-signature={n}&x-amz-expires=9{n}",
    "S3, encoded": "X%2DAmz%2DSignature={n}",
    "S3, older": "AWSAccessKeyId=K&Expires=179999999{n}&Signature=s%2B{n}%3D",
    "Google": "X-Goog-Algorithm=GOOG4&X-Goog-Credential=c{n}&X-Goog-Date={n}&X-Goog-Expires=60{n}&X-Goog-Signature={n}",
    "Google, older": "GoogleAccessId=a%40b&Expires=179999999{n}&Signature={n}",
    "Azure": "sv=2024-11-0{n}&se=2026-11-2{n}T00%3A00%3A00Z&st=2026-11-0{n}&sr=b&sp=r{n}&spr=https&sig={n}%3D",
    "Azure, of an account": "sv=2024-11-04&ss=b&srt=o&sp=rl&se=2026-11-2{n}&sig={n}",
    "Azure, of a user": "skoid=i{n}&sktid=t&skt=2026-11-0{n}&ske=2026-11-2{n}&sks=b&skv=2024-11-04&sig={n}",
    "CloudFront": "Expires=179999999{n}&Signature={n}__&Key-Pair-Id=K{n}",
    "CloudFront, by a policy": "Policy=p{n}&Signature={n}__&Key-Pair-Id=K",
}


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_an_address_that_is_signed_again_is_the_same_source(query: str) -> None:
    """A new signature does not matter, whatever else is signed and wherever the signature is in the address."""
    for address in ("https://host/a.jsonl?{}", "https://host/a.jsonl?page=1&{}", "https://host/a.jsonl?{}&page=1"):
        one, other = (source_name(address.format(query.replace("{n}", n))) for n in "12")
        assert one == other
        plain = address.format("").replace("?&", "?").rstrip("?&")
        assert one == source_name(plain)
        assert source_name(plain + ("&" if "?" in plain else "?") + "page=2") != one


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("page=1", "page=2"),
        ("page=1", ""),
        ("page=1&size=2", "size=2&page=1"),
        ("token=a", "token=b"),
        ("Signature=a", "Signature=b"),
        ("Expires=1", "Expires=2"),
        ("Policy=a", "Policy=b"),
        ("sp=1", "sp=2"),
        ("se=1&sv=2", "se=2&sv=2"),
        ("versionId=1&X-Amz-Signature=a", "versionId=2&X-Amz-Signature=a"),
        ("snapshot=1&sig=a", "snapshot=2&sig=a"),
        ("generation=1&X-Goog-Signature=a", "generation=2&X-Goog-Signature=a"),
    ],
)
def test_any_other_parameter_makes_another_source(one: str, other: str) -> None:
    """Also parameters that are part of a signature elsewhere; and no name shows a query."""
    names = [source_name(f"https://host/a.jsonl?{query}") for query in (one, other)]
    assert names[0] != names[1]
    assert not any("?" in name or "=" in name for name in names)


def test_another_page_under_the_same_task_id_is_refused(tiny: Terminal, web: WebServer) -> None:
    """Another page is another load; none of its rows is written, and the message names no query."""
    tiny.type(f"upsert-cli run '{web.address}/a.jsonl?page=1&key=S3CRET' --task-id x", expect=2)
    tiny.type(f"upsert-cli run '{web.address}/a.jsonl?page=1' --task-id x")
    done = tiny.type(f"upsert-cli run '{web.address}/a.jsonl?page=2' --task-id x", expect=4)
    assert "stands for another load" in done.stderr
    assert "page=" not in done.stderr
    tiny.type(f"upsert-cli run '{web.address}/a.jsonl?page=1' --task-id x")
    assert sorted(tiny.records()) == [f"p1-{n}" for n in range(5)]


def test_pages_of_one_path_are_read_each_for_itself(tiny: Terminal, web: WebServer) -> None:
    """Pages are read separately in one task, and again from its start; another order is another load."""
    pages = [f"'{web.address}/a.jsonl?page={n}'" for n in (1, 2, 3)]
    tiny.type(f"upsert-cli run {' '.join([*pages, pages[0]])} --task-id x")
    assert len(tiny.records()) == 15
    assert len(set(tiny.info("x")["sources"])) == 3
    tiny.type(f"upsert-cli run {' '.join(reversed(pages))} --task-id x", expect=4)
    web.files["/a.jsonl?page=2"] += b'{"object_id": "bad"}\n'
    tiny.type("upsert-cli restart x --from-start", expect=3)
    task = tiny.info("x")
    assert (task["counts"]["unchanged"], task["counts"]["failed"]) == (15, 1)
    [reject] = task["failed_items"]
    assert (reject["source"], reject["row"]) == (task["sources"][1], 6)
    tiny.type("upsert-cli restart x --failed-only", expect=3)
    tiny.type("upsert-cli verify x")


def test_the_row_ids_of_pages_differ(tiny: Terminal, web: WebServer) -> None:
    """`--id-from row` makes ids of a name that no other page has."""
    pages = " ".join(f"'{web.address}/a.jsonl?page={n}'" for n in (1, 2))
    tiny.type(f"upsert-cli run {pages} --id-from row")
    tiny.type(f"upsert-cli run '{web.address}/a.jsonl?page=3' --id-from row")
    assert len(tiny.records()) == 15


def test_a_mirror_of_a_page_deletes_nothing_of_another(tiny: Terminal, web: WebServer) -> None:
    """Each page has its own scope; a signature does not change it."""
    for n in (1, 2):
        tiny.type(f"upsert-cli run '{web.address}/a.jsonl?page={n}' --delete-missing")
    assert len(tiny.records()) == 10
    tiny.type(f"upsert-cli run '{web.address}/b.jsonl?X-Amz-Signature=1' --delete-missing")
    web.files["/b.jsonl"] = _page("b", 4)
    tiny.type(f"upsert-cli run '{web.address}/b.jsonl?X-Amz-Signature=2' --delete-missing")
    assert sorted(tiny.records()) == sorted(
        [f"p{p}-{n}" for p in (1, 2) for n in range(5)] + [f"b-{n}" for n in range(4)]
    )


def test_a_task_goes_on_by_the_address_that_is_signed_again(tiny: Terminal, web: WebServer) -> None:
    """The old signature is over by then; the rows that are committed are not read again."""
    content = _page("c", 2_000)
    web.files["/c.jsonl?sig=1"] = content
    web.break_after, web.breaks = 64 << 10, 1_000
    first = f"upsert-cli run '{web.address}/c.jsonl?sig={{}}' --task-id x --retry-for 1"
    web.ranges = False
    tiny.type(first.format(1), expect=1)
    del web.files["/c.jsonl?sig=1"]
    web.files["/c.jsonl?sig=2"] = content
    web.break_after, web.ranges = None, True
    tiny.type("upsert-cli restart x", expect=4)
    tiny.type(first.format(2))
    assert len(tiny.records()) == 2_000
    assert tiny.info("x")["counts"]["inserted"] == 2_000
    assert tiny.type(first.format(3), expect=2).stderr.count("does not exist") == 1
    web.files["/c.jsonl?sig=3"] = content
    assert "done already" in tiny.type(first.format(3)).stderr
