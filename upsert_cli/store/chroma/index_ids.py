"""Read which records a vector index holds, from the pickle that Chroma keeps with it, and run no code of it."""

from __future__ import annotations

import pickle
from collections.abc import Set
from pathlib import Path
from typing import Any


class _Plain:
    """An object of any class: its fields, and nothing of its code."""


class _Unpickler(pickle.Unpickler):
    """Builds plain data; what a file names as a class or a function is never looked up."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ARG002
        return _Plain


def saved_ids(path: Path) -> Set[str] | None:
    """Return the ids of the records in an index; None where the file is not as a known version of Chroma writes it.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        try:
            saved = _Unpickler(file).load()
        except OSError:
            raise
        except Exception:  # noqa: BLE001  # damaged pickles raise errors of any kind
            return None
    fields = saved if isinstance(saved, dict) else getattr(saved, "__dict__", {})
    labels = fields.get("id_to_label")
    return labels.keys() if isinstance(labels, dict) else None
