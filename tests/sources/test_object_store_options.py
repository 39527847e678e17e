"""Credentials of object stores that are wrong, conflicting or incomplete are named, but never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.terminal import Terminal
from upsert_cli.sources.object_store_options import azure_options, gs_options, s3_options

SECRET = "S3CRET-S3CRET"  # noqa: S105  # a marker
PEM = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"

WRONG = {
    "two kinds of Azure": (
        "az",
        {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_KEY": "eA==", "AZURE_STORAGE_SAS_TOKEN": SECRET},
        "AZURE_STORAGE_KEY and AZURE_STORAGE_SAS_TOKEN are both set; unset one of them",
    ),
    "two accounts": (
        "az",
        {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_ACCOUNT_NAME": SECRET, "AZURE_STORAGE_KEY": "eA=="},
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT are both set and differ",
    ),
    "an account that is an address": (
        "az",
        {"AZURE_STORAGE_ACCOUNT": f"https://{SECRET}", "AZURE_STORAGE_KEY": "eA=="},
        "AZURE_STORAGE_ACCOUNT is not the name",
    ),
    "no account": ("az", {"AZURE_STORAGE_KEY": SECRET}, "set AZURE_STORAGE_ACCOUNT"),
    "no base64": ("az", {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_KEY": SECRET}, "AZURE_STORAGE_KEY is not"),
    "no signature": (
        "az",
        {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_SAS_TOKEN": SECRET},
        "AZURE_STORAGE_SAS_TOKEN is not",
    ),
    "half a login of Azure": (
        "az",
        {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_CLIENT_SECRET": SECRET, "AZURE_CLIENT_ID": "x"},
        "AZURE_CLIENT_SECRET is set without AZURE_TENANT_ID",
    ),
    "a key in place of its file": (
        "gs",
        {"GOOGLE_APPLICATION_CREDENTIALS": json.dumps({"private_key": SECRET})},
        "GOOGLE_APPLICATION_CREDENTIALS holds a key",
    ),
    "no emulator": ("gs", {"STORAGE_EMULATOR_HOST": "http://[S3CRET"}, "STORAGE_EMULATOR_HOST is not the address"),
    "an emulator of another scheme": (
        "gs",
        {"STORAGE_EMULATOR_HOST": f"ftp://{SECRET}"},
        "STORAGE_EMULATOR_HOST is not the address",
    ),
    "no secret key": ("s3", {"AWS_ACCESS_KEY_ID": SECRET}, "AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"),
    "no key id": ("s3", {"AWS_SECRET_ACCESS_KEY": SECRET}, "AWS_SECRET_ACCESS_KEY is set without AWS_ACCESS_KEY_ID"),
    "a session alone": ("s3", {"AWS_SESSION_TOKEN": SECRET}, "AWS_SESSION_TOKEN is set without AWS_ACCESS_KEY_ID"),
    "a line break": (
        "s3",
        {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": f"{SECRET}\n"},
        "AWS_SECRET_ACCESS_KEY has a space or a line break",
    ),
    "no endpoint": ("s3", {"AWS_ENDPOINT_URL": f"{SECRET}:9000"}, "AWS_ENDPOINT_URL is not the address"),
    "another endpoint": ("s3", {"AWS_ENDPOINT_URL_S3": f"ftp://{SECRET}"}, "AWS_ENDPOINT_URL_S3 is not the address"),
    "a password in an endpoint": (
        "s3",
        {"AWS_ENDPOINT_URL": f"http://ann:{SECRET}@host"},
        "AWS_ENDPOINT_URL is not the address",
    ),
    "no region": ("s3", {"AWS_DEFAULT_REGION": f"{SECRET}!"}, "AWS_DEFAULT_REGION is not the name of a region"),
    "no profile": ("s3", {"AWS_PROFILE": SECRET}, "AWS_PROFILE names a profile that is in neither"),
    "no file of keys": (
        "s3",
        {"AWS_SHARED_CREDENTIALS_FILE": "/nowhere"},
        "AWS_SHARED_CREDENTIALS_FILE names /nowhere",
    ),
    "no token of a role": ("s3", {"AWS_WEB_IDENTITY_TOKEN_FILE": "/"}, "AWS_WEB_IDENTITY_TOKEN_FILE names /"),
}

KEY_FILES = {
    "no JSON": ("{", "is not a key file"),
    "nothing": ("", "is not a key file"),
    "a list": ("[1]", "is not a key file"),
    "another type": ('{"type": "x"}', "is not a key file"),
    "no type": (json.dumps({"client_email": "a", "private_key": PEM}), "is not a key file"),
    "no private key": ('{"type": "service_account", "client_email": "a"}', "has no private_key"),
    "another key": (
        json.dumps({"type": "service_account", "client_email": "a", "private_key": SECRET}),
        "private_key is not in PEM",
    ),
    "no refresh token": ('{"type": "authorized_user", "client_id": "a", "client_secret": "b"}', "has no refresh_token"),
    "deep nesting": ("[" * 100_000, "is not a key file"),
}


@pytest.mark.parametrize(("scheme", "variables", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_variable_is_named(scheme: str, variables: dict[str, str], message: str) -> None:
    """A wrong variable is named before any request, without its value."""
    with pytest.raises(OSError, match=message) as caught:
        if scheme == "az":
            azure_options(variables)
        elif scheme == "gs":
            gs_options(variables)
        else:
            s3_options(variables)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("content", "message"), KEY_FILES.values(), ids=KEY_FILES)
def test_an_invalid_key_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    """The message has the path of the file and never its content."""
    path = tmp_path / "key.json"
    path.write_text(content)
    with pytest.raises(OSError, match=message) as caught:
        gs_options({"GOOGLE_APPLICATION_CREDENTIALS": str(path)})
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("path", [".", "nowhere.json"])
def test_an_unreadable_key_file_is_named(path: str) -> None:
    """So is a folder, at which Google's client would end the process."""
    with pytest.raises(OSError, match=f"GOOGLE_APPLICATION_CREDENTIALS names {path}, which cannot be read"):
        gs_options({"GOOGLE_APPLICATION_CREDENTIALS": path})


