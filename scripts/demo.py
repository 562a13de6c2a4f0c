"""Run the bundled models by the commands of a user, and write a report.

    python scripts/demo.py [--out demo-output] [--recordings FOLDER] [--models models/piano]

Run again, it continues where it stopped: every command resumes by itself.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo_piano import make_recordings
from demo_walk import Stage, run_demo, walk_stages
from release_model import CODEC, DIFFUSION

MODELS = Path(__file__).resolve().parents[1] / "models" / "piano"
# Number of a user's recordings, and seconds of each, that are used.
MAX_RECORDINGS, MAX_SECONDS = 6, 14.0
RECORDING_RATE_HZ = 44100
GENERATED_S = 10.0
STRENGTH, GUIDANCE = 0.5, 2
# Start and end of the span to inpaint, as shares of a recording.
SPAN = (0.4, 0.7)


@dataclass(frozen=True)
class Plan:
    """Use of each recording.

    Attributes:
        varied: Recording to vary and to inpaint.
        blended: Two recordings to blend.
        followed: Recording to follow.
        span_s: Span of `varied` to inpaint, in seconds.
    """

    varied: str
    blended: tuple[str, str]
    followed: str
    span_s: tuple[float, float]


def make_plan(durations_s: dict[str, float]) -> Plan:
    """Return a plan for recordings, by name: the first is varied, the last is followed."""
    names = list(durations_s)
    low, high = (round(share * durations_s[names[0]], 1) for share in SPAN)
    return Plan(names[0], (names[1 % len(names)], names[2 % len(names)]), names[-1], (low, high))


def stages(
    models: str, plan: Plan, seed: int, is_following: bool, is_level_known: bool = True
) -> list[Stage]:
    """Return every step from recordings to new music.

    Args:
        models: Folder of codec/ and diffusion/, relative to the demo's folder.
        plan: Use of each recording.
        seed: Random seed.
        is_following: Whether the diffusion model can follow a recording.
        is_level_known: Whether the codec knows the level of its training audio.
    """
    level = " --match-level" if is_level_known else ""
    codec, diffusion = (shlex.quote(f"{models}/{part}") for part in (CODEC, DIFFUSION))
    generate = f"python -m diffwave.inference {diffusion}"
    varied = shlex.quote(f"latents/{Path(plan.varied).stem}.npy")
    first, second, followed = (
        shlex.quote(f"recordings/{name}") for name in (*plan.blended, plan.followed)
    )
    low, high = plan.span_s
    end = f"--count 2 --seed {seed} --force"
    walk = [
        Stage("Recordings to latents", f"rave encode {codec} recordings latents{level}"),
        Stage(
            "Latents to audio",
            f"rave decode {codec} latents reconstructions",
        ),
        Stage(
            "New latents from noise",
            f"{generate} generated --count 3 --seconds {GENERATED_S:g} --seed {seed} --force",
        ),
        Stage("Decode them", f"rave decode {codec} generated generated_audio"),
        Stage(
            "Variations of a recording",
            f"{generate} varied --vary {varied} --strength {STRENGTH} {end}",
        ),
        Stage("Decode them", f"rave decode {codec} varied varied_audio"),
        Stage(
            "A span of a recording, inpainted",
            f"{generate} inpainted --inpaint {varied} --from {low} --to {high} {end}",
        ),
        Stage("Decode them", f"rave decode {codec} inpainted inpainted_audio"),
        Stage(
            "Blend two recordings in the latent space",
            f"rave interpolate {codec} {first} {second} blends --steps 3 --force{level}",
        ),
    ]
    if is_following:
        walk += [
            Stage(
                "New latents that follow another recording",
                f"{generate} following --from-audio {followed} --guidance {GUIDANCE} {end}",
            ),
            Stage("Decode them", f"rave decode {codec} following following_audio"),
        ]
    return walk


def take_recordings(source: Path, folder: Path) -> list[Path]:
    """Write the beginnings of a user's recordings as wav files, and return these.

    Raises:
        ValueError: If there are fewer than two.
    """
    from rave.api.result import Result
    from rave.audio.io import list_audio_files, read_audio, write_audio

    found = list_audio_files(source)
    if len(found) < 2:
        raise ValueError(f"'{source}' holds {len(found)} recordings; the demo blends two of them.")
    paths = []
    for number, path in enumerate(list(found.values())[:MAX_RECORDINGS], 1):
        taken = folder / f"{number:02d}-{path.stem}.wav"
        paths.append(taken)
        if not taken.exists():
            audio = read_audio(path, RECORDING_RATE_HZ, 1)
            num_samples = min(audio.shape[1], int(MAX_SECONDS * RECORDING_RATE_HZ))
            quantizer = write_audio(taken, [audio], RECORDING_RATE_HZ, 1, num_samples)
            limited = Result("", written={path.name: quantizer.figures}).warnings
            for text in limited.get(path.name, []):
                print(f"warning: {path.name}: {text}", flush=True)
    return paths


def walk(out: Path, models: Path, recordings: Path | None, seed: int) -> Path:
    """Run the demo in `out`, and return the report's path.

    Raises:
        ValueError: If the models are not there, or a command fails.
    """
    import soundfile
    from report import write_report

    from diffwave.conditioner import LABEL
    from diffwave.run import open_run
    from rave.codec import load_run

    for part in (CODEC, DIFFUSION):
        if not (models / part / "run.json").exists():
            raise ValueError(
                f"'{models / part}' is not a model. Give --models the folder of {CODEC}/ and "
                f"{DIFFUSION}/, or train your own: make demo-train."
            )
    folder = out / "recordings"
    print("\nTake the recordings" if recordings else "\nSynthesize recordings", flush=True)
    paths = take_recordings(recordings, folder) if recordings else make_recordings(folder)
    plan = make_plan({path.name: soundfile.info(path).duration for path in paths})
    conditions = open_run(models / DIFFUSION).model.conditioners
    is_following = any(name != LABEL for name in conditions)
    place = os.path.relpath(models, out)
    journal = {
        "seed": seed,
        "models": place,
        "is_synthesized": recordings is None,
        "recordings": [path.name for path in paths],
        "varied": plan.varied,
        "span_s": plan.span_s,
        "blended": plan.blended,
        "followed": plan.followed if is_following else None,
    }
    is_level_known = load_run(models / CODEC)[1].is_level_known
    walk_stages(stages(place, plan, seed, is_following, is_level_known), out, journal)
    print("\nWrite the report", flush=True)
    return write_report(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description="Generate, vary, inpaint, blend and follow with trained models, in under 2 "
        "minutes on 2 CPU cores. The same command again continues.",
        epilog="example:\n  python scripts/demo.py --recordings my-recordings",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder (default demo-output)"
    )
    parser.add_argument(
        "--models", type=Path, default=MODELS, help="codec/ and diffusion/ (default models/piano)"
    )
    parser.add_argument(
        "--recordings",
        type=Path,
        help="your own: the first six, up to 14 s of each (default: synthesized ones)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    options = parser.parse_args(arguments)
    return run_demo(
        "demo.py", lambda: walk(options.out, options.models, options.recordings, options.seed)
    )


if __name__ == "__main__":
    sys.exit(main())
