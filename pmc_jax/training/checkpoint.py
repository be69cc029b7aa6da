"""Rounds on disk: parameters, optimizer, notes and counters of a round, written by Orbax while the next round runs."""

import contextlib
import dataclasses
import gc
import hashlib
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN, PreservationPolicy

from pmc_jax.distributed import meshes, multihost
from pmc_jax.errors import ROOM, UserError, first_line
from pmc_jax.training.digest import digest

SMALL = 2**20  # bytes of the largest array that is written with others as one
INTERRUPTED, PARTS = "interrupted", 10**6  # a round that was stopped after k updates has the number round * PARTS + k
GO_ON = "give the same command again to go on from the round before"
LATE = 1.0  # seconds in which the threads of a failed read end
SEAL = "seal"  # key in the notes on disk: what the round is checked by


class DamagedRound(UserError):
    """A saved round that is not as it was written."""


class OtherLayout(NamedTuple):
    """Another tree that a round may hold the same state as.

    Attributes:
        like: its shapes, dtypes and shardings.
        convert: from such a state to the one that is wanted.
    """

    like: Any
    convert: Callable[[Any], Any]


def group_leaves(tree: Any) -> dict[str, list[int]]:
    """{name on disk: numbers of the leaves under it}, in the order of leaves: the small ones of each dtype go end to
    end into one array.

    Orbax takes milliseconds of Python's time for each array, however small, and the next round runs on what is left of
    it.
    """
    groups: dict[str, list[int]] = {}
    for number, (path, x) in enumerate(jax.tree_util.tree_leaves_with_path(tree)):
        small = x.size * x.dtype.itemsize <= SMALL
        name = f"small.{x.dtype}" if small else jax.tree_util.keystr(path, simple=True, separator=".")
        groups.setdefault(name, []).append(number)
    return groups


def seal_of(notes: dict[str, Any], state_digest: str) -> dict[str, str]:
    """What a round is checked by: a hash of its notes, and the digest of its arrays."""
    text = json.dumps(json.loads(json.dumps(notes)), sort_keys=True)
    return {"notes": hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest(), "state": state_digest}


@contextlib.contextmanager
def telling_save_errors(folder: Path) -> Iterator[None]:
    """What Orbax raises where a round cannot be written comes out as a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Orbax and tensorstore have many kinds, most of them for a full disk
        code = re.search(r"os_error_code='(\d+)'", str(error))  # tensorstore's, behind what it was doing
        why, remedy = (os.strerror(int(code[1])), ROOM) if code else (first_line(error)[:120], GO_ON)
        raise UserError(f"{folder}: a round could not be saved: {why}; {remedy}") from None


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Nothing is written on stderr inside: where a file is damaged, tensorstore's threads and what they leave behind
    print tracebacks of their own, beside the error that they raise.
    """
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            yield
        finally:
            gc.collect()  # coroutines that nobody waits for any more tell of it when they go


@dataclasses.dataclass
class Pinned(PreservationPolicy):
    """Orbax's question which rounds stay, answered with one number; None = none for being that one."""

    number: int | None = None

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        """Whether each of these rounds stays."""
        return [checkpoint.step == self.number for checkpoint in checkpoints]


