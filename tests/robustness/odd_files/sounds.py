"""Create short sounds in every supported container and codec."""

import io
from functools import cache

import numpy as np
import soundfile

from tests.helpers.encoders import ffmpeg_encoded

# Name: container, codec, rate in Hz, channels.
FORMATS = {
    "pcm16.wav": ("WAV", "PCM_16", 44100, 2),
    "pcm24.wav": ("WAV", "PCM_24", 48000, 1),
    "float.wav": ("WAV", "FLOAT", 22050, 2),
    "adpcm.wav": ("WAV", "MS_ADPCM", 22050, 1),
    "extensible.wav": ("WAVEX", "PCM_16", 44100, 6),
    "rf64.wav": ("RF64", "PCM_16", 44100, 1),
    "pcm16.flac": ("FLAC", "PCM_16", 44100, 2),
    "pcm24.flac": ("FLAC", "PCM_24", 96000, 1),
    "vorbis.ogg": ("OGG", "VORBIS", 44100, 2),
    "opus.opus": ("OGG", "OPUS", 48000, 2),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III", 44100, 2),
    "layer3.low.mp3": ("MP3", "MPEG_LAYER_III", 16000, 1),
    "pcm16.aiff": ("AIFF", "PCM_16", 44100, 2),
    "float.aiff": ("AIFF", "FLOAT", 22050, 1),
    "aac.m4a": ("ipod", "aac", 44100, 2),
    "alac.m4a": ("ipod", "alac", 44100, 1),
    "wma2.wma": ("asf", "wmav2", 44100, 2),
    "pcm16.wv": ("wv", "wavpack", 44100, 2),
}
# Sample formats of the encoders of FFmpeg; libsndfile encodes the others.
_FFMPEG = {"aac": "fltp", "alac": "s16p", "wmav2": "fltp", "wavpack": "s16p"}


@cache
def sound(name, seconds=0.3):
    """Return the bytes of an audio file in one of `FORMATS`: a tone with some noise."""
    container, subtype, rate_hz, channels = FORMATS[name]
    if subtype in _FFMPEG:
        samples = tone(seconds, rate_hz, channels)
        return ffmpeg_encoded(samples, rate_hz, subtype, container, _FFMPEG[subtype])
    return encoded(tone(seconds, rate_hz, channels), rate_hz, container, subtype)


def tone(seconds, rate_hz, channels=1):
    """Return a tone of 440 Hz with a little noise, (samples, channels)."""
    t = np.arange(round(seconds * rate_hz))[:, None] / rate_hz
    noise = np.random.default_rng(rate_hz + channels).normal(0, 0.02, (len(t), channels))
    return (0.3 * np.sin(2 * np.pi * 440 * t) + noise).astype(np.float32)


def encoded(samples, rate_hz, container, subtype):
    """Return the bytes of an audio file with these samples."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, subtype, None, container)
    return buffer.getvalue()
