from __future__ import annotations

from pathlib import Path

import pytest

from rfkeras.data.sources import gm_instruments
from rfkeras.data.sources.gm_instruments import layout, soundfont
from rfkeras.data.sources.gm_instruments.compose import Composition, compose
from rfkeras.data.sources.gm_instruments.soundfont import SoundFont

SMALL = 24


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The openmic-2018 folder of 24 clips, made without interruption by two workers."""
    root = tmp_path_factory.mktemp("gm_instruments")
    return gm_instruments.generate(root, size=SMALL, workers=2, progress=False)


@pytest.fixture(scope="session")
def many_clips() -> dict[str, list[Composition]]:
    """The compositions of 1,600 clips, by split: enough for statistics."""
    train, test = layout.clip_indices(1600)
    return {
        "train": [compose(0, index) for index in train],
        "test": [compose(0, index) for index in test],
    }


@pytest.fixture(scope="session")
def font() -> SoundFont:
    return soundfont.load(soundfont.default_path())
