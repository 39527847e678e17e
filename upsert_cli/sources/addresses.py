"""Addresses of files on web servers and in object stores: their parts, and the names that users see."""

from __future__ import annotations

import glob
import hashlib
import re
from urllib.parse import unquote_plus, urlsplit

OBJECT_SCHEMES = ("s3", "gs", "az")
WEB_SCHEMES = ("http", "https")
DIGEST_BYTES = 6  # of a query; equal digests of different queries are practically impossible

# The name of an object, or a glob, may hold a question mark; `?name=value` is a signature that was pasted with it.
_QUERY_OF_OBJECT = re.compile(r"\?[\w.~%$-]+=")

_QUERY_IN_NAME = re.compile(rf"#query-[0-9a-f]{{{2 * DIGEST_BYTES}}}$")

_SIGNATURE_PREFIXES = ("x-amz-", "x-goog-")  # of the parameters of signatures of S3 and Google Cloud Storage

# The parameters of other signatures, by the parameter that each such signature has.
_SIGNATURES = {
    "sig": frozenset(  # a shared access signature of Azure
        re.findall(r"\w+", "sig sv se st sp sr ss srt si spr sip sdd ses skoid sktid skt ske sks skv saoid suoid scid")
    ),
    "Key-Pair-Id": frozenset(["Key-Pair-Id", "Policy", "Signature", "Expires", "Hash-Algorithm"]),  # CloudFront
    "AWSAccessKeyId": frozenset(["AWSAccessKeyId", "Signature", "Expires"]),  # the older one of S3
    "GoogleAccessId": frozenset(["GoogleAccessId", "Signature", "Expires"]),  # the older one of Google
}


def is_address(name: str) -> bool:
    """Check whether a name is an address and not a path."""
    return "://" in name and scheme_of(name).isalnum()


def scheme_of(address: str) -> str:
    """Return the scheme of an address, in lower case."""
    return address.partition("://")[0].lower()


def shown_address(address: str) -> str:
    """Return an address for messages: without a password and a query, which may be secret."""
    scheme, _, rest = _divided(address)[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def source_name(address: str) -> str:
    """Return the name of the source at an address, with a digest in place of the query.

    The parameters of signatures are left out, so an address that is signed again names the same source.
    """
    query = _divided(address)[1]
    if scheme_of(address) not in OBJECT_SCHEMES:
        query = _without_signature(query)
    if not query:
        return shown_address(address)
    digest = hashlib.blake2b(query.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()
    return f"{shown_address(address)}#query-{digest}"


def file_name(name: str) -> str:
    """Return the name that the copy of a remote file would have on this machine, by the name of its source."""
    return _QUERY_IN_NAME.sub("", name).rpartition("/")[2]


def _divided(address: str) -> tuple[str, str]:
    """Return the address without its query, and the query."""
    if scheme_of(address) in OBJECT_SCHEMES:
        found = _QUERY_OF_OBJECT.search(address)
        return (address, "") if found is None else (address[: found.start()], address[found.start() + 1 :])
    path, _, query = address.partition("#")[0].partition("?")
    return path, query


def _without_signature(query: str) -> str:
    """Return a query without the parameters of signatures."""
    parameters = [(unquote_plus(parameter.partition("=")[0]), parameter) for parameter in query.split("&")]
    names = {name for name, _ in parameters}
    signing: set[str] = set().union(*(signature for mark, signature in _SIGNATURES.items() if mark in names))
    return "&".join(
        parameter
        for name, parameter in parameters
        if name not in signing and not name.lower().startswith(_SIGNATURE_PREFIXES)
    )


def why_refused(address: str) -> str | None:
    """Return the reason why nothing is read from an address, or None."""
    scheme = scheme_of(address)
    known = (*OBJECT_SCHEMES, *WEB_SCHEMES)
    if scheme not in known:
        return f"it begins with none of {', '.join(f'{each}://' for each in known)}"
    try:
        address.encode()
        parts = urlsplit(address)
        host = parts.netloc if scheme in OBJECT_SCHEMES else parts.hostname
        _ = parts.port if scheme in WEB_SCHEMES else None  # raises ValueError for a port that is not a number
    except UnicodeEncodeError:
        return "it holds bytes that are not UTF-8; write each of them as % and two hexadecimal digits"
    except ValueError as error:
        return str(error)
    if "@" in parts.netloc:
        return "a password in it would be kept in the task's record; leave it out"
    if scheme in OBJECT_SCHEMES and glob.has_magic(address.split("/")[2]):
        return "the name of a bucket cannot be a pattern"
    return None if host else "it names no host or bucket"
