"""The different networks of the zoo, without models that differ only in width."""

import sys
from contextlib import contextmanager
from unittest import mock

import zoo

WIDTH = 8  # small enough to run every test on every network


def configurations():
    """Return one name per network, with the options that make it small."""
    found = {}
    for name in zoo.list_models():
        info = zoo.model_info(name)
        rest = {key: value for key, value in info.options.items() if key != "width"}
        found.setdefault((info.builder.__name__, str(rest)), name)
    return {
        name: {"width": WIDTH} if "width" in zoo.model_info(name).options else {}
        for name in found.values()
    }


FEW_BLOCKS = {"blocks": (1, 1, 1), "allow_rf_change": True}  # the first is pooled
FEW_DENSE_LAYERS = (1, 2, 1, 1)  # with kernels of 3 and 1, before and after every transition


@contextmanager
def few_layers(name):
    """Make a network of the zoo shallow, with one layer or block of every kind.

    Yields:
        The options with which to build it.
    """
    options = dict(configurations()[name])
    dense = sys.modules["zoo.densenet_rf"]
    with mock.patch.object(dense, "DEPTHS", FEW_DENSE_LAYERS):
        if "blocks" in zoo.model_info(name).options:
            options |= FEW_BLOCKS
        elif name == "densenet_rf":
            options["rho"] = 2
        yield options


def combined_configurations():
    """Return the networks of which no other has the same architecture and more options."""
    names = list(configurations())
    return [name for name in names if not any(_extends(other, name) for other in names)]


def _extends(other, name):
    """Return whether a network is another with additional options."""
    builders = {zoo.model_info(each).builder for each in (other, name)}
    own, others = _choices(name), _choices(other)
    return len(builders) == 1 and own != others and own.items() <= others.items()


def _choices(name):
    """Return the options that change the kinds of layers of a network."""
    options = zoo.model_info(name).options
    return {
        key: value
        for key, value in options.items()
        if key not in ("rho", "width") and value not in (None, False)
    }
