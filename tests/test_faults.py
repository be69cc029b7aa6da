"""A few of the faults of tests/faults/reliability.py; its table counts many (docs/reliability.md)."""

import json
import os
import subprocess
import sys

import pytest
from held import PATIENCE
from tiny import ROOT


def tried(folder, data, *options):
    """{fault: counts} of the harness, on a tiny checkpoint."""
    words = [f"--model={folder}", f"--data={data}", "--json", "--exactly", *options]
    command = [sys.executable, ROOT / "tests" / "faults" / "reliability.py", *words]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=3 * PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parity  # it takes long; tests/test_resume.py kills runs too
def test_faults_of_most_kinds(tiny_folder, data_folder):
    """One of most kinds: the same to the bit, or refused."""
    counts = tried(tiny_folder, data_folder, "--only=kill,term,damage,full,two,locks", "--times=1", "--seed=1")
    assert len(counts) == 6 and all(of["tried"] == of["identical"] + of["refused"] > 0 for of in counts.values())
