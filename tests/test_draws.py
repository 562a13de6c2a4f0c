"""Every random draw has its law, is another for another item or seed, and is in the table below."""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import drawn_in_decoding as decoding
import drawn_in_training as training
import numpy as np
import pytest
from drawn_in_training import NEVER, Array
from scipy.special import ndtri

from rave import augmentation
from rave.evaluation import frechet
from rave.model import LATEST_STEP

ROOT = Path(__file__).parents[1]
PARTS = (np.arange(10_000) + 0.5) / 10_000
NORMAL = ndtri(PARTS)
SIGNS = np.repeat([-1.0, 1.0], 100)
HALF = np.full((1, 8), 0.5, np.float32)
CLICK = np.eye(1, 2000)


def uniform(low: float, high: float) -> Array:
    """Return the quantiles of numbers anywhere between two."""
    return low + (high - low) * PARTS


def whole(count: int) -> Array:
    """Return the quantiles of whole numbers from 0, `count` of them alike."""
    return np.repeat(np.arange(count), 100)


def sometimes(probability: float, law: Array, otherwise: float = NEVER) -> Array:
    """Return the quantiles of a law that holds with a probability, beside one number."""
    return np.append(law, np.full(round(len(law) * (1 / probability - 1)), otherwise))


def gain_db(crop: Array) -> float:
    """Return by how much half of full scale was raised."""
    return 20 * float(np.log10(crop[0, 0] / HALF[0, 0]))


@dataclass(frozen=True)
class Draw:
    """A draw of the product.

    Attributes:
        values: Makes it with a seed.
        law: Quantiles of what it should be.
        functions: That draw it, `module:function`.
        has_seed: Whether it follows from the user's seed.
    """

    values: Callable[[int], Any]
    law: Array
    functions: tuple[str, ...]
    has_seed: bool = True


def of(values: Callable[[int], Any], law: Array, *functions: str, **more: bool) -> Draw:
    """Return a draw."""
    return Draw(values, law, functions, **more)


