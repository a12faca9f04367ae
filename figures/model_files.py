"""Rows of `make models` on folders: trained, adapted, and larger ones."""

import pathlib
import subprocess
import sys
import tempfile

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import optax
import peft as peft_library
import tokenizers
import torch
import transformers

from configs import tldr_decoder, tldr_t5
from figures import peers, rows
from nashmd_jax import arrays, files, models, policy, sampling
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import folders, peft
from nashmd_jax.models import lora
from nashmd_jax.stages import export
from tests import hub_test, lora_runs, small_records

ALPHA, MIXTURE = 8.0, 0.3
EOS = "</s>"
RUN = "nash_md"
CONFIGS = {"t5": tldr_t5, "gemma2": tldr_decoder}
AUTO = {
  "t5": peft_library.AutoPeftModelForSeq2SeqLM,
  "gemma2": peft_library.AutoPeftModelForCausalLM,
}
ADAMW = dict(
  name="adamw",
  learning_rate=1e-2,
  warmup_steps=0,
  decay_steps=0,
  max_grad_norm=1.0,
  b1=0.9,
  b2=0.98,
  weight_decay=0.0,
)
LARGE = dict(
  family="llama",
  vocab_size=8192,
  width=1024,
  num_layers=8,
  num_heads=16,
  num_kv_heads=4,
  head_dim=64,
  mlp_dim=3072,
  rope_base=10_000.0,
)
FILE_BYTES = 150_000_000


def save_tokenizer(folder: pathlib.Path) -> None:
  """A tokenizer of the words w0, w2, …, one for each token but EOS."""
  words = {EOS if i == 1 else f"w{i}": i for i in range(peers.VOCAB)}
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(words, unk_token="w3")
  )
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  files.save_text(folder / "tokenizer.json", tokenizer.to_str())
  files.save_json(
    folder / "tokenizer_config.json",
    {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS},
  )


def train(found: folders.Pretrained, batch, steps: int) -> folders.Pretrained:
  """Some steps of maximum likelihood on one batch."""
  optimizer = optax.adam(1e-2)

  def loss(params):
    log_prob = policy.response_log_probs(
      found.model, params, **batch, temperature=1.0
    )
    return -log_prob.mean()

  @jax.jit
  def step(params, state):
    updates, state = optimizer.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, updates), state

  params, state = found.params, optimizer.init(found.params)
  for _ in range(steps):
    params, state = step(params, state)
  return found._replace(params=params)


def trained_row(family: str) -> rows.Row:
  """Two steps here, then the same text there."""
  found = folders.load_pretrained(hub_test.GOLDEN / family, hub_test.one_device)
  batch = {name: jnp.asarray(x) for name, x in peers.make_batch().items()}
  trained = train(found, batch, 2)
  with tempfile.TemporaryDirectory() as folder:
    beside, out = pathlib.Path(folder) / "beside", pathlib.Path(folder) / "out"
    save_tokenizer(beside)
    hub_test.save(out, trained, beside=beside)
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    ours = tokenizer_lib.load_tokenizer(
      out / "tokenizer.json", eos_token=EOS, bos_token=None
    )
    peer = peers.load_peer(out, family)
  prompts = [
    " ".join(f"w{i}" for i in row) for row in ((9, 50, 7), (88, 12, 4))
  ]
  tokens = np.array([ours.encode(prompt) for prompt in prompts], np.int32)
  assert (tokens == np.array(theirs(prompts)["input_ids"])).all()
  asked = {"prompts": tokens, "prompt_mask": tokens >= 0}
  written = [
    [tokenizer.decode(row) for row in ids]
    for tokenizer, ids in (
      (ours, hub_test.greedy(trained, asked, peers.NEW_TOKENS)),
      (theirs, peers.greedy(peer, family, asked)),
    )
  ]
  moved = hub_test.greedy(found, asked, peers.NEW_TOKENS)
  assert written[0] != [ours.decode(row) for row in moved]
  return rows.row(
    f"{family}: texts of 2 that differ from transformers' after two training "
    "steps here",
    sum(a != b for a, b in zip(*written, strict=True)),
    "=",
    0,
  )


