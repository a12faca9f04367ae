"""The config and the model of a family by its name."""

from collections.abc import Sequence

import jax

from nashmd_jax.models import (
  attention,
  decoder,
  decoder_config,
  language_model,
  layers,
  t5,
)

FAMILIES = ("t5", *decoder_config.FAMILIES)
Config = t5.T5Config | decoder_config.DecoderConfig


def make_config(*, family: str, **sizes) -> Config:
  """The architecture of a family with the given sizes.

  Args:
    family: one of `FAMILIES`.
    **sizes: fields of that family's config; those it fixes may be changed.
  Raises: ValueError for a family that does not exist, or sizes that are
    missing or not its own.
  """
  if family not in FAMILIES:
    raise ValueError(
      f"model.family: got {family!r}, expected one of {sorted(FAMILIES)}"
    )
  fields = t5.T5Config if family == "t5" else decoder_config.DecoderConfig
  sizes = decoder_config.FAMILIES.get(family, {}) | sizes
  needed = set(fields._fields) - set(fields._field_defaults)
  missing = sorted(needed - set(sizes))
  unknown = sorted(set(sizes) - set(fields._fields))
  if missing or unknown:
    raise ValueError(
      f"model: of a {family}, missing {missing}, unknown {unknown}; expected "
      f"{sorted(needed)} and what else it is to change"
    )
  return fields(**sizes)


def make_model(
  config: Config,
) -> language_model.LanguageModel:
  """The pure functions of an architecture.

  Raises: ValueError for an architecture that cannot be.
  """
  if isinstance(config, t5.T5Config):
    check_buckets(config)
    return t5.make_t5(config)
  return decoder.make_decoder(config)


def check_buckets(config: t5.T5Config) -> None:
  """Raises ValueError for buckets that end before the last of them begins."""
  exact = config.num_buckets // 2
  if config.max_distance <= exact:
    raise ValueError(
      f"model.max_distance: got {config.max_distance} for {config.num_buckets} "
      f"num_buckets, expected more than {exact}, up to which they are exact"
    )


def on_devices(config: Config, devices: Sequence[jax.Device]) -> Config:
  """The architecture with the numerics that "auto" stands for on devices."""
  platform = devices[0].platform
  shapes = jax.eval_shape(make_model(config).init, jax.random.key(0))
  return config._replace(
    attention=attention.on_devices(config.attention, platform=platform),
    loop=layers.loop_on(
      config.loop,
      platform=platform,
      devices=len(devices),
      numbers=sum(x.size for x in jax.tree.leaves(shapes)),
    ),
  )


def make_language_model(
  *, family: str, **sizes
) -> language_model.LanguageModel:
  """The pure functions of a family with the given sizes; see `make_config`."""
  return make_model(make_config(family=family, **sizes))
