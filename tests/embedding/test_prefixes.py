"""The prefixes that models ask for: known for every model, and put before each text that is embedded."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from upsert_cli.embedding.catalog import DEFAULT_MODEL, NO_PREFIXES, PREFIXES, GivenFolder, Prefixes
from upsert_cli.embedding.embedder import load_model
from upsert_cli.embedding.fastembed import load_token_counter
from upsert_cli.embedding.identity import Model
from upsert_cli.embedding.models import find_model, list_models, prefixes_of


def test_every_model_has_an_entry() -> None:
    """A model that is new in fastembed fails this test until the table has its prefixes or says that it needs none."""
    assert {entry.name for entry in list_models()} == set(PREFIXES)


def test_models_whose_description_asks_for_prefixes_have_some() -> None:
    """The table agrees with the descriptions in fastembed's list, except for one model that is listed by task alone."""
    asking = {
        entry.name: "necessary" not in said or said.startswith("necessary")
        for entry in list_models()
        for said in [entry.description.partition("Prefixes for queries/documents: ")[2]]
    }
    assert {name for name, asks in asking.items() if asks} == {
        name for name, prefixes in PREFIXES.items() if prefixes != NO_PREFIXES
    } - {"jinaai/jina-embeddings-v3"}
    assert sum(asking.values()) == 16


@pytest.mark.parametrize(
    ("name", "prefixes"),
    [
        ("intfloat/multilingual-e5-large", ("passage: ", "query: ")),
        ("NOMIC-AI/nomic-embed-text-v1.5", ("search_document: ", "search_query: ")),
        ("BAAI/bge-small-en", ("", "Represent this sentence for searching relevant passages: ")),
        ("google/embeddinggemma-300m", ("title: none | text: ", "task: search result | query: ")),
        (DEFAULT_MODEL, ("", "")),
        ("none", ("", "")),
    ],
)
def test_prefixes_of_models(name: str, prefixes: tuple[str, str]) -> None:
    """The letters of a name may be in any case, and vectors of items have no prefixes."""
    assert prefixes_of(name) == prefixes


def test_each_text_reaches_the_model_after_its_prefix(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents and search texts go through fastembed's own methods for them, whole, and are counted as they go."""
    from fastembed import TextEmbedding

    model = find_model(DEFAULT_MODEL, given=GivenFolder(path=tiny_model), prefixes=Prefixes("passage: ", "query: "))
    embedder = load_model(model)
    plain = load_model(find_model(DEFAULT_MODEL, given=GivenFolder(path=tiny_model), prefixes=NO_PREFIXES))
    seen: list[tuple[str, list[str]]] = []

    def spied(name: str) -> Any:
        own = getattr(TextEmbedding, name)

        def call(self: TextEmbedding, texts: Iterable[str], **options: Any) -> Any:
            seen.append((name, list(texts)))
            return own(self, texts, **options)

        return call

    for name in ("passage_embed", "query_embed"):
        monkeypatch.setattr(TextEmbedding, name, spied(name))
    documents, search = embedder.embed(["one", "two words"]), embedder.embed_query("three")
    assert seen == [("passage_embed", ["passage: one", "passage: two words"]), ("query_embed", ["query: three"])]
    np.testing.assert_array_equal(documents, plain.embed(["passage: one", "passage: two words"]))
    np.testing.assert_array_equal(search, plain.embed(["query: three"]))
    long = "x " * 100_000
    for counter in (embedder, load_token_counter(model)):
        assert counter.count(["one", ""]) == plain.count(["passage: one", "passage: "])
        assert counter.count([long])[0] > model.max_tokens
    assert embedder.count_query("three") == plain.count(["query: three"])[0]
    np.testing.assert_allclose(embedder.embed([long]), plain.embed([f"passage: {long}"]), atol=1e-6)


def test_a_table_of_vectors_is_loaded_without_settings_of_a_network(model: Model, tmp_path: Path) -> None:
    """It needs its tokenizer alone, whose special tokens it leaves out, and nothing warns of settings."""
    shutil.copy(model.folder / "tokenizer.json", tmp_path)
    table = np.full((30_522, 256), 0.5, np.float32)
    entry = {"dtype": "F32", "shape": table.shape, "data_offsets": [0, table.nbytes]}
    header = json.dumps({"embeddings": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + table.tobytes())
    found = find_model("minishlab/potion-base-8M", given=GivenFolder(path=tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedder = load_model(found)
    for counter in (embedder, load_token_counter(found)):
        assert counter.count(["hello world"]) == [2]
    np.testing.assert_allclose(embedder.embed(["hello world"]), np.full((1, 256), 1 / 16), atol=1e-6)


def test_fastembed_distinguishes_documents_and_queries_of_jina_v3() -> None:
    """The methods that the embedder calls set the task of the one model of the list that has tasks."""
    from fastembed.text.multitask_embedding import JinaEmbeddingV3
    from fastembed.text.text_embedding_base import TextEmbeddingBase

    for name in ("passage_embed", "query_embed"):
        assert getattr(JinaEmbeddingV3, name) is not getattr(TextEmbeddingBase, name)
