"""Odd values for every setting of every config: refused by name, or right.

In every config and variant, at the section and in a run, by flag, by flag file
and by sweep. What is not refused stands in `odd_values.RIGHT`, with a reason.
"""

import pathlib
import sys
from unittest import mock
import warnings

from absl import flags
from absl.testing import absltest, parameterized
from ml_collections import config_flags

from nashmd_jax import main, mistakes, pipeline
from nashmd_jax.sweeps import trials
from tests import forked, odd_values

UNKNOWN = "none such"


def parse(name: str, *given: str):
  """The config of a command line, as the program reads it."""
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=values)
  argv = ["nashmd_jax", f"--config={forked.ROOT}/configs/{name}", *given]
  with mock.patch.object(sys, "argv", argv), warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of how it is loaded
    values(argv)
  values.config.to_dict()
  return values.config


def sentences(config) -> tuple[str, ...]:
  """What is wrong with the settings of a config, each by itself."""
  try:
    pipeline.check_settings(main.pipeline_of(config, "all"), config)
  except mistakes.Mistake as mistake:
    return mistake.sentences
  return ()


def further(name: str, make=odd_values.cases) -> list[odd_values.Case]:
  """The cases of a config, of settings that none before it in FEW has."""
  before = odd_values.FEW[: odd_values.FEW.index(name)]
  seen = {
    case.name
    for other in before
    for case in make(odd_values.load(other).to_dict())
  }
  found = make(odd_values.load(name).to_dict())
  return [case for case in found if case.name not in seen]


class MatrixTest(parameterized.TestCase):
  def test_has_every_config(self):
    files = {path.stem for path in (forked.ROOT / "configs").glob("*.py")}
    self.assertEqual(files, set(odd_values.VARIANTS))

  def test_every_config_and_variant(self):
    count, reasons = 0, set()
    for make in (odd_values.cases, odd_values.of_a_run):
      for name in odd_values.ALL:
        refused, taken = odd_values.outcomes(name, make)
        count += len(refused) + len(taken)
        reasons |= {odd_values.why(case) for case in taken}
        for case in taken:
          self.assertIsNotNone(
            odd_values.why(case), f"{name} takes {case.name}={case.odd}"
          )
        for case in refused:
          self.assertIsNone(
            odd_values.why(case), f"{name} refuses {case.name}={case.odd}"
          )
    print(f"{count} odd values of settings")
    self.assertGreater(count, 50_000)
    self.assertEqual(reasons, {reason for _, _, reason in odd_values.RIGHT})

  @parameterized.parameters(*odd_values.FEW)
  def test_by_flag(self, name):
    file, _, variant = name.partition(":")
    for case in further(name):
      if case.name == "pipeline":
        continue  # which settings there are depends on it
      typed = str(case.value).replace(" ", "")
      flag = f"--config.{case.name}={typed}"
      try:
        config = parse(f"{file}.py:{variant}", flag)
      except Exception as error:  # flags raise what their parsers do
        told = main.one_sentence(error)
        self.assertIn(f"config.{case.name}", told)
        self.assertNotIn("\n", told)
        continue
      told = sentences(config)
      if not any(one.startswith(f"{case.name}: got ") for one in told):
        found = pipeline.section_at(config, case.name)
        self.assertTrue(meant(case, typed, found), f"{flag} is {found!r}")

  @parameterized.parameters(*odd_values.FEW)
  def test_by_flag_file(self, name):
    file, _, variant = name.partition(":")
    wrong = [
      case
      for case in odd_values.cases(odd_values.load(name).to_dict())
      if case.odd == "-1"
      and case.setting.kind in (int, float)
      and odd_values.why(case) is None
    ]
    path = pathlib.Path(self.create_tempdir().full_path) / "flags.txt"
    path.write_text("".join(f"--config.{case.name}=-1\n" for case in wrong))
    told = sentences(parse(f"{file}.py:{variant}", f"--flagfile={path}"))
    self.assertCountEqual(
      [one.partition(": got ")[0] for one in told], [one.name for one in wrong]
    )

  @parameterized.parameters(*odd_values.FEW)
  def test_by_sweep(self, name):
    config = odd_values.load(name)
    for make in (odd_values.cases, odd_values.of_a_run):
      for case in further(name, make):
        if case.name == "pipeline" or not has(config, case.name):
          continue
        (trial,) = trials.all_trials(
          config, [{case.name: case.value}], given=(), workdir=pathlib.Path()
        )
        told = sentences(trial.config)
        if not any(one.startswith(f"{case.name}: got ") for one in told):
          reason = odd_values.why(case)
          self.assertIsNotNone(reason, f"{case.name}={case.odd} {told}")

  @parameterized.parameters(*odd_values.FEW)
  def test_what_is_taken_is_compared_without_a_traceback(self, name):
    config = odd_values.load(name).copy_and_resolve_references()
    made = main.pipeline_of(config, "all")
    taken = odd_values.outcomes(name, odd_values.cases)[1]
    texts = [
      case._replace(value=UNKNOWN)
      for case in odd_values.cases(config.to_dict())
      if case.odd == odd_values.ANOTHER
      and case.setting.kind is str
      and not case.setting.one_of
      and case.name != "pipeline"
    ]
    for case in [*taken, *texts]:
      value = case.value
      if case.setting.many and value == UNKNOWN:
        value = (UNKNOWN,)
      other = trials.override(config, {case.name: value}, where="")
      try:
        pipeline.check(made, other)
        list(made.jobs(other))
      except mistakes.Mistake as mistake:
        names = case.name.split(".")[-2:]
        self.assertTrue(
          any(name in one for name in names for one in mistake.sentences),
          f"{case.name}={value}: {mistake}",
        )


def has(config, name: str) -> bool:
  """Whether a sweep can set a name, which its config must have."""
  try:
    pipeline.section_at(config, name)
  except KeyError:
    return False
  return True


def meant(case: odd_values.Case, typed: str, found) -> bool:
  """Whether what a flag has become is what was typed."""
  if found is None:
    return typed == "None" and case.setting.optional
  if case.setting.many is not None:
    return found in ((typed,), (1, 2), ())
  if case.setting.kind is str:
    return found == typed
  if case.setting.kind is bool:
    return (typed, found) == ("0", False)
  return float(typed) == found and odd_values.why(case) is not None


if __name__ == "__main__":
  absltest.main()
