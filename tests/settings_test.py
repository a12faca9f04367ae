"""What goes together in a config, and that the settings declared are those."""

from absl.testing import absltest, parameterized
import numpy as np

from configs import docstrings, worlds
from nashmd_jax import declare, main, mistakes, models, pipeline
from nashmd_jax.judges import raters
from nashmd_jax.models import decoder_config, t5
from nashmd_jax.models import settings as model_settings
from nashmd_jax.nash import settings
from nashmd_jax.stages import comparisons, text
from nashmd_jax.training import journal, optimizer
from nashmd_jax.worlds import stage as worlds_stage
from tests import small_records


def told(changes, *, config=None, made=text.PIPELINE) -> list[str]:
  """All that is wrong with the tiny config after these changes."""
  config = config or docstrings.get_config("tiny")
  config = config.copy_and_resolve_references()
  with config.unlocked(), config.ignore_type():
    for name, value in changes.items():
      *path, last = name.split(".")
      pipeline.section_at(config, ".".join(path))[last] = value
  try:
    pipeline.check(made, config)
  except mistakes.Mistake as mistake:
    return list(mistake.sentences)
  return []


class RelationsTest(parameterized.TestCase):
  @parameterized.parameters(
    {},
    {"sft.train.steps": 2},
    {"sft.train.steps": 8, "sft.optimizer.decay_steps": 0},
    {"sft.train.steps": 8, "sft.optimizer.decay_steps": 9},
    {"nash.updates_per_rollout": 2, "nash.optimizer.decay_steps": 8},
    {"nash.mixture_end": 0.0, "nash.mixture_steps": 400},
    {"comparisons.drawing.samples_per_prompt": 0},
    {"layout.prompt_buckets": (8, 32)},
    {"tokenizer.vocab_size": 262},
    {"model.num_buckets": 4, "model.max_distance": 3},
  )
  def test_what_goes_together(self, **changes):
    self.assertEqual(told(changes), [])

  @parameterized.parameters(
    (
      {"sft.train.steps": 8},
      "sft.optimizer.decay_steps: got 4 for 8 updates, the last 4 of them at a "
      "rate of 0; set it to 8, or to 0 to keep the rate",
    ),
    (
      {"nash.runs.nash_md": {"updates_per_rollout": 3}},
      "nash.optimizer.decay_steps: got 4 for 12 updates, .* [(]run nash_md[)]",
    ),
    ({"reward.optimizer.warmup_steps": 4}, "reward.optimizer.decay_steps: got"),
    (
      {"nash.optimizer.name": "adafactor"},
      "nash.optimizer: adafactor is given .*'b1'.*, expected .'decay_rate'.",
    ),
    (
      {"nash.runs.nash_md": {"optimizer": {"decay_rate": 0.8}}},
      "nash.runs.nash_md: sets optimizer.decay_rate, which nash does not",
    ),
    (
      {"data.comparisons": "."},
      "data.comparisons: got '.' without data.records",
    ),
    (
      {"layout.prompt_buckets": (32, 16)},
      "layout.prompt_buckets: got .32, 16.",
    ),
    (
      {"tokenizer.vocab_size": 260},
      "tokenizer.vocab_size: got 260 .* 261 or m",
    ),
    (
      {"tokenizer.eos_token": None},
      "tokenizer.eos_token: got None for a token",
    ),
    (
      {"model.max_distance": 16},
      "model.max_distance: got 16 for 32 num_buckets",
    ),
    ({"required": ("data.rows",)}, "required: there is no setting 'data.rows'"),
    (
      {"devices.mode": "pmap", "devices.fsdp": True},
      "devices.mode: pmap keeps",
    ),
    (
      {"nash.runs": {"sft": {}, "rlhf": {}, "nash_md": {}}},
      "nash.runs: 'sft' is the name of another policy already",
    ),
    (
      {"nash.runs": {"written": {}, "rlhf": {}, "nash_md": {}}},
      "nash.runs: 'written' is the name of another policy already",
    ),
    ({"raters.weights.brevity": 0.5}, "raters.weights: got .* that sum to 1"),
    ({"raters.panel.size": 2}, "raters.panel.size: got 2, too few for a rater"),
    (
      {"reward.template.prompt": ""},
      "reward.template: has the slots .'first'.",
    ),
    (
      {"model.pretrained": "absent"},
      "model.pretrained: got 'absent', where th",
    ),
    ({"model.pretrained": "a" * 5000}, "model.pretrained: got 'aaa"),
    ({"chat.template": "absent"}, "chat.template: absent: cannot be read"),
    ({"data.records": "absent"}, "absent/train.jsonl: .* [(]data.records[)]"),
    (
      {"tournament.judges": ("reward-1000",)},
      "tournament.judges: got 'reward-1",
    ),
  )
  def test_what_does_not(self, changes, message):
    sentences = told(changes)
    self.assertRegex(sentences[0], f"^{message}")

  def test_a_number_for_a_whole_one_in_a_run(self):
    changes = {"nash.kl_coef": 1, "nash.runs.nash_md": {"kl_coef": 0.5}}
    self.assertEqual(told(changes), [])
    config = docstrings.get_config("tiny").unlock()
    del config.nash.kl_coef
    config.nash.kl_coef = 1
    config.nash.runs.nash_md = {"kl_coef": 0.5}
    config.nash.runs.rlhf.kl_coef = 0.5
    for name in ("nash_md", "rlhf"):
      section = settings.run_section(config.lock(), name)
      self.assertEqual(section.kl_coef, 0.5)

  def test_of_worlds(self):
    config = worlds.get_config("tiny")
    made = worlds_stage.PIPELINE
    self.assertEqual(told({}, config=config, made=made), [])
    (sentence,) = told(
      {"nash.runs.nash_md_half.train": {"steps": 6}}, config=config, made=made
    )
    self.assertStartsWith(sentence, "nash.optimizer.decay_steps: got 4 for 6")

  def test_the_rate_is_never_0_where_the_schedule_is_long_enough(self):
    given = dict(
      name="adamw", learning_rate=1.0, max_grad_norm=1.0, b1=0.0, b2=0.0,
      weight_decay=0.0, warmup_steps=0, decay_steps=8,
    )  # fmt: skip
    optimizer.check_schedule(given, 8)
    tx, w = optimizer.make_optimizer(**given), {"w": np.ones(1, np.float32)}
    state, moved = tx.init(w), []
    for _ in range(9):
      update, state = tx.update(w, state, w)
      moved.append(abs(float(update["w"][0])))
    self.assertGreater(min(moved[:8]), 0.0)
    self.assertEqual(moved[8], 0.0)
    with self.assertRaisesRegex(mistakes.Mistake, "got 8 for 9 updates"):
      optimizer.check_schedule(given, 9)

  def test_where_a_decay_of_the_mixture_is_cut_off_is_told(self):
    config = docstrings.get_config("tiny").unlock()
    config.nash.update({"mixture": 0.5, "mixture_end": 0.0})
    config.nash.update({"mixture_steps": 8, "deploy": "mixture"})
    section = settings.run_section(config, "nash_md")
    self.assertEqual(
      settings.cut_off(section),
      "β goes from 0.5 to 0.25, not to 0: train.steps (4) end before "
      "mixture_steps (8) do",
    )
    deployed = settings.deployed_lane(section)
    self.assertEqual(deployed, {"policy": 0.75, "reference": 0.25})
    section.mixture_steps = 4
    self.assertIsNone(settings.cut_off(section))

  def test_candidates_of_the_data_alone(self):
    rows = [small_records.record(number) for number in range(4)]
    population = raters.make_population(**docstrings.get_config().raters)
    drawn, left_out = comparisons.draw_comparisons(
      None, population, {}, rows, pairs_per_prompt=2, votes_per_pair=3,
      samples_per_prompt=0, batch_size=4, temperature=1.0, seed=(0, 0),
      once=journal.anew,
    )  # fmt: skip
    self.assertLen(drawn, 8)
    self.assertEqual(left_out, {"samples": 0, "empty": 0, "repeated": 0})

  def test_samples_that_are_no_candidates_are_counted(self):
    rows = [{"response": "a"}, {"response": "b"}, {"response": "c"}]
    samples = [["", "a", "x"], ["x", "x", "x"], ["y", "z", ""]]
    self.assertEqual(
      comparisons.count_left_out(rows, samples),
      {"samples": 9, "empty": 2, "repeated": 3},
    )


class DeclaredTest(absltest.TestCase):
  def test_no_section_is_declared_twice(self):
    for made in main.PIPELINES.values():
      tops = [*made.settings, *(n for s in made.stages for n in s.settings)]
      self.assertLen(set(tops), len(tops))
      self.assertEqual(set(tops), set(made.declared()))

  def test_of_a_model_all_fields_of_both_kinds(self):
    fields = {*t5.T5Config._fields, *decoder_config.DecoderConfig._fields}
    self.assertEqual(set(model_settings.SIZES), fields - {"vocab_size"})

  def test_the_defaults_of_a_model_are_what_they_may_be(self):
    given = dict(width=8, num_heads=2, head_dim=4, mlp_dim=8)
    more = dict(num_layers=1, num_kv_heads=1, rope_base=1e4, window=4)
    for family in decoder_config.FAMILIES:
      made = models.make_config(family=family, vocab_size=8, **given, **more)
      for name, value in made._asdict().items():
        if name != "vocab_size":
          told = declare.wrong(model_settings.SIZES[name], value)
          self.assertIsNone(told, msg=f"{family} {name}")


if __name__ == "__main__":
  absltest.main()
