import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import report_train as report
import training_curves as curves
from browser import OPTIONS, chromium
from demo_audio import make_demo_audio
from report_html import report_program
from torch.utils.tensorboard import SummaryWriter

from diffwave.pages.plots import INK, SPECTROGRAM_HOP, mel_spectrogram_db, spectrogram_png
from rave.latents.folder import LatentFile, LatentHeader, write_latents
from rave.latents.statistics import StatisticsAccumulator

RATE_HZ, HOP, LATENT_SIZE = 22050, 1024, 4
NAMES = ("generated_audio", "generated_conditioned_audio")
BLENDS = ("lerp_00_0.00", "lerp_01_1.00", "slerp_00_0.00", "slerp_01_1.00", "mean")


def write_latent_folder(folder, names, rng):
    sums = StatisticsAccumulator(LATENT_SIZE)
    files = []
    for name in names:
        latents = rng.standard_normal((LATENT_SIZE, 40)).astype(np.float32)
        sums.add(latents, np.full_like(latents, 0.3))
        write_latents(folder / f"{name}.npy", [latents], LATENT_SIZE)
        files.append(LatentFile(f"{name}.npy", 40, None, RATE_HZ, 40 * HOP))
    LatentHeader(
        "abc", "codec", RATE_HZ, HOP, LATENT_SIZE, "posterior mean", sums.statistics(), files
    ).write(folder)


def write_curves(run, tags):
    writer = SummaryWriter(str(run / "tensorboard"))
    for tag in tags:
        for step in (10, 20, 30):
            writer.add_scalar(tag, 1.0 / step + 0.5, step)
    writer.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A fabricated demo folder with its report."""
    folder = tmp_path_factory.mktemp("demo")
    rng = np.random.default_rng(0)
    paths = make_demo_audio(folder / "audio", num_files=3, seconds=1.0)
    for path in paths:
        (folder / "reconstructions").mkdir(exist_ok=True)
        shutil.copy(path, folder / "reconstructions" / path.name)
    for name in NAMES:
        (folder / name).mkdir()
        for index in range(2):
            shutil.copy(paths[index], folder / name / f"generated_{index:03d}.wav")
    (folder / "interpolation").mkdir()
    for blend in BLENDS:
        shutil.copy(paths[0], folder / "interpolation" / f"{blend}.wav")
    write_latent_folder(folder / "latents", [path.stem for path in paths], rng)
    for name in ("generated", "generated_conditioned"):
        write_latent_folder(folder / name, ["generated_000", "generated_001"], rng)
    write_curves(
        folder / "runs" / "rave",
        [curves.CODEC_TRAIN, curves.CODEC_HELD_OUT, curves.CODEC_DECIBELS],
    )
    write_curves(
        folder / "runs" / "diffwave",
        [curves.DIFFUSION_TRAIN, curves.DIFFUSION_HELD_OUT, curves.SKILL]
        + [f"reference/{name}" for name in report.REFERENCES],
    )
    entry = {
        "title": "Step <1>",
        "command": "rave x --set A='<b>'",
        "seconds": 61.0,
        "output": "& done",
    }
    journal = {
        "seed": 7,
        "held_out": [paths[1].name],
        "followed": paths[1].name,
        "commands": [entry],
    }
    (folder / report.JOURNAL).write_text(json.dumps(journal))
    diagnosis = folder / report.DIAGNOSIS
    diagnosis.parent.mkdir()
    diagnosis.write_bytes(spectrogram_png(rng.standard_normal(RATE_HZ), RATE_HZ))
    findings = [{"name": "memorised"}, {"name": "level-lost"}]
    diagnosis.with_suffix(".json").write_text(json.dumps({"findings": findings}))
    assert report.write_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(demo):
    return (demo / "report.html").read_text()


def test_the_page_needs_nothing_but_itself(page):
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"url\((?!#)|@import|fetch\(|import\(", page)


def test_there_is_one_player_and_one_picture_for_each_clip(page):
    num_clips = 2 * 1 + 2 + (1 + 2) + len(BLENDS)
    assert len(re.findall("<audio controls", page)) == num_clips
    num_pictures = num_clips + 1  # that of the diagnosis
    assert len(re.findall("<img ", page)) == num_pictures
    assert len(re.findall(r'<img [^>]*alt="[^"]{10,}"', page)) == num_pictures
    assert len(re.findall(r'<audio [^>]*aria-label="[^"]{5,}"', page)) == num_clips


def test_plots_follow_the_page_colours_and_have_names(page):
    assert len(re.findall(r'<svg role="img" aria-label="[^"]{20,}"', page)) == 4
    assert INK not in page
    assert "currentColor" in page


def test_the_reference_losses_are_lines_with_their_names_and_values(page):
    for name in report.REFERENCES:
        assert re.search(rf"{name} 0\.533", page)


def test_seed_commands_and_outputs_are_told_and_escaped(page):
    assert "seed 7" in page
    assert "rave x --set A=&#x27;&lt;b&gt;&#x27;" in page
    assert "Step &lt;1&gt;" in page
    assert "&amp; done" in page


def test_findings_of_the_diagnosis_are_named(page):
    assert "Diagnosis of the diffusion model: found: memorised, level-lost." in page


def test_no_identifier_is_used_twice(page):
    identifiers = re.findall(r'\bid="([^"]*)"', page)
    assert len(identifiers) == len(set(identifiers))


def test_the_report_is_small(demo):
    assert (demo / "report.html").stat().st_size < 2e6


def test_a_folder_that_is_no_demo_is_refused_in_a_sentence(tmp_path, capsys):
    program = (report.write_report, "report_train.py", "demo-train-output")
    assert report_program(*program, [str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"report_train.py: error: '{tmp_path / 'demo.json'}' does not exist, "
        f"so '{tmp_path}' is not a demo folder.\n"
    )


def test_a_sine_at_full_scale_has_0_db_in_its_mel_band():
    audio = np.sin(2 * np.pi * 1000 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    level_db = mel_spectrogram_db(audio, RATE_HZ)
    assert level_db.shape[1] == RATE_HZ // SPECTROGRAM_HOP + 1
    middle = level_db[:, level_db.shape[1] // 2]
    assert -3 < middle.max() < 3
    assert np.sort(middle)[len(middle) // 2] < -60


def test_the_same_level_has_the_same_colour_in_every_picture():
    silence = spectrogram_png(np.zeros(RATE_HZ), RATE_HZ)
    assert spectrogram_png(np.full(RATE_HZ, 1e-9), RATE_HZ) == silence


PROBE = """
<script>addEventListener('load', () => setTimeout(() => {
  const all = selector => [...document.querySelectorAll(selector)];
  document.title = JSON.stringify({
    playable: all('audio').filter(a => a.duration > 0.4).length,
    pictures: all('img').filter(i => i.naturalWidth > 10).length,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  });
}, 1500));</script>
"""


@pytest.mark.parametrize("width", [500, 1200])
def test_a_browser_plays_every_clip_and_the_page_fits_its_window(demo, page, tmp_path, width):
    browser = chromium()
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("</body>", PROBE + "</body>"))
    command = [
        browser,
        "--headless",
        *OPTIONS,
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},2000",
        "--virtual-time-budget=8000",
        "--dump-dom",
        probed.as_uri(),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(re.search(r"<title>(.*?)</title>", run.stdout)[1])
    num_clips, num_pictures = page.count("<audio controls"), page.count("<img ")
    assert found == {"playable": num_clips, "pictures": num_pictures, "overflow": 0}
