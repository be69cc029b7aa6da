"""What follows from the figures of benchmarks/gpu.py, and the tables of docs/performance.md: pure functions of its
JSON.
"""

from typing import Any

import pages

from pmc_jax.plan import roofline
from pmc_jax.plan.roofline import Peak, Work

# Rounds after which a derived run samples no more. In the published one picked answers score 0 after about 46 updates,
# which is two rounds.
SOLVED_AFTER = (2, 5)
PHASES = ("sample", "score", "update")


def machine(result: dict[str, Any]) -> dict[str, Any]:
    """What was measured of the device itself."""
    return result.get("machine", {}).get("device", {})


def peak(device: dict[str, Any]) -> Peak | None:
    """Of the data sheet, or, for a device without one, what a product and a copy reached."""
    known = roofline.peak_of(device.get("kind", ""))
    reached = [device.get(name) for name in ("product_flops_per_second", "copy_bytes_per_second")]
    return known or (Peak(*reached) if all(isinstance(x, float) for x in reached) else None)


def with_share(step: dict[str, Any], limits: Peak) -> dict[str, Any]:
    """The step with its bound, what the bound is made of, and which share of them was reached."""
    work = Work(step["flops"], step["bytes"])
    bound = roofline.seconds(work, limits)
    shares = {"bound_share": bound / step["seconds"], "peak_share": step["flops"] / step["seconds"] / limits.flops}
    return step | {"bound_seconds": bound, "limit": roofline.limit(work, limits)} | shares


def derived_rounds(part: dict[str, Any], epochs: int, answers: int) -> dict[str, Any]:
    """Of a part's rounds: the steady one (all but the first, which compiles), what was of use in it, and the whole run.

    whole_run_seconds: compilation included; "never": with every question sampled in every round, otherwise only in the
    first so many.
    """
    rounds = part.get("rounds", [])
    if len(rounds) < 2:
        return {}
    steady, first = rounds[1:], rounds[0]
    mean = {
        name: sum(r[name] for r in steady) / len(steady)
        for name in ("seconds", *PHASES, "tokens", "answers", "row_steps", "updates")
    }
    sampling = mean["sample"] + mean["score"]
    runs = {"never": first["seconds"] + (epochs - 1) * mean["seconds"]}
    runs |= {str(n): runs["never"] - max(0, epochs - n) * sampling for n in SOLVED_AFTER}
    rates = {
        "answers_per_second": mean["answers"] / mean["sample"],
        "tokens_per_second": mean["tokens"] / mean["sample"],
    }
    return {
        "steady_round": mean,
        "mean_length": mean["tokens"] / mean["answers"],
        "useful_share": mean["tokens"] / mean["row_steps"],
        "compiled": [r["compiled"] for r in rounds],
        "update_rows_per_second": 2 * answers / mean["update"],
        "whole_run_seconds": runs,
        **rates,
    }


def derived_yardstick(part: dict[str, Any], epochs: int, questions: int) -> dict[str, Any]:
    """The yardstick's rates, and the whole run that its batches foretell."""
    timed = part.get("batches", {})
    if "seconds" not in timed:
        return {}
    seconds, counts = timed["seconds"], timed["counts"]
    batches = questions / timed["batch_size"]
    each = {phase: batches * seconds[phase] / counts["batches"] for phase in PHASES}
    runs = {"never": epochs * sum(each.values())}
    runs |= {str(n): runs["never"] - max(0, epochs - n) * (each["sample"] + each["score"]) for n in SOLVED_AFTER}
    return {
        "round": each,
        "mean_length": counts["tokens"] / counts["answers"],
        "answers_per_second": counts["answers"] / seconds["sample"],
        "update_rows_per_second": counts["update_rows"] / seconds["update"],
        "whole_run_seconds": runs,
    }


def add_derived(result: dict[str, Any]) -> dict[str, Any]:
    """The result with everything that follows from what is in it."""
    limits = peak(machine(result))
    derived = dict(result)
    for model in (m for m in ("llama", "phi") if m in result):
        parts = {name: dict(part) for name, part in result[model].items()}
        if limits and "steps" in parts:
            steps = parts["steps"].items()
            parts["steps"] = {k: with_share(v, limits) if isinstance(v, dict) and "flops" in v else v for k, v in steps}
        for name in ("rounds", "run"):
            if "job" in parts.get(name, {}):
                job = parts[name]["job"]
                parts[name] |= derived_rounds(parts[name], job["epochs"], job["questions"])
        if "job" in parts.get("yardstick", {}):
            job = parts["yardstick"]["job"]
            parts["yardstick"] |= derived_yardstick(parts["yardstick"], job["epochs"], job["questions"])
        derived[model] = parts
    return derived


