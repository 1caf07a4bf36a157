"""The functions of a SavedModel: what each takes and returns.

The network is traced once, in a function that all signatures call, and stored once, its
weights as constants within: see `rfkeras.export.weights`. TensorFlow leaves out of a call
what its signature does not use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from rfkeras.data.audio_format import AudioFormat
from rfkeras.errors import ConfigError
from rfkeras.export.audio_bytes import check_wav, decode_wav
from rfkeras.export.weights import constants_pay, for_inference, weights_of
from rfkeras.frontend import find_frontend
from rfkeras.layers import ClipLogits
from rfkeras.tagger import classifier_input, top_head
from rfkeras.tagging.frames import FrameTimes

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
    from rfkeras.tagging import frame_times

    try:
        return frame_times(model)
    except ConfigError:  # a layer of which it is not known what it reads
        return None
