"""The verb `compare`: the runs of a comparison, or a share of them; then table, figures and page."""

import os
from pathlib import Path

from ml_collections import ConfigDict

from pmc_jax.compare import page
from pmc_jax.compare.summary import Results
from pmc_jax.compare.tables import narrow, start_line, tables
from pmc_jax.errors import UserError
from pmc_jax.models import pretrained
from pmc_jax.runs.cells import read_plan
from pmc_jax.runs.comparison import Comparison, Share
from pmc_jax.runs.console import console
from pmc_jax.runs.tables import text_table
from pmc_jax.runs.topic import check_not_asked
from pmc_jax.runs.unlearn import load_data
from pmc_jax.tracking.files import write_json


def share_of(task: int | None, tasks: int | None) -> Share | None:
    """The share that --task and --tasks name, or a SLURM array; None = everything, and the table at the end.

    Raises:
        UserError: one of the two is missing, or there is no such share.
    """
    if task is None and tasks is None:
        array = {name: os.environ.get(f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "MIN", "STEP", "COUNT")}
        if not array["ID"] or not array["COUNT"]:
            return None
        task = (int(array["ID"]) - int(array["MIN"] or 0)) // int(array["STEP"] or 1)
        tasks = int(array["COUNT"])
    if task is None or tasks is None or not 0 <= task < tasks:
        raise UserError(f"--task={task} --tasks={tasks}: both are needed, task from 0 to tasks - 1")
    return Share(task, tasks)


def run_compare(
    config: ConfigDict, workdir: str, share: Share | None = None, table_only: bool = False
) -> Results | None:
    """Run what is not there yet; then write results.json, results.md, figures/ and comparison.html.

    Args:
        config: settings with a section `compare`.
        workdir: the folder of the comparison.
        share: which runs this process does; it then makes no table. None = all.
        table_only: nothing is run.

    Returns:
        What results.json holds; None for a share.

    Raises:
        UserError: the preset compares nothing, or the data or the checkpoint is not there; no run came to an end.
    """
    plan, folder = read_plan(config), Path(workdir)
    page.check(folder)
    comparison = Comparison(plan, folder, share)
    comparison.check()
    if not table_only:
        first = next(iter(plan.cells.values())).config
        check_not_asked(first)
        pretrained.check_path(first.model.path)
        load_data(first)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        comparison.run()
    if share is not None and not table_only:
        console.print(f"task {share.number} of {share.of} is done; the same command without a task makes the table")
        return None
    results = comparison.results()
    if not any(point["seeds"] for row in results["rows"] for point in row["points"]):
        name, why = next(iter(results["missing"].items()))
        raise UserError(f"--workdir={folder}: no run came to an end; {name}: {why}")
    write_json(folder / "results.json", results)
    page.write(folder, results)
    show(folder, results)
    return results


def show(folder: Path, results: Results) -> None:
    """Print the tables, the rule, what is missing, and where everything lies."""
    for one in tables(results):
        for part in narrow(one):
            notes = [note for note in one.notes if note.split(":")[0] in part.columns]
            console.print(text_table(one.title, "\n".join(notes), part.columns, part.rows), highlight=False)
    for line in (results["rule"], start_line(results)):
        console.print(line, highlight=False)
    for name, why in results["missing"].items():
        console.print(f"{name}: {why}", highlight=False, markup=False, soft_wrap=True)
    files = ("results.json", "results.md", "comparison.html", "figures")
    console.print("   ".join(str(folder / name) for name in files), soft_wrap=True)
