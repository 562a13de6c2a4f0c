"""`--engine ray` gives what the local path gives, whatever becomes of workers and machines.

The cluster is Ray's own for tests: each machine is a few processes here.
"""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from audio_files import noise, sine, write
from forks import Fork
from rave_models import remember

from rave.api import encode
from rave.files.errors import SkipFile
from rave.jobs import loop as batch
from rave.jobs import ray_engine
from rave.jobs.journal import Journal
from rave.main_cli import main

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
psutil = pytest.importorskip("psutil")  # Ray brings it
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [
    pytest.mark.skipif(cluster_utils.cluster_not_supported, reason="Ray has no clusters here"),
    # 2026-11: Ray leaves its log files and processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

from ray_work import Copying, TroubledEncoding, wait_for  # noqa: E402

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def cluster():
    """Two machines of one core; tests add the one that they kill."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *sys.path]))  # of the workers
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # as a user may have set them
            patch.setenv(name, "2")
        # A killed machine is soon known to be, and workers do not wait for what else is tested.
        settings = {"health_check_period_ms": 200, "worker_niceness": 0}
        less = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        head = {"num_cpus": 1, "_system_config": settings, **less}
        made = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        made.add_node(num_cpus=1)
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def connected(cluster):
    """The cluster; all commands of this process are one job of it, whose workers stay."""

    def connect(address):
        assert address == cluster.address

    ray_engine._init(address=cluster.address)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_engine, "_init", connect)
        patch.setattr(ray, "shutdown", lambda: None)
        yield cluster
    ray.shutdown()


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """Short recordings, a long one of another rate, and two that cannot be used."""
    folder = tmp_path_factory.mktemp("ray") / "audio"
    for number in range(9):
        write(folder / f"{number}.wav", noise(22050 + 3000 * number, seed=number), 22050)
    write(folder / "sub" / "long.flac", sine(300, 44100, 20.0) + noise(20 * 44100), 44100)
    broken = noise(15 * 22050)
    broken[0, -1] = np.nan
    write(folder / "late nan.wav", broken, 22050, subtype="FLOAT")
    (folder / "words.wav").write_text("no audio")
    return folder


@pytest.fixture(scope="module")
def local(run, audio, tmp_path_factory):
    """What commands write without Ray."""
    folder = tmp_path_factory.mktemp("local")
    for verb, codec in (("encode", [str(run)]), ("preprocess", [])):
        assert main([verb, *codec, str(audio), str(folder / verb)]) == 1
    return {verb: content(folder / verb) for verb in ("encode", "preprocess")}


@pytest.fixture
def cuts(monkeypatch):
    """Let long files be cut as finely as can be; the names of those that are."""
    names = []
    jobs = ray_engine.RayEngine._jobs

    def told(self, work, sources):
        found = jobs(self, work, sources)
        names.extend(found[1])
        return found

    monkeypatch.setattr(ray_engine, "MIN_PART_WINDOWS", 1)
    monkeypatch.setattr(ray_engine.RayEngine, "_jobs", told)
    return names


@pytest.fixture
def marks(tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


@pytest.fixture
def beside(tmp_path):
    """A folder with modules that are named as those that workers import; they note who ran."""
    folder = tmp_path / "beside"
    folder.mkdir()
    for name in ("soxr", "soundfile", "numpy", "torch", "rave", "json"):
        note = f"open({str(folder / 'ran')!r}, 'a').write({name + ' '!r})\n"
        (folder / f"{name}.py").write_text(f"{note}raise ImportError('of a stranger')\n")
    return folder


def content(folder):
    """Return what a folder holds; of the journals the records, which come in any order."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {
        name: sorted(p.read_text().splitlines()) if name.endswith(".jsonl") else p.read_bytes()
        for name, p in found.items()
    }


def test_every_command_writes_the_same_bytes_on_ray_also_where_files_are_cut(
    connected, run, audio, tmp_path, cuts, beside, monkeypatch, capsys
):
    monkeypatch.chdir(beside)
    on_ray = ["--engine", "ray", "--address", connected.address]
    latents = tmp_path / "local" / "encode"
    codec = Path(shutil.copytree(run, tmp_path / "codec"))
    remember(codec, True, False, True, True)
    commands = {
        "preprocess": ["preprocess", str(audio), "{}", "--sample-rate", "16000"],
        "encode": ["encode", str(codec), str(audio), "{}", "--sample", "--match-level"],
        "decode": ["decode", str(codec), str(latents), "{}"],
    }
    expected_cuts = {"preprocess": [], "encode": ["late nan.wav", "sub/long.flac"]}
    expected_cuts["decode"] = ["sub/long.npy"]
    for verb, command in commands.items():
        told = []
        for where, options in (("local", []), ("ray", on_ray)):
            cuts.clear()
            out = tmp_path / where / verb
            code = main([word.replace("{}", str(out)) for word in command] + options)
            assert code == (0 if verb == "decode" else 1)
            told.append(capsys.readouterr().out.replace(str(out), "OUT"))
        assert told[0] == told[1]
        assert sorted(cuts) == expected_cuts[verb]
        local, there = content(tmp_path / "local" / verb), content(tmp_path / "ray" / verb)
        assert local.keys() == there.keys()  # nothing partial is left
        assert local == there
    assert not (beside / "ran").exists()


