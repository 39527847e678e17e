"""The facts about models that are known without their files: the default model, the fields of an entry, and prefixes.

This module imports nothing heavy, since the import of fastembed takes a second.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
NO_MODEL = "none"  # stands for a model's name where the items bring their vectors
TABLE = ".safetensors"  # the suffix of a model that is a table of vectors, without a network
MAX_TOKENS = 256  # of the default model: the checkpoint's max_seq_length, and the limit of Chroma's default function

Pooling: TypeAlias = Literal["mean", "cls", "last-token", "none"]

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
_NORMALIZED = ", normalized"


def embeds(name: str) -> bool:
    """Check that the name of a model is not `none`, which stands for the vectors of the items."""
    return name.lower() != NO_MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFolder:
    """A folder that the user names for a model, with the steps from the model's output to a vector."""

    path: Path
    pooling: Pooling | None = None
    """None for the pooling that its files name."""

    normalize: bool = True
    """Normalize the vectors, unless its files list steps and normalization is not among them."""

    @property
    def names_steps(self) -> bool:
        """Check that the user names a step."""
        return self.pooling is not None or not self.normalize


def parse_steps(steps: str) -> tuple[Pooling | None, bool]:
    """Return the pooling in `ModelEntry.steps`, None for an unknown one, and whether the vectors are normalized."""
    name = steps.removesuffix(_NORMALIZED)
    return next((known for known in POOLINGS if known == name), None), steps.endswith(_NORMALIZED)


class Prefixes(NamedTuple):
    """Texts that are embedded before each other text, and not stored."""

    passage: str = ""
    """The text before each document."""

    query: str = ""
    """The text before each search text."""

    def as_json(self) -> dict[str, str]:
        """Return the prefixes as fields of a model."""
        return {"passage_prefix": self.passage, "query_prefix": self.query}

    def as_arguments(self) -> str:
        """Return the options of `run` for these prefixes."""
        return f"--passage-prefix {shlex.quote(self.passage)} --query-prefix {shlex.quote(self.query)}"


NO_PREFIXES = Prefixes()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A dense text model, as fastembed's list or the files of a folder describe it."""

    name: str
    dimension: int
    repository: str | None
    """Its name on the model hub, such as `Qdrant/all-MiniLM-L6-v2-onnx`."""

    weights: tuple[str, ...]
    """The files of the network in the model's folder: `onnx/model.onnx`, `onnx/model.onnx_data`."""

    prefixes: Prefixes = NO_PREFIXES
    """The prefixes that its maker asks for."""

    size_gb: float = 0.0
    license: str = ""
    description: str = ""
    max_tokens: int | None = None
    """The limit of a text; None if only the tokenizer's settings name it."""

    cached: bool = False
    pooling: Pooling | None = None
    """The step from the tokens of a text to one vector; None for a model that fastembed lists."""

    normalizes: bool = True
    output: str = ""
    """The output of the graph with the vectors."""

    assumed: bool = False
    """Whether neither the user nor the files name the pooling, so that the default of sentence-transformers is used."""

    leaves_out_prompt: bool = False
    """Whether the files ask for the mean of a text's tokens without its prompt, which fastembed cannot compute."""

    def as_json(self) -> dict[str, Any]:
        """Return an entry of `models list --json`."""
        names = ("name", "dimension", "max_tokens", "size_gb", "license", "description", "cached")
        return {name: getattr(self, name) for name in names} | self.prefixes.as_json()

    @property
    def is_static(self) -> bool:
        """Check that the model is a table of vectors, without a network."""
        return self.weights[0].endswith(TABLE)

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files that the model's folder must hold."""
        return (*self.weights, "tokenizer.json", *(() if self.is_static else ("tokenizer_config.json",)))

    @property
    def steps(self) -> str:
        """Return the steps from the output to a vector, for the stamp of a collection; empty for a listed model."""
        return "" if self.pooling is None else self.pooling + (_NORMALIZED if self.normalizes else "")


DEFAULT_ENTRY = ModelEntry(
    name=DEFAULT_MODEL,
    dimension=384,
    repository="Qdrant/all-MiniLM-L6-v2-onnx",
    weights=("model.onnx",),
    max_tokens=MAX_TOKENS,
)

# By the makers' model cards. A test checks that each dense model of fastembed has an entry.
_SEARCHED_BY_SENTENCE = Prefixes(query="Represent this sentence for searching relevant passages: ")
_NOMIC = Prefixes("search_document: ", "search_query: ")
_QWEN = Prefixes(query="Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:")

