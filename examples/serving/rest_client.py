"""Tag audio files with a TensorFlow Serving server, over its REST interface.

    python rest_client.py song.ogg --assets runs/NAME/saved_model/1/assets

It needs soundfile and NumPy, but not TensorFlow.
"""

from __future__ import annotations

import base64
import json
import sys
import urllib.error
import urllib.request

import clips
import numpy as np


def call(url: str, body: dict | None, timeout: float) -> dict:
    """Send a GET, or a POST with a JSON body; raise the server's message if it fails."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode(errors="replace")
        raise clips.ClientError(f"{url} answered {error.code}: {text}") from error
    except (urllib.error.URLError, TimeoutError) as error:
        raise clips.ClientError(f"{url} cannot be reached: {error}") from error


def signatures(server: str, model: str, timeout: float) -> set[str]:
    """Return the names of the model's signatures, from the server's metadata."""
    metadata = call(f"{server}/v1/models/{model}/metadata", None, timeout)
    return set(metadata["metadata"]["signature_def"]["signature_def"])


def body_of(signature: str, path: str, card: dict | None) -> dict:
    """Return the JSON of a request with one row."""
    if signature == clips.AUDIO_BYTES:
        encoded = base64.b64encode(clips.as_wav(path)).decode()
        return {"signature_name": signature, "instances": [{"b64": encoded}]}
    waveform = clips.as_waveform(path, card or {})
    return {"signature_name": signature, "instances": waveform.tolist()}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = clips.parser(__doc__.partition("\n")[0], "http://127.0.0.1:8501").parse_args(
        arguments
    )
    offered = signatures(options.server, options.model, options.timeout)
    signature = clips.choose_signature(options.signature, offered)
    card = None if signature == clips.AUDIO_BYTES else clips.model_card(options.assets)
    url = f"{options.server}/v1/models/{options.model}:predict"
    for path in options.audio:
        answer = call(url, body_of(signature, path, card), options.timeout)
        scores = np.asarray(answer["predictions"][0])
        clips.show(path, scores, options.assets, options.top)


if __name__ == "__main__":
    try:
        main()
    except clips.ClientError as error:
        sys.exit(str(error))
