"""A plan as tables for the terminal."""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from pmc_jax.plan.topology import parse_topology

HELD = {
    "params": "parameters",
    "optimizer": "optimizer",
    "weights": "parameters of the forward pass",
    "start": "parameters of the start",
    "sampling": "parameters for decoding",
    "cache": "cache",
}


def gib(size: float) -> str:
    """Bytes in GiB."""
    return f"{size / 2**30:.2f}"


def seconds(value: float) -> str:
    """Seconds, or milliseconds where it is less than one."""
    return f"{value:.1f} s" if value >= 1 else f"{1e3 * value:.2f} ms"


def table(title: str, headings: list[str], rows: list[list[str]]) -> Table:
    """A table whose first column is words and whose others are numbers."""
    made = Table(title=title, title_justify="left")
    for i, heading in enumerate(headings):
        made.add_column(heading, justify="right" if i else "left")
    for row in rows:
        made.add_row(*row)
    return made


def meshes(plan: dict[str, Any]) -> Table:
    """The candidates, by the memory and time model."""
    rows = []
    for m in plan["meshes"]:
        chosen = plan["mesh"] == {"data": m["data"], "model": m["model"]}
        peak = max(m["update_bytes"], m["sample_bytes"])
        rows.append(
            [
                f"{m['data']} x {m['model']}" + " <-" * chosen,
                gib(peak),
                "yes" if m["fits"] else "no",
                seconds(m["round_seconds"]),
            ]
        )
    return table("meshes, estimated", ["data x model", "GiB a chip", "fits", "a round"], rows)


def held(plan: dict[str, Any]) -> Table:
    """Memory per chip."""
    h, m = plan["held"], plan["memory"]
    titles = HELD | ({"params": "adapters"} if plan["settings"]["lora.rank"] else {})
    rows = [[title, gib(h[name])] for name, title in titles.items()]
    if "programs" in plan:
        rows += [[f"{name}: activations and temporaries", gib(p["temporary"])] for name, p in plan["programs"].items()]
    rows += [
        ["all, while updating", gib(m["used"]["update"])],
        ["all, while sampling", gib(m["used"]["decode"])],
        ["HBM", gib(m["hbm"])],
    ]
    return table("memory, GiB a chip", ["what", "GiB"], rows)


def programs(plan: dict[str, Any]) -> Table:
    """Work and time of each program on one chip."""
    rows = []
    for name, p in plan["programs"].items():
        r = p["roofline"]
        times = [
            seconds(p["optimal_seconds"]),
            *(seconds(r[k]) for k in ("products", "memory", "collectives", "bound")),
        ]
        rows.append(
            [
                name,
                f"{p['flops'] / 1e9:.0f}",
                f"{p['bytes'] / 1e9:.2f}",
                *times,
                f"{p['float32_products']:.0f}",
                str(p["weight_gathers"]),
                f"{p['compile_seconds']:.0f} s",
            ]
        )
    headings = [
        "program",
        "GFLOP",
        "GB",
        "operations",
        "products",
        "memory",
        "collectives",
        "bound",
        "float32 products",
        "weights gathered",
        "compiled in",
    ]
    return table("programs, a chip (update: a micro-batch; prefill: a reading; decode: a step)", headings, rows)


def collectives(plan: dict[str, Any]) -> Table:
    """What each program sends between chips, what weighs most first."""
    rows = [
        [name, c["kind"], str(c["count"]), f"{c['bytes'] / 1e6:.2f}", str(c["group"])]
        for name, p in plan["programs"].items()
        for c in sorted(p["collectives"], key=lambda c: -c["count"] * c["bytes"])
    ]
    return table("collectives", ["program", "kind", "times", "MB each", "chips"], rows)


def show(plan: dict[str, Any]) -> None:
    """Print the plan."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    a, s, m = plan["assumed"], plan["seconds"], plan["memory"]
    is_gpu = parse_topology(plan["topology"]).is_gpu
    extent = {
        "none": "not compiled: estimated",
        "whole": "compiled whole",
    }
    console.print(
        f"{plan['model']} ({plan['parameters'] / 1e9:.2f}B) on {plan['topology']}, {plan['chips']} chips; "
        f"{extent[plan['compiled']]}"
    )
    if rank := plan["settings"]["lora.rank"]:
        console.print(f"trained: adapters of rank {rank}, {plan['trained'] / 1e6:.1f}M parameters")
    console.print(
        f"assumed: {a['questions']} questions of {a['prompt']} tokens ({a['prefix']} shared), answers of "
        f"{a['answer']} tokens on average"
    )
    for part in [meshes, held] + [programs, collectives] * ("programs" in plan):
        console.print(part(plan))
    verdict = "fits" if m["fits"] else "DOES NOT FIT"
    console.print(
        f"mesh {plan['mesh']['data']} x {plan['mesh']['model']}: {verdict}; {gib(max(m['used'].values()))} of "
        f"{gib(m['hbm'])} GiB a chip"
    )
    console.print(
        f"a round: {seconds(s['round'])} = sampling {seconds(s['sample'])} + {a['updates_per_round']} updates "
        f"{seconds(s['update'])}, at the bounds"
    )
    if is_gpu:
        console.print(
            "Without a card nobody can say which kernels win, nor how near they come to these bounds. JAX takes three "
            "quarters of a GPU's memory, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise."
        )
    console.print(
        f"largest that fits: train.batch_size={plan['largest']['batch_size']}, "
        f"sample.max_rows={plan['largest']['max_rows']}"
    )
