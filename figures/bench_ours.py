"""Our side of `make bench`: a decode and a training step, as they are run.

What a run reads of its data is stood in for; models, play, optimizer and the
compiled step are those of stage `nash`.
"""

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

from etils import epath
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import docstrings
from figures import bench_sizes
from nashmd_jax import models, sampling
from nashmd_jax import task as task_lib
from nashmd_jax.capacity import programs as capacity
from nashmd_jax.data import batches
from nashmd_jax.hub import folders, pretrained
from nashmd_jax.nash import settings
from nashmd_jax.stages import nash
from nashmd_jax.training import loop, optimizer, programs, sharding
from nashmd_jax.training import metrics as metrics_lib
from nashmd_jax.training import step as step_lib

RUN = "nash_md"
LANES: dict[str, sampling.Lane] = {
  "policy": {"policy": 1.0},
  "mixture": {
    "policy": 1.0 - bench_sizes.MIXTURE,
    "reference": bench_sizes.MIXTURE,
  },
}
# What ends a response where the work asks for it; no text has a meaning.
END = 1


class Side(NamedTuple):
  """What a run has that starts in one of the folders.

  Attributes:
    config: whole.
    task: its model is that of the folders; nothing ends a response.
    sets: "policy" and "reference", as they are stored.
  """

  config: ml_collections.ConfigDict
  task: task_lib.Task
  sets: dict[str, Any]


def judge(keys, prompts, responses, opponents):
  """P(y ≻ y′), a token judge that costs nothing; see `bench_sizes.SPREAD`."""
  del keys, prompts
  own, other = (
    jnp.sum(jnp.where(mask, tokens, 0), axis=1) / jnp.sum(mask, axis=1)
    for tokens, mask in (responses, opponents)
  )
  return jax.nn.sigmoid((own - other) / bench_sizes.SPREAD)


def make_config(
  place: str | None, *, prompt: int, new_tokens: int
) -> ml_collections.ConfigDict:
  """The docstrings' run, from another folder and at other sizes.

  Args:
    place: the folder; None for sizes that the caller gives.
    prompt: P, tokens.
    new_tokens: R.
  """
  config = docstrings.get_config().unlock()
  config.model = {"pretrained": place}
  config.layout = {"prompt_buckets": (prompt,), "max_response": new_tokens}
  config.nash.update(
    judge="figures.bench_ours:judge",
    watch=(),
    mixture=bench_sizes.MIXTURE,
    mixture_end=bench_sizes.MIXTURE,
    kl_coef=bench_sizes.KL_COEF,
    temperature=bench_sizes.TEMPERATURE,
  )
  b1, b2 = bench_sizes.BETAS
  config.nash.optimizer.update(
    name="adamw",
    learning_rate=bench_sizes.LEARNING_RATE,
    warmup_steps=0,
    decay_steps=0,
    max_grad_norm=bench_sizes.MAX_NORM,
    b1=b1,
    b2=b2,
    weight_decay=bench_sizes.WEIGHT_DECAY,
  )
  config.nash.runs = {RUN: {}}
  return config


def make_side(
  policy: str,
  reference: str,
  *,
  prompt: int,
  new_tokens: int,
  run_dtype: str = "float32",
) -> Side:
  """A run from two folders of one architecture.

  Args:
    policy, reference: the folders.
    prompt: P, tokens.
    new_tokens: R.
    run_dtype: see `sharding.SETTINGS`.
  """
  config = make_config(policy, prompt=prompt, new_tokens=new_tokens)
  config.devices.run_dtype = run_dtype
  task = capacity.stand_in_task(config, sharding.make_devices(**config.devices))
  start = pretrained.load_start(
    config, epath.Path(), "model", vocab_size=task.model.vocab_size
  )
  task = task._replace(
    starts={**task.starts, "model": start},
    tokenizer=task.tokenizer._replace(eos_ids=(task.model.vocab_size,)),
  )
  other = start._replace(folder=epath.Path(reference))
  sets = {
    name: pretrained.init_params(one, task.model, task.devices, None)
    for name, one in (("policy", start), ("reference", other))
  }
  return Side(config, task, sets)


def make_batch(task: task_lib.Task, prompts: Sequence[Sequence[int]]):
  """A batch as the loop is given it."""
  examples = [
    {
      "prompts": list(ids),
      "prompts_cut": np.bool_(False),
      "example_ids": np.int32(number),
      "record_ids": np.int32(number),
      "real": np.bool_(True),
    }
    for number, ids in enumerate(prompts)
  ]
  return task.pad(examples)


def write(size: str) -> Callable[[], None]:
  """The folders of a size, with random weights, where they are not yet.

  Tied embeddings are small beside what the layers add, so that greedy text
  does not repeat one token; the last norm makes up for it.
  """

  def run():
    made = models.make_config(**bench_sizes.SIZES[size])
    init = jax.jit(models.make_model(made).init)
    for number, name in enumerate(bench_sizes.SETS):
      place = bench_sizes.folder(size, name)
      if (place / folders.CONFIG).exists() and (
        folders.load_config(place) == made
      ):
        continue
      params = init(jax.random.key(number))
      if size in bench_sizes.DECODERS:
        params["embedding"] *= 0.1
        params["final_norm"]["scale"] *= 10.0
      folders.save_pretrained(
        epath.Path(place),
        params,
        made,
        settings={"eos_token_id": END, "pad_token_id": 0},
        beside=None,
        max_file_bytes=folders.MAX_FILE_BYTES,
      )

  return run


