"""Adapters: hand values, the base untouched, the opponent built of them."""

import json
import pathlib

from absl.testing import absltest, parameterized
from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nashmd_jax import arrays, mistakes, models, policy, sampling
from nashmd_jax import task as task_lib
from nashmd_jax.hub import folders, peft, safetensors
from nashmd_jax.models import lora
from tests import decoder_test, hub_test, t5_test

FAMILIES = {
  "t5": dict(
    vocab_size=30, width=16, num_heads=2, head_dim=4, mlp_dim=32,
    encoder_layers=2, decoder_layers=2, num_buckets=8, max_distance=16,
  ),
  "llama": decoder_test.SIZES | {"num_layers": 2},
}  # fmt: skip
TARGETS = tuple(lora.INPUT_AXES)
ALPHA, RANK = 6.0, 3
MODELS = {
  "t5": t5_test.tiny_model,
  "gemma3_text": lambda: decoder_test.tiny_model("gemma3_text"),
}


def adapted(model: models.LanguageModel, targets=TARGETS):
  """A base, and adapters of it that are not zero."""
  base = model.init(jax.random.key(0))
  adapters = lora.init_lora(jax.random.key(1), base, rank=RANK, targets=targets)
  keys = iter(jax.random.split(jax.random.key(2), 99))
  adapters = jax.tree.map(
    lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), adapters
  )
  return base, adapters


