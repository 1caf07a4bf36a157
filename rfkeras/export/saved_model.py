"""Export models as SavedModels: signatures, assets and warm-up requests."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import soundfile
import tensorflow as tf
from keras import ops

from rfkeras.audio.io import MAX_SAMPLE, AudioFormat
from rfkeras.errors import ConfigError, RFKerasError
from rfkeras.export.audio_graph import check_wav, decode_wav
from rfkeras.folding import computes_in_float32, fold_if_possible
from rfkeras.frontend import find_frontend
from rfkeras.inference.chunks import FrameTimes
from rfkeras.inference.frames import frame_times
from rfkeras.layers import ClipLogits, find_head, model_outputs
from rfkeras.rf import shortest_input
from rfkeras.utils.files import PARTIAL, naming_write_errors, write_text
from rfkeras.utils.model_graph import inlined, layer_tensor, only_input, only_output
from rfkeras.utils.text import count, shorten
from zoo.tagger import (
    classifier_input,
    label_names,
    model_head,
    pooled_outputs,
    tag_thresholds,
    top_head,
)

SERVE, FRAMES, EMBED, AUDIO_BYTES = "serving_default", "frames", "embed", "audio_bytes"
AUDIO_INPUT = "audio"
LARGEST_BYTES = 2**25  # of weights stored as constants
LABELS_FILE = "labels.txt"
CARD_FILE = "model.json"
TEXT_FILE = "model_card.md"
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
NO_WARMUP = (
    "The SavedModel contains no warm-up requests for TensorFlow Serving. They need "
    "tensorflow-serving-api: pip install 'rfkeras[serving]'."
)
MAX_REQUESTS = 1000  # TensorFlow Serving reads no more

# (rows, seconds) of silence. Batching joins requests, so several rows are included.
SIZES = ((1, 1.0), (1, 10.0), (4, 1.0))
_ENCODED_SECONDS = 0.5
_REASON_LENGTH = 300  # of another library's message
_log = logging.getLogger(__name__)


class ExportError(RFKerasError):
    """A model cannot be exported, or an export does not load or differs from its source."""


def saved_model(
    model: keras.Model,
    path: str | Path,
    labels: Sequence[str] | None = None,
    *,
    card: str | None = None,
    warmup: bool = True,
) -> Path:
    """Write a model's inference graph as a SavedModel.

    The graph contains only standard TensorFlow operations, without optimiser state and Python
    code. A float32 model is folded (`rfkeras.fold`), and its weights become constants of the
    graph, which TensorFlow optimises once for the processor. A model with reduced precision, or
    with more than 32 MiB of weights, keeps its weights as variables. The signatures:

    - `serving_default`: `waveform`, float32 (batch, samples) for mono and (batch, samples, 2)
      for stereo. Batch size and length can vary; the sample rate is in `assets/model.json`.
      Audio that is too short for the network is padded with zeros. A model without a front-end
      takes `spectrogram` instead. Returns `scores`, float32 (batch, classes): the probability
      of each tag in `assets/labels.txt`. This is the sigmoid of its logit, or the softmax if
      classes are mutually exclusive; for a model that ends in a sigmoid or softmax, its own
      output. A model with the head "frames" returns (batch, frames,
      classes).
    - `frames`: the same input. Returns `frame_scores`, (batch, frames, classes), and for models
      with a front-end `frame_times_s`, (batch, frames): the centre of each frame's window in
      seconds, equal in every row.
    - `embed`: the same input. Returns `embedding`, (batch, features), and `frame_embeddings`,
      (batch, frames, features).
    - `audio_bytes`: `audio`, string (batch,): 16-bit PCM WAV files with any length, number of
      channels and sample rate from 8 to 192 kHz. They are mixed and resampled in the graph,
      each file separately. Returns `scores`, (batch, classes).

    Empty batches, NaN or infinite samples and unreadable audio raise InvalidArgument errors
    that name the clips. A model without a front-end
    has no `audio_bytes`, and a model without a top-level `ClipLogits` layer has only
    `serving_default`. The reasons are in `assets/model.json` under "signatures_missing". The
    same file has the task, the threshold of each tag ("thresholds", null if only the highest
    score decides), and the times of frames.

    Args:
        model: A zoo model, or one with the same input and a `ClipLogits` output. A model
            without such a head is treated as multi-label.
        path: Folder to create. TensorFlow Serving requires a version number as its name.
        labels: Tag of each output; defaults to the names in the model.
        card: Text about the model in Markdown, saved as `assets/model_card.md`.
        warmup: Include requests that TensorFlow Serving runs when it starts.

    Returns:
        The folder.

    Raises:
        ConfigError: The folder exists, the numbers of labels and outputs differ, or the model
            cannot be exported (see `check_exportable`).
        ExportError: A layer cannot be traced.
    """
    path = Path(path)
    if path.exists():
        raise ConfigError(
            f"{path} already exists. Remove it first, or choose another folder, such as "
            f"{path.parent / '2'}: TensorFlow Serving uses the highest number."
        )
    check_exportable(model)
    names = checked_labels(model, labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    with explaining(model, "SavedModel"):
        signatures = Signatures(model, model_head(model))
    described = describe(model, signatures)
    with (
        naming_write_errors(path),
        tempfile.TemporaryDirectory(PARTIAL, ".export-", path.parent) as scratch,
    ):
        assets = write_assets(Path(scratch), names, described, card)
        module = _Inference(signatures.variables, assets)
        aside = Path(scratch) / "saved_model"
        tf.saved_model.save(module, str(aside), signatures=signatures.functions)
        if warmup:
            write_warmup(aside, described)
        aside.replace(path)  # on the same file system, so no incomplete folder is visible
    return path


def check_exportable(model: keras.Model) -> None:
    """Check that a model has the inputs and outputs that an export can have.

    Raises:
        ConfigError: It has no graph of layers, several inputs or outputs, an input that is not
            float waveforms or spectrograms, or an output without a score per class.
    """
    source, output = only_input(model), only_output(model)
    sparse = getattr(source, "sparse", False) or getattr(source, "ragged", False)
    if sparse or not str(source.dtype).startswith(("float", "bfloat")):
        kind = "sparse or ragged" if sparse else source.dtype
        raise ConfigError(
            f"Model {model.name!r} has a {kind} input {source.name!r}; an export takes float "
            "waveforms in [-1, 1] or spectrograms. Put a model with a float input around it, "
            "or write it with Keras: model.export(PATH)."
        )
    if len(source.shape) < 2:
        raise ConfigError(
            f"Model {model.name!r} has an input of shape {tuple(source.shape)}; an export "
            "needs (batch, samples), (batch, samples, channels) or spectrograms."
        )
    head = find_head(model)
    ranks = (2, 3) if head is not None and head.frames else (2,)
    if len(output.shape) not in ranks or output.shape[-1] is None:
        raise ConfigError(
            f"Model {model.name!r} has an output of shape {tuple(output.shape)}; an export "
            "needs (batch, classes). End the model with rfkeras.layers.ClipLogits (frames=True "
            "for scores of frames) or a pooling layer."
        )


@contextlib.contextmanager
def explaining(model: keras.Model, target: str) -> Iterator[None]:
    """Turn exceptions of layers that cannot be traced into an `ExportError` of one sentence.

    Args:
        model: The model that is exported.
        target: Name of the format.
    """
    try:
        yield
    except RFKerasError:
        raise
    except Exception as error:
        named = (
            layer.name
            for layer in reversed(model._flatten_layers(include_self=False))
            if layer.name and re.search(rf"\b{re.escape(layer.name)}\b", str(error))
        )
        layer = next(named, None)
        where = "" if layer is None else f", because of layer {layer!r}"
        reason = shorten(" ".join(str(error).split()) or type(error).__name__, _REASON_LENGTH)
        raise ExportError(
            f"Model {model.name!r} cannot be exported as {target}{where}: {reason}"
        ) from error


def checked_labels(model: keras.Model, labels: Sequence[str] | None) -> tuple[str, ...]:
    """Return the tag of each output, by default the names in the model.

    Raises:
        ConfigError: The numbers of labels and outputs differ.
    """
    names = label_names(model) if labels is None else tuple(labels)
    outputs = only_output(model).shape[-1]
    if len(names) != outputs:
        raise ConfigError(
            f"The model has {count(outputs, 'output')} but {count(len(names), 'label')}."
        )
    return names


class _Inference(tf.Module):
    """The variables and assets that are saved with the signatures.

    The Keras model itself is not an attribute, so its layers and optimiser are not tracked and
    saved.
    """

    def __init__(self, variables: Sequence[keras.Variable], assets: Sequence[Path]):
        super().__init__(name="rfkeras")
        # TensorFlow tracks what the graphs read; this list keeps it reachable.
        self.model_variables: list[Any] = [variable.value for variable in variables]
        self.assets = [tf.saved_model.Asset(str(path)) for path in assets]


class Signatures:
    """The signatures that a model supports, each a concrete function.

    Args:
        model: Functional, with one input and one output.
        head: Head that turns its logits into scores.

    Attributes:
        functions: By name. `serving_default` always exists. `frames` and `embed` need a
            `ClipLogits` layer at the end, preceded by the convolution or dense layer
            that computes the logits; `audio_bytes` also needs a front-end and an input of any
            length.
        missing: Reasons for missing signatures, by name.
        embedding_size: Features of an embedding; None without `embed`.
        frame_times: Times of the frames; None if unknown in seconds.
        variables: Variables that the functions read; empty if all weights are constants.
    """

    def __init__(self, model: keras.Model, head: ClipLogits):
        self.functions: dict[str, Any] = {}
        self.missing: dict[str, str] = {}
        self.embedding_size: int | None = None
        self.frame_times: FrameTimes | None = None
        model = inlined(model)
        source = only_input(model)
        self._head = head
        self._final = model_outputs(model)
        self._n_classes = only_output(model).shape[-1]
        inference = for_inference(model)
        outputs = {"logits": only_output(inference)}
        own: ClipLogits | None = None
        try:
            own, features = top_head(inference), classifier_input(inference)
        except ConfigError as error:
            self.missing = dict.fromkeys((FRAMES, EMBED, AUDIO_BYTES), str(error))
        else:
            self._pooled = pooled_outputs(model)
            outputs |= {"map": layer_tensor(inference, own, "input"), "features": features}
            self.embedding_size = int(features.shape[-1])
            self.frame_times = frame_times_or_none(model)
        # Use a list: a dict with one output would be returned as that output.
        network = keras.Model(inference.inputs[0], list(outputs.values()), name="inference")
        constant = uses_constants(inference)
        self.variables = [] if constant else inference.variables

        least = least_samples(model)

        def compute(batch: Any) -> dict[str, Any]:
            batch = padded(batch, least)
            with weights_of(inference, constant):
                values = network(batch, training=False)
                values = values if isinstance(values, list) else [values]
                named = dict(zip(outputs, values, strict=True))
                if own is not None:
                    logits, log_weights = own.frame_logits(named.pop("map"))
                    named |= {"frame_logits": logits, "log_weights": log_weights}
                return named

        spec = tf.TensorSpec(source.shape, tf.float32, name=source.name)
        self._compute = tf.function(compute, input_signature=[spec], autograph=False)
        self._add(SERVE, spec, self._serve)
        if self.missing:
            return
        self._add(FRAMES, spec, self._frames)
        self._add(EMBED, spec, self._embed)
        frontend = find_frontend(model)
        if frontend is None or spec.shape[1] is not None:
            self.missing[AUDIO_BYTES] = (
                f"The model's input is {spec.shape}, and no waveform of any length."
            )
            return
        channels = 1 if spec.shape.rank == 2 else int(spec.shape[2])
        self._audio = AudioFormat(frontend.sample_rate_hz, channels)
        encoded = tf.TensorSpec((None,), tf.string, name=AUDIO_INPUT)
        self._add(AUDIO_BYTES, encoded, self._audio_bytes)

    def _add(self, name: str, spec: Any, function: Callable[[Any], dict[str, Any]]) -> None:
        def checked(batch: Any) -> dict[str, Any]:
            not_empty = tf.debugging.assert_positive(
                tf.shape(batch)[0], message=f"Empty batch: {spec.name} has no rows."
            )
            checks = [not_empty]
            if spec.dtype != tf.string:
                checks += _value_checks(batch, spec.name)
            with tf.control_dependencies(checks):
                return function(tf.identity(batch))

        traced = tf.function(checked, input_signature=[spec], autograph=False)
        # A concrete function, so that saving does not trace it again.
        self.functions[name] = traced.get_concrete_function()

    def _serve(self, batch: Any) -> dict[str, Any]:
        return {"scores": self._final.scores(self._compute(batch)["logits"])}

    def _frames(self, batch: Any) -> dict[str, Any]:
        logits = self._compute(batch)["frame_logits"]
        outputs = {"frame_scores": self._pooled.scores(logits)}
        if self.frame_times is not None:
            rows, n_frames = tf.shape(logits)[0], tf.shape(logits)[1]
            milliseconds = self.frame_times.first_ms + self.frame_times.stride_ms * tf.cast(
                tf.range(n_frames), tf.float32
            )
            # Repeat the times for each row: servers split and join batches by rows.
            outputs["frame_times_s"] = tf.tile(milliseconds[None] / 1000, [rows, 1])
        return outputs

    def _embed(self, batch: Any) -> dict[str, Any]:
        features = ops.cast(self._compute(batch)["features"], "float32")
        frame_embeddings = ops.mean(features, axis=2)
        return {
            "embedding": ops.mean(frame_embeddings, axis=1),
            "frame_embeddings": frame_embeddings,
        }

    def _audio_bytes(self, audio: Any) -> dict[str, Any]:
        def score(content: Any) -> Any:
            computed = self._compute(decode_wav(content, self._audio)[None])
            if self._head.frames:
                logits = self._head.clip_logits(
                    computed["frame_logits"], computed["log_weights"]
                )
                return self._pooled.scores(logits)[0]
            return self._final.scores(computed["logits"])[0]

        # One file at a time: memory is that of the longest file, and no padding is needed.
        scores = tf.map_fn(
            score,
            check_wav(audio),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )
        return {"scores": tf.ensure_shape(scores, (None, self._n_classes))}


def _value_checks(batch: Any, name: str) -> list[Any]:
    """Return assertions on a float batch: it has values, all finite, and samples of audio."""
    axes = tuple(range(1, batch.shape.rank))
    finite = tf.reduce_all(tf.math.is_finite(batch), axis=axes)
    checks = [_assert_rows(finite, f"NaN or infinite values in {name}", "Send finite samples.")]
    if len(axes) < 3:  # not spectrograms
        audible = tf.reduce_all(~(tf.abs(batch) > MAX_SAMPLE), axis=axes)
        what = f"Samples too large to be audio in {name}"
        checks.append(_assert_rows(audible, what, "Send samples in [-1, 1]."))
        checks.append(
            tf.debugging.assert_positive(
                tf.shape(batch)[1], message=f"{name} contains no samples."
            )
        )
    return checks


def _assert_rows(rows: Any, what: str, advice: str) -> Any:
    """Return an assertion that all rows are true; its message lists the others."""
    wrong = tf.strings.reduce_join(tf.strings.as_string(tf.where(~rows)[:, 0]), separator=", ")
    return tf.debugging.Assert(
        tf.reduce_all(rows), [tf.strings.join([f"{what}[", wrong, f"]. {advice}"])]
    )


def least_samples(model: keras.Model) -> int:
    """Return the samples to which an export pads audio for the layers after the front-end.

    Returns:
        0 if the front-end pads enough, the model takes spectrograms or audio of one length, or
        its layers do not show what they need.
    """
    frontend = find_frontend(model)
    if frontend is None or only_input(model).shape[1] is not None:
        return 0
    try:
        least = shortest_input(model)
    except ConfigError:
        return 0
    return least if least > frontend.min_samples else 0


def padded(waveform: Any, least: int) -> Any:
    """Pad waveforms (batch, samples, ...) that are shorter than `least` with zeros."""
    if not least:
        return waveform
    short_by = tf.maximum(0, least - tf.shape(waveform)[1])
    rest = [[0, 0]] * (waveform.shape.rank - 2)
    longer = tf.pad(waveform, [[0, 0], [0, short_by], *rest])
    longer.set_shape(waveform.shape)
    return longer


def for_inference(model: keras.Model) -> keras.Model:
    """Return the model whose outputs an export computes.

    A float32 model is folded. A model with reduced precision is kept, because with folded
    weights it would round differently, by more than folding may change.

    Args:
        model: Functional.

    Returns:
        A folded copy, or the model itself if it is not or cannot be folded.
    """
    return fold_if_possible(model) if computes_in_float32(model) else model


def uses_constants(model: keras.Model) -> bool:
    """Return whether a model's weights become constants of its graph.

    Weights with reduced precision remain variables. As constants they would be stored twice, in
    float32 and in the compute type.
    """
    size = sum(tf.as_dtype(v.dtype).size * v.shape.num_elements() for v in model.variables)
    return computes_in_float32(model) and size <= LARGEST_BYTES


def weights_of(model: keras.Model, constant: bool) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which a model's weights are constants of the traced graph.

    Args:
        model: The model whose layers are applied in the context.
        constant: Use constants; otherwise the weights stay variables.
    """
    if not constant:
        return contextlib.nullcontext()
    values = [(variable, tf.constant(_value(variable))) for variable in model.variables]
    scope: contextlib.AbstractContextManager[Any] = keras.StatelessScope(values)
    return scope


