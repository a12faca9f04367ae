"""The same run with decoders: Gemma 2 of 2 or 9 billion parameters.

  python -m nashmd_jax.main --config=configs/tldr_decoder.py:9b --workdir=DIR \
    --config.data.records=POSTS --config.data.comparisons=COMPARISONS \
    --config.model.pretrained=GEMMA --config.judge_model.pretrained=GEMMA

POSTS, COMPARISONS and the folders of models are as in configs/tldr_t5.py. Any
other decoder will do with `:folder`, which states no family and no sizes and
takes those of the folder. The smallest slice of a kind of chip that holds the
run is found by

  python -m nashmd_jax.main --stage=pod_check --topology=v5e \
    --config=configs/tldr_decoder.py:2b

Expected: v5e:2x2 for 2b; v5e:4x4 for 9b, which it fills so that nothing more
may be added. `make scale` writes what it found to out/scale.json. `:tiny` after
the file name runs the same path on CPU with very little, `:tiny_folder` with a
model of yours.
"""

import importlib.util
import pathlib

import ml_collections

placeholder = ml_collections.config_dict.placeholder

SIZES = {
  "2b": {
    "width": 2304,
    "num_layers": 26,
    "num_heads": 8,
    "num_kv_heads": 4,
    "head_dim": 256,
    "mlp_dim": 9216,
    "window": 4096,
  },
  "9b": {
    "width": 3584,
    "num_layers": 42,
    "num_heads": 16,
    "num_kv_heads": 8,
    "head_dim": 256,
    "mlp_dim": 14_336,
    "window": 4096,
  },
  "tiny": {
    "width": 16,
    "num_layers": 2,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 8,
    "mlp_dim": 32,
    "window": 16,
  },
}


def get_config(variant: str = "2b") -> ml_collections.ConfigDict:
  """The run with models of that size, or `:tiny`; `:folder` states no sizes."""
  if variant not in (*SIZES, "folder", "tiny_folder"):
    raise ValueError(f"configs/tldr_decoder.py: no variant {variant!r}")
  tiny, sizes = variant.startswith("tiny"), SIZES.get(variant, SIZES["tiny"])
  t5 = load("tldr_t5")
  config = t5.get_config("tiny" if tiny else "full").unlock()
  config.tokenizer = {
    "file": placeholder(str),
    "vocab_size": 384 if tiny else 256_000,
    "eos_token": "<eos>",
    "bos_token": "<bos>",
    "special_tokens": ("<bos>", "<unused0>", "<unused1>", "<unused2>"),
  }
  config.model = {
    "pretrained": placeholder(str),
    "family": "gemma2",
    **sizes,
    "rope_base": 10_000.0,
    "query_scale": 256**-0.5,
    "dtype": "bfloat16",
    "remat": "full",
    "attention": "einsum",
  }
  config.judge_model = {"pretrained": placeholder(str)}
  if tiny:
    config.model.pretrained = config.judge_model.pretrained = "random"
  if variant.endswith("folder"):
    t5.leave_sizes_to_folders(config)
  # As many chips as there are key heads share each matrix that is run.
  config.devices.model = sizes["num_kv_heads"]
  for name, response in (
    ("preference", "<unused0>{first}<unused1>{second}<unused2>"),
    ("reward", "<unused0>{first}<unused2>"),
  ):
    config[name].template = {
      "prompt": "{prompt}",
      "response": response,
      "answers": ("<unused0>", "<unused1>"),
      "chat": False,
    }
  return config.lock()


def load(name: str):
  """A config file of this folder, which is no package."""
  path = pathlib.Path(__file__).with_name(f"{name}.py")
  spec = importlib.util.spec_from_file_location(f"{name}_config", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
