"""Networks in bf16, half of the bits of fp32, which OpenVINO computes."""

from __future__ import annotations

import platform
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from upsert_cli.errors import Refusal
from upsert_cli.limits import library_fault
from upsert_cli.packages import install_command, is_installed, lean_imports

if TYPE_CHECKING:
    from numpy.typing import NDArray

REQUIREMENT = "openvino>=2025.0"
CACHED_KERNELS = 64  # of each kind and stream; from 16 to 5,000 the CPU is the same, and 5,000 take 50 MB more


def bf16_fault() -> str | None:
    """Return why this machine cannot compute in bf16, with a remedy, or None if it can."""
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
        Refusal: OpenVINO is not installed, or the processor has no bf16.
    """
    if (fault := bf16_fault()) is not None:
        raise Refusal(message=f"--precision bf16 cannot be used: {fault}")


class OpenVinoSession:
    """A network compiled for bf16, with the methods of an onnxruntime session that fastembed calls.

    Several threads may call `run` at once: each thread has a request, and the network has as many streams as threads.
    """

    def __init__(self, graph: Path, *, threads: int) -> None:
        """Compile an ONNX file.

        Args:
            graph: The file.
            threads: The number of threads that call `run` at once.

        Raises:
            UpsertCliError: OpenVINO lacks an operator, the file is damaged, or memory runs out.
        """
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "NUM_STREAMS": threads,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # pinned threads of two loads would share one core and leave the other idle
            "CPU_RUNTIME_CACHE_CAPACITY": CACHED_KERNELS,
        }
        try:
            self._network = _core().compile_model(str(graph), "CPU", settings)
        except Exception as error:  # OpenVINO raises bare ones
            raise library_fault(
                error, problem=f"OpenVINO cannot compile {graph}", remedy="use --precision fp32"
            ) from error
        self._requests = threading.local()

    def get_inputs(self) -> Sequence[Any]:
        """Return the inputs of the network, each with its `name`."""
        return [SimpleNamespace(name=each.get_any_name()) for each in self._network.inputs]

    def run(self, names: Sequence[str] | None, inputs: Mapping[str, Any]) -> list[NDArray[Any]]:
        """Return the outputs with these names, or all outputs in the order of the graph."""
        if not hasattr(self._requests, "of_thread"):
            self._requests.of_thread = self._network.create_infer_request()
        outputs = self._requests.of_thread.infer(dict(inputs), share_inputs=True)
        wanted = range(len(self._network.outputs)) if names is None else names
        return [outputs[name] for name in wanted]


def _core() -> Any:
    """Return OpenVINO's registry of devices."""
    with lean_imports():
        import openvino

    return openvino.Core()
