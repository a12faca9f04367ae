"""Combinators, trials, failures, and the runner on real trials."""

import contextlib
import functools
import importlib.util
import io
import pathlib
import signal
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized
import ml_collections
import numpy as np

from nashmd_jax import files, jobs, main
from nashmd_jax import pipeline as pipeline_lib
from nashmd_jax.sweeps import hyper, run, trials
from tests import forked, main_test, small_sweep

SMALL = "tests/small_sweep.py"
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def base_config() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict({
    "seed": 0,
    "nash": {"mixture": 0.125, "opponent": "mixture", "steps": 10},
    "buckets": (32, 64),
    "file": ml_collections.config_dict.placeholder(str),
  }).lock()  # fmt: skip


class HyperTest(absltest.TestCase):
  def test_values_product_zipped_one_of_by_hand(self):
    a, b = hyper.values("a", 1, 2), hyper.values("b.c", "x", "y")
    self.assertEqual(a, [{"a": 1}, {"a": 2}])
    self.assertEqual(
      hyper.product(a, b),
      [
        {"a": 1, "b.c": "x"},
        {"a": 1, "b.c": "y"},
        {"a": 2, "b.c": "x"},
        {"a": 2, "b.c": "y"},
      ],
    )
    self.assertEqual(
      hyper.zipped(a, b), [{"a": 1, "b.c": "x"}, {"a": 2, "b.c": "y"}]
    )
    self.assertEqual(hyper.one_of(b, [{}]), [{"b.c": "x"}, {"b.c": "y"}, {}])
    self.assertEqual(hyper.product(), [{}])

  def test_mistakes(self):
    a = hyper.values("a", 1, 2)
    with self.assertRaisesRegex(ValueError, r"got sweeps of \[2, 3\] trials"):
      hyper.zipped(a, hyper.values("b", 1, 2, 3))
    with self.assertRaisesRegex(ValueError, "product: 'a' is set by two"):
      hyper.product(a, a)


class TrialsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path)

  def make(self, *overrides, given=(), config=None):
    return trials.all_trials(
      base_config() if config is None else config,
      list(overrides),
      given=given,
      workdir=self.workdir,
    )

  def test_overrides_keep_types_and_leave_the_base_alone(self):
    config = base_config()
    overrides = {"nash.mixture": 1, "buckets": [8], "file": "a", "seed": 3}
    (trial,) = self.make(overrides, config=config)
    self.assertEqual(trial.config.nash.mixture, 1.0)
    self.assertIsInstance(trial.config.nash.mixture, float)
    self.assertEqual(trial.config.buckets, (8,))
    self.assertEqual((trial.config.file, trial.config.seed), ("a", 3))
    self.assertTrue(trial.config.is_locked)
    self.assertEqual(config.nash.mixture, 0.125)
    self.assertEqual(trial.folder, self.workdir / "000")

  @parameterized.parameters(
    ({"nash.mixtur": 1}, "'nash.mixtur'; the nearest is 'nash.mixture'"),
    ({"mixture": 1}, "'mixture'; the nearest is 'nash.mixture'"),
    ({"nash.mixture.x": 1}, "'nash.mixture.x'; the nearest is 'nash.mixture'"),
  )
  def test_overrides_that_cannot_be(self, overrides, message):
    with self.assertRaisesRegex(ValueError, f"^trial 1: .*{message}"):
      self.make({}, overrides)

  def test_numbers_of_numpy_are_numbers(self):
    overrides = {
      "nash.mixture": np.float32(0.5),
      "nash.steps": np.int64(3),
      "buckets": [np.int32(8), 16],
      "file": None,
    }
    (trial,) = self.make(overrides)
    self.assertEqual(trial.config.nash.to_dict() | {"opponent": ""}, {
      "mixture": 0.5, "opponent": "", "steps": 3
    })  # fmt: skip
    self.assertEqual(trial.config.buckets, (8, 16))
    self.assertEqual(trial.overrides["nash.steps"], 3)
    trials.claim(trial)

  def test_what_is_of_another_type_is_left_to_the_check(self):
    (trial,) = self.make({"nash.steps": "many", "buckets": 3})
    self.assertEqual(trial.config.nash.steps, "many")
    self.assertEqual(trial.config.buckets, 3)
    self.assertTrue(trial.config.is_locked)

  def test_two_trials_of_one_config(self):
    with self.assertRaisesRegex(ValueError, "trial 2: .* same .* as trial 0"):
      self.make({}, {"seed": 1}, {"nash.mixture": 0.125})

  def test_setting_of_the_command_line_that_is_swept(self):
    self.make({"seed": 1}, given=["nash.mixture"])
    with self.assertRaisesRegex(ValueError, "--config.seed: is set by"):
      self.make({"seed": 1}, given=["nash.mixture", "seed"])

  @parameterized.parameters(-1, 2)
  def test_number_outside(self, number):
    found = self.make({}, {"seed": 1})
    with self.assertRaisesRegex(ValueError, "0 to 1: the sweep has 2 trials"):
      trials.chosen(found, number)

  def test_folder_of_another_trial_is_refused(self):
    (trial,) = self.make({"buckets": (1, 2)})
    for _ in range(2):
      trials.claim(trial)
    (other,) = self.make({"buckets": (1, 2), "seed": 0})
    with self.assertRaisesRegex(ValueError, "seed was 'absent' and is now 0"):
      trials.claim(other)


