"""Finding files, spans of time and decisions, without a model."""

import itertools
import json
import os
from pathlib import Path

import mir_eval
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rfkeras
from rfkeras.audio.find import FoundFile, output_paths
from rfkeras.errors import ConfigError
from rfkeras.inference import FrameTimes, TagResult
from rfkeras.inference.output import (
    Outcome,
    TagRules,
    as_json,
    segments_text,
    sidecar_text,
    spans,
    spans_text,
)
from rfkeras.utils.text import clock, printable

# jams validates with a call that jsonschema will drop.
JAMS_VALIDATION = pytest.mark.filterwarnings("ignore:Passing a schema:DeprecationWarning")
TIMES = FrameTimes(stride_ms=1000.0, first_ms=500.0, window_ms=3000.0)


def rules(thresholds, exclusive=False):
    return TagRules("m", ("a", "b"), thresholds, exclusive, 22050, TIMES)


def result(frames, seconds=None):
    frames = np.array(frames, "float32")
    clip = frames.mean(axis=0)
    length = float(len(frames)) if seconds is None else seconds
    return TagResult(length, clip, clip, frames, np.zeros(3, "float32"), None)


def test_names_that_are_not_unicode_survive_json(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    outcome = Outcome(FoundFile(Path(name), Path(name)), error="broken")
    line = as_json(rules(None).record(outcome))
    assert line.encode()  # valid Unicode
    assert json.loads(line) == {"path": r"caf\udce9.wav", "error": "broken"}
    assert printable(Path("Bj\u00f6rk")) == "Bj\u00f6rk"


def test_two_files_cannot_share_an_output(tmp_path):
    one, two = (FoundFile(Path(d) / "x.ogg", Path("x.ogg")) for d in "ab")
    assert output_paths(Path("out"), [one], ".json") == [Path("out/x.ogg.json")]
    with pytest.raises(ConfigError, match="a/x.ogg and b/x.ogg would both"):
        output_paths(Path("out"), [one, two], ".json")


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_spans_cover_exactly_the_active_frames(active):
    active = np.array(active)
    edges = np.arange(len(active) + 1) * 0.5
    found = spans(active, edges)
    covered = np.array([any(a <= e < b for a, b in found) for e in edges[:-1]])
    np.testing.assert_array_equal(covered, active)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(found))


def test_spans_as_text():
    parts = [(12.2, 46.4), (48.1, 50.0), (63.0, 80.0), (3600.0, 3675.5)]
    assert spans_text(parts, 9) == "0:12-0:50, 1:03-1:20, 1:00:00-1:01:16"
    assert spans_text(parts, 1) == "0:12-0:50, and 2 more"
    assert spans_text([], 3) == ""
    assert [clock(s) for s in (0, 59.9, 75, 3599, 3600)] == [
        "0:00",
        "0:59",
        "1:15",
        "59:59",
        "1:00:00",
    ]


def test_a_tag_applies_at_its_threshold_and_only_one_exclusive_tag_applies():
    multi_label = rules(np.array([0.3, 0.6]))
    scores = np.array([[0.3, 0.5], [0.2, 0.6]], "float32")
    np.testing.assert_array_equal(multi_label.applies(scores), [[True, False], [False, True]])
    exclusive = rules(None, exclusive=True)
    np.testing.assert_array_equal(exclusive.applies(scores), [[False, True], [False, True]])
    strict = rules(np.array([0.55, 0.55]), exclusive=True)
    np.testing.assert_array_equal(strict.applies(scores), [[False, False], [False, True]])


def test_tags_that_apply_longest_rank_first():
    multi_label = rules(np.array([0.6, 0.6]))
    scored = result([[0.9, 0.7], [0.1, 0.7], [0.9, 0.1], [0.9, 0.0]])
    assert multi_label.ranking(scored) == [0, 1]
    assert multi_label.spans(scored) == [[(0.0, 1.0), (2.0, 4.0)], [(0.0, 2.0)]]


def test_time_ranks_before_the_score_and_applying_before_time():
    # "a" applies for 3 s with a lower score of the file than "b", which applies for 1 s.
    long_and_low = result([[0.7, 0.1], [0.7, 0.1], [0.7, 2.6]])
    assert long_and_low.scores[0] < long_and_low.scores[1]
    assert rules(np.array([0.6, 0.6])).ranking(long_and_low) == [0, 1]
    # With a threshold of 0.8, "a" no longer applies to the file.
    assert rules(np.array([0.8, 0.6])).ranking(long_and_low) == [1, 0]
    # In equal time, the higher score is first.
    assert rules(np.array([0.6, 0.6])).ranking(result([[0.7, 0.8], [0.7, 0.8]])) == [1, 0]


