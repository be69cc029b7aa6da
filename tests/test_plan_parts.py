"""What a plan is made of, without a compiler: topologies, shapes, assumed lengths, the reading of HLO."""

import importlib.util
import json

import jax
import pytest
from tiny import LLAMA

from pmc_jax import config as settings
from pmc_jax.errors import UserError
from pmc_jax.models import weights
from pmc_jax.plan import collectives, gpu, hlo, hlo_cost, run, topology
from pmc_jax.plan.abstract import Assumed, make_shape, read_shape, shipped


@pytest.mark.parametrize(
    ("text", "slices", "words"),
    [
        (None, 1, ["--topology is missing", "v5e:2x4"]),
        ("v9x:2x4", 1, ["v9x:2x4", "v5p"]),
        ("v5e", 1, ["v5e", "examples"]),
        ("v5p:4x4", 1, ["3 axes"]),
        ("v5e:0x4", 1, ["2 axes"]),
        ("2*v5e:2x4", 2, ["once"]),
        ("v5e:2x4", 0, ["--slices=0"]),
    ],
)
def test_topologies_that_are_none(text, slices, words):
    with pytest.raises(UserError) as error:
        topology.parse_topology(text, slices)
    assert all(word in str(error.value) for word in words)


def test_topologies():
    assert topology.parse_topology("v5p:2x4x4").chips == 32
    assert topology.parse_topology("2*v5e:4x4") == topology.parse_topology("v5e:4x4", 2)
    assert str(topology.parse_topology("v5e:4x4", 2)) == "2*v5e:4x4"


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="libtpu"):
        topology.devices(topology.parse_topology("v5e:2x4"))


def test_shapes_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert read_shape(str(tmp_path)) == LLAMA
    assert read_shape("meta-llama/Llama-3.2-3B-Instruct")["num_hidden_layers"] == 28
    assert read_shape("phi-1_5")["model_type"] == "phi"
    assert read_shape("google/gemma-2-9b-it")["head_dim"] == 256
    for path in ("", "llama-9", "/no/such/folder"):
        with pytest.raises(UserError, match=r"Llama-3\.2-1B"):
            read_shape(path)


BILLIONS = {  # as their model cards say
    "Llama-3.1-70B": 70.6,
    "Llama-3.1-8B": 8.03,
    "Llama-3.2-1B": 1.24,
    "Llama-3.2-3B": 3.21,
    "Mistral-7B-v0.1": 7.24,
    "OLMo-2-1124-7B": 7.30,
    "Phi-3-mini-4k": 3.82,
    "Qwen2.5-7B": 7.62,
    "Qwen3-8B": 8.19,
    "gemma-2-9b": 9.24,
    "gemma-3-12b": 11.77,  # without the vision tower
    "phi-1_5": 1.42,
    "phi-4": 14.7,
}


def test_the_shapes_have_the_parameters_of_their_models():
    assert shipped().keys() == BILLIONS.keys()
    for name, billions in BILLIONS.items():
        params = weights.abstract_params(make_shape(read_shape(name), remat=False).model)
        count = sum(x.size for x in jax.tree.leaves(params))
        assert count / 1e9 == pytest.approx(billions, rel=0.005), name


def test_assumed_lengths():
    lengths = Assumed(400, 36, 64, 45).lengths(128, 10000)
    assert abs(lengths.mean() - 45) < 1.5 and lengths.min() >= 2 and lengths.max() <= 128


PROGRAM = """
%fused (p: bf16[4,8]) -> bf16[32,8] {
  %all-gather.1 = bf16[32,8]{1,0} all-gather(%p), channel_id=3, replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_0'}, metadata={op_name="f/dot"}
}
%again (p: bf16[4,8]) -> bf16[32,8] {
  %all-gather.2 = bf16[32,8]{1,0} all-gather(%p), channel_id=3, replica_groups=mesh['axis_0'=8,'axis_1'=2] {'axis_0'}, metadata={op_name="f/dot"}
}
%all-reduce-scatter.7 (p: f32[16,8]) -> f32[4,8] {
  %all-reduce.1 = f32[16,8]{1,0} all-reduce(%p), channel_id=4, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %slice = f32[4,8]{1,0} dynamic-slice(%all-reduce.1, %zero)
}
%all-reduce-scatter.8 (p: f32[16,8]) -> f32[4,8] {
  %all-reduce.5 = f32[16,8]{1,0} all-reduce(%p), channel_id=4, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %slice.1 = f32[4,8]{1,0} dynamic-slice(%all-reduce.5, %zero)
}
ENTRY %main {
  %a = f32[4,8]{1,0} parameter(0)
  %b = f32[8,8]{1,0} parameter(1)
  %all-reduce.2 = (f32[2]{0}, bf16[3]{0}) all-reduce(%a, %b), channel_id=5, replica_groups=[2,4]<=[8], to_apply=%add
  %all-reduce.3 = f32[4,8]{1,0} all-reduce(%a), channel_id=6, replica_groups={{0,1}}, to_apply=%add, metadata={op_name="jit(f)/layer_0/dot"}
  %all-reduce.4 = f32[4,8]{1,0} all-reduce(%b), channel_id=6, replica_groups={{0,1}}, to_apply=%add, metadata={op_name="jit(f)/layer_1/dot"}
  %convolution.1 = f32[4,8]{1,0} convolution(%a, %b), dim_labels=bf_io->bf
}
"""  # noqa: E501


