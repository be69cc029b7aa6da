"""What the processes of a run were told and have read, compared before they compute anything together.

They write it on the board of JAX's coordination service. No device takes part: processes that differ, or that have
another version of JAX, would wait for each other for ever in a computation.
"""

import contextlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from pmc_jax.errors import UserError

T = TypeVar("T")
A_DAY = 86_400  # seconds; what a process may take to read its data. A dead one is noticed far sooner
SHOWN = 3  # differences in a message


class SharedError(UserError):
    """A mistake of the user that one process has met and all of them raise."""


class Board(NamedTuple):
    """The coordination service, how many processes write on it, and which this one is."""

    service: Any
    processes: int
    process: int


def board() -> Board | None:
    """The board of this run; None in a run of one process. No device is touched."""
    import jax

    if not jax.distributed.is_initialized():
        return None
    from jax._src import distributed  # no public way leads to it

    state = distributed.global_state
    return Board(state.client, state.num_processes, state.process_id) if state.num_processes > 1 else None


def post(topic: str, mine: Any, timeout: int) -> list[Any]:
    """Write on the board and read what the other processes wrote.

    Args:
        topic: of the entry; new for each call.
        mine: what this process writes; JSON-ready.
        timeout: seconds to wait for the others.

    Returns:
        What each process wrote, in their order.

    Raises:
        UserError: a process did not write anything within the time.
    """
    ours = board()
    if ours is None:
        return [mine]
    import jax

    ours.service.key_value_set(f"pmc_jax/{topic}/{ours.process}", json.dumps(mine))
    told = []
    for process in range(ours.processes):
        try:
            told.append(json.loads(ours.service.blocking_key_value_get(f"pmc_jax/{topic}/{process}", timeout * 1000)))
        except jax.errors.JaxRuntimeError:
            raise UserError(
                f"process {process} of {ours.processes} did not say its {topic} within {timeout} seconds; see what it "
                "printed, and start all processes with the same command"
            ) from None
    return told


def wait_for_all(topic: str, timeout: int) -> None:
    """Wait until all processes are here, for so many seconds at most."""
    ours = board()
    if ours:
        with contextlib.suppress(Exception):  # whoever is not here by then is not waited for
            ours.service.wait_at_barrier(f"pmc_jax/{topic}", timeout * 1000)


def check_same(topic: str, told: list[dict[str, Any]], remedy: str) -> None:
    """SharedError that names what differs between processes. told: {name: value} of each."""
    names = sorted({name for values in told for name in values})
    differ = []
    for name in names:
        by_value: dict[str, list[int]] = {}
        for process, values in enumerate(told):
            by_value.setdefault(json.dumps(values.get(name)), []).append(process)
        if len(by_value) > 1:
            parts = [f"{brief(value)} on process {processes[0]}" for value, processes in by_value.items()]
            differ.append(f"{name}: {', '.join(parts[:2])}")
    if differ:
        more = f" and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
        raise SharedError(f"the processes differ in their {topic}: {'; '.join(differ[:SHOWN])}{more}; {remedy}")


def brief(text: str) -> str:
    """The end of a long value: paths and hashes differ there."""
    return text if len(text) <= 40 else f"...{text[-37:]}"


def together(topic: str, work: Callable[[], T], said: Callable[[T], dict[str, Any]], remedy: str) -> T:
    """Do the same work on every process, each for itself, and go on only where all have the same.

    Args:
        topic: what is compared; new for each call.
        work: may raise a UserError.
        said: {name: value} of its result, JSON-ready, which is compared.
        remedy: ends the message.

    Returns:
        This process's own result.

    Raises:
        SharedError: the work failed on one process, or the results differ. On every process.
    """
    if board() is None:
        return work()
    outcome: dict[str, Any] = {}
    try:
        result = work()
        outcome["said"] = said(result)
    except UserError as error:
        outcome["error"] = str(error)
    outcomes = post(topic, outcome, A_DAY)
    failed = {process: o["error"] for process, o in enumerate(outcomes) if "error" in o}
    if failed:
        process, error = next(iter(failed.items()))
        raise SharedError(error if len(failed) == len(outcomes) else f"process {process} of {len(outcomes)}: {error}")
    check_same(topic, [o["said"] for o in outcomes], remedy)
    return result