class ConfigsTest(parameterized.TestCase):
  @parameterized.parameters(
    ("mixture", 18), ("kl_coef", 12), ("opponents", 12), ("seeds", 8),
    ("games", 4), ("mixture_tiny", 3), ("kl_coef_tiny", 3),
    ("opponents_tiny", 3), ("seeds_tiny", 3), ("games_tiny", 3),
  )  # fmt: skip
  def test_every_trial_of_every_named_sweep_can_run(self, variant, count):
    path = main_test.ROOT / "configs" / "sweeps.py"
    spec = importlib.util.spec_from_file_location("sweeps_config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = trials.all_trials(
      module.get_config(variant),
      trials.load_sweep(f"{path}:{variant}"),
      given=(),
      workdir=pathlib.Path(),
    )
    self.assertLen(found, count)
    for trial in found:
      pipeline_lib.check(main.pipeline_of(trial.config, "all"), trial.config)

  def test_config_without_trials(self):
    path = main_test.ROOT / "configs" / "docstrings.py"
    self.assertIsNone(trials.load_sweep(f"{path}:tiny"))


class FailureTest(absltest.TestCase):
  def test_failed_job_leaves_its_error_until_it_succeeds(self):
    workdir = pathlib.Path(self.create_tempdir().full_path) / "run"
    errors = [RuntimeError("first line\n second"), KeyboardInterrupt()]

    def run_stage(config, workdir, job):
      if job == "b" and errors:
        raise errors.pop(0)
      return {}

    def stage(name: str, *needs: str) -> pipeline_lib.Stage:
      return pipeline_lib.Stage(
        name=name,
        settings={},
        check=lambda config, findings: None,
        jobs=lambda config: [name],
        needs=lambda config, job: needs,
        reads=lambda config, job: {},
        run=run_stage,
      )

    pipeline = pipeline_lib.Pipeline(
      stages=[stage("a"), stage("b", "a")],
      settings={"pipeline": pipeline_lib.NAME},
      check=lambda config, findings: None,
      prepare=lambda config, workdir: {},
      page="a",
    )
    config = ml_collections.ConfigDict({"pipeline": "p"})
    run = functools.partial(main.run, config, jobs.Place(workdir), "all")
    with (
      mock.patch.dict(main.PIPELINES, {"p": pipeline}),
      mock.patch.object(main.jax.config, "update"),
      contextlib.redirect_stdout(io.StringIO()),
    ):
      failure = {"stage": "b", "error": "RuntimeError: first line second"}
      for error in (RuntimeError, KeyboardInterrupt):
        with self.assertRaises(error):
          run()
        self.assertEqual(files.load_json(workdir / "failed.json"), failure)
      run()
    self.assertFalse((workdir / "failed.json").exists())
    self.assertTrue((workdir / "b" / "done.json").exists())


