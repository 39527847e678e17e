"""Everything that OpenVINO does here: it runs the network of a model in bf16, half of the bits of fp32."""

from __future__ import annotations

import platform
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from upsert_cli.errors import Refusal, UpsertCliError
from upsert_cli.limits import limit_reached
from upsert_cli.packages import install_command, is_installed, lean_imports
from upsert_cli.redaction import error_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

REQUIREMENT = "openvino>=2025.0"
CACHED_KERNELS = 64  # of each kind, in each stream; of 16 to 5,000 none takes less CPU, and 5,000 take 50 MB more


def bf16_fault() -> str | None:
    """Return why this machine cannot compute in bf16, with a remedy, or None if it can; this imports OpenVINO."""
    if not is_installed("openvino"):
        return f"OpenVINO is not installed on {platform.node()}; `{install_command(REQUIREMENT)}`"
    core = _core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        processor = core.get_property("CPU", "FULL_DEVICE_NAME")
        return f"the processor of {platform.node()}, {processor}, has no bf16; use --precision fp32"
    return None


def require_bf16() -> None:
    """Check that this machine can compute in bf16.

    Raises:
        Refusal: It cannot.
    """
    if (fault := bf16_fault()) is not None:
        raise Refusal(message=f"--precision bf16 cannot be used: {fault}")


class OpenVinoSession:
    """A network compiled for bf16, with the methods of an onnxruntime session that fastembed calls.

    Several threads may call `run` at once: the network has a stream for each of them, and each has a request of its
    own. A stream computes in one thread.
    """

    def __init__(self, graph: Path, *, threads: int) -> None:
        """Compile an ONNX file for calls from some number of threads.

        Raises:
            UpsertCliError: OpenVINO does not know an operator, the file is damaged, or memory runs out.
        """
        streams = {"NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
        cache = {"CPU_RUNTIME_CACHE_CAPACITY": CACHED_KERNELS}
        # Pinned threads of two loads would share one core and leave the other idle.
        settings = {"INFERENCE_PRECISION_HINT": "bf16", "ENABLE_CPU_PINNING": False} | streams | cache
        try:
            self._network = _core().compile_model(str(graph), "CPU", settings)
        except Exception as error:  # bare ones
            raise limit_reached(error, by_words=True) or UpsertCliError(
                message=f"OpenVINO cannot compile {graph} ({error_line(error, with_class=True)}); use --precision fp32"
            ) from error
        self._requests = threading.local()

    def get_inputs(self) -> Sequence[Any]:
        """Return the inputs of the network, each with its `name`."""
        return [SimpleNamespace(name=each.get_any_name()) for each in self._network.inputs]

    def run(self, names: Sequence[str] | None, inputs: Mapping[str, Any]) -> list[NDArray[Any]]:
        """Return the outputs of these names, or all of them in the order of the graph."""
        try:
            request = self._requests.own
        except AttributeError:
            request = self._requests.own = self._network.create_infer_request()
        found = request.infer(dict(inputs), share_inputs=True)
        return [found[name] for name in (range(len(self._network.outputs)) if names is None else names)]


def _core() -> Any:
    """Return OpenVINO's registry of devices, which knows the processor."""
    with lean_imports():
        import openvino

    return openvino.Core()
