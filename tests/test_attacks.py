"""What a stranger's file may cost: no more memory, depth and time than its size allows.

The readers run in child processes of limited memory and time; a refusal is one sentence.
"""

import json
import re
import zipfile

import torch
from forks import Fork
from killing import differences
from lmnt_runs import make_checkpoint

from rave.runs.checkpoint import read_checkpoint

SPARE_BYTES = 2**30  # of addresses, beside those of the libraries


def outcomes(paths):
    """Return what was said of each file: nothing if it was read."""
    code, out, err = Fork("limited_reader", SPARE_BYTES, *paths).finish(timeout_s=120)
    assert code == 0, err[-2000:]
    return json.loads(out)


# Pickles, by hand: a prefix of strings and names, and how to put them together.


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def called(name, *arguments):
    return b"c" + name.replace(" ", "\n").encode() + b"\n(" + b"".join(arguments) + b"tR"


def long(value):
    content = value.to_bytes(8, "little", signed=True)
    return b"\x8a\x08" + content


def storage(count, kind="FloatStorage"):
    return (
        b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text("0") + text("cpu")
        + long(count) + b"tQ"
    )  # fmt: skip


def tensor(count, size, stride, offset=0):
    """Return a tensor of a storage of `count` values."""
    return called(
        "torch._utils _rebuild_tensor_v2",
        storage(count),
        long(offset),
        b"(" + b"".join(map(long, size)) + b"t",
        b"(" + b"".join(map(long, stride)) + b"t",
        b"\x89",
        b"N",
    )


def entry(value):
    return b"}" + text("state_dict") + b"}" + text("model.a") + value + b"ss."


DOUBLED = b")" + b"q\x01h\x01\x86" * 60  # a pair of a pair of … each the same one twice


PICKLES = {
    "one value in 64 GiB": entry(tensor(4, [2**34], [0])),
    "a table of one row": entry(tensor(4, [2**32, 4], [0, 1])),
    "a tensor beyond its storage": entry(tensor(4, [2**34], [1])),
    "a tensor behind its storage": entry(tensor(4, [4], [1], 2**40)),
    "a tensor before its storage": entry(tensor(4, [4], [1], -4)),
    "a storage beyond its record": entry(tensor(2**34, [2**34], [1])),
    "a negative storage": entry(tensor(-4, [4], [1])),
    "a thousand dimensions": entry(tensor(4, [1] * 1000, [1] * 1000)),
    "bytes made of a number": entry(called("__builtin__ bytearray", long(2**36))),
    "an old tensor made of a number": entry(called("torch FloatTensor", long(2**36))),
    "an old storage made of a number": entry(called("torch.storage UntypedStorage", long(2**36))),
    "a tensor on no device": entry(
        called(
            "torch._utils _rebuild_meta_tensor_no_storage",
            b"ctorch\nfloat32\n",
            b"(" + long(2**40) + b"t",
            b"(" + long(1) + b"t",
            b"\x89",
        )
    ),
    "a pair of pairs for a key": b"}" + DOUBLED + b"Ns.",
    "a set of pairs of pairs": entry(called("__builtin__ set", b"](" + DOUBLED + b"e")),
    "pairs of pairs that are counted": entry(called("collections Counter", b"](" + DOUBLED + b"e")),
    "pairs of pairs": entry(DOUBLED),
    "a list in itself": entry(b"]q\x01h\x01a"),
    "a list 100,000 deep": entry(b"]" * 100_000 + b"a" * 99_999),
    "bytes of a length of 2**62": entry(b"\x8e" + (2**62).to_bytes(8, "little")),
    "a text a million times": entry(b"](" + text("a" * 1000) + b"q\x01" + b"h\x01" * 10**5 + b"e"),
    "two million values": entry(b"](" + b"N" * 2_000_000 + b"e"),
    "a dictionary that never begins": b"(" * 300 + b".",
}


def write_zip(path, pickle):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickle)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", bytes(16))
        archive.writestr("archive/version", "3\n")


def test_a_checkpoint_takes_no_more_than_its_size_allows(tmp_path):
    for index, pickle in enumerate(PICKLES.values()):
        write_zip(tmp_path / f"{index}.ckpt", pickle)
    write_zip(tmp_path / "good.ckpt", entry(tensor(4, [2, 2], [2, 1])))
    for is_zip in (False, True):
        content = {"state_dict": {"model.a": torch.zeros(1).half().expand(2**34)}}
        torch.save(content, tmp_path / f"{is_zip}.ckpt", _use_new_zipfile_serialization=is_zip)
    told = outcomes(sorted(tmp_path.glob("*.ckpt")))
    assert told.pop(str(tmp_path / "good.ckpt")) == ""
    for index, name in enumerate(PICKLES):
        assert "Cannot read checkpoint" in told[str(tmp_path / f"{index}.ckpt")], name
    for is_zip in (False, True):
        assert "claims more values than are stored" in told[str(tmp_path / f"{is_zip}.ckpt")]


