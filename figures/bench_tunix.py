"""Tunix's side of `make bench`: its sampler, on the same folders.

Needs an environment of requirements-tunix.lock; nothing of ours but the sizes.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from tunix.generate import sampler
from tunix.models.llama3 import model as llama
from tunix.models.llama3 import params

from figures import bench_sizes


class Words:
  """A tokenizer whose words are ids, of which none ends a response."""

  def __init__(self, vocab_size: int):
    self._end = vocab_size

  def encode(self, text: str) -> list[int]:
    return [int(word) for word in text.split()]

  def decode(self, ids: list[int]) -> str:
    return " ".join(map(str, ids))

  def bos_id(self) -> None:
    return None

  def eos_id(self) -> int:
    return self._end

  def pad_id(self) -> int:
    return 0


def load(place: str, size: str) -> tuple[llama.Llama3, llama.ModelConfig]:
  """A folder in float32."""
  sizes = bench_sizes.SIZES[size]
  config = llama.ModelConfig(
    num_layers=sizes["num_layers"],
    vocab_size=sizes["vocab_size"],
    embed_dim=sizes["width"],
    hidden_dim=sizes["mlp_dim"],
    num_heads=sizes["num_heads"],
    head_dim=sizes["head_dim"],
    num_kv_heads=sizes["num_kv_heads"],
    rope_theta=int(sizes["rope_base"]),
    norm_eps=1e-5,
    weight_tying=sizes["tied"],
  )
  model = params.create_model_from_safe_tensors(
    place, config, dtype=jnp.float32
  )
  return model, config


def decode(
  policy: str,
  reference: str,
  prompts: list[list[int]],
  new_tokens: int,
  size: str,
  greedy: bool = False,
) -> Callable[[], Any]:
  """One response to each prompt.

  Returns: () -> the tokens [B, R] if greedy, else how many.
  """
  del reference
  model, config = load(policy, size)
  words, width = Words(config.vocab_size), len(prompts[0])
  write = sampler.Sampler(
    transformer=model,
    tokenizer=words,
    cache_config=sampler.CacheConfig(
      cache_size=width + new_tokens,
      num_layers=config.num_layers,
      num_kv_heads=config.num_kv_heads,
      head_dim=config.head_dim,
    ),
  )
  texts = [words.decode(ids) for ids in prompts]
  drawn = (
    {} if greedy else {"top_p": 1.0, "temperature": bench_sizes.TEMPERATURE}
  )

  def run():
    found = write(
      texts, max_generation_steps=new_tokens, max_prompt_length=width, **drawn
    ).tokens
    if greedy:
      return [ids[:new_tokens].tolist() for ids in found]
    return sum(len(ids) for ids in found)

  return run


PIECES = {"decode": decode}
