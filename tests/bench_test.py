"""`make bench`: its workers, its rounds, and our side on a small folder."""

import io
import json
import pathlib
import sys
from unittest import mock

from absl.testing import absltest
import jax
import numpy as np

from figures import (
  bench_alone,
  bench_numpy,
  bench_ours,
  bench_peers,
  bench_sizes,
  bench_turns,
  bench_worker,
)
from tests import hub_test

FOLDER = str(hub_test.GOLDEN / "llama")
TOKENS, ROWS = 6, 8  # a row for each device


def worker(module: str) -> bench_worker.Worker:
  return bench_worker.Worker(
    module, python=pathlib.Path(sys.executable), cores=[0], settings={}
  )


class WorkerTest(absltest.TestCase):
  def serve(self, pieces, *requests):
    asked = "".join(json.dumps(request) + "\n" for request in requests)
    answers = io.StringIO()
    bench_worker.serve(pieces, io.StringIO(asked), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]

  def test_makes_a_piece_once_and_forgets_it(self):
    told = []

    def piece(size):
      told.append(f"made {size}")
      return lambda: told.append(f"run {size}")

    ask, forget = {"what": "one", "size": 3}, {"what": bench_worker.FORGET}
    answers = self.serve({"one": piece}, ask, ask, forget, ask)
    self.assertEqual(told, ["made 3", "run 3", "run 3", "made 3", "run 3"])
    self.assertEqual(answers[2], {})
    self.assertEqual(set(answers[0]), {"cpu", "wall", "gave"})

  def test_answers_what_the_work_gave(self):
    (answer,) = self.serve({"one": lambda: lambda: [1, 2]}, {"what": "one"})
    self.assertEqual(answer["gave"], [1, 2])

  def test_a_process_does_the_pieces_of_a_module(self):
    one = worker("figures.bench_numpy")
    gave = one.ask("products", size="5M", batch=1, times=2)["gave"]
    one.close()
    self.assertEqual(gave, 2)

  def test_a_failure_says_which_work_and_why(self):
    one = worker("figures.bench_numpy")
    with self.assertRaisesRegex(bench_worker.Failed, "nothing.*KeyError"):
      one.ask("nothing")
    one.close()

  def test_one_that_does_not_answer_is_ended(self):
    one = worker("figures.bench_numpy")
    with (
      mock.patch.object(bench_worker, "PATIENCE", 0.5),
      self.assertRaises(bench_worker.Failed),
    ):
      one.ask("product", times=10**6)
    one.close()


class TurnsTest(absltest.TestCase):
  def test_sides_take_turns_after_a_round_that_is_not_counted(self):
    told = []

    def ask(side, seconds):
      def once():
        told.append(side)
        return {"cpu": next(seconds), "wall": 1.0, "gave": len(told)}

      return once

    with mock.patch.object(bench_turns, "SECONDS", 0):
      turns = bench_turns.in_turn(
        {
          "a": ask("a", iter([99.0, 2.0, 8.0, 6.0])),
          "b": ask("b", iter([99.0, 1.0, 2.0, 4.0])),
        },
        least=3,
      )
    self.assertEqual("".join(told), "ab" * 4)
    self.assertEqual(turns.median("a"), 6.0)
    self.assertEqual(turns.ratio("a", "b"), 3.0)
    self.assertEqual(turns.by_round("a", "b"), 2.0)
    self.assertEqual(turns.rounds, 3)
    self.assertEqual(turns.gave, {"a": 7, "b": 8})

  def test_a_side_without_its_environment_is_skipped_and_said_to_be(self):
    gone = bench_turns.SIDES["torch"]._replace(environment=".venv-gone")
    with mock.patch.dict(bench_turns.SIDES, torch=gone):
      (row,) = bench_peers.decode_rows({})
    self.assertIn("skipped", row["claim"])
    self.assertIn(".venv-gone", row["claim"])
    self.assertTrue(row["holds"])


