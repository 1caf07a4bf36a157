"""What of a data set differs from what its publishers say, and what is in two splits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from rfkeras.data.dataset import AudioDataset

_NAMED = 3


def published_clips(dataset: AudioDataset) -> dict[str, tuple[int, int]]:
    """Clips found and clips published, of each split (or splits together) that is known."""
    published = dataset.published.clips if dataset.published else {}
    return {
        names: (sum(len(dataset.splits.get(name, ())) for name in names.split("+")), clips)
        for names, clips in published.items()
    }


def overlaps(dataset: AudioDataset) -> dict[str, dict[str, list[str]]]:
    """What is in two splits.

    Returns:
        "key" and, where the splits have groups, the kind of group, each with the values
        that two splits share, sorted: {"artist": {"train, test": ["artist_7"]}}. Pairs of
        splits that share nothing are left out.
    """
    kinds: dict[str, dict[str, Sequence[str]]] = {
        "key": {name: split.keys for name, split in dataset.splits.items()}
    }
    groups = {name: split.groups for name, split in dataset.splits.items()}
    known = {name: values for name, values in groups.items() if values is not None}
    if known:
        kinds[dataset.published.group if dataset.published else "group"] = dict(known)
    return {
        kind: {
            f"{first}, {second}": shared
            for first, second in combinations(members, 2)
            if (shared := sorted(set(members[first]) & set(members[second])))
        }
        for kind, members in kinds.items()
    }


def differences(dataset: AudioDataset) -> list[str]:
    """What a user should know about this copy, a sentence each; empty when all is well."""
    found = list(dataset.remarks)
    for names, (clips, expected) in published_clips(dataset).items():
        if clips != expected:
            found.append(
                f"{names.replace('+', ' and ')}: {clips:,} clips, published are {expected:,}"
            )
    labels = dataset.published.labels if dataset.published else None
    if labels not in (None, len(dataset.label_names)):
        found.append(f"{len(dataset.label_names)} labels, published are {labels}")
    for kind, pairs in overlaps(dataset).items():
        for pair, shared in pairs.items():
            named = ", ".join(shared[:_NAMED]) + (", ..." if len(shared) > _NAMED else "")
            found.append(f"{pair}: {len(shared):,} {kind}s are in both: {named}")
    return found
