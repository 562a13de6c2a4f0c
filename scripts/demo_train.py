"""Run the whole path on synthesized music, training included, and write a report.

    python scripts/demo_train.py [--out demo-train-output] [--quick]

Run again, it continues where it stopped: every command resumes by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo_audio import make_demo_audio
from demo_walk import Stage, run_demo, walk_stages
from report_train import write_report

from rave.held_out import Origin, split_names, without_suffix

SAMPLE_RATE_HZ = 22050
# The shares that the two recipes named tiny hold out; the smaller one lies within the larger.
RAVE_HELD_OUT, DIFFWAVE_HELD_OUT = 0.2, 0.1


@dataclass(frozen=True)
class Size:
    """Amount of work of the demo.

    Attributes:
        num_files: Phrases to synthesize.
        file_seconds: Length of each.
        generated_seconds: Length of each generated clip.
        rave_settings: Changes to the recipe `tiny` of rave.
        diffwave_settings: Changes to the recipe `tiny` of diffwave.
    """

    num_files: int
    file_seconds: float
    generated_seconds: float
    rave_settings: tuple[str, ...] = ()
    diffwave_settings: tuple[str, ...] = ()


FULL = Size(num_files=24, file_seconds=10.0, generated_seconds=10.0)
QUICK = Size(
    num_files=6,
    file_seconds=3.0,
    generated_seconds=2.0,
    rave_settings=(
        "CAPACITY=4",
        "LATENT_SIZE=8",
        "MAX_STEPS=12",
        "PHASE_1_STEPS=10",
        "CROP_SAMPLES=8192",
        "VALIDATE_EVERY_STEPS=6",
        "training.RaveTraining.log_every_steps=2",
    ),
    diffwave_settings=(
        "MAX_STEPS=20",
        "SEGMENT_FRAMES=16",
        "NUM_BLOCKS=2",
        "HIDDEN_CHANNELS=16",
        "HELD_OUT_SEGMENTS=8",
        "VALIDATE_EVERY=10",
    ),
)


def followed_name(audio_names: Sequence[str]) -> str:
    """Return the recording to follow: one that neither training sees."""
    return split_recordings(audio_names, DIFFWAVE_HELD_OUT)[1][0]


def split_recordings(names: Iterable[str], fraction: float) -> tuple[list[str], list[str]]:
    """Return the names of recordings, of which none is a version, as the trainings divide them."""
    return split_names({name: Origin(without_suffix(name)) for name in names}, fraction)


def stages(size: Size, audio_names: Sequence[str], seed: int) -> list[Stage]:
    """Return every step from audio to new audio.

    Args:
        size: Amount of work.
        audio_names: File names in audio/.
        seed: Seed of training and generation.
    """
    known, held_out = split_recordings(audio_names, RAVE_HELD_OUT)
    first, second = [*held_out, *known][:2]
    spectrogram = f"spectrograms/{Path(followed_name(audio_names)).stem}.npy"
    rave_settings = "".join(f" --set {setting}" for setting in size.rave_settings)
    diffwave_settings = "".join(f" --set {setting}" for setting in size.diffwave_settings)
    generate = "python -m diffwave.inference runs/diffwave"
    return [
        Stage(
            "Prepare the audio",
            f"rave preprocess audio prepared --sample-rate {SAMPLE_RATE_HZ}",
        ),
        Stage(
            "Train the autoencoder",
            f"rave train tiny --data prepared --out runs/rave --seed {seed}{rave_settings}",
        ),
        Stage("Audio to latents", "rave encode runs/rave audio latents"),
        Stage(
            "Latents to audio",
            "rave decode runs/rave latents reconstructions",
        ),
        Stage(
            "Spectrograms for the diffusion model to follow",
            "python -m diffwave.preprocess latents audio spectrograms",
        ),
        Stage(
            "Train the diffusion model",
            "python -m diffwave.train latents --config tiny --out runs/diffwave "
            f"--spectrograms spectrograms --seed {seed}{diffwave_settings}",
        ),
        Stage(
            "Diagnose the diffusion model",
            f"python -m diffwave.diagnose runs/diffwave --codec runs/rave --seed {seed}",
        ),
        Stage(
            "Generate latents from noise",
            f"{generate} generated --count 4 --seconds {size.generated_seconds:g} "
            f"--seed {seed} --force",
        ),
        Stage("Decode them", "rave decode runs/rave generated generated_audio"),
        Stage(
            "Generate latents that follow a recording the model has not seen",
            f"{generate} generated_conditioned --count 2 --seed {seed} --force "
            f"--spectrogram {spectrogram}",
        ),
        Stage(
            "Decode them",
            "rave decode runs/rave generated_conditioned generated_conditioned_audio",
        ),
        Stage(
            "Blend two recordings in the latent space",
            f"rave interpolate runs/rave audio/{first} audio/{second} interpolation --force",
        ),
        Stage("Export the autoencoder", "rave export runs/rave runs/rave.ts"),
    ]


def walk(size: Size, out: Path, seed: int) -> Path:
    """Run every stage in `out`, and return the report's path.

    Raises:
        ValueError: If a command fails; its own message is on stderr already.
    """
    print(f"\nSynthesize {size.num_files} phrases of {size.file_seconds:g} s", flush=True)
    audio = make_demo_audio(out / "audio", size.num_files, size.file_seconds, SAMPLE_RATE_HZ, seed)
    names = [path.name for path in audio]
    journal = {
        "seed": seed,
        "held_out": split_recordings(names, RAVE_HELD_OUT)[1],
        "followed": followed_name(names),
    }
    walk_stages(stages(size, names, seed), out, journal)
    print("\nWrite the report", flush=True)
    return write_report(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="demo_train.py",
        description="Run the whole path on synthesized music, in under 10 minutes on 2 CPU cores. "
        "The same command again continues.",
        epilog="example:\n  python scripts/demo_train.py --out demo-train-output",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo-train-output"),
        help="folder (default demo-train-output)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    parser.add_argument(
        "--quick", action="store_true", help="a few steps of small models: a test, not music"
    )
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else FULL
    return run_demo("demo_train.py", lambda: walk(size, options.out, options.seed))


if __name__ == "__main__":
    sys.exit(main())