AUGMENTATION = "rave.augmentation:Random"
DRAWS = {
    # Training of the codec
    "polarity": of(training.polarities, SIGNS, "rave.training:RaveSystem.training_step"),
    "noise rows": of(training.noise_rows, NORMAL, "rave.model:RAVE.with_noise_rows"),
    "noise bands": of(training.training_bands, uniform(-1, 1), "rave.model:RAVE.band_noise"),
    "first step of oscillators": of(training.clocks, uniform(0, LATEST_STEP)),
    "noise rows left out": of(
        training.rows_that_are_missing, NORMAL, "rave.model:RAVE.decoder_output"
    ),
    "noise bands left out": of(
        training.bands_that_are_missing, uniform(-1, 1), "rave.blocks.noise:NoiseGenerator.forward"
    ),
    "posterior": of(
        training.posterior_samples, NORMAL, "rave.blocks.posterior:DiagonalGaussian.sample"
    ),
    "scales": of(training.scales, whole(4), "rave.losses:SpectralDistance.forward"),
    "points of the penalty": of(
        training.penalty_draws, NORMAL, "rave.blocks.bottleneck:Wasserstein.penalty"
    ),
    "vectors of dead codes": of(training.dead_codes, whole(10), "rave.blocks.quantizer:_draw"),
    "crop of a short file": of(
        partial(training.starts, of=0), whole(201), "rave.dataset:PreparedAudioDataset._drawn"
    ),
    "crop of a long file": of(partial(training.starts, of=1), whole(801)),
    "crop at another speed": of(training.pitched_starts, uniform(0, 1)),
    "file of a crop": of(training.files, np.repeat([0, 1, 1, 1], 100)),
    "segment of the prior": of(
        training.prior_places, whole(100), "rave.prior_training:PriorSegments._drawn"
    ),
    # Augmentations
    "gain": of(
        training.changed(augmentation.RandomGain(), HALF, gain_db),
        sometimes(0.5, uniform(-6, 3)),
        AUGMENTATION + "Gain.__call__",
    ),
    "mute": of(
        training.changed(augmentation.RandomMute(), HALF, lambda crop: crop.any()),
        sometimes(0.1, np.zeros(100), 1.0),
        AUGMENTATION + "Mute.__call__",
    ),
    "phase": of(
        training.changed(augmentation.RandomPhase(), CLICK, training.phase_hz),
        sometimes(0.8, uniform(np.log(20), np.log(2000))),
        AUGMENTATION + "Phase.__call__",
    ),
    "compressor": of(
        training.compressed_levels,
        sometimes(0.8, uniform(-60, 0), 1.0),
        AUGMENTATION + "Compress.__call__",
    ),
    "dequantisation": of(
        training.dequantisation, uniform(-0.5, 0.5), "rave.augmentation:Dequantise.__call__"
    ),
    "speed": of(
        training.speeds,
        sometimes(0.5, uniform(np.log(0.9), np.log(1.1))),
        AUGMENTATION + "Pitch.draw",
    ),
    "shift of a version": of(
        lambda seed: decoding.versions(seed)[0],
        uniform(0, 0.1),
        "rave.api.augment:write_versions",
    ),
    "polarity of a version": of(lambda seed: decoding.versions(seed)[1], SIGNS),
    # Of the codec
    "posterior of a file": of(
        decoding.encoded_noise,
        NORMAL,
        "rave.api.encode:Encoding._windows",
        "rave.noise:PositionalNoise.normal",
    ),
    "uninformative latents": of(
        decoding.filled_latents, NORMAL, "rave.noise:DecoderNoise.decoder_input"
    ),
    "bands": of(
        decoding.bands,
        uniform(-1, 1),
        "rave.noise:DecoderNoise.bands",
        "rave.noise:PositionalNoise.uniform",
    ),
    "numbers in the host": of(decoding.scripted, uniform(0, 1)),
    "normal numbers in the host": of(decoding.scripted_normal, NORMAL),
    "numbers in the host without a seed": of(
        decoding.scripted_afresh, uniform(0, 1), "rave.streaming.noise:PositionalUniform.forward"
    ),
    "prior": of(decoding.prior_samples, NORMAL, "rave.prior:_drawn"),
    # Training of the diffusion model
    "segment": of(
        training.segment_starts,
        whole(281),
        "diffwave.dataset:SegmentDataset._drawn",
    ),
    "clip of a segment": of(
        training.clips, np.repeat([0, 1, 1, 1], 100), "diffwave.clips:ListedClips.drawn"
    ),
    "noise": of(
        training.diffusion_noise, NORMAL, "diffwave.training:DiffusionSystem.training_step"
    ),
    "timesteps of training": of(training.diffusion_timesteps, whole(50)),
    "timesteps": of(training.timesteps, whole(50), "diffwave.denoiser:stratified_timesteps"),
    "dropout of one condition": of(
        partial(training.without_conditions, names="a"),
        np.repeat([0, 1], [80, 20]),
        "diffwave.training:dropped_conditions",
    ),
    "dropout of two conditions": of(
        partial(training.without_conditions, names="ab"),
        np.repeat([0, 1, 2, 3], [65, 5, 5, 25]),
    ),
    "noise of held-out segments": of(
        training.held_out_noise, NORMAL, "diffwave.training:held_out_errors", has_seed=False
    ),
    "timesteps of held-out segments": of(
        training.held_out_steps, whole(50), "diffwave.training:held_out_timesteps", has_seed=False
    ),
    # Generation
    "clips": of(decoding.streamed, NORMAL, "diffwave.sampling.samplers:NoiseStream.window"),
    "inpainting": of(decoding.inpainted, NORMAL, "diffwave.sampling.editing:inpaint_latents"),
    "audio": of(decoding.audio_noise, NORMAL, "diffwave.api.vocode:_write"),
    "white noise of the ladder": of(
        decoding.white_rung, NORMAL, "diffwave.evaluation.ladder:Ladder.noise"
    ),
    "latents of the ladder": of(
        decoding.latent_rung, NORMAL, "diffwave.evaluation.ladder:Ladder._drawn"
    ),
    "noise of a diagnosis": of(decoding.probed, NORMAL, "diffwave.diagnosis.run:_probe"),
    # Measures
    "pieces": of(
        partial(decoding.pieces_drawn, draw=frechet._draw),
        whole(10),
        "rave.evaluation.frechet:_draw",
    ),
    "pieces anew": of(
        partial(decoding.pieces_drawn, draw=frechet._redraw),
        whole(10),
        "rave.evaluation.frechet:_redraw",
    ),
    "halves": of(decoding.first_halves, whole(10), "rave.evaluation.folders:_halves"),
}
# Draws that are no part of a result, or whose law a test of their own knows.
COMPARED = "the same input of both sides of a comparison"
ELSEWHERE = {
    "rave.codec_source:noise_outputs": COMPARED,
    "rave.export.onnx:_inputs": COMPARED,
    "rave.initial_weights:_difference": COMPARED,
    "diffwave.api.export:_guess": COMPARED,
    "diffwave.diagnosis.sample_statistics:sliced_wasserstein": "directions, always the same",
    "diffwave.app.page:Page.build": "a seed for the next result",
    "diffwave.evaluation.figures:measure_ladder": "builds the rung; see the latents of the ladder",
    "rave.api.shard:shard_latents": "test_latent_shards.py::"
    "test_a_set_is_cut_into_shards_and_depends_on_clips_and_seed_alone",
    "diffwave.clips:ShardedClips.drawn": "test_sharded_training.py::"
    "test_every_frame_is_as_likely_as_any_other",
    "diffwave.clips:ShardedClips._shard": "test_sharded_training.py::"
    "test_every_frame_is_as_likely_as_any_other",
    "diffwave.streaming.normal:ScriptedNormal.forward": "test_diffwave_streaming_sampler.py::"
    "test_the_numbers_of_a_seed_are_torchs",
    "diffwave.streaming.sampler:StreamingSampler.begin": "test_diffwave_streaming_sampler.py::"
    "test_without_a_seed_each_stream_is_another",
    "diffwave.streaming.sampler:StreamingSampler.begin_window": "test_diffwave_streaming_sampler.py"
    "::test_a_stream_is_what_the_same_seed_makes_in_a_file",
    "diffwave.streaming.nn_tilde:NNTildeSampler.sample": "test_diffwave_nn_tilde.py::"
    "test_what_latents_do_not_say_is_filled_with_noise",
    "diffwave.upstream.waveform:WaveformDiffusion.sample": "test_diffwave_waveform.py::"
    "test_network_and_samples_are_theirs",
    "rave.streaming.nn_tilde:NNTilde.audio_of": "test_rave_nn_tilde.py::"
    "test_missing_latents_are_filled_with_normal_noise",
    "rave.streaming.nn_tilde:NNTilde.audio_of_raw": "test_rave_nn_tilde.py::"
    "test_the_host_hears_the_offline_model_after_the_stated_latency",
}