def step_rows(model: str, steps: dict[str, Any]) -> list[list[str]]:
    rows = [[f"{model}, steps: {steps['error']}", "", "", "", "", ""]] if "error" in steps else []
    for name, step in steps.items():
        if isinstance(step, dict) and "error" in step:
            rows.append([f"{model}, {name}", step["error"].splitlines()[0][:80], "", "", "", ""])
        elif isinstance(step, dict) and "bound_share" in step:
            times = [f"{1e3 * step[k]:.2f}" for k in ("seconds", "bound_seconds")]
            rows.append(
                [f"{model}, {name}", *times, step["limit"], f"{step['bound_share']:.0%}", f"{step['peak_share']:.0%}"]
            )
    return rows


def run_row(model: str, name: str, part: dict[str, Any]) -> list[str]:
    """One row of the table of rounds and runs; what is not known is a dash."""

    def cell(value: Any, form: str) -> str:
        return "-" if value is None else format(value, form)

    steady = part.get("steady_round") or part.get("round") or {}
    runs = part.get("whole_run_seconds", {})
    memory = part.get("peak_bytes") or max((r["peak_bytes"] or 0 for r in part.get("rounds", [])), default=0)
    phases = [cell(steady.get(phase), ".1f") for phase in PHASES]
    rates = [cell(part.get("answers_per_second"), ".0f"), cell(part.get("update_rows_per_second"), ".0f")]
    memory = cell(memory / 1e9 if memory else None, ".1f")
    more = [
        cell(part.get("useful_share"), ".0%"),
        cell(part.get("mean_length"), ".1f"),
        memory,
        cell(part.get("first_update_seconds"), ".0f"),
    ]
    compiled = " + ".join(map(str, part.get("compiled", []))) if name == "rounds" else "-"
    whole = [cell(runs.get(k), ".0f") for k in ("never", *map(str, reversed(SOLVED_AFTER)))]
    if name == "run":
        whole = [cell(part.get("seconds", {}).get("total"), ".0f") + " (measured)", "-", "-"]
    return [
        f"{model}, {name}" + (f": {part['error']}" if "error" in part else ""),
        *phases,
        *rates,
        *more,
        compiled,
        *whole,
    ]


def table(result: dict[str, Any]) -> str:
    """The device in a line, single steps against their bound, and rounds and whole runs."""
    device, limits = machine(result), peak(machine(result))
    lines = [
        f"{device.get('kind', 'unknown device')}, "
        f"{', '.join(f'{k} {v}' for k, v in device.get('versions', {}).items())}"
    ]
    if limits:
        reached = [device.get(k) for k in ("product_flops_per_second", "copy_bytes_per_second")]
        words = f"bounds are of {limits.flops / 1e12:.3g} TFLOP/s and {limits.bandwidth / 1e12:.3g} TB/s"
        if all(isinstance(x, float) for x in reached):
            words += f"; a large product reached {reached[0] / 1e12:.3g}, a large copy {reached[1] / 1e12:.3g}"
        lines.append(words)
    models = [m for m in ("llama", "phi") if m in result]
    steps = [row for m in models for row in step_rows(m, result[m].get("steps", {}))]
    rows = [
        run_row(m, name, result[m][name])
        for m in models
        for name in ("rounds", "run", "yardstick")
        if name in result[m]
    ]
    phases = [f"{p}, s a round" for p in PHASES]
    heads = [
        *phases,
        "answers/s",
        "rows/s",
        "useful",
        "tokens an answer",
        "peak, GB",
        "first update, s",
        "programs compiled, by round",
    ]
    heads += ["whole run, s", *(f"solved after {n} rounds, s" for n in reversed(SOLVED_AFTER))]
    return "\n\n".join(
        [
            *lines,
            pages.table(["step", "ms", "bound, ms", "bound by", "share", "share of peak"], steps),
            pages.table(["what", *heads], rows),
        ]
    )
