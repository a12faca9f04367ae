"""A real SLURM: peers are found, what was preempted is started again."""

import pathlib
import shutil
import tempfile

from absl.testing import absltest
import pytest

from tests.slurm import cluster, measure, sweep


@pytest.mark.slurm
@pytest.mark.skipif(
  cluster.missing() is not None, reason=f"{cluster.missing()}"
)
class SlurmTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = pathlib.Path(tempfile.mkdtemp())
    cls.addClassCleanup(shutil.rmtree, cls.root, ignore_errors=True)
    cls.enterClassContext(cluster.running(cls.root / "slurm"))

  def test_two_nodes_find_each_other(self):
    found = measure.peers(self.root)
    self.assertEqual(found["status"], cluster.COMPLETED, msg=found["log"])
    self.assertEqual(found["processes"], 2)

  def test_preempted_trial_of_an_array_goes_on_where_it_saved(self):
    found = measure.array(self.root)
    self.assertEqual(
      found["statuses"], [cluster.COMPLETED] * measure.TRIALS, msg=found["log"]
    )
    self.assertEqual(found["restarts"], [0, 1, 0, 0])
    (saved,), (resumed,) = found["saved"], found["resumed"]
    self.assertEqual(saved, resumed)
    self.assertEqual(saved % sweep.LOG_EVERY, 0)
    self.assertBetween(saved, sweep.LOG_EVERY, sweep.STEPS - sweep.LOG_EVERY)
    self.assertTrue(found["equal"])

  def test_preempted_run_on_two_nodes_goes_on_where_both_saved(self):
    found = measure.pair(self.root)
    self.assertEqual(found["status"], cluster.COMPLETED, msg=found["log"])
    self.assertLen(found["saved"], 2)
    self.assertLen(set(found["saved"] + found["resumed"]), 1)

  def test_signal_before_start_up_is_requeued_too(self):
    found = measure.early(self.root)
    self.assertEqual(found["status"], cluster.COMPLETED, msg=found["log"])
    self.assertEqual(found["restarts"], [1])
    self.assertEmpty(found["resumed"])


if __name__ == "__main__":
  absltest.main()
