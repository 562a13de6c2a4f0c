"""A folder of audio → a folder of latents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rave.api.result import Result
from rave.audio.formats import guess_duration_s
from rave.audio.io import list_audio_files
from rave.audio.sound import Sound
from rave.compute.arrays import Float32Array, Float64Array
from rave.files.atomic import check_output_folder, check_record, remove_partials
from rave.held_out import recordings
from rave.jobs.journal import Journal
from rave.jobs.loop import process_files, result_names
from rave.jobs.windows import WHOLE, WINDOW_FRAMES, Part, read_blocks, write_blocks
from rave.latents.folder import (
    HEADER_NAME,
    POSTERIOR_MEAN,
    POSTERIOR_SAMPLE,
    LatentFile,
    LatentHeader,
    write_latents,
)
from rave.latents.statistics import StatisticsAccumulator
from rave.parsing import check_seed

if TYPE_CHECKING:  # torch takes long to import; what is refused without it is refused at once
    from rave.codec import Codec
    from rave.codec_source import CodecSource
    from rave.jobs.loop import Engine
    from rave.levels import LevelledAudio

    Sums: TypeAlias = list[tuple[Float64Array, int]]  # and frames, of each window

JOURNAL_NAME = ".encode.jsonl"
# Fields of each file's record, as in `rave.latents.folder.LatentFile`.
FIELDS = {"path": str, "num_frames": int, "source_sample_rate_hz": int, "source_num_samples": int}


def encode_folder(
    codec: str | Path,
    audio_dir: str | Path,
    latents_dir: str | Path,
    *,
    sample: bool = False,
    match_level: bool = False,
    force: bool = False,
    ema: bool = False,
    derivative: bool = False,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "float32",
    seed: int = 0,
    engine: Engine | None = None,
) -> Result:
    """Write the latents of every audio file: one .npy (D, N) per file, and latents.json.

    Files that are already encoded and unchanged are skipped.

    Args:
        codec: Run folder of `rave train` or of acids-rave, or a .ts file (it runs code: open only
            files you trust).
        audio_dir: Folder of audio files of any format.
        latents_dir: Folder to write.
        sample: Draw from the posterior instead of writing its mean.
        match_level: Bring audio to the level of the codec's training audio. Decoding undoes the
            gain.
        force: Replace latents made with other settings.
        ema: Take the averaged weights of a run of acids-rave.
        derivative: The codec was trained on the derivative of audio (acids-rave).
        device: auto, cpu, cuda, cuda:N or mps.
        backend: auto, torch or openvino.
        precision: float32 or bfloat16, of encoder and decoder.
        seed: Random seed of `sample`.
        engine: Engine that processes the files; None: this process, one file after the other.

    Returns:
        Counts of files, what was skipped, the level of each file, and figures of the latents.

    Raises:
        ValueError: If codec or folders cannot be used, or no file is usable.
        OSError: If the latent folder cannot be written; what was finished is kept.
    """
    check_seed(seed)
    audio_dir, latents_dir = Path(audio_dir), Path(latents_dir)
    sources = list_audio_files(audio_dir)
    check_output_folder(latents_dir, audio_dir)
    from rave.codec_source import CodecSource

    opener = CodecSource.of(codec, device, backend, precision, ema, derivative)
    return encode_files(
        opener,
        sources,
        latents_dir,
        seed=seed if sample else None,
        match_level=match_level,
        force=force,
        engine=engine,
    )


def encode_files(
    opener: CodecSource,
    sources: Mapping[str, Path],
    folder: Path,
    *,
    seed: int | None,
    match_level: bool,
    force: bool,
    engine: Engine | None = None,
) -> Result:
    """Write the latents of some audio files, as `encode_folder` does.

    Args:
        opener: Opens the codec.
        sources: Name of each file (relative, posix, unique) and its path.
        folder: Folder to write into.
        seed: Draw from the posterior with this seed; None: write its mean.
        match_level: Bring audio to the level of the codec's training audio.
        force: Replace latents made with other settings.
        engine: Engine that processes the files; None: this process.

    Raises:
        ValueError: If the codec or the folder cannot be used, or no file is usable.
        OSError: If the latent folder cannot be written; what was finished is kept.
    """
    from rave.levels import levels_of, levels_to_match

    codec = opener.codec
    contents = POSTERIOR_MEAN if seed is None else POSTERIOR_SAMPLE
    matched = {"match_level": levels_to_match(codec)} if match_level else {}
    settings = {
        "codec": codec.format.fingerprint,
        "contents": contents,
        "seed": seed,
        **matched,
        **opener.settings,
    }
    journal = Journal(folder / JOURNAL_NAME, settings, force=force)
    remove_partials(folder)
    paths = result_names(sources, ".npy")
    report = process_files(
        sources,
        Encoding(opener, folder, paths, seed, is_level_matched=match_level),
        paths,
        journal,
        "Encoding",
        lambda record: _check(record, codec.format.latent_size),
        engine,
        header=HEADER_NAME,
    )
    report.check_any(str(len(sources)), "Encoded")
    origins = recordings({name: sources[name] for name in report.records}, paths)
    header = _header(codec, contents, seed, report.records, origins, report.skipped)
    header.write(folder)
    report.remove_stale()
    levels = levels_of(codec.format, report.records)
    return _result(folder, header, report.summary("Encoded"), report.figures, levels)


@dataclass(frozen=True)
class Encoding:
    """Encode one audio file, or parts of it (`rave.jobs.loop.DivisibleWork`).

    Args:
        opener: Opens the codec.
        folder: Folder to write into.
        paths: Path of the .npy of each name, relative to it.
        seed: Draw from the posterior with this seed; None: write its mean.
        is_level_matched: First bring each file to the level of the codec's training audio.
    """

    opener: CodecSource
    folder: Path
    paths: Mapping[str, str]
    seed: int | None
    is_level_matched: bool = False

    def __call__(self, name: str, source: Path) -> dict[str, Any]:
        """Write the latents of one audio file, whole or not at all.

        Returns:
            Frames, source rate and length, sound, gain, and sums for the statistics.

        Raises:
            AudioError: If the file cannot be used.
            OSError: If the latents cannot be written.
        """
        audio = self._audio(source)
        sums: Sums = []
        blocks = self._windows(audio, WHOLE, sums)
        return self._write(name, blocks, sums, lambda: audio.record)

    def num_windows(self, name: str, source: Path) -> int:
        """Return an estimate of the number of windows in a file."""
        codec_format = self.opener.codec.format
        frames = guess_duration_s(source) * codec_format.sample_rate_hz / codec_format.hop_samples
        return max(int(frames / WINDOW_FRAMES), 1)

    def do_part(
        self, name: str, source: Path, part: Part, path: Path
    ) -> tuple[Sums, dict[str, Any] | None]:
        """Write the latents of some windows; return their sums, and at the end the file's record.

        The file is read from its beginning, which takes 1 % of the encoding time.

        Raises:
            AudioError: If the file cannot be used.
            OSError: If `path` cannot be written.
        """
        audio = self._audio(source)
        sums: Sums = []
        write_blocks(path, self._windows(audio, part, sums))
        return sums, audio.record if part.stop is None else None

    def join(
        self, name: str, source: Path, paths: Sequence[Path], results: Sequence[Any]
    ) -> dict[str, Any]:
        """Write the latents of all parts, and return what `__call__` does."""
        sums = [window_sums for part_sums, _ in results for window_sums in part_sums]
        blocks = read_blocks(paths, self.opener.codec.format.latent_size, WINDOW_FRAMES)
        return self._write(name, blocks, sums, lambda: results[-1][1])

    def _audio(self, source: Path) -> LevelledAudio:
        from rave.levels import LevelledAudio

        return LevelledAudio(
            source, self.opener.codec.format, is_level_matched=self.is_level_matched
        )

    def _windows(
        self, audio: Iterable[Float32Array], part: Part, sums: Sums
    ) -> Iterator[Float32Array]:
        """Yield the latents (D, n) of each window, and append its sums and number of frames."""
        from rave.noise import PositionalNoise

        codec = self.opener.codec
        size, position = codec.format.latent_size, part.first * WINDOW_FRAMES
        for mean, std in codec.encode_blocks(audio, part=part):
            sums.append((StatisticsAccumulator.sums_of(mean, std), mean.shape[1]))
            if self.seed is None:
                yield mean
            else:
                noise = PositionalNoise(self.seed, "posterior", size)
                yield mean + std * noise.normal(position, position + mean.shape[1]).T
            position += mean.shape[1]

    def _write(
        self,
        name: str,
        blocks: Iterable[Float32Array],
        sums: Sums,
        source: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        size = self.opener.codec.format.latent_size
        num_frames = write_latents(self.folder / self.paths[name], blocks, size, is_durable=False)
        accumulator = StatisticsAccumulator(size)
        for values, count in sums:
            accumulator.add_sums(values, count)
        return {
            "num_frames": num_frames,
            **source(),
            "sums": accumulator.record(),
        }


def _check(record: dict[str, Any], latent_size: int) -> None:
    check_record(record, **FIELDS, gain_db=float, sound=Sound, sums=dict)
    StatisticsAccumulator(latent_size).merge(record["sums"])


def _header(
    codec: Codec,
    contents: str,
    seed: int | None,
    records: dict[str, dict[str, Any]],
    origins: dict[str, str],
    skipped: dict[str, str],
) -> LatentHeader:
    sums = StatisticsAccumulator(codec.format.latent_size)
    files = []
    for name, record in records.items():
        sums.merge(record["sums"])
        fields = {field: record[field] for field in (*FIELDS, "gain_db")}
        files.append(LatentFile(source=name, recording=origins[name], **fields))
    return LatentHeader(
        codec=codec.format.fingerprint,
        codec_path=str(codec.path),
        sample_rate_hz=codec.format.sample_rate_hz,
        hop_samples=codec.format.hop_samples,
        latent_size=codec.format.latent_size,
        contents=contents,
        statistics=sums.statistics(),
        files=files,
        seed=seed,
        skipped=skipped,
    )


def _result(
    folder: Path,
    header: LatentHeader,
    summary: str,
    counts: dict[str, Any],
    levels: dict[str, dict[str, Any]],
) -> Result:
    from rave.levels import level_lines

    statistics = header.statistics
    num_informative = int(statistics.is_informative.sum())
    figures = {
        **counts,
        "levels": levels,
        "num_frames": statistics.num_frames,
        "frame_rate_hz": header.frame_rate_hz,
        "latent_size": header.latent_size,
        "num_informative": num_informative,
        "information_nats_per_frame": float(statistics.information.sum()),
        "kl_nats_per_frame": sum(statistics.kl),
    }
    text = (
        f"{summary}\n'{folder}' holds {statistics.num_frames} frames of {header.latent_size} "
        f"dimensions at {header.frame_rate_hz:.2f} Hz; {num_informative} dimensions are "
        f"informative, {statistics.information.sum():.1f} nats per frame."
    )
    return Result("\n".join([text, *level_lines(levels)]), figures, num_skipped=len(header.skipped))
