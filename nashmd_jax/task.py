"""What all stages share: data, tokenizer and model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
import pathlib
from typing import Any, NamedTuple

import grain
import jax
import ml_collections

from nashmd_jax import (
  arrays,
  declare,
  logs,
  mistakes,
  models,
  texts,
  tokenization,
)
from nashmd_jax.data import batches, conversations, records
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import pretrained
from nashmd_jax.models import lora as lora_lib
from nashmd_jax.training import (
  checkpoints,
  distributed,
  sharding,
  writers,
)
from nashmd_jax.training import metrics as metrics_lib

Sets = Mapping[str, Any]
# The base of adapters by the section of its model.
BASES = {"model": "base", "judge_model": "judge_base"}


LORA = {
  "rank": declare.whole(
    "Rank of low-rank adapters, trained in place of the parameters; 0 trains "
    "the parameters themselves.",
    least=0,
  ),
  "alpha": declare.number(
    "α: adapters count α / rank times.", above=0, most=1e6
  ),
  "targets": declare.several(
    declare.text("The matrices that are adapted, such as query and value."),
  ),
}


class Lora(NamedTuple):
  """Low-rank adapters in place of whole parameters; see `models.lora`.

  Attributes:
    rank: r; 0 trains the parameters themselves.
    alpha: α.
    targets: names of the adapted matrices.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...]


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
    max_response: tokens of a response, or of each of its turns.
    lora: what is trained.
    devices: where parameters are stored and run.
    seed: of random starts.
    log: where training is told of.
  """

  splits: Mapping[str, Sequence[records.Record]]
  tokenizer: tokenizer_lib.Tokenizer
  model: models.LanguageModel
  judge_model: models.LanguageModel
  starts: Mapping[str, pretrained.Start]
  encode: Callable[[records.Record], batches.Example]
  pad: Callable[[Sequence[batches.Example]], batches.Batch]
  max_response: int
  lora: Lora
  devices: sharding.Devices
  seed: int
  log: writers.Log

  def ready(
    self, sets: Sets, names: Iterable[str], base: str = BASES["model"]
  ) -> dict[str, Any]:
    """The named sets as a model runs on them, inside jit.

    Args:
      sets: as stored, the base of adapters among them. Gradient flows to
        adapters, or to whole parameters.
      names: of sets.
      base: name of the set that their adapters belong to.
    """
    placed = sharding.to_run({name: sets[name] for name in names}, self.devices)
    if not self.lora.rank:
      return placed
    whole = sharding.to_run(sets[base], self.devices)
    return {
      name: lora_lib.attach(whole, adapters, alpha=self.lora.alpha)
      for name, adapters in placed.items()
    }

  def by_rows(
    self, function: Callable[[Any, batches.Batch], Any]
  ) -> Callable[[Any, batches.Batch], Any]:
    """The function outside of training; see `sharding.by_rows`."""
    return sharding.by_rows(function, self.devices)


def load_task(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Task:
  """Loads the task; prepares data and tokenizer in `workdir/data` if absent.

  Raises: ValueError for records or a tokenizer that cannot be read, or for
    settings of the devices that cannot be.
  """
  splits = texts.load_summaries(config, workdir)
  _, tokenizer = tokenization.load_tokenizer(config, workdir, splits)
  starts = {
    section: pretrained.load_start(
      config, workdir, section, vocab_size=tokenizer.vocab_size
    )
    for section in pretrained.SECTIONS
  }
  devices = sharding.make_devices(**config.devices)
  return Task(
    splits=splits,
    tokenizer=tokenizer,
    **make_models(
      {name: start.config for name, start in starts.items()}, devices
    ),
    starts=starts,
    encode=make_encode(config, tokenizer),
    pad=make_pad(config),
    max_response=config.layout.max_response,
    lora=Lora(**config.lora),
    devices=devices,
    seed=config.seed,
    log=logs.make_log(config, workdir),
  )


def make_encode(
  config: ml_collections.ConfigDict, tokenizer: tokenizer_lib.Tokenizer
) -> Callable[[records.Record], batches.Example]:
  """The field "encode" of a Task."""
  return functools.partial(
    batches.encode_record,
    tokenizer=tokenizer,
    max_prompt=config.layout.prompt_buckets[-1],
    max_response=config.layout.max_response,
    chat=tokenization.load_chat(config, "model"),
    turns=conversations.Turns(**config.turns),
  )


def make_pad(
  config: ml_collections.ConfigDict,
) -> Callable[[Sequence[batches.Example]], batches.Batch]:
  """The field "pad" of a Task."""
  given = conversations.Turns(**config.turns)
  return functools.partial(
    batches.pad_batch,
    prompt_buckets=config.layout.prompt_buckets,
    max_response=given.width(config.layout.max_response),
  )


def make_models(
  configs: Mapping[str, Any], devices: sharding.Devices
) -> dict[str, models.LanguageModel]:
  """The fields "model" and "judge_model" of a Task from their architectures.

  Args:
    configs: by field.
    devices: that the models run on; they decide on the numerics left to them.
  """
  places = devices.mesh.devices.flat
  made = {}
  for name, config in configs.items():
    model = models.make_model(models.on_devices(config, places))
    mapped = {
      part: sharding.on_mesh(getattr(model, part), devices)
      for part in ("prefill", "decode", "response_states", "next_states")
    }
    parts = devices.mesh.shape["data"] if devices.mode == "jit" else 1
    made[name] = model._replace(row_parts=parts, **mapped)
  return made


def check_lora(
  made: Any, *, rank: int, alpha: float, targets: Sequence[str]
) -> None:
  """Raises Mistake for adapters that an architecture cannot have.

  Args:
    made: the architecture.
    rank, alpha, targets: see `Lora`.
  """
  declare.check(
    LORA, {"rank": rank, "alpha": alpha, "targets": targets}, "lora"
  )
  if not rank:
    return
  init = models.make_model(made).init
  sizes = lora_lib.sizes(jax.eval_shape(lambda: init(jax.random.key(0))))
  unknown = sorted(set(targets) - set(sizes))
  if unknown or not targets:
    raise mistakes.Mistake(
      f"lora.targets: got {tuple(targets)}, expected some of {tuple(sizes)}"
    )
  least, name = min((min(sizes[name]), name) for name in targets)
  if rank > least:
    raise mistakes.Mistake(
      f"lora.rank: got {rank}, expected at most {least}, the smaller side of "
      f"the matrix {name!r}; more adds nothing to what they can be"
    )


def base_params(task: Task, section: str) -> Any:
  """The whole parameters that "model" or "judge_model" starts with, as stored.

  The same at every call: from the folder, or of the seed of the run.
  """
  return pretrained.init_params(
    task.starts[section],
    getattr(task, section),
    task.devices,
    jax.random.key(task.seed),
  )


def bases(task: Task, *sections: str) -> dict[str, Any]:
  """The bases that adapters of these models stand beside; none without LoRA."""
  if not task.lora.rank:
    return {}
  return {BASES[section]: base_params(task, section) for section in sections}


def init_trained(task: Task, section: str) -> Any:
  """What is trained of "model" or "judge_model" at its start, as stored."""
  if not task.lora.rank:
    return base_params(task, section)
  return sharding.store(
    task.devices, _init_adapters(task, section), jax.random.key(task.seed)
  )


def _init_adapters(task: Task, section: str):
  shapes = _whole_shapes(task, section)
  return functools.partial(
    lora_lib.init_lora,
    params=shapes,
    rank=task.lora.rank,
    targets=task.lora.targets,
  )


def _whole_shapes(task: Task, section: str) -> Any:
  return jax.eval_shape(getattr(task, section).init, jax.random.key(0))


def trained_shapes(task: Task, section: str) -> Any:
  """Shapes of what is trained of "model" or "judge_model"."""
  if not task.lora.rank:
    return _whole_shapes(task, section)
  return jax.eval_shape(_init_adapters(task, section), jax.random.key(0))


def load_trained(
  task: Task, section: str, folder: pathlib.Path, *, name: str = "params"
) -> Any:
  """A trained set from the folder of a stage, as it is stored."""
  like = sharding.stored_shapes(trained_shapes(task, section), task.devices)
  return checkpoints.load_params(folder, like, name=name)


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


def held_out_scores(
  task: Task,
  source: Sequence[records.Record],
  scores: Callable[[Sets, batches.Batch], Mapping[str, arrays.Mean]],
  *,
  batch_size: int,
  examples: int,
) -> Callable[[Sets], dict[str, float]]:
  """An evaluation: (sets) -> mean scores over held-out records.

  Args:
    source: held-out records, of which the first `examples` are used; the rows
      that fill up the last batch are not "real" in it and count nowhere.
    scores: (sets, batch) -> means; jitted, by rows.
    batch_size: B, rows.
    examples: at most so many records.
  """
  source = source[:examples]
  scores = task.by_rows(scores)

  def evaluate(sets):
    ordered = batches.ordered_batches(
      source, task.encode, task.pad, batch_size=batch_size
    )
    means = []
    for batch, _ in ordered:
      distributed.stop_if_asked()
      means.append(scores(sets, batch))
    return metrics_lib.means(means)

  return evaluate
