"""`rfkeras rf`: show the receptive field of a model in pixels, milliseconds and Hz."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.cli.main import COMMANDS, add_train_flags, join_flags
from rfkeras.cli.parser import add_model_argument
from rfkeras.config.options import ModelOptions
from rfkeras.errors import ConfigError
from rfkeras.rf.rho import RULES, Pair, Plan, RhoStep, explain_rho, rho_for
from rfkeras.utils.files import write_text
from rfkeras.utils.table import Table, open_console

if TYPE_CHECKING:
    from rfkeras.audio.io import AudioFormat, Waveform
    from rfkeras.frontend.presets import SpectrogramScale
    from rfkeras.rf.axis import AxisField
    from rfkeras.rf.field import ReceptiveField

MODEL_FLAGS = (*ModelOptions.model_option_names(), "frontend", "input_channels")
COUNTED_TAGS = 20  # of the models whose parameters are counted; as in OpenMIC
# Flags that choose rho, and their arguments of `rho_for`.
RHO_FLAGS = {
    "for_rf_time": "rf_time",
    "for_ms": "time_ms",
    "for_bands": "mel_bands",
    "for_hz": "bandwidth_hz",
}
_MODEL_SUFFIXES = (".keras", ".h5")
_UNTRAINED = "he"  # a classifier that starts at zero has no gradient
_LEAST_WIDTH = 100
_CENTRES_HZ = (250.0, 1000.0, 4000.0)  # where the table gives the field in Hz

SECONDS = 10.0  # of audio per clip for the effective field
RENDERED_CLIPS = 4
_MARGIN = 1.25  # length of the clips relative to the receptive field


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "rf",
        help=COMMANDS["rf"],
        description=(
            "Show what one output position of a model sees: the exact receptive field of every "
            "layer, and the effective one, measured with gradients on audio. MODEL is the "
            "name of a zoo model (with :WEIGHTS, its pretrained weights), a .keras file or a "
            "run folder."
        ),
        epilog=(
            "Pictures and receptive_field.json are written to --output (default: "
            "rf-MODEL-rhoRHO for a name, DIR/receptive_field for a run folder, FILE-rf next to "
            "a .keras file). Models given by name have random weights."
        ),
    )
    add_model_argument(
        parser, required=True, help="name, .keras file or run folder", deprecated=["model"]
    )
    wishes = parser.add_argument_group("choose rho by receptive field")
    wishes.add_argument("--for-rf-time", type=float, metavar="FRAMES", help="RF along time")
    wishes.add_argument(
        "--for-ms", type=float, metavar="MS", help="RF along time, in milliseconds of audio"
    )
    wishes.add_argument("--for-bands", type=float, metavar="BANDS", help="RF along frequency")
    wishes.add_argument(
        "--for-hz",
        type=_width_and_centre,
        metavar="WIDTH,CENTRE",
        help="RF along frequency: WIDTH Hz around CENTRE Hz",
    )
    wishes.add_argument(
        "--rule", choices=RULES, help="how to match the requested size (default: at_most)"
    )
    shown = parser.add_argument_group("output")
    shown.add_argument(
        "--all-rho", action="store_true", help="also list every rho, its RF and parameters"
    )
    shown.add_argument(
        "--layer", metavar="NAME", help="show the RF of this layer (default: the last map)"
    )
    shown.add_argument(
        "--all-layers",
        action="store_true",
        help="also list parts of blocks, and layers without windows",
    )
    shown.add_argument(
        "--audio",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="measure the effective RF on these files and draw the first (default: clips of "
        "gm_instruments, generated)",
    )
    shown.add_argument(
        "--tags", metavar="NAMES", help='measure these tags one by one: "piano,drums", or all'
    )
    shown.add_argument("--output", type=Path, metavar="DIR", help="folder for the pictures")
    shown.add_argument("--no-plots", action="store_true", help="draw and write nothing")
    shown.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_train_flags(parser.add_argument_group("model"), MODEL_FLAGS)
    parser.set_defaults(run=run)


def _width_and_centre(text: str) -> tuple[float, float]:
    """Parse "WIDTH,CENTRE"."""
    try:
        width, centre = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be two numbers, such as 2000,1000. Received: {text!r}"
        ) from None
    return width, centre


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from rfkeras.rf.trace import receptive_field

    if options.no_plots and (options.audio or options.tags or options.output):
        raise ConfigError(
            "--no-plots cannot be combined with --audio, --tags or --output, which only affect "
            "pictures."
        )
    subject = open_subject(options)
    exact = receptive_field(subject.model, layer=options.layer)
    steps = explain_rho(subject.plan(), subject.parameters) if options.all_rho else ()
    pictures, folder = None, options.output or subject.folder
    if not options.no_plots:
        pictures = draw(
            folder,
            subject,
            exact,
            layer=options.layer,
            audio=options.audio,
            tags=options.tags,
        )
    text = json.dumps(_content(subject, exact, steps, pictures), indent=2, default=str) + "\n"
    if pictures is not None:
        write_text(folder / "receptive_field.json", text)
    if options.json:
        print(text, end="")
    else:
        _print(subject, exact, steps, pictures, all_layers=options.all_layers)
    return 0


# The model


@dataclass(frozen=True)
class Subject:
    """The model whose receptive field is shown.

    Attributes:
        name: Name in titles.
        folder: Default folder of the pictures.
        model: The Keras model.
        trained: Whether its weights come from a file.
        architecture: Its name in the zoo; None for other models.
        options: Options of the architecture; empty for other models.
        frontend: Preset of its front-end; None if unknown.
        chosen_by: Flags and rule that chose rho; "" if none did.
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
        """Return the function from rho to the layers of this model.

        Raises:
            ConfigError: The architecture is unknown.
        """
        if self.architecture is None:
            raise ConfigError(
                "--all-rho needs a run folder or the name of a zoo model (see `rfkeras "
                f"models`). Received: {self.name}."
            )
        return _plan(self.architecture, self.options)

    def parameters(self, rho: int) -> int:
        """Return the number of trainable parameters of this model with another rho."""
        import zoo

        options = {**self.options, "rho": rho, "frontend": None}
        assert self.architecture is not None  # plan() was called before
        model = zoo.create_model(self.architecture, COUNTED_TAGS, **options)
        return trainable_parameters(model)