class SizesTest(absltest.TestCase):
  def test_products_are_those_of_the_parameters(self):
    for sizes in map(bench_sizes.SIZES.get, bench_sizes.DECODERS):
      made = bench_ours.models.make_config(**sizes)
      shapes = jax.eval_shape(
        bench_ours.models.make_model(made).init, jax.random.key(0)
      )
      count = sum(
        np.prod(leaf.shape)
        for leaf in jax.tree.leaves(shapes)
        if leaf.shape[-1] > 1 and leaf.ndim > 1
      )
      norms = (2 * sizes["num_layers"]) * sizes["width"]
      products = sum(a * b for a, b in bench_sizes.matrices(sizes))
      self.assertEqual(count - norms, products)

  def test_numpy_multiplies_all_of_them(self):
    self.assertEqual(bench_numpy.products("5M", 2, 3)(), 3)


class OursTest(absltest.TestCase):
  def test_decodes_a_folder_as_transformers_does(self):
    expected = hub_test.GoldenTest().load("llama")[1]
    sizes = expected["prompt_mask"].sum(1)
    row = int(np.argmax(sizes))
    run = bench_ours.decode(
      FOLDER,
      FOLDER,
      [expected["prompts"][row].tolist()] * ROWS,
      TOKENS,
      ["policy", "mixture"],
      greedy=True,
    )
    continuation = expected["continuation"][row, :TOKENS].tolist()
    self.assertEqual(run(), [[continuation] * 2] * ROWS)

  def test_a_step_is_the_rollout_and_the_update_that_a_peer_learns(self):
    with mock.patch.object(bench_sizes, "NEW_TOKENS", TOKENS):
      work = FOLDER, FOLDER, [[n, 6, 7] for n in range(5, 5 + ROWS)]
      learnt, took = bench_ours.learn(*work)(), bench_ours.step(*work)()
    self.assertEqual(np.shape(learnt["responses"]), (ROWS, TOKENS))
    self.assertAlmostEqual(took["loss"] / learnt["loss"], 1, places=4)
    self.assertAlmostEqual(took["grad_norm"] / learnt["grad_norm"], 1, places=4)
    self.assertEqual(took["ended"], 0)

  def test_the_judge_prefers_larger_ids(self):
    low, high = [[0, 100]], [[200, 900]]
    self.assertEqual(bench_ours.judged(low, low)(), [0.5])
    (said,) = bench_ours.judged(high, low)()
    self.assertAlmostEqual(said, 1 / (1 + np.exp(-1)), places=6)

  def test_planted_ends_leave_a_third_of_the_bucket(self):
    with mock.patch.object(bench_sizes, "NEW_TOKENS", 24):
      work = FOLDER, FOLDER, [[5, 6, 7]] * 64
      full, ended = (bench_alone.ends(*work, one)() for one in (False, True))
    self.assertEqual(full, 64 * 24)
    self.assertBetween(ended / full, 0.2, 0.45)

  def test_an_update_counts_thrice_the_products_of_a_reading(self):
    with mock.patch.object(bench_sizes, "NEW_TOKENS", TOKENS):
      parts = bench_alone.costs(FOLDER, FOLDER, [[5, 6, 7]] * ROWS)()
    flops = {name: part["flops"] for name, part in parts.items()}
    self.assertAlmostEqual(flops["update"] / flops["reference"], 3, places=1)
    self.assertLess(flops["decode"], flops["reference"])
    self.assertGreater(parts["decode"]["bytes"], 0)

  def test_a_gradient_counts_six_operations_a_parameter_and_token(self):
    tokens = list(range(3, 35))
    found = bench_alone.gradient(FOLDER, FOLDER, [tokens] * ROWS)()
    config = bench_ours.folders.load_config(FOLDER)
    products = sum(a * b for a, b in bench_sizes.matrices(config._asdict()))
    least = 6 * products * ROWS * (len(tokens) - 1)
    self.assertBetween(found / least, 1.0, 1.3)


if __name__ == "__main__":
  absltest.main()