def test_a_machine_that_is_lost_in_mid_run_costs_no_file_and_doubles_none(
    connected, run, audio, local, tmp_path, cuts, marks, monkeypatch, capsys
):
    monkeypatch.setattr(encode, "Encoding", TroubledEncoding)
    victim = connected.add_node(num_cpus=1)
    # The others, which have loaded everything, would be done before it begins.
    held = [marks / f"hold-{node.node_id}" for node in connected.list_all_nodes()]
    for mark in held:
        mark.touch()

    def kill():
        wait_for((marks / f"began-{victim.node_id}").exists)
        connected.remove_node(victim, allow_graceful=False)
        for mark in held:
            mark.unlink()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    on_ray = ["--engine", "ray", "--address", connected.address]
    assert main(["encode", str(run), str(audio), str(tmp_path / "ray"), "--json", *on_ray]) == 1
    assert json.loads(capsys.readouterr().out)["num_done"] == 10
    killer.join()
    assert victim not in connected.worker_nodes
    wait_for(lambda: sum(node["Alive"] for node in ray.nodes()) == 2)
    assert cuts
    names = [json.loads(line).get("name") for line in (tmp_path / "ray/.encode.jsonl").open()]
    assert len(names) == len(set(names)) == 1 + 10
    assert content(tmp_path / "ray") == local["encode"]


@pytest.fixture
def copy(connected, tmp_path, marks):
    """Return a function that copies files of words on Ray."""

    def call(words, cpus=1):
        (tmp_path / "in").mkdir(exist_ok=True)
        for name, text in words.items():
            (tmp_path / "in" / name).write_text(text)
        out = tmp_path / "out"
        return batch.process_files(
            {name: tmp_path / "in" / name for name in words},
            Copying(out),
            {name: name for name in words},
            Journal(out / "journal", {}),
            "Copying",
            dict,
            ray_engine.RayEngine(connected.address, cpus),
        )

    return call


def test_what_ends_with_its_process_is_done_again_and_skipped_if_it_always_does(
    copy, tmp_path, marks
):
    (marks / "die-once-b").touch()
    (marks / "die-c").touch()
    report = copy({"a": "1", "b": "2", "c": "3", "d": "bad", "e": "5"})
    assert list(report.records) == ["a", "b", "e"]
    assert not (marks / "die-once-b").exists()
    assert list(report.skipped) == ["c", "d"]
    assert "its worker process crashed, 4 times" in report.skipped["c"]
    assert report.skipped["d"] == "it is bad"
    assert (tmp_path / "out" / "b").read_text() == "2"


def test_few_tasks_wait_and_each_worker_has_the_threads_of_its_cores(copy, monkeypatch):
    waiting, wait = [], ray.wait
    cores, resources = [], ray.cluster_resources

    def counted(references, **options):
        waiting.append(len(references))
        return wait(references, **options)

    def seen():  # a machine that an earlier test killed may still be there
        found = resources()
        cores.append(found["CPU"])
        return found

    monkeypatch.setattr(ray, "wait", counted)
    monkeypatch.setattr(ray, "cluster_resources", seen)
    report = copy({f"{number:02d}": "threads" for number in range(30)})
    assert report.num_done == 30
    assert max(waiting) == ray_engine.QUEUED_PER_SLOT * max(cores)
    assert {record["threads"] for record in report.records.values()} == {1}
    assert len({record["pid"] for record in report.records.values()}) <= max(waiting)


def test_an_error_that_is_not_the_file_s_stops_the_run_as_it_does_here(copy):
    with pytest.raises(KeyError, match="b"):
        copy({"a": "1", "b": "wrong"})


def test_a_worker_larger_than_every_machine_is_refused(copy):
    with pytest.raises(ValueError, match=r"needs 64 CPUs and 0 GPUs; .*have 1 and 0, 1 and 0"):
        copy({"a": "1"}, cpus=64)


def test_a_part_that_fails_lets_its_file_be_skipped_once_all_that_run_have_ended(tmp_path):
    given = [ray_engine._Job("a", "do_part", index=index) for index in range(4)]
    file = ray_engine._CutFile([tmp_path / str(index) for index in range(4)], num_running=3)
    file.paths[0].touch()
    jobs = deque([given[3], ray_engine._Job("b")])
    bad = SkipFile("it is bad")
    outcomes = [(0, {}), (1, bad), (2, {})]
    told = [list(ray_engine._part_done(given[i], o, file, jobs)) for i, o in outcomes]
    assert told == [[], [], [("a", bad)]]
    assert list(jobs) == [ray_engine._Job("b")]
    assert not file.paths[0].exists()


