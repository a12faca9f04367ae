"""The family of losses: hand values, reductions, points of rest.

Hand values are of two responses with log-probs −10 and −12, μ's −11 and
−11.5, those of the last iterate −10.5 and −11.8: h = 1 and −.5, margin 1.5.
"""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import losses

OURS = np.array([[-10.0, -12.0]])
MU = np.array([[-11.0, -11.5]])
LAST = np.array([[-10.5, -11.8]])
H = OURS - MU
FIRST_WINS = np.array([[[0.5, 1.0], [0.0, 0.5]]])
BOTH = np.ones((1, 2, 2), bool)
TAU = 0.1


def exactly(value: float):
  """Golden values hold to a millionth."""
  return dict(desired=value, rtol=0, atol=1e-6)


class Exact(parameterized.TestCase):
  """In float64."""

  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))

  def assert_loss(self, found, expected):
    np.testing.assert_allclose(found[0].value, **exactly(expected))


def run(loss, arrays: dict, **settings):
  """A loss of named arrays, as one program."""
  arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
  return jax.jit(lambda arrays: loss(**arrays, **settings))(arrays)


def slope(loss, by: str, arrays: dict, **settings):
  """Its gradient by one of them."""
  arrays = {name: jnp.asarray(array) for name, array in arrays.items()}

  def value(x):
    return loss(**(arrays | {by: x}), **settings)[0].value

  return jax.jit(jax.grad(value))(arrays[by])


def of_pair(loss, ratio=H, win=FIRST_WINS, name="log_ratio", **settings):
  """A loss of pairs on the two responses."""
  given = {name: ratio, "win_prob": win, "judged": BOTH}
  return run(loss, given, **settings)


def table(win: float) -> np.ndarray:
  """P of the first response against the second."""
  return np.array([[[0.5, win], [1 - win, 0.5]]])


def held(weights, *, kl_coef, anchor_coef, anchors) -> tuple:
  """The log-ratio to what the policy is held to, and η."""
  price, on_mu, shares = losses.hold(
    kl_coef=kl_coef, anchor_coef=anchor_coef, anchor_weights=weights
  )
  log_prob = on_mu * MU
  for share, anchor in zip(shares, anchors, strict=True):
    log_prob = log_prob + share * anchor
  return OURS - log_prob, price


class PairsTest(Exact):
  def test_offline_dpo_and_ipo(self):
    at = dict(kl_coef=TAU)
    self.assert_loss(of_pair(losses.online_dpo_loss, **at), 0.62095705)
    self.assert_loss(of_pair(losses.ipo_loss, **at), 12.25)
    soft = of_pair(losses.ipo_loss, win=table(0.8), **at)
    self.assert_loss(soft, 18.25)

  def test_per_token_is_another_loss(self):
    # Of 4 and 2 tokens: h/|y| = .25 and −.25, margin .5.
    ratio = H / np.array([[4, 2]])
    at = dict(name="mean_log_ratio", kl_coef=TAU)
    found = of_pair(losses.ipo_per_token_loss, ratio, **at)
    self.assert_loss(found, 4.5**2)
    found = of_pair(losses.dpo_per_token_loss, ratio, **at)
    self.assert_loss(found, np.log1p(np.exp(-0.05)))

  def test_a_pair_counts_its_weight(self):
    given = {
      "log_ratio": [[1.0, -0.5], [0.25, 0.0]],
      "win_prob": np.concatenate([table(1.0), table(0.0)]),
    }

    def at(weights):
      judged = np.array(weights)[:, None, None] * np.ones((2, 2, 2))
      return run(losses.ipo_loss, given | {"judged": judged}, kl_coef=TAU)

    (loss, metrics), alone = at([3.0, 1.0]), (5.25**2, 3.5**2)
    np.testing.assert_allclose(loss.value, (alone[0] + 3 * alone[1]) / 4)
    np.testing.assert_allclose(metrics["accuracy"].value, 3 / 4)
    nothing = at([0.0, 1.0])
    np.testing.assert_allclose(nothing[0].value, alone[0])

  def test_pepo(self):
    at = dict(kl_coef=TAU)
    found = of_pair(losses.pepo_loss, pessimism=0.1, **at)
    self.assert_loss(found, 0.62537711)
    # Without pessimism it is DPO, also where either may win.
    found = of_pair(losses.pepo_loss, win=table(0.3), pessimism=0.0, **at)
    dpo = 0.3 * 0.62095705 + 0.7 * (0.62095705 + 0.15)
    self.assert_loss(found, dpo)


