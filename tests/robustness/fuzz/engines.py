"""Create cases with hypothesis, with random changes of bytes, and with atheris.

`python -m tests.robustness.fuzz.engines READER ENGINE CASES SEED FILE` runs one engine in this
process and writes the outcomes to FILE.
"""

import json
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from tests.robustness.fuzz.damage import damaged
from tests.robustness.fuzz.outcome import Outcomes, limit_memory
from tests.robustness.odd_files.mutations import mutated

SAVE_EVERY = 200


def blind(reader, root, paths, cases, seed, outcomes):
    """Change bytes at random."""
    whole = [path.read_bytes() for path in paths]
    for number in range(cases):
        which, _, content = mutated(whole, number, seed)
        outcomes.take(reader, root, paths[which], content)


def structured(reader, root, paths, cases, seed, outcomes):
    """Make changes that fit the format."""
    whole = {path: path.read_bytes() for path in paths}

    # Hypothesis may run out of new examples before it reaches the number of cases.
    while (left := cases - sum(outcomes.counts.values())) > 0:

        @seeded(seed)
        @settings(
            max_examples=left,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def case(data):
            path = data.draw(st.sampled_from(paths))
            content = damaged(data.draw, path, whole[path])
            if sum(outcomes.counts.values()) < cases:
                outcomes.take(reader, root, path, content)

        case()
        seed += 1


def covering(reader, root, paths, cases, seed, outcomes, save):
    """Search for bytes that reach new code; libFuzzer ends the process itself."""
    import atheris

    whole = [path.read_bytes() for path in paths]

    def case(data):
        if sum(outcomes.counts.values()) >= cases or not data:
            return
        which = data[0] % len(paths)
        outcomes.take(reader, root, paths[which], data[1:])
        done = sum(outcomes.counts.values())
        if done % SAVE_EVERY == 0 or done == cases:
            save()

    with tempfile.TemporaryDirectory() as corpus:
        for number, content in enumerate(whole):
            (Path(corpus) / str(number)).write_bytes(bytes([number]) + content)
        largest = max(map(len, whole))
        atheris.Setup(
            [
                sys.argv[0],
                f"-runs={cases * 2}",  # some are empty
                f"-seed={seed + 1}",
                f"-max_len={2 * largest + 1000}",
                "-rss_limit_mb=0",
                "-timeout=60",
                "-verbosity=0",
                corpus,
            ],
            case,
        )
        atheris.Fuzz()


def main(name, engine, cases, seed, output):
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["rfkeras"], enable_loader_override=False):
            from tests.robustness.fuzz.readers import READERS
    else:
        from tests.robustness.fuzz.readers import READERS
    outcomes = Outcomes()

    def save():
        content = {
            "counts": dict(outcomes.counts),
            "slowest_ms": outcomes.slowest_ms,
            "wrong": {k: (f, c.hex(), m) for k, (f, c, m) in outcomes.wrong.items()},
        }
        Path(output).write_text(json.dumps(content))

    reader = READERS[name]
    with tempfile.TemporaryDirectory(dir=Path(output).parent) as folder:
        root = Path(folder)
        paths = reader.make(root)
        reader.read(root)  # the undamaged files can be read
        limit_memory()
        if engine == "atheris":
            covering(reader, root, paths, int(cases), int(seed), outcomes, save)
        else:
            run = structured if engine == "hypothesis" else blind
            run(reader, root, paths, int(cases), int(seed), outcomes)
    save()


if __name__ == "__main__":
    main(*sys.argv[1:])