def trainable_parameters(model: Any) -> int:
    """Return the number of trainable parameters."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def open_subject(options: argparse.Namespace) -> Subject:
    """Build or load the model that the command names.

    Raises:
        ConfigError: There is no such model, a flag does not apply to it, or it cannot have the
            requested receptive field.
        CheckpointError: The file is not a model.
    """
    import zoo

    if options.model in zoo.list_models():
        return _from_zoo(options)
    path = Path(options.model)
    pretrained = options.model in zoo.list_weights() or options.model.startswith("hf://")
    if not pretrained and not path.exists() and not path.suffix and len(path.parts) == 1:
        zoo.model_info(options.model)  # raises an error that suggests the nearest name
    names = (*MODEL_FLAGS, *RHO_FLAGS, "rule")
    if not pretrained and not path.is_dir() and path.suffix not in _MODEL_SUFFIXES:
        raise ConfigError(
            "MODEL must be the name of a zoo model (see `rfkeras models`), a .keras file or a "
            f"run folder. Received: {path}{'' if path.exists() else ', which does not exist'}."
        )
    if given := [name for name in names if getattr(options, name, None) is not None]:
        raise ConfigError(
            f"{path} is a finished model, so these flags have no effect: {join_flags(given)}. "
            "Use them with the name of a zoo model (see `rfkeras models`)."
        )
    if pretrained:
        from zoo.pretrained import load_model

        folder = Path("rf-" + re.sub(r"[:/]+", "-", options.model))
        return Subject(options.model, folder, load_model(options.model), True)
    return _from_run(path) if path.is_dir() else _from_file(path)


def _from_zoo(options: argparse.Namespace) -> Subject:
    import keras

    import zoo
    from rfkeras.config.resolve import complete, merge_options

    flags = {name: getattr(options, name) for name in MODEL_FLAGS if hasattr(options, name)}
    config = merge_options({"model": options.model, **flags})
    rho = requested_rho(options, _plan(options.model, config.model_options()), config.frontend)
    chosen_by = ""
    if rho is not None:
        config = merge_options({"model": options.model, **flags, "rho": rho})
        chosen_by = f"{join_flags(_given_rho_flags(options))} ({options.rule or 'at_most'})"
    config = complete(config)
    settings = config.model_options()
    if config.initialization == "published" and "initialization" not in flags:
        settings["initialization"] = _UNTRAINED
    keras.utils.set_random_seed(0)  # the same command always shows the same effective field
    model = zoo.create_model(
        options.model,
        COUNTED_TAGS,
        frontend=config.frontend,
        input_channels=config.input_channels,
        **settings,
    )
    shown = settings.get("rho")
    name = options.model if shown is None else f"{options.model}, rho {shown}"
    suffix = str(shown) if isinstance(shown, int) else "x".join(map(str, shown or ()))
    folder = "rf-" + options.model + ("" if shown is None else f"-rho{suffix}")
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


def requested_rho(options: argparse.Namespace, plan: Plan, frontend: str) -> int | Pair | None:
    """Return the rho for the requested receptive field; None if none was requested.

    Raises:
        ConfigError: The flags contradict --rho or each other, or no rho fulfils them.
    """
    wanted: dict[str, Any] = {
        RHO_FLAGS[flag]: getattr(options, flag) for flag in _given_rho_flags(options)
    }
    if not wanted:
        if options.rule is not None:
            raise ConfigError(f"--rule needs one of {join_flags(RHO_FLAGS)}.")
        return None
    if hasattr(options, "rho"):
        raise ConfigError(
            f"--rho and {join_flags(_given_rho_flags(options))} both choose rho. Use only one."
        )
    if "bandwidth_hz" in wanted:
        wanted["bandwidth_hz"], wanted["centre_hz"] = wanted["bandwidth_hz"]
    return rho_for(**wanted, rule=options.rule or "at_most", frontend=frontend, plan=plan)


def _given_rho_flags(options: argparse.Namespace) -> list[str]:
    return [flag for flag in RHO_FLAGS if getattr(options, flag) is not None]


def _plan(architecture: str, options: Mapping[str, Any]) -> Plan:
    import zoo

    info = zoo.model_info(architecture)
    return lambda rho: info.plan_for(**{**options, "rho": rho})


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


# The pictures


@dataclass(frozen=True)
class Pictures:
    """Pictures and the measured effective field.

    Attributes:
        files: PNG files.
        effective: The effective field; None if it was not measured.
        audio: Description of the audio that it was measured on.
        note: Why it was not measured; "" if it was.
    """

    files: tuple[Path, ...]
    effective: Any = None
    audio: str = ""
    note: str = ""


def draw(
    folder: Path,
    subject: Subject,
    exact: ReceptiveField,
    *,
    layer: str | None,
    audio: Sequence[Path],
    tags: str | None,
) -> Pictures:
    """Draw the field of every layer, and the exact and effective fields over a spectrogram.

    Args:
        folder: Folder of the pictures.
        subject: The model.
        exact: Its exact receptive field.
        layer: Layer to measure; None for the map that the model averages.
        audio: Audio files to measure on; without any, clips of gm_instruments are generated.
        tags: Comma-separated names of tags to measure one by one, or "all".

    Raises:
        ConfigError: Files or tags were given, but the model cannot be measured.
        AudioError: A file cannot be read.
    """
    import numpy as np

    from rfkeras.audio.io import AudioFormat
    from rfkeras.frontend import find_frontend
    from rfkeras.rf.plots import plot_layers

    layers = folder / "layers.png"
    plot_layers(layers, exact, subject.name)
    frontend = find_frontend(subject.model)
    if frontend is None:
        if audio or tags:
            raise ConfigError(
                f"{subject.name} has no front-end, so --audio and --tags have no effect."
            )
        note = "The model has no front-end, so the effective field was not measured."
        return Pictures((layers,), note=note)
    shape = subject.model.inputs[0].shape
    wanted = AudioFormat(frontend.sample_rate_hz, 1 if len(shape) == 2 else shape[-1])
    seconds = SECONDS
    if audio:
        if exact.scale is not None and exact.time is not None:
            seconds = max(SECONDS, _MARGIN * exact.scale.ms(exact.time.size) / 1000)
        clips, names = read_clips(audio, wanted, seconds), ", ".join(map(str, audio))
    else:
        clips, names = render_clips(RENDERED_CLIPS, wanted)
    try:
        effective = _measure(subject.model, clips, layer, tags)
    except ConfigError as error:
        if audio or tags:
            raise
        return Pictures((layers,), note=f"The effective field was not measured: {error}")
    spectrogram = np.asarray(frontend.mel_db(clips[:1]))[0].mean(axis=-1)
    files = (layers, *_draw_effective(folder, subject, effective, spectrogram))
    return Pictures(files, effective, names)


def _measure(model: Any, clips: Waveform, layer: str | None, tags: str | None) -> Any:
    from rfkeras.rf.effective import effective_receptive_field
    from rfkeras.utils.progress import ProgressBar

    named: str | list[str] | None = tags
    if tags and tags != "all":
        named = [name.strip() for name in tags.split(",")]
    with ProgressBar("Measuring the effective receptive field", None, unit="passes") as bar:

        def on_progress(done: int, total: int) -> None:
            bar.update(done, total=total)

        return effective_receptive_field(
            model, clips, layer=layer, tags=named, progress=on_progress
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
    """Read the first seconds of each file, all as long as the shortest.

    Returns:
        (files, samples) or (files, samples, 2).

    Raises:
        AudioError: A file cannot be read.
    """
    from rfkeras.audio.io import AudioFile

    clips = []
    for path in paths:
        with AudioFile(str(path), audio) as file:
            clips.append(file.read(0, min(file.length, audio.samples(seconds))))
    return _stack(clips)


def render_clips(number: int, audio: AudioFormat) -> tuple[Waveform, str]:
    """Generate test clips of gm_instruments in memory.

    Returns:
        The clips, (clips, samples) or (clips, samples, 2), and a description of them.

    Raises:
        DatasetError: The sound font is missing.
    """
    import numpy as np
    import soxr

    from rfkeras.audio.io import to_channels
    from rfkeras.synthesis.clip_files import clip_key
    from rfkeras.synthesis.compose import compose
    from rfkeras.synthesis.generate import FIRST_TEST_INDEX
    from rfkeras.synthesis.render import (
        SAMPLE_RATE_HZ,
        default_sound_font,
        load_sound_font,
        render,
    )

    font = load_sound_font(default_sound_font())
    indices = range(FIRST_TEST_INDEX, FIRST_TEST_INDEX + number)
    clips = [
        soxr.resample(render(compose(0, index), font), SAMPLE_RATE_HZ, audio.sample_rate_hz)
        for index in indices
    ]
    waveforms = [
        to_channels(clip.astype(np.float32)[:, None], audio.channels) for clip in clips
    ]
    names = f"{clip_key(0, indices[0])} to {clip_key(0, indices[-1])}"
    return _stack(waveforms), f"{number} generated clips of gm_instruments ({names})"


def _stack(clips: Sequence[Waveform]) -> Waveform:
    import numpy as np

    shortest = min(len(clip) for clip in clips)
    return np.stack([clip[:shortest] for clip in clips])


# JSON and tables


def _content(
    subject: Subject,
    exact: ReceptiveField,
    steps: tuple[RhoStep, ...],
    pictures: Pictures | None,
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "model": subject.name,
        "architecture": subject.architecture,
        "options": dict(subject.options),
        "rho_chosen_by": subject.chosen_by,
        "frontend": subject.frontend,
        "parameters": trainable_parameters(subject.model),
        "receptive_field": exact.to_dict(),
    }
    if steps:
        content["rhos"] = [step.to_dict(exact.scale) for step in steps]
    if pictures is not None and pictures.effective is not None:
        content["effective"] = {"audio": pictures.audio, **pictures.effective.to_dict()}
    if pictures is not None:
        content["pictures"] = [str(path) for path in pictures.files]
    return content


def _print(
    subject: Subject,
    exact: ReceptiveField,
    steps: tuple[RhoStep, ...],
    pictures: Pictures | None,
    *,
    all_layers: bool,
) -> None:
    from rfkeras.rf.field import layer_table, shown_layers

    console = open_console(least_width=_LEAST_WIDTH, wrap=False)
    console.print(
        f"{subject.name}: {trainable_parameters(subject.model):,} trainable parameters\n"
    )
    if subject.chosen_by:
        console.print(f"rho was chosen by {subject.chosen_by}. --all-rho lists the others.\n")
    console.print(summary_table(exact).to_rich())
    if exact.pooled_by is not None:
        console.print(
            f"\nThis is what one position of the last map sees. {exact.pooled_by!r} then pools "
            "over all positions."
        )
    for note in exact.notes:
        console.print(f"Note: {note}")
    layers = list(exact.layers) if all_layers else shown_layers(exact.layers)
    console.print()
    console.print(layer_table(layers, exact.axes, exact.scale).to_rich())
    if len(layers) < len(exact.layers):
        console.print(
            f"\n{len(exact.layers) - len(layers)} rows not shown: parts of blocks, and layers "
            "that process each pixel on its own (--all-layers shows them)."
        )
    if steps:
        rho = subject.options.get("rho")
        chosen = [rho] if isinstance(rho, int) else list(rho or ())
        console.print()
        console.print(rho_table(steps, exact.scale, chosen).to_rich())
        console.print(f"\n* this model. Parameters are counted with {COUNTED_TAGS} tags.")
    _print_pictures(console, subject, pictures)


def _print_pictures(console: Any, subject: Subject, pictures: Pictures | None) -> None:
    if pictures is None:
        return
    console.print()
    effective = pictures.effective
    if effective is not None:
        frames, bands = effective.window(0.95)
        weights = "" if subject.trained else " at random weights (training changes this)"
        console.print(
            f"Effective field: 95 % of the gradient energy is within {frames:.0f} frames "
            f"along time and {bands:.0f} bands along frequency{weights}.\n"
            f"Measured on {pictures.audio}."
        )
    if pictures.note:
        console.print(pictures.note)
    for path in pictures.files:
        console.print(f"Picture: {path}")


def summary_table(exact: ReceptiveField) -> Table:
    """Return the field of one position on both axes, in pixels and physical units."""
    from rfkeras.rf.field import mel_percent

    time, frequency, scale = exact.time, exact.frequency, exact.scale
    table = Table(("", *exact.axes))
    columns = len(exact.axes)

    def add(name: str, *cells: str) -> None:
        table.add_row(name, *cells[:columns])

    units = ("pixels", "pixels") if scale is None else ("frames", "mel bands")
    add("receptive field", _pixels(time, units[0]), _pixels(frequency, units[1]))
    if scale is not None:
        add(
            "in units",
            "" if time is None else f"{scale.ms(time.size):,.0f} ms of audio",
            f"{mel_percent(frequency, scale)} of the {scale.n_mels} bands",
        )
    if scale is not None and frequency is not None:
        for centre_hz in _CENTRES_HZ:
            if centre_hz < scale.sample_rate_hz / 2:
                add("", "", _span_around(centre_hz, frequency.size, scale))
    if time is not None or frequency is not None:
        hop_ms = None if scale is None else scale.hop_ms
        add("step", _step(time, units[0], hop_ms), _step(frequency, units[1], None))
        add("first window", _first(time), _first(frequency))
    return table


def rho_table(
    steps: Sequence[RhoStep], scale: SpectrogramScale | None, chosen: Sequence[int]
) -> Table:
    """Return one row per rho, with a mark at those of this model."""
    units = () if scale is None else ("ms", "mel")
    headings = ("rho", "RF", *units, "added", "layer made wider", "parameters", "added")
    table = Table(headings, right=("RF", "ms", "mel", "rho", "added", "parameters"))
    for step in steps:
        physical: tuple[str, ...] = ()
        if scale is not None:
            share = scale.mel_share(step.frequency)
            physical = (
                "all" if step.time is None else f"{scale.ms(step.time):,.0f}",
                f"{100 * share:.0f} %",
            )
        table.add_row(
            f"{step.rho}{' *' if step.rho in chosen else '  '}",
            "all" if step.time is None else str(step.time),
            *physical,
            f"+{step.added[0]}" if step.layers else "",
            ", ".join(step.layers),
            "" if step.parameters is None else f"{step.parameters:,}",
            "" if step.added_parameters is None else f"+{step.added_parameters:,}",
        )
    return table


def _pixels(axis: AxisField | None, unit: str) -> str:
    return "unlimited" if axis is None else f"{axis.size} {unit}"


def _span_around(centre_hz: float, bands: int, scale: SpectrogramScale) -> str:
    low, high = scale.hz_span(*scale.bands_around(centre_hz, bands))
    return f"around {centre_hz:,.0f} Hz: {low:,.0f} to {high:,.0f} Hz"


def _step(axis: AxisField | None, unit: str, hop_ms: float | None) -> str:
    if axis is None:
        return ""
    ms = "" if hop_ms is None else f" ({float(axis.jump) * hop_ms:,.0f} ms)"
    return f"{axis.jump} {unit}{ms}"


def _first(axis: AxisField | None) -> str:
    if axis is None:
        return ""
    first, stop = axis.window(0)
    return f"{first} to {stop - 1}"
