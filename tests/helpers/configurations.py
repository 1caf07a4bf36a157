"""The different networks of the zoo: its names, less those that differ in width alone."""

import zoo

WIDTH = 8  # small enough to run every network through everything


def configurations():
    """{name: options that make it small}, one name for each different network."""
    found = {}
    for name in zoo.list_models():
        info = zoo.model_info(name)
        rest = {key: value for key, value in info.options.items() if key != "width"}
        found.setdefault((info.builder.__name__, str(rest)), name)
    return {
        name: {"width": WIDTH} if "width" in zoo.model_info(name).options else {}
        for name in found.values()
    }
