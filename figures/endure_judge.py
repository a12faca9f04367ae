"""A judge on the host that marks when it is asked, and takes its time."""

from collections.abc import Sequence
import os
import pathlib
import time
from typing import Any

import numpy as np

MARK = "ENDURE_MARK"  # environment variable with the path of the mark
SECONDS = 0.2


def marked(
  records: Sequence[Any], responses: Sequence[str], opponents: Sequence[str]
) -> np.ndarray:
  """Prefers the longer text; the mark is there while it thinks."""
  del records
  mark = pathlib.Path(os.environ[MARK])
  mark.touch()
  time.sleep(SECONDS)
  more = [len(y) - len(z) for y, z in zip(responses, opponents, strict=True)]
  mark.unlink(missing_ok=True)
  return 0.5 + 0.5 * np.tanh(np.array(more) / 10)
