"""Every training program of a run on text, from the shapes of its config.

No weights and no data are needed, and no device that can compute.
"""

from collections.abc import Callable, Hashable, Mapping
import functools
import pathlib
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import ml_collections

from nashmd_jax import mistakes, texts, tokenization
from nashmd_jax import task as task_lib
from nashmd_jax.data import batches, conversations, messages
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import pretrained
from nashmd_jax.nash import play as play_lib
from nashmd_jax.nash import settings
from nashmd_jax.stages import judge_templates, judging, nash, preference, sft
from nashmd_jax.training import loop, optimizer, sharding, writers
from nashmd_jax.training import programs as programs_lib
from nashmd_jax.training import state as state_lib
from nashmd_jax.training import step as step_lib

Config = ml_collections.ConfigDict
Program = tuple[Callable, ...]
WHERE = pathlib.Path()  # of a run that nothing is read from


class Training(NamedTuple):
  """How one stage trains.

  Attributes:
    experiment: of the stage.
    compiled: its programs, jitted.
    state: shapes at the start.
    batch: shapes of a batch at its widest.
  """

  experiment: step_lib.Experiment
  compiled: programs_lib.Compiled
  state: state_lib.TrainState
  batch: Mapping[str, jax.ShapeDtypeStruct]


class Run(NamedTuple):
  """A run of `nash`, and those that differ from it in numbers alone.

  Attributes:
    name: of the first.
    also: of the others.
    play: what is played.
    training: how it trains.
  """

  name: str
  also: list[str]
  play: play_lib.Play
  training: Training


def stand_in_task(config: Config, devices: sharding.Devices) -> task_lib.Task:
  """A task of the config's sizes that needs neither data nor tokenizer."""
  tokenizer = _stand_in_tokenizer(config)
  made = {
    section: pretrained.architecture(
      config, section, vocab_size=config.tokenizer.vocab_size
    )
    for section in pretrained.SECTIONS
  }
  widths = {
    "max_prompt": config.layout.prompt_buckets[-1],
    "max_response": config.layout.max_response,
  }
  said = "word " * widths["max_response"]
  record = {
    "id": "0",
    "prompt": "word " * widths["max_prompt"],
    "response": said,
    "label": 1.0,
  }
  if config.turns.most > 1:
    answer, asks = (
      {"role": role, "content": content}
      for role, content in (("assistant", said), ("user", "word"))
    )
    record["turns"] = [answer, *[asks, answer] * (config.turns.most - 1)]
  return task_lib.Task(
    splits=dict.fromkeys(texts.SPLITS, [record]),
    tokenizer=tokenizer,
    **task_lib.make_models(made, devices),
    starts={name: pretrained.Start(one, None) for name, one in made.items()},
    encode=functools.partial(
      batches.encode_record,
      tokenizer=tokenizer,
      chat=_stand_in_chat(config),
      turns=conversations.Turns(**config.turns),
      **widths,
    ),
    pad=task_lib.make_pad(config),
    max_response=widths["max_response"],
    lora=task_lib.Lora(**config.lora),
    devices=devices,
    seed=config.seed,
    log=writers.NOWHERE,
  )


def _stand_in_tokenizer(config: Config) -> tokenizer_lib.Tokenizer:
  """A token for each special token, and for each word between them."""
  special = tuple(config.tokenizer.special_tokens)
  marks = "|".join(map(re.escape, special))
  pattern = re.compile(rf"({marks}|\s+)" if special else r"(\s+)")
  ids = {name: number for number, name in enumerate(special, start=1)}

  def encode(text):
    pieces = [piece for piece in pattern.split(text) if piece.strip()]
    return [ids.setdefault(piece, len(ids) + 1) for piece in pieces]

  return tokenizer_lib.Tokenizer(
    encode=encode,
    encode_marked=encode,
    decode=str,
    eos_ids=(0,),
    start_ids=(),
    close_ids=(),
    vocab_size=config.tokenizer.vocab_size,
    special_ids=tuple(range(1, len(special) + 1)),
  )


