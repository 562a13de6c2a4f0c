"""Runs and folders of every kind, to be spoilt as a stranger might."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from audio_files import sine, write
from diffwave_data import autoregression, write_latent_folder
from lmnt_runs import make_checkpoint
from upstream_runs import write_upstream_run

from diffwave.run import KIND as DIFFUSION
from rave import experiment
from rave.codec import load_codec
from rave.codec_format import CodecFormat
from rave.latents.folder import LatentHeader
from rave.main_cli import main
from rave.prior import KIND as PRIOR
from rave.runs.checkpoint import last_checkpoint


def latents_of(folder: Path, **codec: str) -> LatentHeader:
    """Write two clips of latents."""
    arrays = {f"{name}.npy": autoregression(4, 64, 0.9, index) for index, name in enumerate("ab")}
    return write_latent_folder(folder, arrays, **codec)


def sharded(folder: Path) -> Path:
    """Write a sharded set of two clips below a folder."""
    latents_of(folder / "latents")
    assert main(["shard", str(folder / "latents"), str(folder / "shards")]) == 0
    return folder / "shards"


def our_run(folder: Path, kind: str, package: str, recipe: str, *settings: str) -> Path:
    """Write a run of ours of any kind that was not trained; its checkpoint is to be spoilt."""
    experiment.parse_recipe(package, recipe, settings)
    model = experiment.build_model()
    config = experiment.resolved_config()
    experiment.save_run(folder, kind, config, config)
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    last_checkpoint(folder).parent.mkdir()
    torch.save({"state_dict": weights, "global_step": 0}, last_checkpoint(folder))
    return folder


def diffusion_run(folder: Path) -> Path:
    """Write a run of diffwave.train."""
    sizes = ("NUM_BLOCKS=1", "HIDDEN_CHANNELS=8", "RAW_SIZE=4", "LATENT_SIZE=4")
    made = our_run(folder, DIFFUSION, "diffwave", "tiny", *sizes)
    replace(latents_of(folder.parent / "its latents"), files=[]).write(made)
    return made


def prior_run(folder: Path) -> Path:
    """Write a run of rave train_prior."""
    sizes = ("NUM_BLOCKS=1", "HIDDEN_CHANNELS=4", "SKIP_CHANNELS=4", "RAW_SIZE=4", "LATENT_SIZE=2")
    made = our_run(folder, PRIOR, "rave", "prior/default", *sizes, "SEED=0")
    replace(latents_of(folder.parent / "its latents"), files=[]).write(made)
    return made


def lmnt_run(folder: Path) -> Path:
    """Write a run of the patched lmnt diffwave."""
    header = latents_of(folder.parent / "its latents")
    folder.mkdir()
    torch.save(make_checkpoint(False), folder / "weights.pt")
    header.write(folder)
    return folder


def upstream_prior(folder: Path) -> Path:
    """Write what is found to be a run of acids-rave's train_prior before its weights are."""
    made = write_upstream_run(folder)
    (made / "config.gin").write_text("prior.VariationalPrior.cycle_size = 2\n")
    return made


def audio_of(folder: Path) -> Path:
    """Write a folder of audio below another."""
    write(folder / "audio" / "a.wav", sine(220, 44100, 0.2), 44100)
    return folder / "audio"


def format_of(made: Path) -> CodecFormat:
    """Return what the codec of a run reads and writes."""
    return load_codec(made, torch.device("cpu")).format


def edit_header(folder: Path, **changes: object) -> None:
    """Change what a latent folder says."""
    path = folder / "latents.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
