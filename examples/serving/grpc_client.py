"""Tag audio files with a TensorFlow Serving server, over gRPC.

pip install soundfile tensorflow-serving-api
python grpc_client.py song.ogg --assets runs/NAME/saved_model/1/assets
"""

from __future__ import annotations

import sys

import clips
import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

# By default gRPC limits answers to 4 MB, but frames of a long file need more.
UNLIMITED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


def signatures(stub: object, model: str, timeout: float) -> set[str]:
    """Return the names of the model's signatures, from the server's metadata."""
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = model
    packed = stub.GetModelMetadata(request, timeout=timeout).metadata["signature_def"]
    found = get_model_metadata_pb2.SignatureDefMap()
    packed.Unpack(found)
    return set(found.signature_def)


def request_of(
    model: str, signature: str, path: str, card: dict | None
) -> predict_pb2.PredictRequest:
    """Return a request with one row."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if signature == clips.AUDIO_BYTES:
        request.inputs["audio"].CopyFrom(tf.make_tensor_proto([clips.as_wav(path)]))
    else:
        waveform = clips.as_waveform(path, card or {})
        request.inputs["waveform"].CopyFrom(tf.make_tensor_proto(waveform))
    return request


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = clips.parser(__doc__.partition("\n")[0], "127.0.0.1:8500").parse_args(arguments)
    with grpc.insecure_channel(options.server, options=UNLIMITED) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            offered = signatures(stub, options.model, options.timeout)
            signature = clips.choose_signature(options.signature, offered)
            by_bytes = signature == clips.AUDIO_BYTES
            card = None if by_bytes else clips.model_card(options.assets)
            for path in options.audio:
                request = request_of(options.model, signature, path, card)
                answer = stub.Predict(request, timeout=options.timeout)
                scores = np.asarray(tf.make_ndarray(answer.outputs["scores"]))[0]
                clips.show(path, scores, options.assets, options.top)
        except grpc.RpcError as error:
            raise clips.ClientError(
                f"{options.server} answered {error.code().name}: {error.details()}"
            ) from error


if __name__ == "__main__":
    try:
        main()
    except clips.ClientError as error:
        sys.exit(str(error))
