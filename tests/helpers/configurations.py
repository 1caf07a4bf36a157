"""The different networks of the zoo, without models that differ only in width."""

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
