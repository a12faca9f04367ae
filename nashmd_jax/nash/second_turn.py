"""The second turn: the policy answers what it wrote itself, having read it.

Its prompt is that of the first turn, the response, and an instruction. What it
writes there is y′ of the Stackelberg game; see `losses.stackelberg_loss`.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from nashmd_jax import declare, sampling

Rows = Mapping[str, jax.Array]
NAME = "follower"
REFERENCE = f"{NAME}_reference"
SETTINGS = {
  "follower_kl_coef": declare.number(
    "τ_F, the price of a nat of KL of the second turn to the reference's, for "
    "the loss stackelberg.",
    least=0,
    most=1e6,
  ),
}
INSTRUCTION = declare.text(
  "Text behind a response that asks for a better one, for the loss "
  "stackelberg, such as the turns of a chat template around a question."
)


def prompts(
  batch: Rows, tokens: jax.Array, mask: jax.Array, instruction: Sequence[int]
) -> tuple[jax.Array, jax.Array]:
  """x, y and the instruction, without a gap, of K responses to each prompt.

  Args:
    batch: prompts int[B, P], prompts_mask bool[B, P], true on the first tokens.
    tokens: int[B, K, R], the responses.
    mask: bool[B, K, R], true on their first tokens.
    instruction: I tokens.
  Returns: int[B·K, P + R + I], prompt by prompt, and its mask.
  """
  each, size = tokens.shape[1:]
  x, x_mask = (
    jnp.repeat(batch[name], each, axis=0)
    for name in ("prompts", "prompts_mask")
  )
  asked = jnp.asarray(tuple(instruction), x.dtype)[None]
  asked = jnp.broadcast_to(asked, (len(x), asked.shape[1]))
  y, y_mask = tokens.reshape(-1, size), mask.reshape(-1, size)
  every = jnp.concatenate([x, y.astype(x.dtype), asked], axis=1)
  there = jnp.concatenate([x_mask, y_mask, asked == asked], axis=1)
  # A stable sort of what is there before what is not leaves no gap.
  order = jnp.argsort(~there, axis=1, stable=True)
  there = jnp.take_along_axis(there, order, axis=1)
  return jnp.where(there, jnp.take_along_axis(every, order, axis=1), 0), there


def rows(
  batch: Rows, written: sampling.Rollout, instruction: Sequence[int]
) -> dict[str, jax.Array]:
  """What the loss reads the second turn by.

  Args:
    batch: of the prompts.
    written: [B, 2K, R], K responses and the K answers to them.
    instruction: that the answers were asked for with.
  Returns: prompts, prompts_mask [B·K, P + R + I], responses, responses_mask
    [B·K, R], each with "follower_" before its name.
  """
  half = written.tokens.shape[1] // 2
  first = (x[:, :half] for x in (written.tokens, written.mask))
  answers, mask = (x[:, half:] for x in (written.tokens, written.mask))
  read, read_mask = prompts(batch, *first, instruction)
  found = {
    "prompts": read,
    "prompts_mask": read_mask,
    "responses": answers.reshape(-1, answers.shape[-1]),
    "responses_mask": mask.reshape(-1, mask.shape[-1]),
  }
  return {f"{NAME}_{name}": x for name, x in found.items()}


def turned(rows: Rows) -> dict[str, jax.Array]:
  """The rows of the second turn as those of a first."""
  before = f"{NAME}_"
  return {
    name.removeprefix(before): x
    for name, x in rows.items()
    if name.startswith(before)
  }
