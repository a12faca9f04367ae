"""What an evaluation shows: prompts, and what was written for them."""

from collections.abc import Mapping, Sequence

import numpy as np

from nashmd_jax import task as task_lib
from nashmd_jax.data import records
from nashmd_jax.stages import writing
from nashmd_jax.training import telling

WRITERS = ("policy", "reference")


def samples(
  task: task_lib.Task,
  rows: Sequence[records.Record],
  written: Sequence[np.ndarray],
  scores: Mapping[str, np.ndarray],
) -> list[telling.Sample]:
  """Samples of the first prompts of a batch.

  Args:
    task: decodes.
    rows: n records, with their prompts.
    written: tokens int[B, 2, R] and mask bool[B, 2, R], B ≥ n, of `WRITERS`.
    scores: f64[B] by the name of their mean.
  """
  found = []
  texts = writing.texts_of(task, rows, *written)
  for number, row in enumerate(rows):
    named = dict(zip(WRITERS, texts[number], strict=True))
    said = {name: float(values[number]) for name, values in scores.items()}
    found.append(telling.Sample({"prompt": row["prompt"], **named}, said))
  return found
