"""Hand values and properties of the losses; the oracle is in its own file."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import losses

MASK = np.array([[True, True, False], [True, True, True]])
LOG_PROB = np.array([[-1.0, -2.0, -9.0], [-0.5, -0.25, -1.0]], np.float32)
REF = np.array([[-1.5, -1.0, -1.0], [-0.5, -0.75, -3.0]], np.float32)


def nash(log_prob, ref_log_prob=REF, win_prob=(0.9, 0.2), kl_coef=0.1):
  return losses.nash_pg_loss(
    log_prob=jnp.asarray(log_prob),
    ref_log_prob=jnp.asarray(ref_log_prob),
    win_prob=jnp.asarray(win_prob),
    mask=jnp.asarray(MASK),
    kl_coef=kl_coef,
  )


def by_reference(**arrays):
  """The off-policy loss on responses that μ wrote."""
  return losses.nash_pg_off_policy_loss(
    behaviour_log_prob=jnp.asarray(arrays["ref_log_prob"]),
    clip=9.0,
    ratio="product",
    **arrays,
  )


class PolicyGradientTest(parameterized.TestCase):
  def test_gradient_is_minus_the_bracket_over_batch(self):
    # Log-ratios: row 0 (.5, -1), row 1 (0, .5, 2); to go: (-.5, -1) and
    # (2.5, 2.5, 2). Brackets: .4 - .1 to go, and -.3 - .1 to go.
    bracket = np.array([[0.45, 0.5, 0.0], [-0.55, -0.55, -0.5]])
    grad = jax.grad(lambda x: nash(x)[0].value)(jnp.asarray(LOG_PROB))
    np.testing.assert_allclose(grad, -bracket / 2, rtol=1e-6)

  def test_no_gradient_to_reference_or_win_prob(self):
    grads = jax.grad(
      lambda ref, win: nash(LOG_PROB, ref, win)[0].value, argnums=(0, 1)
    )(jnp.asarray(REF), jnp.array([0.9, 0.2]))
    for grad in grads:
      np.testing.assert_array_equal(grad, np.zeros_like(grad))

  def test_metrics(self):
    _, metrics = nash(LOG_PROB)
    expected = {
      "kl": 1.0, "win_prob": 0.55, "objective": 0.45, "response_tokens": 2.5
    }  # fmt: skip
    self.assertEqual(set(metrics), set(expected))
    for name, value in expected.items():
      np.testing.assert_allclose(metrics[name].value, value, rtol=1e-6)
      np.testing.assert_allclose(metrics[name].count, 2)

  def test_masked_positions_may_hold_anything(self):
    dirty = np.where(MASK, LOG_PROB, -np.inf)
    dirty_ref = np.where(MASK, REF, np.nan)
    clean, unclean = (
      jax.value_and_grad(lambda x, ref=ref: nash(x, ref)[0].value)(
        jnp.asarray(x)
      )
      for x, ref in ((LOG_PROB, REF), (dirty, dirty_ref))
    )
    np.testing.assert_allclose(unclean[0], clean[0], rtol=1e-6)
    np.testing.assert_allclose(unclean[1], clean[1], rtol=1e-6)

  def test_rlhf_is_nash_with_score_reward_minus_baseline(self):
    common = dict(ref_log_prob=jnp.asarray(REF), mask=jnp.asarray(MASK))

    def rlhf(log_prob):
      return losses.rlhf_pg_loss(
        log_prob=log_prob,
        reward=jnp.array([1.4, 0.7]),
        baseline=jnp.array([1.0, 1.0]),
        kl_coef=0.1,
        **common,
      )[0].value

    expected = jax.grad(lambda x: nash(x)[0].value)(jnp.asarray(LOG_PROB))
    got = jax.grad(rlhf)(jnp.asarray(LOG_PROB))
    np.testing.assert_allclose(got, expected, rtol=1e-5)

  def test_wrong_shape_is_named(self):
    with self.assertRaisesRegex(ValueError, r"win_prob: expected \[B\]"):
      nash(LOG_PROB, win_prob=(0.9, 0.2, 0.3))

  def test_parts_add_up_to_the_whole_however_unequal(self):
    def loss(rows):
      return losses.nash_pg_loss(
        log_prob=jnp.asarray(np.vstack([LOG_PROB, LOG_PROB])[rows]),
        ref_log_prob=jnp.asarray(np.vstack([REF, REF])[rows]),
        win_prob=jnp.array([0.9, 0.2, 0.4, 0.6])[rows],
        mask=jnp.asarray(np.vstack([MASK, MASK])[rows]),
        kl_coef=0.1,
      )

    whole = loss(slice(None))
    parts = [loss(slice(0, 1)), loss(slice(1, 4))]
    summed = jax.tree.map(lambda a, b: a + b, *parts)
    for got, expected in zip(
      *map(jax.tree.leaves, (summed, whole)), strict=True
    ):
      np.testing.assert_allclose(got, expected, rtol=1e-6)

  @parameterized.parameters(
    losses.nash_pg_loss,
    losses.nash_pg_sequence_kl_loss,
    by_reference,
  )
  def test_a_row_without_a_mask_counts_nowhere(self, loss):
    def run(rows, mask, win_prob):
      def value(x):
        mean, metrics = loss(
          log_prob=x,
          ref_log_prob=jnp.asarray(REF[rows]),
          win_prob=jnp.asarray(win_prob),
          mask=jnp.asarray(mask),
          kl_coef=0.1,
        )
        return mean.value, (mean, metrics)

      return jax.grad(value, has_aux=True)(jnp.asarray(LOG_PROB[rows]))

    mask = MASK & np.array([[True], [False]])
    grad, found = run(slice(0, 2), mask, [0.9, np.nan])
    alone, expected = run(slice(0, 1), MASK[:1], [0.9])
    np.testing.assert_array_equal(grad, np.vstack([alone, np.zeros((1, 3))]))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def off_policy(log_prob, behaviour, *, clip, win_prob=(0.9, 0.2)):
  return losses.nash_pg_off_policy_loss(
    log_prob=jnp.asarray(log_prob),
    behaviour_log_prob=jnp.asarray(behaviour),
    ref_log_prob=jnp.asarray(REF),
    win_prob=jnp.asarray(win_prob),
    mask=jnp.asarray(MASK),
    kl_coef=0.1,
    clip=clip,
    ratio="product",
  )


class OffPolicyTest(parameterized.TestCase):
  def test_on_policy_it_is_the_nash_loss(self):
    got, expected = (
      jax.grad(f)(jnp.asarray(LOG_PROB))
      for f in (
        lambda x: off_policy(x, LOG_PROB, clip=0.2)[0].value,
        lambda x: nash(x)[0].value,
      )
    )
    np.testing.assert_array_equal(got, expected)

  @parameterized.parameters(
    # Row 0 has brackets (.45, .5), row 1 (−.55, −.55, −.5); shifting the first
    # log-prob of the behaviour by −log 2 doubles the weight of both rows.
    (-np.log(2.0), np.inf, 2.0, 2.0, 0.0),
    (-np.log(2.0), 0.5, 0.0, 2.0, 2 / 5),
    (np.log(2.0), 0.4, 0.5, 0.0, 3 / 5),
    (np.log(2.0), 0.6, 0.5, 0.5, 0.0),
  )
  def test_clipping_by_hand(self, shift, clip, first, second, clipped):
    behaviour = LOG_PROB + np.array([[shift, 0, 0]], np.float32)
    bracket = np.array([[0.45, 0.5, 0.0], [-0.55, -0.55, -0.5]])
    expected = -bracket * np.array([[first], [second]]) / 2

    def value(x):
      mean, metrics = off_policy(x, behaviour, clip=clip)
      return mean.value, metrics

    grad, metrics = jax.grad(value, has_aux=True)(jnp.asarray(LOG_PROB))
    np.testing.assert_allclose(grad, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["clipped"].value, clipped, rtol=1e-6)
    self.assertEqual(float(metrics["clipped"].count), MASK.sum())


class ExactKLTest(parameterized.TestCase):
  def test_masked_positions_may_hold_anything(self):
    rng = np.random.default_rng(0)
    log_prob, kl = -rng.random((2, 2, 3), np.float32)

    def value_and_grad(log_prob, kl):
      return jax.value_and_grad(
        lambda both: (
          losses.nash_pg_exact_kl_loss(
            log_prob=both[0],
            token_kl=both[1],
            win_prob=jnp.array([0.9, 0.2]),
            mask=jnp.asarray(MASK),
            kl_coef=0.1,
          )[0].value
        )
      )(jnp.stack([log_prob, kl]))

    clean = value_and_grad(log_prob, -kl)
    dirty = value_and_grad(
      np.where(MASK, log_prob, -np.inf), np.where(MASK, -kl, np.nan)
    )
    np.testing.assert_allclose(dirty[0], clean[0], rtol=1e-6)
    np.testing.assert_allclose(dirty[1], clean[1], rtol=1e-6)
    np.testing.assert_array_equal(dirty[1][:, ~MASK], 0)


class LeaveOneOutTest(absltest.TestCase):
  def test_by_hand(self):
    got = losses.leave_one_out(
      jnp.array([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]]), jnp.ones((2, 3), bool)
    )
    np.testing.assert_allclose(got, [[4.0, 3.5, 1.5], [1.5, 1.5, 0.0]])

  def test_an_unknown_score_is_no_baseline_of_the_others(self):
    got = losses.leave_one_out(
      jnp.array([[1.0, jnp.nan, 6.0]]), jnp.array([[True, False, True]])
    )
    np.testing.assert_allclose(got, [[6.0, 7.0, 1.0]])

  def test_one_response_has_no_others(self):
    with self.assertRaisesRegex(ValueError, "got 1 response to each prompt"):
      losses.leave_one_out(jnp.zeros((4, 1)), jnp.ones((4, 1), bool))


class PairwiseTest(parameterized.TestCase):
  def test_by_hand(self):
    # Margins of the pairs (0, 1), (0, 2), (1, 2): 1, −1, −2; τ = ½, so that
    # IPO aims at ±1.
    log_ratio = jnp.array([[1.0, 0.0, 2.0]])
    win_prob = jnp.full((1, 3, 3), jnp.nan)  # i ≥ j is not read
    win_prob = win_prob.at[0, 0, 1].set(0.75).at[0, 0, 2].set(0.0)
    win_prob = win_prob.at[0, 1, 2].set(1.0)
    args = dict(
      log_ratio=log_ratio,
      win_prob=win_prob,
      judged=jnp.ones((1, 3, 3), bool),
      kl_coef=0.5,
    )
    ipo, metrics = losses.ipo_loss(**args)
    expected = (0.75 * 0 + 0.25 * 4 + 0.0 + 9.0) / 3
    np.testing.assert_allclose(ipo.value, expected, rtol=1e-6)
    for name, value in (
      ("accuracy", 2 / 3), ("margin", (0.5 + 1 - 2) / 3), ("log_ratio", 1.0)
    ):  # fmt: skip
      np.testing.assert_allclose(metrics[name].value, value, rtol=1e-6)
    dpo, _ = losses.online_dpo_loss(**args)

    def cost(margin):
      return np.log1p(np.exp(-0.5 * margin))

    expected = (0.75 * cost(1) + 0.25 * cost(-1) + cost(1) + cost(-2)) / 3
    np.testing.assert_allclose(dpo.value, expected, rtol=1e-6)

  @parameterized.parameters(losses.ipo_loss, losses.online_dpo_loss)
  def test_a_pair_that_was_not_judged_counts_nowhere(self, loss):
    # Of three responses only the pair (0, 2) is known; NaN stands elsewhere,
    # and a second prompt has no pair at all.
    log_ratio = jnp.array([[1.0, 0.5, -0.5], [3.0, 2.0, 1.0]])
    win_prob = jnp.full((2, 3, 3), jnp.nan).at[0, 0, 2].set(0.7)
    judged = jnp.zeros((2, 3, 3), bool).at[0, 0, 2].set(True)

    def run(log_ratio, win_prob, judged):
      def value(x):
        mean, metrics = loss(
          log_ratio=x, win_prob=win_prob, judged=judged, kl_coef=0.5
        )
        return mean.value, (mean, metrics)

      return jax.grad(value, has_aux=True)(log_ratio)

    grad, (mean, metrics) = run(log_ratio, win_prob, judged)
    pair = np.array([[0, 2]])
    alone, (alone_mean, alone_metrics) = run(
      log_ratio[:1, pair[0]],
      jnp.full((1, 2, 2), 0.7),
      jnp.ones((1, 2, 2), bool),
    )
    expected = np.zeros((2, 3))
    expected[0, [0, 2]] = alone[0]
    np.testing.assert_allclose(grad, expected, rtol=1e-6)
    np.testing.assert_allclose(mean, alone_mean, rtol=1e-6)
    for name, expected in alone_metrics.items():
      np.testing.assert_allclose(metrics[name], expected, rtol=1e-6)

  def test_one_response_makes_no_pair(self):
    with self.assertRaisesRegex(ValueError, "log_ratio: got 1 response"):
      losses.ipo_loss(
        log_ratio=jnp.zeros((2, 1)),
        win_prob=jnp.zeros((2, 1, 1)),
        judged=jnp.ones((2, 1, 1), bool),
        kl_coef=1.0,
      )


if __name__ == "__main__":
  absltest.main()
