"""Start a training from the weights of another run, ours or acids-rave's, or from its audio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from torch import Tensor, nn

from rave.blocks.linear import LinearEncoder
from rave.blocks.oscillators import OscillatorDecoder
from rave.codec import open_run
from rave.dataset import PreparedAudioDataset
from rave.model import RAVE
from rave.upstream.discriminators import discriminator_rules
from rave.upstream.names import their_name
from rave.upstream.run import is_run

DISCRIMINATOR = "discriminator."
NUM_COMPARED_HOPS = 8
NUM_FITTED_FRAMES = 8192


@dataclass(frozen=True)
class InitialWeights:
    """The weights that were taken from a run.

    Attributes:
        fingerprint: Fingerprint of the run's codec.
        has_discriminator: Whether the discriminators' weights were taken, too.
        largest_difference: Largest difference of the two models' outputs for the same noise,
            relative to the largest value: 0 unless more than weights differ, such as causality.
    """

    fingerprint: str
    has_discriminator: bool
    largest_difference: float


def take_weights(model: RAVE, discriminator: nn.Module, run: Path) -> InitialWeights:
    """Copy the weights of a run into a model and, if they fit, into its discriminator.

    Args:
        model: Model of the recipe; noise generators that the run has not trained stay as they are.
        discriminator: Discriminator of the recipe; unchanged if the run has none of its kind.
        run: Run that `open_run` can open.

    Raises:
        ValueError: If the run cannot be opened, or its weights do not fit this model.
    """
    if run.suffix == ".ts":
        raise ValueError(
            f"'{run}' is an export, which cannot be trained. Give the run that it was exported "
            "from."
        )
    source, codec_format, checkpoint = open_run(run)
    found, current = source.state_dict(), model.state_dict()
    _check_fit(found, current, run)
    model.load_state_dict({**current, **found})
    weights = _discriminator_weights(discriminator, checkpoint["state_dict"], is_run(run))
    is_fitting = _shapes(weights) == _shapes(discriminator.state_dict())
    if is_fitting:
        discriminator.load_state_dict(weights)
    return InitialWeights(codec_format.fingerprint, is_fitting, _difference(model, source))


def fit_linear_layers(model: RAVE, crops: PreparedAudioDataset, seed: int) -> None:
    """Fit the linear layers of encoder and decoder to the first crops, if it has such layers.

    Raises:
        ValueError: If the crops have too few frames.
    """
    encoder, decoder, spectrogram = model.encoder, model.decoder, model.spectrogram
    if isinstance(encoder, LinearEncoder) and isinstance(decoder, OscillatorDecoder):
        assert spectrogram is not None  # their input
        num_crops = ceil(NUM_FITTED_FRAMES * model.hop_samples / crops.crop_samples)
        first = range(min(num_crops, len(crops)))
        spectrograms = torch.cat([spectrogram(crops[index][None]) for index in first])
        encoder.fit(spectrograms, decoder.linear, seed)


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


def _check_fit(found: Mapping[str, Tensor], current: Mapping[str, Tensor], run: Path) -> None:
    theirs, ours = _shapes(found), _shapes(current)
    for name in {**current, **found}:
        if name not in theirs and name.startswith("decoder.noise."):
            continue  # in phase 1, v1 of acids-rave has no noise
        if theirs.get(name) != ours.get(name):
            sizes = [str(shapes.get(name, "missing")) for shapes in (theirs, ours)]
            raise ValueError(
                f"The model of '{run}' does not fit this recipe ({name} is {sizes[0]} there, "
                f"{sizes[1]} here). Give the recipe and the sizes that it was trained with."
            )


def _discriminator_weights(
    discriminator: nn.Module, weights: Mapping[str, Tensor], is_theirs: bool
) -> dict[str, Tensor]:
    """Return the weights that a run, ours or acids-rave's, has for a discriminator."""
    names = list(discriminator.state_dict())
    if not is_theirs:
        theirs = {name: f"{DISCRIMINATOR}{name}" for name in names}
    else:
        parts = getattr(discriminator, "discriminators", None)
        rules = discriminator_rules(len(parts) if isinstance(parts, nn.ModuleList) else 0)
        theirs = {name: their_name(f"{DISCRIMINATOR}{name}", rules) for name in names}
    return {name: weights[other] for name, other in theirs.items() if other in weights}


@torch.inference_mode()
def _difference(model: RAVE, source: RAVE) -> float:
    generator = torch.Generator().manual_seed(0)
    shape = (1, source.num_channels, NUM_COMPARED_HOPS * source.hop_samples)
    audio = 0.1 * torch.randn(shape, generator=generator)
    latents = source.with_noise_rows(source.encode(audio).mean, generator)
    noise = source.band_noise(latents, generator)
    if noise is None:  # the model may have noise that the source has not
        rows = source.num_channels * source.pqmf.num_bands
        noise = torch.zeros(1, rows, audio.shape[-1] // source.pqmf.num_bands)
    mode, largest = model.training, 0.0
    model.eval()
    for expected, actual in (
        (source.encode(audio).mean, model.encode(audio).mean),
        (source.decode(latents, noise), model.decode(latents, noise)),
    ):
        size = max(float(expected.abs().max()), 1e-12)
        largest = max(largest, float((expected - actual).abs().max()) / size)
    model.train(mode)
    return largest
