"""Millions of files: tagging and packing as Apache Beam pipelines.

The modules beside this one import Beam, which is an extra: call `require_beam` first.
"""

import logging

from rfkeras.errors import ConfigError


def require_beam() -> None:
    """Refuse to go on where Beam is not installed.

    Raises:
        ConfigError: It is not; the message says how to install it.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # Beam notes which of the clouds' libraries are not there
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--beam needs Apache Beam: pip install 'rfkeras[beam]'. ({error})"
        ) from error
    finally:
        root.setLevel(level)
