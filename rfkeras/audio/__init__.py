"""Read audio files: formats, containers, checks and resampling, without TensorFlow."""

from rfkeras.audio.io import AudioFile, AudioFormat, AudioInfo, check_file, probe, read_audio

__all__ = ["AudioFile", "AudioFormat", "AudioInfo", "check_file", "probe", "read_audio"]