def adapters_of(found: folders.Pretrained):
  """Random adapters of every matrix, none of them zero."""
  adapters = lora.init_lora(
    jax.random.key(0), found.params, rank=3, targets=tuple(lora.INPUT_AXES)
  )
  keys = iter(jax.random.split(jax.random.key(1), 99))
  return jax.tree.map(
    lambda x: x + 0.05 * jax.random.normal(next(keys), x.shape), adapters
  )


def adapter_rows(family: str) -> list[rows.Row]:
  """Adapters here, in peft, merged, and in the opponent."""
  base = folders.load_pretrained(hub_test.GOLDEN / family, hub_test.one_device)
  before = jax.tree.map(np.array, base.params)
  adapters = adapters_of(base)
  params = lora.attach(base.params, adapters, alpha=ALPHA)
  batch = peers.make_batch()
  ours = base.model.response_logits(params, *map(jnp.asarray, batch.values()))
  merged = base._replace(params=lora.merge(base.params, adapters, alpha=ALPHA))
  with tempfile.TemporaryDirectory() as folder:
    adapter, whole = pathlib.Path(folder) / "peft", pathlib.Path(folder) / "all"
    peft.save_adapter(
      adapter, adapters, base.config, alpha=ALPHA, base="golden"
    )
    hub_test.save(whole, merged)
    peer = peers.load_peer(hub_test.GOLDEN / family, family)
    adapted = peft_library.PeftModel.from_pretrained(peer, adapter)
    separate = folders.load_pretrained(whole, hub_test.one_device)
    errors = {}
    for name, other in (
      ("peft", adapted),
      ("merged", peers.load_peer(whole, family)),
    ):
      with torch.no_grad():
        theirs = peers.logits_of(other, family, batch).numpy()
      errors[name] = float(np.abs(theirs - ours).max())
  error = opponent_error(base, params, separate, batch)
  same = jax.tree.map(lambda a, b: bool((a == b).all()), base.params, before)
  return [
    *[
      rows.row(
        f"{family}: largest difference of logits with adapters from "
        f"transformers, folder {name}",
        value,
        "≤",
        1e-4,
      )
      for name, value in errors.items()
    ],
    rows.row(
      f"{family}: opponent from adapters and base against two whole models, "
      "nats",
      error,
      "≤",
      1e-5,
    ),
    rows.row(
      f"{family}: leaves of the base that using adapters has changed",
      sum(not one for one in jax.tree.leaves(same)),
      "=",
      0,
    ),
  ]