def sleeper() -> subprocess.Popen:
  return subprocess.Popen(SLEEPER, process_group=0)


class RunAllTest(absltest.TestCase):
  def test_as_many_as_jobs_at_a_time_and_all_in_the_end(self):
    running, most, statuses = set(), [], {}

    def start(trial):
      running.add(trial)
      most.append(len(running))
      script = f"import time; time.sleep(0.2); raise SystemExit({trial})"
      return subprocess.Popen([sys.executable, "-c", script], process_group=0)

    def ended(trial, status):
      running.remove(trial)
      statuses[trial] = status

    run.run_all(start, 5, jobs=2, ended=ended)
    self.assertEqual(max(most), 2)
    self.assertEqual(statuses, {trial: trial for trial in range(5)})

  def test_ctrl_c_ends_the_children_and_starts_no_more(self):
    started = []

    def start(trial):
      started.append(sleeper())
      if trial == 1:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
      return started[-1]

    def interrupt(number, frame):
      raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    self.addCleanup(signal.signal, signal.SIGALRM, old)
    with self.assertRaises(KeyboardInterrupt):
      run.run_all(start, 4, jobs=2, ended=mock.Mock())
    self.assertEqual(
      [process.returncode for process in started], [-signal.SIGTERM] * 2
    )

  def test_child_that_does_not_stop_is_killed(self):
    script = (
      "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
      "print(flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
      [sys.executable, "-c", script], process_group=0, stdout=subprocess.PIPE
    )
    with process.stdout as output, mock.patch.object(run, "GRACE", 0.5):
      output.readline()
      run.stop([process])
    self.assertEqual(process.returncode, -signal.SIGKILL)


class RunnerTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.workdir = main_test.made_folder(cls) / "run"
    # Neither a log nor a claim of the runner: the second trial cannot save.
    (cls.workdir / "001").mkdir(parents=True)
    (cls.workdir / "001" / "config.json.partial").mkdir()
    cls.first = cls.run_sweep()
    (cls.workdir / "001" / "config.json.partial").rmdir()
    cls.second = cls.run_sweep("--jobs=2")

  @classmethod
  def run_sweep(cls, *flags, variant="good"):
    return subprocess.run(
      [
        sys.executable,
        "-m",
        "nashmd_jax.sweeps.run",
        f"--config={SMALL}:{variant}",
        f"--workdir={cls.workdir}",
        *flags,
      ],
      cwd=main_test.ROOT,
      capture_output=True,
      text=True,
      timeout=600,
    )

  def test_failed_trial_stops_no_other(self):
    self.assertEqual(self.first.returncode, 1, msg=self.first.stderr)
    line = "trial 001: exit status 2: nashmd_jax: "
    self.assertStartsWith(self.first.stderr, line)
    self.assertLen(self.first.stderr.splitlines(), 1)
    self.assertIn("1 of 2 trials finished, 1 not started", self.first.stdout)

  def test_second_run_does_what_is_missing(self):
    self.assertEqual(self.second.returncode, 0, msg=self.second.stderr)
    self.assertIn("collect: 2 of 2 trials finished", self.second.stdout)
    log = (self.workdir / "logs" / "000.txt").read_text()
    self.assertEqual(log.count("games: starts"), 1)
    self.assertEqual(log.count("all is done already"), 1)

  def test_scores_are_those_of_the_trials(self):
    found = files.load_json(self.workdir / "collect" / "results.json")
    for number, kl_coef in enumerate((0.5, 1.0)):
      folder = self.workdir / f"{number:03d}"
      self.assertEqual(
        files.load_json(folder / "trial.json"),
        {"trial": number, "overrides": {"games.kl_coef": kl_coef}},
      )
      self.assertEqual(
        files.load_json(folder / "config.json")["games"]["kl_coef"], kl_coef
      )
      results = files.load_json(folder / "games" / "done.json")["results"]
      group = found["groups"][number]
      self.assertEqual(group["settings"], {"games.kl_coef": kl_coef})
      self.assertEqual(
        {name: one["values"] for name, one in group["scores"].items()},
        {f"games/{name}": [float(x)] for name, x in results.items()},
      )

  def test_trial_of_another_config_is_refused(self):
    given = [f"--config={SMALL}:good", f"--workdir={self.workdir}"]
    changed = [*given, "--config.games.horizon=50"]
    kinds = ("--trial=1", "--stage=collect")
    for out in forked.run_all([[*changed, kind] for kind in kinds]):
      self.assertEqual(out.returncode, 2)
      self.assertIn("games.horizon was 400 and is now 50", out.stderr)

  def test_sweep_with_a_mistake_starts_no_trial(self):
    workdir = pathlib.Path(self.create_tempdir().full_path) / "run"
    out = self.run_sweep(f"--workdir={workdir}", variant="negative")
    self.assertEqual(out.returncode, 2)
    self.assertLen(out.stderr.splitlines(), 1)
    self.assertFalse(workdir.exists())


class MistakesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path) / "run"

  @parameterized.named_parameters(
    ("number", "good", 2, "all", "--trial: got 2, expected 0 to 1"),
    ("neither", "good", None, "all", "is a sweep of 2 trials; give either"),
    ("both", "good", 0, "collect", "give either --trial or --stage"),
    ("name", "typo", 0, "all", "trial 1: there is no setting 'games.kl_co"),
    ("negative", "negative", 0, "all", "trial 1: games.kl_coef: got -1.0, ex"),
    ("text", "text", 0, "all", "trial 1: games.kl_coef: got 'much', expected"),
    ("none", "none", 0, "all", "trial 1: games.horizon: got None, expected a"),
    ("game", "game", None, "trials", "trial 1: games.references: got .'chess'"),
    ("twice", "twice", 0, "all", "has the same config as trial 0"),
    ("broken", "broken", 0, "all", r"got sweeps of \[2, 1\] trials"),
    ("empty", "empty", 0, "all", "expected a list of at least one"),
  )
  def test_before_anything_runs(self, variant, number, stage, message):
    with (
      self.assertRaisesRegex(ValueError, message),
      contextlib.redirect_stdout(io.StringIO()),
    ):
      sweep_list = trials.load_sweep(f"{main_test.ROOT / SMALL}:{variant}")
      config = small_sweep.get_config()
      main.run_sweep(sweep_list, config, self.workdir, stage, number, ())
    self.assertFalse(self.workdir.exists())

  def test_workdir_of_a_single_run(self):
    files.save_json(self.workdir / "config.json", {})
    with self.assertRaisesRegex(ValueError, "belongs to a single run"):
      config = small_sweep.get_config()
      main.run_sweep([{}], config, self.workdir, "all", 0, ())

  def test_one_sentence_and_status_two(self):
    given = [f"--workdir={self.workdir}", "--trial=0"]
    cases = {
      "defines no get_hyper": ["--config=configs/worlds.py:games_tiny"],
      "leave it": [f"--config={SMALL}:good", "--config.games.kl_coef=2."],
    }
    outcomes = forked.run_all([[*given, *flags] for flags in cases.values()])
    for message, out in zip(cases, outcomes, strict=True):
      self.assertEqual(out.returncode, 2, msg=out.stderr)
      self.assertIn(message, out.stderr)
      self.assertLen(out.stderr.strip().splitlines(), 1)
      self.assertFalse(self.workdir.exists())


if __name__ == "__main__":
  absltest.main()
