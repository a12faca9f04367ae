"""Play: who is run, who is asked, with which keys; steps of it."""

from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
from jax.sharding import AxisType
import numpy as np
import optax

from nashmd_jax import sampling
from nashmd_jax.judges import preference_model, scorers
from nashmd_jax.nash import opponents, ways
from nashmd_jax.nash import play as play_lib
from nashmd_jax.training import followers, sharding, state, step
from tests import enumeration, gradient_oracle, plays, variance, whole_step

ROWS = 8


def first_token_judge(keys, prompts, y, y_opp):
  """Prefers the higher first token, softly and antisymmetrically."""
  del keys, prompts
  return jax.nn.sigmoid((y[0][:, 0] - y_opp[0][:, 0]) / 3.0)


def make_play(model, **settings) -> play_lib.Play:
  """A play, by default before the judge of first tokens."""
  return plays.make_play(
    model=model, **({"judge": first_token_judge} | settings)
  )


def make_batch() -> dict[str, jax.Array]:
  batch = plays.batches(1, rows=ROWS)[0]
  return jax.tree.map(
    jnp.asarray, batch | {"example_ids": 10 + np.arange(ROWS)}
  )


def scores(play, rows):
  """What the loss reads of the answers."""
  made = play_lib.algorithms_lanes(play, 0)
  own, other = len(made.own), len(made.other)
  asked = ways.Asked(own, *play.algorithm.way.asks(own, other))
  return play.algorithm.way.scores(
    rows["answers"], rows["judged"], rows["weights"], asked
  )


class PlayTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.model = plays.MODELS["table"]()
    names = ("policy", "reference", "ema", "past")
    keys = jax.random.split(jax.random.key(0), len(names))
    self.sets = {
      name: self.model.init(key) for name, key in zip(names, keys, strict=True)
    }
    stack = jax.tree.map(lambda x: x[None], self.sets["past"])
    self.sets["past"] = followers.Past(stack, jnp.int32(1))
    self.batch = make_batch()

  def rollout(self, play, sets=None, batch=None):
    sets = sets or self.sets
    run = jax.jit(lambda *args: play_lib.rollout(play, sets, *args))
    return run(batch or self.batch, jax.random.key(5), jnp.int32(0))

  def decoded(self, play) -> set[str]:
    """Names of the sets whose `decode` is called in a rollout."""
    names = {id(tree): name for name, tree in self.sets.items()}
    seen = set()

    def decode(params, cache, tokens):
      seen.add(names.get(id(params), "made"))
      return self.model.decode(params, cache, tokens)

    play = play._replace(model=self.model._replace(decode=decode))
    jax.eval_shape(
      lambda *args: play_lib.rollout(play, self.sets, *args),
      self.batch,
      jax.random.key(5),
      jnp.int32(0),
    )
    return seen

  @parameterized.parameters(
    (dict(opponent="self"), {"policy"}),
    (dict(mixture=0.0), {"policy"}),
    (dict(mixture=1.0), {"policy", "reference"}),
    (dict(mixture=0.0, mixture_steps=5), {"policy", "reference"}),
    (dict(opponent="moving_average"), {"policy", "ema"}),
    (dict(opponent="moving_average_mixture", mixture=0.0), {"policy", "ema"}),
    (dict(opponent="past"), {"policy", "made"}),
    (dict(loss="ipo", mixture=1.0), {"reference"}),
    (dict(scores="reward", samples=2, opponent="reference"), {"policy"}),
  )
  def test_only_sets_of_positive_weight_are_decoded(self, settings, expected):
    judge = plays.JUDGES[settings.get("scores", "win_prob")]
    play = make_play(self.model, judge=judge, **settings)
    self.assertEqual(self.decoded(play), expected)

  @parameterized.parameters(
    ("policy_gradient", 1), ("policy_gradient", 3), ("ipo", 2),
    ("policy_gradient_exact_kl", 2),
  )  # fmt: skip
  def test_shapes_and_a_finite_gradient(self, loss, samples):
    play = make_play(self.model, loss=loss, samples=samples)
    rows = self.rollout(play)
    own = samples * (2 if loss == "ipo" else 1)
    asked = own * (own - 1) // 2 if loss == "ipo" else samples**2
    width = (enumeration.VOCAB,) if "exact" in loss else ()
    for name, shape in {
      "responses": (ROWS * own, plays.MAX_RESPONSE),
      "behaviour_log_prob": (ROWS * own, plays.MAX_RESPONSE),
      "reference": (ROWS * own, plays.MAX_RESPONSE, *width),
      "weights": (ROWS, 0 if loss == "ipo" else samples),
      "answers": (ROWS, asked),
      "judged": (ROWS, asked),
    }.items():
      self.assertEqual(rows[name].shape, shape, msg=name)

    def value(params):
      mean, metrics = play_lib.loss(play, params, self.sets, rows, None)
      return mean.value, metrics

    grads, metrics = jax.grad(value, has_aux=True)(self.sets["policy"])
    self.assertGreater(optax.tree.norm(grads), 0)
    for mean in metrics.values():
      self.assertTrue(np.isfinite(mean.value))
      self.assertGreater(mean.count, 0)

  def test_a_judge_reads_the_questions_where_there_are_any(self):
    def judge(keys, prompts, y, y_opp):
      del keys, y_opp
      tokens, mask = preference_model.each(prompts, len(y[0]))
      return jnp.sum(jnp.where(mask, tokens, 0), axis=1) / 100

    asked = jnp.arange(ROWS * 3).reshape(ROWS, 3)
    mask = asked % 3 < 2
    questions = {"questions": asked, "questions_mask": mask}
    play = make_play(self.model, judge=judge, samples=2)
    rows = self.rollout(play, batch=self.batch | questions)
    expected = np.sum(asked * mask, axis=1) / 100
    np.testing.assert_allclose(rows["answers"], expected[:, None].repeat(4, 1))

  def test_the_share_of_responses_that_end(self):
    play = make_play(self.model, samples=2)
    rows = self.rollout(play)
    ends = (rows["responses"] == enumeration.EOS) & rows["responses_mask"]
    _, metrics = play_lib.loss(play, self.sets["policy"], {}, rows, None)
    share = np.mean(np.any(ends, axis=1))
    self.assertBetween(share, 0.05, 0.95)
    np.testing.assert_allclose(metrics["ended"].value, share, rtol=1e-6)

  def test_win_prob_is_the_mean_over_the_opponents(self):
    play = make_play(self.model, samples=3)
    ((_, lane),) = play.opponent.lanes(0)
    lanes = [opponents.LEARNER] * 3 + [lane] * 3
    write_rng = jax.random.split(jax.random.key(5), 3)[0]
    written = sampling.rollout(
      self.model,
      self.sets,
      lanes,
      prompts=self.batch["prompts"],
      prompt_mask=self.batch["prompts_mask"],
      keys=sampling.row_keys(write_rng, self.batch["example_ids"], 6),
      max_response=plays.MAX_RESPONSE,
      temperature=0.8,
      eos_ids=(enumeration.EOS,),
    )
    first = written.tokens[:, :, 0]
    margin = first[:, :3, None] - first[:, None, 3:]
    expected = jax.nn.sigmoid(margin / 3.0).mean(axis=2).reshape(-1)
    rows = self.rollout(play)
    np.testing.assert_allclose(
      scores(play, rows)["win_prob"], expected, rtol=1e-6
    )
    np.testing.assert_array_equal(
      rows["responses"],
      written.tokens[:, :3].reshape(-1, plays.MAX_RESPONSE),
    )

  def test_pairs_are_asked_once_and_win_prob_is_antisymmetric(self):
    asked = []

    def judge(keys, prompts, y, y_opp):
      asked.append(len(keys))
      return first_token_judge(keys, prompts, y, y_opp)

    play = make_play(self.model, loss="dpo", samples=2, judge=judge)
    rows = self.rollout(play)
    self.assertEqual(asked, [ROWS * 6])
    found = scores(play, rows)
    win_prob = np.asarray(found["win_prob"])
    self.assertEqual(win_prob.shape, (ROWS, 4, 4))
    np.testing.assert_allclose(
      win_prob + win_prob.transpose(0, 2, 1), 1.0, rtol=1e-6
    )
    first = rows["responses"][:, 0].reshape(ROWS, 4)
    margin = first[:, :, None] - first[:, None, :]
    np.testing.assert_allclose(win_prob, jax.nn.sigmoid(margin / 3), rtol=1e-6)
    self.assertTrue((found["judged"] | np.eye(4, dtype=bool)[None]).all())

  @parameterized.parameters(1, 3)
  def test_baseline_of_rlhf(self, samples):
    def scorer(prompts, y):
      del prompts
      return y[0][:, 0].astype(jnp.float32)

    play = make_play(
      self.model, scores="reward", judge=scorer, samples=samples,
      opponent="reference",
    )  # fmt: skip
    rows = self.rollout(play)
    found = scores(play, rows)
    reward = rows["responses"][:, 0].reshape(ROWS, samples)
    np.testing.assert_array_equal(found["reward"], reward.reshape(-1))
    if samples == 1:
      versus = make_play(self.model, opponent="reference", judge=lambda k, p, y,
        z: z[0][:, 0].astype(jnp.float32))  # fmt: skip
      np.testing.assert_array_equal(
        found["baseline"], scores(versus, self.rollout(versus))["win_prob"]
      )
    else:
      others = (reward.sum(1, keepdims=True) - reward) / 2
      np.testing.assert_allclose(found["baseline"], others.reshape(-1))

  def test_samples_have_keys_of_their_own(self):
    seen = []

    def rollout(*args, keys, **kwargs):
      jax.debug.callback(seen.append, jax.random.key_data(keys))
      return sampling_rollout(*args, keys=keys, **kwargs)

    sampling_rollout = sampling.rollout
    with mock.patch.object(sampling, "rollout", rollout):
      jax.block_until_ready(self.rollout(make_play(self.model, samples=4)))
      jax.effects_barrier()
    data = np.asarray(seen[0]).reshape(8 * ROWS, -1)
    self.assertLen(np.unique(data, axis=0), 8 * ROWS)

  @parameterized.parameters(1, 2, 4)
  def test_a_part_of_the_batch_completes_as_the_whole(self, size):
    play = make_play(
      self.model, samples=2, judge=scorers.votes(first_token_judge)
    )
    whole = self.rollout(play)
    run = jax.jit(lambda batch: self.rollout(play, batch=batch))
    for start in range(0, ROWS, size):
      part = run(jax.tree.map(lambda x, i=start: x[i : i + size], self.batch))
      for name, each in (("responses", 2), ("answers", 1)):
        rows = slice(each * start, each * (start + size))
        np.testing.assert_array_equal(part[name], whole[name][rows])

  @parameterized.parameters(1, 2, 8)
  def test_devices_complete_as_one(self, count):
    devices = np.array(jax.devices()[:count])
    mesh = jax.sharding.Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    play = make_play(
      self.model, samples=2, judge=scorers.votes(first_token_judge)
    )
    run = jax.jit(
      lambda sets, batch: play_lib.rollout(
        play, sets, batch, jax.random.key(5), jnp.int32(0)
      )
    )
    got = run(
      jax.device_put(self.sets, sharding.replicated(mesh)),
      sharding.shard_batch(self.batch, mesh),
    )
    whole = self.rollout(play)
    for name in ("responses", "answers"):
      np.testing.assert_array_equal(got[name], whole[name])

  @parameterized.parameters(
    ("policy", "reference"), ("reference", "moving_average"),
    ("ema", "reference"),
  )  # fmt: skip
  def test_a_moved_set_moves_no_other(self, moved, opponent):
    # IPO's responses are all of the opponent.
    play = make_play(self.model, loss="ipo", opponent=opponent)
    shifted = jax.tree.map(lambda x: x + 0.5, self.sets[moved])
    shifted = jax.tree.map(lambda x: x.at[..., 0].add(1.0), shifted)
    before, after = (
      self.rollout(play, sets)
      for sets in (self.sets, self.sets | {moved: shifted})
    )
    np.testing.assert_array_equal(before["responses"], after["responses"])
    if moved != "reference":
      np.testing.assert_array_equal(before["reference"], after["reference"])


