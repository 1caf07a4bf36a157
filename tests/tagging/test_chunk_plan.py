"""The arithmetic of chunks, on random numbers, without a model."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from rfkeras.receptive_field import AxisField, SpectrogramScale
from rfkeras.tagging.chunks import overlapping, side_by_side

SETTINGS = {"deadline": None, "derandomize": True, "max_examples": 200}
fields = st.builds(AxisField, st.integers(1, 300), st.integers(1, 48), st.integers(-150, 5))
scales = st.builds(
    SpectrogramScale, st.just(8000), st.integers(2, 900), st.integers(1, 400), st.just(8)
)


@settings(**SETTINGS)
@given(
    fields,
    scales,
    st.floats(1e-3, 60),
    st.integers(1, 40000),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_every_frame_is_decided_once_and_by_audio_alone(
    field, scale, seconds, min_samples, margins
):
    plan = overlapping(field, scale, seconds, min_samples, margins)
    hop, before = scale.hop_samples, scale.window_samples // 2
    pixels = 1 + plan.samples // hop

    def sound(frame):
        """Whether a frame's window keeps off the chunk's start, and its end."""
        first, stop = field.window(frame)
        last_sample = (stop - 1) * hop - before + scale.window_samples
        return (
            first * hop >= before and first >= margins[0],
            last_sample <= plan.samples and stop <= pixels - margins[1],
        )

    # All windows do both, and of the next frames to either side none does.
    assert sound(plan.skip)[0]
    assert sound(plan.stop - 1)[1]
    assert not sound(plan.stop)[1]
    assert plan.skip == 0 or not sound(plan.skip - 1)[0]
    # The frames that a chunk leaves to the next one are the next one's first.
    assert plan.step_samples == (plan.stop - plan.skip) * field.jump * hop
    # Frames of a stride lie where they lie in the whole, and about so much is new.
    assert (plan.samples + 1) % (field.jump * hop) == 0
    assert plan.step_samples > seconds * 8000 - field.jump * hop
    # The last chunk is never one that the model would pad.
    assert plan.reserve_samples - plan.step_samples >= min_samples
    assert plan.reserve_samples >= plan.samples


@settings(**SETTINGS)
@given(
    st.fractions(Fraction(1, 4), 96, max_denominator=4),
    st.integers(-200, 50),
    scales,
    st.floats(1e-3, 10),
)
def test_chunks_side_by_side_make_one_grid(jump, more, scale, seconds):
    hop = scale.hop_samples

    def count(samples):
        return max(0, int((samples // hop + 1 + more) / jump))

    plan = side_by_side(count, jump, scale, seconds, min_samples=1)
    assert plan.skip == 0
    assert plan.step_samples == plan.stop * jump * hop
    assert count(plan.samples) >= plan.stop
    assert plan.samples + 1 == plan.step_samples or count(plan.samples - hop) < plan.stop
    assert plan.reserve_samples >= 2 * plan.step_samples
    assert abs(plan.step_samples - seconds * 8000) <= jump.numerator * hop
    whole = side_by_side(lambda samples: 1, Fraction(0), scale, 2.0, min_samples=1)
    assert (whole.samples, whole.step_samples, whole.stop) == (16000, 16000, 1)
