"""Import the public names of a package on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_attributes(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for a package that imports each name from its module.

    The package then imports quickly and without a framework.

    Args:
        package: Name of the package, `__name__`.
        homes: Full name of the module of each name; for a sub-package its own full name.
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        module = import_module(home)
        return module if home == f"{package}.{name}" else getattr(module, name)

    return __getattr__
