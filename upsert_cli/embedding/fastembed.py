"""Everything that fastembed does here: its list of models, their download, and embedding with onnxruntime."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upsert_cli.embedding.catalog import NO_PREFIXES, TABLE, ModelEntry, known_prefixes
from upsert_cli.embedding.embedder import PROBE_TEXT, check_vectors
from upsert_cli.errors import ModelUnavailable, UpsertCliError
from upsert_cli.limits import limit_reached
from upsert_cli.packages import lean_imports
from upsert_cli.redaction import error_line

if TYPE_CHECKING:
    from upsert_cli.embedding.embedder import Device, Vectors
    from upsert_cli.embedding.identity import Model

BEGINNING_CHARACTERS = 16  # characters of a text looked at for each token of the limit; English has about 4.5 a token
BEGINNING = 2  # times the limit in tokens, that are enough of a text: a cut in a word moves no token before the limit
STATIC_TOKENS = 512  # fastembed's MAX_LENGTH of models without a network, which have no limit of their own
GPU_PROVIDER = "CUDAExecutionProvider"

_registered: set[str] = set()  # names of custom models, in fastembed's list of this process
_REGISTERING = threading.Lock()


def supported_models() -> Iterator[ModelEntry]:
    """Yield the dense text models that fastembed knows; importing it takes a second."""
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
    """Return the kind of a model that embeds no text as one vector, such as `a sparse model`; None if it is unknown."""
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


def download(entry: ModelEntry, folder: Path) -> Path:
    """Download a model from the hub and return its snapshot in `folder`; an interrupted download is continued.

    Raises:
        ModelUnavailable: The hub does not provide the files.
    """
    if entry.repository is None:
        raise ModelUnavailable(reason="fastembed names no repository for it")
    import logging

    from fastembed import TextEmbedding
    from huggingface_hub.utils.tqdm import disable_progress_bars

    # The one line with the reason is ours to print.
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    try:
        snapshot = TextEmbedding.download_files_from_huggingface(
            entry.repository, cache_dir=str(folder), extra_patterns=list(entry.weights)
        )
    except Exception as error:  # the hub's client raises classes of its own, and those of three HTTP libraries
        raise ModelUnavailable(reason=error_line(error, with_class=True)) from error
    return Path(snapshot)


class BoundedTokenizer:
    """A model's tokenizer, which reads no more of a text than the model needs."""

    def __init__(self, tokenizer: Any, *, max_tokens: int, prefix: str) -> None:
        """Take a tokenizer that neither truncates nor pads, and the tokens that the model reads of prefix and text."""
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._prefix = prefix
        self._characters = BEGINNING_CHARACTERS * max_tokens

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text with the prefix; of one that is far too long, just enough to see that it is.

        Counting all of them would cost 0.7 s and 800 MB for a text of 7 MB.
        """
        encodings = self._tokenizer.encode_batch_fast([(self._prefix + text)[: self._characters] for text in texts])
        lengths = list(map(len, encodings))
        for row, text in enumerate(texts):
            if len(self._prefix + text) > self._characters and lengths[row] < BEGINNING * self._max_tokens:
                lengths[row] = len(self._tokenizer.encode(self.beginning(text)))
        return lengths

    def beginning(self, text: str) -> str:
        """Return the prefix and enough of a text to get the vector of the whole.

        Left alone, the tokenizer reads all of it. Only the last word may differ, and the model stops reading half-way.
        """
        text = self._prefix + text
        characters = self._characters
        while characters < len(text) and not self._is_enough(text[:characters]):
            characters *= 2
        return text[:characters]

    def _is_enough(self, beginning: str) -> bool:
        """Check that a beginning has twice the tokens that the model reads."""
        tokens = BEGINNING * self._max_tokens
        # A word of letters and digits is a token at least; counting these costs a twentieth of tokenizing.
        return sum(map(str.isalnum, beginning.split())) >= tokens or len(self._tokenizer.encode(beginning)) >= tokens


class FastEmbedder:
    """A model loaded by fastembed, with one session for all threads.

    `compiled` makes the session of a graph, if it is not to be onnxruntime's.
    """

    def __init__(self, model: Model, *, device: Device, compiled: Callable[[Path], Any] | None = None) -> None:
        self.dimension = model.dimension
        self.max_tokens = model.max_tokens
        network: dict[str, Any] = {"threads": 1, "cuda": device == "cuda"}
        if model.entry.is_static:  # fastembed would warn of settings for a network
            network = {}
        if device == "cuda":
            _require_gpu()
        try:
            with lean_imports():
                from fastembed import TextEmbedding

            self._embedding = TextEmbedding(
                _name_in_fastembed(model),
                specific_model_path=str(model.folder),
                lazy_load=compiled is not None,
                **network,
            )
            if compiled is not None:
                self._embedding.token_count("")  # loads the tokenizer alone
                own: Any = self._embedding.model
                own.model = compiled(model.folder / own.model_description.model_file)
            # Explicitly, since sources differ in the limit.
            self._embedding.model.tokenizer.enable_truncation(max_length=model.max_tokens)  # type: ignore[attr-defined]
            tokenizer = load_tokenizer(model)
            self._documents, self._queries = (
                BoundedTokenizer(tokenizer, max_tokens=model.max_tokens, prefix=prefix) for prefix in model.prefixes
            )
            check_vectors(self.embed([PROBE_TEXT]), texts=1, dimension=self.dimension)
        except UpsertCliError:
            raise
        except Exception as error:  # onnxruntime and tokenizers raise classes of their own, and bare ones
            raise _unusable(model, error) from error
        session = getattr(self._embedding.model, "model", None)
        # If the GPU's libraries do not fit, onnxruntime warns and continues on the processor, many times slower.
        if device == "cuda" and session is not None and GPU_PROVIDER not in session.get_providers():
            raise _no_gpu("onnxruntime fell back to the processor")

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each document with its prefix."""
        return self._documents.count(texts)

    def count_query(self, text: str) -> int:
        """Count the tokens of a search text with its prefix."""
        return self._queries.count([text])[0]

    def embed(self, texts: list[str]) -> Vectors:
        """Embed one micro-batch of documents; some models, such as jina-embeddings-v3, take them for another task."""
        import numpy as np

        texts = [self._documents.beginning(text) for text in texts]
        return np.asarray(list(self._embedding.passage_embed(texts, batch_size=len(texts))), dtype=np.float32)

    def embed_query(self, text: str) -> Vectors:
        """Embed a search text."""
        import numpy as np

        vectors = np.asarray(list(self._embedding.query_embed([self._queries.beginning(text)])), dtype=np.float32)
        return check_vectors(vectors, texts=1, dimension=self.dimension)


