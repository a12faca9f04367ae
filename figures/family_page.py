"""docs/family.md: the methods, how each is set, what is known of each."""

import pathlib
from typing import NamedTuple

import numpy as np

from nashmd_jax import files

PAGE = pathlib.Path("docs") / "family.md"
# {KL(π_θ, π_b): {(ratio, clip): (bias, variance)}}
Moments = dict[float, dict[tuple[str, float], tuple[float, float]]]


class Method(NamedTuple):
  """A line of the table.

  Attributes:
    name: of the method.
    loss: `nash.loss`.
    writes: who writes what is learnt of.
    data: what it learns from.
    step: key of what was measured of its expected step, or words.
    lands: the run that shows where it lands, or words why there is none.
    flags: that set it, below `--config.`, besides the loss.
  """

  name: str
  loss: str
  writes: str
  data: str
  step: str
  lands: str
  flags: tuple[str, ...]


ITERATED = ("nash.opponent=anchor", "nash.iterate.coef=0.2")
OFFLINE = "no: offline, at the optimum for its records"
AT_ZERO = "no: τ = 0"
RATED = ("data.records=RATED", "data.schema=mine:rated")
ALONE = ("tournament.policies=\"('sft','nash_md')\"",)
METHODS = (
  Method("INPO", "inpo", "π_t", "judge", "INPO", "inpo", ITERATED),
  Method(
    "MNPO",
    "mnpo",
    "π_t",
    "judge",
    "MNPO",
    "mnpo",
    (*ITERATED, 'nash.iterate.weights="(2.0,1.0,1.0)"'),
  ),
  Method(
    "SPPO",
    "sppo",
    "π_t",
    "judge",
    "SPPO",
    "sppo",
    (*ITERATED, "nash.kl_coef=0.0", "nash.samples=4"),
  ),
  Method(
    "DNO",
    "dno",
    "π_t",
    "judge",
    "DNO, 2 responses",
    "no: biased by how few the others are",
    (*ITERATED, "nash.kl_coef=0.0", "nash.samples=4"),
  ),
  Method(
    "magnetic mirror descent",
    "policy_gradient",
    "π_θ, π_t",
    "judge",
    "mirror descent",
    "mirror_descent",
    ITERATED,
  ),
  Method(
    "moving average as magnet",
    "policy_gradient",
    "π_θ, π_θ",
    "judge",
    "mirror descent",
    "magnet",
    (
      "nash.opponent=self",
      "nash.iterate.coef=0.2",
      "nash.iterate.anchor=ema",
    ),
  ),
  Method(
    "EGPO",
    "egpo",
    "π_t, against π_t and π_{t+½}",
    "judge",
    "EGPO",
    "egpo",
    (
      "nash.loss=egpo",
      "nash.opponent=self",
      "nash.iterate.every=2",
      *ALONE,
    ),
  ),
  Method(
    "Nash-RS",
    "policy_gradient",
    "π_θ, BR_τ(π_θ)",
    "judge",
    "Nash-RS",
    "nash_rs",
    ("nash.opponent=rejection", "nash.kl_coef=0.2"),
  ),
  Method(
    "Stackelberg",
    "stackelberg",
    "π_θ, its answer to it",
    "judge",
    "Stackelberg",
    "stackelberg",
    (
      "nash.loss=stackelberg",
      "nash.opponent=self",
      "nash.follower_kl_coef=0.2",
      *ALONE,
    ),
  ),
  Method(
    "COMAL",
    "ipo",
    "π_θ",
    "judge",
    "INPO",
    AT_ZERO,
    (
      "nash.opponent=self",
      "nash.kl_coef=0.0",
      "nash.iterate.coef=0.2",
      "nash.iterate.every=50",
    ),
  ),
  Method(
    "RLOO",
    "policy_gradient_sequence_kl",
    "π_θ",
    "reward",
    "see certificate.md",
    "no: a reward has no game",
    (
      "nash.samples=4",
      "nash.runs.rlhf.loss=policy_gradient_sequence_kl",
    ),
  ),
  Method(
    "GRPO",
    "grpo",
    "π_θ",
    "reward",
    "GRPO, 2 responses",
    "no: a reward has no game",
    ("nash.samples=4", "nash.runs.rlhf.loss=grpo"),
  ),
  Method(
    "offline DPO",
    "dpo",
    "nobody",
    "comparisons",
    "offline DPO",
    OFFLINE,
    ("nash.design=records",),
  ),
  Method(
    "offline IPO",
    "ipo",
    "nobody",
    "comparisons",
    "offline IPO",
    OFFLINE,
    ("nash.design=records",),
  ),
  Method(
    "PEPO's margin",
    "pepo",
    "nobody",
    "comparisons",
    "PEPO's margin",
    OFFLINE,
    ("nash.design=records",),
  ),
  Method(
    "PEPO's ensemble",
    "pepo",
    "nobody",
    "comparisons",
    "of its members",
    "no: offline, by its members",
    ("tournament.policies=\"('sft','pepo')\"",),
  ),
  Method("KTO", "kto", "nobody", "labels", "KTO, batches of 2", OFFLINE, RATED),
  Method("RDRO", "rdro", "nobody", "labels", "RDRO", OFFLINE, RATED),
  Method("UNA", "una", "nobody", "labels", "UNA, labels", OFFLINE, RATED),
  Method(
    "UNA of scores",
    "una_score",
    "nobody",
    "labels",
    "UNA, scores",
    OFFLINE,
    RATED,
  ),
  Method(
    "Nash-MD-PG, several turns",
    "policy_gradient",
    "π_θ, mixture",
    "conversations",
    "two turns",
    "no: those worlds have one turn",
    (
      "data.records=TALKS",
      "data.schema=conversation",
      "turns.most=3",
      "turns.between=32",
    ),
  ),
)
HEAD = """# The family

Made by `make family`; do not edit.

Methods that build on the paper's, as settings of one engine. π_t is the last
iterate: `nash.iterate` makes the policy of every n-th step one, and holds the
policy to it at a price of κ a nat beside τ; see
[algorithms.md](algorithms.md#what-is-learnt-from) for the formulas. *Step* is
the relative error of the expected step against the gradient of the stated
objective, by enumeration; where it is no gradient, how far it is from one. Of
GRPO it is the sine of the angle to ∇(E r − τ KL). *Lands* is KL(π\\*_τ ‖ π_θ),
nats, of a T5 trained by sampling in a world of [landing.md](landing.md), by
`configs/worlds.py:family` with τ = κ = 0.2, of Nash-RS τ = 0.5, or why there is
no such figure; of Stackelberg it is KL(π\\* ‖ π_θ), π\\* the exact leader.

| method | `nash.loss` | who writes | data | step | lands |
|---|---|---|---|---|---|
"""
COMMANDS = """
RATED is the folder, and mine.py the module, of
[extending.md](extending.md#a-record-schema); TALKS is that of
[conversations.md](conversations.md).

"""
NOTES = """## What is not exact

- SPPO's target leaves out log E_π_t exp((P(y ≻ π_t) − ½)/η), which is 0 only
  where all responses win alike: within an iteration it is no step of mirror
  descent. Where π_t = π_θ it rests at π\\*_τ all the same.
- DNO takes σ of an estimate of P(y ≻ π_t); with n responses to a prompt it is
  that of n − 1 others. The bias with 2 is {dno2:.0%} of the gradient, with 4
  {dno4:.0%}, at one token.
- Nash-RS draws the best response, but for the terms of exp(P/τ) behind its last
  voter; in [certificate.md](certificate.md) stands by how much. *Step* is held
  against the gradient of the duality gap at τ = 5.
- Stackelberg's players step along the gradients of one objective, which π
  ascends and ω descends; where one policy plays both, the sum of the two is the
  gradient of none. Its point of rest is the leader's closed form, not
  π\\*_τ; the follower is held to the same bar.
- GRPO divides by the deviation of the group and by |y|: with 2 responses the
  sine of the angle is {grpo2:.2f}, with 4, at one token, {grpo4:.2f}.
- KTO's z₀ is of a batch, without gradient. At that z₀ its step is exact; beside
  the z₀ of all records it is biased, by {kto2:.1%} of the gradient with batches
  of 2, {kto4:.1%} with 4, at one token.
- RDRO rests at the desired part of what μ writes, p⁺, where
  `nash.desired_share` is the share of the desired among the records; another
  is refused.
- UNA drops τ log Z(x): no policy has σ(τ h) = l everywhere unless
  Σ_y μ(y) (l/(1 − l))^(1/τ) = 1.

## Off-policy ratios

With `nash.updates_per_rollout` above 1, `nash.ratio` says what a token counts
that another policy π_b wrote. By enumeration, responses of up to 4 tokens,
Nash-PG against the mixture, one pair to each of two prompts: the bias
‖E g − exact‖ / ‖exact‖, and the variance E‖g − E g‖² / ‖exact‖².

| KL(π_θ, π_b) | ratio | bias | variance | ε | bias with ε | variance with ε |
|---|---|---|---|---|---|---|
"""


