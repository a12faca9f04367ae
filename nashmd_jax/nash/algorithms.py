"""The algorithm of each loss: how it is played, and what is learnt from.

A loss is a function of named arrays, and the names that it asks for decide how
it is played; a user's own is played the same way. Nothing here knows a model.

| a loss that asks for | is played by |
|---|---|
| `win_prob` | K responses of the policy against K of each of the opponent's |
| `reward` | K responses of the policy, and of one opponent if K = 1 |
| `group_mean` | the same, K ≥ 2 |
| `follower_log_prob` | K responses of the policy, each against its own answer |
| `log_ratio` | 2K responses of the opponent, each against every other |
| the same, by the design "records" | nobody: both are those of comparisons |
| `label` | nobody: responses and labels are those of the records |

and `log_prob` reads sampled tokens where `token_kl` sums over a vocabulary and
`log_probs` is all of it.
"""

from collections.abc import Callable, Mapping
import functools
import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nashmd_jax import arrays, declare, losses, mistakes, outside, policy
from nashmd_jax.nash import second_turn, ways

Rows = Mapping[str, jax.Array]
Named = ways.Named

# Nobody judges what these learn from.
UNARY = {
  "kto": losses.kto_loss,
  "rdro": losses.rdro_loss,
  "una": losses.una_loss,
  "una_score": losses.una_score_loss,
}
# By what the judge gives, then by name.
LOSSES = {
  "win_prob": {
    "policy_gradient": losses.nash_pg_loss,
    "policy_gradient_sequence_kl": losses.nash_pg_sequence_kl_loss,
    "policy_gradient_exact_kl": losses.nash_pg_exact_kl_loss,
    "ipo": losses.ipo_loss,
    "ipo_per_token": losses.ipo_per_token_loss,
    "dpo": losses.online_dpo_loss,
    "dpo_per_token": losses.dpo_per_token_loss,
    "pepo": losses.pepo_loss,
    "inpo": losses.ipo_loss,
    "mnpo": losses.ipo_loss,
    "sppo": losses.sppo_loss,
    "dno": losses.dno_loss,
    "stackelberg": losses.stackelberg_loss,
    "egpo": losses.egpo_loss,
    **UNARY,
  },
  "reward": {
    "policy_gradient": losses.rlhf_pg_loss,
    "policy_gradient_sequence_kl": losses.rlhf_pg_sequence_kl_loss,
    "policy_gradient_exact_kl": losses.rlhf_pg_exact_kl_loss,
    "grpo": losses.grpo_loss,
    **UNARY,
  },
}
# Those that divide by τ, or say nothing without; those that are named after
# what else the policy is held to.
ANCHORED = ("inpo", "mnpo")
HALVED = "egpo"
DIVIDED = (
  *("ipo", "ipo_per_token", "dpo", "dpo_per_token", "pepo", "sppo", "dno"),
  *("kto", "una", "una_score", HALVED),
  *ANCHORED,
)
# Their forms for several updates on one rollout.
OFF_POLICY = {losses.nash_pg_loss: losses.nash_pg_off_policy_loss}
SETTINGS = {
  "loss": declare.text(
    f"What is learnt from a rollout: one of {', '.join(LOSSES['win_prob'])}, "
    f"on a reward one of {', '.join(LOSSES['reward'])}; or your own as "
    "module:function."
  ),
  "updates_per_rollout": declare.whole(
    "Updates on one rollout; more than 1 is the off-policy form, and "
    "optimizer.decay_steps counts them all.",
    least=1,
    unit="updates",
  ),
  "judge_ahead": declare.whole(
    "1 judges a rollout on the host while the next is written, so that updates "
    "are on responses that are a step old.",
    least=0,
    most=1,
  ),
  "clip": declare.number(
    "ε of the off-policy form, in which a ratio of probabilities counts from "
    "1 − ε to 1 + ε; the ratio prefix from exp(−ε √n / 2) to exp(ε √n), n the "
    "token's number.",
    above=0,
  ),
  "ratio": declare.text(
    "What a token counts in the off-policy form: of the whole response, which "
    "alone is exact, of the token, the mean of all tokens, or of those up to "
    "it; see docs/family.md.",
    one_of=tuple(losses.RATIOS),
  ),
  "design": declare.text(
    "Which pairs of responses a judge is asked about, see docs/judges.md; "
    "records learns from the comparisons, and asks nobody.",
    one_of=ways.NAMED,
  ),
  "orders": declare.text(
    "Whether a judge is asked about a pair in one order, or in both.",
    one_of=ways.ORDERS,
  ),
  "desired_share": declare.number(
    "Share a of the desired among unary records, for the losses kto and rdro.",
    above=0,
    below=1,
  ),
  "pessimism": declare.number(
    "Pessimism a of the loss pepo: a winner has to win by log(1 + a) nats.",
    least=0,
    most=1e6,
  ),
  **second_turn.SETTINGS,
}