def _value(variable: Any) -> Any:
    """Return the value of a variable."""
    with tf.init_scope():  # outside the graph
        return keras.ops.convert_to_numpy(variable)


def frame_times_or_none(model: keras.Model) -> FrameTimes | None:
    """Return the times of a model's frames; None if they are unknown in seconds."""
    try:
        return frame_times(model)
    except ConfigError:  # a layer with an unknown receptive field
        return None


def write_assets(
    folder: Path, names: Sequence[str], card: Mapping[str, Any], text: str | None
) -> list[Path]:
    """Write the files of the assets folder.

    Args:
        folder: Folder to write to.
        names: Tag of each output.
        card: Return value of `describe`.
        text: A model card in Markdown, or None.

    Returns:
        The files.
    """
    contents = {
        LABELS_FILE: "".join(f"{name}\n" for name in names),
        CARD_FILE: json.dumps(card, indent=2, default=str) + "\n",
    }
    if text is not None:
        contents[TEXT_FILE] = text if text.endswith("\n") else text + "\n"
    for name, content in contents.items():
        write_text(folder / name, content)
    return [folder / name for name in contents]


def describe(model: keras.Model, signatures: Signatures) -> dict[str, Any]:
    """Return the model's card: its inputs, its outputs and how to read them.

    Args:
        model: The model.
        signatures: Its signatures.
    """
    card: dict[str, Any] = {
        "name": model.name,
        "input": only_input(model).name,
        "task": model_head(model).task,
        "thresholds": tag_thresholds(model),
    }
    card |= audio_fields(model)
    times = signatures.frame_times
    card |= {
        "embedding_size": signatures.embedding_size,
        "frame_stride_ms": None if times is None else times.stride_ms,
        "first_frame_ms": None if times is None else times.first_ms,
        "receptive_field_ms": None if times is None else times.window_ms,
        "signatures": {
            name: _signature(function) for name, function in signatures.functions.items()
        },
        "signatures_missing": signatures.missing,
    }
    return card


