"""Input of the encoder and output of the decoder in runs of acids-rave."""

from __future__ import annotations

from rave.blocks.signals import MelSpectrogram, Recurrent
from rave.runs.gin_text import Reference
from rave.upstream.config import Config, Part

SIGNAL_NAMES = (
    (r"^spectrogram\.window$", "spectrogram.spectrogram.window"),
    (r"^spectrogram\.filters$", "spectrogram.mel_scale.fb"),
)
# Defaults of acids-rave's spectrogram, which ours computes.
SPECTROGRAM = {
    "center": True,
    "f_max": None,
    "f_min": 0.0,
    "mel_scale": "htk",
    "norm": None,
    "onesided": None,
    "pad": 0,
    "pad_mode": "reflect",
    "power": 2.0,
    "wkwargs": None,
}


def signals(rave: Part) -> tuple[bool, bool]:
    """Return whether the encoder's input is bands, and whether the decoder's output is audio.

    Otherwise they are a spectrogram, and bands. Old versions used other arguments.

    Raises:
        ValueError: If the encoder has another input, or the decoder another output.
    """
    modes = [rave.arguments.get(name) or "pqmf" for name in ("input_mode", "output_mode")]
    for index, name in enumerate(("enable_pqmf_encode", "enable_pqmf_decode")):
        if rave.arguments.get(name) is not None:
            modes[index] = "pqmf" if rave.arguments[name] else "raw"
    if rave.arguments.get("is_mel_input") is not None:  # False counts as True there
        modes[0] = "mel"
    for name, mode, known in zip(
        ("input_mode", "output_mode"), modes, (("pqmf", "mel"), ("pqmf", "raw")), strict=True
    ):
        if mode not in known:
            raise rave.refused(name, mode)
    if modes[0] == "pqmf":
        rave.needs("spectrogram", None, None)
    return modes[0] == "pqmf", modes[1] == "raw"


def mel_spectrogram(config: Config, rave: Part) -> MelSpectrogram:
    """Return the spectrogram that the encoder of a run sees."""
    value = rave.bound("spectrogram")
    if not isinstance(value, Reference) or value.name.rpartition(".")[2] != "MelSpectrogram":
        raise rave.refused("spectrogram", value)
    part = config.part("MelSpectrogram", value.name.rpartition("/")[0])
    part.knows(
        *("sample_rate", "n_fft", "win_length", "hop_length", "normalized", "n_mels"), *SPECTROGRAM
    )
    for name, needed in SPECTROGRAM.items():
        part.needs(name, needed, needed)
    part.needs("normalized", True, False)
    window_samples = part.count("n_fft")
    part.needs("win_length", window_samples, None)
    return MelSpectrogram(
        part.count("sample_rate"), window_samples, part.count("hop_length"), part.count("n_mels")
    )


def recurrent_layer(config: Config, part: Part, num_rows: int) -> Recurrent | None:
    """Return the recurrent network of a decoder of `num_rows` latents and noise, or None."""
    if part.arguments.get("recurrent_layer") is None:
        return None
    gru = config.chosen(part, "recurrent_layer", ["GRU"])
    gru.knows("latent_size", "num_layers")
    gru.needs("latent_size", num_rows, num_rows)
    return Recurrent(num_rows, gru.count("num_layers"))
