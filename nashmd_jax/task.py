"""What all stages share: data, tokenizer, model, and text out of a policy."""

from collections.abc import Callable, Mapping, Sequence
import functools
import pathlib
from typing import Any, NamedTuple

import grain
import jax
import ml_collections
import numpy as np

from nashmd_jax import models, sampling, texts
from nashmd_jax.data import batches, records
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import pretrained
from nashmd_jax.judges import preference_model
from nashmd_jax.training import checkpoints, distributed, sharding

TRAINED = ("sft", "preference", "reward", "nash")
SLOTS = {
  "preference": preference_model.PREFERENCE_SLOTS,
  "reward": preference_model.REWARD_SLOTS,
}


class Task(NamedTuple):
  """Data, tokenizer and architecture of a run.

  Attributes:
    splits: summary records by split: "train", "validation", "test".
    tokenizer: text to ids and back.
    model: the architecture of the policy.
    judge_model: of preference model and reward model.
    starts: where the parameters of "model" and "judge_model" come from.
    encode: record -> token ids.
    pad: examples -> batch.
    max_response: R, tokens.
    templates: of the judges: "preference", "reward".
    devices: where parameters are stored and run.
  """

  splits: Mapping[str, Sequence[records.Record]]
  tokenizer: tokenizer_lib.Tokenizer
  model: models.LanguageModel
  judge_model: models.LanguageModel
  starts: Mapping[str, pretrained.Start]
  encode: Callable[[records.Record], batches.Example]
  pad: Callable[[Sequence[batches.Example]], batches.Batch]
  max_response: int
  templates: Mapping[str, preference_model.Template]
  devices: sharding.Devices

  def place(self, tree: Any) -> Any:
    """Stored parameter sets as a model runs on them, inside jit."""
    return sharding.to_run(tree, self.devices)

  def by_rows(
    self, function: Callable[[Any, batches.Batch], Any]
  ) -> Callable[[Any, batches.Batch], Any]:
    """The function outside of training; see `sharding.by_rows`."""
    return sharding.by_rows(function, self.devices)


def make_devices(
  config: ml_collections.ConfigDict,
  devices: Sequence[jax.Device] | None = None,
) -> sharding.Devices:
  """The devices of a run; see `sharding.make_devices`.

  Raises: ValueError for a batch whose rows they cannot share evenly.
  """
  made = sharding.make_devices(devices, **config.devices)
  batch_sizes = {
    f"{stage}.data": config[stage].data.batch_size for stage in TRAINED
  } | {"tournament": config.tournament.batch_size}
  if config.data.comparisons is None:
    batch_sizes["comparisons.drawing"] = config.comparisons.drawing.batch_size
  parts = made.mesh.shape["data"]
  for path, rows in batch_sizes.items():
    if rows % parts:
      raise ValueError(
        f"config.{path}.batch_size: got {rows}, expected a multiple of "
        f"{parts}, the parts in which the devices share a batch"
      )
  return made


def load_task(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Task:
  """Loads the task; prepares data and tokenizer in `workdir/data` if absent.

  Raises: ValueError for records or a tokenizer that cannot be read, or for
    devices that cannot share the batches.
  """
  devices = make_devices(config)
  splits = texts.load_summaries(config, workdir)
  _, tokenizer = texts.load_tokenizer(config, workdir, splits)
  starts = {
    section: pretrained.load_start(
      config, workdir, section, vocab_size=tokenizer.vocab_size
    )
    for section in pretrained.SECTIONS
  }
  return Task(
    splits=splits,
    tokenizer=tokenizer,
    **make_models({name: start.config for name, start in starts.items()}),
    starts=starts,
    encode=functools.partial(
      batches.encode_record,
      tokenizer=tokenizer,
      max_prompt=config.layout.prompt_buckets[-1],
      max_response=config.layout.max_response,
    ),
    pad=functools.partial(batches.pad_batch, **config.layout),
    max_response=config.layout.max_response,
    templates={
      kind: preference_model.make_template(
        tokenizer.encode,
        slots,
        barred=tokenizer.special_ids,
        **config[kind].template,
      )
      for kind, slots in SLOTS.items()
    },
    devices=devices,
  )


def make_models(configs: Mapping[str, Any]) -> dict[str, models.LanguageModel]:
  """The fields "model" and "judge_model" of a Task from their architectures."""
  return {name: models.make_model(made) for name, made in configs.items()}


def load_params(
  task: Task,
  model: models.LanguageModel,
  folder: pathlib.Path,
  *,
  name: str = "params",
) -> Any:
  """A parameter set of a model from the folder of a stage, as it is stored."""
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  places = sharding.shardings(shapes, task.devices)
  like = jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    shapes,
    places,
  )
  return checkpoints.load_params(folder, like, name=name)


