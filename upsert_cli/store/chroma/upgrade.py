"""The upgrade of a folder that another version of Chroma wrote: refused, or prepared and announced."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from upsert_cli.errors import Refusal
from upsert_cli.missing_packages import install_command
from upsert_cli.store.base import Target
from upsert_cli.store.chroma import database, migrations
from upsert_cli.store.chroma.database_file import applied_migrations
from upsert_cli.store.chroma.stamp import check_model


def prepare_upgrade(folder: Path, target: Target, *, is_copy: bool) -> str | None:
    """Return the warning that Chroma will upgrade a folder, once nothing known speaks against it; None if it will not.

    Args:
        folder: The folder that Chroma is about to open.
        target: The target that a message names.
        is_copy: Whether the folder is a temporary copy of the target.

    Raises:
        Refusal: A newer version of Chroma wrote the folder; or an older one did, and the load will be refused.
    """
    found = applied_migrations(folder)
    if migrations.is_newer(found, migrations.KNOWN):
        _require_known(found, target)
    if not migrations.is_older(found):
        return None
    if target.model.name and (info := database.describe(folder, target.collection)) is not None:
        check_model(target, info)
    database.make_queue_readable(folder)
    upgrades = "would upgrade" if is_copy else "upgrades"
    return (
        f"{migrations.writer(found)} wrote {target.path}; a load {upgrades} it to the present one, and older "
        f"versions cannot open it afterwards"
    )


def _require_known(found: Mapping[str, int], target: Target) -> None:
    """Check that the Chroma that is installed knows the migrations, by those that it applies to a new folder."""
    from upsert_cli.store.chroma.client import connect_folder

    with tempfile.TemporaryDirectory(prefix="upsert-cli-") as empty:
        connect_folder(empty).close()
        if not migrations.is_newer(found, applied_migrations(Path(empty))):
            return
    raise Refusal(
        message=f"a newer version of Chroma than the installed one wrote {target.path}, and nothing was written; "
        f"upgrade it with `{install_command('--upgrade', 'chromadb')}`, or choose another folder with --chroma"
    )