def decode(
  policy: str,
  reference: str,
  prompts: list[list[int]],
  new_tokens: int,
  lanes: list[str],
  greedy: bool = False,
  run_dtype: str = "float32",
) -> Callable[[], Any]:
  """Responses in each lane to each prompt, as `stages.writing` has them.

  Returns: () -> the tokens [B, L, R] if greedy, else how many.
  """
  side = make_side(
    policy,
    reference,
    prompt=len(prompts[0]),
    new_tokens=new_tokens,
    run_dtype=run_dtype,
  )
  roll = make_roll(
    side.task,
    [LANES[name] for name in lanes],
    choose=sampling.greedy if greedy else sampling.sample,
    eos_ids=side.task.tokenizer.eos_ids,
  )
  batch = make_batch(side.task, prompts)

  def run():
    written = roll(side.sets, batch)
    return written.tokens.tolist() if greedy else int(written.mask.sum())

  return run


def make_roll(
  task: task_lib.Task,
  lanes: Sequence[sampling.Lane],
  *,
  choose: Callable[..., jax.Array],
  eos_ids: Sequence[int],
) -> Callable[[Any, batches.Batch], sampling.Rollout]:
  """(sets, batch) -> one response in every lane to each prompt."""
  names = sorted({name for lane in lanes for name in lane})

  @task.by_rows
  def roll(sets, batch):
    return sampling.rollout(
      task.model,
      task.ready(sets, names),
      lanes,
      prompts=batch["prompts"],
      prompt_mask=batch["prompts_mask"],
      keys=sampling.row_keys(
        jax.random.key(0), batch["example_ids"], len(lanes)
      ),
      max_response=task.max_response,
      temperature=bench_sizes.TEMPERATURE,
      eos_ids=eos_ids,
      choose=choose,
    )

  return roll


def make_step(side: Side):
  """The experiment of stage nash, its programs' maker and its first state."""
  section = settings.run_section(side.config, RUN)
  experiment = nash.make_experiment(
    side.config, side.task, section, capacity.WHERE
  )
  made = optimizer.make_optimizer(**section.optimizer)
  make_programs = functools.partial(
    step_lib.make_programs,
    experiment,
    made,
    seed=side.config.seed,
    updates_per_rollout=section.updates_per_rollout,
    micro_batches=section.train.micro_batches,
  )
  state = sharding.store(
    side.task.devices,
    loop.make_first_state(experiment, made, devices=side.task.devices),
    side.sets["policy"],
    {"reference": side.sets["reference"]},
  )
  return experiment, make_programs, state


def step(
  policy: str, reference: str, prompts: list[list[int]]
) -> Callable[[], dict[str, float]]:
  """A step of Nash-MD-PG, compiled as the loop compiles it.

  Returns: () -> the metrics of one step; each goes on from the last.
  """
  side = make_side(
    policy,
    reference,
    prompt=len(prompts[0]),
    new_tokens=bench_sizes.NEW_TOKENS,
  )
  experiment, make_programs, state = make_step(side)
  take_step = programs.compile_step(
    side.task.devices, make_programs, state, host=experiment.host
  )
  batch, now = make_batch(side.task, prompts), [state]

  def run():
    now[0], metrics = take_step(now[0], batch)
    return metrics_lib.means([metrics])

  return run


def learn(
  policy: str, reference: str, prompts: list[list[int]]
) -> Callable[[], dict[str, Any]]:
  """What one update learns from one rollout, for a peer to learn the same.

  Returns: () -> "responses" [B, R], "win_prob" [B], "loss", "grad_norm".
  """
  side = make_side(
    policy,
    reference,
    prompt=len(prompts[0]),
    new_tokens=bench_sizes.NEW_TOKENS,
  )
  _, make_programs, state = make_step(side)
  compiled = programs.compile_programs(side.task.devices, make_programs, state)
  batch = sharding.shard_batch(
    make_batch(side.task, prompts), side.task.devices.mesh
  )
  copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))

  def run():
    rows = compiled.rollout(state, batch)
    _, metrics = compiled.update(copy(state), rows)
    told = metrics_lib.means([metrics])
    return {
      "responses": np.asarray(rows["responses"]).tolist(),
      "win_prob": np.asarray(rows["answers"])[:, 0].tolist(),
      "loss": told["loss"],
      "grad_norm": told["grad_norm"],
    }

  return run


def judged(own: list[list[int]], other: list[list[int]]) -> Callable[[], Any]:
  """What the judge says of pairs of responses, [B]."""

  def run():
    pair = [(jnp.array(x), jnp.ones(np.shape(x), bool)) for x in (own, other)]
    return judge(None, None, *pair).tolist()

  return run


PIECES = {
  "write": write,
  "decode": decode,
  "step": step,
  "learn": learn,
  "judged": judged,
}
