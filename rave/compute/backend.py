"""Run networks with OpenVINO instead of torch: the same outputs, faster on a CPU.

B batch, T time steps.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

BACKENDS = ("auto", "torch", "openvino")
PRECISIONS = ("float32", "bfloat16")
LARGE = 10_000_000  # weights; v2 has 31 million, small 4 million


def choose_backend(name: str, device: torch.device, num_weights: int) -> str:
    """Return the backend that `--backend` names.

    Args:
        name: "auto" is OpenVINO if it is installed and the model is so large that the start-up of
            two seconds pays off within minutes of audio.
        device: Device to compute on.
        num_weights: Number of weights of the model.

    Raises:
        ValueError: If the backend is not available, or cannot compute on the device.
    """
    if name not in BACKENDS:
        raise ValueError(f"There is no backend '{name}'. Choose one of: {', '.join(BACKENDS)}.")
    is_installed = importlib.util.find_spec("openvino") is not None
    if name == "auto":
        is_worth_it = is_installed and device.type == "cpu" and num_weights >= LARGE
        return "openvino" if is_worth_it else "torch"
    if name == "openvino" and not is_installed:
        raise ValueError(
            "The backend openvino is not installed. Install it with pip install -c constraints.txt "
            "-e '.[fast]', or choose torch."
        )
    if name == "openvino" and device.type != "cpu":
        raise ValueError(
            f"The backend openvino computes on the CPU, but the device is {device}. Choose the "
            "backend torch, or --device cpu."
        )
    return name


def accelerated(network: nn.Module, backend: str, precision: str) -> nn.Module:
    """Return a faster network with the same outputs, for inference only.

    Args:
        network: Takes tensors (B, …, T) and returns one. An input that is None must always be None.
        backend: "torch" or "openvino".
        precision: "float32", or "bfloat16" for its convolutions and products.

    Raises:
        ValueError: If there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"There is no precision '{precision}'. Choose one of: {', '.join(PRECISIONS)}."
        )
    if backend == "openvino":
        return _OpenVino(network, precision)
    return network if precision == "float32" else _Bfloat16(network)


class _Bfloat16(nn.Module):
    """A network whose products torch computes in bfloat16."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor | None) -> Tensor:
        """Return what the network returns."""
        kind = next(x.device.type for x in inputs if x is not None)
        with torch.autocast(kind, torch.bfloat16):
            output: Tensor = self.network(*inputs)
        return output.float()


class _OpenVino(nn.Module):
    """A network that OpenVINO runs; compiled at the first call, for any batch and length."""

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self._networks, self._precision = [network.eval()], precision
        self._request: Any = None

    def forward(self, *inputs: Tensor | None) -> Tensor:
        """Return what the network returns."""
        if self._request is None:
            self._request = _compiled(self._networks.pop(), inputs, self._precision)
        tensors = (each for each in inputs if each is not None)
        arrays = {index: each.contiguous().numpy() for index, each in enumerate(tensors)}
        return torch.from_numpy(self._request.infer(arrays)[0])


@cache
def _openvino() -> tuple[Any, Any]:
    """Return the package and its only core.

    Each core replaces the stack on which signals are handled, and restores the previous one when it
    is freed. With two overlapping cores that stack may be freed, and the next signal then ends the
    process.
    """
    # With this package, OpenVINO reports each use to its makers; without it, it uses a stub.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino, openvino.Core()


def _compiled(network: nn.Module, inputs: tuple[Tensor | None, ...], precision: str) -> Any:
    openvino, core = _openvino()
    with torch.no_grad(), warnings.catch_warnings():
        # Tracing warns that shape checks are not traced, and that it is deprecated.
        warnings.simplefilter("ignore")
        model = openvino.convert_model(network, example_input=inputs)
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # else all processes of a machine use the same cores
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
    }
    return core.compile_model(model, "CPU", settings).create_infer_request()
