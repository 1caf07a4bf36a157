from __future__ import annotations

from pathlib import Path

import pytest

from rfkeras import synthesis
from rfkeras.synthesis import generate, render
from rfkeras.synthesis.compose import Composition, compose
from rfkeras.synthesis.render import SoundFont

SMALL = 24


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The openmic-2018 folder of 24 clips, made without interruption by two workers."""
    root = tmp_path_factory.mktemp("gm_instruments")
    return synthesis.generate(root, size=SMALL, workers=2, progress=False)


@pytest.fixture(scope="session")
def many_clips() -> dict[str, list[Composition]]:
    """The compositions of 1,600 clips, by split: enough for statistics."""
    train, test = generate.clip_indices(1600)
    return {
        "train": [compose(0, index) for index in train],
        "test": [compose(0, index) for index in test],
    }


@pytest.fixture(scope="session")
def font() -> SoundFont:
    return render.load(render.default_path())
