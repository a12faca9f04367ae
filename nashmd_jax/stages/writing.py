"""What policies write for the records of a stage, as text."""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import lanes as lanes_lib
from nashmd_jax import policy, rejection, sampling, turns
from nashmd_jax import task as task_lib
from nashmd_jax.data import batches, records
from nashmd_jax.training import journal
from nashmd_jax.training import metrics as metrics_lib


class Responses(NamedTuple):
  """What L lanes wrote for N records.

  Attributes:
    texts: L for each record.
    ended: the share of them that ended by themselves.
    log_ratio: f64[N, L], log π(y)/μ(y) of each under its own lane π, nats, both
      at the temperature of sampling; None where it was not asked for.
    accepted: f64[N, L], the share of the proposals to each that were taken, see
      `rejection`; None where nothing is proposed.
  """

  texts: list[list[str]]
  ended: float
  log_ratio: np.ndarray | None
  accepted: np.ndarray | None = None


def write(
  task: task_lib.Task,
  sets: task_lib.Sets,
  lanes: Sequence[sampling.Lane],
  source: Sequence[records.Record],
  *,
  batch_size: int,
  temperature: float,
  rng: jax.Array,
  told: str,
  once: journal.Once,
  log_ratio: bool = False,
) -> Responses:
  """Responses as text: for each record one for each lane.

  The response to a record depends on the key and on its place in `source`,
  not on the batch it is in.

  Args:
    lanes: L; where one is of whole responses all are the same.
    told: what the line of progress begins with.
    once: does, or has done, each batch; see `journal`.
    log_ratio: whether to tell it, for which the set "reference" is read; of
      whole responses of an ensemble it is not known.
  """
  roll = _roller(task, lanes, temperature, rng, log_ratio)

  def piece_of(batch, real):
    rollout, ratio, accepted = roll(sets, batch)
    ended = sampling.ended(rollout.tokens, rollout.mask, task.tokenizer.eos_ids)
    rows = [source[place] for place in batch["record_ids"][:real]]
    piece = {
      "texts": texts_of(task, rows, rollout.tokens[:real], rollout.mask[:real]),
      "ended": np.asarray(ended[:real]).tolist(),
    }
    if log_ratio:
      piece["log_ratio"] = np.asarray(ratio[:real], np.float64).tolist()
    if accepted is not None:
      piece["accepted"] = np.asarray(accepted[:real], np.float64).tolist()
    return piece

  ordered = batches.ordered_batches(
    source, task.encode, task.pad, batch_size=batch_size
  )
  shown = metrics_lib.shown_batches(
    ordered, told, rows=len(source), batch_size=batch_size
  )
  pieces = [
    once(f"batch {number}", functools.partial(piece_of, batch, real))
    for number, (batch, real) in enumerate(shown)
  ]
  ended = np.concatenate([np.ravel(piece["ended"]) for piece in pieces])
  ratios = [one for piece in pieces for one in piece.get("log_ratio", ())]
  shares = [one for piece in pieces for one in piece.get("accepted", ())]
  return Responses(
    texts=[texts for piece in pieces for texts in piece["texts"]],
    ended=float(np.mean(ended)),
    log_ratio=np.array(ratios) if log_ratio else None,
    accepted=np.array(shares) if shares else None,
  )


def _roller(task, lanes, temperature, rng, log_ratio):
  """(sets, batch) -> a rollout, log π/μ of its responses f32[B, L] or None,
  and the shares of proposals that were taken f32[B, L] or None.
  """
  names = sorted({name for lane in lanes for name in lane})
  read = sorted({*names, "reference"}) if log_ratio else names
  how = {
    "max_response": task.max_response,
    "temperature": temperature,
    "eos_ids": task.tokenizer.eos_ids,
  }

  @task.by_rows
  def roll(sets, batch):
    ready = task.ready(sets, read)
    prompts = {
      "prompts": batch["prompts"],
      "prompt_mask": batch["prompts_mask"],
    }
    if isinstance(lanes[0], lanes_lib.Rejection):
      drawn = rejection.rollout(
        task.model,
        ready,
        lanes[0],
        samples=len(lanes),
        rng=rng,
        example_ids=batch["example_ids"],
        **prompts,
        **how,
      )
      return drawn.rollout, None, drawn.accepted
    written = sampling.rollout(
      task.model,
      ready,
      lanes,
      **prompts,
      keys=sampling.row_keys(rng, batch["example_ids"], len(lanes)),
      script=turns.script(batch),
      **how,
    )
    if not log_ratio:
      return written, None, None
    other = policy.response_log_probs(
      task.model,
      ready["reference"],
      **prompts,
      responses=written.tokens.reshape(-1, written.tokens.shape[-1]),
      temperature=temperature,
    ).reshape(written.tokens.shape)
    ratio = jnp.where(written.mask, written.log_prob - other, 0)
    return written, jnp.sum(ratio, axis=-1), None

  return roll


def rows_of(lane: sampling.Lane) -> int:
  """Responses that are written for each that a lane gives."""
  return lane.proposals if isinstance(lane, lanes_lib.Rejection) else 1


def prompts_at_a_time(
  task: task_lib.Task, batch_size: int, samples: int
) -> int:
  """As many prompts as keep to the rows of a batch that devices share."""
  parts = task.devices.mesh.shape["data"]
  return -(-max(batch_size // samples, 1) // parts) * parts


def texts_of(
  task: task_lib.Task,
  rows: Sequence[records.Record],
  tokens: Any,
  mask: Any,
) -> list[list[str]]:
  """The text of responses to N records, by record and lane.

  Args:
    task: decodes.
    rows: N records, which say what stands between turns.
    tokens: int[B, L, R], B ≥ N.
    mask: bool[B, L, R].
  """
  found = []
  for row, *lanes in zip(rows, tokens, mask, strict=False):
    asked = row.get("turns", ())[1::2]
    found.append(
      [_text_of(task, asked, *lane) for lane in zip(*lanes, strict=True)]
    )
  return found


def _text_of(task, asked, tokens, mask) -> str:
  """What one row says, the messages of the user between its turns."""
  tokens, keep = np.asarray(tokens), np.asarray(mask)
  if not asked:
    return task.tokenizer.decode(tokens[keep])
  stops = np.flatnonzero(keep & ~np.append(keep[1:], False)) + 1
  text, start = "", 0
  for number, stop in enumerate(stops):
    own = tokens[start:stop][keep[start:stop]]
    text += task.tokenizer.decode(own)
    if number < len(asked):
      text += records.between(asked[number])
    start = stop
  return text