def write(
  errors: dict[str, float],
  biases: dict[str, float],
  moments: Moments,
  landed: dict[str, dict],
  further: str,
) -> None:
  """Writes the page.

  Args:
    errors, biases: of expected steps, by method.
    moments: of off-policy ratios.
    landed: what each run of configs/worlds.py:family came to.
    further: sections besides.
  """
  text = HEAD + "".join(
    f"{line(one)} {_step(one.step, errors, biases)} "
    f"| {_lands(one.lands, landed)} |\n"
    for one in METHODS
  )
  text += COMMANDS + "".join(
    f"{one.name}:\n\n{command(one)}\n" for one in METHODS
  )
  text += NOTES.format(
    dno2=biases["DNO, 2 responses"],
    dno4=biases["DNO, 4 responses"],
    grpo2=biases["GRPO, 2 responses"],
    grpo4=biases["GRPO, 4 responses"],
    kto2=biases["KTO, batches of 2"],
    kto4=biases["KTO, batches of 4"],
  )
  text += "".join(
    f"| {distance:.2g} | `{name}` | {_bias(moment[name, np.inf][0])} | "
    f"{moment[name, np.inf][1]:.1f} | {clip:g} | {moment[name, clip][0]:.0%} | "
    f"{moment[name, clip][1]:.1f} |\n"
    for distance, moment in moments.items()
    for name, clip in moment
    if np.isfinite(clip)
  )
  files.save_text(PAGE, text + further)


def line(method: Method) -> str:
  """A line of the table, up to what is measured."""
  return (
    f"| {method.name} | `{method.loss}` | {method.writes} | {method.data} |"
  )


def command(method: Method) -> str:
  """The command that trains a method, in a fence."""
  # Where the config has a run of it that waits to be named.
  of_a_run = any(
    ".runs." in flag or flag.startswith("tournament.") for flag in method.flags
  )
  own = () if of_a_run else (f"nash.loss={method.loss}",)
  flags = "".join(f" \\\n  --config.{flag}" for flag in (*own, *method.flags))
  program = "python -m nashmd_jax.main --config=configs/docstrings.py"
  return f"```\n{program}{flags}\n```\n"


def _step(key: str, errors: dict, biases: dict) -> str:
  if key in errors:
    return f"{errors[key]:.0e}"
  return f"biased, {biases[key]:.0%}" if key in biases else key


def _lands(key: str, landed: dict[str, dict]) -> str:
  return f"{landed[key]['eval/kl']:.1e}" if key in landed else key


def _bias(bias: float) -> str:
  return f"{bias:.0e}" if bias < 1e-6 else f"{bias:.0%}"
