"""The chief of a search by several processes: it hands out trials and trains none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rfkeras.errors import RFKerasError
from rfkeras.training.progress import say
from rfkeras.tuning.oracle import DurableOracle
from rfkeras.tuning.tuner import SearchTuner
from rfkeras.tuning.workers import Watch

_POLL_SECONDS = 0.5


def serve(
    tuner: SearchTuner,
    oracle: DurableOracle,
    watch: Watch,
    on_end: Callable[[], None],
) -> None:
    """Serve the workers until all trials have ended and all workers have left.

    keras-tuner's server runs in a thread beside, for it never ends when its workers die.

    Args:
        tuner: The chief's.
        oracle: Its oracle.
        watch: Tells which workers are dead.
        on_end: Called after trials have ended.

    Raises:
        RFKerasError: The address cannot be used, or all workers are dead.
    """
    errors: list[Exception] = []

    def run_server() -> None:
        try:
            tuner.search()
        except Exception as error:  # noqa: BLE001  raised in the main thread below
            errors.append(error)

    server = threading.Thread(target=run_server, daemon=True, name="keras-tuner server")
    server.start()
    _, _, reported = oracle.snapshot()
    lonely_since: float | None = None
    had_workers = False
    while True:
        time.sleep(_POLL_SECONDS)
        if errors:
            raise RFKerasError(f"The chief cannot serve: {errors[0]}") from errors[0]
        _, workers, ended = oracle.snapshot()
        if ended != reported:
            reported = ended
            on_end()
        for name in watch.dead(workers):
            trial_id = oracle.forget_worker(name)
            given_back = f"; trial {trial_id} goes to the next" if trial_id else ""
            say(f"Worker {name} shows no life for {watch.timeout_seconds:g} s{given_back}")
        had_workers |= bool(workers)
        if workers or not had_workers:
            lonely_since = None
            continue
        if oracle.told_to_stop and (not oracle.unfinished or oracle.has_given_up):
            return
        lonely_since = lonely_since or watch.clock()
        if watch.clock() - lonely_since > watch.timeout_seconds:
            raise RFKerasError(
                f"No worker is left, and trials are. Start chief and workers again by the same "
                f"commands: {ended} trials have ended, and no other begins anew."
            )
