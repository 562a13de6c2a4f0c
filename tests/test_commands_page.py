"""docs/commands.md is what the parsers say."""

from make_commands_page import PAGE, page

from diffwave.__main__ import PROGRAMS
from rave.main_cli import AVAILABLE_SCRIPTS, command_module


def test_the_page_of_commands_is_current():
    made = page()
    assert PAGE.read_text(encoding="utf-8") == made, (
        "docs/commands.md is not current. Run: python scripts/make_commands_page.py"
    )


def test_every_command_has_a_section_with_each_of_its_options():
    sections = dict(part.split("\n", 1) for part in page().split("\n## "))
    assert set(sections) == {
        "# Commands",
        *(f"rave {name}" for name in AVAILABLE_SCRIPTS),
        *(f"python -m diffwave.{name}" for name in PROGRAMS),
    }
    for name in AVAILABLE_SCRIPTS:
        for action in command_module(name).parser()._actions:
            for option in action.option_strings[-1:]:
                shown = sections[f"rave {name}"] + sections["# Commands"]
                assert f"`{option}`" in shown or f"`{option} " in shown, (name, option)
