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


class PolicyGradientTest(parameterized.TestCase):
  def test_gradient_is_minus_the_bracket_over_batch(self):
    # Log-ratios: row 0 (.5, -1), row 1 (0, .5, 2); to go: (-.5, -1) and
    # (2.5, 2.5, 2). Brackets: .4 - .1 to go, and -.3 - .1 to go.
    bracket = np.array([[0.45, 0.5, 0.0], [-0.55, -0.55, -0.5]])
    grad = jax.grad(lambda x: nash(x)[0])(jnp.asarray(LOG_PROB))
    np.testing.assert_allclose(grad, -bracket / 2, rtol=1e-6)

  def test_no_gradient_to_reference_or_win_prob(self):
    grads = jax.grad(
      lambda ref, win: nash(LOG_PROB, ref, win)[0], argnums=(0, 1)
    )(jnp.asarray(REF), jnp.array([0.9, 0.2]))
    for grad in grads:
      np.testing.assert_array_equal(grad, np.zeros_like(grad))

  def test_metrics(self):
    _, metrics = nash(LOG_PROB)
    np.testing.assert_allclose(metrics["kl"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["win_prob"], 0.55, rtol=1e-6)
    np.testing.assert_allclose(metrics["objective"], 0.45, rtol=1e-6)
    np.testing.assert_allclose(metrics["response_tokens"], 2.5)

  def test_masked_positions_may_hold_anything(self):
    dirty = np.where(MASK, LOG_PROB, -np.inf)
    dirty_ref = np.where(MASK, REF, np.nan)
    clean, unclean = (
      jax.value_and_grad(lambda x, ref=ref: nash(x, ref)[0])(jnp.asarray(x))
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
      )[0]

    expected = jax.grad(lambda x: nash(x)[0])(jnp.asarray(LOG_PROB))
    got = jax.grad(rlhf)(jnp.asarray(LOG_PROB))
    np.testing.assert_allclose(got, expected, rtol=1e-5)

  def test_wrong_shape_is_named(self):
    with self.assertRaisesRegex(ValueError, r"win_prob: expected \[B\]"):
      nash(LOG_PROB, win_prob=(0.9, 0.2, 0.3))

  def test_equal_shards_average_to_the_whole(self):
    rows = [
      losses.nash_pg_loss(
        log_prob=jnp.asarray(LOG_PROB[i : i + 1]),
        ref_log_prob=jnp.asarray(REF[i : i + 1]),
        win_prob=jnp.array([[0.9], [0.2]])[i],
        mask=jnp.asarray(MASK[i : i + 1]),
        kl_coef=0.1,
      )[0]
      for i in (0, 1)
    ]
    np.testing.assert_allclose(np.mean(rows), nash(LOG_PROB)[0], rtol=1e-6)


class SupervisedTest(parameterized.TestCase):
  def test_sft_loss(self):
    loss, metrics = losses.sft_loss(
      log_prob=jnp.asarray(LOG_PROB), mask=jnp.asarray(MASK)
    )
    np.testing.assert_allclose(loss, (3.0 + 1.75) / 2)
    np.testing.assert_allclose(metrics["nats_per_token"], 4.75 / 5, rtol=1e-6)

  def test_preference_loss(self):
    # -log σ(log 3) = log 4/3; a tie costs log 2 at logit 0.
    loss, metrics = losses.preference_loss(
      logit=jnp.array([np.log(3.0), -np.log(3.0), 0.0]),
      prob_a=jnp.array([1.0, 1.0, 0.5]),
    )
    expected = (np.log(4 / 3) + np.log(4) + np.log(2)) / 3
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], 0.5)

  def test_bradley_terry_is_invariant_to_a_constant(self):
    a, b = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.7])
    prob = jnp.array([1.0, 0.0])
    first, second = (
      losses.bradley_terry_loss(reward_a=a + c, reward_b=b + c, prob_a=prob)[0]
      for c in (0.0, 5.0)
    )
    np.testing.assert_allclose(first, second, rtol=1e-5)


if __name__ == "__main__":
  absltest.main()
