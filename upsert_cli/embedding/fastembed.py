"""The list of models of fastembed, their tokenizers, and embedding with onnxruntime."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from upsert_cli.embedding.catalog import NO_PREFIXES, TABLE, ModelEntry, known_prefixes
from upsert_cli.embedding.identity import Model
from upsert_cli.errors import UpsertCliError
from upsert_cli.packages import lean_imports

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from upsert_cli.embedding.openvino import OpenVinoSession

CHARACTERS_A_TOKEN = 16  # characters of a text to read at first for each token of the limit; English has about 4.5
ENOUGH = 2  # times the limit, in tokens: a cut within the last word then moves no token that the model reads
STATIC_TOKENS = 512  # fastembed's MAX_LENGTH for models without a network, whose files name no limit
GPU_PROVIDER = "CUDAExecutionProvider"

_registered: set[str] = set()  # the names of custom models in fastembed's list, which belongs to this process
_REGISTERING = threading.Lock()


def supported_models() -> Iterator[ModelEntry]:
    """Yield the dense text models that fastembed lists; its import takes a second."""
    from fastembed import TextEmbedding

    for model in TextEmbedding.list_supported_models():
        if model["model"] in _registered:
            continue
        yield ModelEntry(
            name=model["model"],
            dimension=model["dim"],
            repository=model["sources"]["hf"],
            weights=(model["model_file"], *model["additional_files"]),
            prefixes=known_prefixes(model["model"]) or NO_PREFIXES,
            size_gb=model["size_in_GB"],
            license=model["license"],
            description=model["description"],
            max_tokens=STATIC_TOKENS if model["model_file"].endswith(TABLE) else None,
        )


def other_kind(name: str) -> str | None:
    """Return the kind of a model in fastembed's other lists, such as `a sparse model`; None if no list has the name."""
    import fastembed
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    kinds: dict[str, Any] = {
        "a sparse model": fastembed.SparseTextEmbedding,
        "a reranker": TextCrossEncoder,
        "an image model": fastembed.ImageEmbedding,
        "a late interaction model": fastembed.LateInteractionTextEmbedding,
        "a multimodal late interaction model": fastembed.LateInteractionMultimodalEmbedding,
    }
    for kind, models in kinds.items():
        if any(model["model"].lower() == name.lower() for model in models.list_supported_models()):
            return kind
    return None


class BoundedTokenizer:
    """A tokenizer that reads no more of a text than the model needs."""

    def __init__(self, tokenizer: Any, *, max_tokens: int, prefix: str) -> None:
        """Take a tokenizer from `load_tokenizer`, the limit of the model, and the prefix of each text."""
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._prefix = prefix
        self._characters = CHARACTERS_A_TOKEN * max_tokens

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text with the prefix; a count from `ENOUGH` times the limit on may be too low.

        Counting all tokens of a text of 7 MB would cost 0.7 s and 800 MB.
        """
        encodings = self._tokenizer.encode_batch_fast([(self._prefix + text)[: self._characters] for text in texts])
        lengths = list(map(len, encodings))
        for row, text in enumerate(texts):
            if len(self._prefix + text) > self._characters and lengths[row] < ENOUGH * self._max_tokens:
                lengths[row] = len(self._tokenizer.encode(self.beginning(text)))
        return lengths

    def beginning(self, text: str) -> str:
        """Return the prefix and the beginning of a text that has the same vector as the whole text.

        The tokenizer itself would read all of the text. Only the last word of the beginning may be cut, and the model
        stops half-way.
        """
        text = self._prefix + text
        characters = self._characters
        while characters < len(text) and not self._is_enough(text[:characters]):
            characters *= 2
        return text[:characters]

    def _is_enough(self, beginning: str) -> bool:
        """Check that a beginning has `ENOUGH` times the tokens that the model reads."""
        tokens = ENOUGH * self._max_tokens
        # Each word of letters and digits is at least one token, and words are counted in a twentieth of the time.
        return sum(map(str.isalnum, beginning.split())) >= tokens or len(self._tokenizer.encode(beginning)) >= tokens


class FastEmbedder:
    """A model loaded by fastembed, with one session for all threads."""

    def __init__(self, model: Model, *, on_gpu: bool = False, session: OpenVinoSession | None = None) -> None:
        """Load a model; its network runs in the given session, or else in one of onnxruntime."""
        self.dimension = model.dimension
        self.max_tokens = model.max_tokens
        if on_gpu:
            _require_gpu()
        with lean_imports():
            from fastembed import TextEmbedding

        # A model without a network takes no settings for one.
        network: dict[str, Any] = {} if model.entry.is_static else {"threads": 1, "cuda": on_gpu}
        self._embedding = TextEmbedding(
            _name_in_fastembed(model), specific_model_path=str(model.folder), lazy_load=session is not None, **network
        )
        loaded: Any = self._embedding.model
        if session is not None:
            loaded.token_count("")  # loads the tokenizer alone
            loaded.model = session
        elif on_gpu and not model.entry.is_static and GPU_PROVIDER not in loaded.model.get_providers():
            # If the libraries of the GPU do not fit, onnxruntime only warns, and computes on the processor.
            raise _no_gpu("onnxruntime fell back to the processor")
        # fastembed takes the limit from the files, which differ between the origins of a model.
        loaded.tokenizer.enable_truncation(max_length=model.max_tokens)
        tokenizer = load_tokenizer(model)
        self._documents, self._queries = (
            BoundedTokenizer(tokenizer, max_tokens=model.max_tokens, prefix=prefix) for prefix in model.prefixes
        )

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each document with its prefix."""
        return self._documents.count(texts)

    def count_query(self, text: str) -> int:
        """Count the tokens of a search text with its prefix."""
        return self._queries.count([text])[0]

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Embed one micro-batch of documents; a model such as jina-embeddings-v3 has a task for them."""
        import numpy as np

        texts = [self._documents.beginning(text) for text in texts]
        return np.asarray(list(self._embedding.passage_embed(texts, batch_size=len(texts))), dtype=np.float32)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Embed a search text; a model with tasks has another task for it."""
        import numpy as np

        return np.asarray(list(self._embedding.query_embed([self._queries.beginning(text)])), dtype=np.float32)


