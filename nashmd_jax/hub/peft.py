"""Adapters as a folder that the peft library loads beside its base."""

from collections.abc import Callable, Mapping
from typing import Any

from etils import epath
import jax

from nashmd_jax import files, mistakes
from nashmd_jax.hub import (
  config_keys,
  folders,
  safetensors,
  tensor_names,
  weights,
)
from nashmd_jax.models import lora, t5

CONFIG, WEIGHTS = folders.ADAPTERS
PREFIX = "base_model.model."
# Settings of adapters that our code has no other value for.
FIXED = {
  "bias": "none",
  "use_dora": False,
  "use_rslora": False,
  "rank_pattern": {},
  "alpha_pattern": {},
  "modules_to_save": None,
}
# What is read, and of what type each is.
KINDS = {
  "peft_type": (str,),
  "base_model_name_or_path": (str,),
  "target_modules": (str, list),
  "r": (int,),
  "lora_alpha": (int, float),
}
MOST = 2**24  # of a rank or α


def adapter_names(
  config: config_keys.Config, adapters: lora.Params
) -> dict[tensor_names.Path, tensor_names.Name]:
  """The tensors of the adapters there, by their path here."""
  found = {}
  for path, name in tensor_names.tensor_names(config).items():
    if path[-1] not in lora.INPUT_AXES or not _has(adapters, path):
      continue
    module = PREFIX + name.template.removesuffix(".weight")
    for leaf, letter, inputs in (("a", "A", name.inputs), ("b", "B", 1)):
      template = f"{module}.lora_{letter}.weight"
      found[*path, leaf] = tensor_names.Name(template, inputs)
  return found


def save_adapter(
  folder: epath.PathLike,
  adapters: lora.Params,
  config: config_keys.Config,
  *,
  alpha: float,
  base: str,
  others: Mapping[str, bytes | None] | None = None,
) -> None:
  """Writes adapter_model.safetensors and adapter_config.json.

  Args:
    folder: made if absent; a model that it holds goes first.
    adapters: see `lora.init_lora`.
    config: the architecture they adapt.
    alpha: α.
    base: name or folder of the model they adapt, as peft is to find it.
    others: see `folders.save_pretrained`.
  """
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  folders.clear(folder)
  names = adapter_names(config, adapters)
  leaves = {path: tensor_names.at(adapters, path) for path in names}
  safetensors.save_file(folder / WEIGHTS, *tensor_names.spread(names, leaves))
  folders.save_others(folder, others or {})
  modules = {name.template.split(".")[-3] for name in names.values()}
  encoder_decoder = isinstance(config, t5.T5Config)
  folders.save_json(
    folder / CONFIG,
    {
      "peft_type": "LORA",
      "task_type": "SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM",
      "base_model_name_or_path": base,
      "r": int(next(iter(leaves.values())).shape[-1]),
      "lora_alpha": alpha,
      "lora_dropout": 0.0,
      "bias": "none",
      "target_modules": sorted(modules),
      "inference_mode": True,
    },
  )


def load_settings(folder: epath.PathLike) -> dict[str, Any]:
  """The contents of adapter_config.json.

  Raises: ValueError for a file that is missing, or adapters of another kind.
  """
  path = epath.Path(folder) / CONFIG
  settings = files.load_object(path, *KINDS)
  wrong = [
    f"{key} = {mistakes.quote(settings.get(key))}"
    for key, only in FIXED.items()
    if (settings.get(key) or only) != only
  ]
  if wrong or settings["peft_type"] != "LORA":
    kind = mistakes.some(wrong) or mistakes.quote(settings["peft_type"])
    raise mistakes.Mistake(
      f"{folder}: holds adapters of a kind that is not known here ({kind})"
    )
  for key, kinds in KINDS.items():
    found = settings[key]
    sized = type(found) in kinds and (
      type(found) in (str, list) or 0 < found <= MOST
    )
    if not sized:
      raise mistakes.Mistake(
        f"{path}: {key} is {mistakes.quote(found)}, which is none"
      )
  return settings


def load_adapter(
  folder: epath.PathLike,
  base: folders.Pretrained,
  shard: Callable[[Any], Any],
) -> lora.Params:
  """Adapters from a folder that peft, or `save_adapter`, wrote.

  Args:
    folder: local or remote.
    base: what they adapt; see "base_model_name_or_path" of `load_settings`.
    shard: shapes of the adapters -> the sharding of each.
  Raises: ValueError that lists what does not fit the base.
  """
  folder = epath.Path(folder)
  settings = load_settings(folder)
  ours = {
    name.template.split(".")[-2]: path[-1]
    for path, name in tensor_names.tensor_names(base.config).items()
    if path[-1] in lora.INPUT_AXES
  }
  modules = settings["target_modules"]
  known = isinstance(modules, list) and all(one in [*ours] for one in modules)
  if not known or not modules:
    raise mistakes.Mistake(
      f"{folder}: target_modules are {mistakes.quote(modules)}, expected some "
      f"of {sorted(ours)}"
    )
  shapes = jax.eval_shape(
    lambda params: lora.init_lora(
      jax.random.key(0),
      params,
      rank=settings["r"],
      targets=[ours[module] for module in modules],
    ),
    base.params,
  )
  names = adapter_names(base.config, shapes)
  tensors = safetensors.load_header(folder / WEIGHTS)
  weights.check_tensors(folder, names, shapes, tensors)
  return folders.load_tensors(names, shapes, tensors, shard(shapes))


def _has(tree: Any, path: tensor_names.Path) -> bool:
  for key in path:
    if key not in tree:
      return False
    tree = tree[key]
  return True
