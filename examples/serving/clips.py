"""Code shared by both clients: read audio files, and print tags."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import soundfile

AUDIO_BYTES = "audio_bytes"


class ClientError(Exception):
    """An error with a message for the user."""


def read(path: str | Path) -> tuple[np.ndarray, int]:
    """Read an audio file: float32 samples (frames, channels), and the sample rate."""
    try:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise ClientError(f"{path} cannot be read: {error}") from error
    if len(samples) == 0:
        raise ClientError(f"{path} contains no samples.")
    return samples, rate_hz


def as_wav(path: str | Path) -> bytes:
    """Return the file as 16-bit PCM WAV with its own sample rate and channels."""
    samples, rate_hz = read(path)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def as_waveform(path: str | Path, card: dict) -> np.ndarray:
    """Return the file in the model's format: (1, samples), or (1, samples, 2) for stereo."""
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
                f"{path} has {rate_hz} Hz, but the model needs {card['sample_rate_hz']}. Run "
                "pip install soxr, or use --signature audio_bytes to resample on the server."
            ) from error
        samples = soxr.resample(samples, rate_hz, card["sample_rate_hz"])
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    return samples[None, :, 0] if channels == 1 else samples[None]


def parser(description: str, server: str) -> argparse.ArgumentParser:
    """Return the command-line parser of both clients."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("audio", nargs="+", help="audio files: WAV, FLAC, Ogg, MP3 ...")
    made.add_argument("--server", default=server, help="default: %(default)s")
    made.add_argument("--model", default="tagger", help="MODEL_NAME of the server")
    made.add_argument(
        "--assets",
        type=Path,
        help="assets folder of the SavedModel, with tag names and sample rate",
    )
    made.add_argument(
        "--signature",
        choices=(AUDIO_BYTES, "serving_default"),
        help="how to send audio (default: audio_bytes if the server has it)",
    )
    made.add_argument("--top", type=int, default=5, help="number of tags to show per file")
    made.add_argument("--timeout", type=float, default=60.0, help="timeout in seconds")
    return made


def choose_signature(wanted: str | None, offered: set[str]) -> str:
    """Return the signature to call, one of those that the server offers."""
    choice = wanted or (AUDIO_BYTES if AUDIO_BYTES in offered else "serving_default")
    if choice not in offered:
        raise ClientError(
            f"The server has no signature {choice!r}. It has: {', '.join(sorted(offered))}."
        )
    return choice


def model_card(assets: Path | None) -> dict:
    """Return the model's card, for clients that send samples."""
    if assets is None:
        raise ClientError(
            "The signature serving_default needs the model's sample rate: use --assets "
            "saved_model/1/assets."
        )
    return json.loads((assets / "model.json").read_text(encoding="utf-8"))


def show(path: str, scores: np.ndarray, assets: Path | None, top: int) -> None:
    """Print the tags with the highest scores."""
    names = [f"tag {i}" for i in range(len(scores))]
    if assets is not None:
        names = (assets / "labels.txt").read_text(encoding="utf-8").splitlines()
    if len(names) != len(scores):
        raise ClientError(
            f"Received {len(scores)} scores, but {assets} has {len(names)} labels."
        )
    print(path)
    for index in np.argsort(scores)[::-1][:top]:
        print(f"  {scores[index]:.3f}  {names[index]}")
