"""Gin files as data: what they bind, and whether they name only what they may.

Nothing that a file names is built or called here.
"""

from __future__ import annotations

import importlib
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from gin import config_parser
from torch import nn

from rave.runs.recipes import read_gin

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
    *(tokenize.TokenError, RecursionError, MemoryError),
)
# With all that it refers to in its place; the largest recipe comes to less than a hundredth.
MAX_VALUES, MAX_LEVELS = 2**17, 50


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

    def __str__(self) -> str:
        return f"%{self.name}"


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
        for statement in config_parser.ConfigParser(read_gin(path), _AsData()):
            if isinstance(statement, config_parser.IncludeStatement):
                raise ValueError(f"it includes '{statement.filename}'")
            if isinstance(statement, config_parser.BindingStatement):
                scope = f"{statement.scope}/" if statement.scope else ""
                argument = f".{statement.arg_name}" if statement.arg_name else ""
                bindings[f"{scope}{statement.selector}{argument}"] = statement.value
        _check_extent(
            [(value, "") for value in bindings.values()],
            lambda value, _: [bindings[value.name]] if str(value)[1:] in bindings else [],
        )
        return {name: _resolved(value, bindings) for name, value in bindings.items()}
    except (*READING_ERRORS, OSError) as error:
        raise ValueError(f"Cannot read '{path}': {' '.join(str(error).split())}.") from error


def _check_extent(
    values: Iterable[tuple[Any, str]], referred: Callable[[Any, str], Iterable[Any]]
) -> None:
    """Refuse values that come to too much with all that they refer to in its place.

    Args:
        values: Each with the scope in which it is built.
        referred: Takes a macro or reference and its scope, returns the values that it stands for.

    Raises:
        ValueError: If they do, or are defined in terms of themselves.
    """
    left: list[tuple[Any, str, tuple[str, ...]]] = [(value, scope, ()) for value, scope in values]
    count = len(left)
    while left:
        value, scope, path = left.pop()
        parts: list[Any] = []
        if isinstance(value, (_Macro, Reference)):
            scope = value.name if isinstance(value, _Macro) else _scope(value.name) or scope
            if f"{scope} {value}" in path:
                raise ValueError(f"{value} is defined in terms of itself")
            parts, path = list(referred(value, scope)), (*path, f"{scope} {value}")
        elif isinstance(value, dict):
            parts = [*value, *value.values()]
        elif isinstance(value, (list, tuple)):
            parts = list(value)
        count += len(parts)
        if count > MAX_VALUES or len(path) > MAX_LEVELS:
            raise ValueError(
                f"its values, with what they refer to in its place, are more than {MAX_VALUES}, "
                f"or {MAX_LEVELS} levels deep"
            )
        left += [(part, scope, path) for part in parts]


def _scope(name: str) -> str:
    return name.rpartition("/")[0]


def _resolved(value: Any, bindings: dict[str, Any]) -> Any:
    """Return a value with the macros in it replaced."""
    if isinstance(value, _Macro):
        if value.name not in bindings:
            raise ValueError(f"{value} is defined nowhere")
        return _resolved(bindings[value.name], bindings)
    if isinstance(value, (list, tuple)):
        return type(value)(_resolved(item, bindings) for item in value)
    if isinstance(value, dict):
        return {key: _resolved(item, bindings) for key, item in value.items()}
    return value


class RefusedError(ValueError):
    """A gin file names what it must not."""


def check_names(text: str, what: str) -> None:
    """Refuse gin text that imports, includes or names what a recipe has no business with.

    The text is read as data. gin itself would follow any attribute of what is imported, and so from
    a module of ours to the operating system.
    """
    symbols: dict[str, Any] = {}
    bound: dict[tuple[str, Any], dict[str, Any]] = {}  # scope and what is built → its arguments
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
            if not _is_buildable(_found(name, symbols)):
                raise RefusedError(
                    f"Refused {what}: it names '{name}'. "
                    "A recipe may name only classes of models and of training."
                )
        if isinstance(statement, config_parser.BindingStatement):
            built = statement.selector if is_macro else _found(statement.selector, symbols)
            arguments = bound.setdefault((statement.scope or "", built), {})
            arguments[statement.arg_name] = statement.value

    def referred(value: _Macro | Reference, scope: str) -> Iterable[Any]:
        name = value.name.rpartition("/")[2]
        if isinstance(value, _Macro):
            return bound.get((_scope(value.name), name), {}).values()
        parts, found = scope.split("/") if scope else [], _found(name, symbols)
        scopes = ["/".join(parts[:number]) for number in range(len(parts) + 1)]
        arguments = (bound.get((outer, found), {}) for outer in scopes)
        return {name: v for each in arguments for name, v in each.items()}.values()

    _check_extent(
        [(v, scope) for (scope, _), each in bound.items() for v in each.values()], referred
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


def _found(name: str, symbols: dict[str, Any]) -> Any:
    """Return what a name means among what is imported."""
    root, *attributes = name.split(".")
    if root not in symbols:
        raise NameError(f"'{root}' is not imported")
    return reduce(getattr, attributes, symbols[root])


def _is_buildable(found: Any) -> bool:
    origin = str(getattr(found, "__module__", ""))
    if not isinstance(found, type):
        return f"{origin}.{getattr(found, '__qualname__', '')}" in ALLOWED_FUNCTIONS
    return bool(ALLOWED_IMPORTS.match(origin)) and (
        issubclass(found, nn.Module) or is_dataclass(found)
    )
