"""The pipeline `text`: from records to a report, and to folders."""

from collections.abc import Mapping
import importlib.util
import pathlib
from typing import Any

from nashmd_jax import declare, logs, mistakes, pipeline, texts, tokenization
from nashmd_jax import task as task_lib
from nashmd_jax.data import batches, conversations
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import pretrained
from nashmd_jax.judges import table
from nashmd_jax.stages import (
  annotate,
  comparisons,
  exploit,
  export,
  judge_report,
  judge_templates,
  judging,
  learnt_from,
  nash,
  preference,
  report,
  sft,
  start,
  tournament,
)
from nashmd_jax.training import sharding, writers

Config = pipeline.Config
# Settings that name a file or a folder, here or in a bucket.
PLACES = (
  "data.records",
  "data.comparisons",
  "tokenizer.file",
  "model.pretrained",
  "judge_model.pretrained",
)
SETTINGS = {
  "pipeline": pipeline.NAME,
  "required": declare.several(
    declare.text("Dotted names of settings that have to be given.")
  ),
  "seed": pipeline.SEED,
  "data": texts.SETTINGS,
  "tokenizer": tokenization.SETTINGS,
  "chat": tokenization.CHAT,
  "turns": conversations.SETTINGS,
  "layout": batches.LAYOUT,
  "model": pretrained.SETTINGS,
  "judge_model": declare.Changes("model", pretrained.SETTINGS),
  "lora": task_lib.LORA,
  "judges": table.SETTINGS,
  "devices": sharding.SETTINGS,
  "log": {**logs.SETTINGS, "samples": logs.SAMPLES},
}


def check(config: Config, findings: mistakes.Findings) -> None:
  """Collects what is wrong with what all stages read."""
  with findings.collect():
    pipeline.check_given(config, config.required)
  given = pipeline.flat(pipeline.plain(config))
  for path in PLACES:
    with findings.collect():
      check_place(given.get(path), path)
  findings.tell()
  with findings.collect():
    batches.check_layout(config.layout)
  with findings.collect():
    sharding.check_mode(config.devices)
  writers.check(config.log.writers, findings)
  for section in pretrained.SECTIONS:
    with findings.collect():
      made = pretrained.architecture(config, section, vocab_size=1)
      task_lib.check_lora(made, **config.lora)
  with findings.collect():
    pretrained.check_positions(config, findings)
  with findings.collect():
    texts.check_whose(config.data)
  with findings.collect():
    texts.check(config)
  with findings.collect():
    tokenization.check_trained(config)
  with findings.collect():
    tokenization.check_chat(config)
  with findings.collect():
    conversations.check(config.turns)
  judging.check(config, findings)


def check_place(value: str | None, setting: str) -> None:
  """Raises Mistake for an address whose file system is not there."""
  scheme, address, _ = (value or "").partition("://")
  if not address:
    return
  if scheme != "gs":
    raise mistakes.Mistake(
      f"{setting}: got the address {value}, expected a folder or gs://…"
    )
  if importlib.util.find_spec("gcsfs") is None:
    raise mistakes.Mistake(
      f"{setting}: {value} is in a bucket, which the package gcsfs reads; "
      "pip install 'nashmd_jax[gcs]'"
    )


def check_batches(config: Config, devices: sharding.Devices) -> None:
  """Raises Mistake for batches whose rows the devices cannot share evenly."""
  sections = {
    job: section.data.batch_size // section.train.micro_batches
    for job, section in _trained(config).items()
  }
  rows = {f"{job}.data": count for job, count in sections.items()}
  rows["tournament"] = config.tournament.batch_size
  if config.exploit.policies:
    rows["exploit"] = config.exploit.batch_size
  if comparisons.STAGE.jobs(config):
    rows["comparisons.drawing"] = config.comparisons.drawing.batch_size
  parts, findings = devices.mesh.shape["data"], mistakes.Findings()
  for path, count in rows.items():
    with findings.collect():
      if count % parts:
        raise mistakes.Mistake(
          f"config.{path}.batch_size: got {count} rows at a time, expected a "
          f"multiple of {parts}, the parts in which the devices share a batch"
        )
  findings.tell()


