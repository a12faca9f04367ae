"""Log-probs of responses from states, some positions at a time or all."""

from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import models, policy
from nashmd_jax.models import layers, lora
from tests import decoder_test, t5_test

FAMILIES = ("t5", *decoder_test.CASES)
EACH = 3


def tiny_model(family: str, **changes) -> models.LanguageModel:
  if family == "t5":
    return t5_test.tiny_model(**changes)
  return decoder_test.tiny_model(family, **changes)


class DecodeTest(parameterized.TestCase):
  """A loop over layers that lie apart, over some of the rows, and over all."""

  LANES, TOKENS = 2, 3

  def decoded(self, model, params, cache, responses):
    found = []
    for t in range(self.TOKENS):
      logits, cache = model.decode(params, cache, responses[:, t])
      found.append(logits)
    return jnp.stack(found)

  def start(self, family, *, adapted):
    batch, model = t5_test.tiny_batch(), tiny_model(family, loop="unroll")
    params = model.init(jax.random.key(0))
    if adapted:
      keys = jax.random.split(jax.random.key(1))
      adapters = lora.init_lora(
        keys[0], params, rank=2, targets=tuple(lora.sizes(params))
      )
      adapters = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(keys[1], x.shape), adapters
      )
      params = lora.attach(params, adapters, alpha=4.0)
    cache, _ = model.prefill(
      params, batch["prompts"], batch["prompt_mask"], self.LANES, self.TOKENS
    )
    responses = jnp.repeat(batch["responses"], self.LANES, axis=0)
    return model, params, cache, responses + jnp.arange(8)[:, None] % 5

  @parameterized.parameters(
    ("t5", False), ("t5", True), ("llama", True), ("gemma3_text", False)
  )
  def test_layers_apart_give_the_same_logits(self, family, adapted):
    model, params, cache, responses = self.start(family, adapted=adapted)
    expected = self.decoded(model, params, cache, responses)
    apart, caches = model.apart(params, cache)
    got = self.decoded(model, apart, caches, responses)
    np.testing.assert_allclose(got, expected, atol=5e-6)
    self.assertEqual(jax.tree.leaves(caches)[-1].ndim, 4)

  @parameterized.product(family=("t5", "gemma3_text"), apart=[False, True])
  def test_some_prompts_alone_give_their_logits(self, family, apart):
    model, params, cache, responses = self.start(family, adapted=False)
    if apart:
      params, cache = model.apart(params, cache)
    whole = self.decoded(model, params, cache, responses)
    _, cache = model.decode(params, cache, responses[:, 0])
    prompts, rows = jnp.array([3, 1]), jnp.array([6, 7, 2, 3])
    cache = model.take(cache, prompts, self.LANES)
    got, _ = model.decode(params, cache, responses[rows, 1])
    np.testing.assert_allclose(got, whole[1, rows], atol=5e-6)


class LoopTest(parameterized.TestCase):
  @parameterized.parameters(
    ("t5", "none"), ("gemma3_text", "none"), ("gemma3_text", "full")
  )
  def test_layers_written_out_are_the_same(self, family, remat):
    batch = t5_test.tiny_batch()

    def value(model):
      def loss(params):
        logits = model.response_logits(params, *batch.values())
        return jnp.sum(jnp.sin(logits)), logits

      slopes, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
      return logits, slopes

    both = [tiny_model(family, loop=x, remat=remat) for x in ("scan", "unroll")]
    params = both[0].init(jax.random.key(0))
    jax.tree.map(
      np.testing.assert_array_equal, params, both[1].init(jax.random.key(0))
    )
    (expected, slopes), (got, others) = map(value, both)
    np.testing.assert_allclose(got, expected, atol=5e-6)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-4),
      others,
      slopes,
    )

  @parameterized.parameters(
    ("auto", "cpu", 1, layers.LARGE, "unroll"),
    ("auto", "cpu", 1, layers.LARGE - 1, "scan"),
    ("auto", "cpu", 8, layers.LARGE, "scan"),
    ("auto", "tpu", 1, layers.LARGE, "scan"),
    ("unroll", "tpu", 8, 1, "unroll"),
    ("scan", "cpu", 1, layers.LARGE, "scan"),
  )
  def test_it_is_the_devices_that_decide(
    self, requested, platform, devices, numbers, expected
  ):
    got = layers.loop_on(
      requested, platform=platform, devices=devices, numbers=numbers
    )
    self.assertEqual(got, expected)

  def test_a_task_asks_for_the_loop_of_its_devices(self):
    config = models.make_config(
      family="llama", **decoder_test.SIZES | {"vocab_size": 2**17}
    )
    one = models.on_devices(config, jax.devices()[:1])
    self.assertEqual(one.loop, "unroll")
    self.assertEqual(models.on_devices(config, jax.devices()).loop, "scan")
    self.assertIsNotNone(models.make_model(one).apart)
    self.assertIsNone(models.make_model(config).apart)


