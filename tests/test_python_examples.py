"""The Python examples of README and docs/python.md: names, arguments, and that those of README run."""

import ast
import inspect
import re
from pathlib import Path

import pytest
from audio_files import sine, write

import diffwave
import rave

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)
PACKAGES = {"rave": rave, "diffwave": diffwave}
PAGES = ("README.md", "docs/python.md")


def examples(page):
    return EXAMPLE.findall((ROOT / page).read_text())


def names_used(page):
    """Yield package, name and call, if it is called, of each public name of the examples."""
    for text in examples(page):
        tree = ast.parse(text)
        calls = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id in PACKAGES:
                    yield node.value.id, node.attr, calls.get(node)


def test_every_public_name_has_an_example_and_every_example_a_public_name():
    shown = {(package, name) for package, name, _ in names_used("docs/python.md")}
    public = {(package, name) for package, of in PACKAGES.items() for name in of.__all__}
    assert shown == public


@pytest.mark.parametrize("page", PAGES)
def test_calls_have_arguments_that_the_functions_take(page):
    for package, name, call in names_used(page):
        if call is not None:
            function = getattr(PACKAGES[package], name)
            keywords = {each.arg: None for each in call.keywords}
            inspect.signature(function).bind(*call.args, **keywords)


def test_the_lines_of_the_readme_run_as_they_stand(tmp_path, monkeypatch):
    for number, name in enumerate("abc"):
        tones = sine(220 * (number + 1), 44100, 8.0, 0.3)
        write(tmp_path / "recordings" / f"{name}.flac", tones, 44100)
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    (lines,) = examples("README.md")
    found = {}
    exec(compile(lines, "README.md", "exec"), found)
    size = found["codec"].format.latent_size
    assert found["mean"].shape == found["std"].shape == (size, found["mean"].shape[1])
    assert found["latents"].shape == (
        size,
        round(5 * rave.LatentDataset("new-latents").frame_rate_hz),
    )
    new = rave.read_audio("new.wav", found["codec"].format.sample_rate_hz)
    assert abs(new.shape[1] / found["codec"].format.sample_rate_hz - 5) < 0.1
