"""Every program of a run on text, from the shapes of its config alone.

No weights and no data are needed, and no device that can compute.
"""

from collections.abc import Callable
import functools
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nashmd_jax import pipeline, sampling, texts
from nashmd_jax import task as task_lib
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import pretrained
from nashmd_jax.judges import preference_model
from nashmd_jax.nash import play as game_lib
from nashmd_jax.stages import nash, preference, sft
from nashmd_jax.training import loop, sharding
from nashmd_jax.training import optimizer as optimizer_lib
from nashmd_jax.training import state as state_lib

# As many records as no batch needs: they are counted, never read.
RECORDS = range(2**20)


def stand_in_task(
  config: pipeline.Config, devices: sharding.Devices
) -> task_lib.Task:
  """A task of the config's sizes that needs neither data nor tokenizer."""
  names = config.tokenizer.special_tokens
  special = {name: number for number, name in enumerate(names, start=1)}
  marks = "|".join(map(re.escape, special))

  def encode(text):
    pieces = re.findall(f"{marks}|\\S+" if marks else r"\S+", text)
    return [special.get(piece, len(special) + 1) for piece in pieces]

  architectures = {
    section: pretrained.architecture(
      config, section, vocab_size=config.tokenizer.vocab_size
    )
    for section in pretrained.SECTIONS
  }
  return task_lib.Task(
    splits=dict.fromkeys(texts.SPLITS, RECORDS),
    tokenizer=tokenizer_lib.Tokenizer(
      encode=encode,
      decode=str,
      eos_id=len(special) + 2,
      start_ids=(),
      vocab_size=config.tokenizer.vocab_size,
      special_ids=tuple(special.values()),
    ),
    **task_lib.make_models(architectures),
    starts={
      name: pretrained.Start(made, None) for name, made in architectures.items()
    },
    encode=encode,
    pad=list,
    max_response=config.layout.max_response,
    templates={
      kind: preference_model.make_template(
        encode, slots, barred=tuple(special.values()), **config[kind].template
      )
      for kind, slots in task_lib.SLOTS.items()
    },
    devices=devices,
  )


def on_mesh(tree: Any, places: Any) -> Any:
  """Shapes with the given shardings."""
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    tree,
    places,
  )


def _stored(tree, devices, *, run=False):
  return on_mesh(tree, sharding.shardings(tree, devices, run=run))


def _rows(tree, devices):
  """Shapes of a batch, split by rows."""
  place = NamedSharding(devices.mesh, P("data"))
  return on_mesh(tree, jax.tree.map(lambda _: place, tree))


def _batch(config, batch_size, **columns):
  """Shapes of a batch at the longest bucket; columns are named by width."""
  widths = {"prompts": config.layout.prompt_buckets[-1], **columns}
  batch = {"example_ids": jax.ShapeDtypeStruct((batch_size,), jnp.int32)}
  for name, width in widths.items():
    tokens = jax.ShapeDtypeStruct((batch_size, width), jnp.int32)
    batch[name] = tokens
    batch[name + "_mask"] = jax.ShapeDtypeStruct(tokens.shape, bool)
  return batch


def _training(
  task, config, section, experiment, params, frozen, batch, updates_per_rollout
):
  """A whole training step and the shapes of its arguments."""
  optimizer = optimizer_lib.make_optimizer(**section.optimizer)
  ema_decay = section.train.ema_decay
  make = loop.make_first_state(
    experiment, optimizer, devices=task.devices, ema_decay=ema_decay
  )
  state = _stored(jax.eval_shape(make, params, frozen), task.devices)
  step = sharding.compile_step(
    task.devices,
    functools.partial(
      loop.make_train_step,
      experiment,
      optimizer,
      seed=config.seed,
      ema_decay=ema_decay,
      updates_per_rollout=updates_per_rollout,
    ),
    state,
  )
  return step, state, _rows(batch, task.devices)


