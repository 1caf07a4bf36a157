"""What a SavedModel says about itself: the files in its assets folder."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import soundfile
import tensorflow as tf
from keras import ops

from rfkeras.audio.io import AudioFormat
from rfkeras.errors import ConfigError
from rfkeras.export.audio_graph import check_wav, decode_wav
from rfkeras.folding import computes_in_float32, fold_if_possible
from rfkeras.frontend import find_frontend
from rfkeras.inference.frames import FrameTimes
from rfkeras.layers import ClipLogits
from rfkeras.tasks import HALF, MULTI_LABEL
from rfkeras.utils.files import ASIDE, naming, write_text
from zoo.tagger import classifier_input, label_names, model_head, top_head

LARGEST_BYTES = 2**25  # of constants


def for_inference(model: keras.Model) -> keras.Model:
    """What computes a model's outputs in its export.

    A model of float32 is folded. One of a reduced precision stays as it is: with other
    weights it would round otherwise, by more than folding is allowed to change.

    Args:
        model: Functional.

    Returns:
        A copy; the model itself also where it cannot be folded.
    """
    return fold_if_possible(model) if computes_in_float32(model) else model


def constants_pay(model: keras.Model) -> bool:
    """Whether a model's weights should be constants of its graph.

    Those of a reduced precision stay variables: constants would be stored in float32 and,
    once more, in what they are computed in.
    """
    size = sum(tf.as_dtype(v.dtype).size * v.shape.num_elements() for v in model.variables)
    return computes_in_float32(model) and size <= LARGEST_BYTES


def weights_of(model: keras.Model, constant: bool) -> contextlib.AbstractContextManager[Any]:
    """While it lasts, a model's weights are constants of the graph that is being traced.

    Args:
        model: The model, of whose layers some are applied meanwhile.
        constant: Whether; if not, they are variables as ever.
    """
    if not constant:
        return contextlib.nullcontext()
    values = [(variable, tf.constant(_value(variable))) for variable in model.variables]
    scope: contextlib.AbstractContextManager[Any] = keras.StatelessScope(values)
    return scope


def _value(variable: Any) -> Any:
    with tf.init_scope():  # outside of the graph
        return keras.ops.convert_to_numpy(variable)


SERVE, FRAMES, EMBED, AUDIO_BYTES = "serving_default", "frames", "embed", "audio_bytes"
AUDIO_INPUT = "audio"


class Signatures:
    """The signatures that a model can have, each a concrete function.

    Args:
        model: Functional, with one input and one output.
        reader: Makes scores of its logits: its head, where it has one.

    Attributes:
        functions: By name. `serving_default` is always there. `frames` and `embed` need a
            `ClipLogits` layer of the model's own before which a convolution or dense layer
            computes the logits; `audio_bytes` needs a front-end as well, and an input that
            takes any length.
        missing: Why the others are not there, by name.
        embedding_size: Features of an embedding; None where there is no `embed`.
        frame_times: When its frames are; None where that is not known in seconds.
        variables: What the functions read beside their inputs: none where all weights are
            constants in them.
    """

    def __init__(self, model: keras.Model, reader: ClipLogits):
        self.functions: dict[str, Any] = {}
        self.missing: dict[str, str] = {}
        self.embedding_size: int | None = None
        self.frame_times: FrameTimes | None = None
        source = model.inputs[0]
        self._head = reader
        self._n_classes = model.output_shape[-1]
        inference = for_inference(model)
        outputs = {"logits": inference.outputs[0]}
        own: ClipLogits | None = None
        try:
            own, features = top_head(inference), classifier_input(inference)
        except ConfigError as error:
            self.missing = dict.fromkeys((FRAMES, EMBED, AUDIO_BYTES), str(error))
        else:
            outputs |= {"map": own.input, "features": features}
            self.embedding_size = int(features.shape[-1])
            self.frame_times = frame_times_or_none(model)
        # A dictionary of one output would come back as that output.
        network = keras.Model(inference.inputs[0], list(outputs.values()), name="inference")
        constant = constants_pay(inference)
        self.variables = [] if constant else inference.variables

        def compute(batch: Any) -> dict[str, Any]:
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
            with tf.control_dependencies([not_empty]):
                return function(tf.identity(batch))

        traced = tf.function(checked, input_signature=[spec], autograph=False)
        # Concrete, or saving would trace it once more.
        self.functions[name] = traced.get_concrete_function()

    def _serve(self, batch: Any) -> dict[str, Any]:
        return {"scores": self._head.scores(self._compute(batch)["logits"])}

    def _frames(self, batch: Any) -> dict[str, Any]:
        logits = self._compute(batch)["frame_logits"]
        outputs = {"frame_scores": self._head.scores(logits)}
        if self.frame_times is not None:
            rows, n_frames = tf.shape(logits)[0], tf.shape(logits)[1]
            milliseconds = self.frame_times.first_ms + self.frame_times.stride_ms * tf.cast(
                tf.range(n_frames), tf.float32
            )
            # A row each, though all are alike: servers split and join batches by rows.
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
            logits = computed["logits"]
            if self._head.frames:
                logits = self._head.clip_logits(
                    computed["frame_logits"], computed["log_weights"]
                )
            return self._head.scores(logits)[0]

        # One after another: memory is that of the longest file, and padding touches none.
        scores = tf.map_fn(
            score,
            check_wav(audio),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )
        return {"scores": tf.ensure_shape(scores, (None, self._n_classes))}


def frame_times_or_none(model: keras.Model) -> FrameTimes | None:
    """When a model's frames are; None where that is not known in seconds."""
    from rfkeras.inference import frame_times

    try:
        return frame_times(model)
    except ConfigError:  # a layer of which it is not known what it reads
        return None


