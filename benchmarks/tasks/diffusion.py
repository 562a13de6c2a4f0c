"""Diffusion of latents: against the diary's flattened model, and RAVE-Latent-Diffusion's U-Net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.comparison import Bench, Comparison, Side
from benchmarks.inputs import RATE_HZ, SEED, V2_HOP
from benchmarks.tasks.codec import choices

ROW = "diffusion"
DIARY = "the diary's, flattened"
LATENT_SIZE, CLIP_FRAMES = 128, 109  # of the diary: 5 s
# About as many parameters as the diary's model has.
ALIKE = ("NUM_BLOCKS=10", "HIDDEN_CHANNELS=128")
OUR_STEPS, DIARY_STEPS, UNET_STEPS = 20, 1000, 100
LONG_S = 60.0
# The U-Net takes 16 latents and whole multiples of 2048 frames, of which one is more than LONG_S.
UNET_LATENTS, UNET_FRAMES = 16, 2048
Work = tuple[Callable[[], Any], dict[str, int]]


def comparisons(bench: Bench) -> list[Comparison]:
    """Return what to measure."""
    batch_size, frames = bench.size((8, CLIP_FRAMES), (2, 16))
    long_frames = bench.size(round(LONG_S * RATE_HZ / V2_HOP), 16)
    settings = list(bench.size(ALIKE, ("NUM_BLOCKS=2", "HIDDEN_CHANNELS=16")))
    ours = {"settings": settings, "latent_size": LATENT_SIZE, "num_frames": frames}
    diary = {"num_frames": frames, "num_blocks": bench.size(30, 2)}
    size = {"batch_size": batch_size}
    training = [
        Side("ours", "diffusion:our_step", {**ours, **size}, is_counted=True),
        Side(DIARY, "diffusion:diary_step", {**diary, **size}, is_counted=True),
    ]
    sampling = [
        _sampling(ours),
        _part(DIARY, "diffusion:diary_steps", diary, DIARY_STEPS, 5),
    ]
    given = {"settings": [], "latent_size": UNET_LATENTS, "num_frames": long_frames}
    long = [_sampling(given, *choice) for choice in choices(bench)]
    if bench.upstream is not None:
        unet = _part("191 M U-Net", "diffusion:unet_steps", {}, UNET_STEPS, 1, is_upstream=True)
        long.append(unet)
    found = []
    for threads in bench.threads:
        for what, sides in (
            (f"training step, {batch_size} × {frames} frames", training),
            (f"sample {frames} frames: {OUR_STEPS} steps to {DIARY_STEPS}", sampling),
            (f"sample {LONG_S:g} s: {OUR_STEPS} steps to {UNET_STEPS}", long),
        ):
            found.append(Comparison(ROW, what, sides, 1, "runs", threads, 3))
    return found


def _part(
    name: str,
    function: str,
    given: dict[str, Any],
    steps: int,
    timed: int,
    is_upstream: bool = False,
) -> Side:
    """Return a side of many equal steps of which a few are timed."""
    parameters = {**given, "num_steps": timed}
    return Side(name, function, parameters, is_upstream, scale=steps / timed, is_counted=True)


def _sampling(given: dict[str, Any], backend: str = "torch", precision: str = "float32") -> Side:
    parameters = {**given, "num_steps": OUR_STEPS, "backend": backend, "precision": precision}
    name = f"ours, {backend}, {precision}"
    is_counted = backend == "torch"
    return Side(name, "diffusion:our_sampling", parameters, False, precision, is_counted=is_counted)


def our_model(settings: list[str], latent_size: int) -> Any:
    """Return a model of the recipe default that models all dimensions, with random weights."""
    import torch

    from rave import experiment

    torch.manual_seed(SEED)
    sizes = [f"RAW_SIZE={latent_size}", f"LATENT_SIZE={latent_size}"]
    experiment.parse_recipe("diffwave", "default", [*sizes, *settings])
    return experiment.build_model()


def our_step(
    settings: list[str], latent_size: int, num_frames: int, batch_size: int, device: str
) -> Work:
    """Return what makes a training step, and the number of parameters."""
    import torch

    from benchmarks.tasks.bare import without_trainer
    from diffwave.training import DiffusionSystem
    from rave import experiment
    from rave.compute.device import choose_precision

    model = our_model(settings, latent_size)
    training = experiment.build_training()
    system = without_trainer(DiffusionSystem)(model, training, None, None).to(device).train()
    optimizer = system.configure_optimizers()["optimizer"]
    is_half = choose_precision(training.precision, torch.device(device)) == "bf16-mixed"
    batch = {
        "raw": torch.randn(batch_size, latent_size, num_frames, device=device),
        "mask": torch.ones(batch_size, num_frames, device=device),
        "index": torch.arange(batch_size),
    }

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=is_half):
            loss = system.training_step(batch, 0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.gradient_clip_norm)
        optimizer.step()

    return run, _size(model)


def our_sampling(
    settings: list[str],
    latent_size: int,
    num_frames: int,
    num_steps: int,
    backend: str,
    precision: str,
    device: str,
) -> Work:
    """Return what samples one item."""
    from diffwave.sampling.generation import Sampling

    model = our_model(settings, latent_size).to(device).eval()
    model.accelerate(backend, precision)
    sampling = Sampling(model, [0], SEED, num_steps=num_steps)

    def run() -> Any:
        return sampling.generate(num_frames).cpu().numpy()

    return run, _size(model)


def diary_step(num_frames: int, num_blocks: int, batch_size: int, device: str) -> Work:
    """Return what makes a training step of the diary's model of 24 August."""
    import torch

    network = _diary(num_blocks).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), 2e-4)
    latents, noise = (
        torch.randn(batch_size, LATENT_SIZE, num_frames, device=device) for _ in range(2)
    )
    timestep = torch.full((batch_size,), 10, device=device)

    def run() -> None:
        optimizer.zero_grad()
        (network(latents, timestep) - noise).abs().mean().backward()
        optimizer.step()

    return run, _size(network)


