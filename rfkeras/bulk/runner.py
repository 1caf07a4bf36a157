"""Running a pipeline: which runner, what is said meanwhile, and how its failure is told."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineState

from rfkeras.errors import ConfigError, PipelineError

# Beam's own default may fetch a binary of another runner from the network.
_LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_LOCAL_NAMES = (None, "DirectRunner")
_SAY_SECONDS = 10.0


def pipeline_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options from a command line.

    Args:
        arguments: As Beam documents them: `--runner=FlinkRunner --flink_master=HOST:8081`.
            Without a runner, and for DirectRunner, Beam's local runner that needs nothing
            installed is taken; it understands `--direct_running_mode=multi_processing` and
            `--direct_num_workers=N`.

    Raises:
        ConfigError: A word is no option, or the local runner knows none of that name.
    """
    if arguments and not arguments[0].startswith("--"):
        raise ConfigError(
            "Behind --beam come options of Beam, such as --runner=FlinkRunner. Received: "
            f"{arguments[0]}."
        )
    options = PipelineOptions(list(arguments))
    standard = options.view_as(StandardOptions)
    if standard.runner in _LOCAL_NAMES:
        standard.runner = _LOCAL_RUNNER
        # Runners on clusters may know more options than Beam here does.
        unknown = set(options.get_all_options(retain_unknown_options=True))
        unknown -= set(options.get_all_options())
        if unknown:
            raise ConfigError(
                f"Beam's local runner has no option --{min(unknown)}. Options of rfkeras stand "
                "in front of --beam."
            )
    return options


def run(
    options: PipelineOptions, build: Callable[[beam.Pipeline], Any], progress: Callable[[], str]
) -> Any:
    """Build a pipeline and run it to its end.

    Args:
        options: See `pipeline_options`.
        build: Called with the pipeline.
        progress: Gives what is said on standard error now and then.

    Returns:
        Beam's result.

    Raises:
        PipelineError: It ended before its work was done.
    """
    try:
        pipeline = beam.Pipeline(options=options)
        build(pipeline)
        with _saying(progress):
            result = pipeline.run()
            state = result.wait_until_finish()
    except Exception as error:  # runners raise what they like
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        if last[0].startswith(KeyboardInterrupt.__name__):  # Ctrl-C, which Beam wraps
            raise KeyboardInterrupt from error
        raise PipelineError(f"The pipeline failed: {last[0]}") from error
    if state != PipelineState.DONE:
        raise PipelineError(f"The pipeline ended in state {state}.")
    return result


@contextlib.contextmanager
def _saying(progress: Callable[[], str]) -> Iterator[None]:
    """Say the progress while the block runs, when it has changed."""
    done = threading.Event()

    def watch() -> None:
        said = progress()
        while not done.wait(_SAY_SECONDS):
            now = progress()
            if now != said:
                print(now, file=sys.stderr, flush=True)
                said = now

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def counter(name: str) -> Any:
    """A counter that the runner shows."""
    return beam.metrics.Metrics.counter("rfkeras", name)
