"""What threads of libraries print beside the errors that they raise does not reach a user."""

import _thread
import io
import sys
import threading

import pytest
from absl import logging

from pmc_jax.errors import UserError
from pmc_jax.tracking.library_threads import hushed_libraries
from pmc_jax.training.checkpoint import telling_save_errors


def test_a_thread_that_python_did_not_start_is_not_heard(monkeypatch):
    heard, done = io.StringIO(), threading.Event()
    monkeypatch.setattr(sys, "stderr", heard)

    def speak(text):
        print(text, file=sys.stderr)
        done.set()

    with hushed_libraries():
        _thread.start_new_thread(speak, ("foreign",))  # as C++ calls in: Python has no Thread of it
        assert done.wait(60)
        ours = threading.Thread(target=speak, args=("ours",))
        ours.start()
        ours.join()
        print("main", file=sys.stderr)
    assert heard.getvalue() == "ours\nmain\n" and sys.stderr is heard


def test_orbax_logs_nothing_and_others_do(caplog):
    logger = logging.get_absl_logger()
    propagate, logger.propagate = logger.propagate, True
    with hushed_libraries():
        for path in ("/site-packages/orbax/checkpoint/future.py", "/site-packages/jax/_src/xla_bridge.py"):
            logger.handle(logger.makeRecord("absl", logging.logging.ERROR, path, 1, path, (), None))
    logger.propagate = propagate
    assert [record.pathname for record in caplog.records] == ["/site-packages/jax/_src/xla_bridge.py"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("RESOURCE_EXHAUSTED: " + "x" * 400 + " [os_error_code='28']", "No space left on device; make room"),
        ("x [os_error_code='122']", "Disk quota exceeded; make room"),
        ("timed out", "timed out; give the same command again"),
    ],
)
def test_why_a_round_could_not_be_saved(tmp_path, error, told):
    with pytest.raises(UserError, match=f"a round could not be saved: {told}"), telling_save_errors(tmp_path):
        raise ValueError(error)
