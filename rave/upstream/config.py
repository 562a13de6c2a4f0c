"""The settings in a config.gin of acids-rave, as data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rave.runs.gin_text import Reference, read_bindings

CAUSAL, CENTRED = "causal", "centered"


@dataclass(frozen=True)
class Part:
    """A class named in a config.gin, with the values bound to its arguments.

    Attributes:
        path: The config.gin.
        name: Name in the file, e.g. blocks.EncoderV2.
        scope: Gin scope of the build; its bindings apply to the object and to its parts.
        arguments: Values bound to its arguments.
    """

    path: Path
    name: str
    scope: str
    arguments: Mapping[str, Any]

    def refused(self, argument: str, value: Any) -> ValueError:
        """Return the error for a setting that this version cannot open."""
        if isinstance(value, Reference):
            what = value.name.rpartition("/")[2]
        else:
            what = f"{self.name}.{argument} = {value!r}"
        return ValueError(f"'{self.path}' uses {what}, which this version cannot open.")

    def needs(self, argument: str, value: Any, default: Any) -> None:
        """Refuse any other value of an argument; `default` is acids-rave's default."""
        found = self.arguments.get(argument, default)
        if found != value:
            raise self.refused(argument, found)

    def knows(self, *arguments: str) -> None:
        """Refuse bound arguments that are not listed."""
        for argument in sorted(set(self.arguments) - set(arguments)):
            raise self.refused(argument, self.arguments[argument])

    def bound(self, argument: str) -> Any:
        """Return the value of an argument that has no default."""
        if argument not in self.arguments:
            raise ValueError(
                f"'{self.path}' does not set {self.name}.{argument}. Give the file that acids-rave "
                "wrote into the run folder."
            )
        return self.arguments[argument]

    def number(self, argument: str) -> float:
        """Return an argument that is a positive number."""
        value = self.bound(argument)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.refused(argument, value)
        return float(value)

    def count(self, argument: str) -> int:
        """Return an argument that is a positive whole number."""
        return self._count(argument, self.bound(argument))

    def counts(self, argument: str) -> list[int]:
        """Return an argument that is a list of positive whole numbers."""
        value = self.bound(argument)
        if not isinstance(value, (list, tuple)) or not value:
            raise self.refused(argument, value)
        return [self._count(argument, item) for item in value]

    def _count(self, argument: str, value: Any) -> int:
        if type(value) is not int or value < 1:
            raise self.refused(argument, value)
        return value


class Config:
    """The settings of a run, by class name without module, which differs between versions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names: dict[str, str] = {}
        self._arguments: dict[tuple[str, str], dict[str, Any]] = {}
        for binding, value in read_bindings(path).items():
            scope, _, scoped = binding.rpartition("/")
            name, _, argument = scoped.rpartition(".")
            if name:
                key = name.rpartition(".")[2]
                self._names[key] = name
                self._arguments.setdefault((scope, key), {})[argument] = value

    def part(self, name: str, scope: str = "") -> Part:
        """Return a class by its name without module, as built in a scope."""
        bound = [self._arguments.get((s, name), {}) for s in dict.fromkeys(("", scope))]
        arguments = {argument: v for values in bound for argument, v in values.items()}
        return Part(self.path, self._names.get(name, name), scope, arguments)

    def chosen(self, owner: Part, argument: str, known: Iterable[str]) -> Part:
        """Return the class that an argument names, in the scope that it names or its owner's.

        Raises:
            ValueError: If it is not one of the known ones.
        """
        value = owner.bound(argument)
        if not isinstance(value, Reference) or value.is_called:
            raise owner.refused(argument, value)
        scope, _, name = value.name.rpartition("/")
        key = name.rpartition(".")[2]
        if key not in known:
            raise owner.refused(argument, value)
        self._names.setdefault(key, name)
        return self.part(key, scope or owner.scope)

    def is_causal(self, scope: str) -> bool:
        """Return whether convolutions built in a scope have causal padding."""
        part = self.part("get_padding", scope)
        mode = part.arguments.get("mode", CENTRED)
        if mode not in (CAUSAL, CENTRED):
            raise part.refused("mode", mode)
        return bool(mode == CAUSAL)
