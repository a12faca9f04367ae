"""Worlds in which every response can be listed: prompts and a planted P.

What is played here has an exact answer; `stage.py` trains towards it.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from nashmd_jax import declare, games, mistakes
from nashmd_jax.judges import preference_model, scorers

KINDS = 3
# Responses that can be listed, and their pairs solved for, in some seconds.
MOST_RESPONSES = 2000
# Prompts that a draw can number.
MOST_PROMPTS = 2**62


SETTINGS = {
  "vocab_size": declare.whole(
    "V, the tokens that there are, the end token included.", least=2
  ),
  "max_response": declare.whole(
    "Length that responses have at most.", least=1, unit="tokens"
  ),
  "prompts": declare.whole("X, the prompts, no two alike.", least=1),
  "prompt_length": declare.whole("Length of prompts.", least=1, unit="tokens"),
  "cycle": declare.number(
    "What a kind of response gains against the next one.",
    least=-100,
    most=100,
    unit="log-odds",
  ),
  "brevity": declare.number(
    "What a response gains for each token that it is shorter.",
    least=-100,
    most=100,
    unit="log-odds",
  ),
  "noise": declare.number(
    "Standard deviation of what each pair has of its own.",
    least=0,
    most=100,
    unit="log-odds",
  ),
  "seed": declare.whole(
    "The seed of the world: its prompts, and what is preferred.", least=0
  ),
}


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
  Raises: Mistake with all that is wrong.
  """
  check_sizes(vocab_size, max_response, prompts, prompt_length)
  space = games.response_space(
    vocab_size=vocab_size, eos_id=0, max_response=max_response
  )
  rng = np.random.default_rng(seed)
  possible = (vocab_size - 1) ** prompt_length
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


def check_sizes(
  vocab_size: int, max_response: int, prompts: int, prompt_length: int
) -> None:
  """Raises Mistake for a world that is too large, or has no such prompts."""
  findings = mistakes.Findings()
  bodies = vocab_size - 1
  with findings.collect():
    responses = sum(bodies**size for size in range(max_response + 1))
    if responses > MOST_RESPONSES:
      raise mistakes.Mistake(
        f"world.max_response: got {max_response} for vocab_size {vocab_size}, "
        f"which makes {responses} responses, expected at most {MOST_RESPONSES} "
        "to list; make one of them smaller"
      )
  with findings.collect():
    possible = bodies**prompt_length
    if possible > MOST_PROMPTS:
      raise mistakes.Mistake(
        f"world.prompt_length: got {prompt_length} for vocab_size "
        f"{vocab_size}, which makes more than {MOST_PROMPTS} prompts; make it "
        "smaller"
      )
    if prompts > possible:
      raise mistakes.Mistake(
        f"world.prompts: got {prompts}, expected 1 to {possible}, as many as "
        f"{prompt_length} of {bodies} tokens make"
      )
  findings.tell()


def make_judge(space: games.Space, tables: Any) -> scorers.TokenJudge:
  """Looks P(y ≻ y′|x) up.

  Args:
    tables: "prompts" int[X, P], "preference" f[X, Y, Y].
  """

  def judge(keys, prompts, responses, others):
    del keys
    tokens, _ = preference_model.each(prompts, len(responses[0]))
    same = jnp.all(tokens[:, None] == tables["prompts"][None], axis=-1)
    return tables["preference"][
      jnp.argmax(same, axis=-1),
      games.response_index(space, *responses),
      games.response_index(space, *others),
    ]

  return judge
