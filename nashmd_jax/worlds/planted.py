"""Worlds in which every response can be listed: prompts and a planted P.

What is played here has an exact answer; `worlds.py` trains towards it.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from nashmd_jax import games
from nashmd_jax.judges import scorers

KINDS = 3


class World(NamedTuple):
  """Prompts, all their responses, and what is preferred.

  Attributes:
    space: the Y responses, the same for every prompt.
    prompts: int32[X, P], no two alike.
    preference: f64[X, Y, Y], P(y ≻ y′|x).
  """

  space: games.Space
  prompts: np.ndarray
  preference: np.ndarray


def make_world(
  *,
  vocab_size: int,
  max_response: int,
  prompts: int,
  prompt_length: int,
  cycle: float,
  brevity: float,
  noise: float,
  seed: int,
) -> World:
  """A world with rock, paper and scissors planted in its responses.

    logit P(y ≻ y′|x) = cycle C[k(x, y), k(x, y′)] + brevity (|y′| − |y|)
        + noise (ε − εᵀ) / √2

  C[k, k + 1] = 1, C[k, k − 1] = −1, C[k, k] = 0; the kind of a response is
  k(x, y) = Σ_n w_xn y_n mod 3 over its tokens, w_xn drawn from {1, 2} for each
  prompt and position; |y| counts tokens, EOS (token 0) included.

  Args:
    vocab_size: V, EOS included.
    max_response: R, tokens.
    prompts: X, drawn without repetition.
    prompt_length: P, tokens, none of them EOS.
    cycle: log-odds of a kind against the next one.
    brevity: log-odds for each token that a response is shorter.
    noise: standard deviation of what each pair has of its own, log-odds.
    seed: of prompts, w and ε.
  Raises: ValueError for more prompts than there are.
  """
  space = games.response_space(
    vocab_size=vocab_size, eos_id=0, max_response=max_response
  )
  possible = (vocab_size - 1) ** prompt_length
  if not 1 <= prompts <= possible:
    raise ValueError(
      f"world.prompts: got {prompts}, expected 1 to {possible}, as many as "
      f"{prompt_length} of {vocab_size - 1} tokens make"
    )
  rng = np.random.default_rng(seed)
  numbers = rng.choice(possible, prompts, replace=False)
  digits = np.unravel_index(numbers, (vocab_size - 1,) * prompt_length)
  weights = rng.integers(1, KINDS, (prompts, max_response))
  kind = (weights @ space.tokens.T) % KINDS
  # 1 against the next kind, −1 against the one before.
  turn = (kind[:, None, :] - kind[:, :, None] + 1) % KINDS - 1
  length = space.mask.sum(1)
  own = rng.normal(size=turn.shape)
  logit = (
    cycle * turn
    + brevity * (length[None, :] - length[:, None])
    + noise * (own - own.swapaxes(1, 2)) / np.sqrt(2)
  )
  return World(
    space=space,
    prompts=np.stack(digits, axis=1).astype(np.int32) + 1,
    preference=games.check_preference(1 / (1 + np.exp(-logit))),
  )


def make_judge(space: games.Space, tables: Any) -> scorers.TokenJudge:
  """Looks P(y ≻ y′|x) up.

  Args:
    tables: "prompts" int[X, P], "preference" f[X, Y, Y].
  """

  def judge(keys, prompts, responses, others):
    del keys
    same = jnp.all(prompts[0][:, None] == tables["prompts"][None], axis=-1)
    return tables["preference"][
      jnp.argmax(same, axis=-1),
      games.response_index(space, *responses),
      games.response_index(space, *others),
    ]

  return judge
