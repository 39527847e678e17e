"""Web servers that respond with something else than requested: every row is read once, or reading fails."""

from __future__ import annotations

import datetime
import gzip
import ssl
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.reading import item
from tests.support.web_servers import Respond, answer, raw_server
from upsert_cli.errors import SourceUnreadable
from upsert_cli.sources import http_file
from upsert_cli.sources.find import find_files
from upsert_cli.sources.item import START, Position
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source

ROWS = 200
LINES = [b'{"object_id": "i%03d", "payload": {"text": "text %03d"}}\n' % (n, n) for n in range(ROWS)]
FILE = b"".join(LINES)
TOTAL, HALF = len(FILE), len(FILE) // 2
IDS = [f"i{n:03d}" for n in range(ROWS)]
RETRY_FOR = 2.0


def _source(address: str, name: str = "a.jsonl", *, retry_for: float = RETRY_FOR) -> Source:
    [found] = find_files([f"{address}/{name}"], retry_for=retry_for)
    return Source.of(found)


def _ids(source: Source, start: Position = START) -> list[str]:
    return [item(row).object_id for row, _ in Rows(sources=[source], start=start)]


def _begin(wanted: str) -> int:
    return int(wanted.removeprefix("bytes=").partition("-")[0])


def _span(first: int, last: int, total: int | str = TOTAL) -> str:
    return f"bytes {first}-{last}/{total}"


def _first_byte(**headers: str | int) -> bytes:
    return answer(206, FILE[:1], Content_Length=1, Content_Range=_span(0, 0), **headers)


def _breaks_off(later: Callable[[int], bytes], **headers: str | int) -> Respond:
    """Respond to the request for the whole file with its first half, and to later ones with the response of `later`."""

    def respond(wanted: str | None) -> Iterable[bytes]:
        if wanted == "bytes=0-0":
            return [_first_byte(**headers)]
        if wanted is None:
            return [answer(200, FILE[:HALF], Content_Length=TOTAL, **headers)]
        return [later(_begin(wanted))]

    return respond


def _rest(begin: int, **headers: str | int) -> bytes:
    known: dict[str, str | int] = {"Content_Length": TOTAL - begin, "Content_Range": _span(begin, TOTAL - 1)}
    return answer(206, FILE[begin:], **known | headers)


WRONG = {
    "another begin": (lambda _: _rest(0), "wrong range"),
    "a begin after it": (lambda at: _rest(at + 1), "wrong range"),
    "an end before it": (lambda at: _rest(at, Content_Range=_span(at, at - 1)), "wrong range"),
    "an end after the file's": (lambda at: _rest(at, Content_Range=_span(at, TOTAL)), "wrong range"),
    "no range": (lambda at: answer(206, FILE[at:], Content_Length=TOTAL - at), "does not say which"),
    "a range in other units": (lambda at: _rest(at, Content_Range=f"rows {at}-9/{TOTAL}"), "does not say which"),
    "another total": (
        lambda at: _rest(at, Content_Length=1, Content_Range=_span(at, at, TOTAL + 1)),
        "changed while it was being read",
    ),
    "no total": (lambda at: _rest(at, Content_Range=_span(at, TOTAL - 1, "*")), "changed while it was being read"),
    "another length": (lambda at: _rest(at, Content_Length=TOTAL - at - 9), "contradict each other"),
    "no number as length": (lambda at: _rest(at, Content_Length="-1"), "Content-Length of -1"),
    "a length of thousands of digits": (lambda at: _rest(at, Content_Length="9" * 5_000), "Content-Length of 999"),
    "a total of thousands of digits": (
        lambda at: _rest(at, Content_Range=_span(at, TOTAL - 1, "9" * 5_000)),
        "does not say which",
    ),
    "several ranges": (lambda at: _rest(at, Content_Type="multipart/byteranges; boundary=x"), "several ranges"),
    "too long a body": (
        lambda at: answer(206, FILE[at:] + LINES[0], Content_Range=_span(at, TOTAL - 1)),
        "sends more than",
    ),
    "more than its length": (lambda at: _rest(at) + LINES[0], "sends more than"),
    "another file": (lambda _: answer(200, FILE + LINES[0], Content_Length=TOTAL + len(LINES[0])), "changed while"),
    "nothing": (lambda _: answer(204), "answers 204"),
    "another coding": (lambda at: _rest(at, Content_Encoding="gzip"), "changed while"),
    "a coding nobody reads": (lambda at: _rest(at, Content_Encoding="br"), "Content-Encoding br"),
    "framing nobody reads": (lambda at: _rest(at, Transfer_Encoding="gzip, chunked"), "transfer encoding"),
    "no such range": (lambda _: answer(416, Content_Range=f"bytes */{TOTAL}"), "answers 416"),
}