def _stand_in_chat(config: Config) -> messages.Chat | None:
  """A chat that fills the whole prompt, where the run has one."""
  if tokenization.load_chat(config, "model") is None:
    return None

  def render(turns, begun):
    del begun
    return " ".join(turn["content"] for turn in turns)

  return messages.Chat(render, system=None, user=messages.PLACE)


def _comparisons(task: task_lib.Task) -> dict[str, list[dict]]:
  record = task.splits["train"][0]
  compared = {
    "prompt": record["prompt"],
    "response_a": record["response"],
    "response_b": record["response"],
    "prob_a": 1.0,
  }
  return dict.fromkeys(texts.JUDGED, [compared])


def by_rows(tree: Any, devices: sharding.Devices) -> Any:
  """Shapes of arrays that are split by rows."""
  place = NamedSharding(devices.mesh, P("data"))
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree
  )


def _bases(task: task_lib.Task, *sections: str) -> dict[str, Any]:
  """Shapes of `task.bases`."""
  if not task.lora.rank:
    return {}
  return {
    task_lib.BASES[section]: jax.eval_shape(
      getattr(task, section).init, jax.random.key(0)
    )
    for section in sections
  }


def _training(
  config: Config,
  task: task_lib.Task,
  section: Config,
  experiment: step_lib.Experiment,
  start: tuple[Any, Mapping[str, Any]],
  *,
  updates_per_rollout: int = 1,
) -> Training:
  """How a section trains; `start` are the shapes of `experiment.init`."""
  made = experiment.optimizer(optimizer.make_optimizer(**section.optimizer))
  make = loop.make_first_state(experiment, made, devices=task.devices)
  state = sharding.stored_shapes(jax.eval_shape(make, *start), task.devices)
  compiled = programs_lib.compile_programs(
    task.devices,
    functools.partial(
      step_lib.make_programs,
      experiment,
      made,
      seed=config.seed,
      updates_per_rollout=updates_per_rollout,
      micro_batches=section.train.micro_batches,
    ),
    state,
  )
  batch = by_rows(next(experiment.batches()), task.devices)
  return Training(experiment, compiled, state, batch)


def sft_training(config: Config, task: task_lib.Task) -> Training:
  """How stage `sft` trains."""
  return _training(
    config,
    task,
    config.sft,
    sft.make_experiment(task, **config.sft.data),
    (task_lib.trained_shapes(task, "model"), _bases(task, "model")),
  )


def judge_training(config: Config, task: task_lib.Task, kind: str) -> Training:
  """How stage `preference` or `reward` trains."""
  part = judge_templates.base_section(config, kind)
  return _training(
    config,
    task,
    config[kind],
    preference.make_experiment(config, task, kind, _comparisons(task), WHERE),
    (task_lib.trained_shapes(task, part), _bases(task, part)),
  )


def nash_training(config: Config, task: task_lib.Task, name: str) -> Training:
  """How a run of stage `nash` trains."""
  section = settings.run_section(config, name)
  policy = task_lib.trained_shapes(task, "model")
  named = [section.judge, *section.watch]
  stages = judging.stages_of(config, named, setting="nash.watch")
  parts = {
    stage: judge_templates.base_section(config, stage) for stage in stages
  }
  frozen = {
    **_bases(task, *{"model", *parts.values()}),
    **{
      stage: task_lib.trained_shapes(task, part)
      for stage, part in parts.items()
    },
    "reference": policy,
  }
  frozen |= dict.fromkeys(settings.played(section), policy)
  compared = _comparisons(task) if settings.compares(section) else None
  return _training(
    config,
    task,
    section,
    nash.make_experiment(config, task, section, WHERE, compared),
    (policy, frozen),
    updates_per_rollout=section.updates_per_rollout,
  )


