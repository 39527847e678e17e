"""A program like upsert-cli whose workers on Ray wait for their vectors as for a remote GPU; run by a benchmark."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from upsert_cli.cli.root import main
from upsert_cli.cluster import ray_cluster
from upsert_cli.cluster.worker import Spec, UnitRunner
from upsert_cli.embedding.identity import Model
from upsert_cli.load import vectors

TEXT_SECONDS = 0.01  # seconds a text, of one worker; takes no processor


class SleepingEmbedder:
    """Vectors that mean nothing, after a time."""

    def __init__(self, model: Model, **_: Any) -> None:
        """Have the dimension of a model."""
        self.dimension = model.dimension
        self.max_tokens = model.max_tokens

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count nothing, so that all texts are of one length."""
        return [32] * len(texts)

    def embed(self, texts: list[str]) -> Any:
        """Sleep, and return a vector for each text."""
        import numpy as np

        time.sleep(TEXT_SECONDS * len(texts))
        made = [np.random.default_rng(crc32(text.encode())).normal(size=self.dimension) for text in texts]
        return np.asarray(made, dtype=np.float32)


class SleepingWorker(UnitRunner):
    """Loads units with vectors that it waited for."""

    def __init__(self, spec: Spec) -> None:
        """Have no model loaded."""
        super().__init__(spec)
        vars(vectors)["load_model"] = SleepingEmbedder


if __name__ == "__main__":
    ray_cluster.UnitRunner = SleepingWorker  # type: ignore[attr-defined]
    main()
