"""The choice of a receptive field from the results of a sweep, in sentences.

A receptive field is chosen on the validation split and compared with the others on the test
split. Differences are by paired bootstrap over clips and seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rfkeras.evaluation.bootstrap import CONFIDENCE, Interval
from rfkeras.experiments.sweep import TEST, ExtraTest
from rfkeras.experiments.sweep_report import FinishedRun, Group, Point, groups_by_variant
from rfkeras.training.callbacks import lower_is_better

LEARNT = 0.98  # mAP on its training clips from which a network is trained to the end
_DEFAULT_MONITOR = "val_mAP"
_COMPARED = 2  # candidates whose differences are written out


def recommendations(
    runs: Sequence[FinishedRun], monitor: str = _DEFAULT_MONITOR, samples: int = 1000
) -> list[str]:
    """Recommend a receptive field for each variant, a line each.

    Args:
        runs: Finished runs.
        monitor: Name of the metric in `FinishedRun.validation`.
        samples: Number of bootstrap samples.

    Raises:
        ConfigError: Runs were tested on different clips.
        DatasetError: A file of scores cannot be read.
    """
    variants = groups_by_variant(runs, TEST, samples)
    return [_recommendation(groups, monitor, len(variants) > 1) for groups in variants]


def _recommendation(groups: Sequence[Group], monitor: str, named: bool) -> str:
    """Recommend one of the groups, which are in the order of their receptive fields."""
    variant = f" for {groups[0].runs[0].run.variant}" if named else ""
    defined = [group for group in groups if not math.isnan(group.validation)]
    if not defined:
        return f"No recommendation{variant}: {monitor} is undefined in all runs."
    best, *others = sorted(
        defined, key=lambda group: group.validation, reverse=not lower_is_better(monitor)
    )
    if not others:
        return (
            f"No recommendation{variant}: there is only {_described(best)} to choose from. "
            f"Its test mAP is {best.metric.mean:.3f}."
        )
    differences = [best.metric.minus(group.metric, over_seeds=True) for group in others]
    by = "" if monitor == _DEFAULT_MONITOR else f" by {monitor}"
    compared = [
        f"against {_rho(group)}: {_text(difference)}"
        for group, difference in list(zip(others, differences, strict=True))[:_COMPARED]
    ]
    compared[0] = compared[0].replace(" (", f" ({100 * CONFIDENCE:g} % interval ", 1)
    parts = [
        f"Recommendation{variant}: {_described(best)}, the best on validation{by}.",
        f"Test mAP {best.metric.mean:.3f}; {'; '.join(compared)}.",
        *_verdict(groups, best, dict(zip(map(_rho, others), differences, strict=True))),
    ]
    if min(len(group.runs) for group in defined) == 1:
        parts.append("The intervals leave out the spread of values with one seed.")
    return " ".join(parts)


def _verdict(
    groups: Sequence[Group], best: Group, differences: dict[str, Interval]
) -> list[str]:
    """Say which groups are as good as the best on validation, or better, on the test."""
    by_size = [group for group in groups if _rho(group) in differences]
    equal = [g for g in by_size if differences[_rho(g)].low <= 0 <= differences[_rho(g)].high]
    better = [g for g in by_size if differences[_rho(g)].high < 0]
    parts = []
    if better:
        parts.append(
            f"{_list(better)} scored higher on the test clips, so the validation clips are too "
            "few or differ from them."
        )
    if not equal:
        return parts or ["All other values are worse."]
    are = "is" if len(equal) == 1 else "are"
    parts.append(f"{_list(equal)} {are} not distinguishable from it.")
    smallest = next(group for group in groups if group is best or group in equal)
    if smallest is not best:
        parts.append(f"You may take {_described(smallest)}, the smallest and cheapest of them.")
    return parts


def _rho(group: Group) -> str:
    return f"rho {group.runs[0].run.rho_text}"


def _list(groups: Sequence[Group]) -> str:
    """Return the values of rho as text: "rho 2, 7 and 11"."""
    *most, last = [group.runs[0].run.rho_text for group in groups]
    return f"rho {', '.join(most)} and {last}" if most else f"rho {last}"


def _described(group: Group) -> str:
    """Return rho with its receptive field: "rho 7 (135 pixels, 3.20 s)"."""
    first = group.runs[0]
    sizes = " x ".join(map(str, dict.fromkeys(first.rf_pixels)))
    return f"{_rho(group)} ({sizes} pixels, {first.rf_ms / 1000:.2f} s)"


def _text(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def not_trained_to_the_end(points: Iterable[Point], tests: Iterable[ExtraTest]) -> str | None:
    """Return a warning if networks have not learnt their training clips, otherwise None.

    Before that, the order of receptive fields shows how fast the networks learn.

    Args:
        points: Points of all tests.
        tests: The extra tests. Without one of the training clips nothing is known.
    """
    names = {test.name for test in tests if test.is_training_clips}
    on_training = [point for point in points if point.test in names]
    several = len({point.variant for point in on_training}) > 1
    low = [
        f"{point.variant + ' ' if several else ''}rho {point.rho} "
        f"({math.floor(point.seed_lowest * 1000) / 1000:.3f})"
        for point in on_training
        if point.seed_lowest < LEARNT
    ]
    if not low:
        return None
    return (
        f"Not trained to the end: {', '.join(low)}. These have a mAP below {LEARNT} on their "
        "training clips. Until then the results show how fast networks learn, so train longer "
        "before you compare: raise --epochs and choose another --output."
    )
