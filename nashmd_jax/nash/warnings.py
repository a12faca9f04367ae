"""What is worth a warning in a run of play, by the rows of its metrics.

Each rule asks for more than noise explains: a run of healthy noise is to be
warned of less than once in a hundred. They know no file; `training.warned`
says each once.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from nashmd_jax.training import warned

WON = "win_prob_against_reference"
JUDGE = f"{warned.EVALUATION}{WON}"
SURE = 6.0  # standard errors
QUITE_SURE = 3.5  # the same, where two things must come together
UNENDED = 0.5  # share of responses
REPEATED = 0.25  # share of n-grams
DRIFT = 2.0  # times as long, or as short
COLLAPSE = 0.25  # of the entropy at the start
GROWTH, NATS = 1.5, 1.0  # of the KL: so many times, and so much
GAIN = 0.01  # of a win rate, where less is none
APART = 0.05  # from one half, or from before


def kl_below_zero(history: warned.History) -> str | None:
  """The estimate of a KL stays below zero."""
  kl = _column(history.last[-warned.ROWS :], "kl")
  if len(kl) < warned.ROWS or np.mean(kl) + SURE * _error(kl) >= 0:
    return None
  return (
    f"the KL to the reference is {np.mean(kl):.3g} nats over the last "
    f"{len(kl)} rows, and it cannot be negative: responses are scored by "
    "another distribution than they are drawn from; compare float32 with the "
    "run_dtype in use, and take fewer updates_per_rollout or judge_ahead=0"
  )


def kl_without_gain(history: warned.History) -> str | None:
  """The KL grows, and what is won does not."""
  rows = [row for row in history.judged if JUDGE in row and "kl" in row]
  (kl, later_kl), (won, later_won) = (
    _halves(_column(rows, name)) for name in ("kl", JUDGE)
  )
  if min(len(kl), len(won)) < warned.EVALUATIONS // 2:
    return None
  grown, error = _difference(kl, later_kl)
  gained, gain_error = _difference(won, later_won)
  if (
    np.mean(later_kl) < GROWTH * np.mean(kl)
    or grown - QUITE_SURE * error < NATS
    or gained + QUITE_SURE * gain_error >= GAIN
  ):
    return None
  return (
    f"the KL to the reference grew from {np.mean(kl):.3g} to "
    f"{np.mean(later_kl):.3g} nats a response in {len(rows)} evaluations, "
    f"while the win rate went from {np.mean(won):.3f} to "
    f"{np.mean(later_won):.3f}: the policy moves and wins nothing by it; stop "
    "here, raise nash.kl_coef or lower the learning rate"
  )


def unended(history: warned.History) -> str | None:
  """Most responses are cut off."""
  ended = _column(history.last[-warned.ROWS :], "ended")
  if len(ended) < warned.ROWS:
    return None
  if np.mean(ended) + QUITE_SURE * _error(ended) >= 1 - UNENDED:
    return None
  return (
    f"{1 - np.mean(ended):.0%} of the responses had no end token within "
    f"layout.max_response in the last {len(ended)} rows, so that judges read "
    "beginnings; raise it, or train SFT on responses that fit and end"
  )


def repetition(history: warned.History) -> str | None:
  """Responses repeat themselves."""
  repeated = _column(history.last[-warned.ROWS :], "repetition")
  if len(repeated) < warned.ROWS:
    return None
  if np.mean(repeated) - QUITE_SURE * _error(repeated) <= REPEATED:
    return None
  return (
    f"{np.mean(repeated):.0%} of the four-token sequences in a response are "
    f"repeated in it, over the last {len(repeated)} rows: read some responses; "
    "if the judge likes them, let another watch it, and raise nash.kl_coef"
  )


def length_drift(history: warned.History) -> str | None:
  """Responses become much longer or shorter than they were."""
  before, now = _start_and_now(history, "response_tokens")
  if not len(before):
    return None
  change, error = _difference(before, now)
  longer = np.mean(now) >= DRIFT * np.mean(before)
  shorter = np.mean(now) * DRIFT <= np.mean(before)
  if abs(change) <= SURE * error or not (longer or shorter):
    return None
  return (
    f"responses have {np.mean(now):.1f} tokens now and had "
    f"{np.mean(before):.1f} at the start: see whether the judge likes them "
    f"for being {'long' if longer else 'short'}, by its win rate at equal "
    "length in the report; a judge with a penalty on length says otherwise"
  )


def entropy_collapse(history: warned.History) -> str | None:
  """The policy comes to write one response to a prompt."""
  before, now = _start_and_now(history, "entropy")
  if not len(before):
    return None
  change, error = _difference(before, now)
  if -change <= SURE * error or np.mean(now) > COLLAPSE * np.mean(before):
    return None
  return (
    f"the entropy of a token fell from {np.mean(before):.3g} to "
    f"{np.mean(now):.3g} nats: the policy comes to write the same response "
    "each time, from which it learns nothing; raise nash.kl_coef or lower the "
    "learning rate"
  )


def judges_part(history: warned.History) -> str | None:
  """A judge that watches says the contrary of the judge that teaches."""
  own = _column(history.judged, JUDGE)
  if len(own) < warned.EVALUATIONS:
    return None
  for name in sorted(history.judged[-1]):
    if name == JUDGE or not name.endswith(f"_{WON}"):
      continue
    other = _column(history.judged, name)
    if len(other) == len(own) and (_fall_out(own, other) or _tear(own, other)):
      watching = name.removeprefix(warned.EVALUATION).removesuffix(f"_{WON}")
      now = slice(-(len(own) // 2), None)
      return (
        f"the judge gives the policy {np.mean(own[now]):.3f} against the "
        f"reference, and {watching}, which watches, "
        f"{np.mean(other[now]):.3f} on the same pairs: the policy may exploit "
        "the judge; read the pairs on which they differ, and take an earlier "
        "checkpoint, a better judge or a higher nash.kl_coef"
      )
  return None


def _fall_out(own: np.ndarray, other: np.ndarray) -> bool:
  """Whether one is lately above one half and the other below."""
  (_, won), (_, lost) = _halves(own), _halves(other)
  return bool(
    np.mean(won) - QUITE_SURE * _error(won) > 0.5 + APART
    and np.mean(lost) + QUITE_SURE * _error(lost) < 0.5 - APART
  )


def _tear(own: np.ndarray, other: np.ndarray) -> bool:
  """Whether one rises and the other falls."""
  rise, rise_error = _difference(*_halves(own))
  fall, fall_error = _difference(*_halves(other))
  return bool(
    rise - QUITE_SURE * rise_error > APART
    and fall + QUITE_SURE * fall_error < -APART
  )


RULES: Mapping[str, warned.Rule] = {
  "kl_below_zero": kl_below_zero,
  "kl_without_gain": kl_without_gain,
  "unended": unended,
  "repetition": repetition,
  "length_drift": length_drift,
  "entropy_collapse": entropy_collapse,
  "judges_part": judges_part,
}


def _column(rows: Sequence[warned.Row], name: str) -> np.ndarray:
  """The finite values of a metric, in order."""
  values = np.array([row[name] for row in rows if name in row], np.float64)
  return values[np.isfinite(values)]


def _halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  half = len(values) // 2
  return values[:half], values[half:]


def _start_and_now(
  history: warned.History, name: str
) -> tuple[np.ndarray, np.ndarray]:
  """A metric in the first rows and in the last ones; none if they overlap."""
  before = _column(history.first, name)
  now = _column(history.last, name)
  if len(before) < warned.ROWS or len(now) < 2 * warned.ROWS:
    return before[:0], now[:0]
  return before, now[-warned.ROWS :]


def _error(values: np.ndarray) -> float:
  """The standard error of a mean of independent values."""
  return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def _difference(before: np.ndarray, now: np.ndarray) -> tuple[float, float]:
  """How much a mean grew, and the standard error of that."""
  error = np.hypot(_error(before), _error(now))
  return float(np.mean(now) - np.mean(before)), float(error)
