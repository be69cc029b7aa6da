"""Drawn evaluation logs for tests, and how two logs are compared."""

import numpy as np
import pytest

from pmc_jax.evaluate import log_format, log_rows


def stated(log):
    values = {}
    for name, entry in log.items():
        values[name] = entry["agg_value"]
        values |= {f"{name}/{side}": entry[side]["agg_value"] for side in ("forget", "holdout") if side in entry}
    return values


def close(one, other):
    return one == (other if other is None or isinstance(other, str) else pytest.approx(other, rel=1e-6, abs=1e-6))


def same(values, wanted, but=()):
    assert values.keys() == wanted.keys()
    assert not {n: (values[n], wanted[n]) for n in wanted if n not in but and not close(values[n], wanted[n])}


def column(log, name, key, side=None):
    entry = log[name][side] if side else log[name]
    return [row[key] for row in entry["value_by_index"].values()]


def drawn(seed, rows=12, others=5):
    """Rows of an evaluation of `rows` forget and retain rows and `others` of the other sets."""
    rng = np.random.default_rng(seed)
    made = {}
    for name in ("forget", "retain", "ra", "wf"):
        n, k = (rows, 5) if name in ("forget", "retain") else (others, 3)
        made[f"{name}_Q_A_Prob"] = log_rows.probability_rows(rng.exponential(1, n))
        made[f"{name}_Q_A_PERT_Prob"] = log_rows.probability_rows(rng.exponential(3, (n, k)))
        if n == rows:
            made[f"{name}_Q_A_PARA_Prob"] = log_rows.probability_rows(rng.exponential(2, n))
        said = ["", "he wrote", "she was born in Konya"]
        made[f"{name}_Q_A_ROUGE"] = log_rows.rouge_rows(
            ["Q?"] * n, [f"she was born in {name}{i}" for i in range(n)], [said[i % 3] for i in range(n)]
        )
    for name in ("extraction_strength", "exact_memorization"):
        made[name] = log_rows.score_rows(rng.random(rows))
    for name in log_format.ATTACKS:
        made[name] = {"forget": rng.normal(0, 1, rows), "holdout": rng.normal(0.5, 1, rows)}
    return made
