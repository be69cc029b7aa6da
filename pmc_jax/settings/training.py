"""Settings of training: the update, and adapters."""

from pmc_jax.settings.setting import ABOVE_0, AT_LEAST_0, AT_LEAST_1, SHARE, Setting, one_of

TRAINING = (
    Setting("train.epochs", 30, "passes over the forget questions", *AT_LEAST_1),
    Setting(
        "train.updates",
        0,
        "least updates of unlearning; few questions are gone through more often until there are as many, in batches of "
        "at most their number; 0 = epochs alone",
        *AT_LEAST_0,
    ),
    Setting("train.batch_size", 16, "forget rows an update; as many retain rows come on top", *AT_LEAST_1),
    Setting(
        "train.accumulate",
        0,
        "micro-batches an update is split into; 0 = one, on a CPU as many as keep to its cache",
        *AT_LEAST_0,
    ),
    Setting(
        "train.optimizer",
        "adamw",
        "adafactor keeps next to no state beside the parameters",
        *one_of("adamw", "adafactor"),
    ),
    Setting("train.moment_dtype", "", "AdamW's first moment; empty = model.dtype", *one_of("", "float32", "bfloat16")),
    Setting("train.learning_rate", 1e-5, "peak", *ABOVE_0),
    Setting(
        "train.rate_width",
        0,
        "model width that train.learning_rate is for; others have it in inverse proportion; 0 = the rate as it is",
        *AT_LEAST_0,
    ),
    Setting(
        "train.rate_layers",
        0,
        "layers that train.learning_rate is for; it goes with 1 / sqrt(layers) to other models; 0 = as it is",
        *AT_LEAST_0,
    ),
    Setting("train.weight_decay", 0.01, "AdamW; not on biases and norms", *AT_LEAST_0),
    Setting("train.warmup_epochs", 1.0, "epochs until the peak rate; then linear to 0", *AT_LEAST_0),
    Setting("train.grad_clip", 1.0, "global gradient norm; 0 = off", *AT_LEAST_0),
    Setting(
        "train.interpolation",
        1.0,
        "the result lies so much of the way from the start parameters to the trained ones (WiSE-FT); 1 = these",
        *SHARE,
    ),
    Setting(
        "train.max_length", 200, "tokens of a training row, its prompt included; longer answers are cut", *AT_LEAST_1
    ),
    Setting("train.remat", False, "keep only products with weights for the backward pass: less memory"),
    Setting(
        "train.gather_once",
        False,
        "on several data shards, gather the weights once an update and not in each layer: less is sent, more memory",
    ),
    Setting(
        "lora.rank", 0, "train low-rank adapters of this rank instead of the weights; 0 = the weights", *AT_LEAST_0
    ),
    Setting("lora.alpha", 16.0, "adapters are scaled by alpha / rank", *ABOVE_0),
    Setting(
        "lora.targets",
        "all",
        "modules with adapters: all (every matrix of attention and MLP), or names as q_proj,v_proj",
    ),
)