@pytest.mark.parametrize(("later", "message"), WRONG.values(), ids=WRONG)
def test_only_the_requested_range_is_accepted(later: Callable[[int], bytes], message: str) -> None:
    """After a break and at a restart, any other response is an error, and no row is lost or read twice."""
    with raw_server(_breaks_off(later)) as address:
        source = _source(address)
        with pytest.raises(SourceUnreadable, match=message):
            _ids(source)
        with pytest.raises(SourceUnreadable, match=message):
            _ids(source, Position(0, 100, len(b"".join(LINES[:100]))))


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
@pytest.mark.parametrize("value", ["Fri, 27 Nov 2026 10:00:01 GMT", None])
def test_another_version_of_the_file_is_an_error(header: str, value: str | None) -> None:
    """A later response with another etag or mtime, or without one, is refused although range and length are right."""
    other = {} if value is None else {header: value}
    respond = _breaks_off(lambda at: _rest(at, **other), **{header: "Fri, 27 Nov 2026 10:00:00 GMT"})
    with raw_server(respond) as address, pytest.raises(SourceUnreadable, match="changed while it was being read"):
        _ids(_source(address))


@pytest.mark.parametrize(
    "moment", ["yesterday", "Fri, 31 Dec 9999 23:59:59 GMT", f"Fri, 27 Nov 2026 10:00:00 +{'9' * 20}"]
)
def test_a_time_of_change_that_no_calendar_has_is_ignored(moment: str) -> None:
    """A wrong time in a response is no reason not to read the file."""
    headers = {"Last-Modified": moment}
    with raw_server(_breaks_off(lambda at: _rest(at, **headers), **headers)) as address:
        assert _ids(_source(address)) == IDS


def test_a_size_that_the_server_no_longer_says_is_not_a_shorter_file() -> None:
    """A response without a length differs from one with it, which does not mean that rows are missing."""
    responses = [answer(200, FILE, Content_Length=TOTAL)]
    with raw_server(lambda _: responses) as address:
        source = _source(address)
        responses[:] = [answer(200, FILE)]
        assert source.change() == "its server does not always say its size"
        assert not source.was_rewritten()


def _few(begin: int) -> bytes:
    end = min(begin + 500, TOTAL)
    return answer(206, FILE[begin:end], Content_Length=end - begin, Content_Range=_span(begin, end - 1))


RIGHT = {
    "the rest": _rest,
    "a part of the rest": _few,
    "the whole file": lambda _: answer(200, FILE, Content_Length=TOTAL),
    "the whole file, without its length": lambda _: answer(200, FILE),
    "a body without its length": lambda at: answer(206, FILE[at:], Content_Range=_span(at, TOTAL - 1)),
    "chunks": lambda at: answer(
        206,
        b"%x\r\n%b\r\n0\r\n\r\n" % (TOTAL - at, FILE[at:]),
        Content_Range=_span(at, TOTAL - 1),
        Transfer_Encoding="chunked",
    ),
}


