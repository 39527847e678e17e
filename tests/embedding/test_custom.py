"""Models that fastembed does not list: the settings in their files, and the resulting vectors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from upsert_cli.context import RunContext
from upsert_cli.embedding.catalog import DEFAULT_MODEL, NO_PREFIXES, GivenFolder, Pooling, Prefixes, parse_steps
from upsert_cli.embedding.embedder import load_model
from upsert_cli.embedding.identity import Model
from upsert_cli.embedding.models import find_model, list_models
from upsert_cli.errors import UpsertCliError, UsageFault

MINE = "my-org/my-model"
TEXTS = ["hello world", "a longer text about bread without kneading", "x"]
LISTED = "sentence_transformers.models."

Output = tuple[str, Sequence[int | str]]


class Recorder(RunContext):
    """A context that keeps warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def warning(self, message: str) -> None:
        """Keep a warning."""
        self.warnings.append(message)


def graph(*outputs: Output, external: str | None = None) -> bytes:
    """Return a graph with outputs of these names and shapes, which computes nothing."""
    weights = helper.make_tensor("weights", TensorProto.FLOAT, [1], [1.0])
    if external is not None:
        weights.ClearField("float_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=external)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs]
    return bytes(helper.make_model(helper.make_graph([], "any", [], infos, initializer=[weights])).SerializeToString())


TOKENS: Output = ("last_hidden_state", ("batch", "sequence", 24))
SENTENCE: Output = ("sentence_embedding", ("batch", 48))
POOLED: Output = ("pooler_output", ("batch", 24))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of a model with an output for each token, and no file that names the pooling."""
    (tmp_path / "model.onnx").write_bytes(graph(TOKENS))
    (tmp_path / "tokenizer.json").write_text("{}")
    write(tmp_path, "tokenizer_config.json", {"model_max_length": 512})
    return tmp_path


def write(folder: Path, name: str, value: object) -> None:
    """Write a JSON file into a folder."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value))


def modules(folder: Path, *names: str) -> None:
    """Write a list of modules, each except the first in its own numbered folder, as sentence-transformers does."""
    listed = [
        {"idx": number, "path": f"{number}_{name}" if number else "", "type": LISTED + name}
        for number, name in enumerate(names)
    ]
    write(folder, "modules.json", listed)


def found(folder: Path, **given: Any) -> Model:
    """Return the model in a folder."""
    return find_model(MINE, given=GivenFolder(path=folder, **given))


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "include_prompt": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last-token"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_the_files_name_the_pooling(folder: Path, settings: dict[str, Any], pooling: Pooling) -> None:
    """Both forms of a pooling module's settings are read, with or without a list of modules."""
    write(folder, "1_Pooling/config.json", settings | {"word_embedding_dimension": 24})
    assert found(folder).pooling == f"{pooling}, normalized"
    modules(folder, "Transformer", "Pooling")
    assert found(folder).pooling == pooling
    modules(folder, "Transformer", "Pooling", "Normalize")
    assert found(folder).pooling == f"{pooling}, normalized"
    assert found(folder, normalize=False).pooling == pooling
    assert found(folder, pooling="last-token").pooling == "last-token, normalized"


@pytest.mark.parametrize("modes", [["pooling_mode_max_tokens"], ["pooling_mode_cls_token", "pooling_mode_mean_tokens"]])
def test_a_pooling_that_cannot_be_computed_is_named(folder: Path, modes: list[str]) -> None:
    """A maximum, or several ways at once, are refused; the option names another one."""
    write(folder, "1_Pooling/config.json", dict.fromkeys(modes, True))
    with pytest.raises(UsageFault, match=f"{modes[-1].removeprefix('pooling_mode_')}.*--pooling"):
        found(folder)
    assert found(folder, pooling="cls").pooling == "cls, normalized"


def test_without_any_word_on_pooling_it_is_the_mean_with_a_warning(folder: Path) -> None:
    """The default is the mean, as in sentence-transformers; naming the pooling ends the warning."""
    context = Recorder()
    assert find_model(MINE, given=GivenFolder(path=folder), context=context).pooling == "mean, normalized"
    [warning] = context.warnings
    assert MINE in warning and "--pooling" in warning
    find_model(MINE, given=GivenFolder(path=folder, pooling="mean"), context=context)
    assert len(context.warnings) == 1


@pytest.mark.parametrize(
    ("outputs", "pooling", "expected"),
    [
        ([TOKENS, SENTENCE], None, ("none", "sentence_embedding", 48)),
        ([TOKENS, SENTENCE], "cls", ("cls", "last_hidden_state", 24)),
        ([TOKENS, SENTENCE], "none", ("none", "sentence_embedding", 48)),
        ([TOKENS, POOLED], None, ("mean", "last_hidden_state", 24)),
        ([POOLED, TOKENS], None, ("mean", "last_hidden_state", 24)),
        ([TOKENS, POOLED], "none", ("none", "pooler_output", 24)),
        ([POOLED], None, ("none", "pooler_output", 24)),
        ([("logits", ("batch", "sequence", "hidden"))], None, ("mean", "logits", 96)),
    ],
)
def test_the_output_is_the_one_that_the_pooling_needs(
    folder: Path, outputs: list[Output], pooling: Pooling | None, expected: tuple[str, str, int]
) -> None:
    """A graph with an output for whole texts needs no pooling, and its sizes override those in the settings."""
    (folder / "model.onnx").write_bytes(graph(*outputs))
    write(folder, "config.json", {"hidden_size": 96})
    model = found(folder, pooling=pooling)
    assert (model.entry.pooling, model.entry.output, model.dimension) == expected


@pytest.mark.parametrize(
    ("outputs", "pooling", "says"),
    [
        ([TOKENS], "none", "--pooling none: the graph of"),
        ([SENTENCE], "mean", "--pooling mean: the graph of"),
        ([("scores", ("batch",))], None, "^the graph of"),
    ],
)
def test_a_graph_without_the_output_is_refused(
    folder: Path, outputs: list[Output], pooling: Pooling | None, says: str
) -> None:
    """The option has to fit the graph, and a classifier is no model of embeddings."""
    (folder / "model.onnx").write_bytes(graph(*outputs))
    with pytest.raises(UsageFault, match=f"{says} {MINE} has no output with a vector for each .*{outputs[0][0]}"):
        found(folder, pooling=pooling)


def test_a_layer_that_the_graph_leaves_out_is_named(folder: Path) -> None:
    """A dense layer after the pooling changes the vectors, so a graph without it is refused."""
    modules(folder, "Transformer", "Pooling", "Dense", "Normalize")
    write(folder, "1_Pooling/config.json", {"pooling_mode_mean_tokens": True})
    with pytest.raises(UpsertCliError, match=r"Dense.*sentence_embedding"):
        found(folder)
    (folder / "model.onnx").write_bytes(graph(TOKENS, SENTENCE))
    assert found(folder).pooling == "none, normalized"


@pytest.mark.parametrize(
    ("limits", "own", "tokens"), [({"model_max_length": 512}, None, 512), ({"model_max_length": 512}, 128, 128)]
)
def test_the_limit_is_that_of_sentence_transformers(
    folder: Path, limits: dict[str, int], own: int | None, tokens: int
) -> None:
    """`max_seq_length` beats the limit of the tokenizer."""
    write(folder, "tokenizer_config.json", limits)
    write(folder, "sentence_bert_config.json", {"max_seq_length": own})
    assert found(folder).max_tokens == tokens


@pytest.mark.parametrize(
    ("settings", "passage", "query"),
    [
        ({"prompts": {"query": "query: ", "passage": "passage: "}}, "passage: ", "query: "),
        ({"prompts": {"query": "find: ", "document": ""}, "default_prompt_name": None}, "", "find: "),
        ({"prompts": {"both": "text: "}, "default_prompt_name": "both"}, "text: ", "text: "),
        ({"prompts": {"clustering": "group: "}}, "", ""),
        ({"prompts": [1]}, "", ""),
        ({}, "", ""),
    ],
)
def test_the_prefixes_are_the_prompts_of_the_files(
    folder: Path, settings: dict[str, Any], passage: str, query: str
) -> None:
    """Prompts for documents and queries are used like those of listed models, unless a load asks for others."""
    write(folder, "config_sentence_transformers.json", settings)
    assert found(folder).prefixes == (passage, query)
    others = Prefixes("own: ", "")
    assert find_model(MINE, given=GivenFolder(path=folder), prefixes=others).prefixes == others


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_mean_without_the_prompt_is_refused(folder: Path, pooling: str, flag: bool) -> None:
    """The tokens of the prompt count in the mean here, so files that leave them out go without prompts."""
    write(folder, "1_Pooling/config.json", {"pooling_mode": pooling, "include_prompt": flag})
    write(folder, "config_sentence_transformers.json", {"prompts": {"query": "find: "}})
    if flag or pooling == "cls":
        assert found(folder).prefixes.query == "find: "
        return
    with pytest.raises(UsageFault, match=r"include_prompt: false.*--passage-prefix '' --query-prefix ''"):
        found(folder)
    assert find_model(MINE, given=GivenFolder(path=folder), prefixes=NO_PREFIXES).pooling == "mean, normalized"


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("tokenizer_config.json", {"truncation_side": "left"}),
        ("tokenizer.json", {"truncation": {"direction": "Left", "max_length": 128}}),
        ("sentence_bert_config.json", {"do_lower_case": True}),
    ],
)
def test_texts_that_would_be_read_in_another_way_are_refused(
    folder: Path, file: str, settings: dict[str, object]
) -> None:
    """A setting that fastembed ignores would change the vectors, so it is refused by name."""
    write(folder, file, settings)
    with pytest.raises(UsageFault, match=r"cut long texts at their beginning|change texts to lower case"):
        found(folder)


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "BertNormalizer", "lowercase": True},
        {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]},
    ],
)
def test_a_tokenizer_may_change_texts_to_lower_case_itself(folder: Path, normalizer: dict[str, object]) -> None:
    """The setting asks for no more than the tokenizer does anyway."""
    write(folder, "sentence_bert_config.json", {"do_lower_case": True})
    write(folder, "tokenizer.json", {"normalizer": normalizer, "truncation": {"direction": "Right"}})
    write(folder, "tokenizer_config.json", {"truncation_side": "right", "model_max_length": 512})
    assert found(folder).dimension == 24


