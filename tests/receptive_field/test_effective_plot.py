"""The pictures of the measured field show its values, at the right seconds and Hz."""

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.patches import Rectangle

from rfkeras.errors import ConfigError
from rfkeras.plot_style import BLUE, ORANGE
from rfkeras.receptive_field import AxisField
from rfkeras.receptive_field.effective.field import EffectiveField
from rfkeras.receptive_field.effective.plot import effective_figure, plot_effective
from rfkeras.receptive_field.effective.tags_plot import plot_tags, tags_figure
from rfkeras.receptive_field.effective.windows import AxisMap
from rfkeras.receptive_field.units import scale_of_preset
from tests.evaluation.figures import has_colour, texts_overlap

FRAMES, BANDS = 431, 256
SPECTROGRAM = np.random.default_rng(0).normal(size=(FRAMES, BANDS))
SCALE = scale_of_preset("perceptual_mel_22k")


def bell(size, centre, deviation):
    """Gaussian energy of that size (time, frequency) around its centre."""
    time, band = (np.arange(n) + 0.5 - middle for n, middle in zip(size, centre, strict=True))
    energy = np.exp(-(time[:, None] ** 2 + band**2) / (2 * deviation**2))
    return energy / energy.sum()


def example(size=(135, 135), deviation=12.0, tags=(), scale=SCALE):
    """A field with windows of that size; () where a size is None: without limit."""
    fields = [None if n is None else AxisField(n, 16, 8 - n // 2) for n in size]
    axes = (AxisMap(fields[0], 26, FRAMES), AxisMap(fields[1], 15, BANDS))
    position = (axes[0].middle, axes[1].middle)
    seen = [axis.seen([index]) for axis, index in zip(axes, position, strict=True)]
    box = [stop - first for first, stop in seen]
    centre = [
        axis.centre(index) - axis.window(index)[0] - first
        for axis, index, (first, _) in zip(axes, position, seen, strict=True)
    ]
    return EffectiveField(
        energy=bell(box, centre, deviation),
        tags={tag: bell(box, centre, deviation * (1 + n / 50)) for n, tag in enumerate(tags)},
        axes=axes,
        offset=(seen[0][0], seen[1][0]),
        positions=(position,),
        clips=3,
        clipped=0,
        outside_share=0.0,
        scale=scale,
    )


def rectangles(axes):
    """(first frame, stop, first band, stop) of the rectangles drawn, in pixels."""
    drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    edges = [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in drawn]
    return [(x + 0.5, x + 0.5 + w, y + 0.5, y + 0.5 + h) for x, y, w, h in edges]


def test_windows_and_energy_lie_where_the_position_sees():
    field = example()
    position = (9, 5)
    axes = effective_figure(field, SPECTROGRAM, position, "title").axes[0]
    exact, outer, inner = rectangles(axes)
    assert exact == (85, 85 + 135, 21, 21 + 135)
    for drawn, share in ((outer, 0.95), (inner, 0.5)):
        first, stop, low, high = drawn
        assert (first + stop) / 2 == pytest.approx(85 + 67.5)
        assert (stop - first, high - low) == pytest.approx(field.window(share))
    energy = axes.images[1]
    assert energy.get_extent() == [84.5, 219.5, 20.5, 155.5]
    opacity = energy.get_array()[..., 3]
    np.testing.assert_allclose(opacity, np.sqrt(field.energy.T / field.energy.max()))


def test_ticks_stand_at_their_seconds_and_hz():
    axes = effective_figure(example(), SPECTROGRAM, None, "title").axes[0]
    seconds = dict(zip(axes.get_xticks(), axes.get_xticklabels(), strict=True))
    for at, text in seconds.items():
        assert SCALE.time_s(at) == pytest.approx(float(text.get_text()))
    assert [text.get_text() for text in seconds.values()][:3] == ["0", "1", "2"]
    bands = dict(zip(axes.get_yticks(), axes.get_yticklabels(), strict=True))
    for at, text in bands.items():
        assert SCALE.band_centre_hz(at) == pytest.approx(
            float(text.get_text().replace(",", ""))
        )
    assert {"500", "1,000", "5,000"} <= {text.get_text() for text in bands.values()}
    assert min(np.abs(np.diff(list(bands)))) > BANDS / 30


def test_curves_show_the_share_in_every_window():
    field = example()
    time, frequency = effective_figure(field, SPECTROGRAM, None, "title").axes[2:]
    even, curve = time.lines[:2]
    sizes, shares = field.curve(0)
    np.testing.assert_allclose(curve.get_xdata(), [field.span_ms(n) for n in sizes[1:]])
    np.testing.assert_array_equal(curve.get_ydata(), shares[1:])
    assert curve.get_xdata()[-1] == pytest.approx(SCALE.ms(135))
    assert even.get_ydata()[-1] == 1
    np.testing.assert_array_equal(frequency.lines[1].get_xdata(), field.curve(1)[0][1:])
    texts = [text.get_text() for text in time.texts]
    assert texts[0] == "exact: 135 frames, 3,204 ms"
    # 0.95 of a Gaussian lie within 1.96 standard deviations of 12.
    assert texts[1].startswith("95 %: 47 frames")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": (23, 23), "deviation": 4.0},
        {"size": (615, 615), "deviation": 40.0},
        {"size": (None, None), "deviation": 300.0},
        {"scale": None},
    ],
)
def test_no_text_overlaps_another_or_leaves_the_figure(options):
    assert texts_overlap(effective_figure(example(**options), SPECTROGRAM, None, "A")) == []


def test_files_hold_the_pictures(tmp_path):
    field = example(tags=("a",))
    plot_effective(tmp_path / "field.png", field, SPECTROGRAM)
    image = imread(tmp_path / "field.png")
    assert image.shape[:2] == (750, 1650)
    assert has_colour(image, BLUE) > 500
    assert has_colour(image, ORANGE) > 500
    plot_tags(tmp_path / "tags.png", field)
    assert has_colour(imread(tmp_path / "tags.png"), ORANGE) > 50


@pytest.mark.parametrize("number", [1, 3, 56])
def test_tags_stand_in_order_with_their_windows(number):
    tags = [f"mood_{tag}$x$" for tag in range(number)]
    field = example(tags=tags)
    figure = tags_figure(field)
    assert texts_overlap(figure) == []
    time, frequency = figure.axes
    shown = [text.get_text() for text in time.get_yticklabels()]
    assert shown == tags[::-1]  # the widest first
    for row, tag in enumerate(shown):
        half, most = field.for_tag(tag).window(0.5)[1], field.for_tag(tag).window(0.95)[1]
        assert list(frequency.lines[3 * row].get_xdata()) == [half, most]
        assert time.lines[3 * row].get_xdata()[1] == pytest.approx(
            field.span_ms(field.for_tag(tag).window(0.95)[0])
        )


def test_what_cannot_be_drawn():
    with pytest.raises(ConfigError, match="431 frames and 256 bands"):
        effective_figure(example(), SPECTROGRAM[:-1], None, "title")
    with pytest.raises(ConfigError, match="26 by 15 positions"):
        effective_figure(example(), SPECTROGRAM, (26, 0), "title")
    with pytest.raises(ConfigError, match="tag by tag"):
        tags_figure(example())
