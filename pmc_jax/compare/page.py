"""A comparison's files: the page, the section for docs/results.md, the figures."""

import base64
from pathlib import Path

import jinja2

from pmc_jax.compare.figures import draw_all
from pmc_jax.compare.summary import Results
from pmc_jax.compare.tables import markdown, start_line, tables
from pmc_jax.errors import telling_file_errors
from pmc_jax.report.page import check_page
from pmc_jax.tracking.files import write_whole
from pmc_jax.tracking.progress import say_once

PAGE, SECTION, FIGURES = "comparison.html", "results.md", "figures"
NO_FIGURES = "No figures: they need matplotlib (pip install 'pmc-jax[figures]'); --table then adds them."


def check(folder: Path) -> None:
    """UserError where something else is in the page's place."""
    check_page(folder / PAGE)


def write(folder: Path, results: Results) -> None:
    """Write the page, the section and the figures of a comparison into its folder."""
    try:
        drawn, problem = draw_all(results), ""
    except ImportError:
        drawn, problem = {}, NO_FIGURES
        say_once(NO_FIGURES)
    with telling_file_errors(folder):
        (folder / FIGURES).mkdir(exist_ok=True)
    for name, (_, image) in drawn.items():
        write_whole(folder / FIGURES / f"{name}.svg", image.decode())
    addresses = {title: f"{FIGURES}/{name}.svg" for name, (title, _) in drawn.items()}
    write_whole(folder / SECTION, markdown(results, addresses))
    images = [(title, base64.b64encode(image).decode()) for title, image in drawn.values()]
    write_whole(folder / PAGE, render(results, images, problem))


def render(results: Results, images: list[tuple[str, str]], problem: str) -> str:
    """The HTML. It loads nothing, and runs no script.

    Args:
        results: of the comparison.
        images: (title, SVG in base64) of each figure.
        problem: why there are no figures; empty where there are.
    """
    own = Path(__file__).parent
    loader = jinja2.FileSystemLoader([own, own.parent / "report"])  # the style is that of the report
    env = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    shown = {"results": results, "tables": tables(results), "start": start_line(results), "figures": images}
    return env.get_template("comparison.html.j2").render(shown | {"no_figures": problem})
