"""The settings of the loop, and what goes together in a section with them.

Evaluations and saves happen where a row of metrics is written. A signal is
answered at the next step, and what of a row is measured by then is saved with
the state. Of several processes, or with a judge that is ahead, it waits for the
end of the row: log_every steps are to take less than the grace time.
"""

from collections.abc import Mapping
from typing import Any

from nashmd_jax import declare, mistakes
from nashmd_jax.training import keeping, optimizer

TRAIN = {
  "steps": declare.whole(
    "Batches to train on, each with its rollout if it has one; 0 keeps the "
    "start as it is.",
    least=0,
    unit="steps",
  ),
  "micro_batches": declare.whole(
    "Parts in which the rows of a batch are worked through, one after another, "
    "for less memory.",
    least=1,
    unit="parts",
  ),
  "nonfinite_steps": declare.whole(
    "Steps in a row whose loss or gradient is not finite, at which the run "
    "stops; each of them changes nothing.",
    least=1,
    unit="steps",
  ),
  "log_every": declare.whole(
    "Steps that one row of metrics is the mean of.", least=1, unit="steps"
  ),
  "eval_every": declare.whole(
    "Steps between evaluations, a multiple of log_every; the last step is "
    "always evaluated.",
    least=1,
    unit="steps",
  ),
  "save_every": declare.whole(
    "Steps between checkpoints, a multiple of log_every; the last step is "
    "always saved.",
    least=1,
    unit="steps",
  ),
  "save_minutes": declare.number(
    "Minutes after which a row of metrics is saved whatever save_every says; 0 "
    "saves by steps alone.",
    least=0,
    most=1e6,
    unit="minutes",
  ),
  "keep": keeping.SETTINGS,
}


def check_train(**train: Any) -> None:
  """Raises Mistake for a section `train` that cannot work."""
  declare.check(TRAIN, train, "train")
  check_rows(train)
  keeping.check(train["keep"])


def check_rows(train: Mapping[str, Any]) -> None:
  """Raises Mistake unless evaluations and saves are where a row ends."""
  for name in ("save_every", "eval_every"):
    if train[name] % train["log_every"]:
      raise mistakes.Mistake(
        f"train.{name}: got {train[name]}, expected a multiple of log_every "
        f"({train['log_every']})"
      )


def check_parts(train: Mapping[str, Any], batch_size: int) -> None:
  """Raises Mistake unless the rows of a batch make whole parts."""
  parts = train["micro_batches"]
  if batch_size % parts:
    raise mistakes.Mistake(
      f"data.batch_size: got {batch_size}, expected a multiple of "
      f"train.micro_batches ({parts})"
    )


def check_together(
  name: str,
  section: Mapping[str, Any],
  findings: mistakes.Findings,
  *,
  steps_counted: int = 1,
) -> None:
  """Collects which settings of a section that is trained do not go together.

  Args:
    name: of the section, for the sentences.
    section: with data, optimizer and train, and updates_per_rollout if there
      are rollouts; the changes of a run included.
    findings: where to.
    steps_counted: steps that the optimizer counts as one; see `half_steps`.
  """
  train, own = section["train"], section["optimizer"]
  updates = train["steps"] * section.get("updates_per_rollout", 1)
  updates //= steps_counted
  for check in (
    lambda: check_rows(train),
    lambda: keeping.check(train["keep"]),
    lambda: check_parts(train, section["data"]["batch_size"]),
    lambda: optimizer.check_own(own),
    lambda: optimizer.check_warmup(own),
    lambda: optimizer.check_schedule(own, updates),
  ):
    with findings.collect(name, "."):
      check()
