"""Behaviour of T5 behind the seam: padding, causality, logits in one place."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import models

VOCAB = 37
SIZES = dict(
  width=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=24,
  encoder_layers=2,
  decoder_layers=2,
  num_buckets=8,
  max_distance=20,
)


def tiny_model(**changes) -> models.LanguageModel:
  """A T5 of a few thousand parameters; other tests use it too."""
  sizes = SIZES | {"vocab_size": VOCAB} | changes
  return models.make_language_model(family="t5", **sizes)


def tiny_batch(rows: int = 4, prompt: int = 9, response: int = 6):
  """Random prompts of different lengths and responses, as a dict."""
  keys = jax.random.split(jax.random.key(7), 2)
  lengths = np.arange(rows) % (prompt - 2) + 3
  return dict(
    prompts=jax.random.randint(keys[0], (rows, prompt), 2, VOCAB),
    prompt_mask=jnp.arange(prompt)[None, :] < lengths[:, None],
    responses=jax.random.randint(keys[1], (rows, response), 2, VOCAB),
  )


class T5Test(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.model = tiny_model()
    self.params = self.model.init(jax.random.key(0))
    self.batch = tiny_batch()

  def logits(self, **changes):
    return self.model.response_logits(self.params, *(
      (self.batch | changes).values()
    ))  # fmt: skip

  def test_padding_does_not_matter(self):
    prompts, mask = self.batch["prompts"], self.batch["prompt_mask"]
    longer = self.logits(
      prompts=jnp.pad(prompts, ((0, 0), (0, 5)), constant_values=3),
      prompt_mask=jnp.pad(mask, ((0, 0), (0, 5))),
    )
    other = self.logits(prompts=jnp.where(mask, prompts, 11))
    for changed in (longer, other):
      np.testing.assert_allclose(changed, self.logits(), atol=2e-6)

  def test_rows_do_not_see_each_other(self):
    changed = self.logits(
      prompts=self.batch["prompts"].at[1].set(5),
      responses=self.batch["responses"].at[1].set(5),
    )
    same = np.array([0, 2, 3])
    np.testing.assert_allclose(changed[same], self.logits()[same], atol=1e-6)

  def test_position_sees_the_responses_before_it_only(self):
    # The gradient of the logits at position n with respect to a continuous
    # mixing of tokens is zero exactly where token m ≥ n.
    def at(tokens, n):
      return self.logits(responses=tokens)[0, n]

    for n in range(6):
      for m in range(6):
        changed = self.batch["responses"].at[0, m].add(1) % VOCAB
        difference = jnp.abs(
          at(changed, n) - at(self.batch["responses"], n)
        ).max()
        if m >= n:
          self.assertEqual(float(difference), 0.0)
        else:
          self.assertGreater(float(difference), 1e-5)

  def test_next_logits_are_those_of_the_asked_position(self):
    lengths = jnp.array([0, 2, 5, 3])
    got = self.model.next_logits(self.params, *self.batch.values(), lengths)
    expected = self.logits()[jnp.arange(4), lengths]
    np.testing.assert_allclose(got, expected, atol=2e-6)

  def test_distant_positions_are_told_apart(self):
    swapped = (
      self.batch["prompts"].at[:, :2].set(self.batch["prompts"][:, 1::-1])
    )
    difference = jnp.abs(self.logits(prompts=swapped) - self.logits()).max()
    self.assertGreater(float(difference), 1e-4)

  def test_every_parameter_has_gradient(self):
    grads = jax.grad(
      lambda params: jnp.sum(
        self.model.response_logits(params, *self.batch.values()) ** 2
      )
    )(self.params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
      self.assertGreater(float(jnp.abs(leaf).max()), 0, msg=str(path))

  def test_mismatched_prompts_are_named(self):
    with self.assertRaisesRegex(ValueError, "prompt_mask: expected"):
      self.logits(prompt_mask=self.batch["prompt_mask"][:, :-1])

  def test_unknown_family(self):
    with self.assertRaisesRegex(ValueError, "model.family: got 'bert'"):
      models.make_language_model(family="bert")
    with self.assertRaisesRegex(ValueError, "model: .*'heads'"):
      models.make_language_model(family="t5", vocab_size=3, heads=2, **SIZES)
    with self.assertRaisesRegex(ValueError, "model: .*'width'"):
      models.make_language_model(family="t5", vocab_size=3)


if __name__ == "__main__":
  absltest.main()
