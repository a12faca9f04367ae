"""`make family`: what builds on the paper, in out/family.json.

Hand values of the losses, expected steps against the gradients of their
objectives, what is biased and by how much, identities of the games, and where
runs that are held to their last iterates land. Writes docs/family.md too.
Exit status 1 when a row does not hold.
"""

from collections.abc import Callable
import pathlib
import sys

import jax
import numpy as np

from figures import (
  family_annotators,
  family_page,
  family_pepo,
  landing,
  rows,
)
from nashmd_jax import losses
from tests import (
  certificate,
  family_identities,
  family_moments,
  family_oracle,
  family_records,
  half_steps_oracle,
  rejection_oracle,
  stackelberg_oracle,
  turns_oracle,
)
from tests import family_test as by_hand
from tests import gradient_oracle as oracle

OUT = pathlib.Path("out") / "family.json"
GOLDEN, BIASED, LENGTH = 1e-6, 1e-3, 4
DISTANCES = (1, 2, 4)
CLIPS = {"product": 0.2, "token": 0.2, "mean": 0.2, "prefix": 0.05}
TAU = by_hand.TAU
Measured = dict[str, float]


def golden_values() -> dict[str, tuple[float, float]]:
  """What each loss gives on the two responses, and what it should."""
  at, of_pair, unary = dict(kl_coef=TAU), by_hand.of_pair, by_hand.unary
  held, price = by_hand.held(
    [1.0], kl_coef=TAU, anchor_coef=0.2, anchors=[by_hand.LAST]
  )
  met = {"mismatched_log_ratio": np.array([0.3]), "desired_share": 0.5}
  last = by_hand.LastIterateTest().meeting_a_third
  soft = of_pair(losses.ipo_loss, win=by_hand.table(0.8), **at)
  found = {
    "DPO": (of_pair(losses.online_dpo_loss, **at), 0.62095705),
    "IPO": (of_pair(losses.ipo_loss, **at), 12.25),
    "IPO, p = .8": (soft, 18.25),
    "INPO": (of_pair(losses.ipo_loss, held, kl_coef=price), 0.49),
    "SPPO": (last(losses.sppo_loss), 0.625),
    "DNO": (last(losses.dno_loss), 0.68479067),
    "PEPO": (of_pair(losses.pepo_loss, pessimism=0.1, **at), 0.62537711),
    "KTO, desired": (unary(losses.kto_loss, 1.0, 1.0, **met, **at), 0.482507),
    "KTO, not": (unary(losses.kto_loss, -0.5, 0.0, **met, **at), 0.480011),
  }
  values = {k: (float(loss[0].value), to) for k, (loss, to) in found.items()}
  share = 0.39
  for name, own, label, expected in (
    ("RDRO, desired", share, 1.0, 0.825434),
    ("RDRO, not", 1 - share, 0.0, 0.289187),
  ):
    ratio = 1.0 if label else -0.5
    loss, _ = unary(losses.rdro_loss, ratio, label, desired_share=share)
    values[name] = (own * float(loss.value), expected)
  for name, loss, labels, expected in (
    ("UNA, scores", losses.una_score_loss, (0.8, 0.3), 0.11079367),
    ("UNA, labels", losses.una_loss, (1.0, 0.0), 1.31285631),
  ):
    both = zip((1.0, -0.5), labels, strict=True)
    total = sum(float(unary(loss, *one, **at)[0].value) for one in both)
    values[name] = (total, expected)
  return values


def golden_rows() -> list[rows.Row]:
  """Every loss by hand."""
  return [
    rows.row(
      f"distance of the loss from its hand value, {name}",
      abs(got - expected),
      "≤",
      GOLDEN,
    )
    for name, (got, expected) in golden_values().items()
  ]


def step_errors() -> tuple[Measured, Measured]:
  """Expected steps against their objectives: errors, and biases."""
  long, short = oracle.make_world(3), oracle.make_world(2)
  errors = {
    "INPO": family_oracle.of_mnpo(long, "inpo", 1),
    "MNPO": family_oracle.of_mnpo(long, "mnpo", 2),
    "SPPO": family_oracle.of_sppo(long),
    "mirror descent": family_oracle.of_magnet(long, 2),
    "EGPO": half_steps_oracle.measure(long),
    "Nash-RS": rejection_oracle.of_gap(short),
    "Stackelberg": stackelberg_oracle.measure(short),
    "two turns": turns_oracle.error(2, "mixture"),
    "offline IPO": family_records.of_pairs(long, "ipo"),
    "offline DPO": family_records.of_pairs(long, "dpo"),
    "PEPO's margin": family_records.of_pairs(long, "pepo"),
    "RDRO": family_records.of_unary(long, "rdro"),
    "UNA, labels": family_records.of_unary(long, "una"),
    "UNA, scores": family_records.of_unary(long, "una_score"),
  }
  one_token = oracle.make_world(1)
  at_batch, few = family_records.of_kto(one_token, 2)
  errors["KTO, at the z₀ of a batch of 2"] = at_batch
  at_batch, many = family_records.of_kto(one_token, 4)
  errors["KTO, at the z₀ of a batch of 4"] = at_batch
  biases = {
    "KTO, batches of 2": few,
    "KTO, batches of 4": many,
    "DNO, 2 responses": family_oracle.of_dno(one_token, 1),
    "DNO, 4 responses": family_oracle.of_dno(one_token, 2),
    "GRPO, 2 responses": family_moments.grpo(short, 2),
    "GRPO, 4 responses": family_moments.grpo(one_token, 4),
  }
  return errors, biases