def drawing_functions():
    """Return every function of the product that asks a generator for numbers."""
    return {
        f"{module}:{name}"
        for folder in ("rave", "diffwave")
        for path in (ROOT / folder).rglob("*.py")
        for module in [".".join(path.relative_to(ROOT).with_suffix("").parts)]
        # Their losses are held against closed forms (test_diffwave_experiments.py).
        if not module.startswith("diffwave.experiments.")
        for name in _functions_with(ast.parse(path.read_text()), "")
    }


METHODS = {
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "multinomial"),
    *("bernoulli", "normal", "normal_", "uniform", "uniform_", "random", "random_", "integers"),
    *("choice", "permutation", "shuffle", "standard_normal"),
}


def _functions_with(tree, scope):
    """Yield the names of the outermost functions of a tree that call one of `METHODS`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _functions_with(node, f"{scope}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            calls = (each.func for each in ast.walk(node) if isinstance(each, ast.Call))
            if any(isinstance(call, ast.Attribute) and call.attr in METHODS for call in calls):
                yield scope + node.name
        else:
            yield from _functions_with(node, scope)


def test_every_function_that_draws_is_in_the_table():
    known = {name for draw in DRAWS.values() for name in draw.functions} | set(ELSEWHERE)
    assert drawing_functions() == known
    for page, _, test in (each.partition("::") for each in ELSEWHERE.values() if "::" in each):
        assert f"def {test}(" in (ROOT / "tests" / page).read_text()


def distance_of_laws(values, law):
    """Return the largest difference of two distribution functions (Kolmogorov & Smirnov)."""
    values, law = (np.sort(np.round(each.ravel(), 6)) for each in (values, law))
    points = np.union1d(values, law)
    return max(
        np.abs(
            np.searchsorted(values, points, side) / len(values)
            - np.searchsorted(law, points, side) / len(law)
        ).max()
        for side in ("left", "right")
    )


def correlation(one, other):
    """Return the correlation of two arrays, in standard deviations of that of independent ones."""
    one, other = (each.ravel() - each.mean() for each in (one, other))
    return abs((one * other).mean()) / (one.std() * other.std()) * np.sqrt(one.size)


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_has_its_law_and_is_another_for_each_item_and_seed(name):
    draw = DRAWS[name]
    first = np.asarray(draw.values(0), np.float64)
    # Exceeded by one law in a thousand; the seed is fixed.
    assert distance_of_laws(first, draw.law) < 2 / np.sqrt(first.size)
    assert correlation(first[1:], first[:-1]) < 4
    if first.shape[1] > 1:
        assert len(np.unique(first, axis=0)) == len(first) or len(np.unique(draw.law)) < 100
        assert correlation(first[:, 1:], first[:, :-1]) < 4
    assert np.array_equal(first, draw.values(0))
    if draw.has_seed:
        other = np.asarray(draw.values(1), np.float64)
        count = min(len(first), len(other))
        assert correlation(first[:count], other[:count]) < 4
