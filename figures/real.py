"""`make real`: real pretrained folders through the program, in out/real.json.

Needs the folders `smollm2` and `gemma3-270m` in out/models or where
NASHMD_MODELS says, and SciTLDR where NASHMD_DATA says; what is absent is not
measured and does not hold. About half an hour on 2 CPU cores. The rows of
`real_kernels`, made before in another environment, are among them.
"""

from collections.abc import Sequence
import functools
import itertools
import json
import lzma
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import peft as peft_library
import torch
import transformers

from configs import finetune
from figures import real_kernels, rows
from nashmd_jax import files, tokenization
from nashmd_jax.data import messages
from nashmd_jax.hub import folders
from tests import hub_test, real_data

OUT = pathlib.Path("out") / "real.json"
NAMES = {"smollm2": True, "gemma3-270m": False}  # whether it has a chat
PROMPTS, GREEDY, NEW_TOKENS, LENGTH = 20, 4, 64, 96
RUN = "nash_md"
ASK = "Summarise in one sentence:\n\n{prompt}"


@functools.cache
def texts() -> list[str]:
  """Real abstracts."""
  with lzma.open(real_data.FOLDER / "scitldr_dev.jsonl.xz", "rt") as file:
    return [json.loads(line)["text"] for line in itertools.islice(file, 60)]


def config_of(folder: pathlib.Path):
  config = finetune.get_config("tiny").unlock()
  config.model.pretrained = str(folder)
  return config


def token_rows(name: str, folder: pathlib.Path) -> list[rows.Row]:
  """Ids of prompts, as text and as a conversation."""
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  config = config_of(folder)
  _, ours = tokenization.load_tokenizer(config, pathlib.Path(), {})
  differ = sum(
    [*ours.start_ids, *ours.encode(text), *ours.close_ids]
    != theirs(text)["input_ids"]
    for text in texts()
  )
  found = [
    rows.row(f"{name}: prompts of {len(texts())} whose ids are others than "
             "transformers'", differ, "=", 0)
  ]  # fmt: skip
  chat = tokenization.load_chat(config, "model")
  assert (chat is not None) == NAMES[name]
  if chat is None:
    return found
  differ, told = 0, 0
  for text in texts():
    said = [{"role": "user", "content": text}]
    for asked in (said, [{"role": "system", "content": "Be brief."}, *said]):
      ids = theirs.apply_chat_template(
        asked, add_generation_prompt=True, tokenize=True, return_dict=True
      )["input_ids"]
      differ += messages.encode_messages(asked, chat, ours) != ids
      told += 1
  claim = f"{name}: conversations of {told} whose ids are others"
  return [*found, rows.row(claim, differ, "=", 0)]


def prompts_of(folder: pathlib.Path, *, chat: bool) -> list[list[int]]:
  """Token ids of real prompts of at most `LENGTH` tokens."""
  config = config_of(folder)
  _, tokenizer = tokenization.load_tokenizer(config, pathlib.Path(), {})
  found = tokenization.load_chat(config, "model") if chat else None
  ids = []
  for text in texts()[:PROMPTS]:
    if found is None:
      ids.append([*tokenizer.start_ids, *tokenizer.encode(text)][:LENGTH])
      continue
    record = {"prompt": text}
    asked = found._replace(user=ASK)
    ids.append(
      messages.encode_prompt(record, asked, tokenizer, room=LENGTH, name="")[0]
    )
  return ids


def batch_of(ids: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
  """Prompts padded on the right."""
  width = max(map(len, ids))
  tokens = np.zeros((len(ids), width), np.int32)
  for row, one in zip(tokens, ids, strict=True):
    row[: len(one)] = one
  sizes = np.array([len(one) for one in ids])
  mask = np.arange(width)[None] < sizes[:, None]
  return {"prompts": tokens, "prompt_mask": mask}


@torch.no_grad()
def their_text(peer, ids: Sequence[int]) -> list[int]:
  """Greedy tokens of transformers, past any end."""
  peer.generation_config.eos_token_id = None
  out = peer.generate(
    torch.tensor([ids]),
    attention_mask=torch.ones((1, len(ids)), dtype=torch.long),
    do_sample=False,
    max_new_tokens=NEW_TOKENS,
    eos_token_id=None,
    pad_token_id=0,
  )
  return out[0, len(ids) :].tolist()


def differing(found: folders.Pretrained, peer, ids) -> int:
  """How many greedy texts of `NEW_TOKENS` tokens differ."""
  ours = hub_test.greedy(found, batch_of(ids), NEW_TOKENS)
  return sum(
    list(map(int, row)) != their_text(peer, one)
    for row, one in zip(ours, ids, strict=True)
  )


def parity_rows(name: str, folder: pathlib.Path) -> list[rows.Row]:
  """Logits, greedy text, there and back."""
  found = folders.load_pretrained(folder, hub_test.one_device)
  peer = transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32
  ).eval()
  error = 0.0
  for ids in prompts_of(folder, chat=False):
    half = len(ids) // 2
    split = batch_of([ids[:half]])
    ours = found.model.response_logits(
      found.params,
      jnp.asarray(split["prompts"]),
      jnp.asarray(split["prompt_mask"]),
      jnp.asarray([ids[half:]]),
    )
    with torch.no_grad():
      theirs = peer(torch.tensor([ids])).logits[:, half - 1 : -1].numpy()
    error = max(error, float(np.abs(np.asarray(ours) - theirs).max()))
  layers = found.config.num_layers
  told = [
    rows.row(
      f"{name}: largest difference of logits from transformers, {PROMPTS} real "
      f"prompts, {layers} layers",
      error,
      "≤",
      1e-3,
    )
  ]
  for chat in (False, True)[: 1 + NAMES[name]]:
    ids = prompts_of(folder, chat=chat)[:GREEDY]
    told.append(
      rows.row(
        f"{name}: greedy texts of {NEW_TOKENS} tokens that differ, of "
        f"{len(ids)}, {'in the chat template' if chat else 'text as it is'}",
        differing(found, peer, ids),
        "=",
        0,
      )
    )
  with tempfile.TemporaryDirectory() as place:
    hub_test.save(pathlib.Path(place), found)
    again = folders.load_pretrained(place, hub_test.one_device)
  same = jax.tree.map(
    lambda a, b: bool((a == b).all()), found.params, again.params
  )
  claim = f"{name}: weights that differ there and back, of {layers} layers"
  changed = sum(not one for one in jax.tree.leaves(same))
  return [*told, rows.row(claim, changed, "=", 0)]


