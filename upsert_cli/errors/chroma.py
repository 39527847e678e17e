"""What is wrong with the collection that is loaded into."""

from __future__ import annotations

from upsert_cli.errors.base import Refusal, UpsertCliError, UsageFault
from upsert_cli.errors.reading import _repair_command


class BadCollectionName(UsageFault):
    """Raised when Chroma does not accept the name of a collection that is to be made."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name!r} cannot be the name of a collection: {self.reason}; choose another with --collection"


class TargetInUse(Refusal):
    """Raised when another upsert-cli has the folder."""

    path: str
    holder: str
    """Who has it, in words: `pid 4242 on host since ...`."""

    def __str__(self) -> str:
        return (
            f"{self.path} is in use by {self.holder}; wait for it to end, "
            f"or choose another folder with --chroma (two writers would destroy the index)"
        )


class CollectionInUse(TargetInUse):
    """Raised when another upsert-cli of this journal loads into a collection on a server."""

    collection: str

    def __str__(self) -> str:
        return (
            f"the collection {self.collection} of {self.path} is in use by {self.holder}; wait for it to end, "
            f"or choose another --collection"
        )


class TargetBusy(Refusal):
    """Raised when another program is writing to the folder."""

    path: str
    program: str = ""
    """Which, where that can be seen: `pid 4242 (python3)`."""

    def __str__(self) -> str:
        return (
            f"another program is writing to {self.path}{self.program and f': {self.program}'}; two writers destroy the "
            f"index: stop it, or let it end, then try again"
        )


class TargetOpen(Refusal):
    """Raised when another program has the folder's database or index open, such as an idle server."""

    path: str
    program: str
    """Which: `pid 4242 (chroma)`."""

    def __str__(self) -> str:
        return (
            f"{self.path} is open in {self.program}, which may write its older index over what is loaded; nothing was "
            f"written: stop it, then try again, or, if it is a Chroma server, load through it with "
            f"--chroma http://HOST:PORT"
        )


class ModelMismatch(Refusal):
    """Raised when a collection was made with another model, or with the same model used otherwise."""

    path: str
    collection: str
    what: str
    """What differs: `model`, `token limit`."""

    had: str
    asked: str

    def __str__(self) -> str:
        return (
            f"the collection {self.collection} in {self.path} was made with the {self.what} {self.had}, not "
            f"{self.asked}; load with that, or into another --collection"
        )


class DimensionMismatch(Refusal):
    """Raised when a collection holds vectors of another length than the model gives."""

    path: str
    collection: str
    had: int
    asked: int
    model: str

    def __str__(self) -> str:
        return (
            f"the collection {self.collection} in {self.path} holds vectors of {self.had} numbers, and {self.model} "
            f"gives {self.asked}; choose the --model it was made with, or another --collection"
        )


class TargetDamaged(UpsertCliError):
    """Raised when a collection's index cannot be read, or does not hold what it should."""

    path: str
    collection: str
    detail: str

    def __str__(self) -> str:
        return (
            f"the collection {self.collection} in {self.path} is damaged ({self.detail}); its documents survive: "
            f"`{_repair_command(self.collection, self.path)}` mends it"
        )


class TargetUnusable(UpsertCliError):
    """Raised when the folder is there but Chroma cannot work with it."""

    path: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path} cannot be used: {self.reason}; {self.remedy}"


class DiskFull(UpsertCliError):
    """Raised when there is not enough room to write on without a loss."""

    path: str
    free: int
    """Bytes."""

    needed: int
    """Bytes, with a reserve: on a full disk Chroma loses index data without an error."""

    def __str__(self) -> str:
        what = f"has {self.free >> 20} MiB free and {self.needed >> 20} MiB are needed"
        if self.free >= self.needed:
            what = "takes no more, though its disk is not full: there is a quota, or there are too many files"
        return f"{self.path} {what}; make room, then restart the task: all that was written is safe"


class WriterDied(UpsertCliError):
    """Raised when the process that writes to Chroma ends by itself, again and again."""

    path: str
    collection: str
    how: str
    """How it ended, such as `SIGSEGV`."""

    def __str__(self) -> str:
        return (
            f"the process that writes the collection {self.collection} in {self.path} ended by {self.how} each time; "
            f"the collection's index may be damaged: `{_repair_command(self.collection, self.path)}` checks and mends "
            f"it (SIGKILL may also mean that memory ran out)"
        )
