"""What a run of `nash` learns from: records or comparisons, all or a part."""

from collections.abc import Mapping, Sequence

import numpy as np

from nashmd_jax import mistakes, pipeline
from nashmd_jax.data import parts, records
from nashmd_jax.judges import table
from nashmd_jax.nash import settings
from nashmd_jax.stages import judging

Config = pipeline.Config
Splits = Mapping[str, Sequence[records.Record]]
NEAR = 0.01  # of a share of labels


def training_records(
  section: Config, splits: Splits, seed: int
) -> Sequence[records.Record]:
  """The training records of a run, of which it may learn from a part.

  Args:
    section: of the run, checked.
    splits: records of the kind that it learns from.
    seed: of all runs.
  """
  return parts.take(splits["train"], seed=seed, **section.split)


def check_records(
  config: Config, splits: Splits, findings: mistakes.Findings
) -> None:
  """Collects what the runs that are trained learn from and the data lacks.

  Args:
    config: checked.
    splits: the records.
    findings: where to.
  """
  for name in judging.trained_runs(config):
    section = settings.run_section(config, name)
    gives = table.find(section.judge, setting="nash.judge").gives
    made = settings.make_algorithm(section, gives, judge_ahead=0)
    if made.way.kind == "unary":
      with findings.collect():
        _check_labels(section, splits["train"])


def _check_labels(section: Config, rows: Sequence[records.Record]) -> None:
  """Raises Mistake for labels that there are not, or not so many of."""
  if any("label" not in row for row in rows):
    raise mistakes.Mistake(
      f"nash.loss: {mistakes.quote(section.loss)} asks for the labels of the "
      "records, but they have none; give unary records, with data.schema=unary "
      "for one"
    )
  share, stated = np.mean([row["label"] for row in rows]), section.desired_share
  if section.loss == "rdro" and abs(share - stated) > NEAR:
    raise mistakes.Mistake(
      f"nash.desired_share: got {stated:g} for the loss 'rdro', but "
      f"{share:.3f} of the labels of the records are desired, and elsewhere it "
      f"does not rest at them; set it to {share:.3f}"
    )
