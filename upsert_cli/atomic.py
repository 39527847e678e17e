"""Files that the user names for what the tool writes: whole or not at all, and readable as their umask says."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_out(path: Path, content: str) -> None:
    """Gives a file new content, so that nobody ever reads half of it; a pipe or a device is written as it stands.

    Raises:
        OSError: It cannot be written; what it held before is whole.
    """
    target = path.resolve()  # where `path` is a link, it stays one
    if target.exists() and not target.is_file():
        target.write_text(content, encoding="utf-8")
        return
    # A hidden name with another ending, so that nobody who watches the folder takes it for one of theirs.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):  # it is in nobody's way, and the first error is the one that counts
            temporary.unlink()
        raise
