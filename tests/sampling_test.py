"""The decode loop against teacher forcing, and who is run in which lane."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import arrays, policy, sampling
from nashmd_jax.nash import opponents
from tests import enumeration, t5_test

EOS = 1


def play(model, sets, lanes, batch, *, temperature=1.0, ids=None, **kwargs):
  rows = batch["prompts"].shape[0]
  ids = jnp.arange(rows) if ids is None else ids
  return sampling.rollout(
    model,
    sets,
    lanes,
    prompts=batch["prompts"],
    prompt_mask=batch["prompt_mask"],
    keys=sampling.row_keys(jax.random.key(3), ids, len(lanes)),
    max_response=6,
    temperature=temperature,
    **{"eos_ids": (EOS,), **kwargs},
  )


def both_lanes(*, opponent, mixture):
  """The learner's lane and the opponent's at a constant β."""
  made = opponents.make_opponent(
    opponent=opponent, mixture=mixture, mixture_end=mixture, mixture_steps=0
  )
  ((_, lane),) = made.lanes(0)
  return [opponents.LEARNER, lane]


class RolloutTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.model = t5_test.tiny_model()
    names = (
      "policy", "reference", "ema", "interpolation", "past_policy", "anchor",
      "rival",
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(0), len(names))
    self.sets = {
      name: self.model.init(key) for name, key in zip(names, keys, strict=True)
    }
    self.batch = t5_test.tiny_batch()

  def teacher_forced(self, name, tokens, temperature):
    logits = self.model.response_logits(
      self.sets[name],
      self.batch["prompts"],
      self.batch["prompt_mask"],
      tokens,
    )
    return arrays.log_softmax(logits, temperature)

  def test_any_of_several_tokens_ends_a_response(self):
    whole = play(
      self.model, self.sets, [opponents.LEARNER], self.batch, eos_ids=(-1,)
    )
    self.assertTrue(whole.mask.all())
    self.assertFalse(sampling.ended(*whole[:2], (-1,)).any())
    first = np.asarray(whole.tokens[:, 0])
    ends = (int(first[0, 2]), int(first[1, 4]))
    cut = play(
      self.model, self.sets, [opponents.LEARNER], self.batch, eos_ids=ends
    )
    places = np.isin(first, ends)
    sizes = np.where(places.any(1), places.argmax(1) + 1, first.shape[1])
    mask = np.arange(first.shape[1]) < sizes[:, None]
    np.testing.assert_array_equal(cut.mask[:, 0], mask)
    np.testing.assert_array_equal(cut.tokens[:, 0], np.where(mask, first, 0))
    np.testing.assert_array_equal(
      sampling.ended(*cut[:2], ends)[:, 0], places.any(1)
    )
    self.assertLess(sizes.min(), 4)

  @parameterized.parameters(
    *((opponent, 0.7) for opponent in opponents.LANES),
    ("mixture", 1.0),
    ("mixture", 1.6),
  )
  def test_log_probs_are_the_teacher_forced_ones(self, opponent, temperature):
    lanes = both_lanes(opponent=opponent, mixture=0.3)
    out = play(
      self.model, self.sets, lanes, self.batch, temperature=temperature
    )
    for i, lane in enumerate(lanes):
      tokens, mask = out.tokens[:, i], out.mask[:, i]
      mixed = sum(
        weight * self.teacher_forced(name, tokens, temperature)
        for name, weight in lane.items()
      )
      expected = jnp.take_along_axis(
        jax.nn.log_softmax(mixed), tokens[..., None], axis=-1
      )[..., 0]
      np.testing.assert_allclose(
        out.log_prob[:, i], jnp.where(mask, expected, 0), atol=1e-4
      )

  def test_response_log_probs_score_the_learner(self):
    out = play(
      self.model,
      self.sets,
      [opponents.LEARNER],
      self.batch,
      temperature=0.7,
    )
    got = policy.response_log_probs(
      self.model,
      self.sets["policy"],
      **(self.batch | {"responses": out.tokens[:, 0]}),
      temperature=0.7,
    )
    np.testing.assert_allclose(
      jnp.where(out.mask[:, 0], got, 0), out.log_prob[:, 0], atol=1e-4
    )

  @parameterized.parameters((0.0, "self"), (1.0, "reference"))
  def test_mixture_end_points(self, mixture, same_as):
    ends, pure = (
      play(
        self.model,
        self.sets,
        both_lanes(opponent=opponent, mixture=mixture),
        self.batch,
      )
      for opponent in ("mixture", same_as)
    )
    np.testing.assert_array_equal(ends.tokens, pure.tokens)
    np.testing.assert_array_equal(ends.log_prob, pure.log_prob)

  @parameterized.parameters(
    ("self", 0.5, {"policy": 2}),
    ("mixture", 0.0, {"policy": 2}),
    ("mixture", 0.5, {"policy": 2, "reference": 1}),
    ("mixture", 1.0, {"policy": 1, "reference": 1}),
    ("reference", 0.5, {"policy": 1, "reference": 1}),
    ("moving_average", 0.5, {"policy": 1, "ema": 1}),
  )
  def test_sets_run_over_just_their_rows(self, opponent, mixture, expected):
    seen = {}
    names = {id(tree): name for name, tree in self.sets.items()}

    def prefill(params, prompts, mask, lanes_per_prompt, max_response):
      seen[names[id(params)]] = lanes_per_prompt
      return self.model.prefill(
        params, prompts, mask, lanes_per_prompt, max_response
      )

    lanes = both_lanes(opponent=opponent, mixture=mixture)
    play(self.model._replace(prefill=prefill), self.sets, lanes, self.batch)
    self.assertEqual(seen, expected)

  @parameterized.parameters(0.0, 0.125, 0.5, 1.0)
  def test_greedy_is_the_argmax_of_the_mixed_forward_pass(self, mixture):
    lanes = both_lanes(opponent="mixture", mixture=mixture)
    out = play(self.model, self.sets, lanes, self.batch, choose=sampling.greedy)
    tokens = out.tokens[:, 1]
    mixed = (1 - mixture) * self.teacher_forced("policy", tokens, 1.0)
    mixed += mixture * self.teacher_forced("reference", tokens, 1.0)
    np.testing.assert_array_equal(
      tokens, jnp.where(out.mask[:, 1], jnp.argmax(mixed, axis=-1), 0)
    )

  def test_responses_do_not_depend_on_the_place_in_the_batch(self):
    lanes = both_lanes(opponent="mixture", mixture=0.3)
    whole = play(self.model, self.sets, lanes, self.batch)
    order = jnp.array([2, 0])
    part = play(
      self.model,
      self.sets,
      lanes,
      {name: x[order] for name, x in self.batch.items()},
      ids=order,
    )
    np.testing.assert_array_equal(part.tokens, whole.tokens[order])

  def test_lanes_and_examples_have_keys_of_their_own(self):
    same = {name: jnp.repeat(x[:1], 4, 0) for name, x in self.batch.items()}
    out = play(self.model, self.sets, [opponents.LEARNER] * 2, same)
    rows = {tuple(row) for row in np.asarray(out.tokens).reshape(8, -1)}
    self.assertLen(rows, 8)

  def test_mask_ends_with_eos_and_zeros_follow(self):
    out = play(self.model, self.sets, [opponents.LEARNER], {
      name: jnp.repeat(x, 50, 0) for name, x in self.batch.items()
    })  # fmt: skip
    tokens, mask = np.asarray(out.tokens), np.asarray(out.mask)
    self.assertTrue((tokens == EOS).any())
    np.testing.assert_array_equal(tokens[~mask], 0)
    for row, kept in zip(tokens[:, 0], mask[:, 0], strict=True):
      ends = np.flatnonzero(row == EOS)
      length = ends[0] + 1 if len(ends) else len(row)
      np.testing.assert_array_equal(kept, np.arange(len(row)) < length)


class LeftBehindTest(parameterized.TestCase):
  @parameterized.product(opponent=["self", "mixture"], apart=[True, False])
  def test_rows_that_ended_are_left_behind_and_nothing_else_changes(
    self, opponent, apart
  ):
    model = t5_test.tiny_model(loop="unroll" if apart else "scan")
    keys = jax.random.split(jax.random.key(0))
    sets = {"policy": model.init(keys[0]), "reference": model.init(keys[1])}
    batch = {
      name: jnp.tile(x, (12, *[1] * (x.ndim - 1)))[: 4 * sampling.FEWEST]
      for name, x in t5_test.tiny_batch().items()
    }
    lanes = both_lanes(opponent=opponent, mixture=0.3)
    # A third of the tokens end a response.
    ends = {"eos_ids": tuple(range(0, model.vocab_size, 3))}
    out = play(model, sets, lanes, batch, **ends)
    whole = play(model._replace(take=None), sets, lanes, batch, **ends)
    live = np.asarray(whole.mask).any(1).sum(0)
    self.assertGreater(live[1], 2 * sampling.FEWEST)
    self.assertGreater(live[-1], 0)
    self.assertLessEqual(live[-1], sampling.FEWEST)
    np.testing.assert_array_equal(out.tokens, whole.tokens)
    np.testing.assert_array_equal(out.mask, whole.mask)
    np.testing.assert_allclose(out.log_prob, whole.log_prob, atol=1e-6)

  def test_a_loop_is_as_wide_as_what_is_left(self):
    model, widths = t5_test.tiny_model(), []

    def decode(params, cache, tokens):
      jax.debug.callback(lambda: widths.append(len(tokens)))
      return model.decode(params, cache, tokens)

    batch = {
      name: jnp.tile(x, (12, *[1] * (x.ndim - 1)))[: 4 * sampling.FEWEST]
      for name, x in t5_test.tiny_batch().items()
    }
    out = play(
      model._replace(decode=decode),
      {"policy": model.init(jax.random.key(0))},
      [opponents.LEARNER],
      batch,
      eos_ids=tuple(range(0, model.vocab_size, 3)),
    )
    jax.effects_barrier()
    live = [*np.asarray(out.mask)[:, 0].sum(0)]
    steps = [[w for w in (8, 16, 32) if w >= n][0] for n in live if n]
    self.assertEqual(sorted(widths, reverse=True), steps)
    self.assertLen(set(steps), 3)


class DistributionTest(parameterized.TestCase):
  def test_samples_follow_the_enumerated_mixture(self):
    # 20,000 draws over 12 or so responses; the 0.999 quantile of chi-square
    # with 14 degrees of freedom is 36.1.
    model = enumeration.table_model(3)
    with jax.enable_x64(True):
      keys = jax.random.split(jax.random.key(0))
      sets = {
        "policy": model.init(keys[0]), "reference": model.init(keys[1])
      }  # fmt: skip
      lanes = both_lanes(opponent="mixture", mixture=0.4)
      count = 20_000
      prompts = jnp.ones((count, 1), jnp.int32)
      out = sampling.rollout(
        model,
        sets,
        lanes,
        prompts=prompts,
        prompt_mask=prompts == 1,
        keys=sampling.row_keys(jax.random.key(9), jnp.arange(count), 2),
        max_response=3,
        temperature=0.8,
        eos_ids=(enumeration.EOS,),
      )
      tokens, mask = enumeration.responses(3)
      mixed = jax.nn.log_softmax(
        sum(
          weight * jax.nn.log_softmax(sets[name]["logits"][1] / 0.8)
          for name, weight in lanes[1].items()
        )
      )
      probs = jnp.exp(enumeration.sequence_log_probs(mixed, tokens, mask))
    codes = np.where(mask, tokens + 1, 0) @ (4 ** np.arange(3))
    drawn = np.where(out.mask[:, 1], out.tokens[:, 1] + 1, 0)
    drawn = drawn @ (4 ** np.arange(3))
    observed = np.array([(drawn == code).sum() for code in codes])
    self.assertEqual(observed.sum(), count)
    expected = np.asarray(probs) * count
    chi2 = ((observed - expected) ** 2 / expected).sum()
    self.assertLess(chi2, 36.1)

  @parameterized.parameters(5, 128, 300)
  def test_sample_inverts_the_cdf(self, size):
    # Chi-square of 50,000 draws: mean size - 1, deviation √(2 size).
    log_probs = jax.nn.log_softmax(
      2 * jax.random.normal(jax.random.key(size), (size,))
    )
    keys = jax.random.split(jax.random.key(1), 50_000)
    drawn = jax.vmap(lambda key: sampling.sample(key, log_probs))(keys)
    observed = np.bincount(np.asarray(drawn), minlength=size)
    expected = 50_000 * np.exp(np.asarray(log_probs, np.float64))
    chi2 = ((observed - expected) ** 2 / expected).sum()
    self.assertLess(abs(chi2 - (size - 1)), 4 * np.sqrt(2 * size))

  def test_sample_never_draws_what_is_impossible(self):
    log_probs = jnp.log(jnp.array([0.0, 0.5, 0.0, 0.5, 0.0]))
    keys = jax.random.split(jax.random.key(1), 2_000)
    drawn = jax.vmap(lambda key: sampling.sample(key, log_probs))(keys)
    self.assertEqual(set(np.asarray(drawn).tolist()), {1, 3})


if __name__ == "__main__":
  absltest.main()
