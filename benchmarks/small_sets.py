"""How steady are the Fréchet distance and the kernel distance on small sets?

python -m benchmarks.small_sets recordings latents models/piano/codec

Each draw splits pieces of 12 s into a reference and others, of which it compares the recordings,
their decoded latents, and decoded Gaussian latents of the same covariance. It prints their means,
the spread of the last two (standard deviation / mean), and how often the three are in this order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from diffwave.standardizer import PrincipalDimensions
from rave.audio.io import AudioStream
from rave.codec import load_codec
from rave.evaluation.folders import PIECE_S
from rave.evaluation.frechet import frechet_distance, kernel_bandwidth, kernel_distance
from rave.evaluation.musicnn import SAMPLE_RATE_HZ, embed, load_musicnn
from rave.latent_dataset import LatentDataset
from rave.noise import DecoderNoise

SIZES = (10, 20, 40, 80)
PIECE_PATCHES = 4
NUM_DRAWS = 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("recordings", "latents", "codec"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    codec, musicnn = load_codec(options.codec, torch.device("cpu")), load_musicnn()
    rate_hz, noise = codec.format.sample_rate_hz, DecoderNoise(codec.format, 0)
    dataset, rng = LatentDataset(options.latents), np.random.default_rng(0)
    arrays = [dataset.array(index) for index in range(len(dataset))]
    principal = PrincipalDimensions.of(arrays)
    spread = principal.vectors.T * np.sqrt(np.maximum(principal.variance, 0.0))
    sets: list[list[NDArray[np.float32]]] = [[], [], []]
    for array, file in zip(arrays, dataset.files, strict=True):
        stream = AudioStream(options.recordings / str(file.source), rate_hz, 1)
        drawn = spread @ rng.standard_normal(array.shape) + principal.mean[:, None]
        sounds = [np.concatenate(list(stream), axis=1)]
        sounds += [codec.decode(each.astype(np.float32), noise) for each in (array, drawn)]
        for pieces, sound in zip(sets, sounds, strict=True):
            found = embed(musicnn, soxr.resample(sound.mean(axis=0), rate_hz, SAMPLE_RATE_HZ))
            count = len(found) * 3 // PIECE_S
            pieces += np.split(found[: count * PIECE_PATCHES], count)
    count = min(len(pieces) for pieces in sets)
    print("patches" + " | means | spread of decoded, of Gaussian | in order" * 2)
    for size in SIZES:
        distances = np.empty((NUM_DRAWS, 2, len(sets)))
        for row in distances:
            order = rng.permutation(count)[: 2 * -(-size // PIECE_PATCHES)]
            one, other = np.split(order, 2)
            reference = np.concatenate([sets[0][index] for index in one])[:size]
            width = kernel_bandwidth(reference)
            for number, pieces in enumerate(sets):
                audio = np.concatenate([pieces[index] for index in other])[:size]
                row[0, number] = frechet_distance(reference, audio)
                row[1, number] = kernel_distance(reference, audio, width)
        cells = [str(size)]
        for each in distances.swapaxes(0, 1):
            means = each.mean(axis=0)
            spreads = each.std(axis=0)[1:] / means[1:]
            cells += [f"{means.round(1)}", f"{spreads.round(2)}"]
            cells.append(f"{(np.diff(each, axis=1) > 0).all(axis=1).mean():.0%}")
        print(" | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