def test_the_graph_is_the_only_one_or_the_one_with_the_usual_name(folder: Path) -> None:
    """Several graphs of other names, or two of the usual name, are listed."""
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model_quantized.onnx")
    assert found(folder).entry.weights[0] == "onnx/model_quantized.onnx"
    shutil.copy(folder / "onnx" / "model_quantized.onnx", folder / "onnx" / "model_int8.onnx")
    with pytest.raises(UpsertCliError, match=r"several ONNX graphs: onnx/model_int8\.onnx, onnx/model_quantized\.onnx"):
        found(folder)
    shutil.copy(folder / "onnx" / "model_int8.onnx", folder / "onnx" / "model.onnx")
    assert found(folder).entry.weights[0] == "onnx/model.onnx"
    shutil.copy(folder / "onnx" / "model_int8.onnx", folder / "model.onnx")
    with pytest.raises(UpsertCliError, match=r"several ONNX graphs: model\.onnx, onnx/model\.onnx; keep the one"):
        found(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), r"lacks tokenizer\.json; give --model-path"),
        (lambda folder: (folder / "model.onnx").unlink(), r"lacks model\.onnx or onnx/model\.onnx; give --model-path"),
        (
            lambda folder: (folder / "model.onnx").rename(folder / "model.safetensors"),
            r"optimum-cli export onnx`\); give",
        ),
        (shutil.rmtree, "does not exist"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"version https://git-lfs"), "not an ONNX graph"),
        (lambda folder: (folder / "model.onnx").write_bytes(b""), "cannot be read"),
        (lambda folder: (folder / "model.onnx").write_bytes(graph(TOKENS)[:-20]), "not an ONNX graph"),
        (lambda folder: (folder / "modules.json").write_text("{half"), r"has a modules\.json that cannot be read"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{}"), "names no limit of tokens"),
        (
            lambda folder: (folder / "model.onnx").write_bytes(graph(("tokens", ("batch", "sequence", "hidden")))),
            "how many numbers a vector has",
        ),
        (
            lambda folder: (folder / "model.onnx").write_bytes(graph(TOKENS, external="model.onnx_data")),
            r"lacks model\.onnx_data",
        ),
    ],
)
def test_missing_files_of_a_model_are_named(folder: Path, change: Callable[[Path], object], says: str) -> None:
    """Each file that is missing or cannot be read is named, with the folder."""
    change(folder)
    with pytest.raises(UpsertCliError, match=says) as caught:
        found(folder)
    assert caught.value.exit_code == 1
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["", " outer", "es\x1bcape", "new\nline"])
def test_a_name_has_to_be_printable(folder: Path, name: str) -> None:
    """A name is stored in the collection and printed."""
    with pytest.raises(UsageFault, match="a model's name is"):
        find_model(name, given=GivenFolder(path=folder))