def test_good_credentials_are_passed_on(tmp_path: Path) -> None:
    """Empty variables count as unset, and a signature may begin with a question mark."""
    azure = {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_SAS_TOKEN": ""}
    assert azure_options(azure | {"AZURE_STORAGE_KEY": "eA==\n"}) == {"account_name": "a", "account_key": "eA=="}
    for token in ("sv=1&sig=x%3D", "?sv=1&sig=x%3D"):
        found = azure_options(azure | {"AZURE_STORAGE_KEY": "", "AZURE_STORAGE_SAS_TOKEN": token})
        assert found == {"account_name": "a", "sas_token": "?sv=1&sig=x%3D"}
    key = tmp_path / "key.json"
    key.write_text(json.dumps({"type": "service_account", "client_email": "a", "private_key": PEM}))
    assert gs_options({"GOOGLE_APPLICATION_CREDENTIALS": str(key)}).keys() == {"retry_time_limit"}
    (tmp_path / "credentials").write_text("[other]\naws_access_key_id = a\n")
    (tmp_path / "config").write_text("[profile mine]\nregion = eu-central-1\n")
    files = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_CONFIG_FILE": str(tmp_path / "config")}
    for profile in ("mine", "other"):
        found = s3_options(files | {"AWS_PROFILE": profile, "AWS_REGION": "eu-central-1"})
        assert found["region"] == "eu-central-1"


@pytest.mark.parametrize("name", ["two kinds of Azure", "a key in place of its file", "no endpoint"])
def test_a_load_names_wrong_credentials_in_one_line(terminal: Terminal, name: str) -> None:
    """Wrong credentials are an error of one line, not a bug with a traceback."""
    scheme, variables, message = WRONG[name]
    terminal.env |= variables
    done = terminal.type(f"upsert-cli run {scheme}://bucket/a.jsonl", expect=1)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert SECRET not in done.stderr
