"""Models that fastembed does not list: the files of a folder tell how to use its ONNX graph.

The files are those that sentence-transformers, transformers and optimum write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upsert_cli.embedding.catalog import GivenFolder, ModelEntry, Pooling, Postprocessing, Prefixes
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


def custom_entry(name: str, given: GivenFolder) -> ModelEntry:
    """Return the entry of a model that fastembed does not list, made from its folder.

    Raises:
        UsageFault: The files name a pooling that cannot be computed, or the name cannot be printed.
        UpsertCliError: The folder is not that of a model.
    """
    if not name.isprintable() or name != name.strip() or not name:
        raise UsageFault(message=f"--model {name!r}: a model's name is text without control characters or outer spaces")
    folder = given.path
    file, graph = _graph_of(name, folder)
    modules = _Modules.in_folder(name, folder)
    output, pooling = _pooled_output(name, given, graph, modules)
    if modules.others and pooling != "none":
        raise not_a_model(
            name,
            folder,
            f"has modules that its graph leaves out ({', '.join(modules.others)}); export it with the output "
            f"{SENTENCE_OUTPUT}",
        )
    steps = Postprocessing(
        pooling=pooling or "mean",
        normalize=given.normalize and modules.normalizes,
        output=output,
        assumed=pooling is None,
        leaves_out_prompt=pooling == "mean" and modules.pooling.get("include_prompt") is False,
    )
    hidden = _settings(name, folder / "config.json").get("hidden_size")
    dimension = _size(*(graph.outputs[output] or ())[-1:], modules.pooling.get("word_embedding_dimension"), hidden)
    if dimension is None:
        raise not_a_model(name, folder, f"says neither in {file} nor in config.json how many numbers a vector has")
    limits = _settings(name, folder / modules.transformer_path / "sentence_bert_config.json")
    return ModelEntry(
        name=name,
        dimension=dimension,
        repository=None,
        weights=(file, *(str(Path(file).parent / name) for name in graph.external_files)),
        max_tokens=_size(limits.get("max_seq_length")),
        postprocessing=steps,
    )


def _size(*found: object) -> int | None:
    """Return the first of some values that is a size."""
    return next((value for value in found if type(value) is int and value > 0), None)


def prompts_of(name: str, folder: Path) -> Prefixes:
    """Return the texts that sentence-transformers puts before documents and queries.

    Raises:
        UpsertCliError: Their file cannot be read.
    """
    settings = _settings(name, folder / "config_sentence_transformers.json")
    listed = settings.get("prompts")
    prompts = (
        {key: value for key, value in listed.items() if isinstance(value, str)} if isinstance(listed, dict) else {}
    )
    usual = prompts.get(str(settings.get("default_prompt_name")), "")
    passage = next((prompts[key] for key in ("document", "passage", "corpus") if key in prompts), usual)
    return Prefixes(passage=passage, query=prompts.get("query", usual))


def not_a_model(name: str, folder: Path, problem: str) -> UpsertCliError:
    """Return the error for a folder that cannot be used as a model."""
    return UpsertCliError(
        message=f"the folder {folder} of the model {name} {problem}; give --model-path a folder with {ONNX_NAME}, "
        f"tokenizer.json, tokenizer_config.json and config.json"
    )


# -- the graph ---------------------------------------------------------------------------------------------------------


def _graph_of(name: str, folder: Path) -> tuple[str, OnnxGraph]:
    """Return the path of the graph in its folder, and its content."""
    if not folder.is_dir():
        raise not_a_model(name, folder, "does not exist")
    files = [path for where in ONNX_FOLDERS for path in sorted((folder / where).glob("*.onnx"))]
    _require_files(name, folder, has_graph=bool(files))
    chosen = files if len(files) == 1 else [path for path in files if path.name == ONNX_NAME]
    if len(chosen) != 1:
        choices = ", ".join(str(path.relative_to(folder)) for path in chosen or files)
        raise UpsertCliError(
            message=f"the folder {folder} of the model {name} has several ONNX graphs: {choices}; keep the one to "
            f"load, or give it alone the name {ONNX_NAME}"
        )
    file = str(chosen[0].relative_to(folder))
    try:
        return file, read_graph(chosen[0])
    except (OSError, ValueError) as error:
        raise not_a_model(name, folder, f"has a {file} that cannot be read ({error})") from error


def _require_files(name: str, folder: Path, *, has_graph: bool) -> None:
    """Check that a folder has a graph and a tokenizer."""
    missing = [] if has_graph else [f"{ONNX_NAME} or {ONNX_FOLDERS[1]}/{ONNX_NAME}"]
    missing += [file for file in ("tokenizer.json", "tokenizer_config.json") if not (folder / file).is_file()]
    if missing:
        hint = "" if has_graph else _exportable(folder)
        raise not_a_model(name, folder, f"lacks {', '.join(missing)}{hint}")


def _exportable(folder: Path) -> str:
    has_weights = any(next(folder.glob(pattern), None) is not None for pattern in OTHER_WEIGHTS)
    return " (its weights can be exported by `optimum-cli export onnx`)" if has_weights else ""


def _pooled_output(name: str, given: GivenFolder, graph: OnnxGraph, modules: _Modules) -> tuple[str, Pooling | None]:
    """Return the output of the graph that vectors are made of, and how its tokens are pooled, if that is known."""
    tokens, whole = _output(graph, TOKEN_RANK), _output(graph, SENTENCE_RANK)
    is_asked_for = given.pooling == "none"
    is_usual = given.pooling is None and (tokens is None or whole == SENTENCE_OUTPUT)
    if whole is not None and (is_asked_for or is_usual):
        return whole, "none"
    if tokens is not None and not is_asked_for:
        return tokens, given.pooling or _pooling_of(name, given.path, modules)
    kind = "token" if tokens is None else "text"
    asked = "" if given.pooling is None else f"--pooling {given.pooling}: "
    outputs = ", ".join(graph.outputs)
    raise UsageFault(message=f"{asked}the graph of {name} has no output with a vector for each {kind}, only {outputs}")


def _output(graph: OnnxGraph, rank: int) -> str | None:
    """Return the output with a vector for each text or token, by its name or its number of dimensions."""
    if rank == SENTENCE_RANK and SENTENCE_OUTPUT in graph.outputs:
        return SENTENCE_OUTPUT
    ranks = {output: TOKEN_RANK if shape is None else len(shape) for output, shape in graph.outputs.items()}
    return next((output for output, found in ranks.items() if found == rank), None)


def _pooling_of(name: str, folder: Path, modules: _Modules) -> Pooling | None:
    """Return the pooling that the files name; None if they name none."""
    if modules.modes and modules.pooling_mode is None:
        raise UsageFault(
            message=f"the files of {name} in {folder} ask for the pooling {' and '.join(modules.modes)}, which is "
            f"not supported; --pooling takes another one, or export the graph with the output {SENTENCE_OUTPUT}"
        )
    return modules.pooling_mode


# -- the files of sentence-transformers --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Modules:
    """The steps of a model, as `modules.json` lists them."""

    pooling: Mapping[str, Any]
    """The settings of its pooling; empty if no file has any."""

    transformer_path: str = "."
    normalizes: bool = True
    others: tuple[str, ...] = ()
    """Steps that change vectors and are no part of this program."""

    @classmethod
    def in_folder(cls, name: str, folder: Path) -> _Modules:
        """Read the files of a folder; without a list of modules, vectors are normalized."""
        listed = _settings(name, folder / "modules.json", kind=list)
        if not listed:
            return cls(pooling=_settings(name, folder / "1_Pooling" / "config.json"))
        paths = {
            str(module.get("type")).rpartition(".")[2]: str(module.get("path") or ".")
            for module in listed
            if isinstance(module, dict)
        }
        return cls(
            pooling=_settings(name, folder / paths.get("Pooling", "1_Pooling") / "config.json"),
            transformer_path=paths.get("Transformer", "."),
            normalizes="Normalize" in paths,
            others=tuple(step for step in paths if step not in ("Transformer", "Pooling", "Normalize")),
        )

    @property
    def modes(self) -> Sequence[str]:
        """The ways of pooling that the files name."""
        mode = self.pooling.get("pooling_mode")
        named = mode if isinstance(mode, list) else [] if mode is None else [mode]
        flags = (key.partition(_FLAG)[2] for key, value in self.pooling.items() if value is True)
        return [str(one) for one in named] or [flag for flag in flags if flag]

    @property
    def pooling_mode(self) -> Pooling | None:
        """The way of pooling; None unless the files name exactly one that can be computed."""
        return _MODES.get(self.modes[0]) if len(self.modes) == 1 else None


def _settings(name: str, path: Path, *, kind: type[Any] = dict) -> Any:
    """Return the object or list in a JSON file, empty if there is no such file."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError, RecursionError) as error:
        raise not_a_model(name, path.parent, f"has a {path.name} that cannot be read ({error})") from error
    return value if isinstance(value, kind) else kind()
