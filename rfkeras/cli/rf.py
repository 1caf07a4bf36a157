"""`rfkeras rf`: the receptive field of a model, in pixels, milliseconds and Hz."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from rfkeras.cli.main import COMMANDS, add_train_flags
from rfkeras.cli.rf_model import (
    COUNTED_TAGS,
    MODEL_FLAGS,
    Subject,
    open_subject,
    trainable_parameters,
)
from rfkeras.errors import ConfigError
from rfkeras.frontend.presets import SpectrogramScale
from rfkeras.rf.axis import AxisField
from rfkeras.rf.field import LayerField, ReceptiveField
from rfkeras.rf.rho import RULES, RhoStep, explain_rho, mel_share
from rfkeras.rf.trace import receptive_field
from rfkeras.utils.files import write_text

if TYPE_CHECKING:
    from rfkeras.cli.rf_model import Pictures
    from rfkeras.rf.field import ReceptiveField

_NARROWEST = 100


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "rf",
        help=COMMANDS["rf"],
        description=(
            "Show what one position of a model sees: exactly, layer by layer, and, measured "
            "by gradients over audio, effectively. MODEL is a name of the zoo, a .keras file "
            "or a run folder."
        ),
        epilog=(
            "Pictures and receptive_field.json go to the folder of --output (default: "
            "rf-MODEL-rhoRHO; DIR/receptive_field of a run; FILE-rf beside a .keras file). "
            "A network of the zoo has random weights here."
        ),
    )
    parser.add_argument("model", metavar="MODEL", help="name, .keras file or run folder")
    _add_wishes(parser.add_argument_group("choose rho by the receptive field"))
    shown = parser.add_argument_group("what is shown")
    shown.add_argument(
        "--all-rho", action="store_true", help="also what each rho sees, and what it adds"
    )
    shown.add_argument(
        "--layer", metavar="NAME", help="layer whose output is meant (default: the last map)"
    )
    shown.add_argument(
        "--all-layers",
        action="store_true",
        help="list parts of blocks and layers without windows too",
    )
    shown.add_argument(
        "--audio",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="measure the effective field on these; the first is drawn (default: clips of "
        "gm_instruments, rendered)",
    )
    shown.add_argument(
        "--tags", metavar="NAMES", help='measure tags each by itself: "piano,drums", or all'
    )
    shown.add_argument("--output", type=Path, metavar="DIR", help="where pictures go")
    shown.add_argument("--no-plots", action="store_true", help="draw and write nothing")
    shown.add_argument("--json", action="store_true", help="print JSON in place of tables")
    add_train_flags(parser.add_argument_group("model of the zoo"), MODEL_FLAGS)
    parser.set_defaults(run=run)


def _add_wishes(group: Any) -> None:
    group.add_argument("--for-rf-time", type=float, metavar="FRAMES", help="RF along time")
    group.add_argument("--for-ms", type=float, metavar="MS", help="RF along time, in audio")
    group.add_argument("--for-bands", type=float, metavar="BANDS", help="RF along frequency")
    group.add_argument(
        "--for-hz",
        type=_width_and_centre,
        metavar="WIDTH,CENTRE",
        help="RF along frequency: so many Hz around that frequency",
    )
    group.add_argument(
        "--rule", choices=RULES, help="how near to come to the wish (default: at_most)"
    )


def _width_and_centre(text: str) -> tuple[float, float]:
    """Two numbers with a comma between."""
    try:
        width, centre = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"it takes two numbers, such as 2000,1000. Received: {text!r}"
        ) from None
    return width, centre


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    if options.no_plots and (options.audio or options.tags or options.output):
        raise ConfigError("--no-plots leaves nothing to do for --audio, --tags and --output.")
    subject = open_subject(options)
    field = receptive_field(subject.model, layer=options.layer)
    steps = explain_rho(subject.plan(), subject.parameters) if options.all_rho else ()
    pictures, folder = None, options.output or subject.folder
    if not options.no_plots:
        from rfkeras.cli.rf_model import draw

        pictures = draw(
            folder,
            subject,
            field,
            layer=options.layer,
            audio=options.audio,
            tags=options.tags,
        )
    text = json.dumps(_content(subject, field, steps, pictures), indent=2, default=str) + "\n"
    if pictures is not None:
        write_text(folder / "receptive_field.json", text)
    if options.json:
        print(text, end="")
    else:
        _print(subject, field, steps, pictures, all_layers=options.all_layers)
    return 0


def _content(
    subject: Subject,
    field: ReceptiveField,
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
        "receptive_field": field.to_dict(),
    }
    if steps:
        content["rhos"] = [step.to_dict(field.scale) for step in steps]
    if pictures is not None and pictures.effective is not None:
        content["effective"] = {"audio": pictures.audio, **pictures.effective.to_dict()}
    if pictures is not None:
        content["pictures"] = [str(path) for path in pictures.files]
    return content


def _print(
    subject: Subject,
    field: ReceptiveField,
    steps: tuple[RhoStep, ...],
    pictures: Pictures | None,
    *,
    all_layers: bool,
) -> None:
    from rich.console import Console

    from rfkeras.rf.field import shown_layers

    console = Console(highlight=False, markup=False, soft_wrap=True)
    if console.width < _NARROWEST:
        console.width = _NARROWEST
    console.print(
        f"{subject.name}: {trainable_parameters(subject.model):,} parameters to train\n"
    )
    if subject.chosen_by:
        console.print(f"rho was chosen by {subject.chosen_by}; --all-rho shows the others.\n")
    console.print(summary_table(field))
    if field.pooled_by is not None:
        console.print(
            f"\nThis is what one position of the last map sees; {field.pooled_by!r} then pools "
            "over all positions."
        )
    for note in field.notes:
        console.print(f"Note: {note}")
    layers = list(field.layers) if all_layers else shown_layers(field.layers)
    console.print()
    console.print(layer_table(layers, field.axes, field.scale))
    if len(layers) < len(field.layers):
        console.print(
            f"\n{len(field.layers) - len(layers)} rows are left out: parts of blocks, and "
            "layers that work on each pixel by itself (--all-layers)."
        )
    if steps:
        rho = subject.options.get("rho")
        chosen = [rho] if isinstance(rho, int) else list(rho or ())
        console.print()
        console.print(rho_table(steps, field.scale, chosen))
        console.print(f"\n* this model. Parameters: with {COUNTED_TAGS} tags.")
    _print_pictures(console, subject, pictures)


def _print_pictures(console: Any, subject: Subject, pictures: Pictures | None) -> None:
    if pictures is None:
        return
    console.print()
    effective = pictures.effective
    if effective is not None:
        frames, bands = effective.window(0.95)
        console.print(
            f"Effective field: 95 % of the gradient's energy lies within {frames:.0f} frames "
            f"along time and {bands:.0f} bands along frequency"
            f"{'.' if subject.trained else ', at random weights: a trained network differs.'}\n"
            f"Measured on {pictures.audio}."
        )
    if pictures.note:
        console.print(pictures.note)
    for path in pictures.files:
        console.print(f"Picture: {path}")


_PLACES_HZ = (250.0, 1000.0, 4000.0)  # where the height of the field is told in Hz


def summary_table(field: ReceptiveField) -> Table:
    """What one position sees, in pixels and in physical units, on both axes."""
    time, frequency, scale = field.time, field.frequency, field.scale
    table = _table("", *field.axes)
    columns = len(field.axes)

    def add(name: str, *cells: str) -> None:
        table.add_row(name, *cells[:columns])

    units = ("pixels", "pixels") if scale is None else ("frames", "mel bands")
    add("receptive field", _pixels(time, units[0]), _pixels(frequency, units[1]))
    if scale is not None:
        add(
            "in units",
            "" if time is None else f"{scale.ms(time.size):,.0f} ms of audio",
            f"{_percent(frequency, scale)} of the {scale.n_mels} bands",
        )
    if scale is not None and frequency is not None:
        for centre_hz in _PLACES_HZ:
            if centre_hz < scale.sample_rate_hz / 2:
                add("", "", _span_around(centre_hz, frequency.size, scale))
    if time is not None or frequency is not None:
        hop_ms = None if scale is None else scale.hop_ms
        add("step", _step(time, units[0], hop_ms), _step(frequency, units[1], None))
        add("first window", _first(time), _first(frequency))
    return table


def layer_table(
    layers: Sequence[LayerField], axes: Sequence[str], scale: SpectrogramScale | None
) -> Table:
    """A row for each layer: size, step and first pixel of its field, time x frequency."""
    units = () if scale is None else ("ms", "mel")
    table = _table("layer", "kind", "RF", *units, "step", "first", "note")
    for row in layers:
        fields = (row.time, row.frequency)[: len(axes)]
        physical: tuple[str, ...] = ()
        if scale is not None:
            physical = (_ms(row.time, scale), _percent(row.frequency, scale))
        table.add_row(
            row.name,
            row.kind,
            _joined("all" if f is None else str(f.size) for f in fields),
            *(physical if row.in_pixels else [""] * len(physical)),
            _joined("-" if f is None else str(f.jump) for f in fields),
            _joined("-" if f is None else str(f.start) for f in fields),
            row.note,
        )
    return table


def rho_table(
    steps: Sequence[RhoStep], scale: SpectrogramScale | None, chosen: Sequence[int]
) -> Table:
    """A row for each rho; those of the model at hand are marked."""
    units = () if scale is None else ("ms", "mel")
    table = _table("rho", "RF", *units, "added", "layer made wider", "parameters", "added")
    for step in steps:
        physical: tuple[str, ...] = ()
        if scale is not None:
            share = mel_share(step.frequency, scale)
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


def _table(*headings: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in headings:
        right = heading in ("RF", "ms", "mel", "step", "first", "rho", "added", "parameters")
        table.add_column(
            heading, justify="right" if right else "left", no_wrap=right, overflow="fold"
        )
    return table


def _joined(cells: Iterable[str]) -> str:
    """One cell of both axes, "135 x 87", or of what they have in common."""
    different = list(cells)
    return different[0] if len(set(different)) == 1 else " x ".join(different)


def _pixels(field: AxisField | None, unit: str) -> str:
    return "without limit" if field is None else f"{field.size} {unit}"


def _ms(field: AxisField | None, scale: SpectrogramScale) -> str:
    return "all" if field is None else f"{scale.ms(field.size):,.0f}"


def _percent(field: AxisField | None, scale: SpectrogramScale) -> str:
    return f"{100 * mel_share(None if field is None else field.size, scale):.0f} %"


def _span_around(centre_hz: float, bands: int, scale: SpectrogramScale) -> str:
    low, high = scale.hz_span(*scale.bands_around(centre_hz, bands))
    return f"around {centre_hz:,.0f} Hz: {low:,.0f} to {high:,.0f} Hz"


def _step(field: AxisField | None, unit: str, hop_ms: float | None) -> str:
    if field is None:
        return ""
    ms = "" if hop_ms is None else f" ({float(field.jump) * hop_ms:,.0f} ms)"
    return f"{field.jump} {unit}{ms}"


def _first(field: AxisField | None) -> str:
    if field is None:
        return ""
    first, stop = field.window(0)
    return f"{first} to {stop - 1}"
