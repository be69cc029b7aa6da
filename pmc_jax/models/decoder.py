"""The decoder that every family shares: embedding, blocks, final norm, head.

Axes: B batch row, T position, S slot, D width, V vocabulary. Logits are float32.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from pmc_jax.distributed.device_kind import CPU, DeviceKind
from pmc_jax.models.attention import Cache, KeyValue, Stream, keep_window, slot_positions
from pmc_jax.models.config import LayerKind, ModelConfig
from pmc_jax.models.layer_stack import NO_STACK, plan_stack, stack_layers
from pmc_jax.models.layers import NORMS, Block, in_front, init_weight, product_with_head
from pmc_jax.models.rope import rope_tables

Carry = tuple[jax.Array, jax.Array | None]  # hidden states, and those of the layer whose output is wanted
# What `remat` keeps of a block: its products with weights. Only what is cheap is computed again, and on a mesh neither
# the gathers of weights nor the sums over `model` (docs/decisions.md).
SAVED = jax.checkpoint_policies.dots_with_no_batch_dims_saveable


@functools.partial(jax.jit, static_argnames=("block", "remat"))
def run_block(
    block: nn.Module, remat: bool, params: Any, x_BTD, tables, mask_BTS, cache, slot, stream
) -> tuple[jax.Array, KeyValue]:
    """One block by its own parameters.

    It is jitted so that JAX traces it once for each kind of layer, and not once a layer. The compiler sees each layer
    all the same, unless they are scanned.
    """

    def run(params, x_BTD):
        return block.apply({"params": params}, x_BTD, tables, mask_BTS, cache, slot, stream)

    return (jax.checkpoint(run, policy=SAVED) if remat else run)(params, x_BTD)


class Decoder(nn.Module):
    """Embedding, blocks, final norm; `unembed` gives the logits. A family may fill in a `block` of its own.

    Attributes:
        config: what it is made of.
        remat: keep a block's products with weights for the backward pass, and recompute what lies between them.
        activations: sharding of the hidden states between blocks, None = the compiler's choice. Training sets it: with
            weights sharded over `data` the compiler would rather gather the rows of all devices than a layer's
            weights, and every device would work on every row.
        scan: layers run in a loop over their stacked parameters, so that the compiler sees few of them: so many
            periods of layer kinds in each turn (as many as there are, or more: no loop). 0 = each layer stands for
            itself, and writes its cache.
        logits_at_once: float32 logits that a loss keeps alive at a time. More labels are worked off in chunks.
        fused_attention: attention that reads no cache is one kernel, in layers that cuDNN has one for.
    """

    config: ModelConfig
    remat: bool = False
    activations: NamedSharding | None = None
    scan: int = CPU.scan
    logits_at_once: int = CPU.logits_at_once
    fused_attention: bool = CPU.fused_attention

    # nn.Module class: (config, kind, fused_attention)(x_BTD, tables, mask_BTS, cache, slot, stream)
    # -> (x_BTD, own keys and values)
    block = Block

    def setup(self):
        c = self.config
        self.embed = self.param("embed", init_weight, (c.vocab_size, c.width))
        self.layers = [self.block(c, kind, self.fused_attention, name=f"layer_{i}") for i, kind in enumerate(c.layers)]
        self.norm = NORMS[c.norm](c.norm_eps, name="final_norm")
        if not c.tied_head:
            self.head = self.param("head", init_weight, (c.vocab_size, c.width))
        if c.head_bias:
            self.head_b = self.param("head_bias", nn.initializers.zeros, (c.vocab_size,))

    def suited(self, kind: DeviceKind) -> "Decoder":
        """The same model as a kind of device runs it best."""
        return self.clone(scan=kind.scan, logits_at_once=kind.logits_at_once, fused_attention=kind.fused_attention)

    def __call__(
        self,
        tokens_BT,
        positions_BT,
        mask_BTS,
        cache: Cache | None = None,
        slot=None,
        stream: Stream | None = None,
        hidden_layer: int | None = None,
    ) -> tuple[jax.Array, list[KeyValue]] | tuple[jax.Array, list[KeyValue], jax.Array]:
        """Read tokens.

        Args:
            tokens_BT: int32.
            positions_BT: int32, below the number of slots.
            mask_BTS: bool, which slots each position may look at: those of the prefix, if any, and then the rows' own;
                of a cache that is only read, the T new ones come last.
                Windows of layers are not in it. With a cache, the last position looks at all tokens there are.
            cache: per layer (prefix, own); None = the T tokens are the slots.
            slot: with a cache, the own slot where the first of the T new entries belongs.
            stream: without a cache, the rows are blocks of a stream. Then the slots are those of the prefix, of the
                row before and of the row itself.
            hidden_layer: a layer, counted from 0, whose output is wanted too.

        Returns:
            Final hidden states [B, T, D]; each layer's own keys and values (k_BKHS, v_BKSH), with a cache that is not
            only read its updated own part; and, where it is wanted, the output [B, T, D] of `hidden_layer`. Keys and
            values of a stack are one entry, with its layers in front.
        """
        tables = {rope: rope_tables(rope, positions_BT, mask_BTS.shape[-1]) for rope in self.config.ropes}
        masks = self.window_masks(positions_BT, mask_BTS, stream, cache is not None)
        x_BTD = self.pinned(self.scaled(self.embed[tokens_BT]))

        def run(number, kind: LayerKind, params: Any, carry: Carry, cached: Any) -> tuple[Carry, KeyValue]:
            x_BTD, wanted_BTD = carry
            inputs = x_BTD, tables.get(kind.rope), masks[kind.window], cached, slot, stream
            if params is None:
                x_BTD, own = self.layers[number](*inputs)
            else:
                block = self.block(self.config, kind, self.fused_attention, parent=None)
                x_BTD, own = run_block(block, self.remat, params, *inputs)
            x_BTD = self.pinned(x_BTD)
            if hidden_layer is not None:
                wanted_BTD = jnp.where(number == hidden_layer, x_BTD, wanted_BTD)
            return (x_BTD, wanted_BTD), own

        (x_BTD, wanted_BTD), kept = self.run_layers(run, (x_BTD, None if hidden_layer is None else x_BTD), cache)
        return (self.norm(x_BTD), kept) if hidden_layer is None else (self.norm(x_BTD), kept, wanted_BTD)

    def run_layers(self, run: Callable, carry: Carry, cache: Cache | None) -> tuple[Carry, list[KeyValue]]:
        """run(number, kind, params, carry, cache) -> (carry, keys and values), layer by layer; those that are stacked
        in a loop. params: None while parameters are made.
        """
        layers, kept = self.config.layers, []
        params = (
            {f"layer_{i}": None for i in range(len(layers))} if self.is_initializing() else self.variables["params"]
        )
        plan = plan_stack(layers) if self.scan and not self.is_initializing() else NO_STACK
        cached = cache or [None] * (plan.period + len(layers) - plan.layers)
        if plan.layers:
            params = stack_layers(layers, params)

            def run_period(carry, inputs):
                first, period_params, period_cache = inputs
                owns = []
                for j, kind in enumerate(layers[: plan.period]):
                    with jax.named_scope(f"stack_{j}"):
                        carry, own = run(first + j, kind, period_params[j], carry, period_cache[j])
                    owns.append(own)
                return carry, owns

            period_params = [params[f"stack_{j}"] for j in range(plan.period)]
            firsts = jnp.arange(0, plan.layers, plan.period)
            inputs = firsts, period_params, cached[: plan.period]
            turns = min(self.scan, len(firsts))
            carry, kept = jax.lax.scan(run_period, carry, inputs, unroll=turns)
        for i, of_layer in zip(range(plan.layers, len(layers)), cached[plan.period :]):
            with jax.named_scope(f"layer_{i}"):
                carry, own = run(i, layers[i], params[f"layer_{i}"], carry, of_layer)
            kept.append(own)
        return carry, kept

    def window_masks(self, positions_BT, mask_BTS, stream: Stream | None, cached: bool) -> dict[int | None, jax.Array]:
        """{window: the mask within it} for every window that a layer has."""
        windows = dict.fromkeys(kind.window for kind in self.config.layers)
        if not any(windows):
            return {None: mask_BTS}
        slot_positions_BS = slot_positions(positions_BT, mask_BTS, stream, cached)
        return {window: keep_window(mask_BTS, positions_BT, slot_positions_BS, window) for window in windows}

    def scaled(self, x_BTD: jax.Array) -> jax.Array:
        """The embedded tokens times `embed_scale`, which is rounded to their dtype first."""
        scale = self.config.embed_scale
        return x_BTD if scale is None else x_BTD * jnp.asarray(scale, x_BTD.dtype)

    def pinned(self, x_BTD: jax.Array) -> jax.Array:
        """The same hidden states, laid out as `activations` says."""
        return x_BTD if self.activations is None else jax.lax.with_sharding_constraint(x_BTD, self.activations)

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Logits [..., V] in float32 of final hidden states [..., D]."""
        c = self.config
        table_VD = self.embed if c.tied_head else self.head
        logits = product_with_head(hidden, table_VD)
        if c.head_bias:
            logits = logits + in_front(self.head_b.astype(jnp.float32), logits.ndim)
        return logits if c.logit_softcap is None else c.logit_softcap * jnp.tanh(logits / c.logit_softcap)
