"""The prefixes that the makers of fastembed's models ask for, by their model cards.

Every dense model has an entry; a test compares the names with fastembed's list.
"""

from __future__ import annotations

from upsert_cli.embedding.custom import GivenFolder, prompts_of
from upsert_cli.embedding.identity import NO_PREFIXES, Prefixes

_SEARCHED_BY_SENTENCE = Prefixes(query="Represent this sentence for searching relevant passages: ")
_NOMIC = Prefixes("search_document: ", "search_query: ")
_QWEN = Prefixes(query="Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:")

PREFIXES = {
    # https://huggingface.co/BAAI/bge-base-en and .../bge-small-en: queries need the instruction, passages need none.
    "BAAI/bge-base-en": _SEARCHED_BY_SENTENCE,
    "BAAI/bge-small-en": _SEARCHED_BY_SENTENCE,
    # https://huggingface.co/BAAI/bge-small-en-v1.5: made to work without an instruction, which gains little.
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
        # Their cards (https://huggingface.co/ and the name) ask for none.
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


def prefixes_of(name: str, *, given: GivenFolder | None = None) -> Prefixes:
    """Return the prefixes that the maker of a model asks for, in any case of the name's letters; none if not known.

    Those of a model that fastembed does not list are in its folder.

    Raises:
        UpsertCliError: They cannot be read.
    """
    known = _BY_LOWER_NAME.get(name.lower())
    if known is None and given is not None:
        return prompts_of(name, given.path)
    return NO_PREFIXES if known is None else known
