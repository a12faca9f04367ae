"""Our side of `make bench` where nobody stands beside it.

Rollouts in other forms, ends that are planted, a gradient, and what the
compiler says of the programs of a step.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import numpy as np

from figures import bench_ours, bench_sizes
from nashmd_jax import policy as policy_lib
from nashmd_jax import sampling
from nashmd_jax.capacity import compiled, parts
from nashmd_jax.capacity import programs as capacity
from nashmd_jax.stages import sft
from nashmd_jax.training import sharding
from nashmd_jax.training import step as step_lib

LANES = bench_ours.LANES
# Of the row on memory: a large vocabulary on a small decoder.
LARGE = bench_sizes.decoder(256_000, 256, 4)


def separate(
  policy: str, reference: str, prompts: list[list[int]]
) -> Callable[[], int]:
  """y and y′ by a rollout each: of the policy, then of both for the mixture."""
  side = _side(policy, reference, prompts)
  rolls = [
    bench_ours.make_roll(
      side.task,
      [lane],
      choose=sampling.sample,
      eos_ids=side.task.tokenizer.eos_ids,
    )
    for lane in LANES.values()
  ]
  batch = bench_ours.make_batch(side.task, prompts)
  return lambda: sum(int(roll(side.sets, batch).mask.sum()) for roll in rolls)


def ends(
  policy: str, reference: str, prompts: list[list[int]], planted: bool
) -> Callable[[], int]:
  """Responses that end at a third of the bucket on average, or none does.

  Each token is the end with the same small probability, whatever the model
  says, so lengths are geometric.

  Args:
    planted: whether that token ends a response.
  Returns: () -> the tokens written.
  """
  side = _side(policy, reference, prompts)
  # Cut at the bucket, lengths of this rate have its third as their mean.
  rate = 2.75 / bench_sizes.NEW_TOKENS

  def choose(key, log_probs):
    end_key, key = jax.random.split(key)
    token = sampling.sample(key, log_probs)
    ended = jax.random.bernoulli(end_key, rate)
    return jax.numpy.where(ended, bench_ours.END, token)

  roll = bench_ours.make_roll(
    side.task,
    [LANES["policy"]],
    choose=choose,
    eos_ids=(bench_ours.END,) if planted else side.task.tokenizer.eos_ids,
  )
  batch = bench_ours.make_batch(side.task, prompts)
  return lambda: int(roll(side.sets, batch).mask.sum())


def gradient(
  policy: str, reference: str, prompts: list[list[int]]
) -> Callable[[], float]:
  """Forward and backward of every token but the first, as stage sft does it.

  Returns: () -> floating-point operations of its matrix products.
  """
  side = bench_ours.make_side(
    policy, reference, prompt=1, new_tokens=len(prompts[0]) - 1
  )
  task, experiment = (
    side.task,
    sft.make_experiment(side.task, **side.config.sft.data),
  )
  batch = bench_ours.make_batch(task, [ids[:1] for ids in prompts])
  responses = np.array(prompts, np.int32)[:, 1:]
  batch |= {
    "responses": responses,
    "responses_mask": responses >= 0,
    "responses_cut": np.zeros(len(prompts), bool),
  }
  slope = jax.jit(
    step_lib.make_gradient(
      experiment.loss, micro_batches=1, reduce=lambda tree: tree
    )
  )
  arguments = (
    side.sets["policy"],
    {},
    sharding.shard_batch(batch, task.devices.mesh),
    jax.random.key(0),
  )
  flops = compiled.product_flops(slope.trace(*arguments).jaxpr.jaxpr)

  def run():
    jax.block_until_ready(slope(*arguments))
    return flops

  return run


def costs(
  policy: str, reference: str, prompts: list[list[int]]
) -> Callable[[], dict[str, dict[str, float]]]:
  """Of each part of a step, one of them a token of decode, what must be done.

  Returns: () -> by part "flops" of its matrix products, scans counted whole,
    and "bytes" that it is given.
  """
  del reference
  config = bench_ours.make_config(
    policy, prompt=len(prompts[0]), new_tokens=bench_sizes.NEW_TOKENS
  )
  config.nash.data.batch_size = len(prompts)

  def run():
    return {
      name: {
        "flops": compiled.product_flops(function.trace(*given).jaxpr.jaxpr),
        "bytes": compiled.argument_bytes(given),
      }
      for name, (function, *given) in _parts(config).items()
    }

  return run


def memory(batch: int) -> Callable[[], dict[str, int]]:
  """Bytes that the update needs beside its arguments, at a large vocabulary.

  Returns: () -> "chunked", as it is, and "whole", with all logits at once.
  """
  config = bench_ours.make_config(
    None, prompt=64, new_tokens=bench_sizes.NEW_TOKENS
  )
  config.model = {"pretrained": None, **LARGE}
  config.tokenizer.vocab_size = LARGE["vocab_size"]
  del config.model.vocab_size
  config.nash.data.batch_size = batch

  def needs():
    function, *arguments = _parts(config)["update"]
    program = function.trace(*arguments).lower().compile()
    return program.memory_analysis().temp_size_in_bytes

  def run():
    chunked = needs()
    with mock.patch.object(policy_lib, "AT_ONCE", 2**62):
      return {"chunked": chunked, "whole": needs()}

  return run


def _side(policy, reference, prompts) -> bench_ours.Side:
  return bench_ours.make_side(
    policy,
    reference,
    prompt=len(prompts[0]),
    new_tokens=bench_sizes.NEW_TOKENS,
  )


def _parts(config) -> dict[str, capacity.Program]:
  """The parts of a step of the run."""
  config.tournament.policies = ("sft", bench_ours.RUN)
  config.tournament.judges = ()
  task = capacity.stand_in_task(config, sharding.make_devices(**config.devices))
  (run,) = capacity.distinct_runs(config, task)
  return parts.of_step(config, task, run)


PIECES: dict[str, Any] = {
  "separate": separate,
  "ends": ends,
  "gradient": gradient,
  "costs": costs,
  "memory": memory,
}
