"""Writers of metrics: services that are not there, cuts, failures."""

import contextlib
import io
import pathlib
import sys
import types
from unittest import mock

from absl.testing import absltest, parameterized
import ml_collections
import numpy as np

from configs import docstrings, worlds
from nashmd_jax import logs, mistakes, pipeline
from nashmd_jax.stages import text
from nashmd_jax.training import ending, metrics, services, telling, writers
from nashmd_jax.worlds import stage as worlds_stage
from tests import extending_page, least_squares

SAMPLES = [telling.Sample({"prompt": "p", "policy": "y"}, {"win_prob": 0.75})]


class Service(types.ModuleType):
  """What wandb and trackio have in common, and what they were told."""

  def __init__(self, name: str):
    super().__init__(name)
    self.runs, self.rows, self.ends = [], [], []
    self.Settings, self.Table, self.Markdown = dict, list_of, str

  def init(self, **how):
    self.runs.append(how)
    return types.SimpleNamespace(log=self.log, finish=self.finish)

  def log(self, row, step):
    self.rows.append((step, row))

  def finish(self, exit_code=0):
    self.ends.append(exit_code)


def list_of(columns, rows):
  return [columns, rows]


class WritersTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "sft"
    self.folder.mkdir()
    self.out = io.StringIO()
    self.enter_context(contextlib.redirect_stdout(self.out))

  def service(self, name: str) -> Service:
    made = Service(name)
    self.enter_context(mock.patch.dict(sys.modules, {name: made}))
    return made

  def tell(self, name: str, start: int, stop: int, error=None, samples=()):
    """Tells a writer of the steps from one to another, and of an end."""
    log = writers.Log((name,), "here", "run", {"nash.mixture": 0.5})
    with writers.Writers(log) as open_ones:
      open_ones.open("nash/nash_md", self.folder, start_step=start)
      for step in range(start + 1, stop + 1):
        open_ones.write(step, {"loss": step / 2}, samples)
      if error is not None:
        raise error

  @parameterized.parameters("wandb", "trackio")
  def test_a_run_that_was_cut_goes_on_and_no_row_is_told_twice(self, name):
    service = self.service(name)
    with self.assertRaises(ending.Preempted):
      self.tell(name, 0, 5, ending.Preempted("stopped"))
    self.tell(name, 3, 4)  # and is killed
    self.tell(name, 3, 8)
    self.assertEqual([step for step, _ in service.rows], [*range(1, 9)])
    first, *others = service.runs
    self.assertEqual(others, [first] * 2)
    self.assertEqual(
      (first["project"], first["group"], first["resume"], first["config"]),
      ("here", "run", "allow", {"nash.mixture": 0.5}),
    )
    self.assertIn(first.get("id", first["name"])[-12:], self.noted(name))
    self.assertLen(service.ends, 3)
    self.assertEmpty(self.out.getvalue())

  def noted(self, name: str) -> str:
    return (self.folder / f"{name}.jsonl").read_text()

  def test_another_run_in_the_same_place_is_another(self):
    service = self.service("wandb")
    self.tell("wandb", 0, 1)
    (self.folder / services.WANDB).unlink()
    self.tell("wandb", 0, 1)
    self.assertNotEqual(*(run["id"] for run in service.runs))

  def test_samples_are_a_table_or_a_text(self):
    service = self.service("wandb")
    self.tell("wandb", 0, 1, samples=SAMPLES)
    ((_, row),) = service.rows
    columns = ["prompt", "policy", "win_prob"]
    self.assertEqual(row["samples"], [columns, [["p", "y", 0.75]]])
    service = self.service("trackio")
    self.tell("trackio", 0, 1, samples=SAMPLES)
    ((_, row),) = service.rows
    self.assertIn("**policy**\n\n    y\n\nwin_prob 0.750", row["samples"])

  @parameterized.parameters("init", "log", "finish", "log finish")
  def test_one_that_fails_is_told_of_once_and_ends_nothing(self, where):
    service = self.service("wandb")
    broken = mock.Mock(side_effect=ConnectionError("no way there " * 99))
    for name in where.split():
      setattr(service, name, broken)
    self.tell("wandb", 0, 4)
    said = self.out.getvalue()
    self.assertEqual(said.count("\n"), 1, said)
    self.assertStartsWith(
      said,
      "nash/nash_md: nothing more goes to wandb (ConnectionError: no way there",
    )
    self.assertLess(len(said), 400)
    self.assertEqual(broken.call_count, len(where.split()))

  def test_one_that_does_not_end_is_not_waited_for(self):
    service = self.service("wandb")
    never = ending.threading.Event()
    self.addCleanup(never.set)
    service.finish = lambda exit_code=0: never.wait(60)
    with mock.patch.object(writers, "CLOSING", 0.01):
      self.tell("wandb", 0, 1)

  def test_a_run_ends_as_it_would_without_a_writer(self):
    service = self.service("wandb")
    with self.assertRaisesRegex(ValueError, "of the run"):
      self.tell("wandb", 0, 1, ValueError("of the run"))
    self.assertEqual((service.ends, self.out.getvalue()), ([1], ""))

  def test_the_writer_of_the_page(self):
    folder = self.folder.parent
    extending_page.write_module(folder, "mine", extending_page.MODULE)
    with mock.patch.object(sys, "path", [*sys.path, str(folder)]):
      self.assertEmpty(found(("mine:wins",)))
      log = writers.Log(("mine:wins",), "", "", {})
      with writers.Writers(log) as one:
        one.open("nash/a", self.folder, start_step=0)
        one.write(1, {"loss": 1.0}, ())
        one.write(2, {"eval/win_prob_against_reference": 0.75}, SAMPLES)
      self.assertEqual(
        (self.folder / "wins.txt").read_text(), "nash/a 2 0.75 1\n"
      )

  def test_what_the_loop_tells(self):
    service, notes = self.service("wandb"), []

    def batches():
      def widen(batch):
        return {**batch, "responses_mask": np.ones((16, 5), bool)}

      return iter(least_squares.rows().batch(16).map(widen).to_iter_dataset())

    def evaluate(sets):
      del sets
      return telling.Evaluation({"w0": 1.0}, SAMPLES)

    made = least_squares.experiment()._replace(
      evaluate=evaluate, batches=batches
    )
    with mock.patch.multiple(
      metrics.Progress,
      update=lambda self, done, note: notes.append(note),
      pace=lambda self, step: 3.0,  # steps a second
    ):
      scores = least_squares.train(
        self.folder, 6, made, eval_every=2, save_every=2,
        log=writers.Log(("wandb",), "here", "run", {}),
      )  # fmt: skip
    self.assertEqual(scores, {"eval/w0": 1.0})
    self.assertEqual([step for step, _ in service.rows], [2, 4, 6])
    for _, row in service.rows:
      self.assertLessEqual({"samples", "eval/w0", "loss"}, row.keys())
      self.assertEqual(row["tokens_a_second"], 3 * 16 * 5)
    self.assertRegex(notes[-1], r"^loss [\d.]+, 240 tok/s$")
    for row in metrics.load_metrics(self.folder / "metrics.jsonl"):
      self.assertNotIn("tokens_a_second", row)
    rows = metrics.load_metrics(self.folder / "samples.jsonl")
    self.assertEqual(rows[2], {"step": 6, **SAMPLES[0]._asdict()})
    self.assertIn(
      "test: step 4, sample 1 of 1\n  prompt: p\n  policy: y\n  win_prob 0.750",
      self.out.getvalue(),
    )