def test_collectives_are_read_once_each():
    """Two fusions of one all-gather are one; an all-reduce, or a reduce-scatter, of two layers is two."""
    module = hlo.parse(PROGRAM)
    found = [collective for collective, _ in collectives.collectives(module)]
    assert found == [
        collectives.Collective("all-gather", 256, 512, 8),
        collectives.Collective("all-reduce", 5, 14, 4),
        collectives.Collective("all-reduce", 32, 128, 2),
        collectives.Collective("all-reduce", 32, 128, 2),
        collectives.Collective("reduce-scatter", 128, 512, 4),
        collectives.Collective("reduce-scatter", 128, 512, 4),
    ]
    assert hlo_cost.float32_products(module) == 1
    assert collectives.seconds_sent(found[:1], 1.0) == 512 * 7 / 8
    assert collectives.seconds_sent(found[1:2], 1.0) == 2 * 14 * 3 / 4


def test_gpus_come_in_nodes():
    h100, two = topology.parse_topology("h100:8"), topology.parse_topology("2*h200:8")
    assert (h100.chips, two.chips, str(two)) == (8, 16, "2*h200:8") and h100.is_gpu and two.slices == 2
    assert not topology.parse_topology("v5e:2x4").is_gpu
    for text, words in (
        ("h100:9", "2\\*h100:8"),
        ("h100:2x4", "1 axes"),
        ("a100", "examples"),
        ("h100:0", "1 or more"),
    ):
        with pytest.raises(UserError, match=words):
            topology.parse_topology(text)


def small_plan(folder, where, **changes):
    values = {"model.path": str(folder), "train.batch_size": 8, "sample.num_samples": 2, "sample.max_rows": 8} | changes
    config = settings.changed(settings.default(), values)
    return run.plan(config, topology.parse_topology(where), Assumed(16, 36, 64, 45), "none")


@pytest.fixture
def llama_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path


def test_a_plan_for_gpus_needs_none(llama_folder):
    """Weights and moments in float32 are exact, and are cut by the devices; the bounds follow the data sheets."""
    one, two = (small_plan(llama_folder, where) for where in ("h100:1", "h100:2"))
    held = one["held"]
    assert held["params"] == 4 * one["parameters"] and 2 * held["params"] <= held["optimizer"] < 2 * held["params"] + 64
    assert one["mesh"] == {"data": 1, "model": 1} and one["memory"]["hbm"] == 80e9 and one["memory"]["fits"]
    assert [(m["data"], m["model"]) for m in two["meshes"]] == [(2, 1), (1, 2)]
    assert two["held"]["params"] < 0.6 * held["params"]
    newer = small_plan(llama_folder, "h200:1")["seconds"]
    assert newer["sample"] < one["seconds"]["sample"], "the same products, a quicker memory"
    tokens = {"mesh.data": 4, "mesh.model": 2}
    nodes = small_plan(llama_folder, "2*h100:4", **tokens)
    assert nodes["seconds"]["update"] > small_plan(llama_folder, "h100:8", **tokens)["seconds"]["update"]


def test_every_card_is_described_to_its_compiler():
    """Numbers of the data sheets: what XLA reads is text of `GpuTargetConfigProto`."""
    assert set(gpu.CARDS) == set(topology.GPUS)
    h100 = topology.CHIPS["h100"]
    said = gpu.target_config(gpu.CARDS["h100"], h100.hbm, h100.bandwidth)
    for field in ("core_count: 132", "memory_bandwidth: 3350000000000", "{ major: 9 minor: 0 }", "232448"):
        assert field in said
    assert said.count("{") == said.count("}")


def test_what_no_gpu_can_be_asked(llama_folder, monkeypatch):
    config = settings.changed(settings.default(), {"model.path": str(llama_folder)})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"plan-gpu.*--compile=none"):
        run.plan(config, topology.parse_topology("h100:8"), Assumed(16, 36, 64, 45), "whole")
    monkeypatch.undo()
    with pytest.raises(UserError, match="mesh.model=3: .* which is 8"):
        small_plan(llama_folder, "h100:8", **{"mesh.model": 3})
    with pytest.raises(UserError, match="2 slices"):
        small_plan(llama_folder, "2*h100:4", **{"mesh.data": 1, "mesh.model": 8})


def test_the_command_line_plans_for_gpus_without_a_compiler(cli, llama_folder):
    said = cli("plan", "--config=tofu_llama", f"--config.model.path={llama_folder}", "--topology=h100:2")
    assert said.code == 0, said.err
    assert "not compiled: estimated" in said.out and "which kernels win" in " ".join(said.out.split())
    assert "2 x 1" in said.out and "fits" in said.out
