"""Sets that follow the policy: who is kept, with what probability."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax.training import followers


def kept_after(law: str, *, size: int, every: int, steps: int, runs: int):
  """Slots f32[runs, size] and count after steps; θ is the step's number."""
  follower = followers.past_policies(size=size, every=every, law=law)

  def run(rng):
    past = follower.init({"w": jnp.zeros(())})
    for step in range(1, steps + 1):
      past = follower.update(
        past,
        {"w": jnp.float32(step)},
        jnp.int32(step),
        jax.random.fold_in(rng, step),
      )
    return past.snapshots["w"], past.count

  keys = jax.random.split(jax.random.key(0), runs)
  return map(np.asarray, jax.jit(jax.vmap(run))(keys))


class MovingAverageTest(parameterized.TestCase):
  def test_by_hand(self):
    follower = followers.moving_average(decay=0.75)
    average = follower.init({"w": jnp.array([4.0])})
    for step, expected in ((1, 3.0), (2, 2.25)):
      average = follower.update(average, {"w": jnp.zeros(1)}, step, None)
      np.testing.assert_allclose(average["w"], [expected])

  @parameterized.parameters(1.0, -0.1, float("nan"))
  def test_mistakes(self, decay):
    with self.assertRaisesRegex(ValueError, f"ema.decay: got {decay}"):
      followers.moving_average(decay=decay)


class PastTest(parameterized.TestCase):
  @parameterized.parameters("uniform", "exponential")
  def test_slots_fill_in_order_every_few_steps(self, law):
    slots, count = kept_after(law, size=3, every=2, steps=5, runs=1)
    np.testing.assert_array_equal(slots, [[0, 2, 4]])
    np.testing.assert_array_equal(count, [3])

  def test_uniform_keeps_every_snapshot_alike(self):
    # 8 snapshots, 3 slots: each is kept with probability 3/8. Four deviations
    # of a binomial over 4000 runs: 4 √(.375 · .625 / 4000) = .031.
    slots, _ = kept_after("uniform", size=3, every=1, steps=7, runs=4000)
    share = [(slots == snapshot).any(1).mean() for snapshot in range(8)]
    np.testing.assert_allclose(share, 3 / 8, atol=0.031)

  def test_exponential_forgets_geometrically(self):
    # A snapshot that came after the slots were full is kept through a further
    # ones with probability (2/3)^a.
    slots, _ = kept_after("exponential", size=3, every=1, steps=7, runs=4000)
    share = [(slots == 7 - age).any(1).mean() for age in range(5)]
    np.testing.assert_allclose(share, (2 / 3) ** np.arange(5), atol=0.032)

  def test_no_snapshot_is_kept_twice(self):
    for law in followers.LAWS:
      slots, _ = kept_after(law, size=3, every=1, steps=7, runs=200)
      self.assertTrue((np.diff(np.sort(slots), axis=1) > 0).all())

  @parameterized.parameters(
    (dict(law="recent"), "past.law: got 'recent'"),
    (dict(size=0), "past.size: got 0"),
    (dict(every=0), "past.every: got 0"),
  )
  def test_mistakes(self, changes, message):
    kwargs = dict(size=3, every=1, law="uniform")
    with self.assertRaisesRegex(ValueError, message):
      followers.past_policies(**(kwargs | changes))


class IteratesTest(absltest.TestCase):
  def test_the_newest_stands_first_every_few_steps(self):
    follower = followers.iterates(every=2, count=3)
    kept = follower.init({"w": jnp.zeros(1)})
    seen = []
    for step in range(1, 8):
      now = {"w": jnp.full(1, float(step))}
      kept = jax.jit(follower.update)(kept, now, jnp.int32(step), None)
      seen.append(kept["w"][:, 0].tolist())
    self.assertEqual(seen[:4], [[0] * 3, [2, 0, 0], [2, 0, 0], [4, 2, 0]])
    self.assertEqual(seen[-1], [6, 4, 2])
    np.testing.assert_array_equal(followers.iterate(kept, 1)["w"], [4])


if __name__ == "__main__":
  absltest.main()
