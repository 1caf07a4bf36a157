"""The two kinds of tagging task, for data sets, models and evaluation.

"multi_label": a clip has any number of tags, and some labels may be unknown. A tag's score is
the sigmoid of its logit. "single_label": a clip has exactly one class, and all labels are
known. The scores are the softmax of the logits.
"""

from __future__ import annotations

from rfkeras.errors import ConfigError, unknown_name

MULTI_LABEL, SINGLE_LABEL = "multi_label", "single_label"
TASKS = (MULTI_LABEL, SINGLE_LABEL)
DEFAULT_THRESHOLD = 0.5  # a tag applies if its score is at least this


def check_task(task: str) -> str:
    """Return the task if it is valid.

    Raises:
        ConfigError: Unknown task.
    """
    if task not in TASKS:
        raise ConfigError(unknown_name("task", str(task), TASKS))
    return task
