"""Read gin text as data, only here: its bindings, and a check that all its names are allowed.

Nothing that the text names is built or called here.
"""

from __future__ import annotations

import importlib
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any, TypeAlias

from gin import config_parser

from rave.files.atomic import regular

# A recipe may name only model parts and settings of these modules: a gin file must not run foreign
# code, nor a function of ours that writes.
ALLOWED_IMPORTS = re.compile(r"(__gin__|rave|diffwave)(\.|$)")
ALLOWED_FUNCTIONS = {
    "rave.experiment.build_model",
    "rave.experiment.build_training",
    "diffwave.schedule.named_schedule",
}
READING_ERRORS = (
    *(ValueError, SyntaxError, TypeError, AttributeError, ImportError, NameError),
    *(tokenize.TokenError, RecursionError, MemoryError, OSError),
)
MAX_BYTES = 2**18  # of a recipe with its includes
# Counted with all references replaced; the largest recipe has less than a hundredth.
MAX_VALUES, MAX_LEVELS = 2**17, 50

BindingStatement, ImportStatement = config_parser.BindingStatement, config_parser.ImportStatement
Statement: TypeAlias = Any  # one of these; gin has no types


@dataclass(frozen=True)
class Reference:
    """A reference to something to build or call in a gin file: `@name` or `@name()`."""

    name: str
    is_called: bool = True

    def __repr__(self) -> str:
        return f"@{self.name}()" if self.is_called else f"@{self.name}"


@dataclass(frozen=True)
class Macro:
    """A reference to the value of a name: `%name`."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


class RefusedError(ValueError):
    """A gin file does something that is not allowed; the message is a full sentence."""


class _AsData(config_parser.ParserDelegate):
    """Keeps names as names."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn every error about gin text into a `ValueError` that names the text."""
    try:
        yield
    except RefusedError:
        raise
    except READING_ERRORS as error:
        raise ValueError(f"Cannot read {what}: {' '.join(str(error).split())}") from error


def read_gin(path: Path) -> str:
    """Return the text of a gin file.

    Raises:
        ValueError: If it is not a text file, or longer than any recipe or settings of a run.
        OSError: If it cannot be read.
    """
    with regular(path).open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"'{path}' has more than {MAX_BYTES} bytes. Give a .gin file.")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is not text ({error}). Give a .gin file.") from error


def read_statements(
    text: str, include: Callable[[str], Iterable[Statement]] | None = None
) -> Iterator[Statement]:
    """Yield the bindings and imports of gin text, in order.

    Args:
        text: The text.
        include: Takes the name of an included file and returns its statements; None: refuse
            includes.

    Raises:
        READING_ERRORS: If it is not gin; see `reading`.
    """
    for statement in config_parser.ConfigParser(text, _AsData()):
        if isinstance(statement, (BindingStatement, ImportStatement)):
            yield statement
        elif isinstance(statement, config_parser.IncludeStatement):
            if include is None:
                raise ValueError(
                    f"it includes '{statement.filename}'; only a recipe may include others"
                )
            yield from include(statement.filename)


def read_value(text: str) -> Any:
    """Return the single value in gin text; raises as `read_statements` does."""
    statement, *more = read_statements(f"value = {text}")
    if more:
        raise ValueError("it has several lines")
    return statement.value


def binding(name: str, value: Any) -> Statement:
    """Return the statement that binds `scope/module.Class.argument` or `MACRO` to a value."""
    return BindingStatement(*config_parser.parse_binding_key(name), value, None)


def bound_values(statements: Iterable[Statement]) -> dict[str, Any]:
    """Return `scope/module.Class.argument` or `MACRO` → its last value."""
    return {
        f"{s.scope}/" * bool(s.scope) + s.selector + f".{s.arg_name}" * bool(s.arg_name): s.value
        for s in statements
        if isinstance(s, BindingStatement)
    }


def written(statements: Iterable[Statement]) -> str:
    """Return statements as gin text, imports first, each once."""
    imports, bindings = dict[str, None](), list[str]()
    for statement in statements:
        if isinstance(statement, ImportStatement):
            imports[_written_import(statement)] = None
        else:
            bindings += [f"{name} = {value!r}" for name, value in bound_values([statement]).items()]
    return "\n".join([*imports, *bindings])


def _written_import(statement: Statement) -> str:
    package, _, name = statement.module.rpartition(".")
    text = f"from {package} import {name}" if statement.is_from else f"import {statement.module}"
    return text + (f" as {statement.alias}" if statement.alias else "")


def without_unused_imports(text: str) -> str:
    """Return gin text without unused imports."""
    statements = [*read_statements(text)]
    named = {name.partition(".")[0] for statement in statements for name in _named(statement)}
    unused = {
        _written_import(s)
        for s in statements
        if isinstance(s, ImportStatement)
        and not s.module.startswith("__gin__")
        and s.bound_name() not in named
    }
    return "\n".join(line for line in text.splitlines() if line not in unused) + "\n"