def _name_in_fastembed(model: Model) -> str:
    """Return the name under which fastembed has a model; one that it does not list is added to its list.

    The list is that of the process, and names are final in it. So a custom model has a name made of all its settings.
    """
    entry = model.entry
    if entry.pooling is None:
        return model.name
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = hashlib.sha256(f"{model.name}|{model.dimension}|{entry}".encode()).hexdigest()
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
                sources=ModelSource(hf=name),  # never asked, since the folder is given
                dim=model.dimension,
                model_file=entry.weights[0],
                output_name=entry.output,
            )
            _registered.add(name)
    return name


def load_token_counter(model: Model) -> BoundedTokenizer:
    """Load the tokenizer of a model alone, which counts as `Embedder.count` does; see `load_tokenizer`."""
    return BoundedTokenizer(load_tokenizer(model), max_tokens=model.max_tokens, prefix=model.prefixes.passage)


def load_tokenizer(model: Model) -> Any:
    """Load the tokenizer of a model alone; it neither truncates nor pads.

    Raises:
        UpsertCliError: The model's folder has no tokenizer that can be loaded.
    """
    from fastembed.common.preprocessor_utils import load_tokenizer
    from tokenizers import Tokenizer

    try:
        if model.entry.is_static:  # fastembed uses it without other settings and without special tokens
            tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
            tokenizer.post_processor = None
        else:
            tokenizer, _ = load_tokenizer(model.folder)
    except Exception as error:  # tokenizers raises bare ones
        raise _unusable(model, error) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _require_gpu() -> None:
    import onnxruntime

    if GPU_PROVIDER not in onnxruntime.get_available_providers():
        raise _no_gpu("the installed onnxruntime has no CUDA")


def _unusable(model: Model, error: Exception) -> UpsertCliError:
    if (limit := limit_reached(error, by_words=True)) is not None:
        return limit
    remedy = "give --model-path another folder" if model.is_given else "remove the folder, and it is fetched again"
    reason = error_line(error, with_class=True)
    return UpsertCliError(message=f"the model {model.name} in {model.folder} cannot be loaded ({reason}); {remedy}")


def _no_gpu(reason: str) -> UpsertCliError:
    return UpsertCliError(
        message=f"--device cuda cannot be used ({reason}); install onnxruntime-gpu in place of onnxruntime, with the "
        "CUDA that fits it, or run the task with --device cpu"
    )