@pytest.mark.parametrize("later", RIGHT.values(), ids=RIGHT)
def test_a_break_loses_no_row(later: Callable[[int], bytes]) -> None:
    """A shorter range, the whole file and bodies without a length continue at the right byte."""
    with raw_server(_breaks_off(later)) as address:
        assert _ids(_source(address)) == IDS


LIES = {
    "too long": [answer(200, FILE[:HALF], Content_Length=TOTAL)],
    "too short": [answer(200, FILE, Content_Length=HALF)],
    "an unfinished chunk": [answer(200, b"%x\r\n%b" % (TOTAL, FILE[:HALF]), Transfer_Encoding="chunked")],
    "no last chunk": [answer(200, b"%x\r\n%b\r\n" % (HALF, FILE[:HALF]), Transfer_Encoding="chunked")],
    "two lengths": [answer(200, FILE, Content_Length=HALF, content_length=TOTAL)],
    "no content": [answer(204)],
    "accepted": [answer(202)],
    "a range nobody asked for": [answer(206, FILE[:HALF], Content_Range=_span(0, HALF - 1), Content_Length=HALF)],
}


@pytest.mark.parametrize("pieces", LIES.values(), ids=LIES)
def test_a_wrong_length_is_an_error(pieces: list[bytes]) -> None:
    """A server without ranges that always sends too little never makes reading end as if all rows had arrived."""
    with raw_server(lambda _: pieces) as address, pytest.raises(SourceUnreadable):
        _ids(_source(address, retry_for=0.5))


def test_compression_in_transit_is_an_error() -> None:
    """A server that compresses the file in transit is an error; a file that is stored compressed is read."""
    packed = gzip.compress(FILE)
    with raw_server(lambda _: [answer(200, packed, Content_Length=len(packed), Content_Encoding="gzip")]) as address:
        with pytest.raises(SourceUnreadable, match="compressed with gzip"):
            _ids(_source(address))
        assert _ids(_source(address, "a.jsonl.gz")) == IDS
    cut = answer(200, packed[:-8], Content_Length=len(packed) - 8)
    with raw_server(lambda _: [cut]) as address, pytest.raises(SourceUnreadable, match="row 200"):
        _ids(_source(address, "a.jsonl.gz"))


def test_an_empty_file_has_no_first_byte() -> None:
    """Some servers answer 416 to a request for the first byte, which means that the file is empty."""
    with raw_server(lambda _: [answer(416, Content_Range="bytes */0", Content_Length=0)]) as address:
        assert _source(address).fingerprint.size == 0
        assert _ids(_source(address)) == []


def _dripping(head: bytes, body: bytes) -> Iterator[bytes]:
    yield head
    for byte in body:
        time.sleep(0.2)
        yield bytes([byte])


DRIPS = {
    "headers": lambda _: _dripping(b"", answer(200, FILE, Content_Length=TOTAL)),
    "body": lambda _: _dripping(answer(200, Content_Length=TOTAL), FILE),
    "chunks": lambda _: _dripping(answer(200, Transfer_Encoding="chunked"), b"1\r\n{\r\n" * 1_000),
    "bytes on the way": lambda wanted: (
        [answer(200, FILE[:HALF], Content_Length=TOTAL)]
        if wanted is None
        else _dripping(answer(200, Content_Length=TOTAL), FILE)
    ),
}


@pytest.mark.parametrize("respond", DRIPS.values(), ids=DRIPS)
def test_a_server_that_sends_single_bytes_does_not_hold_a_load(respond: Respond) -> None:
    """Headers and bodies that arrive byte by byte fail after --retry-for, with the reason."""
    with (
        raw_server(respond) as address,
        pytest.raises(SourceUnreadable, match=r"bytes a second|does not answer within"),
    ):
        _ids(_source(address, retry_for=1.0))


