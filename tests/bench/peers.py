"""The ways that people load texts without us, each a program: `python -m tests.bench.peers WAY SOURCE CHROMA MODEL`.

They read the same file and use the same weights as we do, and leave a collection behind.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from upsert_cli.embedding.catalog import DEFAULT_MODEL

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

UPSERT_ROWS = 1_000  # rows a call of the loops; more gain nothing
WINDOW_ROWS = 512  # rows a batch of the bare minimum
TOKENS = 512  # padded tokens a micro-batch of the bare minimum, as the scorecard says
THREADS = 2
MAX_TOKENS = 256


def with_chromas_function(source: Path, chroma: Path, _model: Path) -> None:
    """S1: a loop of `upsert(ids, documents)`, Chroma embeds by its default function."""
    import chromadb

    collection = chromadb.PersistentClient(str(chroma)).get_or_create_collection("default")
    for rows in _batches(source, UPSERT_ROWS):
        collection.upsert(ids=_ids(rows), documents=_texts(rows))


def with_fastembeds_defaults(source: Path, chroma: Path, model: Path) -> None:
    """S2: call `embed(texts)` with its defaults, and upsert in a loop."""
    import numpy as np
    from fastembed import TextEmbedding

    rows = _rows(source)
    vectors = list(TextEmbedding(DEFAULT_MODEL, specific_model_path=str(model)).embed(_texts(rows)))
    collection = _collection(chroma)
    for start in range(0, len(rows), UPSERT_ROWS):
        part = rows[start : start + UPSERT_ROWS]
        _upsert(collection, part, np.asarray(vectors[start : start + UPSERT_ROWS], dtype=np.float32))


def with_sentence_transformers(source: Path, chroma: Path, model: Path) -> None:
    """S2b: `encode(texts)` on torch with its defaults, and a loop of upserts."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(model), device="cpu")
    collection = _collection(chroma)
    for rows in _batches(source, UPSERT_ROWS):
        _upsert(collection, rows, encoder.encode(_texts(rows), normalize_embeddings=True))


def with_langchain(source: Path, chroma: Path, model: Path) -> None:
    """S2b: `index()` with embeddings on torch; its record of loaded documents is in memory, the cheapest choice."""
    from langchain_chroma import Chroma
    from langchain_core.documents import Document
    from langchain_core.indexing import InMemoryRecordManager, index
    from langchain_huggingface import HuggingFaceEmbeddings

    encoder = HuggingFaceEmbeddings(
        model_name=str(model), model_kwargs={"device": "cpu"}, encode_kwargs={"normalize_embeddings": True}
    )
    records = InMemoryRecordManager(namespace="bench")
    records.create_schema()
    documents = [
        Document(page_content=row["payload"]["text"], metadata={"source": row["object_id"]}) for row in _rows(source)
    ]
    store = Chroma("default", encoder, persist_directory=str(chroma))
    index(documents, records, store, batch_size=UPSERT_ROWS, cleanup="incremental", source_id_key="source")


def bare_minimum(source: Path, chroma: Path, model: Path) -> None:
    """S3: length-ordered micro-batches on two threads and one upsert a batch, in one process, and nothing else."""
    embed = _embedder(model)
    collection = _collection(chroma)
    for rows in _batches(source, WINDOW_ROWS):
        _upsert(collection, rows, embed(_texts(rows)))


def embedding_alone(source: Path, _chroma: Path, model: Path) -> None:
    """Half of S6: the same embedding, and nothing is written."""
    embed = _embedder(model)
    for rows in _batches(source, WINDOW_ROWS):
        embed(_texts(rows))


def _embedder(model: Path) -> Callable[[list[str]], Vectors]:
    import numpy as np
    from fastembed import TextEmbedding
    from tokenizers import Tokenizer

    embedding = TextEmbedding(DEFAULT_MODEL, specific_model_path=str(model), threads=1)
    counting = Tokenizer.from_file(str(model / "tokenizer.json"))
    counting.no_truncation()
    counting.no_padding()
    pool = ThreadPoolExecutor(THREADS)

    def embed(texts: list[str]) -> Vectors:
        lengths = [min(len(encoding), MAX_TOKENS) for encoding in counting.encode_batch_fast(texts)]
        vectors = np.empty((len(texts), 384), dtype=np.float32)

        def one(places: list[int]) -> None:
            vectors[places] = list(embedding.embed([texts[place] for place in places], batch_size=len(places)))

        list(pool.map(one, _micro_batches(lengths)))
        return vectors

    return embed


def _micro_batches(lengths: list[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and (len(batch) + 1) * lengths[batch[0]] > TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _collection(chroma: Path) -> Any:
    import chromadb

    client = chromadb.PersistentClient(str(chroma))
    return client.get_or_create_collection("default", embedding_function=None)


def _upsert(collection: Any, rows: list[dict[str, Any]], vectors: Vectors) -> None:
    collection.upsert(ids=_ids(rows), documents=_texts(rows), embeddings=vectors)


def _batches(source: Path, size: int) -> Iterator[list[dict[str, Any]]]:
    with source.open("rb") as file:
        rows = map(orjson.loads, file)
        while batch := list(itertools.islice(rows, size)):
            yield batch


def _rows(source: Path) -> list[dict[str, Any]]:
    return list(itertools.chain.from_iterable(_batches(source, UPSERT_ROWS)))


def _ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["object_id"] for row in rows]


def _texts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["payload"]["text"] for row in rows]


WAYS = {
    "chroma": with_chromas_function,
    "fastembed": with_fastembeds_defaults,
    "sentence-transformers": with_sentence_transformers,
    "LangChain": with_langchain,
    "bare": bare_minimum,
    "embed": embedding_alone,
}

if __name__ == "__main__":
    WAYS[sys.argv[1]](*map(Path, sys.argv[2:5]))
