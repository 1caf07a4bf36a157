"""Receptive-field-regularised CNNs for music classification and tagging.

Names are imported on first use, so `import rfkeras` and the receptive field arithmetic do not
load TensorFlow.
"""

from rfkeras.utils.lazy import lazy_attributes

__version__ = "0.2.0.dev0"

_HOMES = {
    "create_model": "zoo.registry",
    "list_models": "zoo.registry",
    "load_model": "zoo.pretrained",
    "open_model": "zoo.pretrained",  # name of load_model in version 0.1.0
    "Tagger": "zoo.tagger",
    "receptive_field": "rfkeras.rf",
    "rho_for": "rfkeras.rf",
    "fold": "rfkeras.folding",
    "train": "rfkeras.training.api",
    "evaluate": "rfkeras.training.api",
    "tag": "rfkeras.inference.batch",
    "sweep": "rfkeras.experiments.sweep_run",
    "register_model": "zoo.registry",
    "register_dataset": "rfkeras.datasets.load",
    "register_frontend": "rfkeras.frontend.presets",
    **{
        f"register_{part}": "rfkeras.utils.user_code"
        for part in ("augmentation", "loss", "metric", "optimizer")
    },
    **{
        room: f"rfkeras.{room}"
        for room in (
            "audio",
            "config",
            "datasets",
            "errors",
            "evaluation",
            "experiments",
            "export",
            "frontend",
            "inference",
            "interop",
            "layers",
            "rf",
            "synthesis",
            "training",
        )
    },
}

__all__ = ["__version__", *_HOMES]

__getattr__ = lazy_attributes(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
