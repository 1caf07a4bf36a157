"""Script: compare the length of audio files with what the `ffmpeg` program decodes.

`python -m tests.robustness.odd_files.lengths FOLDER` prints one line per file that either
program reads: both lengths in samples, their difference, and the reason for it.
"""

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path

from rfkeras.audio.decode import check_audio
from rfkeras.errors import AudioError

# Reasons that explain a difference; the last is the only one that needs a look.
SAME = "same"
HEADLESS = "an MP3 song starts or ends up to three frames earlier or later"
FAAC = "AAC of the encoder FAAC, whose delay of 1024 samples is kept"
TOLD = "explained by a note"
OURS = "read only by rfkeras"
THEIRS = "read only by ffmpeg"
LOOK = "DIFFERENT"
_FRAMES = 3 * 1152


def played(path, channels):
    """Return the samples per channel that the `ffmpeg` program decodes; None if nothing."""
    command = ["ffmpeg", "-v", "quiet", "-i", str(path), "-map", "0:a:0", "-f", "f32le"]
    command += ["-ac", str(channels), "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    count = 0
    while block := process.stdout.read(1 << 20):
        count += len(block)
    process.wait()
    return count // 4 // channels or None


def compare(path):
    """Return (length here, length of ffmpeg, reason, what is known) of a file."""
    try:
        info = check_audio(path, decode=True)
    except AudioError as error:
        theirs = played(path, 1)
        return None, theirs, THEIRS if theirs else "", error.reason
    theirs = played(path, info.channels)
    known = f"{info.container} {'; '.join(info.notes)}".strip()
    if theirs is None:
        return info.frames, None, OURS, known
    if info.frames == theirs:
        return info.frames, theirs, SAME, known
    if info.notes:
        return info.frames, theirs, TOLD, known
    if "AAC" in info.container and info.frames - theirs == 1024:
        return info.frames, theirs, FAAC, known
    near = abs(info.frames - theirs) <= _FRAMES
    reason = HEADLESS if near and info.container.startswith("MP3") else LOOK
    return info.frames, theirs, reason, known


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    reasons = Counter()
    rejected = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        ours, theirs, reason, known = compare(path)
        if not reason:
            rejected += 1
            continue
        reasons[reason] += 1
        if reason != SAME:
            difference = ours - theirs if ours and theirs else ""
            name = path.relative_to(folder)
            print(f"{name}: {ours} {theirs} {difference} {reason} ({known})")
    for reason, count in reasons.most_common():
        print(f"{count:6d}  {reason}")
    print(f"{rejected:6d}  read by neither")
    return 1 if reasons[LOOK] or reasons[THEIRS] else 0


if __name__ == "__main__":
    sys.exit(main())
