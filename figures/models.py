"""`make models`: parity with transformers, figures in out/models.json.

Also writes the golden folders that tests/hub_test.py reads.
"""

from collections.abc import Mapping
import pathlib
import shutil
import sys
import tempfile

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from figures import model_files, peers, rows
from nashmd_jax import arrays
from nashmd_jax.hub import (
  architectures,
  config_json,
  folders,
  safetensors,
  tensor_names,
  weights,
)
from nashmd_jax.models import make_model, positions
from tests import hub_test, released

OUT = pathlib.Path("out") / "models.json"
BATCH = ("prompts", "prompt_mask", "responses")


def write_golden(family: str) -> Mapping[str, np.ndarray]:
  """A folder with random weights, and what transformers makes of them."""
  folder = hub_test.GOLDEN / family
  shutil.rmtree(folder, ignore_errors=True)
  peer, batch = peers.make_peer(family), peers.make_batch()
  peer.save_pretrained(folder)
  with torch.no_grad():
    logits = peers.logits_of(peer, family, batch).numpy()
  continuation = peers.greedy(peer, family, batch)
  expected = batch | {"logits": logits, "continuation": continuation}
  safetensors.save_file(
    epath.Path(folder / "expected.safetensors"),
    {name: (array.shape, array.dtype) for name, array in expected.items()},
    expected.__getitem__,
  )
  return expected


def logits(found: folders.Pretrained, batch) -> jax.Array:
  """Logits of the batch's responses, f32[B, R, V]."""
  arguments = [jnp.asarray(batch[name]) for name in BATCH]
  return found.model.response_logits(found.params, *arguments)


def parity_rows(family: str) -> list[rows.Row]:
  """Logits, greedy text and weights there and back."""
  expected = write_golden(family)
  found = folders.load_pretrained(hub_test.GOLDEN / family, hub_test.one_device)
  order = np.argsort(expected["prompt_mask"], axis=1, kind="stable")
  left = expected | {
    name: np.take_along_axis(expected[name], order, axis=1)
    for name in ("prompts", "prompt_mask")
  }
  error = max(
    float(np.abs(logits(found, batch) - expected["logits"]).max())
    for batch in (expected, left)
  )
  written = hub_test.greedy(found, expected, peers.NEW_TOKENS)
  with tempfile.TemporaryDirectory() as folder:
    ours, theirs = pathlib.Path(folder) / "ours", pathlib.Path(folder) / "peer"
    hub_test.save(ours, found)
    peer = peers.load_peer(ours, family)
    with torch.no_grad():
      read = peers.logits_of(peer, family, {k: expected[k] for k in BATCH})
    peer.save_pretrained(theirs)
    again = folders.load_pretrained(theirs, hub_test.one_device)
  same = jax.tree.map(
    lambda a, b: bool((a == b).all()), found.params, again.params
  )
  exported = float(np.abs(read.numpy() - expected["logits"]).max())
  return [
    rows.row(
      f"{family}: largest difference of logits from transformers, padding on "
      "either side",
      error,
      "≤",
      1e-4,
    ),
    rows.row(
      f"{family}: the same of transformers itself, reading a folder of ours",
      exported,
      "≤",
      1e-4,
    ),
    rows.row(
      f"{family}: tokens of {written.size} greedy ones that differ",
      float((written != expected["continuation"]).sum()),
      "=",
      0,
    ),
    rows.row(
      f"{family}: weights that differ after ours → theirs → ours, of "
      f"{len(jax.tree.leaves(found.params))}",
      sum(not one for one in jax.tree.leaves(same)),
      "=",
      0,
    ),
  ]


def gradient_rows(family: str) -> list[rows.Row]:
  """Loss and gradients on one batch."""
  peer, batch = peers.make_peer(family), peers.make_batch()
  their_loss = peers.response_loss(peer, family, batch)
  their_loss.backward()
  found = folders.load_pretrained(hub_test.GOLDEN / family, hub_test.one_device)
  responses = jnp.asarray(batch["responses"])

  def loss_of(params):
    answer = logits(found._replace(params=params), batch)
    return -arrays.token_log_probs(answer, responses, 1.0).mean()

  loss, grads = jax.value_and_grad(loss_of)(found.params)
  weights, worst = dict(peer.named_parameters()), 0.0
  for path, name in tensor_names.tensor_names(found.config).items():
    leaf = np.asarray(tensor_names.at(grads, path))
    layers = enumerate(leaf) if name.stacked else [(None, leaf)]
    for number, ours in layers:
      theirs = weights[name.template.format(number)].grad.numpy()
      error = np.linalg.norm(name.to_there(ours) - theirs)
      worst = max(worst, float(error / np.linalg.norm(theirs)))
  relative = abs(float(loss) / their_loss.item() - 1)
  return [
    rows.row(f"{family}: relative error of the loss", relative, "≤", 1e-4),
    rows.row(
      f"{family}: relative error of the gradient, worst tensor of "
      f"{len(weights)}",
      worst,
      "≤",
      1e-4,
    ),
  ]


def bucket_row() -> rows.Row:
  """Relative buckets at the sizes of the released checkpoints."""
  from transformers.models.t5 import modeling_t5

  distance = np.arange(-3000, 3001)
  differ = 0
  for bidirectional in (True, False):
    theirs = modeling_t5.T5Attention._relative_position_bucket(
      torch.tensor(distance), bidirectional, 32, 128
    )
    ours = positions.relative_buckets(
      jnp.asarray(distance),
      num_buckets=32,
      max_distance=128,
      bidirectional=bidirectional,
    )
    differ += int((np.asarray(ours) != theirs.numpy()).sum())
  return rows.row(
    "t5: distances up to 3,000 tokens in another bucket", differ, "=", 0
  )


def released_rows() -> list[rows.Row]:
  """Names and shapes of all tensors of released models, without weights."""
  found = []
  for name, settings in released.CONFIGS.items():
    config = transformers.AutoConfig.for_model(**settings)
    with torch.device("meta"):
      peer = transformers.AutoModelForCausalLM.from_config(config)
    theirs = {
      key: safetensors.Tensor(
        epath.Path(), 0, tuple(one.shape), np.dtype("<f4")
      )
      for key, one in peer.state_dict().items()
      if not (config.tie_word_embeddings and key == weights.HEAD)
    }
    ours = config_json.config_from_json(config.to_dict())
    model = make_model(ours)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    differ = architectures.differences(
      ours, config_json.config_from_json(settings)
    )
    names = tensor_names.tensor_names(ours)
    tensors = weights.chosen(epath.Path(name), ours, theirs)
    weights.check_tensors(name, names, shapes, tensors)
    found.append(
      rows.row(
        f"{name}: {len(theirs)} tensors of its own names and shapes; settings "
        "that transformers reads otherwise",
        len(differ),
        "=",
        0,
      )
    )
  return found


def main() -> int:
  """Measures all rows and writes them."""
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  found = [bucket_row(), *released_rows()]
  for family in hub_test.FAMILIES:
    found += parity_rows(family)
  for family in ("t5", "llama", "gemma2"):
    found += gradient_rows(family)
  for family in ("t5", "llama"):
    found.append(model_files.trained_row(family))
  for family in ("t5", "gemma3_text"):
    found += model_files.adapter_rows(family)
  for family in ("t5", "gemma2"):
    found += model_files.stage_rows(family)
  found.append(model_files.memory_row())
  return rows.report(OUT, found)


if __name__ == "__main__":
  sys.exit(main())