class HeldTest(Exact):
  """INPO and MNPO are IPO, held to the last iterates."""

  def test_inpo(self):
    # τ = .1, κ = .2: η = .3; 2 − .5/3 − 1.3 · 2/3 − 1/.6 = −.7.
    ratio, price = held([1.0], kl_coef=TAU, anchor_coef=0.2, anchors=[LAST])
    self.assert_loss(of_pair(losses.ipo_loss, ratio, kl_coef=price), 0.49)

  def test_one_history_of_mnpo_is_inpo_and_none_is_ipo(self):
    at = dict(kl_coef=TAU)
    alike, price = held([3, 2, 1], **at, anchor_coef=0.2, anchors=[LAST] * 3)
    self.assert_loss(of_pair(losses.ipo_loss, alike, kl_coef=price), 0.49)
    alone, price = held([1.0], **at, anchor_coef=0.0, anchors=[LAST])
    self.assert_loss(of_pair(losses.ipo_loss, alone, kl_coef=price), 12.25)

  def test_mnpo_weighs_its_histories(self):
    # λ = ⅓ on μ, ½ on the last, ⅙ on one before whose margin is .7:
    # 2 − .5/3 − 1.3/2 − .7/6 − 1/.6 = −.6.
    older = np.array([[-10.6, -11.3]])
    ratio, price = held(
      [3, 1], kl_coef=TAU, anchor_coef=0.2, anchors=[LAST, older]
    )
    self.assert_loss(of_pair(losses.ipo_loss, ratio, kl_coef=price), 0.36)

  def test_it_is_one_kl_for_several(self):
    rng = np.random.default_rng(0)
    pi, mu, *anchors = np.log(rng.dirichlet(np.ones(5), 4))
    price, on_mu, shares = losses.hold(
      kl_coef=0.3, anchor_coef=0.5, anchor_weights=(2, 1)
    )

    def kl(other):
      return np.sum(np.exp(pi) * (pi - other))

    several = 0.3 * kl(mu) + 0.5 * (2 * kl(anchors[0]) + kl(anchors[1])) / 3
    mixed = on_mu * mu + shares[0] * anchors[0] + shares[1] * anchors[1]
    np.testing.assert_allclose(price * kl(mixed), several, rtol=1e-12)


class LastIterateTest(Exact):
  def test_sppo(self):
    # P̂ of the two is .7 and .3 when they meet each other alone, so that .4
    # needs a third, which is beaten by neither more than that.
    found = of_pair(losses.sppo_loss, win=table(0.7), kl_coef=TAU)
    self.assert_loss(found, (1 + 1.5**2) / 2)
    self.assert_loss(self.meeting_a_third(losses.sppo_loss), 0.625)

  def test_dno(self):
    found = of_pair(losses.dno_loss, win=table(0.7), kl_coef=TAU)
    target = 1 / (1 + np.exp(-0.4))
    self.assert_loss(found, 0.62095705 + (1 - target) * 0.15)
    self.assert_loss(self.meeting_a_third(losses.dno_loss), 0.68479067)

  def meeting_a_third(self, loss):
    """Of the first two responses, with P̂ = .7 and .4, alone.

    The third has P̂ = .5 − … of its own, and is taken out by what it costs.
    """
    # y1 wins .8 against y2 and .6 against y3; y2 .2 and .6: P̂ .7, .4, .4.
    win = np.full((1, 3, 3), np.nan)
    win[0, 0, 1], win[0, 0, 2], win[0, 1, 2] = 0.8, 0.6, 0.6
    third = -0.2
    ratio = np.append(H, [[third]], axis=1)
    judged = np.ones((1, 3, 3), bool)
    given = {"log_ratio": ratio, "win_prob": win, "judged": judged}
    mean, metrics = run(loss, given, kl_coef=TAU)
    if loss is losses.sppo_loss:
      return mean._replace(
        total=mean.total - (third + 1) ** 2, count=mean.count - 1
      ), metrics

    def nats(gap, margin):
      p = 1 / (1 + np.exp(-gap))
      z = TAU * margin
      return p * np.log1p(np.exp(-z)) + (1 - p) * np.log1p(np.exp(z))

    others = nats(0.3, 1 - third) + nats(0.0, -0.5 - third)
    return mean._replace(total=mean.total - others, count=1.0), metrics

  def test_a_response_that_met_nobody_counts_nowhere(self):
    judged = np.zeros((1, 3, 3), bool)
    judged[0, 0, 1] = True
    win = np.full((1, 3, 3), np.nan)
    win[0, 0, 1] = 0.7
    third = np.append(H, [[9.0]], axis=1)
    given = {"log_ratio": third, "win_prob": win, "judged": judged}
    for loss in (losses.sppo_loss, losses.dno_loss):
      alone = of_pair(loss, win=table(0.7), kl_coef=TAU)[0].value
      found = run(loss, given, kl_coef=TAU)[0].value
      np.testing.assert_allclose(found, alone, rtol=1e-12)
      self.assertEqual(slope(loss, "log_ratio", given, kl_coef=TAU)[0, 2], 0)

  @parameterized.parameters(True, False)
  def test_sppo_misses_the_step_by_its_log_normaliser(self, even):
    rng = np.random.default_rng(1)
    last = rng.dirichlet(np.ones(6))
    a = rng.uniform(size=(6, 6))
    win = np.full((6, 6), 0.5) if even else 0.5 + 0.5 * (a - a.T)
    gain = (win @ last - 0.5) / 0.25
    log_z = np.log(last @ np.exp(gain))
    step = gain - log_z  # log π/π_t of mirror descent
    # Every response against one that stands for π_t: its P̂ is P(y ≻ π_t).
    rows = np.stack([step, np.zeros(6)], axis=1)
    wins = np.stack([table(p)[0] for p in win @ last])
    judged = np.ones((6, 2, 2), bool)
    given = {"log_ratio": rows, "win_prob": wins, "judged": judged}
    found = run(losses.sppo_loss, given, kl_coef=0.25)[0].total
    of_stand_ins = np.sum(gain**2)
    np.testing.assert_allclose(
      found - of_stand_ins, 6 * log_z**2, rtol=1e-9, atol=1e-12
    )
    self.assertEqual(abs(log_z) < 1e-12, even)


