"""Pictures of a model's receptive field, with audio to measure the effective one on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rfkeras.cli.rf_subject import Subject
from rfkeras.data.audio import AudioFile
from rfkeras.data.audio_format import AudioFormat, Waveform, to_channels
from rfkeras.errors import ConfigError
from rfkeras.frontend import find_frontend
from rfkeras.receptive_field.result import ReceptiveField

SECONDS = 10.0
RENDERED_CLIPS = 4
_MARGIN = 1.25  # of the clips' length over that of the window


@dataclass(frozen=True)
class Pictures:
    """What was drawn.

    Attributes:
        files: The PNG files.
        effective: The effective field, where there was one to measure.
        audio: What it was measured on.
        note: Why there was none; "" if there was.
    """

    files: tuple[Path, ...]
    effective: Any = None
    audio: str = ""
    note: str = ""


def draw(
    folder: Path,
    subject: Subject,
    field: ReceptiveField,
    *,
    layer: str | None,
    audio: Sequence[Path],
    tags: str | None,
) -> Pictures:
    """Draw the field of every layer and, over a spectrogram, the exact and the effective one.

    Args:
        folder: Where the pictures go.
        subject: The model.
        field: Its exact receptive field.
        layer: Whose output is meant; None: the map that the model averages.
        audio: Files to measure on; none: clips of gm_instruments are rendered.
        tags: Names of tags to measure each by itself, with commas between, or "all".

    Raises:
        ConfigError: Files or tags were named, and the model has no use for them.
        AudioError: A file cannot be read.
    """
    from rfkeras.receptive_field.plots import plot_layers

    layers = folder / "layers.png"
    plot_layers(layers, field, subject.name)
    frontend = find_frontend(subject.model)
    if frontend is None:
        note = "The model has no front-end of its own: nothing was measured over audio."
        if audio or tags:
            raise ConfigError(
                f"{subject.name} has no front-end of its own, so --audio and --tags are of no "
                "use."
            )
        return Pictures((layers,), note=note)
    shape = subject.model.inputs[0].shape
    wanted = AudioFormat(frontend.sample_rate_hz, 1 if len(shape) == 2 else shape[-1])
    seconds = SECONDS
    if audio:
        if field.scale is not None and field.time is not None:
            seconds = max(SECONDS, _MARGIN * field.scale.ms(field.time.size) / 1000)
        clips, names = read_clips(audio, wanted, seconds), ", ".join(map(str, audio))
    else:
        clips, names = render_clips(RENDERED_CLIPS, wanted)
    try:
        effective = _measure(subject.model, clips, layer, tags)
    except ConfigError as error:
        if audio or tags:
            raise
        return Pictures((layers,), note=f"Nothing was measured: {error}")
    spectrogram = np.asarray(frontend.mel_db(clips[:1]))[0].mean(axis=-1)
    files = (layers, *_draw_effective(folder, subject, effective, spectrogram))
    return Pictures(files, effective, names)


def _measure(model: Any, clips: Waveform, layer: str | None, tags: str | None) -> Any:
    from rfkeras.receptive_field.effective import effective_receptive_field

    named: str | list[str] | None = tags
    if tags and tags != "all":
        named = [name.strip() for name in tags.split(",")]
    return effective_receptive_field(model, clips, layer=layer, tags=named, progress=_progress)


def _progress(done: int, whole: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == whole else ""
        print(
            f"\reffective receptive field: {done}/{whole}", end=end, file=sys.stderr, flush=True
        )


def _draw_effective(
    folder: Path, subject: Subject, effective: Any, spectrogram: Any
) -> list[Path]:
    from rfkeras.receptive_field.effective.plot import plot_effective
    from rfkeras.receptive_field.effective.tags_plot import plot_tags

    weights = "" if subject.trained else ", not trained"
    files = [folder / "effective.png"]
    plot_effective(files[0], effective, spectrogram, title=f"{subject.name}{weights}")
    if effective.tags:
        files.append(folder / "effective_tags.png")
        plot_tags(files[1], effective)
    return files


def read_clips(paths: Sequence[Path], audio: AudioFormat, seconds: float) -> Waveform:
    """The first seconds of each file; of all as many as the shortest has.

    Returns:
        (files, samples) or (files, samples, 2).

    Raises:
        AudioError: A file cannot be read.
    """
    clips = []
    for path in paths:
        with AudioFile(str(path), audio) as file:
            clips.append(file.read(0, min(file.length, audio.samples(seconds))))
    return _stacked(clips)


def render_clips(number: int, audio: AudioFormat) -> tuple[Waveform, str]:
    """Test clips of gm_instruments, made in memory: no data set need be there.

    Returns:
        (clips, what they are called).

    Raises:
        DatasetError: The sound font is missing.
    """
    import soxr

    from rfkeras.data.sources.gm_instruments.compose import compose
    from rfkeras.data.sources.gm_instruments.layout import FIRST_TEST_INDEX, clip_key
    from rfkeras.data.sources.gm_instruments.render import SAMPLE_RATE_HZ, render
    from rfkeras.data.sources.gm_instruments.soundfont import default_path, load

    font = load(default_path())
    indices = range(FIRST_TEST_INDEX, FIRST_TEST_INDEX + number)
    clips = [
        soxr.resample(render(compose(0, index), font), SAMPLE_RATE_HZ, audio.sample_rate_hz)
        for index in indices
    ]
    waveforms = [
        to_channels(clip.astype(np.float32)[:, None], audio.channels) for clip in clips
    ]
    names = f"{clip_key(0, indices[0])} to {clip_key(0, indices[-1])}"
    return _stacked(waveforms), f"{number} clips of gm_instruments, rendered ({names})"


def _stacked(clips: Sequence[Waveform]) -> Waveform:
    shortest = min(len(clip) for clip in clips)
    return np.stack([clip[:shortest] for clip in clips])
