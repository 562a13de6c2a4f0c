"""Recipes: list them, and read one with the user's settings. Needs no torch."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rave.runs.gin_text import Statement

RECIPES, OPTIONS = (Path("configs") / name for name in ("recipes", "options"))
MAX_FILES = 32  # of a recipe with its includes
PRIORS = "prior/"  # folder of their recipes
WORD = re.compile(r"[\w.+-]+")  # a setting that may be a string without quotation marks


def _package_folder(package: str) -> Path:
    # Not the package itself: with an editable install, a folder of its name in the working
    # directory (such as a clone of lmnt-com/diffwave) would be found instead.
    spec = importlib.util.find_spec(f"{package}.__init__")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def list_recipes(package: str, of_priors: bool = False) -> list[str]:
    """Return the names of a package's recipes: those of autoregressive priors, or the others."""
    folder = _package_folder(package) / RECIPES
    found = (folder / PRIORS).glob("*.gin") if of_priors else folder.glob("*.gin")
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in found)


def list_options(package: str) -> list[str]:
    """Return the names of the options that can be added to a package's recipes."""
    return sorted(path.stem for path in (_package_folder(package) / OPTIONS).glob("*.gin"))


@dataclass(frozen=True)
class Recipe:
    """A recipe, and settings that change it.

    Attributes:
        name: Name given by the user.
        statements: Statements of the recipe, its includes and its options.
        settings: `scope/module.Class.argument` or `MACRO` → value that replaces the recipe's.
    """

    name: str
    statements: tuple[Statement, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def resolved(self) -> list[Statement]:
        """Return the statements, followed by the settings."""
        from rave.runs.gin_text import binding

        return [*self.statements, *(binding(*each) for each in self.settings.items())]

    def bind(self, values: Mapping[str, Any]) -> Recipe:
        """Return the recipe with more settings."""
        return replace(self, settings={**self.settings, **values})

    def check_used(self, names: Iterable[str] | None = None) -> None:
        """Check that names are used, by default all that are bound.

        Raises:
            ValueError: If one is not; the message lists the used ones.
        """
        from rave.runs.gin_text import Macro, bound_values, references

        bound = bound_values(self.resolved)
        found = (each for value in bound.values() for each in references(value))
        used = {each.name for each in found if isinstance(each, Macro)}
        if unused := sorted(
            n for n in (bound if names is None else names) if "." not in n and n not in used
        ):
            raise ValueError(
                f"Nothing in recipe '{self.name}' uses {', '.join(unused)}. "
                f"It uses: {', '.join(sorted(used))}."
            )

    def value(self, name: str) -> Any:
        """Return the value that the recipe, without settings, binds to a name, or None."""
        from rave.runs.gin_text import Macro, bound_values

        values = bound_values(self.statements)
        value = values.pop(name, None)
        while isinstance(value, Macro):
            value = values.pop(value.name, None)
        return value


def read_recipe(
    package: str, name: str, settings: Sequence[str] = (), given: Mapping[str, str] | None = None
) -> Recipe:
    """Read a recipe and the user's settings, and check them as text.

    Args:
        package: "rave" or "diffwave".
        name: Name of a shipped recipe, plus any number of `+option`; or path of a `.gin` file.
        settings: Lines `NAME=VALUE`; NAME is a macro of the recipe or a `module.Class.argument`. A
            string of one word needs no quotation marks.
        given: Names that cannot be set → the source of their value.

    Raises:
        ValueError: If the recipe or an option does not exist, an option would change nothing, a
            file or setting cannot be read, or a setting has a name that cannot be set or that the
            recipe does not use.
    """
    recipe = Recipe(name, tuple(_recipe_statements(package, name)))
    values = dict(_read_setting(recipe, setting) for setting in settings)
    for each, source in (given or {}).items():
        if each in values:
            raise ValueError(f"{each} cannot be set: it follows from {source}.")
    recipe = recipe.bind(values)
    recipe.check_used(values)  # other names are checked later, when the size is known to be safe
    return recipe


def _read_setting(recipe: Recipe, setting: str) -> tuple[str, Any]:
    """Return name and value of a line NAME=VALUE.

    A value that gin cannot read is a string if it is one word and the recipe has a string there.
    """
    from rave.runs.gin_text import READING_ERRORS, read_value

    name, equals, text = (part.strip() for part in setting.partition("="))
    if not (equals and all(part.isidentifier() for part in re.split("[./]", name))):
        raise ValueError(f"'{setting}' is not NAME=VALUE. Write for example --set MAX_STEPS=5000.")
    try:
        return name, read_value(text)
    except READING_ERRORS as error:
        known = recipe.value(name)
        is_string = isinstance(known, str) or (
            known is None and text.lower() not in ("true", "false", "none")
        )
        if is_string and WORD.fullmatch(text):
            return name, text
        raise ValueError(
            f"Cannot read recipe '{recipe.name}' with --set {setting}. Write a number, True, "
            "False, None, a string in quotation marks, or a list of these."
        ) from error


def _recipe_statements(package: str, recipe: str) -> list[Statement]:
    """Return the statements of a recipe and its options.

    Raises:
        ValueError: If the recipe or an option does not exist, or an option would change nothing.
    """
    folder, path = _package_folder(package), Path(recipe)
    name, options = recipe, list[str]()
    if not path.is_file():
        name, *options = recipe.split("+")
        path = folder / RECIPES / f"{name}.gin"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"There is no recipe '{name}'. Give a .gin file or one of: "
            f"{', '.join(list_recipes(package, PRIORS in name))}."
        )
    statements = _read_files(path, folder / "configs")
    for option in options:
        if option not in list_options(package):
            raise ValueError(
                f"There is no option '{option}'. Choose from: {', '.join(list_options(package))}."
            )
        added = _read_files(folder / OPTIONS / f"{option}.gin", folder / "configs")
        changed = {s.selector for s in added if getattr(s, "arg_name", "") and not s.scope}
        if not (changed - _built(added)) & _built(statements):
            raise ValueError(f"Option '{option}' changes nothing in '{name}'; leave it out.")
        statements += added
    return statements