def unary(loss, ratio, label, **settings):
  return run(loss, {"log_ratio": [ratio], "label": [label]}, **settings)


class UnaryTest(Exact):
  @parameterized.parameters((1.0, 1.0, 0.482507), (-0.5, 0.0, 0.480011))
  def test_kto(self, ratio, label, expected):
    found = unary(
      losses.kto_loss, ratio, label, kl_coef=TAU, desired_share=0.5,
      mismatched_log_ratio=jnp.array([0.3]),
    )  # fmt: skip
    self.assert_loss(found, expected)
    np.testing.assert_allclose(found[1]["reference_point"].value, 0.3)

  def test_kto_has_no_gradient_through_its_point_which_is_not_below_0(self):
    given = {"log_ratio": [1.0, -0.5], "label": [1.0, 0.0]}
    given["mismatched_log_ratio"] = [0.2, 0.4]
    at = dict(kl_coef=TAU, desired_share=0.8)
    none = slope(losses.kto_loss, "mismatched_log_ratio", given, **at)
    np.testing.assert_array_equal(none, 0)
    given["mismatched_log_ratio"] = [-3.0, 1.0]
    found = run(losses.kto_loss, given, **at)[0].value
    # τ (h − z₀) = .1 and −.05.
    expected = (1 / (1 + np.exp(0.1)) / 1.6 + 1 / (1 + np.exp(0.05)) / 0.4) / 2
    np.testing.assert_allclose(found, expected)

  def test_rdro(self):
    # A mean of both sides: that of the records is divided by their shares.
    at = dict(desired_share=0.39)
    chosen = unary(losses.rdro_loss, 1.0, 1.0, **at)[0].value * 0.39
    rejected = unary(losses.rdro_loss, -0.5, 0.0, **at)[0].value * 0.61
    np.testing.assert_allclose(chosen, **exactly(0.825434))
    np.testing.assert_allclose(rejected, **exactly(0.289187))

  def test_rdro_rests_at_the_desired_part(self):
    rng = np.random.default_rng(2)
    share, (desired, other) = 0.39, rng.dirichlet(np.ones(7), 2)
    mu = share * desired + (1 - share) * other
    weight = np.concatenate([share * desired, (1 - share) * other])
    label = jnp.repeat(jnp.array([1.0, 0.0]), 7)

    def expected(logits):
      ratio = jnp.tile(jax.nn.log_softmax(logits) - jnp.log(mu), 2)
      each = jax.vmap(
        lambda h, one: (
          losses.rdro_loss(
            log_ratio=h[None], label=one[None], desired_share=share
          )[0].value
        )
      )(ratio, label)
      return weight @ each

    ascent = jax.jit(jax.grad(expected))
    at_rest, at_mu = ascent(np.log(desired)), ascent(np.log(mu))
    np.testing.assert_allclose(at_rest, 0, atol=1e-12)
    self.assertGreater(np.abs(at_mu).max(), 1e-3)
    self.assertLess(np.max(desired / mu), 1 / share)

  def test_una(self):
    scores = unary(losses.una_score_loss, 1.0, 0.8, kl_coef=TAU)[0].value
    scores += unary(losses.una_score_loss, -0.5, 0.3, kl_coef=TAU)[0].value
    np.testing.assert_allclose(scores, **exactly(0.11079367))
    nats = unary(losses.una_loss, 1.0, 1.0, kl_coef=TAU)[0].value
    nats += unary(losses.una_loss, -0.5, 0.0, kl_coef=TAU)[0].value
    np.testing.assert_allclose(nats, **exactly(1.31285631))

  @parameterized.parameters(True, False)
  def test_una_is_0_only_where_scores_need_no_normaliser(self, fits):
    rng = np.random.default_rng(3)
    pi, mu = rng.dirichlet(np.ones(5), 2)
    score = 1 / (1 + (mu / pi) ** TAU)  # σ(τ log π/μ)
    score = score if fits else np.clip(score + 0.05, 0, 1)
    odds = (score / (1 - score)) ** (1 / TAU)
    self.assertEqual(abs(np.log(mu @ odds)) < 1e-9, fits)
    best = np.log(odds) - np.log(mu @ odds)  # the policy that comes nearest
    given = {"log_ratio": best, "label": score}
    found = run(losses.una_score_loss, given, kl_coef=TAU)[0].value
    self.assertEqual(float(found) < 1e-20, fits)


