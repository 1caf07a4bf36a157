"""Sound fonts, loudness, the mix and the Ogg encoder."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rfkeras.errors import ConfigError, DatasetError
from rfkeras.synthesis.compose import compose
from rfkeras.synthesis.mapping import KITS, programs_used
from rfkeras.synthesis.render import (
    CLIP_RMS,
    SAMPLE_RATE_HZ,
    SoundFont,
    encode_ogg,
    gated_loudness,
    load_sound_font,
    mix,
    page_checksum,
    render,
    render_stem,
    with_fixed_serial,
    with_rms,
)


def _sine(frequency_hz: float, peak: float, seconds: float = 2.0) -> np.ndarray:
    time = np.arange(int(48000 * seconds)) / 48000
    return (peak * np.sin(2 * np.pi * frequency_hz * time)).astype(np.float32)


def _centroid_hz(samples: np.ndarray, rate_hz: int) -> float:
    power = np.abs(np.fft.rfft(samples)) ** 2
    return float((power * np.fft.rfftfreq(len(samples), 1 / rate_hz)).sum() / power.sum())


def test_loudness_of_tones_follows_bs1770() -> None:
    # The recommendation: 997 Hz at full scale is -3.01 LKFS before the offset of -0.691,
    # that is -3.01 + 0.69 as a plain mean square.
    assert gated_loudness(_sine(997, 1.0), 48000) == pytest.approx(-3.01 + 0.69, abs=0.1)
    assert gated_loudness(_sine(10000, 1.0), 48000) == pytest.approx(-3.01 + 4.0, abs=0.1)
    assert gated_loudness(_sine(40, 1.0), 48000) < -3.01 - 5


def test_loudness_ignores_pauses() -> None:
    tone = _sine(997, 0.1)
    paused = np.concatenate([tone, np.zeros(48000 * 8, np.float32)])
    assert gated_loudness(paused, 48000) == pytest.approx(gated_loudness(tone, 48000), abs=0.01)
    assert gated_loudness(np.zeros(48000, np.float32), 48000) == -np.inf


def test_with_rms_reaches_the_level_without_clipping() -> None:
    generator = np.random.default_rng(0)
    spiky = generator.normal(size=44100) * (generator.random(44100) < 0.02)
    for samples in (_sine(440, 0.3).astype(np.float64), spiky):
        shaped = with_rms(samples, 0.05)
        assert np.sqrt(np.mean(shaped.astype(np.float64) ** 2)) == pytest.approx(0.05, rel=2e-3)
        assert np.abs(shaped).max() < 1


def test_ogg_bytes_depend_only_on_the_samples(tmp_path: Path) -> None:
    samples = _sine(440, 0.3)
    first = encode_ogg(samples, SAMPLE_RATE_HZ)
    assert encode_ogg(samples, SAMPLE_RATE_HZ) == first
    path = tmp_path / "clip.ogg"
    path.write_bytes(first)
    decoded, rate = soundfile.read(path)
    assert (rate, len(decoded)) == (SAMPLE_RATE_HZ, len(samples))
    assert np.abs(decoded - samples).max() < 0.05


def test_page_checksum_matches_the_encoder(tmp_path: Path) -> None:
    path = tmp_path / "clip.ogg"
    soundfile.write(path, _sine(440, 0.3), 44100, format="OGG", subtype="VORBIS")
    page = bytearray(path.read_bytes()[: 27 + 1 + 30])  # the first page: 30 bytes of header
    stored = int.from_bytes(page[22:26], "little")
    page[22:26] = bytes(4)
    assert page_checksum(bytes(page)) == stored
    with pytest.raises(ValueError, match="No Ogg page at byte 0"):
        with_fixed_serial(b"RIFF....")


def test_level_of_every_clip_is_the_target_plus_its_jitter(small_set: Path) -> None:
    """Check that the level is CLIP_RMS plus a random gain, and the rest far smaller."""
    rest = []
    for path in sorted(small_set.rglob("*.ogg")):
        samples, rate = soundfile.read(path)
        assert rate == SAMPLE_RATE_HZ
        assert samples.shape == (441000,)
        assert np.abs(samples).max() < 1
        level_db = 20 * np.log10(np.sqrt(np.mean(samples**2)) / CLIP_RMS)
        assert abs(level_db) < 2.3
        rest.append(level_db - compose(0, int(path.name[:6])).jitter_db)
    assert len(rest) == 24
    assert np.abs(rest).max() < 0.3
    assert np.std(rest) < 0.1


def test_labelled_instruments_are_audible_in_the_mix(font: SoundFont) -> None:
    for index in range(6):
        clip = compose(5, index)
        stems = [render_stem(part, clip.kit, clip.tuning_cents, font) for part in clip.parts]
        levels = {
            part.casting.instrument.name: gated_loudness(stem, 48000)
            for part, stem in zip(clip.parts, stems, strict=True)
        }
        assert all(np.isfinite(level) for level in levels.values())
        whole = mix(clip, stems).astype(np.float64)
        for number in range(len(stems) if len(stems) > 1 else 0):
            without = replace(clip, parts=clip.parts[:number] + clip.parts[number + 1 :])
            rest = mix(without, stems[:number] + stems[number + 1 :]).astype(np.float64)
            likeness = np.dot(whole, rest) / np.sqrt(np.dot(whole, whole) * np.dot(rest, rest))
            assert likeness < 0.998, (index, clip.parts[number].casting)


def test_mix_does_not_depend_on_the_level_of_a_stem(font: SoundFont) -> None:
    clip = next(c for c in (compose(5, i) for i in itertools.count()) if len(c.parts) == 2)
    stems = [render_stem(part, clip.kit, clip.tuning_cents, font) for part in clip.parts]
    louder = [stems[0] * 30, stems[1]]
    np.testing.assert_allclose(mix(clip, louder), mix(clip, stems), atol=2e-4)


def test_registers_and_families_differ_in_spectrum(font: SoundFont) -> None:
    centroids: dict[str, list[float]] = {}
    for index in range(200):
        part = compose(0, index).parts[0]
        name = part.casting.instrument.name
        if name in ("bass", "cymbals", "violin") and len(centroids.get(name, [])) < 3:
            stem = render_stem(part, 0, 0.0, font)
            centroids.setdefault(name, []).append(_centroid_hz(stem, 48000))
    medians = {name: np.median(values) for name, values in centroids.items()}
    assert medians["bass"] < 400
    assert 500 < medians["violin"] < 3000
    assert medians["cymbals"] > 4000


def test_rendering_is_repeatable_and_follows_the_tuning(font: SoundFont) -> None:
    clip = compose(0, 1)
    np.testing.assert_array_equal(render(clip, font), render(clip, font))
    sharp = replace(clip, tuning_cents=clip.tuning_cents + 50)
    assert np.abs(render(sharp, font) - render(clip, font)).max() > 0.01


def test_default_sound_font_has_all_sounds(font: SoundFont) -> None:
    assert font.path.name == "TimGM6mb.sf2"
    assert set(KITS) <= font.kits
    assert len(programs_used()) == 72


def test_silent_part_is_an_error() -> None:
    clip = compose(0, 1)
    with pytest.raises(DatasetError, match=r"accordion .* is silent"):
        mix(clip, [np.zeros(480000, np.float32)])


def test_a_missing_renderer_is_explained(
    font: SoundFont, monkeypatch: pytest.MonkeyPatch
) -> None:
    composition = compose(0, 0)
    monkeypatch.setitem(sys.modules, "midirenderer", None)
    with pytest.raises(DatasetError, match="pip install midirenderer==0.1.3"):
        render(composition, font)


def test_sound_fonts_are_checked(tmp_path: Path, font: SoundFont) -> None:
    with pytest.raises(ConfigError, match=r"must be an \.sf2 file"):
        load_sound_font(tmp_path / "absent.sf2")
    text = tmp_path / "text.sf2"
    text.write_text("no sound font")
    with pytest.raises(ConfigError, match="SoundFont 2 format"):
        load_sound_font(text)
    # Change program 105 (banjo) in its header record to an unused program.
    poor = bytearray(font.content)
    place = poor.rfind(b"phdr") + 8
    while poor[place + 20 : place + 24] != bytes((105, 0, 0, 0)):
        place += 38
    poor[place + 20] = 120
    path = tmp_path / "poor.sf2"
    path.write_bytes(poor)
    with pytest.raises(DatasetError, match=r"Missing programs: \[105\]"):
        load_sound_font(path)