class SharedPromptTest(parameterized.TestCase):
  """Several responses to a prompt against a prompt for each of them."""

  def setUp(self):
    super().setUp()
    few, many = t5_test.tiny_batch(rows=4), t5_test.tiny_batch(rows=4 * EACH)
    self.prompts = few["prompts"], few["prompt_mask"]
    self.repeated = tuple(jnp.repeat(x, EACH, axis=0) for x in self.prompts)
    self.responses = many["responses"]

  @parameterized.parameters(*FAMILIES)
  def test_logits_and_gradients_are_the_same(self, family):
    model = tiny_model(family)
    params = model.init(jax.random.key(0))

    def value(params, prompts):
      logits = model.response_logits(params, *prompts, self.responses)
      return jnp.sum(jnp.sin(logits)), logits

    both = jax.jit(jax.value_and_grad(value, has_aux=True))
    (_, got), slopes = both(params, self.prompts)
    (_, expected), others = both(params, self.repeated)
    np.testing.assert_allclose(got, expected, atol=5e-6)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-4),
      slopes,
      others,
    )

  @parameterized.parameters(*FAMILIES)
  def test_the_next_token_is_the_same(self, family):
    model = tiny_model(family)
    params = model.init(jax.random.key(0))
    lengths = jnp.arange(4 * EACH) % 7
    got, expected = (
      model.next_logits(params, *prompts, self.responses, lengths)
      for prompts in (self.prompts, self.repeated)
    )
    np.testing.assert_allclose(got, expected, atol=5e-6)

  @parameterized.parameters("t5", "llama")
  def test_rows_that_no_prompt_has_are_refused(self, family):
    model = tiny_model(family)
    params = model.init(jax.random.key(0))
    with self.assertRaisesRegex(ValueError, "got 5 rows for 4 prompts"):
      model.response_logits(params, *self.prompts, self.responses[:5])


class PositionsTest(parameterized.TestCase):
  """A bound on the logits that exist at once changes nothing else."""

  def setUp(self):
    super().setUp()
    self.batch = t5_test.tiny_batch(response=7)

  def read(self, model, params):
    states = model.response_states(params, *self.batch.values())
    return policy.States(params, states)

  def both(self, model, params, reference):
    return policy.log_probs_and_kl(
      model,
      self.read(model, params),
      self.read(model, reference),
      self.batch["responses"],
      temperature=0.7,
    )

  @parameterized.product(family=("t5", "gemma3_text"), positions=(1, 3, 5))
  def test_values_and_gradients_are_the_same(self, family, positions):
    model = tiny_model(family)
    params, reference = (model.init(jax.random.key(n)) for n in range(2))

    def value(params):
      log_prob, kl = self.both(model, params, reference)
      return jnp.sum(jnp.sin(log_prob) + kl**2), (log_prob, kl)

    def run(params):
      return jax.value_and_grad(value, has_aux=True)(params)

    def whole():
      """Whether logits of all positions exist in the program."""
      program = str(jax.make_jaxpr(lambda params: run(params))(params))
      return f"f32[4,7,{model.vocab_size}]" in program

    expected, slopes = run(params)
    self.assertTrue(whole())
    at_once = positions * 4 * model.vocab_size
    with mock.patch.object(policy, "AT_ONCE", at_once):
      self.assertFalse(whole())
      got, found = run(params)
    for one, other in zip(got[1], expected[1], strict=True):
      np.testing.assert_allclose(one, other, atol=2e-6)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=2e-5),
      found,
      slopes,
    )

  def test_the_kl_of_each_place_by_its_definition(self):
    model = tiny_model("llama")
    params, reference = (model.init(jax.random.key(n)) for n in range(2))
    log_prob, kl = self.both(model, params, reference)
    log_pi, log_mu = (
      np.asarray(
        jax.nn.log_softmax(
          model.response_logits(x, *self.batch.values()).astype(jnp.float32)
          / 0.7
        ),
        np.float64,
      )
      for x in (params, reference)
    )
    expected = np.sum(np.exp(log_pi) * (log_pi - log_mu), axis=-1)
    np.testing.assert_allclose(kl, expected, rtol=1e-4)
    taken = np.take_along_axis(
      log_pi, np.asarray(self.batch["responses"])[..., None], axis=-1
    )
    np.testing.assert_allclose(log_prob, taken[..., 0], atol=2e-6)

  @parameterized.parameters(*FAMILIES)
  def test_the_logits_of_some_tokens_are_those_of_all(self, family):
    model = tiny_model(family)
    params = model.init(jax.random.key(0))
    states = self.read(model, params).states
    some = model.logits(params, states, (7, 3))
    every = model.logits(params, states, None)
    np.testing.assert_allclose(some, every[..., jnp.array([7, 3])], atol=2e-6)

  def test_rows_are_counted_on_each_device(self):
    """Split over four devices, four times as many positions fit at once."""
    model = tiny_model("t5")
    params = model.init(jax.random.key(0))
    with mock.patch.object(policy, "AT_ONCE", 4 * 2 * model.vocab_size):
      for parts, size in ((1, 2), (2, 4)):
        split = model._replace(row_parts=parts)
        program = jax.make_jaxpr(
          lambda params, split=split: policy.log_probs_of(
            split,
            self.read(split, params),
            self.batch["responses"],
            temperature=1.0,
          )
        )(params)
        there = f"f32[4,{size},{model.vocab_size}]" in str(program)
        self.assertTrue(there, msg=f"{parts} parts")


if __name__ == "__main__":
  absltest.main()