def write_records(place: pathlib.Path) -> pathlib.Path:
  """Conversations made of the abstracts."""
  place.mkdir(parents=True, exist_ok=True)
  with lzma.open(real_data.FOLDER / "scitldr_dev.jsonl.xz", "rt") as file:
    found = [json.loads(line) for line in file]
  made = [
    {
      "id": row["id"],
      "messages": [
        {"role": "user", "content": ASK.replace("{prompt}", row["text"])},
        {"role": "assistant", "content": row["summaries"][0]},
      ],
    }
    for row in found
  ]
  for number, split in enumerate(("train", "validation", "test")):
    lines = (json.dumps(row) + "\n" for row in made[number::3])
    (place / f"{split}.jsonl").write_text("".join(lines))
  return place


def one_command(name: str, folder: pathlib.Path, form: str) -> pathlib.Path:
  """A folder to a trained, exported policy, without a config of one's own."""
  workdir = OUT.parent / "real" / f"{name}-{form}"
  shutil.rmtree(workdir, ignore_errors=True)
  learning = (
    "--config.nash.optimizer.learning_rate=1e-2",
    "--config.sft.train.steps=0",
  )
  subprocess.run(
    [
      sys.executable, "-m", "nashmd_jax.main",
      "--config=configs/finetune.py:tiny", f"--workdir={workdir}",
      f"--config.model.pretrained={folder.absolute()}",
      f"--config.data.records={write_records(OUT.parent / 'real' / 'records')}",
      f"--config.export.form={form}", *learning,
    ],
    check=True,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
  )  # fmt: skip
  return workdir / "export" / RUN


def command_rows(name: str, folder: pathlib.Path) -> list[rows.Row]:
  """What one command exports, in transformers and in peft."""
  ids = prompts_of(folder, chat=NAMES[name])[:GREEDY]
  told, texts_of = [], {}
  for form in ("whole", "peft"):
    try:
      place = one_command(name, folder, form)
    except subprocess.CalledProcessError:
      claim = f"{name}: one command to an exported policy ({form})"
      told.append(rows.row(claim, None, "=", 0))
      continue
    loader = (
      peft_library.AutoPeftModelForCausalLM
      if form == "peft"
      else transformers.AutoModelForCausalLM
    )
    peer = loader.from_pretrained(place, dtype=torch.float32).eval()
    texts_of[form] = [their_text(peer, one) for one in ids]
  if len(texts_of) < 2:
    return told
  found = folders.load_pretrained(
    OUT.parent / "real" / f"{name}-whole" / "export" / RUN, hub_test.one_device
  )
  ours = hub_test.greedy(found, batch_of(ids), NEW_TOKENS).tolist()
  base = folders.load_pretrained(folder, hub_test.one_device)
  before = hub_test.greedy(base, batch_of(ids), NEW_TOKENS).tolist()
  told = [
    rows.row(
      f"{name}: greedy texts of a trained, exported policy that differ in "
      f"{reader}, of {len(ids)}",
      sum(a != b for a, b in zip(ours, texts_of[form], strict=True)),
      "=",
      0,
    )
    for form, reader in (("whole", "transformers"), ("peft", "peft"))
  ]
  moved = sum(a != b for a, b in zip(ours, before, strict=True))
  claim = f"{name}: of these, those that training has changed"
  return [*told, rows.row(claim, moved, "≥", 1)]


def folder_rows(name: str) -> list[rows.Row]:
  """Everything that is claimed of one folder."""
  folder = real_data.MODELS / name
  if not (folder / "config.json").exists() or not real_data.FOLDER.exists():
    absent = f"{name}: not measured, {folder} or {real_data.FOLDER} is absent"
    return [rows.row(absent, None, "=", 0)]
  told = [*token_rows(name, folder), *parity_rows(name, folder)]
  return [*told, *command_rows(name, folder)]


def main() -> int:
  """Measures all rows and writes them."""
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  kernels = real_kernels.OUT
  absent = rows.row(f"{kernels} is absent", None, "=", 0)
  found = files.load_json(kernels) if kernels.exists() else [absent]
  for name in NAMES:
    found += folder_rows(name)
  return rows.report(OUT, found)


if __name__ == "__main__":
  sys.exit(main())
