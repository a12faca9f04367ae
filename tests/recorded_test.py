"""Learning from what records hold: comparisons, labels, groups of rewards."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax.nash import play as play_lib
from nashmd_jax.nash import ways
from tests import plays

ROWS, LENGTH = 3, plays.MAX_RESPONSE
WEIGHT = np.array([1.0, 0.0, 3.0], np.float32)
SHARE = np.array([0.8, 0.1, 0.4], np.float32)


def unused(*args, **kwargs):
  raise AssertionError("nobody writes, and nobody judges")


def responses(seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Tokens and mask [ROWS, LENGTH] of all lengths."""
  rng = np.random.default_rng(seed)
  size = rng.integers(1, LENGTH + 1, (ROWS, 1))
  tokens = rng.integers(1, 3, (ROWS, LENGTH)).astype(np.int32)
  return tokens, np.arange(LENGTH) < size


class RecordedTest(parameterized.TestCase):
  def learnt(self, loss: str, held: dict, **settings):
    """Value and metrics of a loss on records, and h of any responses."""
    play = plays.make_play(loss=loss, samples=2, **settings)
    play = play._replace(
      judge=lambda sets: unused,
      model=play.model._replace(prefill=unused, decode=unused),
    )
    prompts = np.arange(ROWS, dtype=np.int32)[:, None] % 2
    batch = held | {"prompts": prompts, "prompts_mask": prompts == prompts}
    batch["example_ids"] = np.arange(ROWS)
    policy, reference = (play.model.init(jax.random.key(n)) for n in (1, 2))
    sets = {"policy": policy, "reference": reference}

    @jax.jit
    def learn(batch):
      rows = play_lib.rollout(play, sets, batch, jax.random.key(0), 0)
      return play_lib.loss(play, policy, sets, rows, None), rows

    (value, metrics), rows = learn(jax.tree.map(jnp.asarray, batch))
    self.assertNotIn("written", rows)

    @jax.jit
    def log_probs(params, tokens):
      logits = play.model.response_logits(
        params, prompts, prompts == prompts, tokens
      )
      log_probs = jax.nn.log_softmax(logits / play.temperature)
      return jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]

    def ratio(tokens, mask):
      tokens = jnp.asarray(tokens)
      of_each = log_probs(policy, tokens) - log_probs(reference, tokens)
      return np.sum(np.asarray(of_each, np.float64) * mask, axis=1)

    return value, metrics, ratio

  @parameterized.parameters(False, True)
  def test_pairs_are_those_of_comparisons_by_weight(self, per_token):
    (a, a_mask), (b, b_mask) = responses(0), responses(1)
    value, metrics, ratio = self.learnt(
      "ipo_per_token" if per_token else "ipo",
      {
        "responses_a": a, "responses_a_mask": a_mask, "responses_b": b,
        "responses_b_mask": b_mask, "prob_a": SHARE, "weight": WEIGHT,
      },
      design="records",
    )  # fmt: skip
    h_a, h_b = ratio(a, a_mask), ratio(b, b_mask)
    if per_token:
      h_a, h_b = h_a / a_mask.sum(1), h_b / b_mask.sum(1)
    half, gap = 1 / 0.2, h_a - h_b
    each = SHARE * (gap - half) ** 2 + (1 - SHARE) * (gap + half) ** 2
    expected = np.sum(WEIGHT * each) / np.sum(WEIGHT)
    np.testing.assert_allclose(value.value, expected, rtol=1e-5)
    np.testing.assert_allclose(value.count, WEIGHT.sum())
    agrees = np.sign(gap) == np.sign(SHARE - 0.5)
    np.testing.assert_allclose(
      metrics["accuracy"].value, np.sum(WEIGHT * agrees) / 4, rtol=1e-6
    )

  def test_mismatched_responses_are_those_of_the_next_record(self):
    tokens, mask = responses(2)
    label = np.array([1.0, 0.0, 0.7], np.float32)
    value, metrics, ratio = self.learnt(
      "kto", {"responses": tokens, "responses_mask": mask, "label": label}
    )
    next_ratio = ratio(np.roll(tokens, -1, 0), np.roll(mask, -1, 0))
    point = max(0, next_ratio.mean())
    np.testing.assert_allclose(
      metrics["reference_point"].value, point, rtol=1e-4, atol=1e-6
    )
    below = 1 / (1 + np.exp(0.1 * (ratio(tokens, mask) - point)))
    # a = .4 in these plays.
    each = label * below / 0.8 + (1 - label) * (1 - below) / 1.2
    np.testing.assert_allclose(value.value, each.mean(), rtol=1e-5)


class GroupTest(absltest.TestCase):
  def test_mean_and_deviation_are_of_what_is_known(self):
    found = ways.GROUPED.scores(
      jnp.array([[1.0, 3.0, jnp.nan], [2.0, 2.0, 5.0]]),
      jnp.array([[True, True, False], [True, True, True]]),
      jnp.zeros((2, 0)),
      ways.Asked(3, np.arange(3), None),
    )
    np.testing.assert_allclose(found["group_mean"], [2, 2, 2, 3, 3, 3])
    spread = np.repeat([1, np.sqrt(2)], 3)
    np.testing.assert_allclose(found["group_spread"], spread, rtol=1e-6)
    self.assertEqual(
      found["counted"].tolist(), [True, True, False] + [True] * 3
    )

  def test_one_response_is_no_group(self):
    with self.assertRaisesRegex(ValueError, "nash.samples: got 1 for a loss"):
      ways.GROUPED.lanes([(1.0, {"policy": 1.0})], 1)


if __name__ == "__main__":
  absltest.main()
