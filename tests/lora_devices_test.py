"""Adapters on any layout of the devices: the update of one device."""

import pathlib
import tempfile

from absl.testing import absltest, parameterized
import jax
import pytest

from nashmd_jax import task as task_lib
from nashmd_jax.nash import settings
from nashmd_jax.stages import nash, sft
from nashmd_jax.training import sharding
from tests import lora_runs, plays, small_records

LAYOUTS = {
  "one": dict(count=1),
  "fsdp": dict(fsdp=True),
  "model": dict(model=2, fsdp=True),
  "pmap": dict(mode="pmap"),
}


def devices(count: int = 8, **changes) -> sharding.Devices:
  chosen = dict(
    mode="jit", model=1, fsdp=False, smallest=1,
    run_dtype="float32", frozen_dtype="float32",
  )  # fmt: skip
  return sharding.make_devices(jax.devices()[:count], **(chosen | changes))


@pytest.mark.slow
class DevicesTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.config = lora_runs.config(small_records.write(folder / "records"))
    for section in (cls.config.sft, cls.config.nash):
      section.optimizer.update({"warmup_steps": 0, "decay_steps": 0})
    lora_runs.prepare(cls.config, folder)
    cls.folder = folder
    cls.task = lora_runs.load_task(cls.config, folder)

  def task_on(self, places):
    return self.task._replace(devices=places)

  def nash(self, places):
    """Nash on adapters that are random, but the same on any layout."""
    task = self.task_on(places)
    section = settings.run_section(self.config, "mixed")
    built = nash.make_experiment(self.config, task, section, self.folder)

    def random(number):
      keys = iter(jax.random.split(jax.random.key(number), 99))
      return jax.tree.map(
        lambda x: 0.3 * jax.random.normal(next(keys), x.shape),
        task_lib.trained_shapes(task, "model"),
      )

    def init(rng):
      del rng
      judges = {"preference": random(1), "reward": random(2)}
      start = random(0)
      base = task_lib.bases(task, "model")
      return start, {**base, **judges, "reference": start}

    return built._replace(init=init), section

  def sft(self, places):
    section = self.config.sft
    return sft.make_experiment(self.task_on(places), **section.data), section

  @parameterized.parameters("sft", "nash")
  def test_five_steps_are_those_of_one_device(self, stage):
    make = {"sft": self.sft, "nash": self.nash}[stage]
    ends = {}
    for name, layout in LAYOUTS.items():
      places = devices(**layout)
      ends[name] = lora_runs.five_steps(*make(places), places)
    one = ends.pop("one")
    for name, many in ends.items():
      self.assertLess(plays.distance(one.params, many.params), 1e-5, name)
      # A random start is rounded as its layout compiles.
      bases = (many.frozen["base"], one.frozen["base"])
      self.assertLess(plays.distance(*bases), 1e-6, name)


if __name__ == "__main__":
  absltest.main()
