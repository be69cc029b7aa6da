"""A wheel holds everything: installed outside the repository it finds presets, shapes and templates."""

import json
import os
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest
from lines import refused
from tiny import ROOT

SHIPPED = ("pmc_jax", "configs", "pyproject.toml", "README.md", "LICENSE")


class Installed(NamedTuple):
    """A folder with the installed wheel, and an empty one to work in."""

    site: str
    folder: str

    def run(self, *words):
        """The installed `pmc-jax`."""
        return self.python("-m", "pmc_jax.main", *words)

    def python(self, *words):
        """A Python that sees the wheel first, then the packages of this environment; nothing of the checkout."""
        env = os.environ | {"PYTHONPATH": str(self.site)}
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    base = tmp_path_factory.mktemp("wheel")
    (base / "source").mkdir()
    for name in SHIPPED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, base / "source" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [
        *pip,
        "wheel",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        base / "dist",
        base / "source",
    ]
    done = subprocess.run(build, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    (wheel,) = (base / "dist").glob("*.whl")
    install = [*pip, "install", "--no-index", "--no-deps", "--target", base / "site", wheel]
    done = subprocess.run(install, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    (base / "empty").mkdir()
    return Installed(base / "site", base / "empty")


def test_every_file_of_the_package_is_in_the_wheel(installed):
    site = installed.site / "pmc_jax"
    shipped = {p.relative_to(ROOT / "pmc_jax") for p in (ROOT / "pmc_jax").rglob("*") if p.is_file()}
    missing = {str(p) for p in shipped if "__pycache__" not in p.parts and not (site / p).exists()}
    assert not missing
    assert {p.name for p in (ROOT / "configs").glob("*.py")} <= {p.name for p in (site / "presets").iterdir()}
    where = installed.python("-c", "import pmc_jax; print(pmc_jax.__file__)").stdout
    assert where.strip() == str(site / "__init__.py")


def test_presets_are_found_by_name_and_by_the_path_in_a_checkout(installed):
    help_text = installed.run("--help").stdout
    for name in ("demo", "tofu", "tofu_llama", "tofu_phi"):
        assert name in help_text
    assert refused(
        installed.run("unlearn", "--config=tofu_lama"),
        "tofu_lama",
        "one of ablations, ",
        ", tofu, tofu_llama, tofu_phi",
    )
    for preset in ("tofu_llama", "configs/tofu_llama.py"):
        said = installed.run("unlearn", f"--config={preset}", "--config.model.path=/no/such", "--workdir=run")
        assert refused(said, "model.path='/no/such'")
    assert not list(installed.folder.iterdir())


@pytest.mark.parity  # it needs libtpu, which `make parity` installs
def test_plan_reads_the_shapes(installed):
    plan = ["plan", "--config=tofu_llama", "--config.model.path=Llama-3.2-1B", "--topology=v5e:2x4"]
    said = installed.run(*plan, "--compile=none", "--json")
    assert said.returncode == 0 and json.loads(said.stdout), said.stderr


def test_report_reads_its_templates(installed, make_run):
    said = installed.run("report", make_run("first"), "--output=page.html")
    page = installed.folder / "page.html"
    assert said.returncode == 0 and "<script" in page.read_text(encoding="utf-8"), said.stderr
    page.unlink()


def test_the_demo_starts_without_a_flag(installed):
    """As far as its data: the preset and the working folder are found."""
    code = "import sys, pmc_jax.main as m, pmc_jax.runs.demo as d; sys.argv = ['pmc-jax', 'demo']\n"
    code += "d.run_demo = lambda config, workdir: print(workdir, config.demo.train.epochs, config.model.scratch)\n"
    said = installed.python("-c", code + "m.main()")
    assert said.returncode == 0 and said.stdout.startswith("runs/demo 24 "), said.stderr
    assert "hidden_size: 192" in said.stdout
