"""Passages of general prose, written for this package: text that no one asks a model to forget."""

from importlib import resources


def load_passages() -> list[str]:
    """The passages, of some 45 words each, on as many subjects."""
    return resources.files("pmc_jax.data").joinpath("passages.txt").read_text("utf-8").splitlines()
