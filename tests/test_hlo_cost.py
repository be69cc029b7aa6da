"""What a compiled program costs, read from its text: by hand, and beside XLA's own account where there is no loop."""

import importlib.util
import json
import subprocess
import sys

import pytest
from tiny import ROOT

from pmc_jax.plan import collectives, hlo, hlo_cost

LOOP = """
HloModule step, is_scheduled=true

%sliced (p.0: bf16[4,256,512], p.1: s32[], p.2: bf16[8,256]) -> bf16[8,512] {
  %p.0 = bf16[4,256,512]{2,1,0:T(8,128)(2,1)} parameter(0)
  %p.1 = s32[]{:T(128)} parameter(1)
  %p.2 = bf16[8,256]{1,0:T(8,128)(2,1)S(1)} parameter(2)
  %zero = s32[] constant(0)
  %slice.1 = bf16[1,256,512]{2,1,0:T(8,128)(2,1)} dynamic-slice(%p.0, %p.1, %zero, %zero), dynamic_slice_sizes={1,256,512}
  %bitcast.1 = bf16[256,512]{1,0:T(8,128)(2,1)} bitcast(%slice.1)
  ROOT %convolution.1 = bf16[8,512]{1,0:T(8,128)(2,1)S(1)} convolution(%p.2, %bitcast.1), dim_labels=bf_io->bf
}

%body (state: (s32[], bf16[4,256,512], bf16[8,256])) -> (s32[], bf16[4,256,512], bf16[8,256]) {
  %state = (s32[]{:T(128)}, bf16[4,256,512]{2,1,0:T(8,128)(2,1)}, bf16[8,256]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %stack = bf16[4,256,512]{2,1,0:T(8,128)(2,1)} get-tuple-element(%state), index=1
  %x = bf16[8,256]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%state), index=2
  %fusion.1 = bf16[8,512]{1,0:T(8,128)(2,1)S(1)} fusion(%stack, %i, %x), kind=kOutput, calls=%sliced
  %all-reduce.1 = bf16[8,512]{1,0} all-reduce(%fusion.1), channel_id=1, replica_groups={{0,1}}, to_apply=%add, metadata={op_name="jit(f)/dot"}
  ROOT %next = (s32[], bf16[4,256,512], bf16[8,256]) tuple(%i, %stack, %x)
}

%condition (state.1: (s32[], bf16[4,256,512], bf16[8,256])) -> pred[] {
  %state.1 = (s32[], bf16[4,256,512], bf16[8,256]) parameter(0)
  %limit = s32[]{:T(128)} constant(4)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (weights: bf16[4,256,512], rows: bf16[8,256], cache: f32[16,100], new: f32[1,100]) -> f32[16,100] {
  %weights = bf16[4,256,512]{2,1,0:T(8,128)(2,1)} parameter(0)
  %rows = bf16[8,256]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  %cache = f32[16,100]{1,0:T(8,128)} parameter(2)
  %new = f32[1,100]{1,0:T(8,128)S(1)} parameter(3)
  %start = s32[]{:T(128)} constant(0)
  %before = (s32[], bf16[4,256,512], bf16[8,256]) tuple(%start, %weights, %rows)
  %while.1 = (s32[], bf16[4,256,512], bf16[8,256]) while(%before), condition=%condition, body=%body
  ROOT %update.1 = f32[16,100]{1,0:T(8,128)} dynamic-update-slice(%cache, %new, %start, %start)
}
"""  # noqa: E501


def test_a_loop_reads_a_slice_of_its_stack_each_time():
    """Four turns: 256 x 512 weights of two bytes each, products of 8 rows; what lies in fast memory is free. The loop's
    counter is four bytes in a tile of 128 numbers. Then one row of 100, filled up to 8 x 128, is written in place.
    """
    cost = hlo_cost.cost(hlo.parse(LOOP), flops=1e12, bandwidth=1e9)
    assert cost.flops == 4 * 2 * 8 * 256 * 512
    counter, summed, row = 4, 8 * 512 * 2, 8 * 128 * 4
    assert cost.bytes == 4 * (256 * 512 * 2 + counter + summed) + row + 2 * counter
    assert cost.seconds == pytest.approx(cost.bytes / 1e9), "each operation is bound by its bytes"