def test_a_listed_model_takes_no_pooling(tiny_model: Path) -> None:
    """For a model in its list, fastembed uses the right pooling itself."""
    with pytest.raises(UsageFault, match="--pooling and --no-normalize are for models that fastembed does not list"):
        find_model(DEFAULT_MODEL, given=GivenFolder(path=tiny_model, pooling="cls"))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last-token"])
@pytest.mark.parametrize("normalize", [True, False])
def test_vectors_are_those_of_the_pooling(tiny_model: Path, pooling: Pooling, normalize: bool) -> None:
    """Each pooling is applied to the graph's output; several models of one name work in one process."""
    model = found(tiny_model, pooling=pooling, normalize=normalize)
    assert parse_steps(model.pooling or "") == (pooling, normalize)
    vectors = load_model(model).embed(TEXTS)
    again = load_model(model).embed(TEXTS)
    np.testing.assert_array_equal(vectors, again)
    expected = np.stack([_pooled(tiny_model, text, pooling) for text in TEXTS])
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-4)
    assert not any(MINE in listed.name or len(listed.name) == 64 for listed in list_models())


def _pooled(folder: Path, text: str, pooling: Pooling) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the vector of a text, pooled with numpy."""
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    [tokens] = session.run(None, {one.name: given[one.name] for one in session.get_inputs()})[0]
    return np.asarray({"mean": tokens.mean(axis=0), "cls": tokens[0], "last-token": tokens[-1]}[pooling], np.float32)


def test_the_default_model_under_another_name_gives_the_same_vectors(model: Model, tmp_path: Path) -> None:
    """A graph with pooling and normalization in it gives the vectors of the model that is pooled here."""
    folder = shutil.copytree(model.folder, tmp_path / "mine")
    expected = load_model(model).embed(TEXTS)
    np.testing.assert_allclose(load_model(found(folder, pooling="mean")).embed(TEXTS), expected, atol=1e-5)
    _add_sentence_output(folder / "model.onnx")
    custom = found(folder)
    assert (custom.pooling, custom.dimension) == ("none, normalized", 384)
    np.testing.assert_allclose(load_model(custom).embed(TEXTS), expected, atol=1e-5)


def _add_sentence_output(path: Path) -> None:
    """Put pooling by the mean into a graph; texts of one micro-batch are not padded here."""
    loaded = onnx.load(path)
    main = loaded.graph
    axes = helper.make_tensor("pool_axes", TensorProto.INT64, [1], [1])
    last = helper.make_tensor("mask_axes", TensorProto.INT64, [1], [2])
    main.initializer.extend([axes, last])
    main.node.extend(
        [
            helper.make_node("Cast", ["attention_mask"], ["mask_float"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask_float", "mask_axes"], ["mask_3d"]),
            helper.make_node("Mul", [main.output[0].name, "mask_3d"], ["pooled_masked"]),
            helper.make_node("ReduceSum", ["pooled_masked", "pool_axes"], ["summed"], keepdims=0),
            helper.make_node("ReduceSum", ["mask_3d", "pool_axes"], ["counted"], keepdims=0),
            helper.make_node("Div", ["summed", "counted"], ["sentence_embedding"]),
        ]
    )
    main.output.append(helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", 384]))
    onnx.save(loaded, path)