class VotesTest(absltest.TestCase):
  def test_votes_follow_the_preference(self):
    count = 4000
    y = (jnp.full((count, 1), 5), jnp.ones((count, 1), bool))
    y_opp = (jnp.full((count, 1), 3), jnp.ones((count, 1), bool))
    keys = jax.random.split(jax.random.key(0), count)
    votes = scorers.votes(first_token_judge)(keys, y, y, y_opp)
    self.assertEqual(set(np.asarray(votes).tolist()), {0.0, 1.0})
    expected = 1 / (1 + np.exp(-2 / 3))
    # Four deviations of a binomial: 4 √(.66 · .34 / 4000) = .030.
    np.testing.assert_allclose(votes.mean(), expected, atol=0.03)


class StepTest(absltest.TestCase):
  def test_successive_steps_differ_and_a_step_can_be_repeated(self):
    play = make_play(plays.MODELS["table"](), opponent="self")
    still = optax.sgd(0.0)
    made = plays.experiment(play)
    take = jax.jit(
      step.make_programs(
        made, still, seed=0, updates_per_rollout=1, micro_batches=1
      ).step
    )
    now = state.init_state(*made.init(None), still, made.followers)
    again, first = take(now, make_batch())
    _, second = take(again, make_batch())
    _, repeated = take(now, make_batch())
    first, second, repeated = (
      float(metrics["win_prob"].value) for metrics in (first, second, repeated)
    )
    self.assertEqual(first, repeated)
    self.assertNotEqual(first, second)


class VarianceTest(absltest.TestCase):
  def test_whole_steps_have_the_enumerated_mean_and_variance(self):
    # 500 steps: the error of their mean is about 5 % of its norm.
    with jax.enable_x64(True):
      world = gradient_oracle.make_world(3)
      play = whole_step.make_play(world, samples=4)
      drawn = variance.step_gradients(play, world.sets, 500, 0)
      exact = gradient_oracle.exact_nash(world, "mixture")
      self.assertLess(gradient_oracle.error(drawn.mean(0), exact), 0.12)
      expected = variance.exact_variance(world, 4)
    self.assertLess(abs(variance.total_variance(drawn) / expected - 1), 0.2)


if __name__ == "__main__":
  absltest.main()
