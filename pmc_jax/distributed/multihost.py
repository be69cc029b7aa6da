"""The processes of one run, one on each host: how they find each other, agree, share host work, and end together.

All of them run the same program and take the same decisions. The first one, the primary, does what only one of them can
see or do (the workdir and its files), and broadcasts the result. A run of one process takes the same path.

JAX is imported inside the functions: a report is read and written without it.
"""

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pmc_jax.distributed import agreement
from pmc_jax.distributed.agreement import SharedError
from pmc_jax.errors import UserError, explain, first_line

LAST_WORDS = 5  # seconds
SAME = "give all processes of a run the same command, and each run a job (srun) of its own"
AGAIN = "the same command on every host goes on from the last saved round"


def cluster() -> bool:
    """Whether a scheduler started this process as one of several: SLURM, a Kubernetes Job or JobSet, Cloud TPU.

    JAX reads the rest from the scheduler by itself. It must not be asked in a shell of one process inside a larger
    SLURM allocation: it would wait for partners.
    """
    import jax  # noqa: F401  leaves a mark where it finds TPU chips

    slurm = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    kubernetes = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys()
    tpu = "tpu" in os.environ.get("JAX_PLATFORMS", "tpu") and os.environ.get("TPU_ML_PLATFORM") == "JAX"
    return slurm or kubernetes or tpu


def several(coordinator: str | None, num_processes: int | None, process_id: int | None) -> bool:
    """Whether there are other processes to join: all three flags are given, or none and a scheduler is there.

    Args:
        coordinator: "host:port" of the primary.
        num_processes: how many processes the run has.
        process_id: which of them this one is, from 0.

    Raises:
        UserError: only some of the flags are given, or one has no possible value.
    """
    flags = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in flags.items() if value is None]
    if len(missing) == len(flags):
        return cluster()
    if missing:
        raise UserError(
            f"{' and '.join(missing)} missing: --coordinator=HOST:PORT, --num_processes and --process_id are given "
            "together or not at all"
        )
    if not coordinator.rpartition(":")[2].isdigit():
        raise UserError(f"--coordinator={coordinator}: must be HOST:PORT of the process with --process_id=0")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id={process_id}: must be 0 to {num_processes - 1} with --num_processes={num_processes}"
        )
    return True


def start(coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: int) -> None:
    """Connect to the other processes, before any device is touched.

    Args:
        coordinator: "host:port" of the primary; None = from the scheduler, as the next two.
        num_processes: how many processes the run has.
        process_id: which of them this one is, from 0.
        timeout: seconds after which a process that is not heard of counts as dead.

    Raises:
        UserError: the others did not come.
    """
    import jax

    # Left on, it catches SIGTERM and waits for the program to ask; rounds are saved anyway.
    jax.config.update("jax_enable_preemption_service", False)
    times = dict(
        initialization_timeout=3 * timeout, heartbeat_timeout_seconds=timeout, shutdown_timeout_seconds=timeout
    )
    method = "deactivate" if coordinator else None
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, cluster_detection_method=method, **times)
    except ValueError as error:
        # JAX's word for TPU chips without a scheduler around them: a run of one process.
        if "coordinator_address" not in str(error):
            raise
    except RuntimeError as error:
        raise UserError(f"the other processes of the run were not found: {first_line(error)}") from None


def is_primary() -> bool:
    """Whether this process is the one that prints and writes."""
    jax = sys.modules.get("jax")  # a program that has not even imported it is one process
    return jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0


def exchange(mine: bytes) -> list[bytes]:
    """Gather bytes from all processes.

    Args:
        mine: what this process hands in.

    Returns:
        What each process handed in, in their order; the same list on all of them.
    """
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [mine]
    sizes_P = multihost_utils.process_allgather(np.int32(len(mine)))
    width = 1 << int(sizes_P.max()).bit_length()  # powers of two: few shapes to compile
    padded = np.frombuffer(mine.ljust(width), np.uint8)
    return [row.tobytes()[:size] for row, size in zip(multihost_utils.process_allgather(padded), sizes_P)]


def broadcast_from_primary(work: Callable[[], Any]) -> Any:
    """Call a function on the primary and give its result to all processes.

    Args:
        work: the function; what it returns must be JSON-ready.

    Returns:
        Its result, on all processes.

    Raises:
        SharedError: the function raised a UserError on the primary.
    """
    outcome: dict[str, Any] = {}
    if is_primary():
        try:
            outcome["value"] = work()
        except UserError as error:
            outcome["error"] = str(error)
    received = json.loads(exchange(json.dumps(outcome).encode())[0])
    if "error" in received:
        raise SharedError(received["error"])
    return received["value"]


def map_across_processes(work: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    """[work(item) for item in items], a share of the items on each process.

    Args:
        work: the function; what it returns must be JSON-ready.
        items: the items, the same on all processes.

    Returns:
        All results, on all processes. They are exchanged once.
    """
    import jax

    count = jax.process_count()
    shares = exchange(json.dumps([work(item) for item in items[jax.process_index() :: count]]).encode())
    results: list[Any] = [None] * len(items)
    for process, share in enumerate(shares):
        results[process::count] = json.loads(share)
    return results


@contextlib.contextmanager
def join(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    timeout: int,
    told: dict[str, Any],
) -> Iterator[None]:
    """The run of one process among others, or alone. Only the primary prints; when one process fails, all end.

    Args:
        coordinator: "host:port" of the primary. The first three are given together, or come from the scheduler.
        num_processes: how many processes the run has.
        process_id: which of them this one is, from 0.
        timeout: seconds after which a process that is not heard of counts as dead.
        told: {name: value} of all that the processes must have been told alike, JSON-ready.
    """
    if not several(coordinator, num_processes, process_id):
        yield
        return
    # JAX ends a process whose partners are gone from outside of Python, with a stack trace. This gives it a last line
    # that says what to do.
    whose = f"this process (pid {os.getpid()} on {platform.node()})"
    words = f"pmc-jax: {whose} was ended: it was killed, or another process of the run is gone or never came; {AGAIN}"
    witness = subprocess.Popen(
        ["sh", "-c", 'read -r ended || echo "$0" >&2', words], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        # All hang on each other: one that is told to end cannot go on alone to the end of what it is at.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        start(coordinator, num_processes, process_id, timeout)
        agreement.check_same("start", agreement.post("start", told, timeout), SAME)
        with (
            open(os.devnull, "w") as nowhere,
            contextlib.nullcontext() if is_primary() else contextlib.redirect_stdout(nowhere),
        ):
            yield
            exchange(b"done")  # the first process may write for longer than the others wait for it at the end
        witness.communicate(b"ended\n")
    except BaseException as error:
        code = _say_why(error)
        witness.communicate(b"ended\n")
        # All hang on the primary's connection: those that meet the same error are to say so before it is gone.
        if isinstance(error, SharedError):
            agreement.wait_for_all("end", LAST_WORDS)
        elif is_primary():
            time.sleep(LAST_WORDS)
        os._exit(code)  # an orderly end would wait for partners that wait for this one


def _say_why(error: BaseException) -> int:
    """One line on stderr. Returns the exit code."""
    import jax

    if isinstance(error, KeyboardInterrupt):
        code, why = 130, f"stopped; {AGAIN}"
    elif isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
        code = 1
        why = f"a computation broke off, as it does when another process is gone ({first_line(error)}); {AGAIN}"
    else:
        code, why = explain(error)
    board = agreement.board()
    name = f"process {board.process} of {board.processes}: " if board else ""
    print(f"pmc-jax: {name}{why}", file=sys.stderr, flush=True)
    return code
