"""A small Llama from scratch on the embedded authors, minutes on two CPU cores (`make demo`)."""

from ml_collections import ConfigDict

from pmc_jax import config as settings


def get_config():
    config = settings.default()
    config.data.finetune = "full+world_facts+real_authors"
    config.model.scratch = ConfigDict(
        dict(
            architectures=["LlamaForCausalLM"],
            model_type="llama",
            vocab_size=2048,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=3,
            max_position_embeddings=512,
            rms_norm_eps=1e-6,
            rope_theta=10000.0,
            tie_word_embeddings=True,
        )
    )
    config.sample.num_samples, config.sample.temperature = 10, 1.4
    config.train.epochs, config.train.batch_size, config.train.learning_rate = 15, 4, 5e-4
    # What the demo first trains the model with; the settings above are for the unlearning.
    with config.unlocked():
        config.demo = ConfigDict(dict(train=dict(epochs=24, batch_size=16, learning_rate=2e-3)))
    return config
