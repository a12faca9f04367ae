"""A judge of text on the host, asked between rollout and update."""

from collections.abc import Mapping
import functools
import pathlib
import time

import numpy as np

from nashmd_jax import mistakes, pipeline
from nashmd_jax import task as task_lib
from nashmd_jax.nash import opponents
from nashmd_jax.nash import play as play_lib
from nashmd_jax.stages import judging, writing
from nashmd_jax.training import step as step_lib

Config = pipeline.Config


def check(config: Config, section: Config, findings: mistakes.Findings) -> None:
  """Collects why a run cannot have its judge on the host."""
  with findings.collect():
    if section.opponent != opponents.REJECTION:
      return
    if judging.on_host(config, section.judge, setting="nash.judge"):
      raise mistakes.Mistake(
        f"nash.judge: got {mistakes.quote(section.judge)} for the opponent "
        f"{section.opponent!r}, which asks its judge before the rollout ends; "
        "choose one that reads tokens, such as preference"
      )


def make_host(
  config: Config,
  task: task_lib.Task,
  section: Config,
  play: play_lib.Play,
  workdir: pathlib.Path,
) -> step_lib.Host:
  """Asks a judge of text about a rollout.

  Its rows are answers, judged, judge_seconds, and what the judge tells of its
  costs, such as judge_calls.
  """
  setting = {"setting": "nash.judge"}
  costs = judging.costs(config, section.judge, **setting)
  source = task.splits["train"]
  made = play_lib.algorithms_lanes(play, 0)
  i, j = play.algorithm.way.asks(len(made.own), len(made.other))

  @functools.cache
  def judge():
    return judging.host_judge(
      config, task, workdir, section.judge, batch_size=section.data.batch_size
    )

  def ask(rows: Mapping[str, np.ndarray]) -> dict[str, list]:
    began = time.monotonic()
    asked = [source[number] for number in rows["record_ids"]]
    written = rows["written"], rows["written_mask"]
    texts = writing.texts_of(task, asked, *written)
    said = judging.answers(judge(), asked, texts, i, j)
    spent = judging.spent(judge(), costs, asked, texts, i, j)
    seconds = [time.monotonic() - began] * len(asked)
    return {"answers": said.tolist(), "judge_seconds": seconds, **spent}

  def further(told: Mapping[str, list]) -> dict[str, np.ndarray]:
    found = {name: np.array(told[name], np.float32) for name in told}
    known = np.isfinite(found["answers"])
    answers = np.where(known, found["answers"], np.float32(0.5))
    return {**found, "answers": answers, "judged": known}

  reads = ("record_ids", "written", "written_mask")
  tells = ("judge_seconds", *costs)
  return step_lib.Host(reads, ask, further, tells, section.judge_ahead)
