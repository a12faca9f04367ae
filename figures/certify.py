"""`make certify`: the claims of the Nash family, in out/certify.json.

Writes the table of the gradient certificate, docs/certificate.md, too. Exit
status 1 when a row does not hold.
"""

from collections.abc import Callable, Sequence
import pathlib
import sys

import jax
import numpy as np

from figures import landing, rows
from nashmd_jax import files
from nashmd_jax.nash import rejection
from tests import certificate, rejection_oracle, variance, whole_step
from tests import gradient_oracle as oracle

OUT = pathlib.Path("out") / "certify.json"
PAGE = pathlib.Path("docs") / "certificate.md"
LENGTH = 4
KEYS = 4000

HEAD = f"""# Gradient certificate

Made by `make certify`; do not edit.

On an enumerable model the expectation of every estimator is a finite sum.
Each line is its relative error ‖E[estimator] − exact‖ / ‖exact‖ in float64,
with a vocabulary of 3, responses of up to {LENGTH} tokens, two prompts, and
policy, reference and preferences drawn at random; τ = {oracle.KL_COEF},
β = {oracle.MIXTURE}, temperature {oracle.TEMPERATURE}.

The exact side is computed from sequence probabilities alone: for Nash-PG the
gradient of P_τ(π_θ ≻ opponent); for RLHF that of E r − τ KL(π_θ, μ); for IPO
E_m[∇log π (P(y ≻ m) − ½ − τ (h − E_m h))] with h = log π_θ/μ, where m writes
the pairs; for DPO the gradient of its cross-entropy. Off-policy means that an
earlier policy wrote y. Opponents on that side are written from the paper's
formulas and share no code with the library.
"""
OF_STEPS = f"""
## Whole steps

The same for a step of training as it is run: lanes, sets, the rollout's rows,
the judge, the loss. Every tuple of responses that the rollout could write
stands once, with the probability that its lanes give it. With several samples,
and with two lanes, responses have up to 2 and 3 tokens; against the best
response one, of which the prompts count that have an accepted proposal. The
gap's gradient is taken of its closed form. Few voters draw another law, with
fewer terms of exp(P/τ), which the second of these lines is held against; at
τ = {oracle.KL_COEF} those that there are move the gradient by {{moved:.0e}}.
Of a game of two turns it is the sum of both players' gradients, responses of up
to two tokens; of EGPO the gradient at θ_t of
E (h − h′ − (P(y ≻ π″) − P(y′ ≻ π″)) / τ)² over pairs of π_t, of up to three.
"""
OF_ADAPTERS = """
## Adapters

The same for the gradient of low-rank adapters of tiny real models, against
W + (α / r) A B formed and differentiated; responses of up to 2 tokens.
"""
OF_TURNS = """
## Conversations

The same for whole steps on conversations of two turns, see
[conversations.md](conversations.md): the real rollout writes every pair of
conversations once. What stands between the turns is fixed; with one of the two
prompts it begins with the end of a turn, which is left out where the policy has
written that itself. The exact side lists the conversations in plain Python.
"""
TABLE = """
| algorithm | opponent | KL | relative error |
|---|---|---|---|
"""
FOUND_ELSEWHERE = """
## Forms found elsewhere

The same measure of forms that other code uses, as the reason why they are not
in the library.
"""
Measured = list[tuple[certificate.Case, float]]


def measure(cases: Sequence[certificate.Case]) -> Measured:
  """The relative error of every case."""
  with jax.enable_x64(True):
    world = oracle.make_world(LENGTH)
    return [(case, case.measure(world)) for case in cases]


def write_page(held: Measured, elsewhere: Measured, moved: float) -> None:
  """The certificate as a page of the docs.

  Args:
    held, elsewhere: what was measured.
    moved: see `rejection_oracle.of_series`.
  """
  found = dict(zip((id(case) for case, _ in held), held, strict=True))
  text = HEAD
  for words, cases in (
    ("", certificate.CASES),
    (OF_STEPS.format(moved=moved), certificate.STEPS),
    (OF_ADAPTERS, certificate.ADAPTERS),
    (OF_TURNS, certificate.TURNS),
  ):
    rows_held = (found[id(case)] for case in cases)
    text += words + TABLE
    text += "".join(
      f"{certificate.line(case)} {error:.0e} |\n" for case, error in rows_held
    )
  text += FOUND_ELSEWHERE + TABLE
  text += "".join(
    f"{certificate.line(case)} {error:.0%} |\n" for case, error in elsewhere
  )
  files.save_text(PAGE, text)


def gradient_rows() -> list[rows.Row]:
  """Every case against the bar; the forms found elsewhere as a contrast."""
  cases = measure(certificate.ALL)
  elsewhere = measure(certificate.ELSEWHERE)
  with jax.enable_x64(True):
    moved = rejection_oracle.of_series(oracle.make_world(LENGTH))
  write_page(cases, elsewhere, moved)

  def name(case):
    return (
      f"relative error of the expected gradient: {case.algorithm}, opponent "
      f"{case.opponent}, KL {case.form}"
    )

  return (
    [rows.row(name(case), error, "≤", certificate.BAR) for case, error in cases]
    + [
      rows.row(f"found elsewhere, {name(case)}", error, ">", 0.01)
      for case, error in elsewhere
    ]
    + [
      rows.row(
        "relative change of the gradient of the duality gap by the voters that "
        "there are",
        moved,
        "≤",
        rejection.LEFT_OVER,
      )
    ]
  )


def variance_rows() -> list[rows.Row]:
  """K = 4 against K = 1 at equal prompts, Nash-MD-PG."""
  with jax.enable_x64(True):
    world = oracle.make_world(3)
    exact, errors = {}, []
    for samples in (1, 4):
      exact[samples] = variance.exact_variance(world, samples)
      drawn = variance.step_gradients(
        whole_step.make_play(world, samples=samples),
        world.sets,
        KEYS,
        samples,
      )
      measured = variance.total_variance(drawn)
      errors.append(abs(measured / exact[samples] - 1))
  return [
    rows.row(
      "gradient variance of K = 1 over that of K = 4 at equal prompts, by "
      "enumeration",
      exact[1] / exact[4],
      ">",
      4,
    ),
    rows.row(
      f"the same variances from {KEYS} whole steps (sampling, judge, loss), "
      "largest relative difference from enumeration",
      float(np.max(errors)),
      "≤",
      0.15,
    ),
  ]


SECTIONS: tuple[Callable[[], list[rows.Row]], ...] = (
  gradient_rows,
  variance_rows,
  landing.landing_rows,
)


def main() -> int:
  """Measures all sections and writes their rows."""
  found = [row for section in SECTIONS for row in section()]
  return rows.report(OUT, found)


if __name__ == "__main__":
  sys.exit(main())
