from __future__ import annotations

import numpy as np
import pytest

from rfkeras.synthesis.filters import Band, filter_bands, steep

RATE_HZ = 44100


def gain_db(bands: tuple[Band, ...], frequency_hz: float) -> float:
    """Measure the gain of filters at a frequency, from their response to an impulse."""
    impulse = np.zeros(RATE_HZ, np.float32)
    impulse[0] = 1
    response = filter_bands(impulse, bands, RATE_HZ)
    wave = np.exp(-2j * np.pi * frequency_hz / RATE_HZ * np.arange(RATE_HZ))
    return float(20 * np.log10(np.abs((response * wave).sum()) + 1e-12))


@pytest.mark.parametrize("gain", [-12, -5, 6, 12])
@pytest.mark.parametrize("frequency_hz", [100.0, 1000.0, 8000.0])
def test_a_peak_has_its_gain_at_its_centre_and_none_far_away(gain, frequency_hz):
    bands = (Band("peak", frequency_hz, gain, q=2.0),)
    assert gain_db(bands, frequency_hz) == pytest.approx(gain, abs=0.05)
    assert gain_db(bands, 1.0) == pytest.approx(0, abs=0.1)
    if frequency_hz < 5000:  # the bandwidth of higher ones is smaller
        edge_hz = frequency_hz * (np.sqrt(1 + 1 / 16) - 1 / 4)
        assert gain_db(bands, edge_hz) == pytest.approx(gain / 2, abs=0.5)


@pytest.mark.parametrize("gain", [-12, 9])
@pytest.mark.parametrize(
    ("kind", "inside_hz", "outside_hz"),
    [("low_shelf", 20.0, 15000.0), ("high_shelf", 19000.0, 50.0)],
)
def test_a_shelf_has_its_gain_on_one_side_and_half_of_it_at_its_frequency(
    kind, inside_hz, outside_hz, gain
):
    bands = (Band(kind, 1000.0, gain),)
    assert gain_db(bands, inside_hz) == pytest.approx(gain, abs=0.2)
    assert gain_db(bands, 1000.0) == pytest.approx(gain / 2, abs=0.05)
    assert gain_db(bands, outside_hz) == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize(
    ("kind", "octave_out_hz", "inside_hz"),
    [("high_pass", 500.0, 8000.0), ("low_pass", 2000.0, 100.0)],
)
def test_a_steep_filter_falls_by_24_db_an_octave(kind, octave_out_hz, inside_hz):
    bands = steep(kind, 1000.0)
    assert gain_db(bands, 1000.0) == pytest.approx(-3, abs=0.1)
    assert gain_db(bands, octave_out_hz) == pytest.approx(-24.1, abs=0.6)
    assert gain_db(bands, inside_hz) == pytest.approx(0, abs=0.1)


def test_a_frequency_above_half_the_rate_is_lowered():
    impulse = np.eye(1, 100)[0]
    high, highest = (
        filter_bands(impulse, [Band("peak", frequency_hz, 6.0)], 8000)
        for frequency_hz in (10000.0, 3600.0)
    )
    np.testing.assert_array_equal(high, highest)
