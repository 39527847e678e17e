"""Options of pyarrow's file systems for object stores, from the environment, with checks of the credentials there.

The libraries behind pyarrow report a wrong or missing variable late, without its name, or by ending the process. No
value of a variable is ever shown, except the name of a file.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

TIMEOUT = 20.0  # seconds without an answer; Google's client would ask again for 15 minutes

_AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_AZURE_LOGIN = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_ID", "AZURE_TENANT_ID")
_REGION = re.compile(r"[A-Za-z0-9-]+")
_ACCOUNT = re.compile(r"[A-Za-z0-9-]+")
_HEADING = re.compile(r"^\s*\[\s*(?:profile\s+)?([^\]\n]+?)\s*\]", re.MULTILINE)  # of a profile
_KEY_FILES = {  # the fields that Google's clients need in a file of each type
    "service_account": ("client_email", "private_key"),
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
    "external_account": ("audience", "credential_source"),
    "impersonated_service_account": ("source_credentials",),
    "external_account_authorized_user": (),
    "gdch_service_account": (),
}
_GOOGLE_DEFAULT = ".config/gcloud/application_default_credentials.json"


def s3_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of `pyarrow.fs.S3FileSystem`; without `region` if the environment does not set it.

    Raises:
        OSError: A variable is wrong, or needs another one that is missing.
    """
    _check_aws_keys(environment)
    options: dict[str, Any] = {"request_timeout": TIMEOUT, "connect_timeout": TIMEOUT}
    region_name, region = _first(environment, "AWS_REGION", "AWS_DEFAULT_REGION")
    if region and not _REGION.fullmatch(region):
        raise OSError(f"{region_name} is not the name of a region; set it to one such as us-east-1")
    name, endpoint = _first(environment, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    if endpoint:
        parts = _address(name, endpoint)
        return options | {"endpoint_override": parts.netloc, "scheme": parts.scheme, "region": region or "us-east-1"}
    return options | {"region": region} if region else options


def gs_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of `pyarrow.fs.GcsFileSystem`.

    Raises:
        OSError: A variable is wrong, or names a file without a key.
    """
    options: dict[str, Any] = {"retry_time_limit": timedelta(seconds=TIMEOUT)}
    if emulator := environment.get("STORAGE_EMULATOR_HOST"):
        parts = _address("STORAGE_EMULATOR_HOST", emulator if "://" in emulator else f"http://{emulator}")
        return options | {"endpoint_override": parts.netloc, "scheme": parts.scheme, "anonymous": True}
    default = _home(environment) / _GOOGLE_DEFAULT
    name = "GOOGLE_APPLICATION_CREDENTIALS"
    if named := environment.get(name):
        _check_key_file(named, named_by=name, remedy=f"set {name} to one")
    elif default.exists():
        _check_key_file(str(default), named_by=None, remedy="`gcloud auth application-default login` makes one")
    return options


def azure_options(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the options of `pyarrow.fs.AzureFileSystem`.

    Raises:
        OSError: A variable is wrong, conflicts with another one, or needs another one that is missing.
    """
    key, token = (environment.get(name, "").strip() for name in ("AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"))
    if key and token:
        raise OSError("AZURE_STORAGE_KEY and AZURE_STORAGE_SAS_TOKEN are both set; unset one of them")
    options = {"account_name": _azure_account(environment)}
    if token:
        if not re.search(r"(^|[?&])sig=[^&\s]", token) or not token.isprintable() or " " in token:
            raise OSError("AZURE_STORAGE_SAS_TOKEN is not a shared access signature, which has sig=... in it")
        return options | {"sas_token": f"?{token.removeprefix('?')}"}
    if key:
        _check_azure_key(key)
        return options | {"account_key": key}
    if environment.get(_AZURE_LOGIN[0]):
        _require(environment, _AZURE_LOGIN[0], *_AZURE_LOGIN[1:])
    return options


# -- one variable -------------------------------------------------------------------------------------------------


def _first(environment: Mapping[str, str], *names: str) -> tuple[str, str]:
    """Return the name and the value of the first variable that is set; empty texts if no variable is."""
    return next(((name, environment[name]) for name in names if environment.get(name)), ("", ""))


def _require(environment: Mapping[str, str], name: str, *needed: str) -> None:
    missing = [each for each in needed if not environment.get(each)]
    if missing:
        raise OSError(f"{name} is set without {' and '.join(missing)}; set that too, or unset {name}")


def _address(name: str, value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or "@" in parts.netloc:
        raise OSError(f"{name} is not the address of a server; set it to one such as http://localhost:9000")
    return parts


def _azure_account(environment: Mapping[str, str]) -> str:
    names = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")
    accounts = {environment[name] for name in names if environment.get(name)}
    if len(accounts) > 1:
        raise OSError("AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT are both set and differ; unset one of them")
    if not accounts:
        raise OSError("set AZURE_STORAGE_ACCOUNT to the name of the storage account")
    [account] = accounts
    if not _ACCOUNT.fullmatch(account):
        raise OSError("AZURE_STORAGE_ACCOUNT is not the name of a storage account: only letters and digits")
    return account


def _check_azure_key(key: str) -> None:
    try:
        base64.b64decode(key, validate=True)
    except ValueError as error:
        raise OSError("AZURE_STORAGE_KEY is not an account key, which is text in base64; copy it again") from error


def _check_aws_keys(environment: Mapping[str, str]) -> None:
    for name, other in (_AWS_KEYS, _AWS_KEYS[::-1], ("AWS_SESSION_TOKEN", _AWS_KEYS[0])):
        if value := environment.get(name):
            _require(environment, name, other)
            if not value.isprintable() or any(map(str.isspace, value)):
                raise OSError(f"{name} has a space or a line break in it; set it again without")
    if any(map(environment.get, _AWS_KEYS)):
        return  # they come before profiles and roles
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        if named := environment.get(name):
            _content(named, named_by=name)
    if environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        _require(environment, "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")
    name, profile = _first(environment, "AWS_PROFILE", "AWS_DEFAULT_PROFILE")
    if profile and profile not in _profiles(environment):
        raise OSError(f"{name} names a profile that is in neither file of the AWS tools; correct it, or unset it")


def _profiles(environment: Mapping[str, str]) -> set[str]:
    """Return the names of all profiles, by the headings; only the store's client reads the rest."""
    found: set[str] = set()
    for name, default in (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")):
        with suppress(OSError):
            text = Path(environment.get(name) or _home(environment) / ".aws" / default).read_text("utf-8", "replace")
            found.update(heading.strip("\"'") for heading in _HEADING.findall(text))
    return found


def _home(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("HOME") or "/nonexistent")


def _content(path: str, *, named_by: str | None) -> bytes:
    """Return the content of a file; the error names the variable that names the file, if any.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not the name of a file"
        subject = path if named_by is None else f"{named_by} names {path}, which"
        raise OSError(f"{subject} cannot be read ({reason}); correct that") from error


def _check_key_file(path: str, *, named_by: str | None, remedy: str) -> None:
    if path.lstrip().startswith("{"):
        raise OSError("GOOGLE_APPLICATION_CREDENTIALS holds a key; write it into a file and set it to the file's name")
    content = _content(path, named_by=named_by)
    if content.startswith(b"0"):  # a certificate in the older form, PKCS #12
        return
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    kind = value.get("type") if isinstance(value, dict) else None
    needed = _KEY_FILES.get(kind) if isinstance(kind, str) else None
    if value is None or needed is None:
        raise OSError(f"{path} is not a key file of Google Cloud; {remedy}")
    missing = [name for name in needed if not value.get(name)]
    if missing:
        raise OSError(f"{path} is not a key file of Google Cloud, it has no {' and no '.join(missing)}; {remedy}")
    key = value.get("private_key", "-----BEGIN")
    if not isinstance(key, str) or not key.startswith("-----BEGIN"):
        raise OSError(f"{path} is not a key file of Google Cloud, its private_key is not in PEM; {remedy}")
