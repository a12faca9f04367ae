"""Several turns: what a rollout fixes, what is learnt, what judges read."""

from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import arrays, losses, sampling, turns
from nashmd_jax.losses import ratios
from tests import decoder_test, t5_test, turns_oracle
from tests import gradient_oracle as oracle

BAR = 1e-9


class StepTest(parameterized.TestCase):
  """The expected step is the gradient of P_τ over whole conversations."""

  @parameterized.parameters((2, "mixture"), (1, "self"))
  def test_expectation_is_the_exact_gradient(self, most, opponent):
    with jax.enable_x64(True):
      self.assertLess(turns_oracle.error(most, opponent), BAR)

  def test_so_it_is_against_several_who_each_say_their_own(self):
    weights = {"moving_average": 0.25, "mixture": 0.75}
    with jax.enable_x64(True):
      world = turns_oracle.make_world(1)
      mixture = {"policy": 1 - oracle.MIXTURE, "reference": oracle.MIXTURE}
      lanes = [(0.25, {"ema": 1.0}), (0.75, mixture)]
      play = turns_oracle.make_play(world)
      opponent = play.opponent._replace(lanes=lambda step: lanes)
      play = play._replace(opponent=opponent)
      rows, x, c = turns_oracle.every_row(world, play)
      self.check_written(world, rows, x, c)
      weight = jnp.exp(turns_oracle.log_policy(world, world.sets["policy"]))
      weight = weight[x, c[:, 0]]
      for lane, name in enumerate(weights, start=1):
        weight *= turns_oracle.played(world, name)[x, c[:, lane]]
      found = turns_oracle.expected_ascent(world, play, rows, weight)
      exact = turns_oracle.exact(world, weights)
      self.assertLess(oracle.error(found, exact), BAR)

  def check_written(self, world, rows, x, c):
    """What is drawn and what is fixed stand where they should."""
    written = rows["written"]
    np.testing.assert_array_equal(
      rows["written_mask"], world.own[x[:, None], c]
    )
    np.testing.assert_array_equal(written, world.tokens[x[:, None], c])
    np.testing.assert_array_equal(rows["responses"], written[:, 0])
    expected = turns_oracle.log_policy(world, world.sets["policy"])
    np.testing.assert_allclose(
      jnp.sum(rows["behaviour_log_prob"], axis=1),
      expected[x, c[:, 0]],
      rtol=1e-5,
    )

  @parameterized.named_parameters(
    (
      "the KL stops at the end of a turn",
      arrays,
      "sum_to_go",
      lambda values, mask: (
        jnp.cumsum(jnp.where(mask, values, 0)[:, ::-1], axis=1)[:, ::-1]
        * (jnp.cumsum(mask, axis=1) < 2)
      ),
    ),
    (
      "what the user says is counted",
      turns,
      "fixed",
      lambda given, place: tuple(
        x & False if x.dtype == bool else x for x in real_fixed(given, place)
      ),
    ),
    (
      "nothing closes a turn",
      turns,
      "script",
      lambda batch: real_script(batch)._replace(
        closing=jnp.zeros_like(batch["closing"])
      ),
    ),
  )
  def test_oracle_catches(self, module, name, fault):
    with jax.enable_x64(True), mock.patch.object(module, name, fault):
      self.assertFalse(turns_oracle.error(1, "mixture") < 1e-6)


real_script, real_fixed = turns.script, turns.fixed


class KlTest(absltest.TestCase):
  def test_kl_to_go_runs_over_all_turns_by_hand(self):
    """log π/μ of 1, 2 in the first turn and 4, 8 in the last; between 100."""
    mask = jnp.array([[True, True, False, False, True, True, False]])
    ratio = jnp.array([[1.0, 2.0, 100.0, 100.0, 4.0, 8.0, 100.0]])
    reference = jnp.full((1, 7), -3.0)

    def loss(log_prob):
      mean, metrics = losses.nash_pg_loss(
        log_prob=log_prob,
        ref_log_prob=reference,
        win_prob=jnp.array([0.75]),
        mask=mask,
        kl_coef=0.1,
      )
      return mean.value, metrics

    slope, metrics = jax.jit(jax.grad(loss, has_aux=True))(reference + ratio)
    # ½ of the win, and 15, 14, 12 and 8 nats to go.
    expected = [1.25, 1.15, 0, 0, 0.95, 0.55, 0]
    np.testing.assert_allclose(slope[0], expected, rtol=1e-6)
    self.assertAlmostEqual(float(metrics["kl"].value), 15, places=5)
    self.assertEqual(float(metrics["response_tokens"].value), 4)

  def test_a_prefix_counts_the_policys_tokens(self):
    mask = jnp.array([[True, False, False, True]])
    delta = jnp.array([[0.1, 9.0, 9.0, 0.2]])
    found = ratios.prefix(delta, mask, 0.05)
    np.testing.assert_allclose(found.weight[0, 3], np.exp(0.3), rtol=1e-6)
    high = np.exp(0.05 * np.sqrt([1, 2]))
    np.testing.assert_allclose(found.high[0, [0, 3]], high, rtol=1e-6)


