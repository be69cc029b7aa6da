"""Checkpoint folders that are refused: (name, what is done to a whole one, words of the message)."""

import json
import os
import shutil

import numpy as np
from folders import FILE, INDEX, POINTER, change_json, change_tensors, shard, tensors
from safetensors.numpy import load_file, save_file

UP, NORM, EMBED = "model.layers.0.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"


def write(name, text):
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def config(**changes):
    return lambda folder: change_json(folder, **changes)


def weights(**changes):
    return lambda folder: change_tensors(folder, **changes)


def remove(*names):
    def change(folder):
        for name in names:
            (folder / name).unlink()

    return change


def instead_of_weights(name):
    def change(folder):
        os.replace(folder / FILE, folder / name)

    return change


def index(**files):
    """An index that names other files than those that are there."""

    def change(folder):
        names = list(load_file(folder / FILE))
        (folder / FILE).unlink()
        (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, files["name"])}))

    return change


def twice(folder):
    (folder / FILE).unlink()
    shard(folder, tensors())
    both = load_file(folder / "model-00002-of-00002.safetensors") | {EMBED: tensors()[EMBED]}
    save_file(both, folder / "model-00002-of-00002.safetensors")


def more_tokens(folder, special):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    last = max(tokenizer["model"]["vocab"].values())
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=special)
    tokenizer["added_tokens"] += [{"id": last + 1, "content": "<|im_end|>", **flags}]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def links(folder):
    (folder / FILE).unlink()
    (folder / FILE).symlink_to(folder / "gone.safetensors")


def loop(folder):
    (folder / FILE).unlink()
    (folder / FILE).symlink_to(folder / FILE)


def adapter(folder):
    (folder / FILE).unlink()
    (folder / "adapter_model.safetensors").write_bytes(b"")


def bare(folder):
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base"}')


