"""Networks run by OpenVINO instead of torch: the same outputs on a CPU, in less time.

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
LARGE = 10_000_000  # weights; v2 has 31 million, small 4


def choose_backend(name: str, device: torch.device, num_weights: int) -> str:
    """Return the backend that `--backend` names.

    Args:
        name: "auto" is OpenVINO where it is installed, for a model so large that the two seconds
            it takes to begin are won back within minutes of audio.
        device: Device to compute on.
        num_weights: Number of weights of the model.

    Raises:
        ValueError: If there is no such backend here, or it cannot compute on the device.
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
    """Return a network that gives the same and is faster, for inference only.

    Args:
        network: Takes tensors (B, …, T) and returns one. Inputs that are None must always be.
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
        given = (each for each in inputs if each is not None)
        arrays = {index: each.contiguous().numpy() for index, each in enumerate(given)}
        return torch.from_numpy(self._request.infer(arrays)[0])


@cache
def _openvino() -> tuple[Any, Any]:
    """Return the package, and its core, of which there must be one.

    Each core takes over the stack that signals are handled on, and when it goes, puts back the one
    before: of two that overlap, one that is freed. The next signal then ends the process.
    """
    # With this package OpenVINO tells its makers of each use; without, it has a stub for it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino, openvino.Core()


def _compiled(network: nn.Module, inputs: tuple[Tensor | None, ...], precision: str) -> Any:
    openvino, core = _openvino()
    with torch.no_grad(), warnings.catch_warnings():
        # Of tracing: what is checked of shapes is no part of the trace; it is itself deprecated.
        warnings.simplefilter("ignore")
        model = openvino.convert_model(network, example_input=inputs)
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # or all processes of a machine take the same cores
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
    }
    return core.compile_model(model, "CPU", settings).create_infer_request()
