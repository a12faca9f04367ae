"""Adapters as a folder that the peft library loads beside its base."""

from typing import Any

from etils import epath

from nashmd_jax.hub import architectures, folders, safetensors, tensor_names
from nashmd_jax.models import lora, t5

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."


def adapter_names(
  config: architectures.Config, adapters: lora.Params
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
  config: architectures.Config,
  *,
  alpha: float,
  base: str,
) -> None:
  """Writes adapter_model.safetensors and adapter_config.json.

  Args:
    folder: made if absent.
    adapters: see `lora.init_lora`.
    config: the architecture they adapt.
    alpha: α.
    base: name or folder of the model they adapt, as peft is to find it.
  """
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  names = adapter_names(config, adapters)
  leaves = {path: tensor_names.at(adapters, path) for path in names}
  safetensors.save_file(folder / WEIGHTS, *tensor_names.spread(names, leaves))
  modules = {name.template.split(".")[-3] for name in names.values()}
  encoder_decoder = isinstance(config, t5.T5Config)
  folders.save_json(
    folder / "adapter_config.json",
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


def _has(tree: Any, path: tensor_names.Path) -> bool:
  for key in path:
    if key not in tree:
      return False
    tree = tree[key]
  return True