class Algorithm(NamedTuple):
  """A loss, and how it is played.

  Attributes:
    way: of playing.
    reads: names of the sets that a loss reads the responses with.
    keep: (model, params of μ, batch, temperature) -> what a rollout keeps of
      μ's reading of its responses.
    read: (model, the sets by name, rows of a rollout, temperature) -> what the
      loss reads of π_θ and of μ, by name. Gradient flows to the policy.
    loss: (what is read, rows of a rollout, τ) -> (Mean, metrics).
  """

  way: ways.Way
  reads: tuple[str, ...]
  keep: Callable[..., jax.Array]
  read: Callable[..., Named]
  loss: Callable[..., tuple[arrays.Mean, Mapping[str, arrays.Mean]]]


SAMPLED = ("log_prob", "ref_log_prob")
WHOLE = ("log_probs", "ref_log_probs")
KL = "token_kl"
RATIOS = {"log_ratio", "mean_log_ratio", "mismatched_log_ratio"}
EVERY = ("mask", "tokens", "kl_coef", KL, *SAMPLED, *WHOLE)
# What the step reports itself.
TAKEN = {"loss", "grad_norm", "left_out", "ended", "entropy", "repetition"}
OF_ROWS = {
  "mask": "responses_mask",
  "tokens": "responses",
  ways.WROTE: "behaviour_log_prob",
  "label": "label",
  "follower_mask": "follower_responses_mask",
}


def make_algorithm(
  *,
  scores: str,
  loss: str,
  updates_per_rollout: int,
  judge_ahead: int,
  clip: float,
  ratio: str,
  design: str,
  orders: str,
  desired_share: float,
  pessimism: float,
  follower_kl_coef: float,
) -> Algorithm:
  """The algorithm of a loss.

  Args:
    scores: what the judge gives, "win_prob" or "reward".
    loss: a key of `LOSSES[scores]`, or the user's own as module:function: of
      named arrays, as `losses.nash_pg_loss` is, whose value is an
      `arrays.Mean` or a scalar, the mean over its rows.
    updates_per_rollout: 1, or more for the off-policy form.
    judge_ahead: 0, or 1 for responses that are a step old, which takes the
      off-policy form too.
    clip: ε > 0 of the off-policy form; read by it alone.
    ratio: of it too, a key of `losses.RATIOS`.
    design: which pairs are asked about: "all"; "circular", a ring in which
      each response is compared with its two neighbours, once shown first and
      once second; of the learner's own K responses, against the opponent
      "self", "group", all K (K − 1) / 2 pairs, or "group_circular", K of them;
      "records", the pairs of comparison records, of which nobody is asked.
    orders: "one", or "both" for every pair also the other way round, for a
      judge that minds which response it is shown first.
    desired_share, pessimism, follower_kl_coef: arguments of the losses that
      ask for them.
  Raises: ValueError for a loss that this judge does not allow, that has no
    off-policy form, or that is not played by that design.
  """
  function = outside.find(loss, LOSSES[scores], setting="nash.loss")
  if updates_per_rollout > 1 or judge_ahead:
    function = _off_policy(
      function,
      f"nash.{'judge_ahead' if judge_ahead else 'updates_per_rollout'}: got "
      f"{judge_ahead or updates_per_rollout} for the loss "
      f"{mistakes.quote(loss)} on a "
      f"{scores}",
    )
  names = set(inspect.signature(function).parameters)
  given = {
    "clip": clip,
    "ratio": ratio,
    "desired_share": desired_share,
    "pessimism": pessimism,
    "follower_kl_coef": follower_kl_coef,
  }
  own = {name: given[name] for name in given if name in names}
  function = functools.partial(function, **own)
  names -= set(own)
  way = ways.designed(_way(names, scores, loss), design, orders, loss=loss)
  return play_by_names(function, names, way, loss=loss)


def _way(names: set[str], scores: str, loss: str) -> ways.Way:
  """How what a loss asks for is played, which needs a judge of that kind."""
  way = next(
    (way for name, way in ways.BY_NAME.items() if name in names), ways.VERSUS
  )
  if way.gives not in (scores, None):
    raise mistakes.Mistake(
      f"nash.loss: {mistakes.quote(loss)} learns from a {way.gives}, but the "
      f"judge gives a {scores}"
    )
  return way


def _off_policy(function: Callable, wanted: str) -> Callable:
  """The form of a loss for what another policy wrote.

  Args:
    wanted: what the user set, for the error.
  Raises: Mistake if there is none.
  """
  function = OFF_POLICY.get(function, function)
  if ways.WROTE not in inspect.signature(function).parameters:
    raise mistakes.Mistake(
      f"{wanted}; what another policy wrote is for 'policy_gradient' on a "
      f"win_prob, or a loss that asks for {ways.WROTE}"
    )
  return function


