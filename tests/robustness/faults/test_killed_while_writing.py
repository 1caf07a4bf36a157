"""Files are complete, old or new, whenever a process is killed or the disk refuses a write."""

import json
import signal

import pytest

from tests.helpers.processes import run
from tests.robustness.faults.killed import REPORTED
from tests.robustness.faults.writers import WRITERS


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    status, out, err = run("-m", "tests.robustness.faults.killed", folder)
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("name", WRITERS)
def test_the_file_has_its_old_or_new_state(found, name):
    # Embeddings consist of two files, and for a short time there are none.
    complete = {0, 1, 2} if name == "embeddings" else {1, 2}
    statuses = []
    for how, moment, status, value, left, last in found[name]:
        assert value in complete, (how, moment)
        assert value == 2 or status != 0, (how, moment)
        assert left == [], (how, moment)
        assert last == 2, (how, moment)
        statuses.append(status)
        if how == "refuse_at_size" and status != 0:
            assert (status, value) == (REPORTED, 1), moment
    assert {-signal.SIGKILL, -signal.SIGXFSZ, REPORTED, 0} == set(statuses)
