"""The same architectures in transformers, small and random: the other side.

Needs the `models` extra. Nothing is downloaded.
"""

from collections.abc import Mapping
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers

VOCAB, WINDOW, NEW_TOKENS = 101, 5, 32
SMALL = dict(
  vocab_size=VOCAB,
  hidden_size=36,
  intermediate_size=44,
  num_hidden_layers=3,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=256,
  bos_token_id=2,
  eos_token_id=1,
  pad_token_id=0,
  attn_implementation="eager",
)
OWN_HEADS = SMALL | {"head_dim": 10}
GEMMA = OWN_HEADS | {"sliding_window": WINDOW, "query_pre_attn_scalar": 7}


def configs() -> dict[str, transformers.PreTrainedConfig]:
  """Odd sizes, grouped heads, windows shorter than the sequences."""
  llama3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
  }
  by_locality = {
    "full_attention": {
      "rope_type": "linear",
      "factor": 8.0,
      "rope_theta": 10_000.0,
    },
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
  }
  yarn = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "beta_fast": 4.0,
    "original_max_position_embeddings": 64,
  }
  local = ["sliding_attention", "sliding_attention", "full_attention"]
  wide = SMALL | {"hidden_size": 40}
  return {
    "mistral": transformers.MistralConfig(
      **OWN_HEADS, sliding_window=WINDOW, tie_word_embeddings=False
    ),
    "phi3": transformers.Phi3Config(**wide, tie_word_embeddings=False),
    "smollm3": transformers.SmolLM3Config(**wide, no_rope_layers=[1, 0, 1]),
    "olmo2": transformers.Olmo2Config(**wide),
    "olmo3": transformers.Olmo3Config(
      **wide,
      sliding_window=WINDOW,
      layer_types=local,
      rope_parameters={
        "full_attention": yarn,
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
      },
    ),
    "llama": transformers.LlamaConfig(
      **OWN_HEADS, tie_word_embeddings=False, rope_parameters=llama3
    ),
    "qwen2": transformers.Qwen2Config(**wide, tie_word_embeddings=False),
    "qwen3": transformers.Qwen3Config(**OWN_HEADS, tie_word_embeddings=True),
    "gemma2": transformers.Gemma2Config(
      **GEMMA, attn_logit_softcapping=5.0, final_logit_softcapping=3.0
    ),
    "gemma3_text": transformers.Gemma3TextConfig(
      **GEMMA, layer_types=local, rope_parameters=by_locality
    ),
    "t5": transformers.T5Config(
      vocab_size=VOCAB,
      d_model=28,
      d_kv=10,
      d_ff=36,
      num_layers=2,
      num_decoder_layers=2,
      num_heads=4,
      relative_attention_num_buckets=8,
      relative_attention_max_distance=20,
      feed_forward_proj="gated-gelu",
      tie_word_embeddings=False,
      decoder_start_token_id=0,
    ),
  }


def make_peer(family: str) -> torch.nn.Module:
  """A model whose every weight is random, norms and biases too.

  Embeddings are small beside what the layers add, so that greedy text does
  not repeat one token.
  """
  torch.manual_seed(7)
  config = configs()[family]
  if family == "t5":
    peer = transformers.T5ForConditionalGeneration(config)
    peer.lm_head.weight = torch.nn.Parameter(torch.empty(VOCAB, 28))
    torch.nn.init.normal_(peer.lm_head.weight, std=0.3)
    torch.nn.init.normal_(peer.shared.weight, std=0.1)
  else:
    peer = transformers.AutoModelForCausalLM.from_config(config)
  with torch.no_grad():
    for name, weight in peer.named_parameters():
      inner = weight.ndim == 1 or "layers" in name or "block" in name
      noise = (0.15 if family == "t5" else 0.3) if inner else 0.02
      weight.add_(noise * torch.randn_like(weight))
  return peer.eval()


def load_peer(folder: pathlib.Path, family: str) -> torch.nn.Module:
  """What transformers reads from a folder, in float32."""
  auto = (
    transformers.AutoModelForSeq2SeqLM
    if family == "t5"
    else transformers.AutoModelForCausalLM
  )
  loaded = auto.from_pretrained(folder, dtype=torch.float32)
  return loaded.eval()


def make_batch() -> dict[str, np.ndarray]:
  """Prompts of several lengths, padded on the right, and responses."""
  rng = np.random.default_rng(11)
  lengths = np.array([11, 7, 3, 1])
  return {
    "prompts": rng.integers(3, VOCAB, (4, 11), dtype=np.int32),
    "prompt_mask": np.arange(11)[None] < lengths[:, None],
    "responses": rng.integers(3, VOCAB, (4, 9), dtype=np.int32),
  }


def logits_of(peer, family: str, batch: Mapping[str, np.ndarray]):
  """Logits of the responses, tensor [B, R, V], one row at a time unpadded."""
  rows = []
  for prompt, mask, response in zip(*batch.values(), strict=True):
    prompt = torch.tensor(prompt[mask][None], dtype=torch.long)
    response = torch.tensor(response[None], dtype=torch.long)
    if family == "t5":
      fed = torch.nn.functional.pad(response[:, :-1], (1, 0))
      out = peer(input_ids=prompt, decoder_input_ids=fed).logits
    else:
      out = peer(torch.cat([prompt, response], dim=1)).logits
      out = out[:, prompt.shape[1] - 1 : -1]
    rows.append(out[0])
  return torch.stack(rows)


def greedy(peer, family: str, batch: Mapping[str, np.ndarray]) -> np.ndarray:
  """The most probable continuation, int32[B, 32], prompts padded left."""
  order = np.argsort(batch["prompt_mask"], axis=1, kind="stable")
  tokens = np.take_along_axis(batch["prompts"], order, axis=1)
  mask = np.take_along_axis(batch["prompt_mask"], order, axis=1)
  # What is None in the call is taken from here.
  peer.generation_config.eos_token_id = None
  with torch.no_grad():
    out = peer.generate(
      input_ids=torch.tensor(np.where(mask, tokens, 0), dtype=torch.long),
      attention_mask=torch.tensor(mask, dtype=torch.long),
      generation_config=transformers.GenerationConfig(
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        eos_token_id=None,
        pad_token_id=0,
        decoder_start_token_id=0,
      ),
    )
  return out[:, -NEW_TOKENS:].numpy().astype(np.int32)


def response_loss(peer, family: str, batch: Mapping[str, np.ndarray]):
  """Mean negative log-likelihood of the responses, nats a token."""
  logits = logits_of(peer, family, batch)
  labels = torch.tensor(batch["responses"], dtype=torch.long)
  return torch.nn.functional.cross_entropy(
    logits.flatten(0, 1), labels.flatten()
  )
