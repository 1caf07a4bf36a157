"""Create audio files that often break programs, with the expected outcome of each."""

import os
import struct
from pathlib import Path

import numpy as np

from tests.robustness.odd_files.sounds import encoded, sound, tone

READ, REFUSED, EITHER = "read", "refused", "either"  # EITHER: finite output or an error
HOURS_10 = 10 * 3600
SCIPY_WAVS = "io/tests/data"
WHOLE = ("pcm16.wav", "pcm16.flac", "vorbis.ogg", "opus.opus", "layer3.mp3", "pcm16.aiff")


def contents():
    """Return {file name: (bytes, expected outcome)}."""
    wav, flac, mp3 = sound("pcm16.wav"), sound("pcm16.flac"), sound("layer3.mp3")
    beep = tone(0.3, 44100)
    files = {
        "ten_hours_by_header.wav": (_long_wav(wav), READ),
        "ten_hours_by_header.flac": (_long_flac(flac), READ),
        "ten_hours_by_header.mp3": (_long_mp3(mp3), READ),
        "flac_with_wrong_extension.mp3": (flac, READ),
        "mp3_with_wrong_extension.wav": (mp3, READ),
        "text.wav": (b"This is a letter about a sound, and no sound. " * 20, REFUSED),
        "picture.flac": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, REFUSED),
        "zeros.mp3": (bytes(5000), REFUSED),
        "nan.wav": (_wav(np.where(np.arange(13230) == 7000, np.nan, 0.1)), REFUSED),
        "infinite.wav": (_wav(np.where(np.arange(13230) == 7000, np.inf, 0.1)), REFUSED),
        "huge_numbers.wav": (_wav(np.full(13230, 3e38)), REFUSED),
        "integers_as_floats.wav": (_wav(np.round(beep[:, 0] * 2**31)), READ),
        "dc.wav": (_wav(np.full(13230, 0.5)), READ),
        "silence.wav": (_wav(np.zeros(13230)), READ),
        "clipped.wav": (_wav(np.sign(beep[:, 0])), READ),
        "no_sample.wav": (_wav(np.zeros(0)), REFUSED),
        "one_sample.wav": (_wav(np.full(1, 0.5), 4000), READ),
        "one_sample_of_44100.wav": (_wav(np.full(1, 0.5)), REFUSED),  # rounds to none
        "one_hertz.wav": (_wav(np.full(1000, 0.5), 1), REFUSED),
        "8_khz.wav": (_wav(tone(0.3, 8000), 8000), READ),
        "192_khz.flac": (encoded(tone(0.3, 192000), 192000, "FLAC", "PCM_24"), READ),
        "8_channels.wav": (encoded(tone(0.3, 44100, 8), 44100, "WAVEX", "PCM_24"), READ),
    }
    for name in WHOLE:
        stem, _, suffix = name.partition(".")
        whole = sound(name)
        files[f"whole_{stem}.{suffix}"] = (whole, READ)
        files[f"empty_{stem}.{suffix}"] = (b"", REFUSED)
        files[f"only_header_{stem}.{suffix}"] = (whole[:44], REFUSED)
        for eighth in range(1, 8):
            cut = whole[: len(whole) * eighth // 8]
            files[f"cut_at_{eighth}_{stem}.{suffix}"] = (cut, EITHER)
    return files


def write(folder):
    """Write all files, and paths with audio names that are not audio files.

    Returns:
        {path: expected outcome}
    """
    expected = {}
    for name, (data, outcome) in contents().items():
        (folder / name).write_bytes(data)
        expected[folder / name] = outcome
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "dangling.wav").symlink_to("nothing.wav")
    for name in ("folder", "pipe", "loop", "dangling", "missing"):
        expected[folder / f"{name}.wav"] = REFUSED
    secret = folder / "secret.wav"
    secret.write_bytes(sound("pcm16.wav"))
    secret.chmod(0)
    expected[secret] = READ if os.geteuid() == 0 else REFUSED
    not_utf8 = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.wav"))
    not_utf8.write_bytes(sound("pcm16.wav"))
    expected[not_utf8] = READ
    return expected


def scipy_wavs():
    """Return the unusual WAV files that come with SciPy: {path: `EITHER`}."""
    import scipy

    folder = Path(scipy.__file__).parent / SCIPY_WAVS
    paths = sorted(folder.glob("*.wav"))
    assert paths, folder
    return dict.fromkeys(paths, EITHER)


def _wav(samples, rate_hz=44100):
    return encoded(np.asarray(samples, "float32"), rate_hz, "WAV", "FLOAT")


def _long_wav(wav):
    """Return 16-bit stereo at 44.1 kHz whose header declares ten hours of data."""
    data_bytes = min(HOURS_10 * 44100 * 4, 2**32 - 100)
    riff = wav[:4] + struct.pack("<I", data_bytes + 36) + wav[8:40]
    return riff + struct.pack("<I", data_bytes) + wav[44:]


def _long_flac(flac):
    """Set the sample count in STREAMINFO (36 bits) to ten hours."""
    packed = int.from_bytes(flac[18:26], "big") >> 36 << 36 | HOURS_10 * 44100
    return flac[:18] + packed.to_bytes(8, "big") + flac[26:]


def _long_mp3(mp3):
    """Set the frame count in the encoder's header (first frame) to ten hours."""
    at = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    assert at > 0
    return mp3[: at + 8] + struct.pack(">I", HOURS_10 * 44100 // 1152) + mp3[at + 12 :]