def init_params(task: Task, section: str, rng: jax.Array) -> Any:
  """The start of "model" or "judge_model", as it is stored."""
  return pretrained.init_params(
    task.starts[section], getattr(task, section), task.devices, rng
  )


def run_section(
  config: ml_collections.ConfigDict, name: str
) -> ml_collections.ConfigDict:
  """`config.nash` with the changes that `config.nash.runs[name]` makes.

  Raises: ValueError for a run that does not exist, or a key that
    `config.nash` does not have.
  """
  section = config.nash.copy_and_resolve_references()
  runs = section.runs
  if name not in runs:
    raise ValueError(f"nash.runs: no run {name!r} among {sorted(runs)}")
  try:
    section.update(runs[name])
  except (KeyError, AttributeError, TypeError) as error:
    raise ValueError(
      f"nash.runs.{name}: {dict(runs[name])} does not fit the keys of "
      f"config.nash ({error})"
    ) from None
  return section


def supervised_scores(loss):
  """(params_by_name, batch) -> loss and metrics of the trained parameters."""

  def scores(params_by_name, batch):
    value, metrics = loss(params_by_name["policy"], batch, jax.random.key(0))
    return {"loss": value, **metrics}

  return scores


def training_batches(
  task: Task,
  source: Sequence[records.Record],
  *,
  batch_size: int,
  seed: int,
) -> grain.DatasetIterator:
  """Endless shuffled batches of the records; see `batches`."""
  return batches.training_batches(
    source, task.encode, task.pad, batch_size=batch_size, seed=seed
  )


def held_out(
  source: Sequence[records.Record], *, batch_size: int, examples: int
) -> Sequence[records.Record]:
  """The first of the held-out records, up to `examples`, in whole batches.

  Raises: ValueError if the source does not fill one batch.
  """
  if len(source) < batch_size:
    raise ValueError(
      f"batch_size: {len(source)} held-out records do not fill one batch of "
      f"{batch_size}; lower it or give more data"
    )
  count = max(1, min(examples, len(source)) // batch_size)
  return source[: count * batch_size]


def held_out_mean(
  task: Task,
  source: Sequence[records.Record],
  scores: Callable[[Mapping[str, Any], batches.Batch], Mapping[str, jax.Array]],
  *,
  batch_size: int,
  examples: int,
) -> Callable[[Mapping[str, Any]], dict[str, float]]:
  """An evaluation: params_by_name -> mean scores over held-out records.

  Args:
    source: held-out records.
    scores: (params_by_name, batch) -> scalars or f32[B]; jitted, by rows.
    batch_size: B, rows.
    examples: see `held_out`.
  """
  source = held_out(source, batch_size=batch_size, examples=examples)
  scores = task.by_rows(scores)

  def evaluate(params_by_name):
    ordered = batches.ordered_batches(
      source, task.encode, task.pad, batch_size=batch_size
    )
    rows = [scores(params_by_name, batch) for batch, _ in ordered]
    return {key: float(np.mean([r[key] for r in rows])) for key in rows[0]}

  return evaluate


def write_responses(
  task: Task,
  params_by_name: Mapping[str, Any],
  lanes: Sequence[sampling.Lane],
  source: Sequence[records.Record],
  *,
  batch_size: int,
  temperature: float,
  rng: jax.Array,
) -> list[list[str]]:
  """Responses as text: for each record one for each lane.

  The response to a record depends on the key and on its place in `source`,
  not on the batch it is in.
  """

  @task.by_rows
  def roll(params_by_name, batch):
    return sampling.rollout(
      task.model,
      task.place(params_by_name),
      lanes,
      prompts=batch["prompts"],
      prompt_mask=batch["prompts_mask"],
      keys=sampling.row_keys(rng, batch["example_ids"], len(lanes)),
      max_response=task.max_response,
      temperature=temperature,
      eos_id=task.tokenizer.eos_id,
    )

  written = []
  ordered = batches.ordered_batches(
    source, task.encode, task.pad, batch_size=batch_size
  )
  for batch, real in ordered:
    distributed.stop_if_asked()
    rollout = roll(params_by_name, batch)
    for tokens, mask in zip(
      rollout.tokens[:real], rollout.mask[:real], strict=True
    ):
      written.append(
        [
          task.tokenizer.decode(row[keep])
          for row, keep in zip(tokens, mask, strict=True)
        ]
      )
  return written