def batch_of(model_batch, rng) -> dict:
  """Scripts of one to three turns for the rows of a batch."""
  rows = len(model_batch["prompts"])
  counts = np.arange(rows) % 3 + 1
  lengths = rng.integers(2, 5, (rows, 2)) * (np.arange(2) < counts[:, None] - 1)
  mask = np.arange(4) < lengths[..., None]
  between = np.where(mask, rng.integers(2, 9, (rows, 2, 4)), 0)
  closing = np.where(lengths > 0, rng.integers(0, 2, (rows, 2)), 0)
  found = {
    "between": between, "between_mask": mask, "closing": closing,
    "turns": counts,
  }  # fmt: skip
  return {
    name: jnp.asarray(x, bool if x.dtype == bool else jnp.int32)
    for name, x in found.items()
  }


class RolloutTest(absltest.TestCase):
  def test_log_probs_are_the_teacher_forced_ones(self):
    model = decoder_test.tiny_model("qwen2")
    # Of so many prompts some are left behind by a narrower loop.
    batch = t5_test.tiny_batch(rows=16)
    sets = {
      name: model.init(jax.random.key(n))
      for n, name in enumerate(("policy", "reference"))
    }
    lanes = [{"policy": 1.0}, {"policy": 0.7, "reference": 0.3}]
    given = batch_of(batch, np.random.default_rng(0))
    rows, ends = len(batch["prompts"]), (1, 2, 3, 4)
    prompts = {name: batch[name] for name in ("prompts", "prompt_mask")}
    out = jax.jit(
      lambda sets: sampling.rollout(
        model,
        sets,
        lanes,
        **prompts,
        keys=sampling.row_keys(jax.random.key(3), jnp.arange(rows), 2),
        max_response=4,
        temperature=0.7,
        eos_ids=ends,
        script=turns.script(given),
      )
    )(sets)
    self.assertEqual(out.tokens.shape, (rows, 2, 3 * 4 + 2 * 4))
    lasts = self.check_turns(out, given, ends)
    np.testing.assert_array_equal(
      sampling.ended(out.tokens, out.mask, ends), lasts
    )
    self.assertTrue(lasts.any() and not lasts.all())
    forced = jax.jit(
      lambda sets, tokens: {
        name: arrays.log_softmax(
          model.response_logits(params, *prompts.values(), tokens), 0.7
        )
        for name, params in sets.items()
      }
    )
    out = jax.device_get(out)
    for i, lane in enumerate(lanes):
      tokens, found = out.tokens[:, i], forced(sets, out.tokens[:, i])
      mixed = sum(lane[name] * np.asarray(found[name]) for name in lane)
      mixed -= np.log(np.exp(mixed).sum(-1, keepdims=True))
      expected = np.take_along_axis(mixed, tokens[..., None], -1)[..., 0]
      np.testing.assert_allclose(
        out.log_prob[:, i], np.where(out.mask[:, i], expected, 0), atol=1e-4
      )

  def check_turns(self, out, given, ends):
    """Walks every row by its script; which rows end all of their turns."""
    out, given = jax.device_get((out, given))  # one by one takes long
    lasts = np.zeros(out.mask.shape[:2], bool)
    for (row, lane), _ in np.ndenumerate(lasts):
      tokens, mask = np.asarray(out.tokens[row, lane]), out.mask[row, lane]
      at, whole = 0, True
      for turn in range(int(given["turns"][row])):
        size = 1
        while size < 4 and tokens[at + size - 1] not in ends:
          size += 1
        at += size
        ended = tokens[at - 1] in ends
        whole &= ended
        self.assertTrue(bool(mask[at - size : at].all()))
        if turn + 1 < given["turns"][row]:
          keep = np.asarray(given["between_mask"][row, turn])
          gap = np.asarray(given["between"][row, turn])[keep]
          gap = gap[int(given["closing"][row, turn]) if ended else 0 :]
          np.testing.assert_array_equal(tokens[at : at + len(gap)], gap)
          self.assertFalse(bool(mask[at : at + len(gap)].any()))
          at += len(gap)
      self.assertFalse(bool(mask[at:].any()) or tokens[at:].any())
      lasts[row, lane] = whole
    return lasts


class SaidTest(absltest.TestCase):
  def test_judges_read_all_turns_and_what_stands_between(self):
    tokens = np.array([[[5, 1, 30, 31, 6, 7, 0]], [[8, 9, 1, 0, 0, 0, 0]]])
    mask = np.array([[[1, 1, 0, 0, 1, 1, 0]], [[1, 1, 1, 0, 0, 0, 0]]], bool)
    batch = {
      "between": np.array([[[30, 31]], [[0, 0]]]),
      "between_mask": np.array([[[True, True]], [[False, False]]]),
      "between_questions": np.array([[[40, 0]], [[0, 0]]]),
      "between_questions_mask": np.array([[[True, False]], [[False, False]]]),
    }
    read, kept = turns.said(batch, jnp.asarray(tokens), jnp.asarray(mask))
    np.testing.assert_array_equal(
      read[:, 0], [[5, 1, 40, 6, 7, 0, 0], [8, 9, 1, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(jnp.sum(kept, axis=2)[:, 0], [5, 3])
    read, _ = turns.said({}, tokens, mask)
    self.assertIs(read, tokens)


if __name__ == "__main__":
  absltest.main()
