"""The page: its controls, what each button does, and what it shows."""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from diffwave.app import markup, pictures, requests
from diffwave.app.commands import Job, Stopped, short
from diffwave.app.requests import BLENDS, NO_SOUND, Bounds, Requests
from diffwave.app.session import MAX_FILE_GB, MAX_SOUND_S, Session
from diffwave.app.storage import Output, Sound
from rave.cli import sentence
from rave.parsing import MAX_SEED

NUM_BENT = 6
NUM_SHOWN = 6
PRIVATE = {"api_visibility": "private"}
# A job waits in the session, not in a queue of gradio, so that its tab can stop it.
AT_ONCE = {**PRIVATE, "concurrency_limit": None}
QUIET = {**PRIVATE, "queue": False, "show_progress": "hidden"}
HINT = (
    f"The first {MAX_SOUND_S / 60:g} minutes of a sound are used; a file may have up to "
    f"{MAX_FILE_GB} GB. Its wave, spectrogram and latents appear here."
)
NO_RESULTS = "Results appear here, newest first."


class Page:
    """The page of a session.

    Args:
        session: The session that does the work.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._jobs: dict[Job, str | None] = {}  # and its tab; None if that was closed
        self._articles: dict[Path, str] = {}

    def build(self) -> gr.Blocks:
        """Return the page."""
        with gr.Blocks(title="rave app", analytics_enabled=False, fill_width=True) as page:
            self._blocks = page
            sound, second = gr.State(None), gr.State(None)
            latest = gr.State(None)
            gr.HTML(self._headline())
            with gr.Row(elem_classes="desk"):
                with gr.Column(min_width=320):
                    sound_input = _audio_input("Sound", "sound")
                    view = gr.HTML(markup.words(HINT), elem_id="seen")
                    with gr.Tabs(elem_id="ways"):
                        work = self._tabs(sound, second)
                    with gr.Row(elem_classes="settings"):
                        seed = _number("Seed", requests.SEED, "seed", 110)
                        anew = gr.Button(
                            "New seed", size="sm", min_width=80, scale=0, elem_id="anew"
                        )
                        steps = _slider(
                            "Sampler steps",
                            requests.STEPS,
                            min_width=240,
                            scale=2,
                            elem_id="steps",
                            visible=self.session.run_path is not None,
                        )
                with gr.Column(min_width=320):
                    with gr.Row(elem_classes="state"):
                        status = gr.HTML(markup.status("Ready."), elem_id="status", scale=1)
                        stop = gr.Button(
                            "Stop", size="sm", variant="stop", min_width=80, elem_id="stop", scale=0
                        )
                    results = gr.HTML(markup.words(NO_RESULTS), elem_id="results")
                    reuse = gr.Button(
                        "Use latest result as input",
                        size="sm",
                        elem_id="reuse",
                        visible=False,
                    )
            outputs, second_outputs = [sound, view, status, *work["span"]], [second, work["view"]]
            busy = {**AT_ONCE, "show_progress": "full", "show_progress_on": [status]}
            sound_input.input(self._add_sound, sound_input, outputs, **busy)
            sound_input.clear(self._remove_sound, None, outputs, **QUIET)
            work["second"].input(self._add_second, work["second"], second_outputs, **busy)
            work["second"].clear(lambda: (None, ""), None, second_outputs, **QUIET)
            shown = [results, latest, reuse]
            for button, function, inputs in work["buttons"]:
                button.click(
                    self._handler(function), [seed, steps, *inputs], [status, *shown], **busy
                )
            anew.click(lambda: random.randint(0, MAX_SEED), None, seed, **QUIET)
            stop.click(self._stop, None, None, **QUIET)
            reuse.click(self._reuse, latest, [sound_input, *outputs], **busy)
            page.load(self._results, None, shown, **QUIET)
            page.unload(self._leave)
        return page

    def _tabs(self, sound: gr.State, second: gr.State) -> dict[str, Any]:
        """Build the tabs; return their buttons, each with its function and inputs."""
        buttons: list[tuple[Any, Callable[..., Any], list[Any]]] = []
        span: list[Any] = []
        session, ask = self.session, Requests(self.session)
        if session.run_path is not None:
            with gr.Tab("Generate"):
                gr.HTML(markup.words("New music from noise, free or following the sound."))
                seconds = _slider("Length in seconds", requests.LENGTH)
                follow = gr.CheckboxGroup(
                    session.follows, label="Follow the sound's", visible=bool(session.follows)
                )
                label = gr.Dropdown(
                    ["", *session.labels], value="", label="Label", visible=bool(session.labels)
                )
                guidance = _slider(
                    "Guidance: 1 follows as trained, more exaggerates",
                    requests.GUIDANCE,
                    visible=bool(session.follows or session.labels),
                )
                make = _button("Generate")
            buttons.append((make, ask.generate, [sound, seconds, follow, label, guidance]))
            with gr.Tab("Vary"):
                gr.HTML(
                    markup.words("A variation of the sound. 0 changes nothing, 1 keeps nothing.")
                )
                strength = _slider("Strength", requests.STRENGTH)
                make = _button("Vary")
            buttons.append((make, ask.vary, [sound, strength]))
            with gr.Tab("Inpaint"):
                gr.HTML(markup.words("Draw over the part to replace, or type its start and end."))
                region = gr.HTML(markup.words(NO_SOUND), elem_id="region")
                with gr.Row():
                    from_s = _number("From, seconds", requests.START, "from", 120)
                    to_s = _number("To, seconds", requests.END, "to", 120)
                make = _button("Inpaint")
            buttons.append((make, ask.inpaint, [sound, from_s, to_s]))
            span = [region, from_s, to_s]
            with gr.Tab("Continue"):
                gr.HTML(markup.words("A continuation of the sound."))
                more = _slider("Seconds to add", requests.MORE)
                make = _button("Continue")
            buttons.append((make, ask.extend, [sound, more]))
        with gr.Tab("Bend"):
            gr.HTML(
                markup.words(
                    "The sound with its latents moved and stretched along their axes, the widest "
                    "axis first. Offsets are in standard deviations of the sound."
                )
            )
            sliders = _bend_sliders(min(NUM_BENT, session.codec.format.latent_size))
            with gr.Row():
                make = _button("Bend")
                reset = gr.Button("Reset", min_width=120)
            defaults = [slider.value for slider in sliders]
            reset.click(lambda: defaults, None, sliders, **QUIET)
        buttons.append((make, ask.bend, [sound, *sliders]))
        with gr.Tab("Mix"):
            gr.HTML(markup.words("A blend of two sounds, as long as the shorter."))
            other = _audio_input("Second sound", "second")
            second_view = gr.HTML("")
            weight = _slider("Share of the second sound", requests.WEIGHT)
            blend = gr.Radio(list(BLENDS), value=next(iter(BLENDS)), label="Blend")
            make = _button("Mix")
        buttons.append((make, ask.mix, [sound, second, weight, blend]))
        return {"buttons": buttons, "second": other, "view": second_view, "span": span}

    def _headline(self) -> str:
        audio = self.session.codec.format
        run = self.session.run_path
        labels = ["labels"] if self.session.labels else []
        follows = ", ".join([*self.session.follows, *labels])
        diffusion = "no diffusion model" if run is None else f"diffusion model {short(run)}"
        if follows:
            diffusion += f", which follows {follows}"
        text = (
            f"Codec {short(self.session.codec_path)}: {audio.latent_size} latents at "
            f"{audio.identity.frame_rate_hz:.1f} Hz for audio at {audio.sample_rate_hz:,} Hz; "
            f"{diffusion}. Nothing leaves this machine."
        )
        return f"<header><h1>rave app</h1>{markup.words(text)}</header>"

    def _handler(self, work: Callable[..., Output]) -> Callable[..., tuple[Any, ...]]:
        """Return the function that gradio calls for a button."""

        def do(
            request: gr.Request,
            seed: Any,
            steps: Any,
            *inputs: Any,
            progress: gr.Progress = gr.Progress(),  # noqa: B008  how gradio hands one in
        ) -> tuple[Any, ...]:
            def call(job: Job) -> Output:
                return work(job, requests.SEED.whole(seed), requests.STEPS.whole(steps), *inputs)

            found, status = self._run(request, progress, call)
            return status, *([gr.skip()] * 3 if found is None else self._results())

        return do

    def _run(
        self, request: gr.Request, progress: gr.Progress, call: Callable[[Job], Any]
    ) -> tuple[Any, str]:
        """Return the result of a call, or None, and the status line."""

        def report(share: float, left_s: float | None) -> None:
            left = "waiting for other work" if left_s is None else f"about {left_s:.0f} s left"
            progress(share, desc=left)

        job = Job(report)
        self._jobs[job] = request.session_hash
        progress(0.0, desc="starting")
        try:
            return call(job), markup.status("Done.")
        except Stopped:
            return None, markup.status("Stopped. Nothing was saved.")
        except (ValueError, OSError) as error:
            return None, markup.status(sentence(error), is_error=True)
        except Exception as error:  # the page shows only a message
            traceback.print_exc(file=sys.stderr)
            text = f"Internal error ({type(error).__name__}). The terminal shows more."
            return None, markup.status(text, is_error=True)
        finally:
            del self._jobs[job]

    def _stop(self, request: gr.Request) -> None:
        """Stop the jobs of this tab; if it has none, those of closed tabs."""
        jobs = [*self._jobs.items()]
        own = [job for job, owner in jobs if owner == request.session_hash]
        for job in own or [job for job, owner in jobs if owner is None]:
            job.stop()

    def _leave(self, request: gr.Request) -> None:
        """Let the jobs of a closed tab continue, without an owner."""
        for job, owner in [*self._jobs.items()]:
            if owner == request.session_hash:
                self._jobs[job] = None

    def _results(self) -> tuple[Any, ...]:
        """Return the results as HTML, the newest result, and whether there is one."""
        results = self.session.results(NUM_SHOWN)
        if not results:
            return markup.words(NO_RESULTS), None, gr.update(visible=False)
        former = self._articles
        self._articles = {
            each.audio: former.get(each.audio) or self._article(each) for each in results
        }
        # No other file of the folder is served.
        self._blocks.allowed_paths = [
            *dict.fromkeys([*self._blocks.allowed_paths, *(str(each.audio) for each in results)])
        ]
        articles = markup.joined([*self._articles.values()], short(self.session.folder))
        return articles, results[0], gr.update(visible=True)

    def _add_sound(
        self,
        request: gr.Request,
        path: str | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  as above
    ) -> tuple[Any, ...]:
        """Add a sound, and show it."""
        if path is None:
            return self._remove_sound()
        found, status = self._run(request, progress, lambda job: self._encoded(Path(path), job))
        if found is None:
            return self._remove_sound(status)
        sound, view, region = found
        span = (round(sound.seconds / 3, 2), round(2 * sound.seconds / 3, 2))
        return self._sound_outputs(sound, view, markup.status("Ready."), region, *span)

    def _encoded(self, path: Path, job: Job) -> tuple[Sound, str, str]:
        sound = self.session.add_sound(path, job)
        rate_hz = self.session.codec.format.sample_rate_hz
        view = pictures.timeline(sound.audio, rate_hz, self.session.axes_of(sound.latents))
        region = pictures.timeline(sound.audio, rate_hz)
        warnings = markup.warnings(sound.warnings)
        return (
            sound,
            f'<div class="given">{view}{warnings}</div>',
            f'<div class="choose">{region}</div>',
        )

    def _add_second(
        self,
        request: gr.Request,
        path: str | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  as above
    ) -> tuple[Any, ...]:
        if path is None:
            return None, ""
        found, status = self._run(request, progress, lambda job: self._encoded(Path(path), job))
        return (None, status) if found is None else (found[0], found[1])

    def _remove_sound(self, status: str | None = None) -> tuple[Any, ...]:
        view, region = markup.words(HINT), markup.words(NO_SOUND)
        return self._sound_outputs(None, view, status or markup.status("Ready."), region)

    def _sound_outputs(
        self, sound: Sound | None, view: str, status: str, region: str, *span: float
    ) -> tuple[Any, ...]:
        """Return the outputs for a sound; only with a diffusion model there is a span."""
        if self.session.run_path is None:
            return sound, view, status
        return sound, view, status, region, *(span or (gr.skip(), gr.skip()))

    def _reuse(
        self,
        request: gr.Request,
        latest: Output | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  as above
    ) -> tuple[Any, ...]:
        if latest is None:
            return None, *self._remove_sound()
        return str(latest.audio), *self._add_sound(request, str(latest.audio), progress)

    def _article(self, result: Output) -> str:
        rate_hz = self.session.codec.format.sample_rate_hz
        try:
            view = pictures.timeline(result.audio, rate_hz, self.session.axes_of_result(result))
        except (ValueError, OSError) as error:  # someone changed the file
            view = markup.words(sentence(error))
        return markup.article(result, view)


def _audio_input(label: str, name: str) -> gr.Audio:
    return gr.Audio(
        sources=["upload", "microphone"],
        type="filepath",
        label=f"{label}, up to {MAX_SOUND_S / 60:.0f} minutes",
        elem_id=name,
        editable=False,
        buttons=[],
    )


def _bend_sliders(count: int) -> list[gr.Slider]:
    """Return the sliders of offset and stretch of each axis in turn."""
    sliders = []
    for axis in range(count):
        with gr.Row(elem_classes="axis"):
            for name, bounds in (("offset", requests.OFFSET), ("stretch", requests.STRETCH)):
                sliders.append(_slider(f"Axis {axis}: {name}", bounds, min_width=140))
    return sliders


def _button(name: str) -> gr.Button:
    return gr.Button(name, variant="primary", elem_id=f"do-{name.lower()}", min_width=120)


def _slider(label: str, bounds: Bounds, **looks: Any) -> gr.Slider:
    least, most = bounds.low, bounds.high
    return _as_typed(gr.Slider(least, most, bounds.value, step=bounds.step, label=label, **looks))


def _number(label: str, bounds: Bounds, name: str, min_width: int) -> gr.Number:
    number = gr.Number(
        bounds.value,
        label=label,
        minimum=bounds.low,
        maximum=bounds.high,
        step=bounds.step,
        elem_id=name,
        min_width=min_width,
    )
    return _as_typed(number)


def _as_typed(component: Any) -> Any:
    """Pass a number on as it was typed: `requests` refuses with a message, gradio without."""
    component.preprocess = lambda value: value
    return component
