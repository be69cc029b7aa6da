"""Rounds on disk: parameters, optimizer, notes and counters of a round, written by Orbax while the next round runs."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from pmc_jax.distributed import meshes

SMALL = 2**20  # bytes of the largest array that is written with others as one


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


class RoundCheckpointer:
    """The rounds of one run in `folder`, the last `keep` of them. A round is there whole or not at all, also after a
    kill in the middle of a save.

    Arrays are not compressed: that would take processor time from the next round. read_only: leaves the folder as it
    is, also what a run that is going on has half written.
    """

    def __init__(self, folder: str | Path, keep: int = 1, read_only: bool = False):
        writing = dict(max_to_keep=keep, enable_async_checkpointing=True, cleanup_tmp_directories=True)
        options = ocp.CheckpointManagerOptions(read_only=True) if read_only else ocp.CheckpointManagerOptions(**writing)
        handlers = {"state": ocp.PyTreeCheckpointHandler(use_compression=False), "notes": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options, item_handlers=handlers)

    def latest(self) -> int | None:
        """Number of the last saved round on disk, None when there is none."""
        return self._manager.latest_step()

    def next(self) -> int:
        """Number of the round to run next: 0, or the one after the last on disk."""
        latest = self.latest()
        return 0 if latest is None else latest + 1

    def all(self) -> list[int]:
        """Numbers of all rounds on disk, in order."""
        return sorted(self._manager.all_steps())

    def save(self, number: int, state: Any, notes: dict[str, Any]) -> None:
        """Save round `number`: a tree of arrays, and JSON-ready notes. Returns when the arrays are copied; writing goes
        on in the background.
        """
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
        self._manager.save(
            number, args=ocp.args.Composite(state=ocp.args.PyTreeSave(arrays), notes=ocp.args.JsonSave(notes))
        )

    def restore(self, number: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """State and notes of a round; `like` gives the tree's shapes, dtypes and shardings."""
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
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait until everything is written, and end."""
        self.wait()
        self._manager.close()