def step_rows(errors: Measured, biases: Measured) -> list[rows.Row]:
  """Those as rows; a bias is a figure that is not small."""
  name = "relative error of the expected step"
  return [
    *(
      rows.row(f"{name}, {method}", error, "≤", certificate.BAR)
      for method, error in errors.items()
    ),
    *(
      rows.row(f"{name}, which is no gradient, {method}", bias, ">", BIASED)
      for method, bias in biases.items()
    ),
    *(
      rows.row(
        f"bias of {method.format(4)} over that of {method.format(2)}",
        biases[method.format(4)] / biases[method.format(2)],
        "≤",
        1,
      )
      for method in ("DNO, {} responses", "KTO, batches of {}")
    ),
  ]


def ratio_moments() -> family_page.Moments:
  """Bias and variance of each ratio, clipped or not, by distance."""
  world = oracle.make_world(LENGTH)
  found = {}
  for times in DISTANCES:
    moved = family_moments.moved(world, times)
    found[family_moments.distance(moved)] = {
      (name, clip): family_moments.ratio(moved, name, clip)
      for name, own in CLIPS.items()
      for clip in (np.inf, own)
    }
  return found


def ratio_rows(found: family_page.Moments) -> list[rows.Row]:
  """The product alone is exact; far away it varies most."""
  made = []
  for distance, moments in found.items():
    for name in CLIPS:
      bias, _ = moments[name, np.inf]
      exact = name == "product"
      made.append(
        rows.row(
          f"relative bias of the unclipped ratio {name}, KL(π_θ, π_b) "
          f"{distance:.2g}",
          bias,
          "≤" if exact else ">",
          certificate.BAR if exact else 0.01,
        )
      )
  _, far = found[max(found)]["product", np.inf]
  others = (found[max(found)][name, np.inf][1] for name in CLIPS)
  made.append(
    rows.row(
      "variance of the product over the largest of all ratios, furthest away",
      far / max(others),
      "=",
      1,
    )
  )
  return made


def identity_rows() -> list[rows.Row]:
  """Closed forms of the games."""
  found = {
    "|J(π*) − J(Gibbs(r̂)) − τ KL|": family_identities.wrong_reward(),
    "|Σ π − 1|, spread of r + β μ/π, forward KL": (
      family_identities.forward_kl()
    ),
    "|Σ P(i wins) − 1|, 2 players": family_identities.somebody_wins(2),
    "|Σ P(i wins) − 1|, 4 players": family_identities.somebody_wins(4),
  }
  return [
    *(
      rows.row(f"largest {name}, random cases", error, "≤", 1e-12)
      for name, error in found.items()
    ),
    rows.row(
      "largest KL over bound at any of 1,000 iterations, omwu",
      family_identities.optimistic_excess(1000),
      "≤",
      1,
    ),
  ]


def landing_rows(landed: dict[str, dict]) -> list[rows.Row]:
  """Runs that are held to their iterates come to rest at π*_τ."""
  return [
    rows.row(
      f"KL(exact ‖ trained), {name}", one["eval/kl"], "≤", landing.LANDED
    )
    for name, one in landed.items()
  ] + [
    rows.row(
      f"KL(exact ‖ trained) of the follower, {name}",
      one["eval/follower_kl"],
      "≤",
      landing.LANDED,
    )
    for name, one in landed.items()
    if "eval/follower_kl" in one
  ]


def exactly(measure: Callable):
  """What a measure gives in float64."""
  with jax.enable_x64(True):
    return measure()


def main() -> int:
  """Measures everything, writes the page and the rows."""
  errors, biases = exactly(step_errors)
  moments = exactly(ratio_moments)
  landed = landing.landed("family")
  pessimism = exactly(family_pepo.measured)
  further = family_pepo.section(pessimism)
  family_page.write(errors, biases, moments, landed, further)
  return rows.report(OUT, [
    *exactly(golden_rows),
    *step_rows(errors, biases),
    *ratio_rows(moments),
    *exactly(identity_rows),
    *landing_rows(landed),
    *family_pepo.rows(pessimism),
    *family_annotators.rows(),
  ])  # fmt: skip


if __name__ == "__main__":
  sys.exit(main())