def _trained(config: Config) -> dict[str, Config]:
  """The section of every job that trains."""
  found = {"sft": config.sft}
  kinds = {table.kind_of(stage)[0] for stage in judging.wanted(config)}
  found |= {kind: config[kind] for kind in sorted(kinds)}
  return found | {
    f"nash.runs.{name}": nash.settings.run_section(config, name)
    for name in judging.trained_runs(config)
  }


def prepare(config: Config, workdir: pathlib.Path) -> Mapping[str, Any]:
  """Makes data and tokenizer, and checks what can be known with them.

  Returns: hashes of what they hold.
  Raises: Mistake with everything that was found.
  """
  check_batches(config, sharding.make_devices(**config.devices))
  splits = texts.load_summaries(config, workdir)
  path, tokenizer = tokenization.load_tokenizer(config, workdir, splits)
  findings = mistakes.Findings()
  for stage in judging.wanted(config):
    with findings.collect():
      judge_templates.make_template(config, tokenizer, stage)
  with findings.collect():
    tokenization.check_folders(config, path)
  given = conversations.Turns(**config.turns)
  conversations.check_counts(splits, given, findings)
  learnt_from.check_records(config, splits, findings)
  findings.tell()
  _tell_answers(config, tokenizer)
  for phrase in tokenization.told_otherwise(config, path):
    print(f"tokenizer: {phrase}")
  own = texts.load_comparisons(config, workdir)
  save_cards(config, workdir, tokenizer, splits, own)
  return _facts(config, path, tokenizer, splits, own)


def look(config: Config, workdir: pathlib.Path) -> Mapping[str, Any]:
  """What `prepare` returned, of what the files hold now."""
  splits = texts.load_summaries(config, workdir)
  path, tokenizer = tokenization.load_tokenizer(config, workdir, splits)
  own = texts.load_comparisons(config, workdir)
  return _facts(config, path, tokenizer, splits, own)


def _facts(config, path, tokenizer, splits, own) -> dict[str, str | None]:
  read = tokenization.digest(config, path, tokenizer)
  return (
    texts.facts(splits, own) | {"tokenizer": read} | pretrained.facts(config)
  )


def _tell_answers(config: Config, tokenizer: tokenizer_lib.Tokenizer) -> None:
  """Says which answers stand for a template's that are not one token each."""
  for kind in {table.kind_of(stage)[0] for stage in judging.wanted(config)}:
    asked = tuple(config[kind].template.answers)
    taken = judge_templates.answers_of(config, tokenizer, kind)
    if taken != asked:
      print(
        f"{kind}: the answers {asked} of the template are not one token each "
        f"in this tokenizer; {taken} stand for them"
      )


def save_cards(
  config: Config,
  workdir: pathlib.Path,
  tokenizer: tokenizer_lib.Tokenizer,
  splits: texts.Splits,
  comparisons: texts.Splits | None,
) -> None:
  """Writes the data card of the records, and of the user's comparisons."""
  encode = task_lib.make_encode(config, tokenizer)
  without, compared_without = texts.count_left_out(config, workdir)
  texts.save_card(workdir, splits, encode, left_out=without)
  if comparisons is not None:
    texts.save_card(
      workdir,
      comparisons,
      encode,
      left_out=compared_without,
      name="comparisons_card",
      title="comparisons",
    )


PIPELINE = pipeline.Pipeline(
  stages=[
    start.STAGE,
    sft.STAGE,
    comparisons.STAGE,
    *preference.STAGES,
    judge_report.STAGE,
    nash.STAGE,
    tournament.STAGE,
    exploit.STAGE,
    report.STAGE,
    export.STAGE,
    annotate.STAGE,
  ],
  settings=SETTINGS,
  check=check,
  prepare=prepare,
  page="report/index.html",
  look=look,
)
