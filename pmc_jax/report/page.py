"""Workdirs -> what the page says -> HTML.

Everything a model, a data file or a setting says is text to the template, which escapes it; the page carries no data
for its script, and lets no script run but its own.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2

from pmc_jax.errors import UserError, telling_file_errors
from pmc_jax.evaluate.recall import CONTENT
from pmc_jax.report.absent import not_measured
from pmc_jax.report.answers import kept, questions
from pmc_jax.report.facts import rows_of, seconds, settings_rows
from pmc_jax.report.headline import headline
from pmc_jax.report.read import Run, read_runs
from pmc_jax.report.recalls import histograms, recall_groups
from pmc_jax.report.rounds import charts
from pmc_jax.report.tables import sections
from pmc_jax.settings.paths import expand
from pmc_jax.tracking.files import write_whole
from pmc_jax.tracking.progress import clock_time

# What a page begins with; those of earlier versions have the second only.
MARKS = (b'<meta name="generator" content="pmc-jax">', b"<title>Unlearning report: ")


def write(workdirs: list[str | Path], output: str | Path | None = None, redact: bool = False) -> Path:
    """Write the page of one run, or of several side by side, to `output`, or to report.html in the first workdir.
    redact: without the answers to forget questions, as log.redact asks for.

    Raises:
        UserError: there is nothing to report, or something else is in the page's place.
    """
    paths = [Path(expand(w)) for w in workdirs]
    file = Path(expand(output)) if output else paths[0] / "report.html"
    check_page(file)
    write_whole(file, render(context(read_runs(paths, redact))))
    return file


def check_page(file: Path) -> None:
    """UserError unless there is nothing, an empty file, or an older page in a page's place."""
    with telling_file_errors(file):
        if not file.exists():
            return
        if not file.is_file():
            raise UserError(f"{file}: is no file; name the file of the page with --output=FILE")
        with file.open("rb") as opened:
            start = opened.read(4096)
        if start and not any(mark in start for mark in MARKS):
            raise UserError(f"{file}: is no page that pmc-jax wrote; choose another place with --output=FILE")


def render(values: dict[str, Any]) -> str:
    """The HTML. A value that the template misspells is an error and no blank."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    env = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters |= {"number": number, "percent": percent, "digest": digest, "clock_time": clock_time}
    return env.get_template("report.html.j2").render(values)


def digest(script: str) -> str:
    """What the page's security policy knows its own script by."""
    return base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()


def number(value: float | None, digits: int) -> str:
    """The number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(share: float) -> float:
    """How far along a strip a value lies; what is beyond its ends (a bound may exceed 1) lies at them."""
    return round(100 * min(max(share, 0.0), 1.0), 1)


def context(runs: list[Run]) -> dict[str, Any]:
    """All that the template shows."""
    return {
        "runs": [headline(run) for run in runs],
        "sets": recall_groups(runs),
        "content_marks": all(run.score == CONTENT for run in runs),
        "charts": charts(runs),
        "histograms": [histograms(run) for run in runs],
        "questions": questions(runs),
        "kept": [kept(run) for run in runs],
        "tables": sections(runs),
        "seconds": seconds(runs),
        "settings": settings_rows(runs),
        "versions": rows_of([run.frozen.get("versions", {}) for run in runs]),
        "data": rows_of([run.frozen["data"] for run in runs]),
        "absent": not_measured(runs),
    }
