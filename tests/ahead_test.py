"""A judge on the host that judges one rollout while the next is written."""

import functools
import threading
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import numpy as np
import optax

from nashmd_jax import mistakes
from nashmd_jax.training import distributed, programs, step
from tests import plays

TX = optax.sgd(0.3)


def make(**settings):
  """The play of a step with a judge on the host, and its programs."""
  play = plays.make_play(ahead=1, **settings)
  made = plays.experiment(play, on_host=True, ahead=1)
  start = plays.start(made, TX, plays.devices())
  making = functools.partial(
    step.make_programs, made, TX,
    seed=0, updates_per_rollout=1, micro_batches=1,
  )  # fmt: skip
  return made, start, making


class AheadTest(parameterized.TestCase):
  def test_every_rollout_but_a_first_is_one_step_old(self):
    made, now, making = make()
    batches = plays.batches(5, rows=8)
    compiled = programs.compile_programs(plays.devices(), making, now)

    def judged(rows):
      return {**rows, **made.host.ask({"written": rows["written"]})}

    # Three steps of a row, then two of the next, one after another.
    expected = [jax.tree.map(np.copy, jax.device_get(now))]
    for row in (batches[:3], batches[3:]):
      rows = compiled.rollout(expected[-1], row[0])
      for following in [*row[1:], None]:
        old = expected[-1]
        new = compiled.update(jax.tree.map(np.copy, old), judged(rows))[0]
        expected.append(jax.tree.map(np.copy, jax.device_get(new)))
        if following is not None:
          rows = compiled.rollout(old, following)
    take = programs.compile_step(plays.devices(), making, now, host=made.host)
    following = [*batches[1:3], None, batches[4], None]
    for batch, after, state in zip(
      batches, following, expected[1:], strict=True
    ):
      now, _ = take(now, batch, after)
      jax.tree.map(np.testing.assert_array_equal, jax.device_get(now), state)
    self.assertGreater(
      plays.distance(expected[1].params, expected[2].params), 1e-3
    )

  def test_the_next_is_written_while_the_judge_is_busy(self):
    made, now, making = make()
    count, read = 4, distributed.to_host
    written = [threading.Event() for _ in range(count)]
    waiting, met = iter(written), []

    def ask(rows):
      number = len(met)
      last = number == count - 1
      # One after the other this would wait for what never comes.
      met.append(last or written[number + 1].wait(60))
      return made.host.ask(rows)

    def to_host(array):
      next(waiting).set()
      return read(array)

    host = made.host._replace(ask=ask)
    take = programs.compile_step(plays.devices(), making, now, host=host)
    batches = plays.batches(count, rows=8)
    with mock.patch.object(distributed, "to_host", to_host):
      for batch, after in zip(batches, [*batches[1:], None], strict=True):
        now, _ = take(now, batch, after)
    self.assertEqual(met, [True] * count)

  def test_a_judge_that_fails_ends_the_step(self):
    made, now, making = make()

    def ask(rows):
      raise mistakes.Mistake("the judge is out")

    host = made.host._replace(ask=ask)
    take = programs.compile_step(plays.devices(), making, now, host=host)
    first, second = plays.batches(2, rows=8)
    with self.assertRaisesRegex(mistakes.Mistake, "the judge is out"):
      take(now, first, second)

  @parameterized.parameters(
    (dict(loss="ipo"), "judge_ahead"), (dict(scores="reward"), "judge_ahead")
  )
  def test_a_loss_without_an_off_policy_form_is_refused(self, settings, said):
    with self.assertRaisesRegex(mistakes.Mistake, said):
      plays.make_play(ahead=1, **settings)


if __name__ == "__main__":
  absltest.main()
