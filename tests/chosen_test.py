"""Choices among samples as policies of a tournament, and what is refused."""

import json
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import numpy as np
from scipy import special

from configs import docstrings, tldr_t5
from nashmd_jax import mistakes, pipeline
from nashmd_jax import task as task_lib
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.data import batches
from nashmd_jax.data import records as records_lib
from nashmd_jax.evaluation import length
from nashmd_jax.stages import judging, policies, text, tournament, writing
from nashmd_jax.training import distributed, ending, journal
from tests import lora_runs, main_test, small_records

CHOSEN = {
  "best": {
    "policy": "sft", "choose": "best", "samples": 3,
    "judge": "tests.chosen_test:longer",
  },
  "nash": {
    "policy": "sft", "choose": "equilibrium", "samples": 4, "judge": "raters"
  },
  "idle": {
    "policy": "sft", "choose": "best", "samples": 2, "judge": "reward"
  },
}  # fmt: skip


def longer(keys, prompts, responses, opponents):
  """A judge of tokens that likes length."""
  del keys, prompts
  more = responses[1].sum(1) - opponents[1].sum(1)
  return jax.nn.sigmoid(0.5 * more)


def never(records, responses, opponents):
  """A judge of text that tells nothing of half of the records."""
  del opponents
  said = [len(text.split()) / 100 for text in responses]
  known = [int(row["id"]) % 2 for row in records]
  return np.where(known, said, np.nan)


def made_config(**tournament):
  made = docstrings.get_config("tiny").unlock()
  made.tournament.policies = ("sft", "best", "nash")
  made.tournament.judges = ("raters",)
  made.tournament.chosen = CHOSEN
  made.tournament.log_ratio = True
  made.tournament.update(tournament)
  return made.lock()


class TournamentTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = main_test.made_folder(cls)
    cls.config = made_config().unlock()
    records = small_records.write(folder / "records")
    cls.config.data.update({"records": str(records), "schema": "summary"})
    cls.workdir = folder / "run"
    lora_runs.run(cls.config, cls.workdir, "sft", "tournament", "report")
    cls.task = lora_runs.load_task(cls.config, cls.workdir)
    cls.rows = cls.task.splits["test"][:8]

  def answers(self, name) -> list[str]:
    path = self.workdir / "tournament" / "responses" / f"{name}.jsonl"
    return [
      row["response"] for row in records_lib.load_records(path, "summary")
    ]

  def test_it_trained_nothing_but_sft(self):
    self.assertEqual(tournament.needs(self.config, "tournament"), ["sft"])
    self.assertEqual(
      list(text.PIPELINE.jobs(self.config)), ["sft", "tournament", "report"]
    )

  def test_results_say_how_each_was_chosen(self):
    results = json.loads(
      (self.workdir / "tournament" / "results.json").read_text()
    )
    self.assertCountEqual(results, tournament.RESULTS)
    self.assertEqual(results["policies"], ["sft", "best", "nash"])
    self.assertEqual(
      results["chosen"],
      {name: CHOSEN[name] | {"judged": 1.0} for name in ("best", "nash")},
    )
    words = {
      name: np.mean(length.count_words(self.answers(name)))
      for name in results["policies"]
    }
    self.assertEqual(results["words"], words)
    found = results["judges"]["raters"]["at_equal_length"]
    np.testing.assert_allclose(
      np.add(found["win_rate"], np.transpose(found["win_rate"])), 1
    )

  def test_page_says_what_was_chosen(self):
    page = (self.workdir / "report" / "index.html").read_text()
    self.assertIn(
      "best was not trained: of 3 responses of sft to each prompt it is the "
      "best on average, as tests.chosen_test:longer judges them",
      page,
    )
    self.assertIn("one drawn from the equilibrium of their game", page)
    self.assertIn("<summary>Standings</summary>", page)
    self.assertRegex(page, "(may|do not) explain these win rates: χ² is")
    self.assertRegex(page, r"<td>sft</td><td>\d+\.\d</td><td>\d+\.\d%</td>")

  def test_seed_and_prompt_decide_and_the_batch_does_not(self):
    # In batches of 4, 1 and 1 prompts, of the first five alone.
    config = self.config.copy_and_resolve_references()
    config.tournament.batch_size = 4
    with lora_runs.on_one_device():
      answers = policies.write_all(
        config, self.task, self.workdir, self.rows[:5], journal.anew
      )
    for name, texts in answers.responses.items():
      self.assertEqual(texts, self.answers(name)[:5])

  def test_cut_after_every_batch_they_answer_the_same(self):
    config = self.config.copy_and_resolve_references()
    config.tournament.batch_size = 4
    path = pathlib.Path(self.create_tempdir().full_path) / "pieces.jsonl"

    def write(*stops):
      stops, once = iter(stops), journal.keep(path, of="1")
      with (
        lora_runs.on_one_device(),
        mock.patch.object(distributed, "must_stop", lambda: next(stops)),
      ):
        return policies.write_all(
          config, self.task, self.workdir, self.rows, once
        )

    # Of 8 records sft has 2 batches, best 8 and 2 judged, nash 8 and 2.
    for _ in range(21):
      with self.assertRaises(ending.Preempted):
        write(False, True)
    answers = write(False)
    for name, texts in answers.responses.items():
      self.assertEqual(texts, self.answers(name))
    results = json.loads(
      (self.workdir / "tournament" / "results.json").read_text()
    )
    self.assertEqual(answers.chosen, results["chosen"])
    self.assertEqual(answers.ended, results["ended"])

  def test_another_seed_answers_otherwise(self):
    config = self.config.copy_and_resolve_references()
    config.seed = 1
    with lora_runs.on_one_device():
      answers = policies.write_all(
        config, self.task, self.workdir, self.rows, journal.anew
      )
    for name in ("best", "nash"):
      self.assertNotEqual(answers.responses[name], self.answers(name))

  def test_log_ratios_stand_beside_what_trained_policies_wrote(self):
    found = {
      name: [
        row.get("log_ratio")
        for row in records_lib.load_records(
          self.workdir / "tournament" / "responses" / f"{name}.jsonl", "summary"
        )
      ]
      for name in ("sft", "best", "nash")
    }
    np.testing.assert_allclose(found["sft"], 0, atol=1e-3)  # it is μ itself
    self.assertEqual({*found["best"], *found["nash"]}, {None})

  def test_a_log_ratio_is_of_the_lane_that_wrote(self):
    params = task_lib.load_trained(self.task, "model", self.workdir / "sft")
    moved = jax.tree.map(lambda x: x + 0.1 * np.sin(7 * x), params)
    sets = {"policy": moved, "reference": params}
    source, temperature, kept = self.rows[:4], 0.7, []

    def texts_of(task, rows, tokens, mask):
      del rows
      kept.extend([np.asarray(tokens)[:, 0], np.asarray(mask)[:, 0]])
      return [[""]] * len(tokens)

    with (
      lora_runs.on_one_device(),
      mock.patch.object(writing, "texts_of", texts_of),
    ):
      wrote = writing.write(
        self.task,
        sets,
        [{"policy": 0.75, "reference": 0.25}],
        source,
        batch_size=4,
        temperature=temperature,
        rng=jax.random.key(0),
        told="",
        once=journal.anew,
        log_ratio=True,
      )
      ((batch, _),) = batches.ordered_batches(
        source, self.task.encode, self.task.pad, batch_size=4
      )
      prompts = (batch["prompts"], batch["prompts_mask"])
      logits = jax.jit(self.task.model.response_logits)
      policy, reference = (
        special.log_softmax(
          np.asarray(logits(one, *prompts, kept[0])) / temperature, axis=-1
        )
        for one in (moved, params)
      )
    lane = special.log_softmax(0.75 * policy + 0.25 * reference, axis=-1)
    ratio = np.take_along_axis(lane - reference, kept[0][..., None], axis=-1)
    expected = np.where(kept[1], ratio[..., 0], 0).sum(-1)
    self.assertGreater(np.abs(expected).min(), 1e-3)
    np.testing.assert_allclose(wrote.log_ratio[:, 0], expected, atol=1e-3)

  def test_longest_of_three_is_chosen(self):
    # What the judge likes: no shorter than a policy that is not chosen from.
    tokens = {
      name: [len(self.task.tokenizer.encode(t)) for t in self.answers(name)]
      for name in ("sft", "best")
    }
    self.assertGreater(np.mean(tokens["best"]), np.mean(tokens["sft"]))


class ChooseTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.rows = [{"id": str(i), "prompt": f"p{i}"} for i in range(6)]
    self.written = [
      ["a " * n for n in (i + 1, 9 - i, 4)] for i in range(len(self.rows))
    ]

  def choose(self, judge, how, **changes):
    settings = dict(rng=jax.random.key(0), batch_size=4, once=journal.anew)
    settings |= changes
    return policies.choose(self.written, self.rows, judge, how=how, **settings)

  def test_every_unordered_pair_is_asked_about_once(self):
    asked = []

    def judge(rows, first, second):
      asked.extend(
        (r["id"], a, b) for r, a, b in zip(rows, first, second, strict=True)
      )
      return np.full(len(rows), 0.5)

    found, judged = self.choose(judge, "best")
    expected = [
      (row["id"], texts[i], texts[j])
      for row, texts in zip(self.rows, self.written, strict=True)
      for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    self.assertCountEqual(asked, expected)
    self.assertEqual(judged, 1.0)
    self.assertEqual(found, [texts[0] for texts in self.written])

  @parameterized.parameters("best", "equilibrium")
  def test_the_longest_is_taken_by_both_whatever_the_batch(self, how):
    def judge(rows, first, second):
      del rows
      more = length.count_words(first) - length.count_words(second)
      return (1 + np.sign(more)) / 2

    for batch_size in (1, 4, 6):
      found, _ = self.choose(judge, how, batch_size=batch_size)
      # Of equals in the best the first, in the equilibrium any.
      self.assertEqual(found, [max(t, key=len) for t in self.written])

  def test_pairs_that_could_not_be_judged(self):
    found, judged = self.choose(never, "best")
    self.assertEqual(judged, 0.5)
    # Nothing is known of even records: the first response.
    for i in (0, 2, 4):
      self.assertEqual(found[i], self.written[i][0])
    found, _ = self.choose(never, "equilibrium")
    drawn = {self.written[i].index(found[i]) for i in (0, 2, 4)}
    self.assertLessEqual(drawn, {0, 1, 2})

  def test_draws_depend_on_seed_and_prompt(self):
    self.rows = [{"id": str(i)} for i in range(300)]
    self.written = [["x", "y", "z"]] * 300

    def ring(rows, first, second):
      turn = {"xy": 1.0, "yz": 1.0, "xz": 0.0}
      return np.array([turn[a + b] for a, b in zip(first, second, strict=True)])

    found, _ = self.choose(ring, "equilibrium")
    again, _ = self.choose(ring, "equilibrium", batch_size=300)
    other, _ = self.choose(ring, "equilibrium", rng=jax.random.key(1))
    self.assertEqual(found, again)
    self.assertNotEqual(found, other)
    self.rows, self.written = self.rows[:50], self.written[:50]
    self.assertEqual(self.choose(ring, "equilibrium")[0], found[:50])
    for letter in "xyz":
      # 100 expected, standard deviation 8.2.
      self.assertBetween(found.count(letter), 67, 133)


class CheckTest(parameterized.TestCase):
  def told(self, **changes):
    one = {"policy": "sft", "choose": "best", "samples": 8, "judge": "raters"}
    name = changes.pop("name", "one")
    config = made_config(policies=("sft",), chosen={}).unlock()
    config.tournament.chosen = {name: one | changes}
    with self.assertRaises(mistakes.Mistake) as caught:
      pipeline.check(text.PIPELINE, config.lock())
    (sentence,) = caught.exception.sentences
    return sentence

  @parameterized.parameters(
    (dict(policy="me"), "one.policy: 'me' is neither 'sft' nor one of nash.r"),
    (dict(policy="one"), "one.policy: 'one' is neither 'sft' nor one of nash"),
    (dict(judge="me"), "one.judge: got 'me', expected one of"),
    (dict(samples=1), "one.samples: got 1, expected a whole numb"),
    (dict(choose="worst"), "one.choose: got 'worst', expected one of ('best',"),
    (dict(name="sft"), "'sft' is the name of another policy already"),
    (dict(name="nash_md"), "'nash_md' is the name of another policy already"),
    (dict(name="written"), "'written' is the name of another policy already"),
    (dict(smaples=2), "one: missing [], unknown ['smaples']; expected ['choos"),
  )
  def test_one_sentence(self, changes, message):
    sentence = self.told(**changes)
    self.assertIn("tournament.chosen", sentence)
    self.assertIn(message, sentence)

  def test_a_choice_that_is_no_section(self):
    config = made_config(policies=("sft",)).unlock()
    config.tournament.chosen = {"one": 3}
    with self.assertRaisesRegex(
      mistakes.Mistake, "tournament.chosen.one: got 3, expected a section"
    ):
      pipeline.check(text.PIPELINE, config)

  def test_a_choice_cannot_be_exported_or_trained(self):
    config = made_config().unlock()
    config.export.policies = ("best",)
    with self.assertRaises(mistakes.Mistake) as caught:
      pipeline.check(text.PIPELINE, config)
    (sentence,) = caught.exception.sentences
    self.assertStartsWith(sentence, "export.policies: 'best' is neither")
    with self.assertRaisesRegex(mistakes.Mistake, "tournament.policies: 'two'"):
      pipeline.check(
        text.PIPELINE, made_config(policies=("sft", "best", "two"))
      )

  def test_policies_and_judges_of_choices_that_play_are_trained(self):
    chosen = {
      "one": CHOSEN["best"] | {"policy": "nash_md", "judge": "reward"},
      "idle": CHOSEN["best"] | {"policy": "rlhf"},
    }
    config = made_config(policies=("sft", "one"), chosen={}).unlock()
    config.tournament.chosen = chosen
    pipeline.check(text.PIPELINE, config)
    self.assertEqual(judging.trained_runs(config), ["nash_md"])
    self.assertEqual(
      tournament.needs(config, "tournament"),
      ["sft", "nash/nash_md", "reward"],
    )
    self.assertIn("reward", judging.wanted(config))
    config.nash.judge = "raters"
    self.assertEqual(judging.wanted(config), ["reward"])

  def test_a_tournament_depends_on_the_choices_that_play(self):
    def key(**changes):
      config = made_config().unlock()
      for name, value in changes.items():
        choice, setting = name.split("__")
        config.tournament.chosen[choice][setting] = value
      found = tournament.reads(config, "tournament")
      return workdir_lib.make_key(found, {}, {})

    self.assertEqual(key(), key(idle__samples=7))
    self.assertNotEqual(key(), key(best__samples=7))
    source = "tournament.chosen tests.chosen_test:longer source"
    self.assertIn(source, tournament.reads(made_config(), "tournament"))

  @parameterized.parameters(docstrings, tldr_t5)
  def test_default_configs_hold_choices_and_do_not_play_them(self, module):
    config = module.get_config()
    self.assertEqual(list(config.tournament.chosen), ["best_of_8", "nash_of_8"])
    self.assertEmpty(judging.chosen(config))
    self.assertNotIn("tournament.chosen", str(tournament.reads(config, "")))


if __name__ == "__main__":
  absltest.main()