def test_the_head_describes_the_model_and_its_frames():
    head = rules(np.array([0.25, 0.6])).head()
    assert head["thresholds"] == {"a": 0.25, "b": 0.6}
    assert (head["task"], head["model"], head["labels"]) == ("multi_label", "m", ["a", "b"])
    times = (head["sample_rate_hz"], head["frame_stride_s"], head["frame_window_s"])
    assert times == (22050, 1.0, 3.0)
    exclusive = rules(None, exclusive=True).head()
    assert (exclusive["thresholds"], exclusive["task"]) == (None, "single_label")


def test_padding_frames_of_a_short_file_are_in_no_span():
    assert rules(np.array([0.5, 0.5])).spans(result([[1, 0], [1, 0]], 0.4)) == [
        [(0.0, 0.4)],
        [],
    ]


def two_tags(exclusive=False):
    """Return rules, and a result in which "a" applies twice and "b c" once, for a time."""
    thresholds = None if exclusive else np.array([0.5, 0.6])
    made = TagRules("m", ("a", "b\tc"), thresholds, exclusive, 22050, TIMES)
    return made, result([[0.9, 0.1], [0.7, 0.7], [0.2, 0.8], [0.6, 0.1]], 3.7)


def test_segments_are_read_by_mir_eval(tmp_path):
    made, scored = two_tags()
    path = tmp_path / "song.segments.txt"
    path.write_text(segments_text(made, scored))
    intervals, labels = mir_eval.io.load_labeled_intervals(str(path))
    np.testing.assert_allclose(intervals, [[0, 2], [1, 3], [3, 3.7]], atol=1e-6)
    assert labels == ["a", "b c", "a"]
    mir_eval.util.validate_intervals(intervals)
    assert segments_text(rules(np.array([2.0, 2.0])), scored) == ""


@JAMS_VALIDATION
def test_jams_reads_and_validates_the_tags_over_time(tmp_path):
    jams = pytest.importorskip("jams")
    made, scored = two_tags()
    file = FoundFile(Path("song.ogg"), Path("song.ogg"))
    path = tmp_path / "song.jams"
    path.write_text(sidecar_text("jams", made, Outcome(file, scored), {"job": "j"}))
    document = jams.load(str(path), validate=True, strict=True)
    assert document.file_metadata.duration == 3.7
    (annotation,) = document.search(namespace="tag_open")
    assert [(o.time, round(o.time + o.duration, 6), o.value) for o in annotation.data] == [
        (0, 2, "a"),
        (1, 3, "b\tc"),
        (3, 3.7, "a"),
    ]
    confidences = [o.confidence for o in annotation.data]
    np.testing.assert_allclose(confidences, [0.8, 0.75, 0.6], atol=1e-6)
    assert (annotation.time, annotation.duration) == (0, 3.7)
    metadata = annotation.annotation_metadata
    assert metadata.version == rfkeras.__version__
    assert metadata.annotator.model == "m"
    assert metadata.annotator.thresholds == {"a": 0.5, "b\tc": 0.6}
    record = document.sandbox.rfkeras
    assert (record["path"], record["tags"], record["job"]) == ("song.ogg", ["a"], "j")


@JAMS_VALIDATION
def test_jams_of_exclusive_tags_has_no_thresholds(tmp_path):
    jams = pytest.importorskip("jams")
    made, scored = two_tags(exclusive=True)
    file = FoundFile(Path("song.ogg"), Path("song.ogg"))
    path = tmp_path / "song.jams"
    path.write_text(sidecar_text("jams", made, Outcome(file, scored), {}))
    (annotation,) = jams.load(str(path), validate=True).annotations
    assert annotation.annotation_metadata.annotator.thresholds is None
    assert "highest" in annotation.annotation_metadata.annotation_rules
    # Frame 1 is a tie, so both apply there.
    spans = [(o.value, o.time, o.duration) for o in annotation.data]
    assert spans == [("a", 0, 2), ("b\tc", 1, 2), ("a", 3, 0.7)]
