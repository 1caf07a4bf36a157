"""Read audio files: formats, containers, checks and resampling, without TensorFlow."""

from rfkeras.audio.io import AudioFormat, AudioInfo, check_file, probe, read_audio

__all__ = ["AudioFormat", "AudioInfo", "check_file", "probe", "read_audio"]