def a_folder(name):
    def change(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


CHECKPOINTS = (
    ("no config", remove("config.json"), ["config.json", "missing"]),
    ("a config cut", write("config.json", '{"vocab_size": 5'), ["config.json", "not valid JSON"]),
    ("a config that is a list", write("config.json", "[1]"), ["JSON object"]),
    ("a config of other bytes", write("config.json", b"\xff\xfe{}"), ["not valid JSON"]),
    ("a config that is a folder", a_folder("config.json"), ["config.json", "cannot be read"]),
    ("a config that is a pointer", write("config.json", POINTER), ["Git LFS pointer", "git lfs pull"]),
    ("generation config cut", write("generation_config.json", "{"), ["generation_config.json", "JSON"]),
    ("architectures as a text", config(architectures="LlamaForCausalLM"), ["architectures", "list"]),
    ("an architecture that is not known", config(architectures=["GPT2LMHeadModel"]), ["GPT2LMHeadModel"]),
    ("no architecture", config(architectures=None, model_type=None), ["architecture"]),
    ("a mixture of experts", config(architectures=["MixtralForCausalLM"]), ["a mixture of experts"]),
    ("quantised by a name", config(quantization_config="gptq"), ["quantization_config"]),
    ("quantised by config", config(quantization_config={"quant_method": "gptq"}), ["quantised (gptq)"]),
    ("a size as a text", config(vocab_size="512"), ["vocab_size='512'", "whole number"]),
    ("a size of nothing", config(hidden_size=0), ["hidden_size=0"]),
    ("a negative size", config(num_hidden_layers=-1), ["num_hidden_layers=-1"]),
    ("layers without end", config(num_hidden_layers=10**9), ["num_hidden_layers=1000000000", "10000"]),
    ("half a head", config(num_attention_heads=2.5), ["num_attention_heads=2.5"]),
    ("eps as a text", config(rms_norm_eps="small"), ["rms_norm_eps='small'", "number"]),
    ("theta without bound", config(rope_theta=float("inf")), ["rope_theta=inf"]),
    ("rope scaling as a list", config(rope_scaling=[1]), ["config.json"]),
    ("a rope that is not known", config(rope_scaling={"rope_type": "ntk", "factor": 2.0}), ["ntk"]),
    ("an activation that is not known", config(hidden_act="swish2"), ["swish2", "silu"]),
    ("heads that do not divide", config(num_key_value_heads=3), ["num_key_value_heads=3"]),
    ("an end beyond the vocabulary", config(eos_token_id=512), ["eos_token_id=512", "0 to 511"]),
    ("an end as a text", config(eos_token_id="</s>"), ["eos_token_id='</s>'"]),
    ("tied as a text", config(tie_word_embeddings="false"), ["tie_word_embeddings='false'", "true or false"]),
    ("tied as a number", config(tie_word_embeddings=1), ["tie_word_embeddings=1"]),
    ("untied by leaving it out", config(tie_word_embeddings=None), ["missing: lm_head.weight"]),
    (
        "a tied head of another shape",
        weights(**{"lm_head.weight": np.zeros((500, 64), "f4")}),
        ["lm_head", "(500, 64)"],
    ),
    ("a weight that is no number", weights(**{NORM: np.full(64, np.nan, "f4")}), [f"NaN or Inf in {NORM}"]),
    ("a weight without bound", weights(**{UP: np.full((128, 64), np.inf, "f4")}), [f"NaN or Inf in {UP}"]),
    ("a larger vocabulary", config(vocab_size=600), [EMBED, "(512, 64)", "(600, 64)"]),
    ("more layers than there are", config(num_hidden_layers=3), ["missing: model.layers.2."]),
    ("an untied head that is not there", config(tie_word_embeddings=False), ["missing: lm_head.weight"]),
    ("a tensor gone", weights(**{UP: None}), [f"missing: {UP}"]),
    ("a tensor more", weights(extra=np.zeros(3, "f4")), ["not in the model: extra"]),
    ("a tensor of another shape", weights(**{UP: np.zeros((127, 64), "f4")}), [UP, "(127, 64)", "(128, 64)"]),
    ("whole numbers", weights(**{NORM: np.ones(64, "i4")}), [f"{NORM} is I32", "BF16"]),
    ("double precision", weights(**{NORM: np.ones(64, "f8")}), ["is F64"]),
    (
        "quantised by its tensors",
        weights(**{"model.layers.0.mlp.up_proj.qweight": np.ones(3, "i4")}),
        ["quantised", "qweight"],
    ),
    ("weights cut", lambda f: (f / FILE).write_bytes((f / FILE).read_bytes()[:-9]), [FILE, "truncated"]),
    ("empty weights", write(FILE, b""), [FILE, "truncated"]),
    ("weights that are a pointer", write(FILE, POINTER), [FILE, "Git LFS pointer"]),
    ("weights that lead nowhere", links, [FILE, "missing"]),
    ("a link to itself", loop, [FILE, "cannot be read"]),
    ("no weights", remove(FILE), ["no model.safetensors", "none is there"]),
    ("a pickle", instead_of_weights("pytorch_model.bin"), ["pytorch_model.bin", "never opened", "safetensors"]),
    ("another pickle", instead_of_weights("consolidated.00.pth"), ["consolidated.00.pth", "never opened"]),
    ("weights of Keras", instead_of_weights("tf_model.h5"), ["tf_model.h5", "save_pretrained"]),
    ("weights of another name", instead_of_weights("consolidated.safetensors"), ["consolidated.safetensors"]),
    ("an adapter beside a config", adapter, ["adapter_model.safetensors", "merge"]),
    ("an adapter alone", bare, ["an adapter of someone/base", "merge"]),
    ("an index of files that are gone", index(name="model-00001-of-00002.safetensors"), ["00001-of-00002", "missing"]),
    ("an index that leads up", index(name="../secret.safetensors"), ["'../secret.safetensors'", "its own folder"]),
    ("an index that leads away", index(name="/etc/model.safetensors"), ["'/etc/model.safetensors'"]),
    ("an index that leads down", index(name="sub/model.safetensors"), ["its own folder"]),
    ("an index of Windows", index(name="..\\model.safetensors"), ["its own folder"]),
    ("an index of pickles", index(name="pytorch_model-00001.bin"), ["only safetensors"]),
    ("an index of numbers", index(name=3), ["names 3"]),
    ("an index that is a list", lambda f: (remove(FILE)(f), write(INDEX, "[]")(f)), [INDEX, "weight_map"]),
    ("an index that is a pointer", lambda f: (remove(FILE)(f), write(INDEX, POINTER)(f)), ["Git LFS pointer"]),
    ("a tensor in two files", twice, [EMBED, "model-00001-of-00002", "model-00002-of-00002"]),
    ("no tokenizer", remove("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"), ["its tokenizer"]),
    ("a tokenizer cut", write("tokenizer.json", '{"version"'), ["its tokenizer cannot be loaded"]),
    ("a tokenizer that is a pointer", write("tokenizer.json", POINTER), ["tokenizer.json", "Git LFS pointer"]),
    ("a tokenizer config that is a list", write("tokenizer_config.json", "[]"), ["its tokenizer"]),
    ("a token more", lambda f: more_tokens(f, False), ["embedding of 512 rows lacks: '<|im_end|>' = 512"]),
    ("a special token more", lambda f: more_tokens(f, True), ["'<|im_end|>' = 512", "resize"]),
    ("nothing at all", lambda f: (shutil.rmtree(f), f.mkdir()), ["config.json", "missing"]),
)