def stage_rows(family: str) -> list[rows.Row]:
  """Adapters that the stages have trained and exported, in peft."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name) / "run"
    config = stage_config(family, pathlib.Path(name))
    lora_runs.run(config, folder)
    place = folder / "export" / RUN
    found = export.load_deployed(place, hub_test.one_device)
    errors, differ, moved = [], 0, []
    for name, params in found.sets.items():
      loaded = AUTO[family].from_pretrained(place / name).eval()
      base = peers.load_peer(folder / "start" / "model", family)
      ours = folders.Pretrained(None, found.model, params)
      batch = peers.make_batch()
      given = map(jnp.asarray, batch.values())
      answer = found.model.response_logits(params, *given)
      with torch.no_grad():
        theirs, before = (
          peers.logits_of(peer, family, batch).numpy()
          for peer in (loaded, base)
        )
      errors.append(float(np.abs(theirs - answer).max()))
      moved.append(float(np.abs(theirs - before).max()))
      written = hub_test.greedy(ours, batch, peers.NEW_TOKENS)
      differ += int((written != peers.greedy(loaded, family, batch)).sum())
  sets = f"{family}: of the {len(errors)} sets of adapters of a trained mixture"
  return [
    rows.row(f"{sets}, largest difference of logits from peft",
             max(errors), "≤", 1e-4),
    rows.row(f"{sets}, least change of a logit from the base",
             min(moved), "≥", 1e-2),
    rows.row(f"{sets}, greedy tokens that differ from peft",
             float(differ), "=", 0),
  ]  # fmt: skip


def stage_config(family: str, folder: pathlib.Path):
  """A tiny run with steps that move the adapters, from a folder of its own."""
  config = CONFIGS[family].get_config("tiny").unlock()
  records = small_records.write(folder / "records")
  config.data.update({"records": str(records), "schema": "summary"})
  config.lora.update({"rank": 3, "targets": tuple(lora.INPUT_AXES)})
  for section in (config.sft, config.nash):
    section.optimizer = ADAMW
    section.train.update({"steps": 8, "eval_every": 8, "save_every": 8})
  config.nash.judge = "raters"
  config.nash.runs = {RUN: {"deploy": "mixture"}}
  config.tournament.update({"policies": ("sft",), "judges": ("raters",)})
  config.export.update({"policies": (RUN,), "form": "peft"})
  return config


def opponent_error(base, params, separate: folders.Pretrained, batch) -> float:
  """Largest difference of log-probs of y′, decode loop against the formula."""
  prompts, mask = map(jnp.asarray, (batch["prompts"], batch["prompt_mask"]))
  out = sampling.rollout(
    base.model,
    {"policy": params, "reference": base.params},
    [{"policy": 1.0}, {"policy": 1 - MIXTURE, "reference": MIXTURE}],
    prompts=prompts,
    prompt_mask=mask,
    keys=sampling.row_keys(jax.random.key(3), jnp.arange(len(prompts)), 2),
    max_response=9,
    temperature=1.0,
    eos_ids=(1,),
  )
  tokens = out.tokens[:, 1]
  log_pi, log_mu = (
    arrays.log_softmax(
      found.model.response_logits(found.params, prompts, mask, tokens), 1.0
    )
    for found in (separate, base)
  )
  mixed = (1 - MIXTURE) * log_pi + MIXTURE * log_mu
  expected = arrays.token_log_probs(mixed, tokens, 1.0)
  difference = jnp.where(out.mask[:, 1], expected - out.log_prob[:, 1], 0)
  return float(jnp.abs(difference).max())


def memory_row() -> rows.Row:
  """What loading holds beyond the parameters, in a process of its own."""
  out = subprocess.run(
    [sys.executable, "-m", "figures.model_files"],
    capture_output=True,
    text=True,
  )
  share = None
  if out.returncode == 0:
    share = float(out.stdout.split()[-1])
  return rows.row(
    "peak host memory of loading beyond the parameters themselves, as a share "
    "of the largest file",
    share,
    "≤",
    1.2,
  )


def _status(name: str) -> int:
  text = pathlib.Path("/proc/self/status").read_text()
  line = next(one for one in text.splitlines() if one.startswith(name))
  return int(line.split()[1]) * 1024


def measure_memory() -> float:
  """Peak while loading a model of some 500 MB, less baseline and model."""
  config = models.make_config(**LARGE)
  shapes = jax.eval_shape(models.make_model(config).init, jax.random.key(0))
  size = sum(4 * x.size for x in jax.tree.leaves(shapes))
  with tempfile.TemporaryDirectory() as folder:
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    start = folders.Pretrained(config, None, zeros)
    hub_test.save(folder, start, max_file_bytes=FILE_BYTES)
    del zeros, start
    largest = max(
      path.stat().length for path in epath.Path(folder).glob("*.safetensors")
    )
    # The peak so far, that of writing, is forgotten.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    baseline = _status("VmRSS")
    found = folders.load_pretrained(folder, hub_test.one_device)
    jax.block_until_ready(found.params)
    return (_status("VmHWM") - baseline - size) / largest


if __name__ == "__main__":
  print(measure_memory())
