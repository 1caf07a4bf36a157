from __future__ import annotations

from pathlib import Path

import pytest

from rfkeras import synthesis
from rfkeras.synthesis.compose import Composition, compose
from rfkeras.synthesis.generate import clip_indices
from rfkeras.synthesis.render import SoundFont, default_sound_font, load_sound_font

SMALL = 24


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the openmic-2018 folder of 24 clips that two workers made without interruption."""
    root = tmp_path_factory.mktemp("gm_instruments")
    return synthesis.generate(root, size=SMALL, workers=2, progress=False)


@pytest.fixture(scope="session")
def many_clips() -> dict[str, list[Composition]]:
    """Return the compositions of 1,600 clips by split, enough for statistics."""
    train, test = clip_indices(1600)
    return {
        "train": [compose(0, index) for index in train],
        "test": [compose(0, index) for index in test],
    }


@pytest.fixture(scope="session")
def font() -> SoundFont:
    return load_sound_font(default_sound_font())
