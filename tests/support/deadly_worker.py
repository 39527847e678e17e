"""A program like upsert-cli whose workers on Ray die of a certain text."""

from __future__ import annotations

import os
import signal

from upsert_cli.cli.root import main
from upsert_cli.cluster import ray_cluster
from upsert_cli.cluster.worker import Spec, UnitRunner
from upsert_cli.journal.receipts import Receipt
from upsert_cli.load.task_sources import sources_of
from upsert_cli.sources.rows import Rows, Unit

DEADLY = "deadly text"


class DeadlyWorker(UnitRunner):
    """Dies as a crash in native code would let it."""

    def __init__(self, spec: Spec) -> None:
        """Remember the sources, to look for the text."""
        super().__init__(spec)
        self.sources = sources_of(spec.task)

    def run(self, unit: Unit) -> Receipt:
        """Load a unit, unless it contains a deadly text."""
        for row, _ in Rows(sources=self.sources).of(unit):
            if DEADLY in str(row.payload):
                os.kill(os.getpid(), signal.SIGKILL)
        return super().run(unit)


if __name__ == "__main__":
    ray_cluster.UnitRunner = DeadlyWorker  # type: ignore[attr-defined]
    main()
