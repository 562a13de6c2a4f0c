"""The kinds of latents in runs of acids-rave."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from rave.blocks.bottleneck import Bottleneck, Discrete, Gaussian, Spherical, Wasserstein
from rave.blocks.quantizer import ResidualQuantizer
from rave.upstream.config import Config, Part

# Ours → theirs, as regular expressions.
BOTTLENECK_NAMES = (
    (r"^bottleneck\.is_enabled$", "encoder.enabled"),
    (r"^bottleneck\.quantizer\.stages\.(\d+)\.codes$", r"encoder.rvq.layers.\1._codebook.embed"),
    (
        r"^bottleneck\.quantizer\.stages\.(\d+)\.sums$",
        r"encoder.rvq.layers.\1._codebook.embed_avg",
    ),
    (
        r"^bottleneck\.quantizer\.stages\.(\d+)\.counts$",
        r"encoder.rvq.layers.\1._codebook.cluster_size",
    ),
)


def _variational(config: Config, part: Part) -> Bottleneck:
    part.knows("encoder", "beta", "n_channels")
    return Gaussian()


def _wasserstein(config: Config, part: Part) -> Bottleneck:
    part.knows("encoder_cls", "noise_augmentation", "n_channels")
    return Wasserstein(_noise_rows(part))


def _spherical(config: Config, part: Part) -> Bottleneck:
    part.knows("encoder_cls", "n_channels")
    return Spherical()


def _discrete(config: Config, part: Part) -> Bottleneck:
    part.knows("encoder_cls", "vq_cls", "num_quantizers", "noise_augmentation", "n_channels")
    quantizer = config.chosen(part, "vq_cls", ["ResidualVectorQuantization"])
    quantizer.knows(
        *("num_quantizers", "dim", "codebook_size", "codebook_dim", "decay", "epsilon"),
        *("kmeans_init", "kmeans_iters", "threshold_ema_dead_code", "commitment_weight"),
    )
    quantizer.needs("codebook_dim", None, None)
    num_stages = quantizer.count("num_quantizers")
    part.needs("num_quantizers", num_stages, num_stages)
    sizes = quantizer.count("codebook_size"), quantizer.count("dim")
    return Discrete(ResidualQuantizer(num_stages, *sizes), _noise_rows(part))


def _noise_rows(part: Part) -> int:
    value = part.arguments.get("noise_augmentation", 0)
    if type(value) is not int or value < 0:
        raise part.refused("noise_augmentation", value)
    return value


# Their class → its argument that names the network, and the function that builds ours.
POSTERIORS: dict[str, tuple[str, Callable[[Config, Part], Bottleneck]]] = {
    "VariationalEncoder": ("encoder", _variational),
    "WasserteinEncoder": ("encoder_cls", _wasserstein),
    "DiscreteEncoder": ("encoder_cls", _discrete),
    "SphericalEncoder": ("encoder_cls", _spherical),
}


def check_codebooks(bottleneck: Bottleneck, weights: Mapping[str, Tensor], what: str) -> None:
    """Refuse codebooks that are in use but were not learnt.

    Raises:
        ValueError: If the codebook of any stage is.
    """
    if not isinstance(bottleneck, Discrete) or not int(weights["encoder.enabled"]):
        return
    learnt = [v for name, v in weights.items() if name.endswith("._codebook.inited")]
    if not all(bool(v.all()) for v in learnt):
        raise ValueError(
            f"The codebooks in {what} are in use, but not learnt. Take a later checkpoint."
        )