def diary_steps(num_frames: int, num_blocks: int, num_steps: int, device: str) -> Work:
    """Return what makes some of its sampling steps, of which the network is all but nothing."""
    import torch

    network = _diary(num_blocks).to(device).eval()

    @torch.inference_mode()
    def run() -> None:
        noisy = torch.randn(1, LATENT_SIZE, num_frames, device=device)
        for step in range(num_steps):
            noisy = noisy - 0.01 * network(noisy, torch.full((1,), step, device=device))

    return run, _size(network)


def _diary(num_blocks: int) -> Any:
    import torch

    from diffwave.experiments.diary_model import DiaryDiffWave, DiaryNetwork

    torch.manual_seed(SEED)
    return DiaryDiffWave(LATENT_SIZE, DiaryNetwork(is_flattened=True, num_blocks=num_blocks))


def unet_steps(num_steps: int, device: str) -> Work:
    """Return what makes some sampling steps of RAVE-Latent-Diffusion's network.

    Source: sizes as in moiseshorta/RAVE-Latent-Diffusion, built of audio-diffusion-pytorch 0.1.3.
    """
    import audio_diffusion_pytorch as peer
    import torch

    torch.manual_seed(SEED)
    model = peer.DiffusionModel(
        net_t=peer.UNetV0,
        in_channels=UNET_LATENTS,
        channels=[256] * 4 + [512] * 3 + [768] * 2,
        factors=[1, 4, 4, 4] + [2] * 5,
        items=[1] + [2] * 6 + [4, 4],
        attentions=[0] * 5 + [1] * 4,
        attention_heads=12,
        attention_features=64,
        diffusion_t=peer.VDiffusion,
        sampler_t=peer.VSampler,
    ).to(device)
    model.eval()
    noise = torch.randn(1, UNET_LATENTS, UNET_FRAMES, device=device)

    def run() -> None:
        model.sample(noise, num_steps=num_steps)

    return run, _size(model)


def _size(model: Any) -> dict[str, int]:
    return {"parameters": sum(each.numel() for each in model.parameters())}
