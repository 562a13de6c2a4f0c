"""The Python examples of README and docs/python.md: their names and arguments; README's run."""

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
            match node:
                case ast.Attribute(value=ast.Name(id="rave" | "diffwave" as package)):
                    yield package, node.attr, calls.get(node)


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
    assert found["latents"].shape[0] == size
    rate_hz = found["codec"].format.sample_rate_hz
    hop_samples = found["codec"].format.hop_samples
    new = rave.read_audio("new.wav", rate_hz)
    assert new.shape == (1, found["latents"].shape[1] * hop_samples)
    assert abs(new.shape[1] - 5 * rate_hz) <= hop_samples