def play_by_names(
  function: Callable, names: set[str], way: ways.Way, *, loss: str
) -> Algorithm:
  """The algorithm of a function of named arrays; see `make_algorithm`.

  Raises: Mistake for a name that there is not.
  """
  _check_names(names, way, loss)
  whole = bool(names & {*WHOLE, KL})
  keep, read = (_states, _read_states) if whole else (_log_probs, _read_tokens)

  def of_rows(read, rows, kl_coef):
    # What was not judged may hold NaN, and 0 · NaN is NaN.
    answers = jnp.where(rows["judged"], rows["answers"], 0)
    own = len(rows["responses_mask"]) // len(answers)
    asked = ways.Asked(own, *way.asks(own, rows["weights"].shape[1]))
    found = way.scores(answers, rows["judged"], rows["weights"], asked)
    mask = rows["responses_mask"] & found.pop("counted")[:, None]
    found |= {name: rows[key] for name, key in OF_ROWS.items() if key in rows}
    found |= {"mask": mask, "kl_coef": kl_coef}
    found |= read
    if names & RATIOS:
      ratio = read["log_prob"] - read["ref_log_prob"]
      ratio = arrays.masked_sum(ratio, mask).reshape(-1, own)
      found |= way.ratios(ratio, jnp.sum(mask, axis=1).reshape(-1, own))
    value, metrics = _checked(
      function(**{name: found[name] for name in names}), loss
    )
    count = jnp.sum(jnp.any(mask, axis=1))
    return _mean(value, count), {
      name: _mean(metric, count) for name, metric in metrics.items()
    }

  return Algorithm(
    way=way,
    reads=("policy", "reference") if whole else ("policy",),
    keep=keep,
    read=functools.partial(read, names),
    loss=of_rows,
  )


def _log_probs(model, params, batch, temperature) -> jax.Array:
  """f32[B·K, R] of the responses; see `Algorithm.keep`."""
  read = policy.States(params, _states(model, params, batch, temperature))
  return policy.log_probs_of(
    model, read, batch["responses"], temperature=temperature
  )


def _states(model, params, batch, temperature) -> jax.Array:
  """[B·K, R, D] of the responses; see `Algorithm.keep`."""
  del temperature
  return model.response_states(
    params, batch["prompts"], batch["prompts_mask"], batch["responses"]
  )


def _read_tokens(names, model, sets, rows, temperature) -> Named:
  """`Algorithm.read` of a loss of sampled tokens."""
  found = {
    "log_prob": _log_probs(model, sets["policy"], rows, temperature),
    "ref_log_prob": rows["reference"],
  }
  if names & {f"{second_turn.NAME}_{name}" for name in ways.READ}:
    second = second_turn.turned(rows)
    ours = _log_probs(model, sets["policy"], second, temperature)
    found["follower_log_prob"] = ours
    found["follower_ref_log_prob"] = second["reference"]
  return found


def _read_states(names, model, sets, rows, temperature) -> Named:
  """`Algorithm.read` of a loss of whole distributions."""
  states = _states(model, sets["policy"], rows, temperature)
  ours = policy.States(sets["policy"], states)
  theirs = policy.States(
    *jax.lax.stop_gradient((sets["reference"], rows["reference"]))
  )
  at = dict(temperature=temperature)
  found = {}
  if names & {*WHOLE}:
    found["log_probs"] = policy.distributions(model, ours, **at)
    found["ref_log_probs"] = policy.distributions(model, theirs, **at)
  if KL in names:
    found["log_prob"], found[KL] = policy.log_probs_and_kl(
      model, ours, theirs, rows["responses"], **at
    )
  if names & {"ref_log_prob", *RATIOS}:
    found["ref_log_prob"] = policy.log_probs_of(
      model, theirs, rows["responses"], **at
    )
  return found


def _check_names(names: set[str], way: ways.Way, loss: str) -> None:
  """Raises Mistake for what a loss asks for and is not given."""
  unknown = sorted(names - {*EVERY, *way.names})
  if unknown:
    others = sorted(name for name in ways.BY_NAME if name not in way.names)
    raise mistakes.Mistake(
      f"nash.loss: {mistakes.quote(loss)} asks for {unknown}, expected some of "
      f"{sorted([*EVERY, *way.names])}, or one of {others} and what comes with "
      "it"
    )
  if names & {*WHOLE} and names & {*SAMPLED, *RATIOS}:
    raise mistakes.Mistake(
      f"nash.loss: {mistakes.quote(loss)} asks for both log-probs of sampled "
      "tokens and of "
      f"the whole vocabulary; take the former out of {WHOLE} at tokens"
    )


def _checked(returned, loss: str):
  """What a loss returned, which must be a value and metrics, all scalars."""
  fits = (
    isinstance(returned, tuple)
    and len(returned) == 2
    and isinstance(returned[1], Mapping)
  )
  value, metrics = returned if fits else (None, {})
  wrong = [
    name
    for name, one in {"the loss": value, **metrics}.items()
    if not isinstance(one, arrays.Mean) and getattr(one, "shape", None) != ()
  ]
  taken = sorted(TAKEN & set(metrics))
  if wrong or taken:
    raise mistakes.Mistake(
      f"nash.loss: {mistakes.quote(loss)} must return its loss and a dict of "
      "metrics, each a "
      f"scalar or an arrays.Mean, and none named {sorted(TAKEN)}; "
      f"not so: {', '.join([*wrong, *taken])}"
    )
  return value, metrics


def _mean(value: arrays.Mean | jax.Array, count: jax.Array) -> arrays.Mean:
  if isinstance(value, arrays.Mean):
    return value
  count = count.astype(value.dtype)
  return arrays.Mean(value * count, count)
