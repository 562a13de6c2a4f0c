"""Recipes as files: which there are, and what one says. Needs no torch."""

from __future__ import annotations

import argparse
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from rave.files.atomic import regular

RECIPES, OPTIONS = (Path("configs") / name for name in ("recipes", "options"))
MACRO = re.compile(r"[A-Z][A-Z0-9_]*")
MAX_BYTES, MAX_FILES = 2**18, 32  # of a recipe with what it includes
PRIORS = "prior/"  # their recipes are in a folder of their own


def _package_folder(package: str) -> Path:
    # Not the package itself: where this is an editable install, a folder of its name in the working
    # directory (a clone of lmnt-com/diffwave, say) would be found in its place.
    spec = importlib.util.find_spec(f"{package}.__init__")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def list_recipes(package: str, of_priors: bool = False) -> list[str]:
    """Return the names of a package's recipes, those of autoregressive priors or the others."""
    folder = _package_folder(package) / RECIPES
    found = (folder / PRIORS).glob("*.gin") if of_priors else folder.glob("*.gin")
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in found)


def list_options(package: str) -> list[str]:
    """Return the names of what a recipe of a package can be combined with."""
    return sorted(path.stem for path in (_package_folder(package) / OPTIONS).glob("*.gin"))


def recipe_type(package: str) -> Callable[[str], str]:
    """Return a type of argument of a command line: the name of a recipe that there is."""

    def recipe(text: str) -> str:
        try:
            recipe_lines(package, text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return text

    return recipe


def check_form(settings: Sequence[str]) -> None:
    """Check that settings are NAME=VALUE.

    Raises:
        ValueError: If one is not.
    """
    for setting in settings:
        if not re.fullmatch(r"[\w./]+\s*=.*", setting.strip(), re.DOTALL):
            raise ValueError(f"'{setting}' is not NAME=VALUE. Write --set MAX_STEPS=5000, say.")


def check_settings(package: str, recipe: str, settings: Sequence[str]) -> None:
    """Check the user's settings as far as text alone says; the parser checks them again.

    Raises:
        ValueError: If one is not NAME=VALUE, or names a macro that nothing in the recipe uses.
    """
    check_form(settings)
    text = "\n".join([*recipe_lines(package, recipe), *settings])
    names = [setting.partition("=")[0].strip() for setting in settings]
    check_used(recipe, [name for name in names if MACRO.fullmatch(name)], text)


def check_used(recipe: str, macros: Iterable[str], text: str) -> None:
    """Check that gin text uses macros.

    Raises:
        ValueError: If it does not; the message names those that it uses.
    """
    used = {name[1:] for name in re.findall(rf"%{MACRO.pattern}", text)}
    if unused := sorted(set(macros) - used):
        raise ValueError(
            f"Nothing in recipe '{recipe}' uses {', '.join(unused)}. "
            f"It uses: {', '.join(sorted(used))}."
        )


def recipe_lines(package: str, recipe: str) -> list[str]:
    """Return the lines of a recipe and of its options.

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
    lines = _expanded(path, folder / "configs")
    for option in options:
        if option not in list_options(package):
            raise ValueError(
                f"There is no option '{option}'. Choose among: {', '.join(list_options(package))}."
            )
        added = _expanded(folder / OPTIONS / f"{option}.gin", folder / "configs")
        if not (_bound(added) - _built(added)) & _built(lines):
            raise ValueError(f"Option '{option}' changes nothing in '{name}'; leave it out.")
        lines += added
    return lines


def stated(package: str, recipe: str, name: str) -> str | None:
    """Return the number that a recipe itself gives to a name, such as SAMPLE_RATE_HZ, as text."""
    text = "\n".join(recipe_lines(package, recipe))
    return (re.findall(rf"^{name} = ([\d.]+)", text, re.MULTILINE) or [None])[-1]


def _bound(lines: Sequence[str]) -> set[str]:
    """Return the classes to whose arguments lines give values."""
    return set(re.findall(r"^(\w+\.\w+)\.\w+ =", "\n".join(lines), re.MULTILINE))


def _built(lines: Sequence[str]) -> set[str]:
    return set(re.findall(r"@(?:\w+/)?(\w+\.\w+)\(\)", "\n".join(lines)))


def read_gin(path: Path) -> str:
    """Return the text of a gin file.

    Raises:
        ValueError: If it is no file of text, or longer than any recipe or settings of a run.
        OSError: If it cannot be read.
    """
    with regular(path).open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"'{path}' has more than {MAX_BYTES} bytes. Give a .gin file.")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is no text ({error}). Give a .gin file.") from error


def _expanded(path: Path, configs: Path) -> list[str]:
    """Return the lines of a gin file with the files that it includes in their places."""
    lines, num_left = list[str](), MAX_BYTES
    for line in _lines(path, configs, (), iter(range(MAX_FILES))):
        num_left -= len(line) + 1
        if num_left < 0:
            raise ValueError(
                f"'{path}' and what it includes have more than {MAX_BYTES} characters. "
                "Give a shorter recipe."
            )
        lines.append(line)
    return lines


def _lines(
    path: Path, configs: Path, around: tuple[Path, ...], files: Iterator[int]
) -> Iterator[str]:
    """Yield what `_expanded` returns, as long as there are `files` left."""
    around = (*around, path.resolve())
    for line in read_gin(path).splitlines():
        included = re.match(r"include\s+['\"](.+)['\"]", line)
        if not included:
            yield line
            continue
        found = [p for p in (configs / included[1], path.parent / included[1]) if p.is_file()]
        if not found:
            raise ValueError(f"'{path}' includes '{included[1]}', which does not exist.")
        if found[0].resolve() in around or next(files, None) is None:
            raise ValueError(
                f"'{path}' includes '{included[1]}', which includes it, or is one of more than "
                f"{MAX_FILES} in all. Take the line out."
            )
        yield from _lines(found[0], configs, around, files)
