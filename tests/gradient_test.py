"""Oracle: the Nash gradient's expectation is the exact gradient."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp

from nashmd_jax import arrays
from tests import enumeration, gradient_oracle


def same_token_kl_loss(*, log_prob, ref_log_prob, win_prob, mask, kl_coef):
  """The biased form found elsewhere: each token pays its own log-ratio."""
  ratio = jnp.where(mask, log_prob - ref_log_prob, 0)
  bracket = jax.lax.stop_gradient(win_prob[:, None] - 0.5 - kl_coef * ratio)
  return -jnp.mean(arrays.masked_sum(log_prob * bracket, mask)), {}


class GradientTest(parameterized.TestCase):
  @parameterized.product(
    opponent=list(("self", "mixture", "moving_average", "reference")),
    length=[1, 3, 6],
  )
  def test_expectation_is_the_exact_gradient(self, opponent, length):
    with jax.enable_x64(True):
      error = gradient_oracle.relative_error(opponent, length)
    self.assertLess(error, 1e-9)

  def test_oracle_catches_the_biased_form(self):
    with jax.enable_x64(True):
      error = gradient_oracle.relative_error(
        "mixture", 3, loss=same_token_kl_loss
      )
    self.assertGreater(error, 0.01)

  def test_enumeration_is_complete(self):
    with jax.enable_x64(True):
      tokens, mask = enumeration.responses(4)
      logits = enumeration.table_model(4).init(jax.random.key(0))["logits"]
      log_probs = enumeration.sequence_log_probs(
        jax.nn.log_softmax(logits[0]), jnp.asarray(tokens), jnp.asarray(mask)
      )
      self.assertAlmostEqual(float(jnp.exp(log_probs).sum()), 1.0, places=12)


if __name__ == "__main__":
  absltest.main()
