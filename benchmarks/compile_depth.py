"""Whether the time to compile a run grows with the model's depth: processor seconds of its programs at two depths.

    python benchmarks/compile_depth.py [--model Llama-3.2-3B] [--topology v5e:2x4] [--mesh 2x4] [--layers 2 28]

Each program is lowered and compiled for TPUs that are not here (libtpu), as `pmc-jax plan` does. Processor seconds are
of this process, so that other work on the machine changes them little.
"""

import argparse
import time

from pages import table
from scale import ASSUMED, make_config

from pmc_jax.plan import abstract, programs, topology


def compile_seconds(model: str, where: str, mesh_shape: tuple[int, int], layers: int) -> dict[str, float]:
    """Processor seconds of each program of a model with so many layers."""
    target, config = topology.parse_topology(where), make_config(model)
    mesh = topology.mesh_maker(target, compiled=True)(*mesh_shape)
    raw = abstract.read_shape(model) | {"num_hidden_layers": layers}
    shape, seconds = abstract.make_shape(raw, config.train.remat), {}

    started = time.process_time()

    def compiled(name: str, lowered):
        nonlocal started
        result, _ = programs.compile_text(lowered)
        now = time.process_time()
        seconds[name], started = now - started, now
        return result

    compiled("update", programs.lower_update(shape, config, mesh, ASSUMED))
    prefilled, state_of = programs.lower_prefill(shape, config, mesh, ASSUMED)
    state = state_of(compiled("prefill", prefilled))
    compiled("decode", programs.lower_decode(shape, config, mesh, state))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Llama-3.2-3B")
    parser.add_argument("--topology", default="v5e:2x4")
    parser.add_argument("--mesh", default="2x4", help="data x model")
    parser.add_argument("--layers", nargs=2, type=int, default=[2, 28])
    asked = parser.parse_args()
    data, model = map(int, asked.mesh.split("x"))
    few, many = (compile_seconds(asked.model, asked.topology, (data, model), n) for n in asked.layers)
    rows = [[name, *(f"{s[name]:.0f}" for s in (few, many)), f"{many[name] / few[name]:.2f}x"] for name in few]
    totals = sum(few.values()), sum(many.values())
    rows.append(["all", *(f"{t:.0f}" for t in totals), f"{totals[1] / totals[0]:.2f}x"])
    print(table(["program", *(f"{n} layers, CPU s" for n in asked.layers), "ratio"], rows))


if __name__ == "__main__":
    main()