def audio_fields(model: keras.Model) -> dict[str, Any]:
    """Return the card's fields about the input audio; empty without a front-end."""
    frontend = find_frontend(model)
    if frontend is None:
        return {}
    shape = only_input(model).shape
    return {
        "sample_rate_hz": frontend.sample_rate_hz,
        "channels": 1 if len(shape) == 2 else shape[-1],
        "min_samples": max(frontend.min_samples, least_samples(model)),
        "frontend": frontend.get_config(),
    }


def _signature(function: Any) -> dict[str, Any]:
    """Describe the inputs and outputs of a signature."""
    (inputs,) = function.structured_input_signature[0]
    return {
        "inputs": {inputs.name: _tensor(inputs)},
        "outputs": {name: _tensor(spec) for name, spec in function.structured_outputs.items()},
    }


def _tensor(spec: Any) -> dict[str, Any]:
    """Describe a tensor."""
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}


def write_warmup(folder: Path, card: Mapping[str, Any]) -> int:
    """Write requests of every kind into a SavedModel's folder.

    TensorFlow Serving runs them when it starts. None are written for a model that takes
    spectrograms, whose size is unknown, or without the package tensorflow-serving-api (`pip
    install 'rfkeras[serving]'`).

    Args:
        folder: Folder of the SavedModel.
        card: Content of its `assets/model.json`.

    Returns:
        The number of requests.
    """
    if "sample_rate_hz" not in card:
        return 0
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        _log.info(NO_WARMUP)
        return 0
    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    number = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, name, tensor in _requests(card):
            request = predict_pb2.PredictRequest(inputs={name: tensor})
            request.model_spec.name = card["name"]
            request.model_spec.signature_name = signature
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            writer.write(log.SerializeToString())
            number += 1
    return number


def _requests(card: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield (signature, name of its input, tensor proto) of each request."""
    for signature, tensors in card["signatures"].items():
        ((name, spec),) = tensors["inputs"].items()
        if signature == AUDIO_BYTES:
            for rate_hz in (card["sample_rate_hz"], 44100, 48000):  # common rates of files
                yield signature, name, tf.make_tensor_proto([_silent_wav(rate_hz)])
            continue
        for rows, seconds in SIZES:
            samples = spec["shape"][1] or round(seconds * card["sample_rate_hz"])
            yield signature, name, _zeros((rows, samples, *spec["shape"][2:]))


def _zeros(shape: tuple[int, ...]) -> Any:
    """Return a proto of zeros that stores a single value for all elements."""
    proto = tf.make_tensor_proto(np.zeros(1, np.float32), shape=(1,))
    proto.ClearField("tensor_content")
    proto.float_val[:] = [0.0]
    proto.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return proto


def _silent_wav(rate_hz: int) -> bytes:
    """Return a WAV file of silence."""
    file = io.BytesIO()
    samples = np.zeros(round(_ENCODED_SECONDS * rate_hz), np.float32)
    soundfile.write(file, samples, rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()
