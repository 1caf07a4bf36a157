"""The two kinds of tagging that data sets, models and evaluations know.

"multi_label": any number of tags a clip, some perhaps unknown; a tag's score is the sigmoid
of its logit. "single_label": exactly one class a clip, all known; the scores are the softmax
of all logits.
"""

from __future__ import annotations

from rfkeras.errors import ConfigError, unknown_name

MULTI_LABEL, SINGLE_LABEL = "multi_label", "single_label"
TASKS = (MULTI_LABEL, SINGLE_LABEL)
HALF = 0.5  # the score from which a tag applies unless its threshold says otherwise


def check_task(task: str) -> str:
    """The task, if there is one of that name.

    Raises:
        ConfigError: There is none.
    """
    if task not in TASKS:
        raise ConfigError(unknown_name("task", str(task), TASKS))
    return task
