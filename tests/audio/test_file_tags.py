"""The field in audio files: the sound, the other tags and the file itself stay the same."""

import base64
import os
import struct

import mutagen
import numpy as np
import pytest
import soundfile
from mutagen import apev2, asf, flac, id3, mp4

from rfkeras.audio import file_tags
from rfkeras.audio.file_tags import (
    FIELD,
    FieldChange,
    UntaggableError,
    plan_field,
    sound_digest,
    write_field,
)
from rfkeras.errors import AudioError
from rfkeras.utils.remote import to_path
from tests.helpers.encoders import ffmpeg_encoded

ENCODERS = {  # codec, container, sample format
    "m4a": ("aac", "ipod", "fltp"),
    "alac": ("alac", "ipod", "s16p"),
    "wma": ("wmav2", "asf", "fltp"),
    "wv": ("wavpack", "wv", "s16p"),
    "aac": ("aac", "adts", "fltp"),
}
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
TITLE = "Caf\u00e9 \u2603; No. 7"
VALUE = "nylon guitar; voice"


def music(seconds=1.5, rate_hz=44100):
    t = np.arange(int(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(0).normal(0, 0.02, (2, t.size))
    return (0.3 * np.sin(2 * np.pi * np.array([[330], [440]]) * t) + noise).T.astype("f4")


def encode(kind):
    return ffmpeg_encoded(music(), 44100, *ENCODERS[kind])


def picture():
    image = flac.Picture()
    image.data, image.mime, image.type = PICTURE, "image/png", 3
    return image


def give_id3(file):
    if file.tags is None:
        file.add_tags()
    file.tags.add(id3.TIT2(encoding=3, text=[TITLE]))
    file.tags.add(id3.TXXX(encoding=3, desc="MOOD", text=["calm", "warm"]))
    file.tags.add(id3.APIC(encoding=0, mime="image/png", type=3, desc="front", data=PICTURE))
    file.tags.add(id3.PRIV(owner="x", data=b"\0\1\2\xff"))
    file.tags.add(id3.TDRC(encoding=0, text=["1999-03"]))


def give_vorbis(file):
    file.tags["title"] = [TITLE]
    file.tags["ARTIST"] = ["one", "two"]
    if isinstance(file, flac.FLAC):
        file.add_picture(picture())
    else:
        file.tags["METADATA_BLOCK_PICTURE"] = [base64.b64encode(picture().write()).decode()]


def give_mp4(file):
    file.tags["\xa9nam"] = [TITLE]
    file.tags["trkn"] = [(7, 12)]
    file.tags["covr"] = [mp4.MP4Cover(PICTURE, mp4.MP4Cover.FORMAT_PNG)]
    file.tags["----:com.apple.iTunes:MOOD"] = [mp4.MP4FreeForm(b"calm")]


def give_ape(file):
    if file.tags is None:
        file.add_tags()
    file.tags["Title"] = TITLE
    file.tags["Cover Art (Front)"] = apev2.APEValue(PICTURE, apev2.BINARY)


def give_asf(file):
    file.tags["Title"] = [TITLE]
    file.tags["WM/Picture"] = [asf.ASFByteArrayAttribute(PICTURE)]
    file.tags["WM/TrackNumber"] = [asf.ASFDWordAttribute(7)]


KINDS = {
    "mp3": give_id3,
    "wav": give_id3,
    "aiff": give_id3,
    "flac": give_vorbis,
    "ogg": give_vorbis,
    "opus": give_vorbis,
    "m4a": give_mp4,
    "alac": give_mp4,
    "wma": give_asf,
    "wv": give_ape,
}


def make(folder, kind, tags=True):
    """Write a sound with tags and a picture, as another program would."""
    path = folder / f"song.{'m4a' if kind == 'alac' else kind}"
    if kind in ("wav", "aiff", "flac", "ogg", "mp3"):
        soundfile.write(path, music(), 44100)
    elif kind == "opus":
        soundfile.write(path, music(rate_hz=48000), 48000, format="OGG", subtype="OPUS")
    else:
        path.write_bytes(encode(kind))
    if tags:
        file = mutagen.File(path)
        KINDS[kind](file)
        file.save()
    return path


def others(path):
    """Return all tags of a file but the field, without rfkeras."""
    file = mutagen.File(path)
    items = file.tags if isinstance(file.tags, mutagen._vorbis.VComment) else file.tags.items()
    found = sorted((key, repr(value)) for key, value in items if FIELD not in key)
    return [*found, *(image.data for image in getattr(file, "pictures", ()))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_field_is_written_and_nothing_else_changes(kind, tmp_path):
    path = make(tmp_path, kind)
    digest, tags = sound_digest(path), others(path)
    assert len(tags) >= 3
    path.chmod(0o640)
    change = write_field(path, ["nylon guitar", "voice"])
    assert change == FieldChange(None, VALUE)
    assert (sound_digest(path), others(path)) == (digest, tags)
    assert plan_field(path, []) == FieldChange(VALUE, None)
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]
    # What other programs read.
    field = [repr(v) for k, v in dict(mutagen.File(path)).items() if FIELD.lower() in k.lower()]
    assert len(field) == 1
    assert VALUE in field[0]

    assert write_field(path, ["drums"]) == FieldChange(VALUE, "drums")
    assert write_field(path, []) == FieldChange("drums", None)
    assert (sound_digest(path), others(path)) == (digest, tags)
    assert FIELD.encode() not in path.read_bytes().replace(b"\0", b"")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_tags_gets_the_field(kind, tmp_path):
    path = make(tmp_path, kind, tags=False)
    digest = sound_digest(path)
    write_field(path, ["voice"])
    assert plan_field(path, ["voice"]) == FieldChange("voice", "voice")
    assert sound_digest(path) == digest


def test_an_equal_field_is_not_written_again(tmp_path, monkeypatch):
    path = make(tmp_path, "flac")
    write_field(path, ["voice"])
    monkeypatch.setattr(file_tags, "atomic_write", None)
    assert not write_field(path, ["voice"]).is_needed
    with pytest.raises(AudioError):
        write_field(path, ["drums"])


def frames_of(content):
    """Return the frames of an ID3v2.3 tag as (name, bytes)."""
    assert content[:4] == b"ID3\3"
    size = sum(byte << shift for byte, shift in zip(content[6:10], (21, 14, 7, 0), strict=True))
    data, found = content[10 : 10 + size], []
    while len(data) > 10 and data[0]:
        (length,) = struct.unpack(">I", data[4:8])
        found.append((data[:4], data[8:10], data[10 : 10 + length]))
        data = data[10 + length :]
    return found


def id3v23(*frames):
    body = b"".join(
        name + struct.pack(">I", len(data)) + b"\0\0" + data for name, data in frames
    )
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + body


def test_id3v23_and_id3v1_stay_as_they_are(tmp_path):
    frames = (
        (b"TIT2", b"\1\xff\xfe" + TITLE.encode("utf-16-le")),
        (b"TYER", b"\x001999"),  # ID3v2.4 has another frame for it
        (b"TDAT", b"\x000703"),
        (b"TPE1", b"\0one/two"),
        (b"IPLS", b"\0producer\0someone\0"),
        (b"XYZW", b"of another program"),
        (b"APIC", b"\0image/png\0\3\0" + PICTURE),
    )
    old_tag = b"TAG" + b"Another title".ljust(30) + b"x" * 90 + b"2001\x11"
    path = tmp_path / "song.mp3"
    soundfile.write(path, music(), 44100)
    sound = path.read_bytes()
    path.write_bytes(id3v23(*frames) + sound + old_tag)
    write_field(path, ["voice", "fl\u00f6te \u2603"])
    content = path.read_bytes()
    assert content.endswith(sound + old_tag)
    before = [frame for frame in frames_of(content) if b"R\0F\0K" not in frame[2]]
    # The NUL at the end of a text is optional.
    kept = sorted((name, flags, data.rstrip(b"\0")) for name, flags, data in before)
    assert kept == sorted((name, b"\0\0", data.rstrip(b"\0")) for name, data in frames)
    assert plan_field(path, []).before == "voice; fl\u00f6te \u2603"
    write_field(path, [])
    assert [f[0] for f in frames_of(path.read_bytes())].count(b"TXXX") == 0


def test_a_title_in_id3v1_only_stays_visible(tmp_path):
    path = tmp_path / "song.mp3"
    soundfile.write(path, music(), 44100)
    old_tag = b"TAG" + b"Old title".ljust(30, b"\0") + bytes(95)
    path.write_bytes(path.read_bytes() + old_tag)
    write_field(path, ["voice"])
    assert path.read_bytes().endswith(old_tag)
    assert mutagen.File(path)["TIT2"].text == ["Old title"]


@pytest.mark.parametrize("kind", ["aac", "au"])
def test_formats_without_tags_are_left_alone(kind, tmp_path):
    path = tmp_path / f"song.{kind}"
    if kind == "au":
        soundfile.write(path, music(), 44100)
    else:
        path.write_bytes(encode(kind))
    content = path.read_bytes()
    for function in (plan_field, write_field):
        with pytest.raises(UntaggableError, match="its format cannot carry tags"):
            function(path, ["voice"])
    assert path.read_bytes() == content


def test_tags_that_would_change_are_left_alone(tmp_path):
    path = tmp_path / "song.mp3"
    soundfile.write(path, music(), 44100)
    body = b"TT2\0\0\6\0title"
    path.write_bytes(b"ID3\2\0\0\0\0\0" + bytes([len(body)]) + body + path.read_bytes())
    with pytest.raises(UntaggableError, match=r"ID3v2\.2"):
        write_field(path, ["voice"])
    path = make(tmp_path, "flac")
    path.write_bytes(path.read_bytes().replace("Caf\u00e9".encode(), b"Caf\xe9 "))
    content = path.read_bytes()
    with pytest.raises(UntaggableError, match="not valid UTF-8"):
        write_field(path, ["voice"])
    assert path.read_bytes() == content
    with pytest.raises(UntaggableError, match="URLs"):
        plan_field(to_path("s3://bucket/a.mp3"), ["voice"])


def test_a_broken_or_protected_file_is_an_error(tmp_path):
    path = tmp_path / "broken.flac"
    path.write_bytes(b"fLaC" + bytes(100))
    with pytest.raises(AudioError, match=r"broken\.flac"):
        write_field(path, ["voice"])
    path = make(tmp_path, "ogg")
    path.chmod(0o444)
    with pytest.raises(AudioError, match="the file is read-only"):
        plan_field(path, ["voice"])


class Damage:
    """Ways in which a writer could damage the copy of a file."""

    @staticmethod
    def sound(copy):
        content = bytearray(copy.read_bytes())
        content[content.index(b"data") + 1000] ^= 1
        copy.write_bytes(content)

    @staticmethod
    def title(copy):
        file = flac.FLAC(copy)
        file["title"] = "other"
        file.save()

    @staticmethod
    def image(copy):
        file = flac.FLAC(copy)
        file.clear_pictures()
        file.save()

    @staticmethod
    def field(copy):
        file = flac.FLAC(copy)
        file[FIELD] = "other"
        file.save()

    @staticmethod
    def meanwhile(copy):
        original = next(p for p in copy.parent.iterdir() if not p.name.startswith("."))
        os.utime(original, ns=(1, 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("sound", "its sound would not have stayed the same"),
        ("title", "its other tags would not have stayed the same"),
        ("image", "its other tags would not have stayed the same"),
        ("field", "they would have become 'other'"),
        ("meanwhile", "another program changed the file meanwhile"),
    ],
)
def test_a_copy_that_differs_never_replaces_the_file(damage, message, tmp_path, monkeypatch):
    path = make(tmp_path, "wav" if damage == "sound" else "flac")
    content = path.read_bytes()
    write = file_tags._Container.write

    def damaged(self, value):
        write(self, value)
        getattr(Damage, damage)(self._path)

    monkeypatch.setattr(file_tags._Container, "write", damaged)
    with pytest.raises(AudioError, match=message):
        write_field(path, ["voice"])
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path):
    path = make(tmp_path, "ogg")
    link = tmp_path / "link.ogg"
    link.symlink_to(path.name)
    write_field(link, ["voice"])
    assert link.is_symlink()
    assert plan_field(path, []).before == "voice"


def test_the_digest_is_that_of_the_samples(tmp_path):
    one, other = music(), music()
    other[-1] += 1e-3
    digests = []
    for number, samples in enumerate((one, one, other, one[:-1], one[:, ::-1])):
        soundfile.write(tmp_path / f"{number}.wav", samples, 44100, subtype="FLOAT")
        digests.append(sound_digest(tmp_path / f"{number}.wav"))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4
    assert sound_digest(tmp_path / "0.wav", "isolated") == digests[0]