class SampleTest(absltest.TestCase):
  def test_nothing_of_a_text_steers_a_terminal(self):
    texts = {"policy": "a\x1b[2Jb\nc" + "d" * 999}
    _, line, _ = telling.lines("nash", 1, [telling.Sample(texts, {})])
    self.assertStartsWith(line, "  policy: a\\x1b[2Jb cddd")
    self.assertLess(len(line), 500)


def found(names) -> list[str]:
  findings = mistakes.Findings()
  writers.check(names, findings)
  return findings.sentences


class CheckTest(absltest.TestCase):
  def test_names_that_are_none(self):
    (sentence,) = found(("tensorbord",))
    self.assertStartsWith(
      sentence, "log.writers: got 'tensorbord', expected one of ['tensorboard'"
    )
    (sentence,) = found(("json:nothing",))
    self.assertIn("json has no function 'nothing'", sentence)

  def test_a_package_that_is_not_here(self):
    def spec(origin):
      made = None if origin is None else types.SimpleNamespace(origin=origin)
      return mock.patch("importlib.util.find_spec", return_value=made)

    with spec("wandb/__init__.py"):
      self.assertEmpty(found(("wandb", "trackio", "tensorboard")))
    with spec(None):
      (sentence,) = found(("tensorboard", "trackio"))
      self.assertIn("pip install 'nashmd_jax[trackio]'", sentence)
    # A folder of that name, as wandb itself leaves them.
    folder = mock.Mock(origin=None)
    with mock.patch("importlib.util.find_spec", return_value=folder):
      self.assertLen(found(("wandb",)), 1)

  def test_both_pipelines_check_them(self):
    for made, of in (
      (docstrings.get_config("tiny"), text.PIPELINE),
      (worlds.get_config("tiny"), worlds_stage.PIPELINE),
    ):
      made.log.writers = ("nowhere",)
      with self.assertRaisesRegex(mistakes.Mistake, "log.writers: got 'nowh"):
        pipeline.check(of, made)

  def test_what_a_config_says(self):
    made = ml_collections.ConfigDict(
      {"log": {"writers": ("a",), "project": "p"}, "nash": {"kl_coef": 0.1}}
    )
    log = logs.make_log(made, pathlib.Path("out/run"))
    self.assertEqual(log[:3], (("a",), "p", "run"))
    self.assertEqual(log.settings["nash.kl_coef"], 0.1)


if __name__ == "__main__":
  absltest.main()
