"""Policy gradients on sampled responses: Nash-MD-PG and its kin, and RLHF.

Who the opponent is, and who judges, is decided elsewhere: these functions see
only log-probs and scores. Each comes in the three forms of `kl_forms`.
"""

import jax
from jax import lax
import jax.numpy as jnp

from nashmd_jax import arrays
from nashmd_jax.losses import kl_forms, ratios

Mean = arrays.Mean
Metrics = dict[str, Mean]
SCORES = ("win_prob", "reward", "baseline")


def nash_pg_loss(
  *,
  log_prob: jax.Array,
  ref_log_prob: jax.Array,
  win_prob: jax.Array,
  mask: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """Surrogate whose gradient ascends P_τ(π_θ ≻ opponent), KL to go per token.

    −mean_B Σ_n log π_θ(y_n|x, y_<n) · sg[ P(y ≻ y′|x) − ½
        − τ Σ_{m ≥ n} log(π_θ(y_m|·) / μ(y_m|·)) ]

  The log-ratio of tokens before n has zero mean against the score of token n
  only when it is left out: the KL of the same token alone is biased.

  Args:
    log_prob: f32[B, R] log π_θ(y_n | x, y_<n), nats, at the temperature that
      sampled y. Gradient flows through this argument only.
    ref_log_prob: f32[B, R] log μ(y_n | x, y_<n), nats, same temperature.
    win_prob: f32[B] P(y ≻ y′|x), or its mean over opponent responses.
    mask: bool[B, R], true on response tokens up to and including EOS; a row
      without one, such as a pair that was not judged, counts nowhere.
    kl_coef: τ ≥ 0, nats⁻¹.
  Returns: loss: mean over B of sums over R; its value has no meaning.
    metrics, means over B: "win_prob"; "kl" (nats a response, the estimate of
    this form); "objective", win_prob − τ kl; "response_tokens".
  Raises: ValueError if shapes disagree.
  Source: Munos et al., ICML 2024, §7.
  """
  _check(
    log_prob=log_prob, ref_log_prob=ref_log_prob, mask=mask, win_prob=win_prob
  )
  payment = kl_forms.to_go(log_prob, ref_log_prob, mask)
  return _nash(log_prob, win_prob, payment, mask, kl_coef)


def nash_pg_sequence_kl_loss(
  *,
  log_prob: jax.Array,
  ref_log_prob: jax.Array,
  win_prob: jax.Array,
  mask: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """The surrogate of `nash_pg_loss`, every token paying for the whole y.

    −mean_B Σ_n log π_θ(y_n|x, y_<n) · sg[ P(y ≻ y′|x) − ½
        − τ log(π_θ(y|x) / μ(y|x)) ]

  The same expectation with more variance.

  Args, Returns, Raises: as `nash_pg_loss`.
  Source: Munos et al., ICML 2024, §7.
  """
  _check(
    log_prob=log_prob, ref_log_prob=ref_log_prob, mask=mask, win_prob=win_prob
  )
  payment = kl_forms.whole(log_prob, ref_log_prob, mask)
  return _nash(log_prob, win_prob, payment, mask, kl_coef)


def nash_pg_exact_kl_loss(
  *,
  log_prob: jax.Array,
  token_kl: jax.Array,
  win_prob: jax.Array,
  mask: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """The surrogate of `nash_pg_loss`, the KL of each prefix summed exactly.

    −mean_B Σ_n { log π_θ(y_n|x, y_<n) · sg[ P(y ≻ y′|x) − ½
        − τ Σ_{m > n} KL_m ] − τ KL_n },  KL_n = KL(π_θ(·|y_<n), μ(·|y_<n))

  Args:
    log_prob: f32[B, R] log π_θ(y_n | x, y_<n), nats, at the temperature that
      sampled y. Gradient flows through this argument and the next.
    token_kl: f32[B, R] KL_n, nats, same temperature.
    win_prob, mask, kl_coef: as `nash_pg_loss`.
  Returns, Raises: as `nash_pg_loss`.
  """
  _check(log_prob=log_prob, token_kl=token_kl, mask=mask, win_prob=win_prob)
  payment = kl_forms.exact(token_kl, mask)
  return _nash(log_prob, win_prob, payment, mask, kl_coef)


def nash_pg_off_policy_loss(
  *,
  log_prob: jax.Array,
  behaviour_log_prob: jax.Array,
  ref_log_prob: jax.Array,
  win_prob: jax.Array,
  mask: jax.Array,
  kl_coef: float,
  clip: float,
  ratio: str,
) -> tuple[Mean, Metrics]:
  """`nash_pg_loss` on responses that an earlier policy π_b wrote.

    −mean_B Σ_n log π_θ(y_n|x, y_<n) · sg[ w_n b_n ]

  with b_n the bracket of `nash_pg_loss` under the present π_θ and w_n one of
  `ratios`, w = π_θ(y|x) / π_b(y|x) for "product". As in PPO a token has no
  gradient where it would push w_n further out of where it is clipped: above
  with b_n > 0, or below with b_n < 0. Unclipped (ε = ∞) the expectation of
  "product" under π_b is the exact gradient at θ; that of the others is not
  for responses of more than one token.

  Args:
    log_prob: f32[B, R] log π_θ(y_n | x, y_<n), nats, at the temperature that
      sampled y. Gradient flows through this argument only.
    behaviour_log_prob: f32[B, R] log π_b(y_n | x, y_<n), nats, of the policy
      that wrote y.
    ref_log_prob, win_prob, mask, kl_coef: as `nash_pg_loss`.
    clip: ε > 0.
    ratio: a key of `ratios.RATIOS`.
  Returns: as `nash_pg_loss`, "kl" being the plain mean over the given
    responses; and the metric "clipped", the share of tokens without gradient.
  Raises: ValueError if shapes disagree.
  Source: Munos et al., ICML 2024, app. F.3; Schulman et al., 2017 (PPO).
  """
  _check(
    log_prob=log_prob,
    ref_log_prob=ref_log_prob,
    mask=mask,
    win_prob=win_prob,
    behaviour_log_prob=behaviour_log_prob,
  )
  payment = kl_forms.to_go(log_prob, ref_log_prob, mask)
  bracket = win_prob[:, None] - 0.5 - kl_coef * payment.owed
  bracket = jnp.where(mask, bracket, 0)
  weight, low, high = ratios.RATIOS[ratio](
    log_prob - behaviour_log_prob, mask, clip
  )
  clipped = (weight > high) & (bracket > 0) | (weight < low) & (bracket < 0)
  gain = log_prob * lax.stop_gradient(jnp.where(clipped, 0, weight * bracket))
  _, metrics = _nash(log_prob, win_prob, payment, mask, kl_coef)
  metrics["clipped"] = arrays.mean_over(clipped.astype(gain.dtype), mask)
  loss = -arrays.masked_sum(gain, mask)
  return arrays.mean_over(loss, jnp.any(mask, axis=-1)), metrics


def rlhf_pg_loss(
  *,
  log_prob: jax.Array,
  ref_log_prob: jax.Array,
  reward: jax.Array,
  baseline: jax.Array,
  mask: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """Surrogate whose gradient ascends E r(x, y) − τ KL(π_θ, μ), KL to go.

    −mean_B Σ_n log π_θ(y_n|x, y_<n) · sg[ r(x, y) − b
        − τ Σ_{m ≥ n} log(π_θ(y_m|·) / μ(y_m|·)) ]

  Args:
    log_prob: f32[B, R] log π_θ(y_n | x, y_<n), nats, at the temperature that
      sampled y. Gradient flows through this argument only.
    ref_log_prob: f32[B, R] log μ(y_n | x, y_<n), nats, same temperature.
    reward: f32[B] r(x, y), Bradley-Terry log-odds.
    baseline: f32[B], any number that does not depend on y given x, such as
      the reward of an independent response to x, or `leave_one_out`.
    mask: as `nash_pg_loss`.
    kl_coef: τ ≥ 0, reward units a nat.
  Returns: loss: mean over B of sums over R; its value has no meaning.
    metrics, means over B: "reward"; "kl" (nats a response, the estimate of
    this form); "objective", reward − τ kl; "response_tokens".
  Raises: ValueError if shapes disagree.
  Source: Munos et al., ICML 2024, §8 (the RLHF baseline).
  """
  _check(
    log_prob=log_prob,
    ref_log_prob=ref_log_prob,
    mask=mask,
    reward=reward,
    baseline=baseline,
  )
  payment = kl_forms.to_go(log_prob, ref_log_prob, mask)
  return _rlhf(log_prob, reward, baseline, payment, mask, kl_coef)


def rlhf_pg_sequence_kl_loss(
  *,
  log_prob: jax.Array,
  ref_log_prob: jax.Array,
  reward: jax.Array,
  baseline: jax.Array,
  mask: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """The surrogate of `rlhf_pg_loss`, every token paying for the whole y.

  Args, Returns, Raises: as `rlhf_pg_loss`.
  """
  _check(
    log_prob=log_prob,
    ref_log_prob=ref_log_prob,
    mask=mask,
    reward=reward,
    baseline=baseline,
  )
  payment = kl_forms.whole(log_prob, ref_log_prob, mask)
  return _rlhf(log_prob, reward, baseline, payment, mask, kl_coef)


def rlhf_pg_exact_kl_loss(
  *,
  log_prob: jax.Array,
  token_kl: jax.Array,
  reward: jax.Array,
  baseline: jax.Array,
  mask: jax.Array,
  kl_coef: float,
) -> tuple[Mean, Metrics]:
  """The surrogate of `rlhf_pg_loss`, the KL of each prefix summed exactly.

  Args:
    log_prob, token_kl: as `nash_pg_exact_kl_loss`.
    reward, baseline, mask, kl_coef: as `rlhf_pg_loss`.
  Returns, Raises: as `rlhf_pg_loss`.
  """
  _check(
    log_prob=log_prob,
    token_kl=token_kl,
    mask=mask,
    reward=reward,
    baseline=baseline,
  )
  payment = kl_forms.exact(token_kl, mask)
  return _rlhf(log_prob, reward, baseline, payment, mask, kl_coef)


def leave_one_out(scores: jax.Array, known: jax.Array) -> jax.Array:
  """The mean of the other known scores, a baseline independent of its own.

  Args:
    scores: f32[B, K], of K ≥ 2 responses to each prompt.
    known: bool[B, K], false on scores that there are not.
  Returns: f32[B, K]; it means nothing where fewer than two are known.
  Raises: ValueError for fewer than two responses.
  Source: Kool et al., 2019; Ahmadian et al., 2024 (RLOO).
  """
  count = arrays.check_shapes(scores=(scores, "B K"), known=(known, "B K"))["K"]
  if count < 2:
    raise ValueError(
      f"scores: got {count} response to each prompt, expected two or more to "
      "leave one out"
    )
  scores = jnp.where(known, scores, 0)
  others = jnp.sum(known, axis=1, keepdims=True) - 1
  total = jnp.sum(scores, axis=1, keepdims=True) - scores
  return total / jnp.maximum(others, 1)


def _nash(log_prob, win_prob, payment, mask, kl_coef):
  loss, metrics = kl_forms.pg_loss(
    log_prob, win_prob - 0.5, payment, mask, kl_coef
  )
  return loss, metrics | _objective(
    "win_prob", win_prob, metrics, mask, kl_coef
  )


def _rlhf(log_prob, reward, baseline, payment, mask, kl_coef):
  loss, metrics = kl_forms.pg_loss(
    log_prob, reward - baseline, payment, mask, kl_coef
  )
  return loss, metrics | _objective("reward", reward, metrics, mask, kl_coef)


def _objective(name, score, metrics, mask, kl_coef) -> Metrics:
  """The score, and the score less τ KL."""
  mean = arrays.mean_over(score, jnp.any(mask, axis=-1))
  total = mean.total - kl_coef * metrics["kl"].total
  return {name: mean, "objective": Mean(total, mean.count)}


def _check(**named) -> None:
  """Raises ValueError if shapes disagree; scores have one number a row."""
  arrays.check_shapes(**{
    name: (array, "B" if name in SCORES else "B R")
    for name, array in named.items()
  })  # fmt: skip
