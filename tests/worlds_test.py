"""The stage `nash` of planted worlds: its check, what it plays, a landing."""

import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from figures import landing
from nashmd_jax import games, mistakes, pipeline
from nashmd_jax.worlds import answer as answer_lib
from nashmd_jax.worlds import planted, stage
from tests import small_worlds


def sentences(config):
  """All that the check tells of a config."""
  try:
    pipeline.check(stage.PIPELINE, config)
  except mistakes.Mistake as error:
    return error.sentences
  return ()


class CheckTest(parameterized.TestCase):
  @parameterized.parameters("neural", "one_token", "tiny")
  def test_configs_pass_the_check(self, variant):
    self.assertEmpty(sentences(landing.load_config(variant)))

  @parameterized.parameters(
    ({"opponent": "past"}, "nash.opponent: no exact answer .*'past'"),
    ({"opponent": "interpolation"}, "nash.opponent: no exact answer"),
    ({"opponent": "me"}, "nash.opponent: got 'me'"),
    ({"mixture": 1.5}, "bad.mixture: got 1.5"),
    ({"loss": "tests.worlds_test:own_loss"}, "nash.loss: got 'tests.worlds_t"),
    ({"kl_coef": 0.0}, "nash.kl_coef: got 0, expected τ above 0"),
    ({"samples": 0}, "bad.samples: got 0"),
    ({"loss": "ppo"}, "nash.loss: got 'ppo'"),
    ({"loss": "kto"}, "nash.loss: got 'kto', whose point of rest is not known"),
    ({"loss": "ipo", "design": "records"}, "nash.design: got 'records'"),
    ({"loss": "sppo"}, "nash.opponent: got 'mixture' for the loss 'sppo'"),
    ({"data": {"batch_size": 6}}, "nash.data.batch_size: .* the 4 prompts"),
    ({"data": {"batch_size": 0}}, "bad.data.batch_size: got 0"),
    ({"train": {"micro_batches": 3}}, "batch_size: .* of train.micro_batches"),
    ({"train": {"micro_batches": 0}}, "bad.train.micro_batches: got 0"),
    ({"train": {"eval_every": 0}}, "bad.train.eval_every: got 0"),
    ({"optimizer": {"name": "sgd"}}, "bad.optimizer.name: got 'sgd'"),
    ({"train": {"steps": 6}}, "decay_steps: got 4 for 6 updates"),
    ({"updates_per_rollout": 2}, "decay_steps: got 4 for 8 updates"),
    ({"ema": {"decay": 1.0}}, "bad.ema.decay: got 1.0"),
  )
  def test_tells_what_is_wrong_with_a_run(self, change, message):
    config = small_worlds.small_config()
    config.nash.runs = {"good": {}, "bad": change}
    found = sentences(config)
    self.assertNotEmpty(found)
    for sentence in found:
      self.assertRegex(sentence, r"^nash\.runs\.bad\.|\(run bad\)$")
    self.assertRegex("\n".join(found), message)

  @parameterized.parameters(
    ({"prompts": 9}, "world.prompts: got 9, expected 1 to 8"),
    ({"prompts": 0}, "world.prompts: got 0"),
    ({"vocab_size": 1}, "world.vocab_size: got 1"),
    ({"max_response": 0}, "world.max_response: got 0"),
    ({"max_response": 40}, "world.max_response: got 40 .* responses"),
    ({"prompt_length": 0}, "world.prompt_length: got 0"),
    ({"prompt_length": 80}, "world.prompt_length: got 80"),
    ({"seed": -1}, "world.seed: got -1"),
    ({"noise": -1.0}, "world.noise: got -1.0"),
  )
  def test_tells_what_is_wrong_with_a_world(self, change, message):
    config = small_worlds.small_config()
    config.world.update(change)
    self.assertRegex("\n".join(sentences(config)), message)

  def test_tells_everything_at_once(self):
    config = small_worlds.small_config()
    config.world.update({"prompts": 0, "seed": -1})
    config.devices.run_dtype = "int8"
    config.model.family = "rnn"
    config.nash.runs = {
      "a": {"samples": 0, "kl_coef": -1.0},
      "b": {"samples": 0, "loss": ""},
    }
    found = "\n".join(sentences(config))
    for message in (
      "world.prompts: got 0",
      "world.seed: got -1",
      "devices.run_dtype: got 'int8'",
      "model.family: got 'rnn'",
      "nash.runs.a.samples: got 0, expected a whole number from 1 to 10000",
      "nash.runs.b.samples: got 0",
      "nash.runs.a.kl_coef: got -1.0, expected a number from 0 to",
      "nash.runs.b.loss: got ''",
    ):
      self.assertIn(message, found)

  @parameterized.parameters("judge", "deploy", "past")
  def test_has_no_settings_that_nothing_reads(self, key):
    config = small_worlds.small_config().unlock()
    config.nash[key] = "mixture"
    self.assertRegex("\n".join(sentences(config)), rf"unknown \['{key}'\]")

  def test_prepare_tells_what_takes_devices_to_know(self):
    config = small_worlds.small_config()
    config.nash.runs = {
      "fits": {},
      "split": {"train": {"micro_batches": 2}},
      "cold": {"kl_coef": 1e-4},
    }
    self.assertEmpty(sentences(config))
    with self.assertRaises(mistakes.Mistake) as caught:
      stage.PIPELINE.prepare(config, pathlib.Path())
    cold, split = sorted(caught.exception.sentences)
    self.assertRegex(split, "^nash.runs.split: .*batch_size: got 4 .* of 8")
    self.assertRegex(cold, "^nash.runs.cold: nash.kl_coef: no exact answer")


