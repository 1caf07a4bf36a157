"""Damage files, reproducibly for a given seed and number on every machine."""

import numpy as np

HEADER_BYTES = 256


def _extremes(size):
    """Return the extreme numbers of this size, which code is least likely to handle."""
    top = 2 ** (8 * size)
    values = (0, 1, top // 2 - 1, top // 2, top - 2, top - 1)
    return [value.to_bytes(size, order) for value in values for order in ("little", "big")]


def flip(data, rng, other):
    """Flip some bits anywhere."""
    return _flipped(data, rng, len(data))


def flip_header(data, rng, other):
    """Flip some bits among the first bytes."""
    return _flipped(data, rng, min(len(data), HEADER_BYTES))


def extreme(data, rng, other):
    """Replace a number of any size near the start with an extreme value."""
    size = int(rng.choice([1, 2, 4, 8]))
    at = _place(rng, min(len(data), HEADER_BYTES))
    values = _extremes(size)
    return data[:at] + values[rng.integers(len(values))] + data[at + size :]


def truncate(data, rng, other):
    return data[: _place(rng, len(data))]


def splice(data, rng, other):
    """Join the start of one file and the end of another."""
    return data[: _place(rng, len(data))] + other[_place(rng, len(other)) :]


def duplicate(data, rng, other):
    first, last = _span(rng, len(data))
    return data[:last] + data[first:last] + data[last:]


def insert(data, rng, other):
    """Insert a block of zeros, of ones or of noise."""
    block = rng.integers(0, 256, int(rng.integers(1, 4096)), dtype=np.uint8).tobytes()
    filling = (block, bytes(len(block)), b"\xff" * len(block))[rng.integers(3)]
    at = _place(rng, len(data))
    return data[:at] + filling + data[at:]


def delete(data, rng, other):
    first, last = _span(rng, len(data))
    return data[:first] + data[last:]


MUTATIONS = (flip, flip_header, extreme, truncate, splice, duplicate, insert, delete)


def mutated(sources, number, seed=0):
    """Damage one of several files.

    Args:
        sources: Contents of the undamaged files.
        number: Number of the damaged file.
        seed: Seed shared by all damaged files.

    Returns:
        (index of the source, names of the mutations, damaged bytes)
    """
    rng = np.random.default_rng([seed, number])
    which = int(rng.integers(len(sources)))
    data, done = sources[which], []
    for _ in range(rng.integers(1, 4)):
        mutate = MUTATIONS[rng.integers(len(MUTATIONS))]
        data = mutate(data, rng, sources[rng.integers(len(sources))])
        done.append(mutate.__name__)
    return which, done, data


def _flipped(data, rng, among):
    values = np.frombuffer(data, np.uint8).copy()
    if among:
        count = int(2 ** rng.uniform(0, 6))
        places, bits = rng.integers(0, among, count), rng.integers(0, 8, count)
        np.bitwise_xor.at(values, places, (1 << bits).astype(np.uint8))
    return values.tobytes()


def _place(rng, length):
    return int(rng.integers(0, length + 1))


def _span(rng, length):
    return sorted((_place(rng, length), _place(rng, length)))
