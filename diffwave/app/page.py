"""The page: what it shows, and which of the workshop's work each button does."""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from diffwave.app import asked, markup, pictures
from diffwave.app.asked import NO_SOUND, WAYS, Asked, Bounds
from diffwave.app.commands import Job, Stopped, short
from diffwave.app.kept import Made, Sound
from diffwave.app.workshop import MAX_FILE_GB, MAX_SOUND_S, Workshop
from rave.cli import sentence
from rave.parsing import MAX_SEED

NUM_BENT = 6
NUM_SHOWN = 6
PRIVATE = {"api_visibility": "private"}
# Work waits for its turn in the workshop, not in a queue: there whoever began it can stop it.
AT_ONCE = {**PRIVATE, "concurrency_limit": None}
QUIET = {**PRIVATE, "queue": False, "show_progress": "hidden"}
HINT = (
    f"Of a longer sound the first {MAX_SOUND_S / 60:g} minutes are taken; a file has up to "
    f"{MAX_FILE_GB} GB. Its wave, spectrogram and latents will be seen here."
)
NOTHING = "What you make is heard and seen here, newest first."


class Page:
    """The page of one workshop.

    Args:
        shop: Does the work.
    """

    def __init__(self, shop: Workshop) -> None:
        self.shop = shop
        self._jobs: dict[Job, str | None] = {}  # and who began it; None: the tab was closed
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
                    given = _audio_input("Sound", "sound")
                    seen = gr.HTML(markup.words(HINT), elem_id="seen")
                    with gr.Tabs(elem_id="ways"):
                        work = self._tabs(sound, second)
                    with gr.Row(elem_classes="settings"):
                        seed = _number("Seed", asked.SEED, "seed", 110)
                        anew = gr.Button(
                            "New seed", size="sm", min_width=80, scale=0, elem_id="anew"
                        )
                        steps = _slider(
                            "Steps of the sampler",
                            asked.STEPS,
                            min_width=240,
                            scale=2,
                            elem_id="steps",
                            visible=self.shop.run_path is not None,
                        )
                with gr.Column(min_width=320):
                    with gr.Row(elem_classes="state"):
                        status = gr.HTML(markup.status("Ready."), elem_id="status", scale=1)
                        stop = gr.Button(
                            "Stop", size="sm", variant="stop", min_width=80, elem_id="stop", scale=0
                        )
                    results = gr.HTML(markup.words(NOTHING), elem_id="results")
                    reuse = gr.Button(
                        "Take the newest result as the sound",
                        size="sm",
                        elem_id="reuse",
                        visible=False,
                    )
            shown, second_shown = [sound, seen, status, *work["span"]], [second, work["seen"]]
            busy = {**AT_ONCE, "show_progress": "full", "show_progress_on": [status]}
            given.input(self._take, given, shown, **busy)
            given.clear(self._forget, None, shown, **QUIET)
            work["second"].input(self._take_second, work["second"], second_shown, **busy)
            work["second"].clear(lambda: (None, ""), None, second_shown, **QUIET)
            made = [results, latest, reuse]
            for button, function, inputs in work["buttons"]:
                button.click(self._doing(function), [seed, steps, *inputs], [status, *made], **busy)
            anew.click(lambda: random.randint(0, MAX_SEED), None, seed, **QUIET)
            stop.click(self._stop, None, None, **QUIET)
            reuse.click(self._reuse, latest, [given, *shown], **busy)
            page.load(self._results, None, made, **QUIET)
            page.unload(self._leave)
        return page

    def _tabs(self, sound: gr.State, second: gr.State) -> dict[str, Any]:
        """Build the tabs; return their buttons with what each does and with what."""
        buttons: list[tuple[Any, Callable[..., Any], list[Any]]] = []
        span: list[Any] = []
        shop, ask = self.shop, Asked(self.shop)
        if shop.run_path is not None:
            with gr.Tab("Generate"):
                gr.HTML(markup.words("New music out of noise, free or following the sound."))
                seconds = _slider("Length in seconds", asked.LENGTH)
                follow = gr.CheckboxGroup(
                    shop.follows, label="Follow the sound's", visible=bool(shop.follows)
                )
                label = gr.Dropdown(
                    ["", *shop.labels], value="", label="Label", visible=bool(shop.labels)
                )
                guidance = _slider(
                    "Guidance: 1 follows as trained, more exaggerates",
                    asked.GUIDANCE,
                    visible=bool(shop.follows or shop.labels),
                )
                make = _button("Generate")
            buttons.append((make, ask.generate, [sound, seconds, follow, label, guidance]))
            with gr.Tab("Vary"):
                gr.HTML(
                    markup.words("The sound again, otherwise. 0 changes nothing, 1 leaves nothing.")
                )
                strength = _slider("Strength", asked.STRENGTH)
                make = _button("Vary")
            buttons.append((make, ask.vary, [sound, strength]))
            with gr.Tab("Inpaint"):
                gr.HTML(
                    markup.words(
                        "Draw over the part to make anew, or type where it begins and ends."
                    )
                )
                region = gr.HTML(markup.words(NO_SOUND), elem_id="region")
                with gr.Row():
                    from_s = _number("From, seconds", asked.START, "from", 120)
                    to_s = _number("To, seconds", asked.END, "to", 120)
                make = _button("Inpaint")
            buttons.append((make, ask.inpaint, [sound, from_s, to_s]))
            span = [region, from_s, to_s]
            with gr.Tab("Continue"):
                gr.HTML(markup.words("What comes after the sound."))
                more = _slider("Seconds to add", asked.MORE)
                make = _button("Continue")
            buttons.append((make, ask.extend, [sound, more]))
        with gr.Tab("Bend"):
            gr.HTML(
                markup.words(
                    "The sound through the codec, bent along the axes of its latents: the widest "
                    "first, offsets in standard deviations of the sound."
                )
            )
            sliders = _bend_sliders(min(NUM_BENT, shop.codec.format.latent_size))
            with gr.Row():
                make = _button("Bend")
                reset = gr.Button("Straight again", min_width=120)
            straight = [0.0, 1.0] * (len(sliders) // 2)
            reset.click(lambda: straight, None, sliders, **QUIET)
        buttons.append((make, ask.bend, [sound, *sliders]))
        with gr.Tab("Mix"):
            gr.HTML(markup.words("Between two sounds, cut to the shorter."))
            other = _audio_input("Second sound", "second")
            second_seen = gr.HTML("")
            weight = _slider("From the first to the second", asked.WEIGHT)
            way = gr.Radio(list(WAYS), value=next(iter(WAYS)), label="Way")
            make = _button("Mix")
        buttons.append((make, ask.mix, [sound, second, weight, way]))
        return {"buttons": buttons, "second": other, "seen": second_seen, "span": span}

    def _headline(self) -> str:
        audio = self.shop.codec.format
        run = self.shop.run_path
        follows = " and ".join([*self.shop.follows, *(["labels"] if self.shop.labels else [])])
        diffusion = "no diffusion model" if run is None else f"diffusion model {short(run)}"
        if follows:
            diffusion += f", which follows {follows}"
        text = (
            f"Codec {short(self.shop.codec_path)}: {audio.latent_size} latents at "
            f"{audio.identity.frame_rate_hz:.1f} Hz for audio at {audio.sample_rate_hz:,} Hz; "
            f"{diffusion}. Nothing leaves this machine."
        )
        return f"<header><h1>rave app</h1>{markup.words(text)}</header>"

    def _doing(self, work: Callable[..., Made]) -> Callable[..., tuple[Any, ...]]:
        """Return what gradio calls for a button: it does the work and shows what it made."""

        def do(
            request: gr.Request,
            seed: Any,
            steps: Any,
            *inputs: Any,
            progress: gr.Progress = gr.Progress(),  # noqa: B008  how gradio hands one in
        ) -> tuple[Any, ...]:
            def call(job: Job) -> Made:
                return work(job, asked.SEED.whole(seed), asked.STEPS.whole(steps), *inputs)

            found, told = self._do(request, progress, call)
            return told, *([gr.skip()] * 3 if found is None else self._results())

        return do

    def _do(
        self, request: gr.Request, progress: gr.Progress, call: Callable[[Job], Any]
    ) -> tuple[Any, str]:
        """Return what a piece of work gives, or None, and what is said of it."""

        def report(share: float, left_s: float | None) -> None:
            waits = left_s is None
            progress(share, desc="waits for other work" if waits else f"about {left_s:.0f} s left")

        job = Job(report)
        self._jobs[job] = request.session_hash
        progress(0.0, desc="beginning")
        try:
            return call(job), markup.status("Done.")
        except Stopped:
            return None, markup.status("Stopped. Nothing was kept of it.")
        except (ValueError, OSError) as error:
            return None, markup.status(sentence(error), is_error=True)
        except Exception as error:  # nothing may reach the page but a sentence
            traceback.print_exc(file=sys.stderr)
            text = f"That failed ({type(error).__name__}), which is a fault of this program; "
            return None, markup.status(text + "the terminal shows more.", is_error=True)
        finally:
            del self._jobs[job]

    def _stop(self, request: gr.Request) -> None:
        """Stop what this tab began; if that is nothing, what closed tabs left behind."""
        jobs = [*self._jobs.items()]
        own = [job for job, owner in jobs if owner == request.session_hash]
        for job in own or [job for job, owner in jobs if owner is None]:
            job.stop()

    def _leave(self, request: gr.Request) -> None:
        """Let the work of a tab that is closed go on, as no one's: it is kept."""
        for job, owner in [*self._jobs.items()]:
            if owner == request.session_hash:
                self._jobs[job] = None

    def _results(self) -> tuple[Any, ...]:
        """Return what the folder keeps, as HTML, the newest result, and whether there is one."""
        made = self.shop.made(NUM_SHOWN)
        if not made:
            return markup.words(NOTHING), None, gr.update(visible=False)
        former = self._articles
        self._articles = {
            each.audio: former.get(each.audio) or self._article(each) for each in made
        }
        # Of the folder nothing else is served.
        self._blocks.allowed_paths = [
            *dict.fromkeys([*self._blocks.allowed_paths, *(str(each.audio) for each in made)])
        ]
        shown = markup.joined([*self._articles.values()], short(self.shop.folder))
        return shown, made[0], gr.update(visible=True)

    def _take(
        self,
        request: gr.Request,
        path: str | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  as above
    ) -> tuple[Any, ...]:
        """Take a sound in, and show it."""
        if path is None:
            return self._forget()
        found, told = self._do(request, progress, lambda job: self._taken(Path(path), job))
        if found is None:
            return self._forget(told)
        sound, seen, region = found
        span = (round(sound.seconds / 3, 2), round(2 * sound.seconds / 3, 2))
        return self._shown(sound, seen, markup.status("Ready."), region, *span)

    def _taken(self, path: Path, job: Job) -> tuple[Sound, str, str]:
        sound = self.shop.add_sound(path, job)
        rate_hz = self.shop.codec.format.sample_rate_hz
        seen = pictures.timeline(sound.audio, rate_hz, self.shop.axes_of(sound.latents))
        region = pictures.timeline(sound.audio, rate_hz)
        warned = markup.warnings(sound.warnings)
        return (
            sound,
            f'<div class="given">{seen}{warned}</div>',
            f'<div class="choose">{region}</div>',
        )

    def _take_second(
        self,
        request: gr.Request,
        path: str | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  as above
    ) -> tuple[Any, ...]:
        if path is None:
            return None, ""
        found, told = self._do(request, progress, lambda job: self._taken(Path(path), job))
        return (None, told) if found is None else (found[0], found[1])

    def _forget(self, told: str | None = None) -> tuple[Any, ...]:
        region = markup.words(NO_SOUND)
        return self._shown(None, markup.words(HINT), told or markup.status("Ready."), region)

    def _shown(
        self, sound: Sound | None, seen: str, told: str, region: str, *span: float
    ) -> tuple[Any, ...]:
        """Return what a sound changes on the page; without a diffusion model there is no span."""
        if self.shop.run_path is None:
            return sound, seen, told
        return sound, seen, told, region, *(span or (gr.skip(), gr.skip()))

    def _reuse(
        self,
        request: gr.Request,
        made: Made | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  as above
    ) -> tuple[Any, ...]:
        if made is None:
            return None, *self._forget()
        return str(made.audio), *self._take(request, str(made.audio), progress)

    def _article(self, made: Made) -> str:
        rate_hz = self.shop.codec.format.sample_rate_hz
        try:
            seen = pictures.timeline(made.audio, rate_hz, self.shop.axes_of_made(made))
        except (ValueError, OSError) as error:  # someone changed the file
            seen = markup.words(sentence(error))
        return markup.article(made, seen)


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
    """Return offset and stretch of each axis, one after the other."""
    sliders = []
    for axis in range(count):
        with gr.Row(elem_classes="axis"):
            for name, bounds in (("offset", asked.OFFSET), ("stretch", asked.STRETCH)):
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
    """Let a number come as it was typed: `asked` refuses in a sentence, gradio does not."""
    component.preprocess = lambda given: given
    return component
