"""Rounds on disk: parameters, optimiser, memory and counters of each collapse round, written by Orbax while the next round runs."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp


class Rounds:
    """The rounds of one run in `folder`, the last `keep` of them. A round is there whole or not at all, also after a kill in the middle of a save."""

    def __init__(self, folder: str | Path, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

    def latest(self) -> int | None:
        """Number of the last finished round on disk, None when there is none."""
        return self._manager.latest_step()

    def next(self) -> int:
        """Number of the round to run next: 0, or the one after the last on disk."""
        latest = self.latest()
        return 0 if latest is None else latest + 1

    def all(self) -> list[int]:
        """Numbers of all rounds on disk, in order."""
        return sorted(self._manager.all_steps())

    def save(self, number: int, state: Any, notes: dict[str, Any]) -> None:
        """Save round `number`: a tree of arrays, and JSON-ready notes. Returns when the arrays are copied; writing goes on in the background."""
        self._manager.save(number, args=ocp.args.Composite(state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(notes)))

    def restore(self, number: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """State and notes of a round; `like` gives the tree's shapes, dtypes and shardings."""
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        found = self._manager.restore(number, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), notes=ocp.args.JsonRestore()))
        return found.state, found.notes

    def close(self) -> None:
        """Wait until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()
