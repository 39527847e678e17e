"""Models of the user's own, which fastembed does not list; the files in the folder of a model describe it.

sentence-transformers, transformers and optimum write these files.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from upsert_cli.embedding.catalog import GivenFolder, ModelEntry, Pooling, Prefixes
from upsert_cli.embedding.onnx_graph import OnnxGraph, read_graph
from upsert_cli.errors import UpsertCliError, UsageFault

ONNX_NAME = "model.onnx"
ONNX_FOLDERS = (".", "onnx")  # the folders in which exports have the graph
SENTENCE_OUTPUT = "sentence_embedding"  # the output of an export whose graph includes pooling and later steps
SENTENCE_RANK, TOKEN_RANK = 2, 3  # dimensions of an output with one vector a text, or one a token
OTHER_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")  # files of a model that has not been exported
_FLAG = "pooling_mode_"
_MODES: dict[str, Pooling] = {
    "cls": "cls",
    "cls_token": "cls",
    "mean": "mean",
    "mean_tokens": "mean",
    "lasttoken": "last-token",
}
"""The modes of a pooling module. Newer files name a mode; older files have a flag, such as `pooling_mode_cls_token`."""


class CustomModel:
    """The folder of a model that fastembed does not list."""

    def __init__(self, name: str, given: GivenFolder) -> None:
        """Check the name; the files are read later.

        Raises:
            UsageFault: The name has control characters or outer spaces, or is empty.
        """
        if not name.isprintable() or name != name.strip() or not name:
            raise UsageFault(
                message=f"--model {name!r}: a model's name is text without control characters or outer spaces"
            )
        self._name = name
        self._given = given
        self._folder = given.path

    def entry(self) -> ModelEntry:
        """Return the entry of the model.

        Raises:
            UsageFault: The files ask for a pooling, or for changes of texts, that fastembed cannot compute.
            UpsertCliError: The folder does not hold a model.
        """
        file, graph = self._graph()
        output, pooling = self._pooled_output(graph)
        others = ", ".join(step for step in self._modules if step not in ("Transformer", "Pooling", "Normalize"))
        if others and pooling != "none":
            raise self._fault(
                f"has modules that its graph leaves out ({others}); export it with the output {SENTENCE_OUTPUT}"
            )
        dimension = _first_size(
            *(graph.outputs[output] or ())[-1:],
            self._pooling.get("word_embedding_dimension"),
            self._settings("config.json").get("hidden_size"),
        )
        if dimension is None:
            raise self._fault(f"says neither in {file} nor in config.json how many numbers a vector has")
        limits = self._settings(self._modules.get("Transformer", "."), "sentence_bert_config.json")
        self._check_texts(lowercases=limits.get("do_lower_case") is True)
        return ModelEntry(
            name=self._name,
            dimension=dimension,
            repository=None,
            weights=(file, *(str(Path(file).parent / name) for name in graph.external_files)),
            prefixes=self._prefixes(),
            max_tokens=_first_size(limits.get("max_seq_length")),
            pooling=pooling or "mean",
            normalizes=self._given.normalize and (not self._modules or "Normalize" in self._modules),
            output=output,
            assumed=pooling is None,
            leaves_out_prompt=pooling == "mean" and self._pooling.get("include_prompt") is False,
        )

    def _prefixes(self) -> Prefixes:
        """Return the texts that sentence-transformers puts before documents and queries."""
        settings = self._settings("config_sentence_transformers.json")
        listed = settings.get("prompts")
        named = listed.items() if isinstance(listed, dict) else ()
        prompts = {key: value for key, value in named if isinstance(value, str)}
        usual = prompts.get(str(settings.get("default_prompt_name")), "")
        passage = next((prompts[key] for key in ("document", "passage", "corpus") if key in prompts), usual)
        return Prefixes(passage=passage, query=prompts.get("query", usual))

    def _check_texts(self, *, lowercases: bool) -> None:
        """Check that the model wants its texts unchanged and truncated at the end, as fastembed passes them on."""
        tokenizer = self._settings("tokenizer.json")
        truncation = tokenizer.get("truncation") or {}
        side = self._settings("tokenizer_config.json").get("truncation_side") or truncation.get("direction")
        if str(side).lower() == "left":
            raise self._unsupported("cut long texts at their beginning (truncation_side)")
        if lowercases and not _lowercases(tokenizer.get("normalizer")):
            raise self._unsupported("change texts to lower case before its tokenizer (do_lower_case)")

    def _unsupported(self, work: str) -> UsageFault:
        return UsageFault(
            message=f"the files of {self._name} in {self._folder} ask to {work}, which is not supported; vectors "
            f"without it would be others: use another model, or remove that setting if the difference does not matter"
        )

    # -- the graph -----------------------------------------------------------------------------------------------------

    def _graph(self) -> tuple[str, OnnxGraph]:
        """Return the path of the graph in its folder, and its content."""
        if not self._folder.is_dir():
            raise self._fault("does not exist")
        files = [path for where in ONNX_FOLDERS for path in sorted((self._folder / where).glob("*.onnx"))]
        self._require_files(has_graph=bool(files))
        chosen = files if len(files) == 1 else [path for path in files if path.name == ONNX_NAME]
        if len(chosen) != 1:
            choices = ", ".join(str(path.relative_to(self._folder)) for path in chosen or files)
            raise UpsertCliError(
                message=f"the folder {self._folder} of the model {self._name} has several ONNX graphs: {choices}; keep "
                f"the one to load, or give it alone the name {ONNX_NAME}"
            )
        file = str(chosen[0].relative_to(self._folder))
        try:
            return file, read_graph(chosen[0])
        except (OSError, ValueError) as error:
            raise self._fault(f"has a {file} that cannot be read ({error})") from error

    def _require_files(self, *, has_graph: bool) -> None:
        """Check that the folder has a graph and a tokenizer."""
        missing = [] if has_graph else [f"{ONNX_NAME} or {ONNX_FOLDERS[1]}/{ONNX_NAME}"]
        missing += [file for file in ("tokenizer.json", "tokenizer_config.json") if not (self._folder / file).is_file()]
        if missing:
            is_exportable = not has_graph and any(any(self._folder.glob(pattern)) for pattern in OTHER_WEIGHTS)
            hint = " (its weights can be exported by `optimum-cli export onnx`)" if is_exportable else ""
            raise self._fault(f"lacks {', '.join(missing)}{hint}")

    def _pooled_output(self, graph: OnnxGraph) -> tuple[str, Pooling | None]:
        """Return the output of the graph with the vectors, and their pooling; None if nothing names the pooling."""
        asked = self._given.pooling
        tokens, whole = _output(graph, TOKEN_RANK), _output(graph, SENTENCE_RANK)
        prefers_whole = asked == "none" if asked is not None else tokens is None or whole == SENTENCE_OUTPUT
        if whole is not None and prefers_whole:
            return whole, "none"
        if tokens is not None and asked != "none":
            return tokens, asked or self._named_pooling()
        kind = "token" if tokens is None else "text"
        option = "" if asked is None else f"--pooling {asked}: "
        raise UsageFault(
            message=f"{option}the graph of {self._name} has no output with a vector for each {kind}, only "
            f"{', '.join(graph.outputs)}"
        )

    # -- the files of sentence-transformers ----------------------------------------------------------------------------

    @cached_property
    def _modules(self) -> dict[str, str]:
        """The steps of the model and their folders, as `modules.json` lists them; empty without that file."""
        listed = [module for module in self._settings("modules.json", kind=list) if isinstance(module, dict)]
        return {str(module.get("type")).rpartition(".")[2]: str(module.get("path") or ".") for module in listed}

    @cached_property
    def _pooling(self) -> dict[str, Any]:
        """The settings of its pooling; empty without such a file."""
        settings: dict[str, Any] = self._settings(self._modules.get("Pooling", "1_Pooling"), "config.json")
        return settings

    def _named_pooling(self) -> Pooling | None:
        """Return the pooling that the files name, or None."""
        named = self._pooling.get("pooling_mode") or []
        modes = list(map(str, named if isinstance(named, list) else [named]))
        if not modes:
            flags = [key for key, value in self._pooling.items() if key.startswith(_FLAG) and value is True]
            modes = [flag.removeprefix(_FLAG) for flag in flags]
        pooling = _MODES.get(modes[0]) if len(modes) == 1 else None
        if modes and pooling is None:
            raise UsageFault(
                message=f"the files of {self._name} in {self._folder} ask for the pooling {' and '.join(modes)}, which "
                f"is not supported; --pooling takes another one, or export the graph with the output {SENTENCE_OUTPUT}"
            )
        return pooling

    def _settings(self, *path: str, kind: type[Any] = dict) -> Any:
        """Return the object or list in a JSON file of the folder; empty for another value, or without the file."""
        file = self._folder.joinpath(*path)
        try:
            value = json.loads(file.read_bytes())
        except FileNotFoundError:
            return kind()
        except (OSError, ValueError, RecursionError) as error:
            raise self._fault(f"has a {'/'.join(path)} that cannot be read ({error})") from error
        return value if isinstance(value, kind) else kind()

    def _fault(self, problem: str) -> UpsertCliError:
        return UpsertCliError(
            message=f"the folder {self._folder} of the model {self._name} {problem}; give --model-path a folder with "
            f"{ONNX_NAME}, tokenizer.json, tokenizer_config.json and config.json"
        )


def _first_size(*values: object) -> int | None:
    """Return the first value that is a positive integer."""
    return next((value for value in values if type(value) is int and value > 0), None)


def _lowercases(normalizer: Any) -> bool:
    """Check whether a normalizer in `tokenizer.json`, or one in its sequence, changes texts to lower case."""
    if not isinstance(normalizer, dict):
        return False
    kind = normalizer.get("type")
    if kind == "Lowercase" or (kind == "BertNormalizer" and normalizer.get("lowercase") is True):
        return True
    return any(map(_lowercases, normalizer.get("normalizers") or ()))


def _output(graph: OnnxGraph, rank: int) -> str | None:
    """Return the output of a graph with vectors of texts (`SENTENCE_RANK`) or of tokens (`TOKEN_RANK`), or None."""
    if rank == SENTENCE_RANK and SENTENCE_OUTPUT in graph.outputs:
        return SENTENCE_OUTPUT
    ranks = {output: TOKEN_RANK if shape is None else len(shape) for output, shape in graph.outputs.items()}
    return next((output for output, found in ranks.items() if found == rank), None)
