"""Names of a package that are imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_attributes(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that imports names from where they are defined.

    Importing the package then stays fast and needs no framework.

    Args:
        package: Name of the package, `__name__`.
        homes: For each name the full name of its module; for a sub-package its own name.
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        module = import_module(home)
        return module if home == f"{package}.{name}" else getattr(module, name)

    return __getattr__
