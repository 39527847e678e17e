"""Models that fastembed does not list: the files of a folder tell how to use its ONNX graph.

The files are those that sentence-transformers, transformers and optimum write.
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
ONNX_FOLDERS = (".", "onnx")  # where exports have the graph
SENTENCE_OUTPUT = "sentence_embedding"  # the output of an export that has pooling and what follows it in the graph
SENTENCE_RANK, TOKEN_RANK = 2, 3  # dimensions of an output with a vector for each text, or for each token
OTHER_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")  # files of a model that is yet to be exported
_FLAG = "pooling_mode_"
_MODES: dict[str, Pooling] = {
    "cls": "cls",
    "cls_token": "cls",
    "mean": "mean",
    "mean_tokens": "mean",
    "lasttoken": "last-token",
}
"""Modes of a pooling module: the older files have a flag for each, `pooling_mode_cls_token`, newer ones its name."""


class CustomModel:
    """The folder of a model that fastembed does not list."""

    def __init__(self, name: str, given: GivenFolder) -> None:
        """Read nothing yet.

        Raises:
            UsageFault: The name cannot be printed.
        """
        if not name.isprintable() or name != name.strip() or not name:
            raise UsageFault(
                message=f"--model {name!r}: a model's name is text without control characters or outer spaces"
            )
        self._name = name
        self._given = given
        self._folder = given.path

    def entry(self) -> ModelEntry:
        """Return the description of the model, like those in fastembed's list.

        Raises:
            UsageFault: The files name a pooling that cannot be computed.
            UpsertCliError: The folder is not that of a model.
        """
        file, graph = self._graph()
        output, pooling = self._pooled_output(graph)
        others = ", ".join(step for step in self._modules if step not in ("Transformer", "Pooling", "Normalize"))
        if others and pooling != "none":
            raise self._fault(
                f"has modules that its graph leaves out ({others}); export it with the output {SENTENCE_OUTPUT}"
            )
        hidden = self._settings("config.json").get("hidden_size")
        dimension = _size(*(graph.outputs[output] or ())[-1:], self._pooling.get("word_embedding_dimension"), hidden)
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
            max_tokens=_size(limits.get("max_seq_length")),
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
        prompts = (
            {key: value for key, value in listed.items() if isinstance(value, str)} if isinstance(listed, dict) else {}
        )
        usual = prompts.get(str(settings.get("default_prompt_name")), "")
        passage = next((prompts[key] for key in ("document", "passage", "corpus") if key in prompts), usual)
        return Prefixes(passage=passage, query=prompts.get("query", usual))

    def _check_texts(self, *, lowercases: bool) -> None:
        """Check that the tokenizer gets texts unchanged and cuts them at their end, since fastembed does just that."""
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
        """Return the output of the graph that vectors are made of, and how its tokens are pooled, if that is known."""
        asked = self._given.pooling
        tokens, whole = _output(graph, TOKEN_RANK), _output(graph, SENTENCE_RANK)
        is_usual = asked is None and (tokens is None or whole == SENTENCE_OUTPUT)
        if whole is not None and (asked == "none" or is_usual):
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
        """The settings of its pooling; empty if no file has any."""
        settings: dict[str, Any] = self._settings(self._modules.get("Pooling", "1_Pooling"), "config.json")
        return settings

    def _named_pooling(self) -> Pooling | None:
        """Return the pooling that the files name; None if they name none."""
        mode = self._pooling.get("pooling_mode")
        named = mode if isinstance(mode, list) else [] if mode is None else [mode]
        flags = (key.partition(_FLAG)[2] for key, value in self._pooling.items() if value is True)
        modes = [str(one) for one in named] or [flag for flag in flags if flag]
        pooling = _MODES.get(modes[0]) if len(modes) == 1 else None
        if modes and pooling is None:
            raise UsageFault(
                message=f"the files of {self._name} in {self._folder} ask for the pooling {' and '.join(modes)}, which "
                f"is not supported; --pooling takes another one, or export the graph with the output {SENTENCE_OUTPUT}"
            )
        return pooling

    def _settings(self, *path: str, kind: type[Any] = dict) -> Any:
        """Return the object or list in a JSON file of the folder, empty if there is no such file."""
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


def _size(*found: object) -> int | None:
    """Return the first of some values that is a size."""
    return next((value for value in found if type(value) is int and value > 0), None)


def _lowercases(normalizer: Any) -> bool:
    """Tell whether a normalizer of a `tokenizer.json`, or one of a sequence of them, changes texts to lower case."""
    if not isinstance(normalizer, dict):
        return False
    kind = normalizer.get("type")
    own = kind == "Lowercase" or (kind == "BertNormalizer" and normalizer.get("lowercase") is True)
    return own or any(map(_lowercases, normalizer.get("normalizers") or ()))


def _output(graph: OnnxGraph, rank: int) -> str | None:
    """Return the output with a vector for each text or token, by its name or its number of dimensions."""
    if rank == SENTENCE_RANK and SENTENCE_OUTPUT in graph.outputs:
        return SENTENCE_OUTPUT
    ranks = {output: TOKEN_RANK if shape is None else len(shape) for output, shape in graph.outputs.items()}
    return next((output for output, found in ranks.items() if found == rank), None)