def all_programs(
  config: pipeline.Config, task: task_lib.Task
) -> dict[str, tuple[Callable, ...]]:
  """(jitted function, shapes of its arguments) of every program, by name."""
  params = jax.eval_shape(task.model.init, jax.random.key(0))
  judge = jax.eval_shape(task.judge_model.init, jax.random.key(0))
  width = config.layout.max_response
  found = {
    "sft": _training(
      task,
      config,
      config.sft,
      sft.make_experiment(task, seed=config.seed, **config.sft.data),
      params,
      {},
      _batch(config, config.sft.data.batch_size, responses=width),
      updates_per_rollout=1,
    )
  }
  section = config.preference
  batch = _batch(
    config, section.data.batch_size, responses_a=width, responses_b=width
  )
  batch["prob_a"] = jax.ShapeDtypeStruct(
    (section.data.batch_size,), jnp.float32
  )
  found["preference"] = _training(
    task,
    config,
    section,
    preference.make_experiment(
      task,
      "preference",
      dict.fromkeys(texts.SPLITS, RECORDS),
      start=None,
      seed=config.seed,
      **section.data,
    ),
    judge,
    {},
    batch,
    updates_per_rollout=1,
  )
  # The largest first: what does not fit is known soon.
  return _nash_programs(config, task, params, judge) | found


def _nash_programs(config, task, params, judge):
  """The step of nash whole, and its parts, each fed by the one before."""
  name = next(n for n in config.tournament.policies if n in config.nash.runs)
  section, seed = nash.run_section(config, name), config.seed
  game = nash.make_game(task, section)
  experiment = nash.experiment_of(task, section, pathlib.Path(), seed=seed)
  train = functools.partial(
    _training,
    task,
    config,
    section,
    params=params,
    frozen={"reference": params, "judge": judge},
    updates_per_rollout=section.updates_per_rollout,
  )
  whole = train(experiment, batch=_batch(config, section.data.batch_size))
  _, state, batch = whole
  sets = state_lib.params_by_name(state)
  rows = jax.eval_shape(experiment.rollout, sets, batch, *_first())
  rows = _rows(rows, task.devices)
  reference = jax.eval_shape(game.place, sets["reference"])
  taught = experiment._replace(rollout=lambda sets, batch, rng, step: batch)
  return {
    "nash": whole,
    **_writing(game, task.devices, sets, batch),
    "judge": _judging(game, task.devices, sets, batch),
    "reference": (
      jax.jit(functools.partial(game_lib.read, game)),
      _stored(reference, task.devices, run=True),
      rows,
    ),
    "update": train(taught, batch=rows),
  }


def _first():
  """Randomness and step; neither a shape nor a time depends on them."""
  return jax.random.key(0), jnp.int32(0)


def _lanes(game):
  return game.rule.lanes(game.opponent.lane(0), game.samples)


def _writing(game, devices, sets, batch):
  """Prefill, and one token of every row."""
  own, other = _lanes(game)
  lanes = [*own, *other]

  def prefill(sets, batch):
    placed = game.place(game.opponent.sets(sets, *_first()))
    used = {name: placed[name] for lane in lanes for name in lane}
    return used, sampling.begin(
      game.model,
      used,
      lanes,
      prompts=batch["prompts"],
      prompt_mask=batch["prompts_mask"],
      max_response=game.max_response,
    )

  def decode(used, decoding, example_ids):
    return sampling.advance(
      game.model,
      used,
      lanes,
      decoding,
      keys=sampling.row_keys(_first()[0], example_ids, len(lanes)),
      temperature=game.temperature,
      eos_id=game.eos_id,
      choose=sampling.sample,
    )

  used, decoding = jax.eval_shape(prefill, sets, batch)
  used = _stored(used, devices, run=True)
  decoding = sampling.Decoding(
    step=_stored(decoding.step, devices),
    fed=_rows(decoding.fed, devices),
    alive=_rows(decoding.alive, devices),
    caches=_stored(decoding.caches, devices),
    written=_rows(decoding.written, devices),
  )
  places = jax.tree.map(lambda x: x.sharding, (used, decoding))
  step = jax.jit(decode, donate_argnums=1, out_shardings=places[1])
  return {
    "prefill": (jax.jit(prefill, out_shardings=places), sets, batch),
    "decode": (step, used, decoding, batch["example_ids"]),
  }


def _judging(game, devices, sets, batch):
  """The judge's scores of one batch of responses."""

  def judge(sets, batch, responses, others):
    return game.rule.score(
      game.judge(game.place(sets)), _first()[0], batch, responses, others
    )

  def written(lanes):
    shape = (batch["prompts"].shape[0], len(lanes), game.max_response)
    segment = (
      jax.ShapeDtypeStruct(shape, dtype) for dtype in (jnp.int32, jnp.bool)
    )
    return _rows(tuple(segment), devices)

  responses, others = map(written, _lanes(game))
  return jax.jit(judge), {"judge": sets["judge"]}, batch, responses, others
