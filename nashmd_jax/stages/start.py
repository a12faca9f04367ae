"""Stage `start`: folders with random weights, where the config asks for them.

What later stages do with a downloaded folder they then do with these.
"""

import functools
import pathlib

import jax
import ml_collections

from nashmd_jax import pipeline, texts, tokenization
from nashmd_jax.hub import pretrained
from nashmd_jax.training import distributed


def wanted(config: ml_collections.ConfigDict) -> list[str]:
  """The sections of models whose folder the run writes itself."""
  workdir = pathlib.Path()
  return [
    section
    for section in pretrained.SECTIONS
    if pretrained.folder(config, workdir, section)
    == pretrained.random_folder(workdir, section)
  ]


def run(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, job: str
) -> dict[str, str]:
  """Writes the folders and returns where they are."""
  del job
  splits = texts.load_summaries(config, workdir)
  path, tokenizer = tokenization.load_tokenizer(config, workdir, splits)
  write = functools.partial(_write, config, workdir, path, tokenizer)
  return distributed.on_first(write)


def _write(config, workdir, path, tokenizer) -> dict[str, str]:
  keys = jax.random.split(jax.random.key(config.seed), len(pretrained.SECTIONS))
  written = {}
  for section, key in zip(pretrained.SECTIONS, keys, strict=True):
    if section in wanted(config):
      place = pretrained.random_folder(workdir, section)
      pretrained.write_random(
        place,
        pretrained.architecture(
          config, section, vocab_size=tokenizer.vocab_size
        ),
        tokenizer=path,
        settings=pretrained.token_settings(tokenizer),
        rng=key,
      )
      written[section] = str(place)
  return written


STAGE = pipeline.Stage(
  name="start",
  settings={},
  check=lambda config, findings: None,
  jobs=lambda config: ["start"] if wanted(config) else [],
  needs=lambda config, job: [],
  reads=lambda config, job: pipeline.settings(
    config, "seed", "model", "judge_model"
  ),
  run=run,
  facts=("tokenizer",),
  shared=True,
)