PREFIXES = {
    # https://huggingface.co/BAAI/bge-base-en and .../bge-small-en: queries need the instruction, passages need none.
    "BAAI/bge-base-en": _SEARCHED_BY_SENTENCE,
    "BAAI/bge-small-en": _SEARCHED_BY_SENTENCE,
    # https://huggingface.co/BAAI/bge-small-en-v1.5: works without an instruction.
    "BAAI/bge-base-en-v1.5": NO_PREFIXES,
    "BAAI/bge-large-en-v1.5": NO_PREFIXES,
    "BAAI/bge-small-en-v1.5": NO_PREFIXES,
    "BAAI/bge-small-zh-v1.5": NO_PREFIXES,
    # https://huggingface.co/mixedbread-ai/mxbai-embed-large-v1
    "mixedbread-ai/mxbai-embed-large-v1": _SEARCHED_BY_SENTENCE,
    # https://huggingface.co/Snowflake/snowflake-arctic-embed-m, and the same on the cards of the other sizes
    "snowflake/snowflake-arctic-embed-xs": _SEARCHED_BY_SENTENCE,
    "snowflake/snowflake-arctic-embed-s": _SEARCHED_BY_SENTENCE,
    "snowflake/snowflake-arctic-embed-m": _SEARCHED_BY_SENTENCE,
    "snowflake/snowflake-arctic-embed-m-long": _SEARCHED_BY_SENTENCE,
    "snowflake/snowflake-arctic-embed-l": _SEARCHED_BY_SENTENCE,
    # https://huggingface.co/NovaSearch/stella_en_400M_v5: the prompt s2p_query
    "Qdrant/stella-en-400M-v5-doc-onnx": Prefixes(
        query="Instruct: Given a web search query, retrieve relevant passages that answer the query.\nQuery: "
    ),
    # https://huggingface.co/nomic-ai/nomic-embed-text-v1.5 and .../nomic-embed-text-v1
    "nomic-ai/nomic-embed-text-v1.5": _NOMIC,
    "nomic-ai/nomic-embed-text-v1.5-Q": _NOMIC,
    "nomic-ai/nomic-embed-text-v1": _NOMIC,
    # https://huggingface.co/intfloat/multilingual-e5-large
    "intfloat/multilingual-e5-large": Prefixes("passage: ", "query: "),
    # https://huggingface.co/google/embeddinggemma-300m: a document without a title
    "google/embeddinggemma-300m": Prefixes("title: none | text: ", "task: search result | query: "),
    # https://huggingface.co/jinaai/jina-embeddings-v3: the prompts retrieval.passage and retrieval.query. fastembed
    # sets the tasks of the same names, and leaves out the prompts.
    "jinaai/jina-embeddings-v3": Prefixes(
        "Represent the document for retrieval: ", "Represent the query for retrieving evidence documents: "
    ),
    # https://huggingface.co/Qwen/Qwen3-Embedding-0.6B: the prompt `query`, and none for documents
    "Qwen/Qwen3-Embedding-0.6B": _QWEN,
    "Qwen/Qwen3-Embedding-0.6B-Q": _QWEN,
} | dict.fromkeys(
    (
        # Their cards (https://huggingface.co/ and the name) ask for no prefix.
        "Qdrant/clip-ViT-B-32-text",
        "Qdrant/constella-nano",
        "Qdrant/constella-zero",
        "google/siglip2-base-patch16-224",
        "ibm-granite/granite-embedding-small-english-r2",
        "jinaai/jina-clip-v1",
        "jinaai/jina-embeddings-v2-base-code",
        "jinaai/jina-embeddings-v2-base-de",
        "jinaai/jina-embeddings-v2-base-en",
        "jinaai/jina-embeddings-v2-base-es",
        "jinaai/jina-embeddings-v2-base-zh",
        "jinaai/jina-embeddings-v2-small-en",
        "minishlab/potion-base-8M",
        "minishlab/potion-multilingual-128M",
        "minishlab/potion-retrieval-32M",
        "sentence-transformers/all-MiniLM-L6-v2",
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
        "thenlper/gte-base",
        "thenlper/gte-large",
    ),
    NO_PREFIXES,
)

_BY_LOWER_NAME = {name.lower(): prefixes for name, prefixes in PREFIXES.items()}


def known_prefixes(name: str) -> Prefixes | None:
    """Return the prefixes of a model, whose name may be in any case of letters; None without an entry."""
    return _BY_LOWER_NAME.get(name.lower())