def distinct_runs(config: Config, task: task_lib.Task) -> list[Run]:
  """The runs that are trained; those of one program are one."""
  found: dict[Hashable, Run] = {}
  for name in judging.trained_runs(config):
    section = settings.run_section(config, name)
    play = nash.make_play(config, task, section)
    training = nash_training(config, task, name)
    alike = _what_decides(section, play, training)
    run = found.setdefault(alike, Run(name, [], play, training))
    if run.name != name:
      run.also.append(name)
  return list(found.values())


def _what_decides(
  section: Config, play: play_lib.Play, training: Training
) -> Hashable:
  """What makes a program but for the numbers in it, such as β or τ."""
  named = (
    *("judge", "judge_ahead", "samples", "opponent", "loss"),
    *("updates_per_rollout", "design", "orders"),
  )
  lanes = play_lib.algorithms_lanes(play, 0)
  leaves, tree = jax.tree.flatten((training.state, training.batch))
  return (
    *(section[name] for name in named),
    (section.optimizer.name, section.train.micro_batches),
    tuple(sorted(play.held)),
    tuple(
      tuple(sorted(name for name, weight in lane.items() if _is_run(weight)))
      for lane in lanes.all
    ),
    (tree, tuple((x.shape, x.dtype) for x in leaves)),
  )


def _is_run(weight: float | jax.Array) -> bool:
  """Whether a set of this weight is run; a β on a schedule always is."""
  return isinstance(weight, jax.Array) or weight != 0


def all_programs(
  config: Config, task: task_lib.Task, runs: list[Run]
) -> dict[str, Program]:
  """(jitted function, shapes of its arguments) of every program, by name.

  The largest first: what does not fit is known soon.

  Args:
    config: checked.
    task: see `stand_in_task`.
    runs: see `distinct_runs`.
  Raises: Mistake for a mode of which nothing is compiled ahead.
  """
  if task.devices.mode != "jit":
    raise mistakes.Mistake(
      f"devices.mode: got {task.devices.mode!r}, of which pod_check compiles "
      "nothing; set it to 'jit'"
    )
  found = {}
  for run in runs:
    found |= _steps(run, task.devices)
  for kind in judging.wanted(config):
    made = judge_training(config, task, kind)
    found[kind] = (made.compiled.step, made.state, made.batch)
  made = sft_training(config, task)
  return found | {"sft": (made.compiled.step, made.state, made.batch)}


def names(run: Run) -> list[str]:
  """The programs of a step: one, or two around a judge on the host."""
  name = f"{nash.NAME}/{run.name}"
  if run.training.experiment.host is None:
    return [name]
  return [f"{name} rollout", f"{name} update"]


def _steps(run: Run, devices: sharding.Devices) -> dict[str, Program]:
  """A step as it is run, by `names`."""
  experiment, compiled, state, batch = run.training
  if experiment.host is None:
    found = [(compiled.step, state, batch)]
  else:
    found = [
      (compiled.rollout, state, batch),
      (compiled.update, state, rows(run, devices)),
    ]
  return dict(zip(names(run), found, strict=True))


def rows(run: Run, devices: sharding.Devices) -> dict[str, Any]:
  """Shapes of what an update reads: of the rollout, and of the host."""
  experiment, compiled, state, batch = run.training
  found = dict(jax.eval_shape(compiled.rollout, state, batch))
  if experiment.host is not None:
    lanes = play_lib.algorithms_lanes(run.play, 0)
    i, _ = run.play.algorithm.way.asks(len(lanes.own), len(lanes.other))
    asked = (len(found["example_ids"]), len(i))
    found |= {
      "answers": jax.ShapeDtypeStruct(asked, jnp.float32),
      "judged": jax.ShapeDtypeStruct(asked, bool),
      **{
        name: jax.ShapeDtypeStruct(asked[:1], jnp.float32)
        for name in experiment.host.tells
      },
    }
  return by_rows(found, devices)