LABELS_FILE = "labels.txt"
CARD_FILE = "model.json"
TEXT_FILE = "model_card.md"


def write_assets(
    folder: Path, names: Sequence[str], card: Mapping[str, Any], text: str | None
) -> list[Path]:
    """Write the assets.

    Args:
        folder: Where.
        names: Tag of each output.
        card: What `describe` returns.
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


def audio_fields(model: keras.Model) -> dict[str, Any]:
    """What a card tells of the audio that a model takes; nothing without a front-end."""
    frontend = find_frontend(model)
    if frontend is None:
        return {}
    shape = model.inputs[0].shape
    return {
        "sample_rate_hz": frontend.sample_rate_hz,
        "channels": 1 if len(shape) == 2 else shape[-1],
        "min_samples": frontend.min_samples,
        "frontend": frontend.get_config(),
    }


def describe(
    model: keras.Model, head: ClipLogits, n_classes: int, signatures: Signatures
) -> dict[str, Any]:
    """The model's card: what it takes, what it returns and how to read that.

    Args:
        model: The model.
        head: What makes scores of its logits.
        n_classes: Its outputs.
        signatures: Its signatures.
    """
    thresholds = list(head.thresholds or [HALF] * n_classes)
    card: dict[str, Any] = {
        "name": model.name,
        "input": model.inputs[0].name,
        "task": head.task,
        "thresholds": thresholds if head.task == MULTI_LABEL else None,
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


def _signature(function: Any) -> dict[str, Any]:
    (inputs,) = function.structured_input_signature[0]
    return {
        "inputs": {inputs.name: _tensor(inputs)},
        "outputs": {name: _tensor(spec) for name, spec in function.structured_outputs.items()},
    }


def _tensor(spec: Any) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}


WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_REQUESTS = 1000  # the most that TensorFlow Serving reads
# (rows, seconds) of silence; more rows than one, as batching makes of several clients.
SIZES = ((1, 1.0), (1, 10.0), (4, 1.0))
_ENCODED_SECONDS = 0.5

_log = logging.getLogger(__name__)


def write_warmup(folder: Path, card: Mapping[str, Any]) -> int:
    """Write a request of every kind into a SavedModel's folder.

    None is written for a model that takes spectrograms, for it is not known how large they
    are, and none without the package tensorflow-serving-api (`pip install
    'rfkeras[serving]'`): a server then starts without them.

    Args:
        folder: Of the SavedModel.
        card: What its `assets/model.json` holds.

    Returns:
        How many were written.
    """
    if "sample_rate_hz" not in card:
        return 0
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        _log.info(
            "No warm-up requests were written to %s: that needs pip install "
            "'rfkeras[serving]'.",
            folder,
        )
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
    """(signature, name of its input, tensor proto) of each request."""
    for signature, tensors in card["signatures"].items():
        ((name, spec),) = tensors["inputs"].items()
        if signature == AUDIO_BYTES:
            for rate_hz in (card["sample_rate_hz"], 44100, 48000):  # as files come
                yield signature, name, tf.make_tensor_proto([_silent_wav(rate_hz)])
            continue
        for rows, seconds in SIZES:
            samples = spec["shape"][1] or round(seconds * card["sample_rate_hz"])
            yield signature, name, _zeros((rows, samples, *spec["shape"][2:]))


def _zeros(shape: tuple[int, ...]) -> Any:
    """A proto of zeros in a few bytes: a single value stands for all."""
    proto = tf.make_tensor_proto(np.zeros(1, np.float32), shape=(1,))
    proto.ClearField("tensor_content")
    proto.float_val[:] = [0.0]
    proto.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())
    return proto


def _silent_wav(rate_hz: int) -> bytes:
    file = io.BytesIO()
    samples = np.zeros(round(_ENCODED_SECONDS * rate_hz), np.float32)
    soundfile.write(file, samples, rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()


def saved_model(
    model: keras.Model,
    path: str | Path,
    labels: Sequence[str] | None = None,
    *,
    card: str | None = None,
    warmup: bool = True,
) -> Path:
    """Write a model's inference graph as a SavedModel.

    The graph holds stock TensorFlow operations only, and neither optimiser nor Python. A model
    of float32 is folded (`rfkeras.fold`), and its weights are constants of the graph, on which
    TensorFlow prepares them for the processor once; one of a reduced precision, and one of
    over 32 MiB, keeps its weights as variables. The signatures:

    - `serving_default`: `waveform`, float32 (batch, samples) for mono and
      (batch, samples, 2) for stereo, batch and length free, at the rate that
      `assets/model.json` names; audio too short for the network is padded with zeros. A
      model without a front-end takes `spectrogram` instead. It returns `scores`, float32
      (batch, classes), the probability of each tag of `assets/labels.txt`: the sigmoid of
      its logit, or the softmax of all where the model's head says that one class excludes
      the others. A model whose head is "frames" returns (batch, frames, classes).
    - `frames`: the same input to `frame_scores`, (batch, frames, classes), and
      `frame_times_s`, (batch, frames), the centre of each frame's window in seconds, the
      same in every row; of a model with a front-end.
    - `embed`: the same input to `embedding`, (batch, features), and `frame_embeddings`,
      (batch, frames, features).
    - `audio_bytes`: `audio`, string (batch,), 16-bit PCM WAV files of any rate from 8 to
      192 kHz, length and number of channels, each for itself; they are mixed and resampled
      in the graph. It returns `scores`, (batch, classes).

    An empty batch, and audio that cannot be read, is an InvalidArgument error. A model
    without a front-end has no `audio_bytes`, one without a `ClipLogits` layer of its own
    only `serving_default`; "signatures_missing" in `assets/model.json` says why. The same
    file says how scores are to be read ("task"), from which score each tag applies
    ("thresholds", null where the highest score decides), and when frames are.

    Args:
        model: A model of the zoo, or one with the same input and a `ClipLogits` output. A
            model without such a head is taken as multi-label.
        path: Folder to make; TensorFlow Serving wants its name to be a version number.
        labels: Tag of each output; by default those kept in the model.
        card: Text about the model in Markdown, to lie beside it as
            `assets/model_card.md`.
        warmup: Put requests beside the model that TensorFlow Serving runs as it starts;
            see `rfkeras.export.saved_model`.

    Returns:
        The folder.

    Raises:
        ConfigError: The folder exists, or labels and outputs differ in number.
    """
    path = Path(path)
    if path.exists():
        raise ConfigError(
            f"{path} exists, and an export overwrites nothing. Remove it first, or choose "
            "another folder: TensorFlow Serving takes the highest number, as in "
            f"{path.parent / '2'}."
        )
    names = tuple(labels) if labels is not None else label_names(model)
    n_classes = model.output_shape[-1]
    if len(names) != n_classes:
        raise ConfigError(f"The model has {n_classes} outputs but {len(names)} labels.")
    path.parent.mkdir(parents=True, exist_ok=True)
    head = model_head(model)
    signatures = Signatures(model, head)
    described = describe(model, head, n_classes, signatures)
    with (
        naming(path),
        tempfile.TemporaryDirectory(ASIDE, ".export-", path.parent) as scratch,
    ):
        assets = write_assets(Path(scratch), names, described, card)
        module = _Inference(signatures.variables, assets)
        aside = Path(scratch) / "saved_model"
        tf.saved_model.save(module, str(aside), signatures=signatures.functions)
        if warmup:
            write_warmup(aside, described)
        aside.replace(path)  # the same folder's neighbour, so nobody sees half of it
    return path


class _Inference(tf.Module):
    """What is saved beside the signatures: the variables and the assets.

    The Keras model itself is no attribute, or its layers and its optimiser would be
    tracked and saved too.
    """

    def __init__(self, variables: Sequence[keras.Variable], assets: Sequence[Path]):
        super().__init__(name="rfkeras")
        # TensorFlow tracks what the graphs read; this list keeps it reachable.
        self.model_variables: list[Any] = [variable.value for variable in variables]
        self.assets = [tf.saved_model.Asset(str(path)) for path in assets]
