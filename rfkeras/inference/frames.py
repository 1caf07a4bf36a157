"""When the frames of a Keras model occur, and what its chunks must overlap by."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import replace
from fractions import Fraction
from functools import cached_property

import keras

from rfkeras.errors import ConfigError
from rfkeras.frontend import find_frontend
from rfkeras.frontend.layer import Frontend
from rfkeras.frontend.presets import scale_of_frontend
from rfkeras.inference.chunks import (
    ChunkPlan,
    FrameSamples,
    FrameTimes,
    Overlap,
    frame_samples,
    separate_chunks,
)
from rfkeras.rf import receptive_field
from rfkeras.rf.axis import AxisField
from rfkeras.rf.lengths import LONGEST, length_problem, shortest_input
from rfkeras.utils.keras_workarounds import graph_nodes
from rfkeras.utils.model_graph import inlined, layer_tensor, only_input, part_of_model
from zoo.tagger import top_head


def frame_times(model: keras.Model) -> FrameTimes | None:
    """Return the times of a tagger's frames.

    Args:
        model: Functional, with a `ClipLogits` layer at its end.

    Returns:
        The times. None for a model without a front-end, whose units are unknown, and for one
        whose number of frames does not depend on the length of the audio.

    Raises:
        ConfigError: The model has no `ClipLogits` layer at its end.
    """
    frontend = find_frontend(model)
    return None if frontend is None else FrameGrid(model, frontend).times()


# Length of the spectrogram used to measure layers. Divisible by most frame strides of models.
_SPAN_FRAMES = 2**10 * 3**3 * 5 * 7
_MOST_JUMPS = 64  # lengths compared for layers with strides before the front-end


class FrameGrid:
    """The frames along time of a model with a front-end.

    The layers before the front-end count: they shift and widen the audio that a frame reads.

    Args:
        model: Functional or Sequential, with a `ClipLogits` layer at its end.
        frontend: The model's front-end.

    Attributes:
        scale: Units of the spectrogram.
        shortest: Shortest audio, in samples, that the model can compute.
        min_samples: Shortest audio that the model neither pads nor rejects.
        field: Receptive field along time, in spectrogram frames; None if unlimited or unknown.
        jump: Distance between two frames of the model, in hops of the front-end counted at the
            model's input; 0 if longer audio does not give more frames.
        reads: Samples of the input that a frame of the spectrogram reads; None if unlimited or
            unknown.
        reasons: Why chunks do not give the frames of the whole audio; empty if they do.

    Raises:
        ConfigError: The model has no such head, or the number of its frames is unknown.
    """

    def __init__(self, model: keras.Model, frontend: Frontend) -> None:
        graph = inlined(model)
        self.scale = scale_of_frontend(frontend)
        self.shortest = shortest_input(graph)
        source = only_input(graph)
        logit_map = layer_tensor(graph, top_head(graph), "input")
        self._to_map = keras.Model(source, logit_map, name="to_map")
        self._channels = source.shape[2:]
        self._body: keras.Model | None = None
        self._before: keras.Model | None = None  # the layers before the front-end, if any
        self.field: AxisField | None = None
        self.reads: FrameSamples | None = None
        reasons: list[str] = []
        try:
            waveform = layer_tensor(graph, frontend, "input")
            spectrogram = layer_tensor(graph, frontend, "output")
            self._body = part_of_model(spectrogram, logit_map)
            self._to_spectrogram = keras.Model(source, spectrogram)
            if waveform is not source:
                self._before = keras.Model(source, waveform, name="before_frontend")
        except ValueError as error:
            reasons.append(f"the model's frames are not computed from one spectrogram: {error}")
        if self._body is not None:
            self.field, reasons = _time_field(self._body, frontend)
            self.reads, own_reasons = self._frame_samples()
            reasons += own_reasons
        self.min_samples = max(self.shortest, self._unpadded(frontend.min_samples))
        if self.field is None or self.reads is None:
            self.jump = self._measured_jump()
        else:
            self.jump = Fraction(self.field.jump) * self.reads.hop / self.scale.hop_samples
        if not frontend.fixed_floor:
            reasons.append(
                "the front-end sets its dB floor relative to the loudest point of its input: "
                "create the model with a front-end that has fixed_floor=True"
            )
        self.reasons = tuple(reasons)

    def count(self, samples: int) -> int:
        """Return the model's number of frames for a waveform of this many samples."""
        try:
            shape = self._to_map.compute_output_shape((1, samples, *self._channels))
        except ValueError:  # too short for a layer
            return 0
        if shape[1] is None:
            raise ConfigError(
                f"The number of frames of model {self._to_map.name!r} is unknown: one of its "
                "layers does not implement compute_output_shape."
            )
        return max(0, int(shape[1]))

    def plan(self, step_seconds: float) -> ChunkPlan:
        """Plan chunks with about this much new audio in each."""
        overlap = self.overlap
        if overlap is not None:
            return overlap.plan(step_seconds, self._longest)
        return separate_chunks(
            self.count, self.jump, self.scale, step_seconds, self.min_samples
        )

    @cached_property
    def overlap(self) -> Overlap | None:
        """The overlap of chunks; None if no overlap gives every frame its whole window."""
        if self.reads is None or self.field is None or self._body is None:
            return None
        if self.field.windows or self.jump <= 0:
            return None
        margins = _margins(self._body, self.field)
        return Overlap(self.field, self.scale, self.min_samples, margins, self.reads)

    @property
    def starts_with_frontend(self) -> bool:
        """Return whether no layer is before the front-end."""
        return self._before is None

    def times(self) -> FrameTimes | None:
        """Return the times of the frames.

        Returns:
            The times; None if the number of frames does not depend on the length of the audio.
        """
        if not self.jump:
            return None
        hop_ms, rate_hz = self.scale.hop_ms, self.scale.sample_rate_hz
        shift, jump = (0.0, 1.0) if self._before is None else _shift(self._before)
        window_ms = None
        if self.field is None:
            centre = float(self.jump - Fraction(jump)) / 2
        else:
            first, stop = self.field.window(0)
            centre = (first + stop - 1) / 2 * jump
            if self.reads is not None:
                seen = (self.field.size - 1) * self.reads.hop
                samples = seen + self.reads.before + self.reads.after
                window_ms = 1000.0 * samples / rate_hz
        first_ms = centre * hop_ms + 1000.0 * shift / rate_hz
        return FrameTimes(float(self.jump) * hop_ms, first_ms, window_ms)

    def _measured_jump(self) -> Fraction:
        """Measure the jump from the numbers of frames for two lengths."""
        short, long = _SPAN_FRAMES, 2 * _SPAN_FRAMES
        hop = self.scale.hop_samples
        if not self.count(long * hop - 1):
            problem = length_problem(self._to_map, long * hop - 1)
            raise ConfigError(f"The number of the model's frames is unknown: {problem}")
        more = self.count(long * hop - 1) - self.count(short * hop - 1)
        return Fraction(_SPAN_FRAMES, more).limit_denominator(64) if more else Fraction(0)

    def _waveform_length(self, samples: int) -> int:
        """Return the number of samples that the front-end receives."""
        if self._before is None:
            return samples
        try:
            shape = self._before.compute_output_shape((1, samples, *self._channels))
        except ValueError:  # too short for a layer
            return 0
        return max(0, int(shape[1]))

    def _unpadded(self, min_samples: int) -> int:
        """Return the shortest audio of which the front-end receives this many samples."""
        if self._before is None or self._waveform_length(LONGEST) < min_samples:
            return min_samples
        return bisect_left(range(LONGEST), min_samples, key=self._waveform_length)

    def _longest(self, frames: int) -> int:
        """Return the longest audio that gives this many spectrogram frames."""
        samples = frames * self.scale.hop_samples - 1
        if self._before is None:
            return samples
        return bisect_right(range(LONGEST), samples, key=self._waveform_length) - 1

    def _frame_samples(self) -> tuple[FrameSamples | None, list[str]]:
        """Return the input that spectrogram frames read, and reasons against chunks."""
        plain = frame_samples(self.scale)
        if self._before is None:
            return plain, []
        try:
            field = receptive_field(self._to_spectrogram)
            seen = field.waveform
            if seen is None or not seen.jump:
                why = "".join(f" ({note})" for note in field.notes[:1])
                return None, [f"a layer before the front-end reads the whole audio{why}"]
            if seen.windows:
                return None, [
                    "the layers before the front-end repeat or interpolate samples, so the "
                    "windows of its frames differ"
                ]
            margins = self._sample_margins(seen)
        except ConfigError as error:
            return None, [f"what the layers before the front-end read is unknown: {error}"]
        if margins is None:
            return None, [
                "the padding of a strided layer before the front-end depends on the audio "
                "length: use padding='valid'"
            ]
        jump = int(seen.jump)
        after = seen.start + jump * (plain.after - 1) + seen.size
        reads = FrameSamples(jump * plain.hop, jump * plain.before - seen.start, after)
        return replace(reads, left=margins[0], right=margins[1]), []

    def _sample_margins(self, seen: AxisField) -> tuple[int, int] | None:
        """Return the samples at a chunk's ends that frames must not read; see `_margins`.

        Returns:
            (at the start, at the end); None if the field depends on the length of the audio.
        """
        jump = int(seen.jump)
        long = 16 * (seen.size + abs(seen.start)) + jump * 4 * self.scale.window_samples
        left = right = 0
        for samples in range(long, long + min(jump, _MOST_JUMPS)):
            exact = receptive_field(
                self._to_spectrogram, input_shape=(samples, *self._channels)
            )
            if exact.waveform != seen:
                return None
            for row in exact.layers:
                if row.in_pixels or row.time is None or row.positions[0] is None:
                    continue
                left = max(left, row.time.window(-1)[0] + 1)
                right = max(right, samples - row.time.window(row.positions[0])[1] + 1)
        return left, right


