"""Small models, codecs and run folders for tests, built from the shipped recipes."""

from collections.abc import Sequence
from pathlib import Path

import torch

from rave import experiment
from rave.blocks.convolution import fold_weight_norm
from rave.blocks.oscillators import BandConv
from rave.codec import Codec, load_run
from rave.codec_format import CodecFormat
from rave.files.atomic import atomic_write
from rave.latents.statistics import LatentStatistics
from rave.model import RAVE
from rave.runs.checkpoint import last_checkpoint
from rave.training_audio import TrainingAudio

# Two channels after the first convolution: enough for every law, and quick.
SMALL = ("CAPACITY=2", "LATENT_SIZE=4")
SHORT = ("RATIOS=[2, 2]", "DILATIONS=[[1, 3], [1]]")  # with v2's 16 bands, a hop of 64
# A hop of 128, in steps of 32, and few oscillators.
FEW_OSCILLATORS = (
    *("STEP_SAMPLES=32", "WINDOWS=[256, 64]", "BINS=[96, 32]", "NUM_ROWS=128"),
    *("oscillators.OscillatorBank.spacing_cents=400", "oscillators.OscillatorBank.widest_hz=345"),
)


def build_model(recipe: str = "v2", *settings: str, seed: int = 0) -> RAVE:
    """Return a model with random weights, for inference."""
    torch.manual_seed(seed)
    experiment.parse_recipe("rave", recipe, settings)
    model: RAVE = experiment.new_model()
    for layer in model.modules():
        if isinstance(layer, BandConv):  # of which some begin as zeros, that hide what is before
            torch.nn.init.normal_(layer.weight, std=0.1)
            torch.nn.init.normal_(layer.shift, std=0.1)
    return model.eval().requires_grad_(False)


def small_model(recipe: str = "v2", *settings: str, seed: int = 0) -> RAVE:
    """Return a model of very few channels."""
    return build_model(recipe, *SMALL, *settings, seed=seed)


def band_noise(model: RAVE, num_frames: int, seed: int = 0) -> torch.Tensor:
    """Return what a noisy decoder draws, (1, C·M, N·hop/M), or a clock from 0 on, (1, 1, S)."""
    generator = torch.Generator().manual_seed(seed)
    steps = num_frames * model.noise_steps_per_frame
    if model.has_clock:
        return torch.arange(steps).float()[None, None]
    rows = model.decoder_noise_rows or model.pqmf.num_bands * model.num_channels
    return 2 * torch.rand(1, rows, steps, generator=generator) - 1


def known_audio(
    informative: Sequence[bool], noise_std: float = 1.0, fingerprint: str = ""
) -> TrainingAudio:
    """Return training audio of -30 to -20 dBFS in which some latents are informative."""
    size = len(informative)
    statistics = LatentStatistics(
        mean=[0.25] * size,
        std=[2.0 if each else 0.0 for each in informative],
        posterior_std=[noise_std] * size,
        kl=[0.0] * size,
        num_frames=1000,
    )
    return TrainingAudio(fingerprint, statistics, [-30.0, -20.0], [[-90.0] * 7, [0.0] * 7])


def remember(run: Path, *informative: bool) -> None:
    """Let a run know which of its latents are informative."""
    known_audio(informative, fingerprint=load_run(run)[1].fingerprint).write(run)


def codec_of(model: RAVE) -> Codec:
    """Return the codec of a model that is in no run folder; its weight norm is folded."""
    codec_format = CodecFormat.of(model)
    fold_weight_norm(model)
    return Codec(model, codec_format, Path("none"), torch.device("cpu"))


def write_run(folder: Path, recipe: str = "v2", *settings: str, seed: int = 0) -> Path:
    """Write the run folder of a small model that was not trained, and return it."""
    model = small_model(recipe, *settings, seed=seed)
    config = experiment.resolved_config()
    experiment.save_run(folder, "rave", config, config)
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    with atomic_write(last_checkpoint(folder)) as temporary:
        torch.save({"state_dict": weights, "global_step": 0}, temporary)
    return folder