def test_breaks_after_single_bytes_do_not_hold_a_load() -> None:
    """A server that sends one byte for each request is as slow as one that sends single bytes."""

    def respond(wanted: str | None) -> Iterator[bytes]:
        if wanted == "bytes=0-0":
            yield _first_byte()
            return
        begin = 0 if wanted is None else _begin(wanted)
        head = answer(200, Content_Length=TOTAL) if wanted is None else _rest(begin)[: -(TOTAL - begin)]
        yield from _dripping(head, FILE[begin : begin + 1])

    with raw_server(respond) as address, pytest.raises(SourceUnreadable, match="broke off"):
        _ids(_source(address, retry_for=1.0))


def test_a_slow_download_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    """A download may take several times as long as --retry-for, and is requested only once."""
    asked: list[str | None] = []

    def respond(wanted: str | None) -> Iterator[bytes]:
        asked.append(wanted)
        if wanted is not None:
            yield _first_byte()
            return
        yield answer(200, Content_Length=TOTAL)
        for begin in range(0, TOTAL, TOTAL // 20):
            time.sleep(0.2)
            yield FILE[begin : begin + TOTAL // 20]

    monkeypatch.setattr(http_file, "SOON", 0.3)
    with raw_server(respond) as address:
        source = _source(address, retry_for=1.0)
        asked.clear()
        assert _ids(source) == IDS
    assert asked == ["bytes=0-0", None]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ssl.SSLContext]:
    """Return the TLS context of a server whose certificate this process trusts."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(_certificate())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield context


def _certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, *plain) + made.public_bytes(serialization.Encoding.PEM)


def _to(location: str, status: int = 302) -> Respond:
    return lambda _: [answer(status, Location=location, Content_Length=0)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_never_leaves_https(tls: ssl.SSLContext, status: int) -> None:
    """A redirect from https leads neither to http nor to another scheme; its message shows no query."""
    targets = {
        "ftp://localhost/b.jsonl": "ftp://localhost/b.jsonl",
        "file:///b.jsonl": "file:///b.jsonl",
        "//u:pw@host/b.jsonl": "https://host/b.jsonl",
    }
    with raw_server(_breaks_off(_rest)) as plain:
        for target, shown in (targets | {f"{plain}/b.jsonl": f"{plain}/b.jsonl"}).items():
            respond = _to(f"{target}?sig=TO", status)
            with raw_server(respond, tls=tls) as address, pytest.raises(SourceUnreadable) as caught:
                _source(address, "a.jsonl?sig=FROM")
            assert f"{address}/a.jsonl redirects to {shown};" in str(caught.value)
            assert not any(secret in str(caught.value) for secret in ("FROM", "TO", "pw"))


def test_redirects_to_the_same_or_a_safer_scheme_are_followed(tls: ssl.SSLContext) -> None:
    """Redirects may be relative, and may lead from http to https."""
    with raw_server(_breaks_off(_rest), tls=tls) as safe, raw_server(_to(f"{safe}/b.jsonl")) as address:
        assert _ids(_source(address)) == IDS
        with raw_server(_to(f"{safe}/b.jsonl"), tls=tls) as another:
            assert _ids(_source(another)) == IDS


@pytest.mark.parametrize("location", ["/a.jsonl?sig=S", "?sig=S", "b.jsonl"])
def test_a_redirect_loop_is_an_error(location: str) -> None:
    """A loop ends after a few redirects, and its addresses are named without their queries."""
    with raw_server(_to(location)) as address, pytest.raises(SourceUnreadable, match="redirects more than") as caught:
        _source(address)
    assert address in str(caught.value)
    assert "sig" not in str(caught.value)
    with raw_server(lambda _: [answer(302)]) as address, pytest.raises(SourceUnreadable, match="redirects to nowhere"):
        _source(address)


def test_a_redirect_to_something_else_than_an_address_is_an_error() -> None:
    """Half an address of IPv6 is the server's fault, not a bug."""
    with raw_server(_to("//[x/b.jsonl")) as address, pytest.raises(SourceUnreadable, match="that is no address"):
        _source(address)
