"""A search whose trials are not trained, for tests of everything around training.

Run as a script, it is one process of such a search:

    python -m tests.helpers.search DIR TRIALS
"""

import json
import os
import sys
import time
from pathlib import Path

from rfkeras.config.train_config import TrainConfig, to_json
from rfkeras.experiments.search import Search, SearchFolder
from rfkeras.experiments.search_space import parse_space
from rfkeras.experiments.trial import TrialOutcome, result_file
from rfkeras.utils.files import write_text

SPACE = {"rho_time": "0:12", "learning_rate": "1e-4:1e-2:log", "shake": "true,false"}
HANGING = "hanging"  # a worker with this name never ends its trial


def small_search(method="random", **options):
    """Return a search of five short trials, with options of `Search` overridden."""
    base = TrainConfig(model="resnet_rf", width=4, epochs=options.pop("epochs", 4))
    space = parse_space(options.pop("space", SPACE))
    return Search(base, space, method, **{"trials": 5, **options})


def score_of(config):
    """Return a score that is best at rho 7 along time."""
    rho = config.rho[0] if isinstance(config.rho, tuple) else config.rho
    return 0.9 - 0.01 * abs((rho or 0) - 7) + 0.001 * config.epochs


def stub(folder, config):
    """Write the files of a trial without training it."""
    write_text(folder.config, to_json(config))
    data = {"name": "tones", "clips": {"train": 1200, "validation": 30}}
    write_text(folder.environment, json.dumps({"data": data}))
    result = {"figure": score_of(config), "seconds": 61.0, "parameters": 1234}
    write_text(result_file(folder), json.dumps(result))
    return TrialOutcome(result["figure"])


def _recording(folder, config):
    """Do the same and log which worker does it, for searches by several processes."""
    name = os.environ["KERASTUNER_TUNER_ID"]
    with (folder.root.parents[1] / "log.txt").open("a") as log:
        log.write(f"{folder.root.name} {name}\n")
    time.sleep(600 if name == HANGING else 0.2)
    return stub(folder, config)


if __name__ == "__main__":
    from rfkeras.experiments.search import read_role
    from rfkeras.experiments.search_run import run_search

    search, root = small_search(trials=int(sys.argv[2])), SearchFolder(Path(sys.argv[1]))
    run_search(search, root, read_role(os.environ), 10.0, runner=_recording)
