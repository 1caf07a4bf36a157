"""Extras for TensorFlow Serving: the requests that it runs before it says it is ready.

The first request of a kind is slow, for TensorFlow then optimises the graph. A server that
finds recorded requests beside a model runs them first, so that no client waits for that.
https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import tensorflow as tf

from rfkeras.export.signatures import AUDIO_BYTES

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