def _name_in_fastembed(model: Model) -> str:
    """Return the name of a model in fastembed's list, and add a model of the user's own to the list.

    An entry of the list cannot be changed, so the name of an added model has all its settings, as hexadecimal digits
    since fastembed ignores the case of names.
    """
    entry = model.entry
    if entry.pooling is None:
        return model.name
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = f"{model.name}|{model.dimension}|{entry}".encode().hex()
    pooling = {
        "mean": PoolingType.MEAN,
        "cls": PoolingType.CLS,
        "last-token": PoolingType.LAST_TOKEN,
        "none": PoolingType.DISABLED,
    }
    with _REGISTERING:
        if name not in _registered:
            TextEmbedding.add_custom_model(
                name,
                pooling=pooling[entry.pooling],
                normalization=entry.normalizes,
                sources=ModelSource(hf=name),  # required, and not used with a folder
                dim=model.dimension,
                model_file=entry.weights[0],
                output_name=entry.output,
            )
            _registered.add(name)
    return name


def load_token_counter(model: Model) -> BoundedTokenizer:
    """Load the tokenizer of a model alone, to count documents as `Embedder.count` does; see `load_tokenizer`."""
    return BoundedTokenizer(load_tokenizer(model), max_tokens=model.max_tokens, prefix=model.prefixes.passage)


def load_tokenizer(model: Model) -> Any:
    """Load the tokenizer of a model alone, without truncation and padding.

    Raises:
        UpsertCliError: The folder of the model has no tokenizer that can be loaded.
    """
    from fastembed.common.preprocessor_utils import load_tokenizer
    from tokenizers import Tokenizer

    try:
        if model.entry.is_static:  # fastembed reads no other file, and adds no special tokens
            tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
            tokenizer.post_processor = None
        else:
            tokenizer, _ = load_tokenizer(model.folder)
    except Exception as error:  # tokenizers raises bare ones
        raise model.not_loadable(error) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _require_gpu() -> None:
    import onnxruntime

    if GPU_PROVIDER not in onnxruntime.get_available_providers():
        raise _no_gpu("the installed onnxruntime has no CUDA")


def _no_gpu(reason: str) -> UpsertCliError:
    return UpsertCliError(
        message=f"--device cuda cannot be used ({reason}); install onnxruntime-gpu in place of onnxruntime, with the "
        "CUDA that fits it, or run the task with --device cpu"
    )