def own_loss(*, log_prob, win_prob, mask):
  return -jnp.mean(jnp.sum(jnp.where(mask, log_prob, 0), 1) * win_prob)


class StageTest(parameterized.TestCase):
  def test_batches_hold_every_prompt_as_often_and_keep_their_place(self):
    world = planted.make_world(**small_worlds.small_config().world)
    batches = stage.make_batches(world, 8)
    first, state = next(batches), batches.get_state()
    second = next(batches)
    rows, counts = np.unique(first["prompts"], axis=0, return_counts=True)
    self.assertLen(rows, 4)
    np.testing.assert_array_equal(counts, 2)
    np.testing.assert_array_equal(second["example_ids"], np.arange(8, 16))
    again = stage.make_batches(world, 8)
    again.set_state(state)
    np.testing.assert_array_equal(
      next(again)["example_ids"], second["example_ids"]
    )

  @parameterized.parameters(
    ("float32", "float32"), ("bfloat16", "float32"), ("float32", "bfloat16")
  )
  def test_the_answer_is_of_the_reference_that_is_played(self, run, frozen):
    config = small_worlds.small_config()
    config.devices.update({"run_dtype": run, "frozen_dtype": frozen})
    world, answer, experiment, sets = small_worlds.make_experiment(config)
    batch = next(experiment.batches())
    rows = jax.jit(experiment.rollout)(sets, batch, jax.random.key(0), 0)
    space, mask = world.space, rows["responses_mask"]
    which = games.response_index(space, rows["responses"], mask)
    same = (rows["prompts"][:, None] == world.prompts[None]).all(-1)
    played = jnp.where(mask, rows["reference"], 0).sum(1)
    prompt = jnp.repeat(jnp.argmax(same, axis=1), len(which) // len(same))
    expected = answer.reference[prompt, which]
    np.testing.assert_allclose(played, expected, atol=1e-5)
    model = stage.make_model(config, world)
    start = model.init(jax.random.key(config.seed))
    plain = answer_lib.exact_log_probs(world, model, start, temperature=1.0)
    moved = np.abs(answer.reference - np.asarray(plain)).max()
    if run == frozen:
      self.assertLess(moved, 1e-6)
    else:
      self.assertGreater(moved, 1e-3)

  def test_evaluates_the_policy_as_it_is_run(self):
    config = small_worlds.small_config()
    config.devices.run_dtype = "bfloat16"
    world, answer, experiment, sets = small_worlds.make_experiment(config)
    start = jnp.asarray(answer.reference, jnp.float32)  # as it is run
    expected = answer_lib.distances(world, answer, start)
    found = experiment.evaluate(sets)
    np.testing.assert_allclose(found["kl"], expected["kl"], rtol=1e-5)

  @parameterized.parameters(
    ("self", False),
    ("mixture", False),
    ("moving_average", True),
    ("moving_average_mixture", True),
  )
  def test_keeps_an_average_where_the_opponent_plays_it(self, opponent, kept):
    experiment, sets = small_worlds.make_experiment(
      small_worlds.small_config(opponent=opponent)
    )[2:]
    self.assertEqual(set(experiment.followers), {"ema"} if kept else set())
    found = experiment.evaluate(sets)
    self.assertEqual("ema_kl" in found, kept)
    if kept:  # at the start it is the policy
      self.assertAlmostEqual(
        float(found["ema_kl"]), float(found["kl"]), places=6
      )
      moved = jax.tree.map(lambda x: 2 * x, sets["policy"])
      later = experiment.evaluate({**sets, "policy": moved})
      self.assertEqual(later["ema_kl"], found["ema_kl"])
      self.assertNotEqual(later["kl"], found["kl"])

  def test_result_depends_on_what_its_run_reads(self):
    def key(change=None, job="nash/one", **sections):
      config = small_worlds.small_config(mixture=0.25)
      config.nash.runs = {"one": change or {}, "two": {"mixture": 0.5}}
      for name, settings_ in sections.items():
        config[name].update(settings_)
      return stage.STAGE.reads(config, job)

    self.assertEqual(key()["nash.mixture"], 0.25)
    self.assertEqual(key(job="nash/two")["nash.mixture"], 0.5)
    self.assertEmpty([name for name in key() if name.startswith("nash.runs")])
    self.assertEqual(key(), key(devices={"fsdp": True}))
    changed = (
      key({"train": {"steps": 6}}),
      key({"ema": {"decay": 0.5}}),
      key(world={"seed": 1}),
      key(model={"width": 16}),
      key(devices={"run_dtype": "bfloat16"}),
      key(devices={"frozen_dtype": "bfloat16"}),
    )
    for other in changed:
      self.assertNotEqual(other, key())

  def test_lands_at_its_answer_and_nowhere_else(self):
    # Self-play would rest at the equilibrium, a best response further off, a
    # wrong sign nowhere.
    found = self.train_long({"mixture": 0.5})
    self.assertGreater(found["eval/equilibrium_kl"], 8e-3)
    self.assertLess(found["eval/mixture_kl"], 2e-3)

  @pytest.mark.slow
  def test_a_pairwise_loss_lands_at_its_own(self):
    # Where the mixture's answer would have it rest is the equilibrium.
    change = {"opponent": "self", "loss": "dpo", "kl_coef": 0.6}
    found = self.train_long(change)
    self.assertGreater(found["eval/equilibrium_kl"], 0.1)

  def train_long(self, change):
    """What 400 steps end at; that it is the answer is checked."""
    # In float32, by sampling, through the loop.
    config = small_worlds.small_config(kl_coef=0.15, samples=8)
    config.world.update({"max_response": 1, "vocab_size": 5})
    config.nash.data.batch_size = 64
    config.nash.optimizer.update({"warmup_steps": 10, "decay_steps": 400})
    config.nash.train.update({
      "steps": 400, "log_every": 100, "eval_every": 100, "save_every": 400
    })  # fmt: skip
    config.nash.runs = {"one": change}
    # Collectives among eight devices on one core can time out.
    alone = jax.devices()[:1]
    with (
      mock.patch.object(jax, "devices", return_value=alone),
      tempfile.TemporaryDirectory() as folder,
    ):
      found = stage.run(config, pathlib.Path(folder), "nash/one")
    self.assertLess(found["eval/kl"], 3e-3)
    return found


if __name__ == "__main__":
  absltest.main()
