"""Responses that records hold, as the rows of a rollout that nobody writes."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

Rows = dict[str, jax.Array]
Batch = Mapping[str, jax.Array]


def own_and_next(batch: Batch) -> Rows:
  """The response of each unary record, and of the next to the same prompt.

  Returns: responses and responses_mask [B·2, R], prompt by prompt.
  """
  return {
    name: _by_prompt(batch[name], jnp.roll(batch[name], -1, axis=0))
    for name in ("responses", "responses_mask")
  }


def both(batch: Batch) -> Rows:
  """The two responses of each comparison, and what was said of them.

  Returns: responses and responses_mask [B·2, R], prompt by prompt; answers
    f32[B, 1], P(a ≻ b); weights f32[B, 1], what each counts; judged
    bool[B, 1], where that is above 0.
  """
  weights = batch["weight"][:, None]
  return {
    "responses": _by_prompt(batch["responses_a"], batch["responses_b"]),
    "responses_mask": _by_prompt(
      batch["responses_a_mask"], batch["responses_b_mask"]
    ),
    "answers": batch["prob_a"][:, None],
    "weights": weights,
    "judged": weights > 0,
  }


def _by_prompt(first: jax.Array, second: jax.Array) -> jax.Array:
  """[B, R] of each of two -> [B·2, R]."""
  both = jnp.stack([first, second], axis=1)
  return both.reshape(-1, first.shape[-1])
