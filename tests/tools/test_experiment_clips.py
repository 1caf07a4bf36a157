"""Clips of the receptive-field experiment (tools/experiment_clips.py)."""

import argparse
import random
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from rfkeras.synthesis.ensemble import compose_ensemble
from rfkeras.synthesis.recording_steps import Noise, Room
from rfkeras.synthesis.render import default_sound_font
from tests.helpers.recorded_notes import tone, write_table
from tools import experiment_clips
from tools.experiment_clips import (
    FRONTEND,
    PATTERNS,
    SETS,
    STEP_DB,
    TAGS,
    ClipSet,
    draw_place,
    is_near,
    main,
    pattern_tags,
    settings_of_set,
    write_set,
)
from tools.feature_parts import read_parts
from tools.render_features import write_front


@pytest.fixture
def sounds(tmp_path):
    rows = [
        ({"class": "guitar", "midi_pitch": pitch, "recording": name}, tone(pitch))
        for name in ("heard", "held-out")
        for pitch in (50, 60)
    ]
    font = default_sound_font()
    return argparse.Namespace(
        sound_font=[font],
        unheard_font=font,
        recordings=write_table(tmp_path, rows),
        hold_out=["held-out"],
        seen=["heard"],
    )


def test_places_are_drawn_apart():
    rng = random.Random(0)
    near = [draw_place(rng, "near") for _ in range(20)]
    far = [draw_place(rng, "far") for _ in range(20)]
    assert all(is_near(chain) is True for chain in near)
    assert all(is_near(chain) is False for chain in far)
    rooms = [step.size_m for chain in near for step in chain.steps if isinstance(step, Room)]
    assert rooms
    assert max(rooms) < 8
    assert all(any(isinstance(step, Room) for step in chain.steps) for chain in far)
    colours = {step.colour for chain in far for step in chain.steps if isinstance(step, Noise)}
    assert "brown" in colours


def test_sets_differ_in_what_they_promise(sounds):
    train, new, font, recordings = (
        settings_of_set(SETS[name], sounds) for name in ("train", "new", "font", "recordings")
    )
    assert (train.leave_out, recordings.leave_out) == (("held-out",), ("heard",))
    assert train.seed != new.seed == font.seed
    assert font.recordings is None
    assert (recordings.recording_share, recordings.parts) == (1.0, (1, 1))
    assert settings_of_set(SETS["near_train"], sounds) == train  # before the chain
    for settings in (train, new, font, recordings):
        assert (settings.negative_rate, settings.chain) == (0.0, False)


def test_pattern_tags_are_those_of_the_song():
    song = SimpleNamespace(mode="minor", beats_per_bar=3, tempo_bpm=119.0)
    assert pattern_tags(song) == (1, 1, 0)
    song = SimpleNamespace(mode="major", beats_per_bar=4, tempo_bpm=121.0)
    assert pattern_tags(song) == (0, 0, 1)


@pytest.mark.slow
def test_files_have_the_clips_of_a_set(sounds, tmp_path):
    front = tmp_path / "front.npz"
    write_front(front, FRONTEND, STEP_DB, TAGS)
    chosen = ClipSet(3, 5, "unheard font", "far")
    settings = settings_of_set(chosen, sounds)
    paths = write_set("mine", chosen, settings, front, tmp_path, 1)
    found = read_parts(paths, lambda text: None)
    assert found.scale.label_names == TAGS
    assert found.keys.tolist() == ["mine/0", "mine/1", "mine/2"]
    for index in range(3):
        piece = compose_ensemble(5, index).composition
        assert tuple(found.labels[index, :20]) == piece.labels
        assert tuple(found.labels[index, 20:]) == pattern_tags(piece.song)
        assert tuple(found.mask[index]) == (*piece.mask, *(True for _ in PATTERNS))
    assert (found.steps.reshape(3, -1).max(axis=1) > 20).all()
    assert np.unique(found.steps, axis=0).shape[0] == 3


@pytest.mark.slow
def test_the_command_divides_the_recordings(sounds, tmp_path, monkeypatch, capsys):
    small = {"mine": ClipSet(1, 5, "unheard recordings")}
    monkeypatch.setattr(experiment_clips, "SETS", small)
    found = []
    monkeypatch.setattr(
        experiment_clips,
        "write_set",
        lambda name, chosen, settings, *others: found.append(settings) or [],
    )
    font = str(sounds.unheard_font)
    command = [str(tmp_path / "out"), "--sound-font", font, "--unheard-font", font]
    command += ["--recordings", str(sounds.recordings), "--hold-out"]
    assert main([*command, "held-out"]) == 0
    assert found[0].leave_out == ("heard",)
    assert main(["--set", "mine", *command, "held-out", "heard"]) == 0
    assert found[1].leave_out == ()
    assert main([*command[:-2], str(tmp_path / "no.csv"), "--hold-out", "x"]) == 2
    assert "no.csv" in capsys.readouterr().err