class RatiosTest(Exact):
  DELTA, MASK = np.array([[0.1, -0.2, 0.3]]), np.ones((1, 3), bool)

  def made(self, name: str, clip: float):
    ratio = jax.jit(losses.RATIOS[name], static_argnums=2)
    return ratio(self.DELTA, self.MASK, clip)

  def test_by_hand(self):
    for name, expected in {
      "prefix": [[1.105171, 0.904837, 1.221403]],
      "token": np.exp(self.DELTA),
      "mean": [[np.exp(0.2 / 3)]],
      "product": [[np.exp(0.2)]],
    }.items():
      weight = self.made(name, 0.05).weight
      np.testing.assert_allclose(weight, expected, rtol=0, atol=1e-6)

  def test_clip_of_the_prefix_widens_with_its_length(self):
    weight, low, high = self.made("prefix", 0.05)
    np.testing.assert_allclose(
      jnp.clip(weight, low, high), [[1.051271, 0.965262, 1.090463]],
      rtol=0, atol=1e-6,
    )  # fmt: skip

  def test_first_token_of_the_prefix_is_that_of_the_token(self):
    prefix, token = (
      self.made(name, 0.2).weight for name in ("prefix", "token")
    )
    np.testing.assert_allclose(prefix[:, 0], token[:, 0], rtol=1e-12)
    self.assertGreater(np.abs(prefix - token)[:, 1:].min(), 0.01)

  @parameterized.parameters(*losses.RATIOS)
  def test_what_is_masked_counts_nothing(self, name):
    delta = np.array([[0.1, -0.2, np.nan]])
    mask = np.array([[True, True, False]])
    ratio = jax.jit(losses.RATIOS[name], static_argnums=2)
    found = ratio(delta, mask, 0.2).weight
    alone = ratio(delta[:, :2], mask[:, :2], 0.2).weight
    self.assertTrue(np.isfinite(found).all())
    np.testing.assert_array_equal(found[:, : alone.shape[1]], alone)


class GroupRelativeTest(Exact):
  def test_by_hand(self):
    # Rewards 1, 3 and 5: mean 3, deviation √(8/3).
    mask = np.array([[True, False], [True, True], [True, True]])
    log_prob = np.array([[-1.0, np.nan], [-1.0, -2.0], [-0.5, -0.5]])
    ref = np.where(mask, log_prob, np.inf)
    ref[2, 0] += np.log(2)
    given = {
      "log_prob": log_prob,
      "ref_log_prob": ref,
      "mask": mask,
      "reward": [1.0, 3.0, 5.0],
      "group_mean": np.full(3, 3.0),
    }

    def ascent(spread):
      arrays = given | {"group_spread": np.full(3, spread)}
      return -3 * slope(losses.grpo_loss, "log_prob", arrays, kl_coef=0.3)

    # ∇k = 1 − μ/π = −1 where μ is twice π, and 0 where they agree.
    score = 2 / np.sqrt(8 / 3)
    expected = [[-score, 0], [0, 0], [score / 2 + 0.15, score / 2]]
    at = dict(rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ascent(np.sqrt(8 / 3)), expected, **at)
    np.testing.assert_allclose(ascent(0.0)[2], [0.15, 0], **at)


if __name__ == "__main__":
  absltest.main()
