"""Answers that are missing, weighted opponents, and losses that users bring."""

import functools
import sys
import types
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import arrays
from nashmd_jax.nash import play as play_lib
from nashmd_jax.nash import ways
from tests import plays

ROWS = 6
PER_PROMPT = {"answers", "judged", "weights", "example_ids"}


def learnt(play, sets, rows):
  """Gradient of the mean, the loss and the metrics of rows, judged or not."""

  @jax.jit
  def run(params, rows):
    def value(params):
      mean, metrics = play_lib.loss(play, params, sets, rows, None)
      for written in ("ended", "entropy", "repetition", "response_tokens"):
        metrics.pop(written, None)  # whatever a judge says
      return mean.value, (mean, metrics)

    return jax.grad(value, has_aux=True)(params)

  return run(sets["policy"], rows)


def kept(rows, prompts: np.ndarray, responses: np.ndarray):
  """Rows of some prompts, and of some responses to each of them, by number."""
  count = len(rows["example_ids"])

  def part(name, x):
    if name in PER_PROMPT or len(x) == count:
      return x[prompts]
    by_prompt = x.reshape(count, len(x) // count, *x.shape[1:])
    return by_prompt[prompts][:, responses].reshape(-1, *x.shape[1:])

  return {name: part(name, x) for name, x in rows.items()}


class MissingTest(parameterized.TestCase):
  """What was not judged is as if it were not there, whatever its score."""

  def setUp(self):
    super().setUp()
    model = plays.MODELS["table"]()
    self.sets = {
      name: model.init(jax.random.key(number))
      for number, name in enumerate(("policy", "reference"))
    }

  def rows(self, play, **changes):
    """Of a rollout, K of each side."""
    batch = plays.batches(1, rows=ROWS)[0]
    run = jax.jit(functools.partial(play_lib.rollout, play))
    found = run(
      self.sets,
      jax.tree.map(jnp.asarray, batch),
      jax.random.key(3),
      jnp.int32(0),
    )
    return jax.device_get(found) | changes

  def silent(self, rows, missing):
    """Rows in which a judge said nothing where `missing` is true."""
    answers = np.where(missing, np.nan, rows["answers"])
    return rows | {"answers": answers, "judged": ~missing}

  def assert_same(self, found, expected):
    self.assertGreater(np.abs(expected[0]["logits"]).max(), 1e-3)
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
      np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)

  @parameterized.parameters(
    dict(),
    dict(samples=2),
    dict(loss="policy_gradient_sequence_kl"),
    dict(loss="policy_gradient_exact_kl"),
    dict(loss="ipo", samples=2),
    dict(loss="dpo"),
    dict(updates=2),
    dict(scores="reward"),
    dict(scores="reward", samples=3),
  )
  def test_a_prompt_without_an_answer(self, **settings):
    play = plays.make_play(**settings)
    rows = self.rows(play)
    missing = np.zeros(rows["answers"].shape, bool)
    missing[[1, 4]] = True
    some = np.array([0, 2, 3, 5])
    own = len(rows["responses"]) // ROWS
    self.assert_same(
      learnt(play, self.sets, self.silent(rows, missing)),
      learnt(play, self.sets, kept(rows, some, np.arange(own))),
    )

  def test_no_answer_at_all_teaches_nothing(self):
    play = plays.make_play(samples=2)
    rows = self.rows(play)
    missing = np.ones(rows["answers"].shape, bool)
    grads, (mean, metrics) = learnt(play, self.sets, self.silent(rows, missing))
    np.testing.assert_array_equal(grads["logits"], 0)
    for found in (mean, *metrics.values()):
      self.assertEqual((float(found.total), float(found.count)), (0, 0))

  def test_one_of_the_opponents_responses(self):
    # Of the two responses of the opponent the second was never judged: K = 2
    # against its first alone.
    play = plays.make_play(samples=2)
    rows = self.rows(play)
    missing = np.tile([[False, True, False, True]], (ROWS, 1))
    first = rows | {
      "answers": rows["answers"][:, [0, 2]],
      "judged": rows["judged"][:, [0, 2]],
      "weights": np.ones((ROWS, 1), np.float32),
    }
    self.assert_same(
      learnt(play, self.sets, self.silent(rows, missing)),
      learnt(play, self.sets, first),
    )

  def test_weights_of_those_that_were_judged(self):
    play = plays.make_play(samples=1)
    found = play.algorithm.way.scores(
      jnp.array([[0.8, 0.0, 0.2], [0.0, 0.0, 0.0]]),
      jnp.array([[True, False, True], [False, False, False]]),
      jnp.tile(jnp.array([[0.6, 0.2, 0.2]]), (2, 1)),
      ways.Asked(1, *play.algorithm.way.asks(1, 3)),
    )
    # (.6 · .8 + .2 · .2) / .8
    np.testing.assert_allclose(found["win_prob"], [0.65, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(found["counted"], [True, False])

  def test_weights_of_a_baseline_that_was_scored(self):
    play = plays.make_play(scores="reward", samples=1)
    found = play.algorithm.way.scores(
      jnp.array([[1.0, 4.0, 0.0, 2.0], [1.0, 0.0, 0.0, 0.0]]),
      jnp.array([[True, True, False, True], [True, False, False, False]]),
      jnp.tile(jnp.array([[0.25, 0.25, 0.5]]), (2, 1)),
      ways.Asked(1, *play.algorithm.way.asks(1, 3)),
    )
    np.testing.assert_allclose(found["baseline"][0], 2 / 0.75 + 0.0, rtol=1e-6)
    np.testing.assert_array_equal(found["counted"], [True, False])

  def test_leave_one_out_of_the_scores_that_there_are(self):
    # Response 1 of three has no reward: the other two are as K = 2.
    play = plays.make_play(scores="reward", samples=3)
    rows = self.rows(play)
    missing = np.tile([[False, True, False]], (ROWS, 1))
    rest = kept(rows, np.arange(ROWS), np.array([0, 2]))
    rest |= {name: rows[name][:, [0, 2]] for name in ("answers", "judged")}
    self.assert_same(
      learnt(play, self.sets, self.silent(rows, missing)),
      learnt(play, self.sets, rest),
    )

  def test_a_single_score_has_no_baseline_and_counts_nowhere(self):
    play = plays.make_play(scores="reward", samples=2)
    rows = self.rows(play)
    missing = np.zeros((ROWS, 2), bool)
    missing[2, 0] = True
    some = np.array([0, 1, 3, 4, 5])
    self.assert_same(
      learnt(play, self.sets, self.silent(rows, missing)),
      learnt(play, self.sets, kept(rows, some, np.arange(2))),
    )

  def test_one_pair_of_ipo(self):
    # Of six pairs of four responses all but (0, 3) are missing.
    play = plays.make_play(loss="ipo", samples=2)
    rows = self.rows(play)
    missing = np.ones((ROWS, 6), bool)
    missing[:, 2] = False
    rest = kept(rows, np.arange(ROWS), np.array([0, 3]))
    rest |= {name: rows[name][:, [2]] for name in ("answers", "judged")}
    self.assert_same(
      learnt(play, self.sets, self.silent(rows, missing)),
      learnt(play, self.sets, rest),
    )


def brought(**functions):
  """A module `mine` of a user's functions, while the block runs."""
  module = types.ModuleType("mine")
  vars(module).update(functions)
  return mock.patch.dict(sys.modules, {"mine": module})


def plain_nash(*, log_prob, ref_log_prob, win_prob, mask, kl_coef):
  """Nash-PG as a user may write it: a plain mean, plain metrics."""
  ratio = jnp.where(mask, log_prob - ref_log_prob, 0)
  to_go = jnp.cumsum(ratio[:, ::-1], axis=1)[:, ::-1]
  bracket = jax.lax.stop_gradient(win_prob[:, None] - 0.5 - kl_coef * to_go)
  loss = -jnp.sum(jnp.where(mask, log_prob * bracket, 0), axis=1)
  return jnp.mean(loss), {"kl": jnp.mean(jnp.sum(ratio, axis=1))}


def labelled(*, log_prob, ref_log_prob, mask, label, kl_coef):
  """A loss on what people liked or not: σ(τ h) against the label."""
  ratio = arrays.masked_sum(log_prob - ref_log_prob, mask)
  likelihood = jnp.where(label > 0.5, ratio, -ratio) * kl_coef
  rows = jnp.ones(ratio.shape, bool)
  return arrays.mean_over(-jax.nn.log_sigmoid(likelihood), rows), {}


class BroughtTest(parameterized.TestCase):
  """Losses as a user's module:function."""

  def setUp(self):
    super().setUp()
    model = plays.MODELS["table"]()
    self.sets = {
      name: model.init(jax.random.key(number))
      for number, name in enumerate(("policy", "reference"))
    }
    self.batch = jax.tree.map(jnp.asarray, plays.batches(1, rows=ROWS)[0])

  def rollout(self, play, batch):
    return play_lib.rollout(
      play, self.sets, batch, jax.random.key(3), jnp.int32(0)
    )

  def test_plain_scalars_are_means_over_rows(self):
    with brought(nash=plain_nash):
      mine = plays.make_play(loss="mine:nash", samples=2)
      ours = plays.make_play(samples=2)
      rows = self.rollout(mine, self.batch)
      found = learnt(mine, self.sets, rows)
      expected = learnt(ours, self.sets, rows)
    np.testing.assert_allclose(
      found[0]["logits"], expected[0]["logits"], rtol=1e-5, atol=1e-7
    )
    self.assertEqual(float(found[1][0].count), 2 * ROWS)
    for name in ("total", "count"):
      np.testing.assert_allclose(
        getattr(found[1][1]["kl"], name),
        getattr(expected[1][1]["kl"], name),
        rtol=1e-5,
      )

  @parameterized.parameters(None, plays.table_judge)
  def test_a_loss_of_labels_is_of_the_records(self, judge):
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 3, (ROWS, plays.MAX_RESPONSE))
    size = rng.integers(1, plays.MAX_RESPONSE + 1, (ROWS, 1))
    batch = self.batch | {
      "responses": jnp.asarray(tokens),
      "responses_mask": jnp.asarray(np.arange(plays.MAX_RESPONSE) < size),
      "label": jnp.asarray(np.arange(ROWS) % 2, jnp.float32),
    }
    with brought(labelled=labelled):
      play = plays.make_play(loss="mine:labelled", samples=2)
    self.assertIs(play.algorithm.way, ways.LABELLED)

    def unused(*args, **kwargs):
      raise AssertionError("nobody writes, and nobody judges")

    play = play._replace(
      judge=judge and (lambda sets: unused),
      model=play.model._replace(prefill=unused, decode=unused),
    )
    rows = self.rollout(play, batch)
    self.assertNotIn("written", rows)
    np.testing.assert_array_equal(rows["responses"], tokens)
    grads, (mean, _) = learnt(play, self.sets, rows)

    def by_hand(params):
      def log_prob(params):
        log_probs = jax.nn.log_softmax(
          play.model.response_logits(
            params, batch["prompts"], batch["prompts_mask"], batch["responses"]
          )
          / play.temperature
        )
        return jnp.take_along_axis(
          log_probs, batch["responses"][..., None], axis=-1
        )[..., 0]

      ratio = log_prob(params) - log_prob(self.sets["reference"])
      h = jnp.sum(ratio * batch["responses_mask"], axis=1)
      sign = 2 * batch["label"] - 1
      return jnp.mean(jnp.log1p(jnp.exp(-sign * play.kl_coef * h)))

    value, expected = jax.value_and_grad(by_hand)(self.sets["policy"])
    np.testing.assert_allclose(mean.value, value, rtol=1e-5)
    np.testing.assert_allclose(
      grads["logits"], expected["logits"], rtol=1e-4, atol=1e-7
    )

  @parameterized.parameters(
    (lambda *, log_prob, advantage: None, r"asks for \['advantage'\]"),
    (lambda *, reward, log_prob: None, "learns from a reward, but the judge"),
  )
  def test_mistakes(self, function, message):
    with brought(wrong=function):
      with self.assertRaisesRegex(ValueError, message):
        plays.make_play(loss="mine:wrong")


if __name__ == "__main__":
  absltest.main()
