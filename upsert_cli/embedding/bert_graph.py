"""The ONNX graph of a BERT encoder, built from standard operators and a checkpoint's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    Tensors: TypeAlias = Mapping[str, NDArray[np.float32]]

OPSET = 17  # the first with LayerNormalization
IR_VERSION = 8  # the file format of that opset's time, which older onnxruntimes read
MASKED = -10_000.0  # added to the score of padding, whose softmax is then zero in float32
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "last_hidden_state"


def build_bert_graph(tensors: Tensors, config: Mapping[str, Any]) -> onnx.ModelProto:
    """Build the graph of a BERT encoder.

    Args:
        tensors: The weights, by their names in a checkpoint of BertModel.
        config: The checkpoint's config.json, with the numbers of layers and heads and their width.

    Returns:
        A model from `input_ids`, `attention_mask` and `token_type_ids`, int64 of shape (batch, sequence), to
        `last_hidden_state`, float32 of shape (batch, sequence, hidden size).
    """
    from onnx import TensorProto, helper

    graph = _Graph(tensors, config)
    graph.build()
    shape = ["batch", "sequence"]
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "bert",
            [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in INPUTS],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [*shape, config["hidden_size"]])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="upsert-cli",
    )


class _Graph:
    """The nodes and constants of the encoder; each method adds some and returns the name of their output.

    Between the attentions, the tokens of all texts are one matrix, so that a dense layer is one Gemm. MatMul and Add in
    three dimensions, one Gemm for query, key and value, and onnxruntime's own fused Attention cost the same within 2 %:
    nine tenths of the time are matrix products.
    """

    def __init__(self, tensors: Tensors, config: Mapping[str, Any]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names: set[str] = set()
        self._tensors = tensors
        self._layers = int(config["num_hidden_layers"])
        self._hidden = int(config["hidden_size"])
        self._heads = int(config["num_attention_heads"])
        self._epsilon = float(config["layer_norm_eps"])

    def build(self) -> None:
        """Add everything between the inputs and the output."""
        shape = self._node("Shape", "input_ids")
        heads = self._integers("heads", self._heads, self._hidden // self._heads)
        by_head = self._node("Concat", shape, heads, axis=0)
        mask = self._mask_of_padding()
        tokens = self._embed()
        for number in range(self._layers):
            tokens = self._layer(tokens, f"encoder.layer.{number}", by_head=by_head, mask=mask)
        whole = self._node("Concat", shape, self._integers("hidden", self._hidden), axis=0)
        self._node("Reshape", tokens, whole, output=OUTPUT)

    def _mask_of_padding(self) -> str:
        from onnx import TensorProto

        rows = self._node("Unsqueeze", "attention_mask", self._integers("axes", 1, 2))
        real = self._node("Cast", rows, to=TensorProto.FLOAT)
        return self._node("Mul", self._node("Sub", self._number("one", 1.0), real), self._number("masked", MASKED))

    def _embed(self) -> str:
        words = self._node("Gather", self._weight("embeddings.word_embeddings.weight"), "input_ids")
        types = self._node("Gather", self._weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
        # Not Range and Gather, which onnxruntime fuses into an operator that then fails.
        begin, end = self._integers("begin", 0), self._node("Shape", "input_ids", start=1, end=2)
        positions = self._node("Slice", self._weight("embeddings.position_embeddings.weight"), begin, end, begin)
        total = self._node("Add", self._node("Add", words, types), positions)
        return self._normalize(self._as_matrix(total), "embeddings.LayerNorm")

    def _layer(self, tokens: str, name: str, *, by_head: str, mask: str) -> str:
        mixed = self._attend(tokens, f"{name}.attention.self", by_head=by_head, mask=mask)
        attended = self._dense(mixed, f"{name}.attention.output.dense")
        tokens = self._normalize(self._node("Add", attended, tokens), f"{name}.attention.output.LayerNorm")
        inner = self._gelu(self._dense(tokens, f"{name}.intermediate.dense"))
        outer = self._dense(inner, f"{name}.output.dense")
        return self._normalize(self._node("Add", outer, tokens), f"{name}.output.LayerNorm")

    def _attend(self, tokens: str, name: str, *, by_head: str, mask: str) -> str:
        def heads(role: str, *order: int, scale: float = 1.0) -> str:
            split = self._node("Reshape", self._dense(tokens, f"{name}.{role}", scale=scale), by_head)
            return self._node("Transpose", split, perm=order)

        # Scaling the weights of the query costs nothing per text, unlike scaling the scores.
        query = heads("query", 0, 2, 1, 3, scale=(self._hidden // self._heads) ** -0.5)
        key, value = heads("key", 0, 2, 3, 1), heads("value", 0, 2, 1, 3)
        scores = self._node("Add", self._node("MatMul", query, key), mask)
        mixed = self._node("MatMul", self._node("Softmax", scores, axis=-1), value)
        return self._as_matrix(self._node("Transpose", mixed, perm=(0, 2, 1, 3)))

    def _gelu(self, x: str) -> str:
        # In the form that onnxruntime recognises and computes in one pass.
        root = self._number("root_of_two", 2**0.5)
        bell = self._node("Add", self._node("Erf", self._node("Div", x, root)), self._number("one", 1.0))
        return self._node("Mul", self._node("Mul", x, bell), self._number("half", 0.5))

    def _dense(self, x: str, name: str, *, scale: float = 1.0) -> str:
        weight = self._constant(f"{name}.weight", self._tensors[f"{name}.weight"].T * scale)
        bias = self._constant(f"{name}.bias", self._tensors[f"{name}.bias"] * scale)
        return self._node("Gemm", x, weight, bias)

    def _normalize(self, x: str, name: str) -> str:
        weight, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._node("LayerNormalization", x, weight, bias, axis=-1, epsilon=self._epsilon)

    def _as_matrix(self, x: str) -> str:
        return self._node("Reshape", x, self._integers("matrix", -1, self._hidden))

    def _node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def _weight(self, name: str) -> str:
        return self._constant(name, self._tensors[name])

    def _integers(self, name: str, *values: int) -> str:
        return self._constant(name, values, kind="int64")

    def _number(self, name: str, value: float) -> str:
        return self._constant(name, value)

    def _constant(self, name: str, value: Any, *, kind: str = "float32") -> str:
        import numpy as np
        from onnx import numpy_helper

        if name not in self._names:
            self._names.add(name)
            self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=kind), name))
        return name
