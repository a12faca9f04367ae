"""What an exported folder holds beside its weights: how it was trained to read,
answer and end.

Tokenizer, chat template, end tokens and temperature are those of the training.
What the folder that a model started in says of them otherwise does not come
along, and that is printed. `README.md` is the card of the policy.
"""

from collections.abc import Mapping
import hashlib
import json
from typing import Any

from etils import epath

from nashmd_jax import files, pipeline, sampling, tokenization
from nashmd_jax import task as task_lib
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import folders, pretrained, token_files
from nashmd_jax.nash import settings
from nashmd_jax.stages import judging

Files = dict[str, bytes | None]
CARD, TOKENIZER = "README.md", "tokenizer.json"
# Other forms of a tokenizer, which would contradict a file of the user's.
OTHER_FORMS = (
  "added_tokens.json",
  "tokenizer.model",
  "spiece.model",
  "vocab.json",
  "merges.txt",
)
# Responses are drawn from all that the policy gives, at its temperature.
DRAWN = {"do_sample": True, "top_k": 0, "top_p": 1.0}
# What else of a generation config would have others drawn, or none.
BENDS = (
  "min_p",
  "typical_p",
  "epsilon_cutoff",
  "eta_cutoff",
  "repetition_penalty",
  "encoder_repetition_penalty",
  "no_repeat_ngram_size",
  "num_beams",
  "num_beam_groups",
  "penalty_alpha",
  "length_penalty",
  "diversity_penalty",
  "bad_words_ids",
  "suppress_tokens",
  "begin_suppress_tokens",
  "forced_bos_token_id",
  "forced_eos_token_id",
)


def temperature(config: pipeline.Config, name: str) -> float:
  """At which a policy was trained; that of SFT is the model's own."""
  if name == judging.START:
    return 1.0
  return float(settings.run_section(config, name).temperature)


def make_files(
  config: pipeline.Config,
  task: task_lib.Task,
  tokenizer: epath.Path,
  name: str,
  *,
  lane: sampling.Lane,
  origin: Mapping[str, Any],
) -> tuple[Files, list[str]]:
  """The files of one policy, and what the model's own folder says otherwise.

  Args:
    config: of the run.
    task: of the run.
    tokenizer: the tokenizer.json that was trained with.
    name: of the policy.
    lane: in which it answers.
    origin: of `origin.json`.
  Returns: contents by file name, None for one that is not to be there; a phrase
    for each difference.
  """
  source = task.starts["model"].folder
  said: list[str] = []
  found: Files = _tokens(task, tokenizer, source, said)
  template = tokenization.chat_text(config, "model")
  if template is not None:
    found["chat_template.jinja"] = template.encode()
  found[folders.GENERATION] = _json(
    _generation(config, task, source, name, said)
  )
  found[CARD] = _card(config, task, tokenizer, name, lane, origin).encode()
  return found, said


def _json(value: Any) -> bytes:
  return (json.dumps(value, indent=1) + "\n").encode()


def _tokens(task, tokenizer: epath.Path, source, said: list[str]) -> Files:
  """The tokenizer, and the names of what starts and ends a response."""
  written = files.read_bytes(tokenizer)
  found: Files = {TOKENIZER: written}
  there = None if source is None else source / TOKENIZER
  if there is not None and there.exists():
    if not tokenizer_lib.same(tokenizer, there):
      said.append(f"tokenizer.json is {tokenizer}, not {there}")
      found |= dict.fromkeys(OTHER_FORMS)
  ends = tokenizer_lib.names_of(tokenizer, task.tokenizer.eos_ids[:1])
  own = {} if source is None else token_files.load(source, token_files.SETTINGS)
  told = own or {"tokenizer_class": "PreTrainedTokenizerFast"}
  found[token_files.SETTINGS] = _json(_ending(told, ends[0], source, said))
  own = {} if source is None else token_files.load(source, token_files.NAMES)
  if own:
    found[token_files.NAMES] = _json(_ending(own, ends[0], source, []))
  return found


def _ending(own: Mapping[str, Any], end: str, source, said) -> dict[str, Any]:
  """What a file says of tokens, with the end that was trained."""
  before = own.get("eos_token")
  name = before.get("content") if isinstance(before, Mapping) else before
  if name == end:
    return dict(own)
  if name is not None:
    said.append(f"responses end in {end!r}, not {name!r} as {source} says")
  return {**own, "eos_token": end}


def _generation(config, task, source, name, said) -> dict[str, Any]:
  """How the policy draws a response."""
  own = {} if source is None else token_files.load(source, folders.GENERATION)
  told = DRAWN | {
    "temperature": temperature(config, name),
    **pretrained.end_settings(task.tokenizer),
  }
  others = {
    key: own[key]
    for key in own
    if key in BENDS or (key in told and own[key] != told[key])
  }
  for key in sorted(others):
    now = f"is {told[key]!r}" if key in told else "is left out"
    said.append(f"{key} {now}, not {others[key]!r} as {source} says")
  kept = {key: own[key] for key in own if key not in BENDS}
  if source is None:
    kept = {
      key: value
      for key, value in pretrained.token_settings(task.tokenizer).items()
      if key.endswith("_id")
    }
  return kept | told


def _card(config, task, tokenizer, name, lane, origin) -> str:
  """A page on the policy, as a hub shows it."""
  ids = ", ".join(map(str, task.tokenizer.eos_ids))
  ends = tokenizer_lib.names_of(tokenizer, task.tokenizer.eos_ids)
  digest = hashlib.sha256(files.read_bytes(tokenizer)).hexdigest()
  source = task.starts["model"].folder
  rows = {
    "Policy": name,
    "Started from": "random weights" if source is None else str(source),
    "Temperature": f"{temperature(config, name):g}",
    "Ends a response": f"{' '.join(map(repr, ends))} (ids {ids})",
    "Tokenizer": f"tokenizer.json, SHA-256 {digest}",
    "Chat template": tokenization.chat_text(config, "model")
    and "chat_template.jinja"
    or "none: prompts are text as it is",
    "Longest prompt": f"{config.layout.prompt_buckets[-1]} tokens",
    "Longest response": f"{config.layout.max_response} tokens",
  }
  if name != judging.START:
    section = settings.run_section(config, name)
    rows |= {
      "Opponent": str(section.opponent),
      "Loss": str(section.loss),
      "Judge": str(section.judge),
      "τ, the price of KL": f"{section.kl_coef:g}",
      "β that was trained": _betas(section),
    }
  if len(lane) > 1:
    rows["Answers as a mixture of"] = ", ".join(
      f"{weight:g} {part}" for part, weight in lane.items()
    )
  for job, one in origin.items():
    for fact, value in ((one["key"] or {}).get("facts") or {}).items():
      rows[f"{fact} of {job}"] = str(value)
  lines = [f"| {key} | {_cell(value)} |" for key, value in rows.items()]
  table = "\n".join(["| | |", "|---|---|", *lines])
  return (
    f"# {name}\n\nTrained with nashmd_jax. Responses are drawn from the whole "
    "distribution at the\ntemperature below, and end in the tokens below.\n\n"
    f"{table}\n"
  )


def _betas(section) -> str:
  """β over the steps of a run."""
  start, end, steps = section.mixture, section.mixture_end, section.train.steps
  if not section.mixture_steps or start == end:
    return f"{start:g}"
  share = min(1.0, steps / section.mixture_steps)
  return f"{start:g} to {start + (end - start) * share:g} in {steps} steps"


def _cell(text: str) -> str:
  return text.replace("|", "\\|").replace("\n", " ")