def _shift(before: keras.Model) -> tuple[float, float]:
    """Return where the samples of a front-end's waveform are in the model's input.

    Layers that read the whole audio, such as a normalisation to the peak level, do not move its
    samples.

    Returns:
        (centre of what sample 0 sees, distance between samples), in samples of the input.
    """
    try:
        field = receptive_field(before)
    except ConfigError:
        return 0.0, 1.0
    if field.time is not None and field.time.jump:
        first, stop = field.time.window(0)
        return (first + stop - 1) / 2, float(field.time.jump)
    centre, jump = 0.0, 1.0
    for row in field.layers:
        if row.time is None or not row.time.jump:
            break
        first, stop = row.time.window(0)
        centre, jump = (first + stop - 1) / 2, float(row.time.jump)
    else:
        return centre, jump
    if row.name not in {node.operation.name for node in graph_nodes(before)}:
        return centre, jump
    try:
        rest = part_of_model(layer_tensor(before, row.name, "output"), before.outputs[0])
    except ValueError:  # the end also depends on an earlier layer
        return centre, jump
    if len(rest.layers) < 2:
        return centre, jump
    offset, distance = _shift(rest)
    return centre + jump * offset, jump * distance


def _time_field(body: keras.Model, frontend: Frontend) -> tuple[AxisField | None, list[str]]:
    """Return (receptive field along time, or None if unusable; reasons against chunks)."""
    try:
        rf = receptive_field(body)
    except ConfigError as error:
        return None, [f"the model's receptive field is unknown: {error}"]
    if rf.time is None or not rf.time.jump:
        why = "".join(f" ({note})" for note in rf.notes[:1] if rf.time is None)
        return None, [f"each frame depends on the whole input of the model{why}"]
    if rf.time.windows:
        return rf.time, ["the model's frames have windows of different sizes"]
    if rf.notes and _moves_with_length(body, frontend, rf.time):
        return rf.time, [
            "the padding of strided layers with padding='same' depends on the audio length: "
            "use keras.layers.ZeroPadding2D and padding='valid'"
        ]
    return rf.time, []


def _moves_with_length(body: keras.Model, frontend: Frontend, time: AxisField) -> bool:
    """Return whether the positions of the frames depend on the length of the audio."""
    enough = frontend.min_samples // frontend.hop_samples + 2
    sizes = body.inputs[0].shape[2:]
    fields = (
        receptive_field(body, input_shape=(frames, *sizes)).time
        for frames in range(enough, enough + int(time.jump))
    )
    return any(field != time for field in fields)


def _margins(body: keras.Model, time: AxisField) -> tuple[int, int]:
    """Return the spectrogram frames at a chunk's ends that its frames must not use.

    A padding layer puts zeros where the whole audio has map values. Usually these positions
    belong to windows that reach beyond the chunk. After cropping they can belong to windows
    inside it.

    Returns:
        (first usable frame, number of unusable frames at the end).
    """
    frames = _SPAN_FRAMES * int(time.jump)  # longer than what cropping removes
    left = right = 0
    for row in receptive_field(body, input_shape=(frames, *body.inputs[0].shape[2:])).layers:
        if row.in_pixels and row.time is not None and row.positions[0] is not None:
            left = max(left, row.time.window(-1)[0] + 1)
            right = max(right, frames - row.time.window(row.positions[0])[1] + 1)
    return left, right