def test_sizes_that_a_checkpoint_of_diffwave_states_are_refused_before_they_are_made(tmp_path):
    stated = {
        "residual_layers": 10**8,
        "residual_channels": 2**24,
        "n_mels": 10**12,
        "dilation_cycle_length": 10**12,
    }
    for name, value in stated.items():
        for kind in ("latents", "audio"):
            content = make_checkpoint(True, **{name: value})
            if kind == "audio":
                del content["params"]["latent_size"]
                known = {"hop_samples": 256, "sample_rate": 22050, "noise_schedule": [0.1, 0.2]}
                content["params"] |= known
            torch.save(content, tmp_path / f"{name} {kind}.pt")
    for path, message in outcomes(sorted(tmp_path.glob("*.pt"))).items():
        assert re.search(r"in its params; a whole number from 1 to|has more than", message), path


def test_what_torch_saves_is_what_is_read(tmp_path):
    """Also ties, views, averages that are the weights, and optimizers, in both forms of files."""
    layer = torch.nn.Linear(3, 5)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    types = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64)
    content = {
        "state_dict": layer.state_dict(),
        "ema": layer.state_dict(),
        "tied": [layer.weight, layer.weight.T, layer.weight[1:, 2], torch.zeros(0, 3)],
        "types": {dtype.itemsize: torch.ones(3).to(dtype) for dtype in types},
        "optimizer_states": [optimizer.state_dict()],
        "more": {"a": (1, -(2**40), 2.5, None, True, "é"), "betas": [0.1] * 3, -1: ()},
    }
    for is_zip in (False, True):
        path = tmp_path / f"{is_zip}.ckpt"
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
        assert differences(read_checkpoint(path), content) == []


# Gin


def laughs(line, count=40):
    """Return lines that each name the one before twice."""
    return "A0 = 1\n" + "".join(line.format(new=n + 1, old=n) for n in range(count))


BEGIN = (
    "from __gin__ import dynamic_registration\nfrom rave import experiment\n"
    "from rave import training\nexperiment.build_training.training = {}\n"
)
PART = (
    "s{new}/training.RaveTraining.seed = "
    "[@s{old}/training.RaveTraining(), @s{old}/training.RaveTraining()]\n"
)
GIN = {  # what is in a file, and the words of its refusal; data: as that of acids-rave is read
    "macros": (BEGIN.format("%A40") + laughs("A{new} = [%A{old}, %A{old}]\n"), "more than 131072"),
    "macros in data": (laughs("A{new} = [%A{old}, %A{old}]\n"), "more than 131072"),
    "values": (
        BEGIN.format("%A40") + laughs("A{new} = {{1: %A{old}, 2: %A{old}}}\n"),
        "more than 131072",
    ),
    "parts": (BEGIN.format("@s40/training.RaveTraining()") + laughs(PART), "more than 131072"),
    "parts of themselves": (
        BEGIN.format("@training.RaveTraining()")
        + "training.RaveTraining.seed = @training.RaveTraining()\n",
        "in terms of itself",
    ),
    "macros of themselves": (BEGIN.format("%A") + "A = [%B]\nB = %A\n", "in terms of itself"),
    "a long chain": (BEGIN.format("%A40") + laughs("A{new} = %A{old}\n", 5000), "50 levels"),
    "length": ("# as long as this\n" * 2**15, "more than 262144"),
    "length of data": ("# as long as this\n" * 2**15, "more than 262144"),
    "itself": ("include '{folder}/itself.gin'\n", "includes it"),
    "one": ("include '{folder}/another.gin'\n", "includes it"),
    "another": ("include '{folder}/one.gin'\n", "includes it"),
    **{
        f"inclusion {number}": (f"include '{{folder}}/inclusion {number + 1}.gin'\n" * 9, words)
        for number, words in enumerate(["more than 32"] * 6 + [""])
    },
    "inclusion 7": ("", ""),
    "a good one": (BEGIN.format("@training.RaveTraining()"), ""),
}


def test_a_recipe_comes_to_no_more_than_its_length_allows(tmp_path):
    for name, (content, _) in GIN.items():
        (tmp_path / f"{name}.gin").write_text(content.replace("{folder}", str(tmp_path)))
    told = outcomes(sorted(tmp_path.glob("*.gin")))
    for name, (_, words) in GIN.items():
        message = told[str(tmp_path / f"{name}.gin")]
        assert words in message if words else not message, name