def _built(statements: Sequence[Statement]) -> set[str]:
    """Return the names of the classes that statements build."""
    from rave.runs.gin_text import bound_values, references

    found = (each for v in bound_values(statements).values() for each in references(v))
    return {each.name.rpartition("/")[2] for each in found if getattr(each, "is_called", False)}


def _read_files(first: Path, configs: Path) -> list[Statement]:
    """Return the statements of a gin file, with those of included files in place.

    Args:
        first: The file.
        configs: Folder that is searched for included files, before that of the file.
    """
    from rave.runs.gin_text import MAX_BYTES, RefusedError, read_gin, read_statements, reading

    num_left, files = MAX_BYTES, iter(range(MAX_FILES))

    def read(path: Path, around: tuple[Path, ...]) -> Iterator[Statement]:
        def include(name: str) -> Iterator[Statement]:
            found = [p for p in (configs / name, path.parent / name) if p.is_file()]
            if not found:
                raise RefusedError(f"'{path}' includes '{name}', which does not exist.")
            if found[0].resolve() in around or next(files, None) is None:
                raise RefusedError(
                    f"'{path}' includes '{name}', which includes it, or is one of more than "
                    f"{MAX_FILES} files. Remove the line."
                )
            yield from read(found[0], around)

        nonlocal num_left
        text, around = read_gin(path), (*around, path.resolve())
        num_left -= len(text)
        if num_left < 0:
            raise RefusedError(
                f"'{first}' and its includes have more than {MAX_BYTES} characters. Give a shorter "
                "recipe."
            )
        with reading(f"recipe '{path}'"):
            yield from read_statements(text, include)

    return [*read(first, ())]
