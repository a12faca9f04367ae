"""The certificate of adapters: gradients of {A, B} of tiny real models.

The exact side forms W + (α / r) A B itself, lists all responses and
differentiates P_τ(π_θ ≻ opponent) through them; the estimate is the
expectation of the whole step with the adapters attached. Call in float64.
"""

import functools
from typing import Any, NamedTuple
from unittest import mock

import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np

from nashmd_jax import models
from nashmd_jax.models import layers, lora
from tests import enumeration, paper_opponents, whole_step
from tests import gradient_oracle as oracle

LENGTH, RANK, ALPHA = 2, 2, 3.0
TARGETS = ("query", "value")
SIZES = {
  "qwen2": dict(
    width=8, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=4, mlp_dim=8,
    rope_base=100.0,
  ),
  "t5": dict(
    width=8, num_heads=2, head_dim=4, mlp_dim=8, encoder_layers=2,
    decoder_layers=2, num_buckets=8, max_distance=16,
  ),
}  # fmt: skip


class Adapters(NamedTuple):
  """A model, its base, and adapters that are far from zero."""

  model: models.LanguageModel
  base: Any
  adapters: Any


@functools.cache
def make_adapters(family: str) -> Adapters:
  """Of a family, everything in float64."""
  with mock.patch.object(layers, "DTYPES", (*layers.DTYPES, "float64")):
    model = models.make_language_model(
      family=family, vocab_size=enumeration.VOCAB, dtype="float64",
      param_dtype="float64", attention="einsum", **SIZES[family],
    )  # fmt: skip
  base = model.init(jax.random.key(0))
  adapters = lora.init_lora(jax.random.key(1), base, rank=RANK, targets=TARGETS)
  flat, back = flatten_util.ravel_pytree(adapters)
  noise = jax.random.normal(jax.random.key(2), flat.shape, flat.dtype)
  return Adapters(model, base, back(flat + 0.5 * noise))


def summed(base: Any, adapters: Any) -> Any:
  """W + (α / r) A B, layer by layer."""
  if set(adapters) != {"a", "b"}:
    return base | {
      name: summed(base[name], child) for name, child in adapters.items()
    }
  product = jax.vmap(lambda a, b: jnp.tensordot(a, b, 1))
  return base + ALPHA / RANK * product(adapters["a"], adapters["b"])


def token_tables(world: oracle.World, model, params) -> jax.Array:
  """log π(· | x, y_<n) of every response, f64[X, Y, R, V]."""
  size = len(world.tokens)
  prompts = jnp.repeat(jnp.arange(oracle.PROMPTS), size)[:, None]
  logits = model.response_logits(
    params,
    prompts,
    prompts == prompts,
    jnp.tile(world.tokens, (oracle.PROMPTS, 1)),
  )
  found = paper_opponents.log_probs(logits, oracle.TEMPERATURE)
  return found.reshape(oracle.PROMPTS, size, *found.shape[1:])


def sequences(world: oracle.World, tables: jax.Array) -> jax.Array:
  """log π(y|x), f64[X, Y]."""
  tokens = jnp.broadcast_to(world.tokens, tables.shape[:3])
  steps = jnp.take_along_axis(tables, tokens[..., None], axis=-1)[..., 0]
  return jnp.sum(jnp.where(world.mask[None], steps, 0), axis=-1)


def exact(world: oracle.World, made: Adapters, opponent: str) -> np.ndarray:
  """∇ P_τ(π_θ ≻ opponent) with respect to the adapters, flat."""

  def tables(adapters):
    return token_tables(world, made.model, summed(made.base, adapters))

  reference = token_tables(world, made.model, made.base)
  log_mu = sequences(world, reference)
  written = {
    "self": tables(made.adapters),
    "reference": reference,
    "mixture": paper_opponents.mixed(
      tables(made.adapters), reference, oracle.MIXTURE
    ),
  }[opponent]
  wins = jnp.einsum("xyz,xz->xy", world.win, jnp.exp(sequences(world, written)))

  @jax.jit
  @jax.grad
  def ascent(adapters):
    log_pi = sequences(world, tables(adapters))
    value = wins - oracle.KL_COEF * (log_pi - log_mu)
    return jnp.sum(jnp.exp(log_pi) * value) / oracle.PROMPTS

  return np.asarray(flatten_util.ravel_pytree(ascent(made.adapters))[0])


def measure(family: str, opponent: str, loss: str) -> float:
  """Error of a step's expected gradient of the adapters of a family."""
  world, made = oracle.make_world(LENGTH), make_adapters(family)

  def ready(sets, names):
    whole = {
      "policy": lambda: lora.attach(made.base, sets["policy"], alpha=ALPHA),
      "reference": lambda: made.base,
    }
    return {name: whole[name]() for name in names}

  play = whole_step.make_play(
    world, opponent=opponent, loss=loss, model=made.model, ready=ready
  )
  sets = {"policy": made.adapters, "reference": made.base}
  found = whole_step.expected_ascent(world._replace(sets=sets), play)
  return oracle.error(np.asarray(found), exact(world, made, opponent))
