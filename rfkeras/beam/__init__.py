"""Tagging and packing of millions of files as Apache Beam pipelines.

The modules of this package import Beam, which is an optional extra. Call `require_beam`
before importing them.
"""

import logging

from rfkeras.errors import ConfigError


def require_beam() -> None:
    """Check that Apache Beam is installed.

    Raises:
        ConfigError: Beam is not installed; the message explains how to install it.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # Beam warns about missing cloud libraries
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--beam needs Apache Beam: pip install 'rfkeras[beam]'. ({error})"
        ) from error
    finally:
        root.setLevel(level)
