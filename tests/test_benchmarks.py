"""The benchmark program at tiny size, without the peers. No time is asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import harness
from benchmarks.comparison import (
    Bench,
    Comparison,
    Measured,
    Outcome,
    Side,
    ratios_of_pairs,
    spread,
)
from benchmarks.results import table


def measured(name, seconds, **more):
    return Measured(Side(name, "none:none", {}, **more), seconds, [100.0] * len(seconds))


def outcome(*sides, amount=2.0):
    given = Comparison("codec", "encode", [s.side for s in sides], amount, "s of audio", 1)
    return Outcome(given, list(sides))


def test_ratios_are_of_pairs_and_not_of_medians():
    ours, theirs = measured("ours", [1.0, 2.0, 4.0]), measured("theirs", [3.0, 2.0, 20.0])
    (ratio,) = outcome(ours, theirs).ratios()
    assert ratio["samples"] == [3.0, 1.0, 5.0]
    assert (ratio["median"], ratio["lowest"], ratio["highest"]) == (3.0, 1.0, 5.0)
    assert (ratio["of"], ratio["to"]) == ("ours", "theirs")


def test_a_round_that_one_side_lacks_makes_no_ratio():
    assert ratios_of_pairs([2.0, 3.0], [1.0]) == [2.0]
    assert outcome(measured("ours", [1.0]), measured("theirs", [])).ratios() == []


def test_the_share_of_the_limit_follows_from_what_was_counted():
    side = measured("ours", [1.0, 3.0, 2.0])
    side.flops = 50.0
    record = outcome(side).record({("float32", 1): 100.0, ("bfloat16", 1): 1.0})
    (found,) = record["sides"]
    assert found["seconds"]["median"] == 2.0
    assert found["rate"] == 1.0
    assert found["share_of_limit"] == pytest.approx(50.0 / 2.0 / 100.0)


def test_what_stands_for_many_is_scaled():
    side = Measured(Side("theirs", "none:none", {}, scale=20.0))
    side.add({"seconds": 0.5, "peak_mib": 7.0, "flops": 0, "p99_s": 0.1})
    assert side.seconds == [10.0]
    assert side.measured == {"p99_s": [0.1]}


def test_the_table_names_every_side_and_what_went_wrong():
    failed = measured("theirs", [])
    failed.error = "ImportError: no rave"
    ours = measured("ours", [1.0])
    ours.measured = {"p99_s": [2.0]}
    text = table([outcome(ours, failed).record({})])
    assert "p99_s 2 (2 to 2)" in text
    assert "| ours |" in text
    assert "ImportError: no rave" in text
    assert spread([1.0, 3.0])["median"] == 2.0


def test_a_row_is_measured_and_written(tmp_path, capsys):
    code = program.main(["limits", "--quick", "--threads", "1", "--rounds", "2", *out(tmp_path)])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "| limits | product of matrices | 1 | float32 |" in told.out
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["machine"]["versions"]["torch"]
    product = content["rows"][0]
    assert [side["name"] for side in product["sides"]] == ["bfloat16", "float32"]
    assert len(product["sides"][0]["seconds"]["samples"]) == 2
    assert product["sides"][1]["flops"] == 2 * 256**3
    assert len(product["ratios"]) == 1


def test_a_side_that_cannot_is_told_and_the_others_go_on(tmp_path):
    sides = [Side("none", "limits:nothing", {}), Side("copy", "limits:copy", {"mib": 1})]
    given = Comparison("limits", "copy", sides, 1.0, "byte", 1)
    found = Outcome(given)
    harness.measure(given, Bench(tmp_path, True, "cpu", (1,), None, tmp_path), 1, found)
    assert "AttributeError" in found.sides[0].error
    assert len(found.sides[1].seconds) == 1
    assert found.record({})["sides"][1]["peak_mib"] > 1


def test_sides_of_the_peers_are_left_out_without_them(tmp_path):
    given = Comparison("x", "y", [Side("theirs", "none:none", {}, is_upstream=True)], 1.0, "z", 1)
    found = Outcome(given)
    harness.measure(given, Bench(tmp_path, True, "cpu", (1,), None, tmp_path), 1, found)
    assert found.sides == []


def test_an_unknown_name_is_refused(tmp_path, capsys):
    assert program.main(["codecs", *out(tmp_path / "new")]) == 2
    told = capsys.readouterr().err
    assert "There is no row 'codecs'. Choose among: limits, codec, folder," in told
    assert told.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_every_row_is_listed(capsys):
    assert program.main(["--list"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == list(program.ROWS)
    assert all(len(line.split()) > 3 for line in told)


def test_interrupted_it_leaves_what_was_measured(tmp_path, monkeypatch, capsys):
    done = []

    def measure(comparison, bench, rounds, found):
        if done:
            found.sides.append(measured("ours", [1.0]))  # of a comparison that is not finished
            raise KeyboardInterrupt
        done.append(comparison)
        found.sides.append(measured("ours", [1.0, 2.0]))

    monkeypatch.setattr(program, "measure", measure)
    assert program.main(["limits", "--quick", "--threads", "1", *out(tmp_path)]) == 130
    content = json.loads((tmp_path / "results.json").read_text())
    seconds = [row["sides"][0]["seconds"]["samples"] for row in content["rows"]]
    assert seconds == [[1.0, 2.0], [1.0]]
    assert "what was measured is kept" in capsys.readouterr().err


def test_a_whole_command_is_timed_with_its_memory(tmp_path):
    from benchmarks.tasks.commands import PYTHON, commands

    there = tmp_path / "there"
    code = f"import pathlib; pathlib.Path({str(there)!r}).write_text(input())"
    run = commands([[PYTHON, "-c", code]], [str(there)], "cpu", answer="y\n")
    found = run()
    assert there.read_text() == "y"
    assert found["peak_mib"] > 1
    with pytest.raises(RuntimeError, match="ended with code 3"):
        commands([[PYTHON, "-c", "raise SystemExit(3)"]], [], "cpu")()


def test_the_plot_is_of_length(tmp_path):
    from benchmarks.results import plot_length

    records = []
    for minutes in (1.0, 10.0):
        side = measured("ours", [minutes])
        given = Comparison("length", "encode", [side.side], 1.0, "s", 1, size=minutes)
        records.append(Outcome(given, [side]).record({}))
    plot_length(records, tmp_path / "length.png")
    assert (tmp_path / "length.png").read_bytes().startswith(b"\x89PNG")


def test_a_worker_finds_tasks_and_no_package_beside_them():
    folder = Path(harness.__file__).parent
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); import worker; worker.name_package(); "
        "import benchmarks.tasks.limits, importlib.util; "
        f"assert {str(folder)!r} not in sys.path; "
        "assert importlib.util.find_spec('harness') is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def out(folder):
    return ["--out", str(folder)]
