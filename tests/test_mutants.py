"""How `make mutants` chooses tests, and when it believes what it found before."""

import json

import mutants
import pytest
from mutants import Job, Mutant, Place, choose

MUTANT = Mutant("rave/audio/io.py", "read", "-a\n+b")
TODAY = {"": "all", "tests/test_a.py": "a", "tests/test_b.py": "b"}


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setattr(mutants, "STATE", tmp_path)


def measured(lines, failed=(), **seconds):
    """What a file of tests is found to run: for each line of the mutant's file, functions."""
    seconds = {f"tests/test_{name}": duration for name, duration in seconds.items()}
    return {"lines": {MUTANT.file: lines}, "seconds": seconds, "failed": list(failed)}


def place(*lines):
    return Place(0, range(lines[0], lines[-1] + 1) if lines else range(0), slice(0), b"")


def test_tests_that_run_a_mutant_come_before_those_whose_fixtures_do():
    fast = {"a.py::test_near[::[1]": 2, "a.py::test_far": 0.1, "a.py::test_late": 1}
    found = [
        measured({"7": ["test_near", "test_late", ""], "9": ["test_far"]}, **fast),
        measured({"7": ["test_slow"]}, **{"b.py::test_slow": 5, "b.py::test_other": 0.1}),
        measured({"9": [""]}, **{"c.py::test_none": 0.1}),
    ]
    near = ["a.py::test_late", "a.py::test_near[::[1]", "b.py::test_slow"]
    expected = [f"tests/test_{name}" for name in [*near, "a.py::test_far"]]
    assert choose(found, MUTANT, place(6, 7, 8)) == expected


def test_what_is_no_function_is_tested_by_what_runs_any_line_of_its_file():
    found = [measured({"1": [""], "9": ["test_far"]}, **{"a.py::test_far": 1, "a.py::test_x": 1})]
    assert choose(found, MUTANT, place()) == ["tests/test_a.py::test_far"]


def test_tests_that_fail_without_a_change_notice_none():
    names = {"a.py::test_one": 1, "a.py::test_two": 1, "a.py::test_long": mutants.BUDGET_S}
    found = [measured({"1": [""]}, ["tests/test_a.py::test_one"], **names)]
    assert choose(found, MUTANT, place(1)) == ["tests/test_a.py::test_two"]


def test_what_no_test_runs_is_left_to_the_tests_that_name_its_module():
    mutant = MUTANT._replace(file="scripts/apply_patches.py")
    found = [measured({}, **{"patches.py::test_one": 1, "a.py::test_two": 1})]
    assert choose(found, mutant, place(1)) == ["tests/test_patches.py::test_one"]
    assert choose(found, MUTANT, place(1)) == []


@pytest.mark.parametrize("changed", [b"", b"mutated"])
@pytest.mark.parametrize("noticed_by", ["", "tests/test_b.py::test_it"])
def test_a_result_holds_as_long_as_the_tests_that_gave_it(changed, noticed_by):
    job = Job(TODAY, ["tests/test_a.py"], [], MUTANT, changed)
    job.write(code=1, failed=[noticed_by] * bool(noticed_by))
    assert job.known()["code"] == 1
    gave_it = noticed_by.partition("::")[0] if changed else "tests/test_a.py"
    for name in TODAY:
        later = job._replace(today={**TODAY, name: "later"})
        assert (later.known() is None) == (name == gave_it)


def test_judged_mutants_are_of_todays_code_and_have_reasons():
    for entry in json.loads(mutants.JUDGED.read_text()):
        lines = [line.strip() for line in (mutants.ROOT / entry["file"]).read_text().split("\n")]
        before = [line[1:] for line in entry["diff"].split("\n") if line.startswith("-")]
        assert before and set(before) <= set(lines), entry
        assert len(entry["reason"].split()) > 3, entry
