"""Addresses of files on web servers and in object stores: their parts, and the names that users see."""

from __future__ import annotations

import glob
import hashlib
import re
from urllib.parse import unquote_plus, urlsplit

OBJECT_SCHEMES = ("s3", "gs", "az")
WEB_SCHEMES = ("http", "https")
DIGEST_BYTES = 6  # of a query; a collision between the queries of one file is practically impossible

# An object's name, or a glob, may hold a question mark; what looks like `?name=value` is a signature that was pasted.
_QUERY_OF_OBJECT = re.compile(r"\?[\w.~%$-]+=")

_QUERY_IN_NAME = re.compile(rf"#query-[0-9a-f]{{{2 * DIGEST_BYTES}}}$")

# Parameters that S3 and Google Cloud Storage reserve for signatures, in lower case.
_SIGNATURE_PREFIXES = ("x-amz-", "x-goog-")

# Other signatures: a parameter that each of them has, and the parameters that come with it.
_SIGNATURES = {
    "sig": frozenset(  # a shared access signature of Azure
        re.findall(r"\w+", "sig sv se st sp sr ss srt si spr sip sdd ses skoid sktid skt ske sks skv saoid suoid scid")
    ),
    "Key-Pair-Id": frozenset(["Key-Pair-Id", "Policy", "Signature", "Expires", "Hash-Algorithm"]),  # CloudFront
    "AWSAccessKeyId": frozenset(["AWSAccessKeyId", "Signature", "Expires"]),  # the older one of S3
    "GoogleAccessId": frozenset(["GoogleAccessId", "Signature", "Expires"]),  # the older one of Google
}


def is_address(name: str) -> bool:
    """Tell whether a name is an address and not a path."""
    return "://" in name and scheme_of(name).isalnum()


def scheme_of(address: str) -> str:
    """Return the scheme of an address, in lower case."""
    return address.partition("://")[0].lower()


def shown(address: str) -> str:
    """Return an address for messages, without a password or a query, which may be secret."""
    scheme, _, rest = _divided(address)[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def source_name(address: str) -> str:
    """Return the name of the source at an address: it shows no query, but differs if the query does.

    Parameters that only sign an address are ignored, so an address that is signed again is the same source.
    """
    query = _divided(address)[1]
    if scheme_of(address) not in OBJECT_SCHEMES:
        query = _without_signature(query)
    if not query:
        return shown(address)
    digest = hashlib.blake2b(query.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()
    return f"{shown(address)}#query-{digest}"


def file_name(name: str) -> str:
    """Return the name that a copy of a file on this machine would have, by the name of the source at its address."""
    return _QUERY_IN_NAME.sub("", name).rpartition("/")[2]


def _divided(address: str) -> tuple[str, str]:
    """Return what comes before the query, and the query."""
    if scheme_of(address) in OBJECT_SCHEMES:
        found = _QUERY_OF_OBJECT.search(address)
        return (address, "") if found is None else (address[: found.start()], address[found.start() + 1 :])
    path, _, query = address.partition("#")[0].partition("?")
    return path, query


def _without_signature(query: str) -> str:
    parameters = [(unquote_plus(parameter.partition("=")[0]), parameter) for parameter in query.split("&")]
    names = {name for name, _ in parameters}
    signing = {name for mark, signature in _SIGNATURES.items() if mark in names for name in signature}
    return "&".join(
        parameter
        for name, parameter in parameters
        if name not in signing and not name.lower().startswith(_SIGNATURE_PREFIXES)
    )


def why_refused(address: str) -> str | None:
    """Return why nothing is read from an address, or None."""
    known = (*OBJECT_SCHEMES, *WEB_SCHEMES)
    if scheme_of(address) not in known:
        return f"it begins with none of {', '.join(f'{scheme}://' for scheme in known)}"
    try:
        address.encode()
        parts = urlsplit(address)
        host = parts.netloc if scheme_of(address) in OBJECT_SCHEMES else parts.hostname
        _ = parts.port if scheme_of(address) in WEB_SCHEMES else None
    except UnicodeEncodeError:
        return "it holds bytes that are not UTF-8; write each of them as % and two hexadecimal digits"
    except ValueError as error:
        return str(error)
    if "@" in parts.netloc:
        return "a password in it would be kept in the task's record; leave it out"
    if scheme_of(address) in OBJECT_SCHEMES and glob.has_magic(address.split("/")[2]):
        return "the name of a bucket cannot be a pattern"
    return None if host else "it names no host or bucket"