class LoraTest(parameterized.TestCase):
  @parameterized.parameters(
    ("btd,dhk->bthk", (2, 3, 4), (4, 5, 6), 1),
    ("bthk,hkd->btd", (2, 3, 5, 6), (5, 6, 4), 2),
  )
  def test_projection_is_that_of_the_summed_matrix(
    self, equation, x_shape, shape, inputs
  ):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], x_shape)
    matrix = jax.random.normal(keys[1], shape)
    a = jax.random.normal(keys[2], (*shape[:inputs], RANK))
    b = jax.random.normal(keys[3], (RANK, *shape[inputs:]))
    got = lora.project(x, lora.Adapted(matrix, a, b, 0.5), inputs)
    total = matrix + 0.5 * jnp.tensordot(a, b, 1)
    np.testing.assert_allclose(
      got, jnp.einsum(equation, x, total), rtol=1e-4, atol=1e-4
    )

  def test_a_fresh_adapter_changes_nothing(self):
    model, batch = t5_test.tiny_model(), t5_test.tiny_batch()
    base = model.init(jax.random.key(0))
    adapters = lora.init_lora(
      jax.random.key(1), base, rank=RANK, targets=TARGETS
    )
    params = lora.attach(base, adapters, alpha=ALPHA)
    np.testing.assert_array_equal(
      model.response_logits(params, *batch.values()),
      model.response_logits(base, *batch.values()),
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(adapters):
      if path[-1].key == "a":  # variance 1 / in, within four deviations
        fan_in = np.prod(leaf.shape[1:-1])
        spread = 4 * np.sqrt(2 / leaf.size)
        self.assertAlmostEqual(float(leaf.var()) * fan_in, 1, delta=spread)

  @parameterized.parameters(*MODELS)
  def test_training_moves_the_adapters_and_no_leaf_of_the_base(self, name):
    model, batch = MODELS[name](), t5_test.tiny_batch()
    base, adapters = adapted(model)
    before = jax.tree.map(np.array, base)
    optimizer = optax.adam(1e-2)

    def loss(adapters, base):
      params = lora.attach(base, adapters, alpha=ALPHA)
      logits = model.response_logits(params, *batch.values())
      return -arrays.token_log_probs(logits, batch["responses"], 1.0).mean()

    @jax.jit
    def step(adapters, state, base):
      value, grads = jax.value_and_grad(loss)(adapters, base)
      updates, state = optimizer.update(grads, state)
      return optax.apply_updates(adapters, updates), state, value

    state, values, start = optimizer.init(adapters), [], adapters
    for _ in range(3):
      adapters, state, value = step(adapters, state, base)
      values.append(float(value))
    self.assertLess(values[-1], values[0])
    jax.tree.map(np.testing.assert_array_equal, base, before)
    for old, new in zip(*map(jax.tree.leaves, (start, adapters)), strict=True):
      self.assertGreater(float(jnp.abs(old - new).max()), 1e-3)
    size = sum(x.size for x in jax.tree.leaves(adapters))
    moments = [x for x in jax.tree.leaves(state) if x.ndim]
    self.assertEqual(sum(x.size for x in moments), 2 * size)

  @parameterized.parameters(*MODELS)
  def test_opponent_is_the_mixture_of_two_whole_models(self, name):
    model, batch, mixture = MODELS[name](), t5_test.tiny_batch(), 0.3
    base, adapters = adapted(model)
    policy_params = lora.attach(base, adapters, alpha=ALPHA)
    # No second copy: the matrices are the base's own arrays.
    gate = policy_params[next(k for k in base if k in ("encoder", "layers"))]
    gate = gate["mlp"]["gate"].matrix
    self.assertTrue(any(gate is leaf for leaf in jax.tree.leaves(base)))
    out = sampling.rollout(
      model,
      {"policy": policy_params, "reference": base},
      [{"policy": 1.0}, {"policy": 1 - mixture, "reference": mixture}],
      prompts=batch["prompts"],
      prompt_mask=batch["prompt_mask"],
      keys=sampling.row_keys(jax.random.key(3), jnp.arange(4), 2),
      max_response=6,
      temperature=1.0,
      eos_ids=(1,),
    )
    whole = lora.merge(base, adapters, alpha=ALPHA)
    tokens, mask = out.tokens[:, 1], out.mask[:, 1]
    log_pi, log_mu = (
      arrays.log_softmax(
        model.response_logits(
          params, batch["prompts"], batch["prompt_mask"], tokens
        ),
        1.0,
      )
      for params in (whole, base)
    )
    mixed = (1 - mixture) * log_pi + mixture * log_mu
    expected = arrays.token_log_probs(mixed, tokens, 1.0)
    np.testing.assert_allclose(
      out.log_prob[:, 1], jnp.where(mask, expected, 0), atol=1e-5
    )
    got = policy.response_log_probs(
      model, policy_params, **(batch | {"responses": tokens}), temperature=1.0
    )
    expected = arrays.token_log_probs(log_pi, tokens, 1.0)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    self.assertGreater(float(jnp.abs(log_pi - log_mu).max()), 1e-2)

  def test_only_the_targets_are_adapted(self):
    base = jax.eval_shape(t5_test.tiny_model().init, jax.random.key(0))
    found = lora.init_lora(
      jax.random.key(0), base, rank=2, targets=("query", "down")
    )
    self.assertEqual(set(found), {"encoder", "decoder"})
    self.assertEqual(set(found["decoder"]), {"attention", "cross", "mlp"})
    self.assertEqual(set(found["decoder"]["mlp"]), {"down"})
    self.assertEqual(found["decoder"]["cross"]["query"]["a"].shape, (2, 16, 2))

  def test_mistakes(self):
    base = jax.eval_shape(t5_test.tiny_model().init, jax.random.key(0))
    for arguments, message in (
      (dict(rank=0, targets=("query",)), "lora.rank: got 0"),
      (dict(rank=2, targets=("q_proj",)), "lora.targets: got .*q_proj"),
      (dict(rank=2, targets=()), "lora.targets: got "),
    ):
      with self.assertRaisesRegex(ValueError, message):
        lora.init_lora(jax.random.key(0), base, **arguments)


class CheckTest(parameterized.TestCase):
  """Mistakes in `config.lora`, before anything runs."""

  FINE = dict(rank=2, alpha=1.0, targets=("query",))

  def made(self):
    return models.make_config(
      family="llama", **(decoder_test.SIZES | {"num_layers": 2})
    )

  @parameterized.parameters(
    (dict(rank=-1), "lora.rank: got -1, expected"),
    (dict(alpha=0.0), "lora.alpha: got 0.0, expected"),
    (dict(alpha=float("inf")), "lora.alpha: got inf, expected"),
    (dict(alpha=float("nan")), "lora.alpha: got nan, expected"),
    (dict(targets=()), r"lora.targets: got \(\), expected some of"),
    (dict(targets=("query", "cross_query")), "got .*cross_query.*, expected"),
    (dict(rank=13, targets=("value", "up")), "got 13, expected at most 12, .*"
     "matrix 'value'"),
  )  # fmt: skip
  def test_is_refused(self, changes, message):
    task_lib.check_lora(self.made(), **self.FINE)
    with self.assertRaisesRegex(mistakes.Mistake, message):
      task_lib.check_lora(self.made(), **(self.FINE | changes))

  def test_without_adapters_their_targets_do_not_matter(self):
    task_lib.check_lora(
      self.made(), rank=0, alpha=1.0, targets=("cross_query",)
    )

  def test_every_matrix_of_every_family_may_be_adapted(self):
    for make in MODELS.values():
      base = jax.eval_shape(make().init, jax.random.key(0))
      self.assertEqual(tuple(lora.sizes(base)), TARGETS)
    self.assertEqual(lora.sizes(base)["out"], (24, 16))


class PeftTest(parameterized.TestCase):
  def save(self, family, **changes):
    """A folder of adapters, their base, and themselves."""
    made = models.make_config(family=family, **FAMILIES[family])
    base, adapters = adapted(models.make_model(made), ("query", "out", "down"))
    folder = pathlib.Path(self.create_tempdir())
    peft.save_adapter(folder, adapters, made, alpha=ALPHA, base="some/base")
    path = folder / peft.CONFIG
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(settings))
    return folder, folders.Pretrained(made, None, base), adapters

  @parameterized.parameters("t5", "llama")
  def test_a_folder_comes_back(self, family):
    folder, base, adapters = self.save(family)
    found = peft.load_adapter(folder, base, hub_test.one_device)
    jax.tree.map(np.testing.assert_array_equal, found, adapters)

  @parameterized.parameters(
    (dict(use_dora=True), "use_dora = True"),
    (dict(bias="all"), "bias = 'all'"),
    (dict(rank_pattern={"q_proj": 4}), "rank_pattern = "),
    (dict(peft_type="LOHA"), r"not known here \('LOHA'\)"),
    (dict(target_modules=["q_proj", "c_attn"]), r"\['q_proj', 'c_attn'\], e"),
    (dict(target_modules=["q_proj"]), "unknown: .*o_proj"),
    (dict(target_modules=["q_proj", "k_proj", "o_proj", "down_proj"]),
     "missing: .*k_proj"),
    (dict(r=5), r"lora_A.weight is \[3, 16\], not \[5, 16\]"),
  )  # fmt: skip
  def test_adapters_that_do_not_fit(self, changes, message):
    folder, base, _ = self.save("llama", **changes)
    with self.assertRaisesRegex(ValueError, message):
      peft.load_adapter(folder, base, hub_test.one_device)

  def test_folder(self):
    config = models.make_config(
      family="llama", **(decoder_test.SIZES | {"num_layers": 2})
    )
    model = models.make_model(config)
    _, adapters = adapted(model, targets=("query", "out"))
    folder = pathlib.Path(self.create_tempdir())
    peft.save_adapter(folder, adapters, config, alpha=ALPHA, base="some/base")
    settings = json.loads((folder / "adapter_config.json").read_text())
    self.assertEqual(settings["target_modules"], ["o_proj", "q_proj"])
    self.assertEqual((settings["r"], settings["lora_alpha"]), (RANK, ALPHA))
    tensors = safetensors.load_file(epath.Path(folder / peft.WEIGHTS))
    self.assertLen(tensors, 8)
    name = "base_model.model.model.layers.1.self_attn.o_proj.lora_A.weight"
    ours = adapters["layers"]["attention"]["out"]["a"][1]
    np.testing.assert_array_equal(tensors[name], ours.reshape(24, RANK).T)


if __name__ == "__main__":
  absltest.main()
