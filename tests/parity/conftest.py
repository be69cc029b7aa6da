"""Puts tests/ on the path, for golden.py, whose random tensors and torch references the comparisons share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