def read_bindings(path: Path) -> dict[str, Any]:
    """Return the bindings of any program's gin file as data; nothing is imported, built or called.

    Returns:
        `scope/module.Class.argument` or `MACRO` → its last value: a number, string, boolean, None,
        `Reference`, or a list, tuple or dict of these. Macros are replaced by their values.

    Raises:
        ValueError: If the file cannot be read, includes another, or uses an undefined macro.
    """
    with reading(f"'{path}'"):
        bindings = bound_values(read_statements(read_gin(path)))
        _check_extent(
            [(value, "") for value in bindings.values()],
            lambda value, _: [bindings[value.name]] if str(value)[1:] in bindings else [],
        )
        return {name: _resolved(value, bindings) for name, value in bindings.items()}


def _check_extent(
    values: Iterable[tuple[Any, str]], referred: Callable[[Any, str], Iterable[Any]]
) -> None:
    """Refuse values that become too large when all references are replaced.

    Args:
        values: Values, each with the scope in which it is built.
        referred: Takes a macro or reference and its scope, returns the values that it stands for.

    Raises:
        ValueError: If they do, or are defined in terms of themselves.
    """
    left: list[tuple[Any, str, tuple[str, ...]]] = [(value, scope, ()) for value, scope in values]
    count = len(left)
    while left:
        value, scope, path = left.pop()
        parts: list[Any] = []
        if isinstance(value, (Macro, Reference)):
            scope = value.name if isinstance(value, Macro) else _scope(value.name) or scope
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
                f"with all references replaced, it has more than {MAX_VALUES} values, or more than "
                f"{MAX_LEVELS} levels"
            )
        left += [(part, scope, path) for part in parts]


def _scope(name: str) -> str:
    return name.rpartition("/")[0]


def _resolved(value: Any, bindings: dict[str, Any]) -> Any:
    """Return a value with the macros in it replaced."""
    if isinstance(value, Macro):
        if value.name not in bindings:
            raise ValueError(f"{value} is not defined")
        return _resolved(bindings[value.name], bindings)
    if isinstance(value, (list, tuple)):
        return type(value)(_resolved(item, bindings) for item in value)
    if isinstance(value, dict):
        return {key: _resolved(item, bindings) for key, item in value.items()}
    return value


def check_names(statements: Sequence[Statement], what: str) -> None:
    """Refuse gin that imports or names anything that a recipe must not use.

    gin itself follows any attribute of an imported module, and so could reach the operating system
    from a module of ours.

    Raises:
        RefusedError: If it does.
        READING_ERRORS: If it names something that does not exist; see `reading`.
    """
    symbols: dict[str, Any] = {}
    bound: dict[tuple[str, Any], dict[str, Any]] = {}  # scope and class → its arguments
    for statement in statements:
        if isinstance(statement, ImportStatement):
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
    for statement in statements:
        if not isinstance(statement, BindingStatement):
            continue
        for name in _named(statement):
            if not _is_buildable(_found(name, symbols)):
                raise RefusedError(
                    f"Refused {what}: it names '{name}'. "
                    "A recipe may name only classes of models and of training."
                )
        is_macro = not statement.arg_name
        built = statement.selector if is_macro else _found(statement.selector, symbols)
        arguments = bound.setdefault((statement.scope or "", built), {})
        arguments[statement.arg_name] = statement.value

    def referred(value: Macro | Reference, scope: str) -> Iterable[Any]:
        name = value.name.rpartition("/")[2]
        if isinstance(value, Macro):
            return bound.get((_scope(value.name), name), {}).values()
        parts, found = scope.split("/") if scope else [], _found(name, symbols)
        scopes = ["/".join(parts[:number]) for number in range(len(parts) + 1)]
        arguments = (bound.get((outer, found), {}) for outer in scopes)
        return {name: v for each in arguments for name, v in each.items()}.values()

    _check_extent(
        [(v, scope) for (scope, _), each in bound.items() for v in each.values()], referred
    )


def references(value: Any) -> Iterator[Reference | Macro]:
    """Yield the references in a value of a gin file, also in lists, tuples and dicts."""
    if isinstance(value, (Reference, Macro)):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for item in value.items():
            yield from references(item)


def _named(statement: Statement) -> Iterator[str]:
    """Yield the name whose argument a statement binds, and the names in its value."""
    if isinstance(statement, BindingStatement):
        if statement.arg_name:
            yield statement.selector
        for found in references(statement.value):
            if isinstance(found, Reference):
                yield found.name.rpartition("/")[2]


def _found(name: str, symbols: dict[str, Any]) -> Any:
    """Return the object of a name among the imports."""
    root, *attributes = name.split(".")
    if root not in symbols:
        raise NameError(f"'{root}' is not imported")
    return reduce(getattr, attributes, symbols[root])


def _is_buildable(found: Any) -> bool:
    from torch import nn

    origin = str(getattr(found, "__module__", ""))
    if not isinstance(found, type):
        return f"{origin}.{getattr(found, '__qualname__', '')}" in ALLOWED_FUNCTIONS
    return bool(ALLOWED_IMPORTS.match(origin)) and (
        issubclass(found, nn.Module) or is_dataclass(found)
    )
