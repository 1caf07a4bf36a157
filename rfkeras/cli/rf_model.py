"""What `rfkeras rf MODEL` is about: a name of the zoo, a file, or a run."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rfkeras.audio.io import AudioFile, AudioFormat, Waveform, to_channels
from rfkeras.config.options import ModelOptions
from rfkeras.config.recipes import complete
from rfkeras.config.train_config import TrainConfig, resolve
from rfkeras.errors import ConfigError
from rfkeras.frontend import find_frontend
from rfkeras.rf.field import ReceptiveField
from rfkeras.rf.rho import Pair, Plan, rho_for

MODEL_FLAGS = (*ModelOptions.model_option_names(), "frontend", "input_channels")
COUNTED_TAGS = 20  # of the networks whose parameters are counted: as OpenMIC has
_UNTRAINED = "he"  # a classifier that starts at zero has no gradient to show

_MODEL_SUFFIXES = (".keras", ".h5")
# Flags that choose rho, and the arguments of rho_for that they are.
WISHES = {
    "for_rf_time": "rf_time",
    "for_ms": "time_ms",
    "for_bands": "mel_bands",
    "for_hz": "bandwidth_hz",
}


@dataclass(frozen=True)
class Subject:
    """The model in question.

    Attributes:
        name: As it is called in titles.
        folder: Where its report goes unless another place is given.
        model: The Keras model.
        trained: Whether its weights come from a file.
        architecture: Its name in the zoo; None for a model that may be anything.
        options: The architecture's options; empty likewise.
        frontend: The preset of its front-end; None where that is not known.
        chosen_by: The wish and the rule that rho was chosen by; "" if it was not.
    """

    name: str
    folder: Path
    model: Any
    trained: bool
    architecture: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    frontend: str | None = None
    chosen_by: str = ""

    def plan(self) -> Plan:
        """From rho to the layers of this architecture with its other options.

        Raises:
            ConfigError: The architecture is not known.
        """
        if self.architecture is None:
            raise ConfigError(
                "--all-rho needs an architecture: a name of the zoo (see `rfkeras models`), or "
                f"a run folder. Received: {self.name}."
            )
        return _plan(self.architecture, self.options)

    def parameters(self, rho: int) -> int:
        """Parameters that training changes, of this architecture with that rho."""
        import zoo

        options = {**self.options, "rho": rho, "frontend": None}
        assert self.architecture is not None  # plan() has been asked before
        model = zoo.create_model(self.architecture, COUNTED_TAGS, **options)
        return trainable_parameters(model)


def trainable_parameters(model: Any) -> int:
    """Number of parameters that training changes."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def open_subject(options: argparse.Namespace) -> Subject:
    """Build or load the model that the command names.

    Raises:
        ConfigError: No such model, a flag that does not go with it, or a wish for a
            receptive field that it cannot have.
        CheckpointError: The file is no model.
    """
    import zoo

    if options.model in zoo.list_models():
        return _from_zoo(options)
    path = Path(options.model)
    if not path.exists() and not path.suffix and len(path.parts) == 1:
        zoo.model_info(options.model)  # raises, and suggests the nearest name
    names = (*MODEL_FLAGS, *WISHES, "rule")
    if not path.is_dir() and path.suffix not in _MODEL_SUFFIXES:
        raise ConfigError(
            "MODEL is a name of the zoo (see `rfkeras models`), a .keras file or a run folder. "
            f"Received: {path}{'' if path.exists() else ', which does not exist'}."
        )
    if given := [name for name in names if getattr(options, name, None) is not None]:
        raise ConfigError(
            f"{path} is a model that is built already, so these have no effect: "
            f"{_flags(given)}. They go with a name of the zoo, see `rfkeras models`."
        )
    return _from_run(path) if path.is_dir() else _from_file(path)


def wished_rho(options: argparse.Namespace, plan: Plan, frontend: str) -> int | Pair | None:
    """The rho for the wishes among the flags; None without any.

    Raises:
        ConfigError: They contradict --rho or each other, or no rho fulfils them.
    """
    wishes = {WISHES[flag]: getattr(options, flag) for flag in _wishes_of(options)}
    if not wishes:
        if options.rule is not None:
            raise ConfigError(f"--rule goes with a wish: {_flags(WISHES)}.")
        return None
    if hasattr(options, "rho"):
        raise ConfigError(
            f"--rho and {_flags(_wishes_of(options))} both choose rho. Leave out one of them."
        )
    if "bandwidth_hz" in wishes:
        wishes["bandwidth_hz"], wishes["centre_hz"] = wishes["bandwidth_hz"]
    return rho_for(**wishes, rule=options.rule or "at_most", frontend=frontend, plan=plan)


def _wishes_of(options: argparse.Namespace) -> list[str]:
    return [flag for flag in WISHES if getattr(options, flag) is not None]


def _flags(names: Iterable[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)


def _plan(architecture: str, options: Mapping[str, Any]) -> Plan:
    import zoo

    info = zoo.model_info(architecture)
    return lambda rho: info.plan_for(**{**options, "rho": rho})


def _from_zoo(options: argparse.Namespace) -> Subject:
    import zoo

    flags = {name: getattr(options, name) for name in MODEL_FLAGS if hasattr(options, name)}
    config = resolve(TrainConfig, {"model": options.model, **flags})
    rho = wished_rho(options, _plan(options.model, config.model_options()), config.frontend)
    chosen_by = ""
    if rho is not None:
        config = resolve(TrainConfig, {"model": options.model, **flags, "rho": rho})
        chosen_by = f"{_flags(_wishes_of(options))} ({options.rule or 'at_most'})"
    config = complete(config)
    import keras

    settings = config.model_options()
    if config.initialization == "published" and "initialization" not in flags:
        settings["initialization"] = _UNTRAINED
    keras.utils.set_random_seed(0)  # the effective field of one command is always the same
    model = zoo.create_model(
        options.model,
        COUNTED_TAGS,
        frontend=config.frontend,
        input_channels=config.input_channels,
        **settings,
    )
    shown = settings.get("rho")
    name = options.model if shown is None else f"{options.model}, rho {shown}"
    folder = "rf-" + options.model + ("" if shown is None else f"-rho{_in_file_name(shown)}")
    return Subject(
        name,
        Path(folder),
        model,
        trained=False,
        architecture=options.model,
        options=settings,
        frontend=config.frontend,
        chosen_by=chosen_by,
    )


def _from_run(path: Path) -> Subject:
    from rfkeras.training.run_dir import RunFolder
    from zoo.pretrained import load_model

    run = RunFolder(path)
    config = run.read_config()
    settings = config.model_options()
    name = config.model
    if "rho" in settings:
        name += f", rho {settings['rho']}"
    return Subject(
        f"{name} of {path.resolve().name}",
        path / "receptive_field",
        load_model(run.model),
        trained=True,
        architecture=config.model,
        options=settings,
        frontend=config.frontend,
    )


def _from_file(path: Path) -> Subject:
    from zoo.pretrained import load_model

    return Subject(path.name, path.with_name(f"{path.stem}-rf"), load_model(path), True)


def _in_file_name(rho: int | Pair) -> str:
    return str(rho) if isinstance(rho, int) else "x".join(map(str, rho))


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
    from rfkeras.rf.plots import plot_layers

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
    from rfkeras.rf.effective import effective_receptive_field

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
    from rfkeras.rf.plots import plot_effective, plot_tags

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

    from rfkeras.synthesis.compose import compose
    from rfkeras.synthesis.generate import FIRST_TEST_INDEX, clip_key
    from rfkeras.synthesis.render import SAMPLE_RATE_HZ, default_path, load, render

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
