"""The verb `report`, and the page that a run writes at its end."""

from pmc_jax.distributed import multihost
from pmc_jax.report import page
from pmc_jax.tracking.workdir import Workdir


def write_page(work: Workdir, again: bool = True) -> None:
    """Write report.html. again: also where there is one; a run that was killed just after result.json has none."""
    multihost.broadcast_from_primary(
        lambda: str(page.write([work.path])) if again or not (work.path / "report.html").exists() else None
    )
