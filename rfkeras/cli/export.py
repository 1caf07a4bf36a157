"""`rfkeras export`: write a model as TFLite, ONNX, SavedModel or a page that tags."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfkeras.cli.main import COMMANDS
from rfkeras.cli.parser import add_model_argument
from rfkeras.errors import ConfigError
from rfkeras.utils.text import count, first_few

if TYPE_CHECKING:
    from rfkeras.export.single_file import Excerpts, Exported

FORMATS = ("tflite", "onnx", "savedmodel", "web")
PRECISIONS = ("float32", "float16", "int8")
THREADS = 2
TIMED_SECONDS = 10
FEWEST_EXCERPTS = 16


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "export",
        help=COMMANDS["export"],
        description=(
            "Write a model in another format and compare its outputs with the model, on real "
            "audio if available. If they differ by more than the precision allows, the export "
            "fails and the file is removed. --to web writes a page that tags audio files in a "
            "browser, without a server."
        ),
    )
    add_model_argument(parser, required=True, deprecated=["model"])
    parser.add_argument("--to", required=True, choices=FORMATS, help="output format")
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="PATH",
        help="file to write (savedmodel, web: folder)",
    )
    parser.add_argument(
        "--precision",
        default="float32",
        choices=PRECISIONS,
        help="float16: half-size weights; int8: weights and activations in 8 bits (default: "
        "float32)",
    )
    parser.add_argument(
        "--calibrate",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="audio files or folders for calibrating int8 and for the comparison; use audio "
        "like that in your application (default: gm_instruments, if it was generated)",
    )
    parser.add_argument(
        "--max-difference",
        type=float,
        metavar="X",
        help="accept a file whose scores of clips differ from the model's by up to this "
        "(default: float32 1e-5, float16 0.005, int8 0.1, with frames and the order of tags "
        "checked too)",
    )
    parser.add_argument(
        "--without-frontend",
        action="store_true",
        help="take spectrograms as input instead of audio",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing file (web: page)"
    )
    parser.add_argument(
        "--time",
        action="store_true",
        help=f"also measure the time for {TIMED_SECONDS} s of audio with {THREADS} threads, "
        "compared with Keras",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    _check(options)
    if options.to == "web":
        return _web(options)
    from rfkeras.export.single_file import quiet

    if options.time:
        _limit_threads()
    with quiet():
        from zoo.pretrained import load_model

        model = load_model(options.model)
    if options.to == "savedmodel":
        return _savedmodel(options, model)
    excerpts = _excerpts(options, model)
    exported, milliseconds = _convert(options, model, excerpts)
    _print(exported, excerpts, milliseconds, options.max_difference)
    return 0


def _check(options: argparse.Namespace) -> None:
    path = options.output
    if options.to in ("savedmodel", "web"):
        for flag, is_set in (
            ("--precision", options.precision != "float32"),
            ("--without-frontend", options.without_frontend),
            ("--max-difference", options.max_difference is not None),
            ("--time", options.time),
        ):
            if is_set:
                raise ConfigError(f"{flag} needs --to tflite or --to onnx.")
        if options.to == "savedmodel" and options.overwrite:
            raise ConfigError("--overwrite needs --to tflite, --to onnx or --to web.")
        if options.to == "web" and options.calibrate:
            raise ConfigError("--calibrate needs --to tflite, --to onnx or --to savedmodel.")
    elif path.is_dir():
        raise ConfigError(f"--output must be a file. Received: {path}, which is a folder.")
    elif path.exists() and not options.overwrite:
        raise ConfigError(f"{path} exists. Use another --output, or --overwrite.")


def _web(options: argparse.Namespace) -> int:
    from rfkeras.inference.web_page import write_web_page
    from rfkeras.utils.text import printable

    size = write_web_page(options.model, options.output, overwrite=options.overwrite)
    print(f"Page: {printable(options.output / 'index.html')} ({size / 1e6:.1f} MB)")
    return 0


def _limit_threads() -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)


def _excerpts(options: argparse.Namespace, model: Any) -> Excerpts | None:
    """Return audio for calibration and comparison; None if the model takes no audio."""
    from rfkeras.audio.io import AudioFormat
    from rfkeras.export import single_file
    from rfkeras.frontend import find_frontend

    frontend = find_frontend(model)
    if frontend is None:
        if options.calibrate or options.time or options.precision == "int8":
            raise ConfigError(
                f"Model {model.name!r} has no front-end and takes no audio, which --calibrate, "
                "--time and --precision int8 need. For int8, call rfkeras.export.tflite or "
                "rfkeras.export.onnx with batches of spectrograms as `calibration`."
            )
        return None
    shape = model.inputs[0].shape
    audio = AudioFormat(frontend.sample_rate_hz, 1 if len(shape) == 2 else shape[2])
    sources = options.calibrate
    if not sources and (cached := single_file.generated_clips()) is not None:
        sources = [cached]
    if sources:
        excerpts = single_file.read_excerpts(sources, audio)
        if excerpts.unreadable:
            files = count(len(excerpts.unreadable), "audio file")
            text = f"{files} could not be used: {first_few(excerpts.unreadable)}"
            print(f"Note: {text}", file=sys.stderr)
        return excerpts
    if options.precision == "int8":
        raise ConfigError(
            "--precision int8 needs audio for calibration. Give --calibrate FOLDER with at "
            f"least {FEWEST_EXCERPTS} files like those in your application. (The default, "
            "gm_instruments, has not been generated yet; `rfkeras train` does that.)"
        )
    return single_file.synthetic_excerpts(audio)


def _convert(
    options: argparse.Namespace, model: Any, excerpts: Excerpts | None
) -> tuple[Exported, dict[str, float]]:
    from rfkeras.export import onnx, tflite
    from rfkeras.export.single_file import trial_batches

    calibration = trial = None
    if excerpts is not None:
        calibrating = excerpts
        if options.precision == "int8":
            calibrating, excerpts = _halves(excerpts)
        # Batches of one, including near silence, which is far from anything in music.
        calibration = [batch for batch in trial_batches(calibrating) if len(batch) == 1]
        trial = trial_batches(excerpts)
        if options.without_frontend:
            calibration, trial = (_spectrograms(model, each) for each in (calibration, trial))
    write = tflite if options.to == "tflite" else onnx
    exported = write(
        model,
        options.output,
        precision=options.precision,
        calibration=calibration,
        trial=trial,
        frontend=not options.without_frontend,
        max_difference=options.max_difference,
    )
    if not options.time or excerpts is None:
        return exported, {}
    return exported, _time(options, model, excerpts)


def _halves(excerpts: Excerpts) -> tuple[Excerpts, Excerpts]:
    """Split excerpts into halves, for calibration and for comparison."""
    count = len(excerpts.waveforms)
    if count < 2:
        raise ConfigError(
            "--precision int8 needs at least two readable audio files, one for calibration and "
            f"one for comparison. Received: {count}."
        )
    if count < FEWEST_EXCERPTS:
        print(
            f"Note: Calibrating with only {(count + 1) // 2} of {count} excerpts. Give at "
            f"least {FEWEST_EXCERPTS} files like those in your application for better ranges.",
            file=sys.stderr,
        )
    return (
        replace(excerpts, waveforms=excerpts.waveforms[::2]),
        replace(excerpts, waveforms=excerpts.waveforms[1::2]),
    )


def _spectrograms(model: Any, batches: Any) -> Any:
    import numpy as np

    from rfkeras.frontend import find_frontend

    frontend: Any = find_frontend(model)
    return [np.asarray(frontend(batch)) for batch in batches]


def _time(options: argparse.Namespace, model: Any, excerpts: Excerpts) -> dict[str, float]:
    import numpy as np

    from rfkeras.export.onnx import OnnxRunner
    from rfkeras.export.portable import PortableModel
    from rfkeras.export.single_file import time_alternately
    from rfkeras.export.tflite import TFLiteRunner

    waveform = excerpts.waveforms[0]
    samples = excerpts.audio.samples(TIMED_SECONDS)
    batch = np.resize(waveform, (1, samples, *waveform.shape[1:]))  # repeated if shorter
    if options.without_frontend:
        (batch,) = _spectrograms(model, [batch])
    portable = PortableModel(model, frontend=not options.without_frontend)
    runner = (TFLiteRunner if options.to == "tflite" else OnnxRunner)(
        options.output.read_bytes(), THREADS
    )
    return time_alternately(
        {"Keras": lambda: portable.expect(batch), options.to: lambda: runner(batch)}
    )


def _print(
    exported: Exported,
    excerpts: Excerpts | None,
    milliseconds: dict[str, float],
    max_difference: float | None,
) -> None:
    from rfkeras.export.verify import FRAME_TOLERANCES, TOLERANCES

    agreement, precision = exported.agreement, exported.precision
    allowed = TOLERANCES[precision] if max_difference is None else max_difference
    frames = f" ({FRAME_TOLERANCES[precision]:.0e})" if max_difference is None else ""
    source = "noise as spectrograms" if excerpts is None else excerpts.source
    if precision == "int8":
        source = f"half of {source} (the other half calibrated)"
    rows = {
        "file": str(exported.path),
        "size": f"{exported.size / 1e6:.2f} MB, {precision}",
        "operations": ", ".join(sorted(exported.operations)),
        "compared on": f"{agreement.n_batches} batches made from {source}",
        "largest difference": (
            f"{agreement.score:.1e} of a clip's score ({allowed:.0e} allowed), "
            f"{agreement.frame_score:.1e} of a frame's{frames}"
        ),
        "order of the tags": f"correlation {agreement.ranking:.3f}, mean over clips",
    }
    if milliseconds:
        keras_ms, file_ms = milliseconds.values()
        rows[f"time for {TIMED_SECONDS} s"] = (
            f"{file_ms:.1f} ms, {file_ms / keras_ms:.2f} times Keras' {keras_ms:.1f} ms "
            f"({THREADS} threads, one clip, median)"
        )
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


def _savedmodel(options: argparse.Namespace, model: Any) -> int:
    from rfkeras.export import saved_model, verify
    from rfkeras.export.portable import PortableModel
    from rfkeras.export.saved_model import NO_WARMUP
    from rfkeras.export.single_file import synthetic_batches, trial_batches

    excerpts = _excerpts(options, model)
    path = saved_model(model, options.output, card=_card_of(options.model))
    trial = (
        synthetic_batches(PortableModel(model))
        if excerpts is None
        else trial_batches(excerpts)[-4:]
    )
    try:
        difference = verify(path, model, trial)
    except BaseException:
        shutil.rmtree(path)  # so that nobody serves it
        raise
    source = "noise as spectrograms" if excerpts is None else excerpts.source
    print(f"SavedModel: {path}")
    print(
        f"  scores differ from the model's by at most {difference:.1e}, checked in a clean "
        f"process ({source})"
    )
    if find_spec("tensorflow_serving") is None:
        print(f"Note: {NO_WARMUP}", file=sys.stderr)
    return 0


def _card_of(model: str) -> str | None:
    """Return the card of pretrained weights; None for other models."""
    from zoo.pretrained import find_weights

    try:
        return find_weights(model).card_text()
    except ConfigError:
        return None