class RoundCheckpointer:
    """The rounds of one run in `folder`: the last `keep` of them, and the one that is pinned. A round is there whole or
    not at all, also after a kill in the middle of a save.

    Arrays are not compressed: that would take processor time from the next round. read_only: leaves the folder as it
    is, also what a run that is going on has half written.
    """

    def __init__(self, folder: str | Path, keep: int = 1, read_only: bool = False):
        self.folder, self._read_only, self._pinned = Path(folder).absolute(), read_only, Pinned()
        stay = AnyPreservationPolicy([LatestN(keep), self._pinned])
        writing = dict(preservation_policy=stay, enable_async_checkpointing=True, cleanup_tmp_directories=True)
        options = ocp.CheckpointManagerOptions(read_only=True) if read_only else ocp.CheckpointManagerOptions(**writing)
        handlers = {"state": ocp.PyTreeCheckpointHandler(use_compression=False), "notes": ocp.JsonCheckpointHandler()}
        if read_only and not self.folder.is_dir():
            raise UserError(f"{self.folder}: holds no saved round")
        with telling_save_errors(self.folder):
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def latest(self) -> int | None:
        """Number of the last saved round on disk, None when there is none."""
        return self._manager.latest_step()

    def all(self) -> list[int]:
        """Numbers of all rounds on disk, in order."""
        return sorted(self._manager.all_steps())

    def pin(self, number: int | None) -> None:
        """Keep a round, on disk or about to be saved, however many come after it; the one that was pinned before goes
        when the next round is whole on disk.
        """
        self._pinned.number = number

    def save(self, number: int, state: Any, notes: dict[str, Any]) -> None:
        """Save round `number`: a tree of arrays, and JSON-ready notes. Returns when the arrays are copied; writing goes
        on in the background.

        Raises:
            UserError: the arrays hold no finite numbers, or this round or the one before it could not be written.
        """
        state_digest, is_finite = digest(state)
        if not is_finite:
            raise UserError(
                f"round {number}: the parameters or the optimizer's state are no finite numbers any more; a lower "
                "train.learning_rate may help. Rounds saved before are as they were"
            )
        leaves, groups = jax.tree.leaves(state), group_leaves(state)

        def on_disk(numbers: list[int]) -> jax.Array | np.ndarray:
            if len(numbers) == 1:
                return leaves[numbers[0]]
            flat = np.concatenate([x.ravel() for x in meshes.gather([leaves[n] for n in numbers])])
            return (
                flat
                if jax.process_count() == 1
                else meshes.put(flat, meshes.replicated_sharding(meshes.mesh_of(state)))
            )

        arrays = {name: on_disk(numbers) for name, numbers in groups.items()}
        sealed = notes | {SEAL: seal_of(notes, state_digest)}
        with telling_save_errors(self.folder):
            self._manager.save(
                number, args=ocp.args.Composite(state=ocp.args.PyTreeSave(arrays), notes=ocp.args.JsonSave(sealed))
            )

    def restore(self, number: int, like: Any, other: OtherLayout | None = None) -> tuple[Any, dict[str, Any]]:
        """State and notes of a round; `like` gives the tree's shapes, dtypes and shardings.

        Args:
            number: of the round.
            like: the tree that is wanted.
            other: how else the state may have been saved.

        Raises:
            DamagedRound: the round cannot be read, or is not what was saved. On all processes, where one finds it so.
        """
        state, notes, reason = self._try(number, like)
        if reason and other:
            saved, notes, still = self._try(number, other.like)
            state, reason = (None, reason) if still else (other.convert(saved), "")
        if reason:
            raise DamagedRound(f"{self.folder / str(number)}: this round is damaged: {reason}")
        return state, notes

    def _try(self, number: int, like: Any) -> tuple[Any, dict[str, Any], str]:
        """State and notes of a round, and why they are not what was saved, on whichever process; empty = they are."""
        state, notes, reason = None, {}, ""
        try:
            with hushed():
                state, notes = self._read(number, like)
            seal = notes.pop(SEAL, None)  # rounds of earlier versions have none
            if seal and seal != seal_of(notes, digest(state)[0]):
                reason = "its content is not what was saved"
        except MemoryError:
            raise
        except Exception as error:  # Orbax, tensorstore and JSON have many kinds for files that are damaged
            if "RESOURCE_EXHAUSTED" in str(error):
                raise
            reason = first_line(error)[:120]
            with hushed():
                error.__traceback__ = None  # it holds what was being read
                time.sleep(LATE)
        reasons = [r.decode() for r in multihost.exchange(reason.encode())]
        return state, notes, next(filter(None, reasons), "")

    def save_part(self, number: int, updates: int, state: Any, notes: dict[str, Any]) -> None:
        """Save round `number` as it is after some of its updates, in interrupted/ beside the folder; as `save`, but it
        returns when all is written.
        """
        parts = RoundCheckpointer(self.folder.with_name(INTERRUPTED))
        if parts.latest() != number * PARTS + updates:  # stopped again at the very update
            parts.save(number * PARTS + updates, state, notes)
        parts.close()
        self.wait()

    def restore_newest(self, like: Any, other: OtherLayout | None = None) -> tuple[Any, dict[str, Any]] | None:
        """State and notes of the newest round that is whole, or of the round after it that was interrupted. None where
        no round was ever saved. Arguments as in `restore`.

        Damaged rounds after it are told of and, where the run goes on from here, moved to damaged/ beside the folder.

        Raises:
            UserError: there are rounds, and all are damaged.
        """
        saved = [(float(number), self, number) for number in self.all()]
        if (parts_folder := self.folder.with_name(INTERRUPTED)).is_dir():
            parts = RoundCheckpointer(parts_folder, read_only=self._read_only)
            saved += [(part / PARTS - 0.5, parts, part) for part in parts.all()]
        damaged: list[tuple[RoundCheckpointer, int, str]] = []
        for _, rounds, number in sorted(saved, key=lambda entry: entry[0], reverse=True):
            try:
                state, notes = rounds.restore(number, like, other)
            except DamagedRound as error:
                damaged.append((rounds, number, str(error)))
                continue
            for bad, bad_number, why in damaged:
                bad._set_aside(bad_number, f"{why}; going on from {rounds.folder / str(number)}")
            return state, notes
        if damaged:
            raise UserError(f"{damaged[0][2]}; no saved round is whole: move {self.folder} away to begin anew")
        return None

    def _set_aside(self, number: int, why: str) -> None:
        if multihost.is_primary():
            print(f"pmc-jax: {why}", file=sys.stderr)
        if self._read_only:
            return

        def move() -> None:
            aside = self.folder.with_name("damaged")
            aside.mkdir(exist_ok=True)
            name = f"{self.folder.name}_{number}"
            places = (aside / f"{name}{suffix}" for suffix in ("", *(f"_{again}" for again in range(1, 1000))))
            os.rename(self.folder / str(number), next(place for place in places if not place.exists()))

        multihost.broadcast_from_primary(move)
        self._manager.reload()

    def _read(self, number: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """State and notes of a round as they are on disk."""
        leaves, groups = jax.tree.leaves(like), group_leaves(like)

        def on_disk(numbers: list[int]) -> np.ndarray | jax.ShapeDtypeStruct:
            x = leaves[numbers[0]]  # zeros ask Orbax for a host array: each leaf is put in its own place below
            if len(numbers) > 1:
                return np.zeros(sum(leaves[n].size for n in numbers), x.dtype)
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

        arrays = {name: on_disk(numbers) for name, numbers in groups.items()}
        state = ocp.args.PyTreeRestore(arrays, restore_args=ocp.checkpoint_utils.construct_restore_args(arrays))
        restored = self._manager.restore(number, args=ocp.args.Composite(state=state, notes=ocp.args.JsonRestore()))
        for name, numbers in groups.items():
            if len(numbers) == 1:
                leaves[numbers[0]] = restored.state[name]
                continue
            ends = np.cumsum([leaves[n].size for n in numbers])
            for n, flat in zip(numbers, np.split(restored.state[name], ends[:-1])):
                leaves[n] = meshes.put(flat.reshape(leaves[n].shape), leaves[n].sharding)
        return jax.tree.unflatten(jax.tree.structure(like), leaves), restored.notes

    def wait(self) -> None:
        """Until everything is written."""
        with telling_save_errors(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait until everything is written, and end."""
        self.wait()
        self._manager.close()
