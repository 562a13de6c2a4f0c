"""Gin files as data: what they bind, and whether they name only what they may.

Nothing that a file names is built or called here.
"""

from __future__ import annotations

import importlib
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from gin import config_parser
from torch import nn

from rave.files import regular

# A recipe names parts of models and settings of these modules, and nothing else: no gin file must
# run foreign code, nor a function of ours that writes.
ALLOWED_IMPORTS = re.compile(r"(__gin__|rave|diffwave)(\.|$)")
ALLOWED_FUNCTIONS = {
    "rave.experiment.build_model",
    "rave.experiment.build_training",
    "diffwave.schedule.named_schedule",
}
READING_ERRORS = (
    *(ValueError, SyntaxError, TypeError, AttributeError, ImportError, NameError),
    *(tokenize.TokenError, RecursionError),
)


@dataclass(frozen=True)
class Reference:
    """A name of something to build or call in a gin file: `@name` or `@name()`."""

    name: str
    is_called: bool

    def __str__(self) -> str:
        return f"@{self.name}()" if self.is_called else f"@{self.name}"


@dataclass(frozen=True)
class _Macro:
    name: str


class _AsData(config_parser.ParserDelegate):
    """Keeps names as names."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name, evaluate)

    def macro(self, macro_name: str) -> _Macro:
        return _Macro(macro_name)


def read_bindings(path: Path) -> dict[str, Any]:
    """Return what a gin file of any program binds, as data: nothing is imported, built or called.

    Returns:
        `scope/module.Class.argument` or `MACRO` → its last value: a number, string, boolean, None,
        `Reference`, or a list, tuple or dict of these. Macros have their values' places.

    Raises:
        ValueError: If the file cannot be read, includes another, or uses an undefined macro.
    """
    bindings: dict[str, Any] = {}
    try:
        for statement in config_parser.ConfigParser(regular(path).read_text(), _AsData()):
            if isinstance(statement, config_parser.IncludeStatement):
                raise ValueError(f"it includes '{statement.filename}'")
            if isinstance(statement, config_parser.BindingStatement):
                scope = f"{statement.scope}/" if statement.scope else ""
                argument = f".{statement.arg_name}" if statement.arg_name else ""
                bindings[f"{scope}{statement.selector}{argument}"] = statement.value
        return {name: _resolved(value, bindings, ()) for name, value in bindings.items()}
    except (*READING_ERRORS, OSError) as error:
        raise ValueError(f"Cannot read '{path}': {' '.join(str(error).split())}.") from error


def _resolved(value: Any, bindings: dict[str, Any], seen: tuple[str, ...]) -> Any:
    """Return a value with the macros in it replaced."""
    if isinstance(value, _Macro):
        if value.name not in bindings or value.name in seen:
            why = "in terms of itself" if value.name in seen else "nowhere"
            raise ValueError(f"%{value.name} is defined {why}")
        return _resolved(bindings[value.name], bindings, (*seen, value.name))
    if isinstance(value, (list, tuple)):
        return type(value)(_resolved(item, bindings, seen) for item in value)
    if isinstance(value, dict):
        return {key: _resolved(item, bindings, seen) for key, item in value.items()}
    return value


class RefusedError(ValueError):
    """A gin file names what it must not."""


def check_names(text: str, what: str) -> None:
    """Refuse gin text that imports, includes or names what a recipe has no business with.

    The text is read as data. gin itself would follow any attribute of what is imported, and so from
    a module of ours to the operating system.
    """
    symbols: dict[str, Any] = {}
    for statement in config_parser.ConfigParser(text, _AsData()):
        if isinstance(statement, config_parser.IncludeStatement):
            raise RefusedError(
                f"Refused {what}: it includes '{statement.filename}'. "
                "Only a recipe may include others, one a line."
            )
        if isinstance(statement, config_parser.ImportStatement):
            if not ALLOWED_IMPORTS.match(statement.module):
                raise RefusedError(
                    f"Refused {what}: it imports '{statement.module}'. "
                    "A recipe may import only from rave and diffwave."
                )
            if statement.module.startswith("__gin__"):
                continue
            module = importlib.import_module(statement.module)
            if not (statement.is_from or statement.alias):
                module = importlib.import_module(statement.module.partition(".")[0])
            symbols[statement.bound_name()] = module
            continue
        is_macro = isinstance(statement, config_parser.BindingStatement) and not statement.arg_name
        named = [] if is_macro else [statement.selector]
        if isinstance(statement, config_parser.BindingStatement):
            named += _names(statement.value)
        for name in named:
            if not _is_buildable(name, symbols):
                raise RefusedError(
                    f"Refused {what}: it names '{name}'. "
                    "A recipe may name only classes of models and of training."
                )


def _names(value: Any) -> Iterator[str]:
    """Yield the names of what a value of a gin file builds or calls."""
    if isinstance(value, Reference):
        yield value.name.rpartition("/")[2]
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _names(item)
    elif isinstance(value, dict):
        for item in value.items():
            yield from _names(item)


def _is_buildable(name: str, symbols: dict[str, Any]) -> bool:
    root, *attributes = name.split(".")
    if root not in symbols:
        raise NameError(f"'{root}' is not imported")
    found = reduce(getattr, attributes, symbols[root])
    origin = str(getattr(found, "__module__", ""))
    if not isinstance(found, type):
        return f"{origin}.{getattr(found, '__qualname__', '')}" in ALLOWED_FUNCTIONS
    return bool(ALLOWED_IMPORTS.match(origin)) and (
        issubclass(found, nn.Module) or is_dataclass(found)
    )
