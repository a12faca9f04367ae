"""Steps of the stages at a tiny size, on any layout of the test's devices."""

import functools
import pathlib

import jax
import ml_collections
import numpy as np

from configs import docstrings
from nashmd_jax import sampling
from nashmd_jax.capacity import compiled, programs
from nashmd_jax.nash import settings
from nashmd_jax.stages import nash, sft
from nashmd_jax.training import followers, loop, optimizer, sharding
from nashmd_jax.training import programs as programs_lib
from nashmd_jax.training import step as step_lib

ROWS, PROMPT, VOCAB = 8, 8, 64
LANES = [{"policy": 1.0}, {"policy": 0.5, "reference": 0.5}]
BLOCK = 128  # of the vocabulary, in which the sampler adds up
SIZES = {
  "t5": dict(
    family="t5", width=16, num_heads=2, head_dim=4, mlp_dim=32,
    encoder_layers=2, decoder_layers=2, num_buckets=8, max_distance=16,
  ),
  "gemma2": dict(
    family="gemma2", width=16, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=4, mlp_dim=32, rope_base=1e4, window=8,
  ),
  "qwen2": dict(
    family="qwen2", width=16, num_layers=2, num_heads=4, num_kv_heads=2,
    head_dim=4, mlp_dim=32, rope_base=1e4,
  ),
}  # fmt: skip


def devices(count: int = 1, **changes) -> sharding.Devices:
  settings = dict(
    mode="jit", model=1, fsdp=False, smallest=1,
    run_dtype="float32", frozen_dtype="float32",
  )  # fmt: skip
  return sharding.make_devices(jax.devices()[:count], **(settings | changes))


def config(family: str) -> ml_collections.ConfigDict:
  """The tiny config with a family's sizes and a step worth taking."""
  made = docstrings.get_config("tiny").copy_and_resolve_references()
  with made.unlocked():
    made.model = {"pretrained": None} | SIZES[family]
    made.tokenizer.vocab_size = VOCAB
    for section in (made.sft, made.nash):
      section.optimizer.update({"warmup_steps": 0, "decay_steps": 0})
  return made


def batches(count: int) -> list[dict[str, np.ndarray]]:
  rng = np.random.default_rng(0)

  def tokens(width):
    lengths = rng.integers(1, width + 1, size=(ROWS, 1))
    return rng.integers(1, VOCAB, (ROWS, width)), np.arange(width) < lengths

  made = []
  for number in range(count):
    prompts, responses = tokens(PROMPT), tokens(8)
    made.append({
      "example_ids": np.arange(ROWS, dtype=np.int32) + number * ROWS,
      "prompts": prompts[0].astype(np.int32),
      "prompts_mask": prompts[1],
      "responses": responses[0].astype(np.int32),
      "responses_mask": responses[1],
      "real": np.ones(ROWS, bool),
    })  # fmt: skip
  return made


def experiment(stage, made, task) -> step_lib.Experiment:
  """The stage's, from random parameters that depend on their name alone.

  Beside what the stage asks for, a moving average follows the policy.
  """
  if stage == "sft":
    built = sft.make_experiment(task, **made.sft.data)
  else:
    section = settings.run_section(made, "nash_md")
    built = nash.make_experiment(made, task, section, pathlib.Path())

  def init(rng):
    return task.model.init(rng), {
      "reference": task.model.init(jax.random.key(1)),
      "preference": task.judge_model.init(jax.random.key(2)),
    }

  average = followers.moving_average(decay=0.9)
  return built._replace(init=init, followers={"ema": average})


def make_step(
  stage: str, family: str, places: sharding.Devices, micro_batches: int
):
  """The state at step 0 and the compiled step, of batches on the host."""
  made = config(family)
  task = programs.stand_in_task(made, places)
  built = experiment(stage, made, task)
  tx = optimizer.make_optimizer(**made[stage].optimizer)
  start = loop.make_first_state(built, tx, devices=places)
  state = sharding.store(places, start, *built.init(jax.random.key(0)))
  make = functools.partial(
    step_lib.make_programs, built, tx,
    seed=0, updates_per_rollout=1, micro_batches=micro_batches,
  )  # fmt: skip
  return state, programs_lib.compile_step(places, make, state, host=built.host)


@functools.cache
def five_steps(stage: str, family: str, micro_batches: int = 1, **layout):
  """The state after five steps, on the host."""
  state, step = make_step(stage, family, devices(**layout), micro_batches)
  for batch in batches(5):
    state, _ = step(state, batch)
  return jax.device_get(state)


@functools.cache
def roll(family: str, placed: bool = True, **layout):
  """Responses in two lanes on a layout, and the collectives of the program."""
  places = devices(**layout)
  task = programs.stand_in_task(config(family), places)

  def written(sets, batch):
    return sampling.rollout(
      task.model,
      task.ready(sets, sets) if placed else sets,
      LANES,
      prompts=batch["prompts"],
      prompt_mask=batch["prompts_mask"],
      keys=sampling.row_keys(
        jax.random.key(3), batch["example_ids"], len(LANES)
      ),
      max_response=8,
      temperature=1.0,
      eos_ids=(1,),
    )

  def init():
    return {
      name: task.model.init(jax.random.key(number))
      for number, name in enumerate(("policy", "reference"))
    }

  sets = sharding.store(places, init)
  batch = sharding.shard_batch(batches(1)[0], places.mesh)
  program = jax.jit(written).lower(sets, batch).compile()
  found = compiled.find_collectives(program.as_text())
  return jax.device_get(program(sets, batch)), found


def in_decode_loop(found) -> list[compiled.Collective]:
  """Of the collectives, those that run for every token."""
  return [one for one in found if one.in_loop and "prefill" not in one.origin]


def beside_the_sampler(
  found, places: sharding.Devices
) -> list[compiled.Collective]:
  """Of the gathers in the decode loop, those of more than the sampler needs.

  It sees the whole vocabulary of the rows that a device has, [rows, V]; no
  parameter has that shape.
  """
  rows = ROWS // places.mesh.shape["data"] * len(LANES)

  def is_the_samplers(shape):
    *before, last = shape
    return last in (VOCAB, BLOCK) and np.prod(before, dtype=int) == rows

  return [
    one
    for one in in_decode_loop(found)
    if one.kind == "all-gather" and not is_the_samplers(one.shape)
  ]
