"""The parts of a step of `nash` as programs, each fed by the one before.

They tell what a token costs, which a loop hides in a program as a whole.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import sampling, turns
from nashmd_jax import task as task_lib
from nashmd_jax.capacity import programs
from nashmd_jax.nash import play as play_lib
from nashmd_jax.nash import settings
from nashmd_jax.stages import judge_templates, judging
from nashmd_jax.training import sharding
from nashmd_jax.training import state as state_lib

# What is done once a step; what decode takes comes on top, once a token.
ONCE = ("prefill", "judge", "reference", "update")


def of_step(
  config: programs.Config, task: task_lib.Task, run: programs.Run
) -> dict[str, programs.Program]:
  """The parts that a step of a run has: "decode" and some of `ONCE`.

  What stands on the host is none of them, and an update that is a program by
  itself has no part.
  """
  play, training = run.play, run.training
  _, compiled, state, batch = training
  sets = state_lib.params_by_name(state)
  lanes = play_lib.algorithms_lanes(play, 0)
  rows = programs.rows(run, task.devices)
  found = {}
  if lanes.own:
    found |= _writing(play, task.devices, sets, batch)
  if play.judge is not None and rows["answers"].shape[1]:
    found["judge"] = _judging(config, task, run, sets)
  placed = jax.eval_shape(lambda sets: play.ready(sets, ["reference"]), sets)
  placed = sharding.stored_shapes(placed["reference"], task.devices, run=True)

  def read(params, rows):
    return play.algorithm.keep(play.model, params, rows, play.temperature)

  found["reference"] = (jax.jit(read), placed, rows)
  if training.experiment.host is None:
    found["update"] = (compiled.update, state, rows)
  return found


def _first():
  """Randomness and step; neither a shape nor a time depends on them."""
  return jax.random.key(0), jnp.int32(0)


def _writing(play, devices, sets, batch) -> dict[str, programs.Program]:
  """Prefill, and one token of every row."""
  lanes = play_lib.algorithms_lanes(play, 0).all
  names = {name for lane in lanes for name in lane}
  found = []

  def ready(sets):
    used = play.ready(play.opponent.sets(sets, *_first()), names)
    found.append(Once.of(used))
    return used

  used = jax.eval_shape(ready, sets)
  used = sharding.stored_shapes(used, devices, run=True)
  once = found[0]

  def prefill(sets, batch):
    used = ready(sets)
    return once.split(used), sampling.begin(
      play.model,
      used,
      lanes,
      prompts=batch["prompts"],
      prompt_mask=batch["prompts_mask"],
      max_response=play.max_response,
      script=turns.script(batch),
    )

  def decode(arrays, decoding, example_ids):
    return sampling.advance(
      play.model,
      once.join(arrays),
      lanes,
      decoding,
      keys=sampling.row_keys(_first()[0], example_ids, len(lanes)),
      max_response=play.max_response,
      temperature=play.temperature,
      eos_ids=play.eos_ids,
      choose=sampling.sample,
    )

  _, decoding = jax.eval_shape(prefill, sets, batch)
  decoding = sampling.Decoding(
    step=sharding.stored_shapes(decoding.step, devices),
    fed=programs.by_rows(decoding.fed, devices),
    alive=programs.by_rows(decoding.alive, devices),
    caches=sharding.stored_shapes(decoding.caches, devices),
    written=programs.by_rows(decoding.written, devices),
    script=programs.by_rows(decoding.script, devices),
  )
  arrays = once.split(used)
  places = jax.tree.map(lambda x: x.sharding, (arrays, decoding))
  step = jax.jit(decode, donate_argnums=1, out_shardings=places[1])
  return {
    "prefill": (jax.jit(prefill, out_shardings=places), sets, batch),
    "decode": (step, arrays, decoding, batch["example_ids"]),
  }


class Once(NamedTuple):
  """How a tree is made of its distinct arrays.

  Adapters of one base are such a tree: passed whole, the base would count as
  often as there are sets.

  Attributes:
    structure: of the tree.
    index: of the array in each place.
    first: places that hold an array for the first time.
  """

  structure: Any
  index: Sequence[int]
  first: Sequence[int]

  @classmethod
  def of(cls, tree: Any) -> "Once":
    """Of a tree under trace."""
    leaves, structure = jax.tree.flatten(tree)
    ids = list(dict.fromkeys(map(id, leaves)))
    index = [ids.index(id(leaf)) for leaf in leaves]
    return cls(structure, index, [index.index(i) for i in range(len(ids))])

  def split(self, tree: Any) -> list[Any]:
    """The distinct arrays of a tree."""
    leaves = jax.tree.leaves(tree)
    return [leaves[place] for place in self.first]

  def join(self, arrays: Sequence[Any]) -> Any:
    """The tree of its distinct arrays."""
    return jax.tree.unflatten(self.structure, [arrays[i] for i in self.index])


def _judging(config, task, run, sets) -> programs.Program:
  """The judge's answers on one batch of responses."""
  play, batch = run.play, run.training.batch
  lanes = play_lib.algorithms_lanes(play, 0)
  own = len(lanes.own)
  i, j = play.algorithm.way.asks(own, len(lanes.other))
  if lanes.voters:
    i, j = np.append([i, j], play_lib.voting(lanes), axis=1)
  apart = np.split(i, [own]) if j is None else [i]
  section = settings.run_section(config, run.name)
  read = set(judging.stages_of(config, [section.judge], setting="nash.judge"))
  read |= {
    task_lib.BASES[judge_templates.base_section(config, one)] for one in read
  }

  def judge(sets, batch, written):
    asked = play.judge(sets)
    return [
      play_lib.ask(asked, _first()[0], batch, written, part, j)
      for part in apart
      if len(part)
    ]

  script = jax.eval_shape(turns.script, batch)
  size = turns.width(play.max_response, script)
  shape = (batch["prompts"].shape[0], len(lanes.all), size)
  written = tuple(
    jax.ShapeDtypeStruct(shape, dtype) for dtype in (jnp.int32, jnp.bool)
  )
  return (
    jax.jit(judge),
    {name: params for name, params in sets.items() if name in read},
    batch,
    programs.by_rows(written, task.devices),
  )
