"""The policy as a distribution over whole responses to a prompt."""

import jax

from nashmd_jax import arrays
from nashmd_jax.models import language_model


def response_log_probs(
  model: language_model.LanguageModel,
  params: language_model.Params,
  *,
  prompts: jax.Array,
  prompt_mask: jax.Array,
  responses: jax.Array,
  temperature: float,
) -> jax.Array:
  """log π(y_n | x, y_<n) of given responses, teacher forced, in nats.

  Args:
    params: gradient flows to them.
    prompts: int[B, P], padded on the right.
    prompt_mask: bool[B, P].
    responses: int[B, R]; what stands behind EOS does not matter before it.
    temperature: of the distribution that is scored; the one that sampled.
  Returns: f32[B, R].
  """
  logits = model.response_logits(params, prompts, prompt_mask, responses)
  return arrays.token_log_probs(logits, responses, temperature)


def response_distributions(
  model: language_model.LanguageModel,
  params: language_model.Params,
  *,
  prompts: jax.Array,
  prompt_mask: jax.Array,
  responses: jax.Array,
  temperature: float,
) -> jax.Array:
  """log π(· | x, y_<n) over the vocabulary at each place of a response.

  Args: as `response_log_probs`.
  Returns: f32[B, R, V], nats.
  """
  logits = model.response_logits(params, prompts, prompt_mask, responses)
  return arrays.log_softmax(logits, temperature)
