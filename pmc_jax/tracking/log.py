"""What a run logs with --verbosity=0: one line as each round and each phase begins, on every process."""

import logging

from pmc_jax.distributed import agreement

LOG = logging.getLogger("pmc_jax")


def show_log() -> None:
    """Write the log on stderr, with the time of day, by which the lines of several hosts can be put side by side."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("pmc-jax: %(asctime)s %(message)s", "%H:%M:%S"))
    LOG.handlers, LOG.propagate = [handler], False
    LOG.setLevel(logging.INFO)


def log(what: str) -> None:
    """One line: which process is about to do what."""
    if LOG.isEnabledFor(logging.INFO):
        board = agreement.board()
        whose = f"process {board.process} of {board.processes}: " if board else ""
        LOG.info("%s%s", whose, what)