def test_a_folder_that_a_machine_does_not_see_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(ray, "get", lambda reference: Copying(tmp_path / "elsewhere"))
    with pytest.raises(ValueError, match=r"elsewhere' does not exist on the machine .* same paths"):
        ray_engine._opened.__wrapped__(None, 1)


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)]
)
def test_a_driver_that_ends_in_mid_run_is_taken_up_by_the_same_command(
    connected, audio, local, tmp_path, marks, capsys, sent, code
):
    (marks / "hold-words.wav").touch()
    out = tmp_path / "out"
    where = ["--engine", "ray", "--address", connected.address]
    process = Fork("ray_driver", *(command := ["preprocess", str(audio), str(out), *where]))
    journal = out / ".preprocess.jsonl"
    wait_for(lambda: journal.exists() and len(journal.read_text().splitlines()) >= 4)
    os.kill(process.pid, sent)
    found, _, told = process.finish(timeout_s=120)
    assert found == code
    assert (": interrupted; the same command continues." in told) == (code == 130)
    capsys.readouterr()
    assert main([*command, "--json"]) == 1
    figures = json.loads(capsys.readouterr().out)
    assert figures["num_unchanged"] >= 3
    assert figures["num_unchanged"] + figures["num_done"] == 10
    assert content(out) == local["preprocess"]


def listening(pid):
    """Return the addresses at which a process and its children listen."""
    process = psutil.Process(pid)
    found = [process, *process.children(recursive=True)]
    sockets = [one for each in found for one in each.net_connections("inet")]
    return [one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN]


def test_ray_that_starts_here_is_for_this_user_alone_and_leaves_nothing(
    audio, local, tmp_path, beside
):
    code = (
        "import sys; del sys.path[0]  # the current directory, which `rave` has not there\n"
        "import os; import rave.jobs.ray_engine as e; start = e._start\n"
        "def told(folder):\n"
        "    start(folder)\n"
        "    import ray; ray.get(ray.remote(lambda: None).remote())  # a worker is there\n"
        "    from ray._common.usage import usage_lib\n"
        "    facts = folder, usage_lib.usage_stats_enabled(), os.environ['RAY_AUTH_MODE']\n"
        "    print(*facts, file=sys.__stdout__, flush=True)\n"
        "    sys.stdin.readline()\n"
        "e._start = told\n"
        "from rave.main_cli import main; code = main(sys.argv[1:])\n"
        "print(sorted(set(os.environ) & {'RAY_AUTH_MODE', 'RAY_AUTH_TOKEN'}))\n"
        "sys.exit(code)\n"
    )
    recordings = os.path.relpath(audio, beside)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", code, "preprocess", recordings, "../ray", "--engine", "ray"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=beside,
        env=kept | {"RAY_USAGE_STATS_ENABLED": "1", "RAY_worker_niceness": "0"},
    )
    folder, *facts = process.stdout.readline().split()
    modes = {path: path.stat().st_mode for path in Path(folder).parents}
    num_sockets = sum(path.is_socket() for path in Path(folder).rglob("*"))
    addresses = listening(process.pid)
    out, err = process.communicate("\n", timeout=180)
    assert process.returncode == 1, err
    assert facts == ["False", "token"]
    assert out.splitlines()[-1] == "[]"

    assert num_sockets >= 2
    private, *above = modes.values()
    assert stat.S_IMODE(private) == 0o700
    assert all(mode & stat.S_ISVTX or not mode & (stat.S_IWGRP | stat.S_IWOTH) for mode in above)
    assert len(addresses) >= 4  # of Ray's two servers, the command and a worker
    assert {address.removeprefix("::ffff:") for address in addresses} <= {"127.0.0.1", "::1"}
    assert not (beside / "ran").exists()
    assert not Path(folder).parent.exists()

    told = [line for line in map(str.strip, err.splitlines()) if line]
    assert all(line.startswith(("Preparing", "skipped")) for line in told), told
    assert content(tmp_path / "ray") == local["preprocess"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "auto"], "--address works only with --engine ray. Add it"),
        (["--cpus-per-worker", "2"], "--cpus-per-worker works only with --engine ray."),
        (["--engine", "ray", "--cpus-per-worker", "0"], "a worker needs 1 or more."),
        (["--engine", "ray", "--address", "nonsense"], "auto or HOST:PORT is needed, on a machine"),
        (
            ["--engine", "ray", "--address", "127.0.0.1:9"],
            "No Ray cluster answers at '127.0.0.1:9'. Start one with `ray start --head`",
        ),
        (["--engine", "ray", "--address", "ray://127.0.0.1:9"], "auto or HOST:PORT is needed"),
    ],
)
def test_options_that_cannot_be_met_are_refused(refused, audio, tmp_path, options, message):
    assert message in refused(main, "preprocess", audio, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_without_ray_its_extra_is_named(refused, audio, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine.importlib.util, "find_spec", lambda name: None)
    why = refused(main, "preprocess", audio, tmp_path / "out", "--engine", "ray")
    assert why == "Ray is not installed. Run: pip install 'rave-diffwave[ray]'\n"
