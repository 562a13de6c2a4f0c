"""What a recipe of `diffwave.train` may be asked to change. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from rave.runs.recipes import Recipe, read_recipe

# Values of a recipe that cannot be set, and what they follow from.
GIVEN = {
    "SEED": "--seed",
    "RAW_SIZE": "the latents",
    "LATENT_SIZE": "the latents and FIDELITY",
    "NUM_MELS": "--spectrograms",
    "HOP_SAMPLES": "--spectrograms",
    "MEL_HOP_SAMPLES": "--spectrograms",
    "LABELS": "--labels",
    "NETWORK_CONDITION_CHANNELS": "the conditions and CONDITION_CHANNELS",
}


def diffusion_recipe(config: str, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe of a diffusion model, before anything is known of the data.

    Args:
        config: Name of a recipe, or path of a .gin file.
        settings: Lines NAME=VALUE that change it.

    Raises:
        ValueError: If it cannot be read, or a setting is unknown or follows from the data.
    """
    return read_recipe("diffwave", config, settings, GIVEN)
