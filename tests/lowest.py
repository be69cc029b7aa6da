"""Prints the lowest versions that pyproject.toml allows, as constraints for pip (`make lowest`)."""

import re
import tomllib
from pathlib import Path


def lowest(requirements: list[str]) -> list[str]:
    """name==version of each requirement; ValueError for one without a lower bound."""
    pinned = []
    for requirement in requirements:
        match = re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", requirement)
        if not match:
            raise ValueError(f"{requirement}: has no lower bound")
        pinned.append(f"{match[1]}=={match[2]}")
    return pinned


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    print("\n".join(lowest(project["dependencies"] + project["optional-dependencies"]["test"])))
