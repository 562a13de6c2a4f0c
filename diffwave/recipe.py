"""Read a recipe of `diffwave.train` with changed settings. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from rave.runs.recipes import Recipe, read_recipe

# Values of a recipe that cannot be set, and what sets them.
DERIVED = {
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
    """Read a recipe of a diffusion model. It needs no data.

    Args:
        config: Name of a recipe, or path of a .gin file.
        settings: Settings NAME=VALUE that change the recipe.

    Raises:
        ValueError: If the recipe cannot be read, or a setting is unknown or follows from the data.
    """
    return read_recipe("diffwave", config, settings, DERIVED)
