"""What both clients share: audio files as requests, answers as a list of tags."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import soundfile

AUDIO_BYTES = "audio_bytes"


class ClientError(Exception):
    """What went wrong, in words for the person at the terminal."""


def read(path: str | Path) -> tuple[np.ndarray, int]:
    """Samples (frames, channels), float32, and the rate of any file libsndfile reads."""
    try:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise ClientError(f"{path} cannot be read: {error}") from error
    if len(samples) == 0:
        raise ClientError(f"{path} holds no samples.")
    return samples, rate_hz


def as_wav(path: str | Path) -> bytes:
    """The file as 16-bit PCM WAV, at its own rate and with its own channels."""
    samples, rate_hz = read(path)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def as_waveform(path: str | Path, card: dict) -> np.ndarray:
    """The file as the model hears it: (1, samples), or (1, samples, 2) for stereo."""
    if "sample_rate_hz" not in card:
        raise ClientError("This model takes spectrograms, not audio.")
    samples, rate_hz = read(path)
    channels = card["channels"]
    if not (channels == 2 and samples.shape[1] == 2):
        samples = np.repeat(samples.mean(axis=1, keepdims=True), channels, axis=1)
    if rate_hz != card["sample_rate_hz"]:
        try:
            import soxr
        except ImportError as error:
            raise ClientError(
                f"{path} has {rate_hz} Hz and the model wants {card['sample_rate_hz']}: "
                "pip install soxr, or use --signature audio_bytes, which resamples on the "
                "server."
            ) from error
        samples = soxr.resample(samples, rate_hz, card["sample_rate_hz"])
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    return samples[None, :, 0] if channels == 1 else samples[None]


def parser(description: str, server: str) -> argparse.ArgumentParser:
    """The command line that both clients have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("audio", nargs="+", help="audio files: WAV, FLAC, Ogg, MP3 ...")
    made.add_argument("--server", default=server, help="default: %(default)s")
    made.add_argument("--model", default="tagger", help="MODEL_NAME of the server")
    made.add_argument(
        "--assets",
        type=Path,
        help="the assets folder of the SavedModel: names of the tags, the model's rate",
    )
    made.add_argument(
        "--signature",
        choices=(AUDIO_BYTES, "serving_default"),
        help="how audio is sent; default: audio_bytes, if the server has it",
    )
    made.add_argument("--top", type=int, default=5, help="tags to show a file")
    made.add_argument("--timeout", type=float, default=60.0, help="seconds to wait")
    return made


def choose_signature(wanted: str | None, offered: set[str]) -> str:
    """The signature to call, of those that the server's metadata names."""
    choice = wanted or (AUDIO_BYTES if AUDIO_BYTES in offered else "serving_default")
    if choice not in offered:
        raise ClientError(
            f"The server has no signature {choice!r}. It has: {', '.join(sorted(offered))}."
        )
    return choice


def model_card(assets: Path | None) -> dict:
    """The model's own description, for clients that send samples."""
    if assets is None:
        raise ClientError(
            "The signature serving_default takes samples at the model's rate: "
            "say --assets saved_model/1/assets."
        )
    return json.loads((assets / "model.json").read_text(encoding="utf-8"))


def show(path: str, scores: np.ndarray, assets: Path | None, top: int) -> None:
    """Print the tags of the highest scores."""
    names = [f"tag {i}" for i in range(len(scores))]
    if assets is not None:
        names = (assets / "labels.txt").read_text(encoding="utf-8").splitlines()
    if len(names) != len(scores):
        raise ClientError(f"{len(scores)} scores came for {len(names)} labels in {assets}.")
    print(path)
    for index in np.argsort(scores)[::-1][:top]:
        print(f"  {scores[index]:.3f}  {names[index]}")
