"""How an option is shown, and the cases that several commands share; see option_table.py."""

from __future__ import annotations

from dataclasses import dataclass, field

# What a change is looked for in: all that is written, or what is printed where nothing else is.
WRITTEN, PRINTED = "written", "printed"


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
        words: Words of the command.
        options: By the name in the parser; of positional arguments the destination.
        seen: Where a change is looked for, unless an option says otherwise.
    """

    words: str
    options: dict[str, Case] = field(default_factory=dict)


def place(name: str, other: str) -> Case:
    """Return the case of an argument that names something to read."""
    return Case(f"{{{other}}}", instead=f"{{{name}}}")


OUT = Case("{out}-other", instead="{out}")
FOREIGN = Case("{other_codec}", instead="{codec}", refused="is of another codec")
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
