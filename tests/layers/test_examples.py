"""The examples in docstrings of layers, front-end, receptive field and folding run as shown."""

import doctest
import importlib

import numpy as np
import pytest

import rfkeras
import zoo

MODULES = (
    "rfkeras.layers.augmentation",
    "rfkeras.layers.conv",
    "rfkeras.layers.dense",
    "rfkeras.layers.head",
    "rfkeras.layers.residual",
    "rfkeras.frontend.layer",
    "rfkeras.folding",
    "rfkeras.rf.rho",
    "rfkeras.rf.trace",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    names = {"np": np, "rfkeras": rfkeras, "zoo": zoo, **vars(module)}
    tests = [test for test in doctest.DocTestFinder().find(module, extraglobs=names)]
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test)
    assert runner.tries > 0
    assert runner.failures == 0
