"""Encode audio with FFmpeg (PyAV)."""

import io

import av
import numpy as np


def ffmpeg_encoded(signal, rate_hz, codec, container, sample_format, options=None):
    """Return the bytes of an audio file.

    Args:
        signal: float array of shape (samples, channels).
        rate_hz: Sample rate.
        codec: FFmpeg's name of the encoder.
        container: FFmpeg's name of the format.
        sample_format: Sample format of the encoder.
        options: Options of the container.
    """
    layout = {1: "mono", 2: "stereo", 8: "7.1", 16: "hexadecagonal"}[signal.shape[1]]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options or {}) as file:
        stream = file.add_stream(codec, rate=rate_hz)
        stream.codec_context.layout = layout
        stream.codec_context.bit_rate = 128_000
        stream.codec_context.format = sample_format
        data = np.round(signal * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(data, format="s16", layout=layout)
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(sample_format, layout, rate_hz)
        fifo = av.AudioFifo()
        for ready in resampler.resample(frame):
            fifo.write(ready)
        size = stream.codec_context.frame_size or 1024
        done = 0
        while (block := fifo.read(size, partial=True)) is not None:
            block.pts = done if container in ("ogg", "ipod") else None
            done += block.samples
            file.mux(stream.encode(block))
        file.mux(stream.encode(None))
    return buffer.getvalue()
