"""Another value for each option of each command, and what shows it; read by test_options.py.

Names in braces are files and folders of `option_places.py`; {out} is a new folder for each command.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# What a change is looked for in: all that is written, or what is told where that is all there is.
WRITTEN, TOLD = "written", "told"


@dataclass(frozen=True)
class Case:
    """How an option is shown: two commands that differ in it alone.

    Attributes:
        given: Words that give it the other value.
        instead: Word of the command that they replace; none: they are added.
        more: Words of both commands, beside those of the command.
        words: Of both commands, in place of those of the command.
        after: Words of a command that has written into {out} before, in both cases.
        refused: The other value is refused in a sentence that holds this.
        seen: Where a change is looked for.
    """

    given: str
    instead: str = ""
    more: str = ""
    words: str = ""
    after: str = ""
    refused: str = ""
    seen: str = WRITTEN


@dataclass(frozen=True)
class Command:
    """A command that does little, and its options.

    Attributes:
        words: Of the command.
        options: By the name in the parser; of positional arguments the destination.
        seen: Where a change is looked for, unless an option says otherwise.
    """

    words: str
    options: dict[str, Case] = field(default_factory=dict)


def place(name: str, other: str) -> Case:
    """Return the case of an argument that names something to read."""
    return Case(f"{{{other}}}", instead=f"{{{name}}}")


OUT = Case("{out}-other", instead="{out}")
FOREIGN = Case("{other_codec}", instead="{codec}", refused="was encoded by another codec")
DEVICE = {"--device": Case("--device cuda:99", refused="There is no device 'cuda:99' here")}
PROCESSES = {
    "--devices": Case("--devices 0", refused="--devices 0 --nodes 1 were given"),
    "--nodes": Case("--nodes 0", refused="--devices 1 --nodes 0 were given"),
}
BACKEND = {
    # As where it is not installed: compiling takes a second.
    "--backend": Case("--backend openvino", refused="The backend openvino is not installed"),
    "--precision": Case("--precision bfloat16"),
}
WEIGHTS = {
    "--ema": Case("--ema", refused="averaged weights"),
    "--derivative": Case("--derivative"),
}
NO_CLUSTER = "No Ray cluster answers at '127.0.0.1:9'"
ENGINE = {
    "--engine": Case("--engine ray", more="--address 127.0.0.1:9", refused=NO_CLUSTER),
    "--address": Case("--engine ray --address nonsense", refused="HOST:PORT is needed"),
    "--cpus-per-worker": Case(
        "--engine ray --cpus-per-worker 0", refused="--cpus-per-worker 0 was given"
    ),
}
DECODING = {
    "--as-encoded": Case("--as-encoded"),
    "--codec-rate": Case("--codec-rate"),
    "--shift": Case("--shift 0=1"),
    "--scale": Case("--scale 1=0.5"),
}
SEED = {"--seed": Case("--seed 1")}
DRY_RUN = {"--dry-run": Case("--dry-run")}

INFERENCE = "{diffusion} {out} --count 1 --steps 2"
VARY = f"{INFERENCE} --vary {{clip}}"
INPAINT = f"{INFERENCE} --inpaint {{clip}} --from 0.1 --to 0.2"
CONTINUE = f"{INFERENCE} --continue {{clip}} --seconds 0.1"

COMMANDS = {
    "rave augment": Command(
        "{audio} {out} --semitones 2",
        {
            "audio_dir": place("audio", "other_audio"),
            "out_dir": OUT,
            "--semitones": Case("--semitones 1"),
            "--force": Case("--force", after="{audio} {out} --semitones 1"),
            **SEED,
        },
    ),
    "rave preprocess": Command(
        "{audio} {out}",
        {
            "audio_dir": place("audio", "other_audio"),
            "prepared_dir": OUT,
            "--sample-rate": Case("--sample-rate 16000"),
            "--channels": Case("--channels 2"),
            "--force": Case("--force", after="{audio} {out} --channels 2"),
            **ENGINE,
        },
    ),
    "rave train": Command(
        "v2 --data {prepared} --out {out} {rave_sizes}",
        {
            "recipe": Case("v2+causal", instead="v2"),
            "--data": place("prepared", "other_prepared"),
            "--out": OUT,
            "--initialise-from": Case("--initialise-from {codec}"),
            "--set": Case("--set WAVEFORM_WEIGHT=1"),
            **DRY_RUN,
            **DEVICE,
            **PROCESSES,
            **SEED,
        },
    ),
    "rave encode": Command(
        "{codec} {audio} {out}",
        {
            "codec": place("codec", "other_codec"),
            "audio_dir": place("audio", "other_audio"),
            "latents_dir": OUT,
            "--sample": Case("--sample"),
            "--match-level": Case("--match-level"),
            "--force": Case("--force", after="{codec} {audio} {out} --sample"),
            **WEIGHTS,
            **DEVICE,
            **BACKEND,
            "--seed": Case("--seed 1", more="--sample"),
            **ENGINE,
        },
    ),
    "rave shard": Command(
        "{latents} {out} --shard-mb 0.1",
        {
            "latents_dirs": place("latents", "other_latents"),
            "shards_dir": OUT,
            "--shard-mb": Case("--shard-mb 0.01", words="{music_latents} {out} --shard-mb 0.1"),
            "--force": Case("--force", after="{latents} {out} --shard-mb 0.2"),
            **SEED,
        },
    ),
    "rave unshard": Command(
        "{shards} {out}",
        {"shards": place("shards", "other_shards"), "latents_dir": OUT},
    ),
    "rave decode": Command(
        "{codec} {latents} {out}",
        {
            "codec": FOREIGN,
            "latents_dir": place("latents", "other_latents"),
            "out_audio_dir": OUT,
            **DECODING,
            "--force": Case("--force", after="{codec} {latents} {out} --shift 0=1"),
            "--ema": WEIGHTS["--ema"],
            "--derivative": Case("--derivative", refused="was encoded by another codec"),
            **DEVICE,
            **BACKEND,
            **SEED,
            **ENGINE,
        },
    ),
    "rave generate": Command(
        "{codec} {audio} {out}",
        {
            "codec": place("codec", "other_codec"),
            "inputs": place("audio", "other_audio"),
            "out_audio_dir": OUT,
            "--sample": Case("--sample"),
            **DECODING,
            "--match-level": Case("--match-level"),
            "--force": Case("--force", after="{codec} {audio} {out} --sample"),
            **DEVICE,
            **BACKEND,
            **SEED,
            **WEIGHTS,
        },
    ),
    "rave interpolate": Command(
        "{codec} {tone} {other_tone} {out} --steps 2",
        {
            "codec": place("codec", "other_codec"),
            "audio": Case("{long_tone}", instead="{other_tone}"),
            "out_dir": OUT,
            "--steps": Case("--steps 3"),
            "--weight": Case("--weight 0.5"),
            "--match-level": Case("--match-level"),
            "--force": Case("--force", after="{codec} {tone} {other_tone} {out} --weight 0.2"),
            **WEIGHTS,
            **DEVICE,
            **BACKEND,
            **SEED,
        },
    ),
    "rave evaluate": Command(
        "{pieces} {other_pieces}",
        {
            "reference_dir": Case("{other_pieces}", instead="{pieces}", seen=TOLD),
            "audio_dir": Case("{pieces}", instead="{other_pieces}", seen=TOLD),
            "--sample-rate": Case("--sample-rate 16000", seen=TOLD),
            "--patches": Case("--patches 3", seen=TOLD),
            "--only": Case("--only 1", seen=TOLD),
            "--follows": Case("--follows {tone}", seen=TOLD),
            "--out": Case("--out {out}.json"),
            "--seed": Case("--seed 1", seen=TOLD),
        },
    ),
    "rave app": Command(
        "--codec {codec} --folder {out}",
        {
            "--codec": Case("{other_codec}", instead="{codec}", seen=TOLD),
            "--diffusion": Case("--diffusion {diffusion}", seen=TOLD),
            "--folder": Case("{out}-other", instead="{out}", seen=TOLD),
            "--port": Case("--port 7911", seen=TOLD),
            "--no-browser": Case("--no-browser", seen=TOLD),
            **DEVICE,
        },
    ),
    "rave train_prior": Command(
        "{latents} --out {out} --config prior/tiny {prior_sizes}",
        {
            "latents": place("latents", "other_latents"),
            "--out": OUT,
            "--config": Case("prior/default", instead="prior/tiny"),
            "--set": Case("--set LEARNING_RATE=0.01"),
            **DRY_RUN,
            **DEVICE,
            **PROCESSES,
            **SEED,
        },
    ),
    "rave sample_prior": Command(
        "{prior} {out} --count 1 --seconds 0.1",
        {
            "run": place("prior", "other_prior"),
            "--codec": Case("--codec {codec}", refused="names its codec itself"),
            "out": OUT,
            "--count": Case("--count 2"),
            "--seconds": Case("--seconds 0.05"),
            "--temperature": Case("--temperature 0.5"),
            "--force": Case("--force", after="{prior} {out} --seconds 0.05"),
            **SEED,
            **DEVICE,
        },
    ),
    "rave export": Command(
        "{codec} {out}.ts",
        {
            "run": place("codec", "other_codec"),
            "out": Case("{out}-other.ts", instead="{out}.ts"),
            "--format": Case("{out} --format acids-rave", instead="{out}.ts"),
            "--streaming": Case("--streaming"),
            "--fidelity": Case("--fidelity 0.5", more="--streaming --noise-seed 1"),
            "--power-of-two": Case("--power-of-two", more="--streaming", seen=TOLD),
            "--noise-seed": Case("--noise-seed 2", more="--streaming"),
            "--host-rate": Case("--host-rate 44100", more="--streaming --noise-seed 1"),
            "--prior": Case("--prior {prior}", more="--streaming --noise-seed 1"),
            **WEIGHTS,
        },
    ),
    "diffwave.preprocess": Command(
        "{latents} {audio} {out} --mel-hop 32 --mels 4",
        {
            "folders": place("audio", "other_audio"),
            "--waveform": Case("--waveform", instead="{latents}", more="--mel-hop 256"),
            "--sample-rate": Case("--sample-rate 16000", words="{audio} {out} --waveform"),
            "--controls": Case("--controls loudness"),
            "--mel-hop": Case("--mel-hop 64"),
            "--mels": Case("--mels 5"),
            "--force": Case("--force", after="{latents} {audio} {out} --mel-hop 64 --mels 4"),
        },
    ),
    "diffwave.train": Command(
        "{latents} --out {out} --config tiny {diffusion_sizes}",
        {
            "latents": place("latents", "other_latents"),
            "--out": OUT,
            "--config": Case("transformer", instead="tiny", refused="the transformer needs"),
            "--spectrograms": Case("--spectrograms {spectrograms}"),
            "--controls": Case("--controls {controls} loudness"),
            "--labels": Case("--labels"),
            "--set": Case("--set LEARNING_RATE=0.01"),
            **DRY_RUN,
            **SEED,
            **DEVICE,
            **PROCESSES,
        },
    ),
    "diffwave.inference": Command(
        f"{INFERENCE} --seconds 0.1",
        {
            "run": place("diffusion", "free"),
            "out": OUT,
            "--count": Case("--count 2"),
            "--seconds": Case("--seconds 0.2"),
            "--from-audio": Case("--from-audio {tone}"),
            "--follow": Case("--follow chroma", more="--from-audio {tone}"),
            "--spectrogram": Case("--spectrogram {mel}"),
            "--control": Case("--control loudness={loudness}"),
            "--label": Case("--label b"),
            "--guidance": Case("--guidance 3", more="--from-audio {tone}"),
            "--vary": Case("{other_clip}", instead="{clip}", words=VARY),
            "--inpaint": Case("{other_clip}", instead="{clip}", words=INPAINT),
            "--continue": Case("{other_clip}", instead="{clip}", words=CONTINUE),
            "--strength": Case("--strength 0.9", words=VARY),
            "--from": Case("--from 0.05", words=INPAINT),
            "--to": Case("--to 0.3", words=INPAINT),
            "--steps": Case("--steps 3"),
            "--sampler": Case("--sampler ddim"),
            "--window": Case("--window 0.05"),
            "--fast": Case("--fast", refused="--fast belongs to a waveform run"),
            "--force": Case("--force", after=f"{INFERENCE} --seconds 0.2"),
            **SEED,
            **DEVICE,
            **BACKEND,
        },
    ),
    "diffwave.inference, a model of audio": Command(
        "{vocoder} {out}/a.wav --spectrogram {lmnt_mel}",
        {
            "run": place("vocoder", "other_vocoder"),
            "--count": Case("--count 2 {out}/folder", instead="{out}/a.wav"),
            "--seconds": Case("--seconds 0.03", words="{free_vocoder} {out}/a.wav"),
            "--from-audio": Case("--from-audio {tone}", instead="--spectrogram {lmnt_mel}"),
            "--spectrogram": Case("{other_lmnt_mel}", instead="{lmnt_mel}"),
            "--fast": Case("--fast"),
            "--force": Case("--force", after="{vocoder} {out}/a.wav --spectrogram {lmnt_mel}"),
            **SEED,
            **DEVICE,
        },
    ),
    "diffwave.evaluate": Command(
        "{music_run} {music_latents} {music} --codec {codec} --out {out} --count 2 --seconds 3.2 "
        "--seeds 1 --steps 1",
        {
            "run": place("music_run", "other_music_run"),
            "latents_dir": Case(
                "{latents}", instead="{music_latents}", refused="Make the spectrograms again"
            ),
            "audio_dir": place("music", "other_music"),
            "--codec": FOREIGN,
            "--count": Case("--count 3"),
            "--seconds": Case("--seconds 3.3"),
            "--seeds": Case("--seeds 2"),
            "--patches": Case("--patches 3", refused="Sets of 3 patches of 3 s were asked for"),
            "--steps": Case("--steps 2"),
            "--guidance": Case("--guidance 3"),
            "--spectrograms": Case("--spectrograms {other_music_spectrograms}"),
            "--controls": Case("--controls {other_music_controls}"),
            "--out": OUT,
            **SEED,
            **DEVICE,
        },
    ),
    "diffwave.diagnose": Command(
        "{latents}",
        {
            "path": Case("{other_latents}", instead="{latents}", seen=TOLD),
            "--out": Case("--out {out}"),
            "--config": Case("--config tiny", seen=TOLD),
            "--set": Case("--set FIDELITY=0.5", seen=TOLD),
            "--seed": Case("--seed 1", refused="--seed is for a run"),
            "--device": Case("--device cpu", refused="--device is for a run"),
        },
    ),
    "diffwave.diagnose, a run": Command(
        "{diffusion} --out {out}",
        {
            "path": place("diffusion", "free"),
            "--latents": Case("--latents {other_latents}"),
            "--spectrograms": Case("--spectrograms {other_spectrograms}"),
            "--controls": Case("--controls {other_controls}"),
            "--codec": Case("--codec {codec}"),
            "--out": OUT,
            **SEED,
            **DEVICE,
        },
    ),
    "diffwave.export": Command(
        "{free} {out}.ts --codec {codec} --noise-seed 1",
        {
            "run": place("free", "other_free"),
            "out": Case("{out}-other.ts", instead="{out}.ts"),
            "--force": Case("--force", after="{free} {out}.ts --codec {codec}"),
            "--codec": FOREIGN,
            "--ema": Case("--ema", refused="averaged weights"),
            "--steps": Case("--steps 3"),
            "--sampler": Case("--sampler ddim"),
            "--window": Case("--window 0.3", seen=TOLD),
            "--noise-seed": Case("--noise-seed 2"),
            "--host-rate": Case("--host-rate 44100"),
        },
    ),
    "diffwave.experiments": Command(
        "{music_latents} {out} --run cnn",
        {
            "latents": Case("{latents}", instead="{music_latents}", refused="does not hold a clip"),
            "out": OUT,
            "--spectrograms": Case(
                "--spectrograms {music_spectrograms}",
                refused="4 mel bands; the diary's conditioner reads 80",
            ),
            "--list": Case("--list", instead="--run cnn", seen=TOLD),
            "--run": Case("--run precision", instead="--run cnn"),
            "--all": Case("--all", instead="--run cnn"),
            "--quick": Case("--quick", instead="--run cnn"),
            "--threads": Case("--threads 2", seen=TOLD),
            **SEED,
        },
    ),
}