def test_collectives_of_a_loop_count_as_often_as_it_runs():
    (found,) = hlo_cost.sent(hlo.parse(LOOP)).items()
    assert found == (collectives.Collective("all-reduce", 8 * 512, 2 * 8 * 512, 2), 4)


def test_sizes_are_those_of_tiles():
    assert hlo.size_of("bf16[260,668,48]{2,1,0:T(8,128)(2,1)}") == 260 * 672 * 128 * 2
    assert hlo.size_of("f32[260,32064]{0,1:T(8,128)}") == 32064 * 384 * 4
    assert hlo.size_of("(f32[3]{0}, bf16[2,3]{1,0:T(8,128)(2,1)S(1)})") == 12
    assert hlo.anywhere("bf16[8,128]{1,0:T(8,128)(2,1)S(1)}") == 2048


@pytest.mark.parametrize(
    ("line", "flops"),
    [
        ("%y = f32[8,16]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}", 2 * 8 * 16 * 32),
        ("%y = f32[8,16]{1,0} convolution(%a, %b), dim_labels=bf_io->bf", 2 * 8 * 16 * 32),
        # A batch of products is a window over padding: each place has one of its taps.
        (
            "%y = f32[2,8,16]{2,1,0} convolution(%c, %d), window={size=2 stride=1 lhs_dilate=2}, "
            "dim_labels=0bf_0io->0bf",
            2 * 2 * 8 * 16 * 32,
        ),
        ("%y = f32[8,16]{1,0} add(%a, %b)", 0),
    ],
)
def test_products(line, flops):
    text = f"""
ENTRY %main (a: f32[8,32]) -> f32[8,16] {{
  %a = f32[8,32]{{1,0}} parameter(0)
  %b = f32[32,16]{{1,0}} parameter(1)
  %c = f32[2,8,32]{{2,1,0}} parameter(2)
  %d = f32[2,32,16]{{2,1,0}} parameter(3)
  ROOT {line}
}}
"""
    assert hlo_cost.cost(hlo.parse(text), 1.0, 1.0).flops == flops


BESIDE_XLA = """
import json, sys, tempfile
from pathlib import Path
import jax, jax.numpy as jnp
from pmc_jax.plan import hlo, hlo_cost, programs, topology
target = topology.parse_topology("v5e:2x2")
devices = topology.devices(target)
one = jax.sharding.SingleDeviceSharding(devices[0])
make = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=one)

def layer(x, w):
    return jax.nn.silu(x @ w), None

def looped(x, stack):
    return jax.lax.scan(layer, x, stack)[0]

def one_by_one(x, stack):
    for i in range(stack.shape[0]):
        x, _ = layer(x, stack[i])
    return x

found = {}
for name, f in (("looped", looped), ("one_by_one", one_by_one)):
    compiled, text = programs.compile_text(jax.jit(f).lower(make(512, 1024), make(6, 1024, 1024)))
    cost = hlo_cost.cost(hlo.parse(text), target.chip.flops, target.chip.bandwidth)
    found[name] = {"ours": cost._asdict(), "xla": {k: compiled.cost_analysis()[k] for k in ("flops", "bytes accessed")}}
print(json.dumps(found))
"""


@pytest.mark.parity
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_beside_xla_s_account():
    """Without a loop XLA counts the same products. In a loop it counts one turn, and here there are six."""
    done = subprocess.run(
        ["env", "-u", "XLA_FLAGS", sys.executable, "-c", BESIDE_XLA],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    products = 6 * 2 * 512 * 1024 * 1024
    for account in found.values():
        assert account["ours"]["flops"] == products
        weights, rows = 6 * 2 * 1024 * 1024, 2 * 2 * 512 * 1024
        assert weights <= account["ours"]["bytes"] < 1.2 * (weights + rows), "what is in fast memory is free"
    assert found["one_by_one"]["xla"]["flops"] == pytest.approx(products, rel=0.01)
    assert found["looped"]["xla"]["flops"] < 0.5 * products
