"""What is wrong with a cluster, or with the work on it."""

from __future__ import annotations

import shlex

from upsert_cli.errors.base import Refusal, UpsertCliError


class RayMissing(Refusal):
    """Raised when a load is to run on Ray, and Ray is not installed."""

    def __str__(self) -> str:
        return "--engine ray needs Ray, which is not installed; `pip install 'upsert-cli[ray]'` does that"


class FolderNotShared(Refusal):
    """Raised when several processes are to write a folder that only one may write."""

    path: str

    def __str__(self) -> str:
        return (
            f"--engine ray loads by several processes, and one alone may write Chroma's folder {self.path}; "
            f"serve it by `chroma run --path {shlex.quote(self.path)}` and load into --chroma http://HOST:8000"
        )


class ClusterUnreachable(UpsertCliError):
    """Raised when Ray cannot be started, or a cluster of it not be joined."""

    address: str
    reason: str

    def __str__(self) -> str:
        return (
            f"no Ray cluster at {self.address}: {self.reason}; `ray start --head` starts one on this machine, "
            f"--ray-address HOST:PORT joins another (with RAY_AUTH_TOKEN, if it has a token), and --ray-address local "
            f"makes one for this load alone"
        )


class ClusterLost(UpsertCliError):
    """Raised when the head of a Ray cluster is gone in the middle of a load."""

    reason: str

    def __str__(self) -> str:
        return f"the Ray cluster was lost: {self.reason}; what is done is kept, so restart the task once it is back"


class WorkersKeepDying(UpsertCliError):
    """Raised when workers die before they can do anything."""

    times: int
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.times} workers died one after the other before they were ready: {self.reason}; every machine of "
            f"the cluster needs this version of upsert-cli in the Python that Ray runs there"
        )


class VersionsDiffer(UpsertCliError):
    """Raised when a worker has another version of this tool."""

    worker: str
    had: str
    wanted: str

    def __str__(self) -> str:
        return f"the worker {self.worker} has upsert-cli {self.had}, and this is {self.wanted}; install the same there"


class SecretMissing(UpsertCliError):
    """Raised when a worker lacks the variable that lets this process into the target."""

    variable: str
    worker: str

    def __str__(self) -> str:
        return (
            f"{self.variable} is set here, but not for the worker {self.worker}; set it where Ray is started on that "
            f"machine, since a task carries only the names of such variables"
        )


class UnitKeepsFailing(UpsertCliError):
    """Raised when worker after worker dies with a part of a file of which nobody knows how many rows it has."""

    source: str
    row: int
    times: int
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.times} workers died with what follows row {self.row} of {self.source}: {self.reason}; unpack the "
            f"file, so that it can be cut and the row be found, and look into Ray's logs"
        )


class RepeatsUnsettled(UpsertCliError):
    """Raised when the last row of an id that comes again was loaded, but cannot be loaded once more."""

    source: str
    row: int
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.source}:{self.row} has an id that comes again, and to let it win it could not be written once "
            f"more: {self.reason}; once the cause is gone, restart the task"
        )
