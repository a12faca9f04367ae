"""Standings of policies: games with known equilibria, noise, the paper."""

import itertools
import pathlib
from unittest import mock

from absl.testing import absltest
import numpy as np

from nashmd_jax.evaluation import standings

PAPER = pathlib.Path(__file__).parent.parent / "../shared/data/paper"
TABLE = PAPER / "table1_win_rates.csv"


def votes(matrix, prompts: int, rng) -> np.ndarray:
  """One vote of each pair on each prompt, f64[pairs, prompts]."""
  i, j = np.triu_indices(len(matrix), 1)
  drawn = rng.random((len(i), prompts)) < np.asarray(matrix)[i, j][:, None]
  return drawn.astype(float)


def found(pairs, size, **more):
  return standings.of_pairs(
    pairs, size, **{"confidence": 0.95, "seed": 0} | more
  )


def bradley_terry(scores) -> np.ndarray:
  scores = np.asarray(scores)
  return 1 / (1 + np.exp(scores[None] - scores[:, None]))


class GamesTest(absltest.TestCase):
  def test_a_ring_is_seen_as_one(self):
    ring = [[0.5, 0.8, 0.2], [0.2, 0.5, 0.8], [0.8, 0.2, 0.5]]
    got = found(votes(ring, 1000, np.random.default_rng(0)), 3)
    np.testing.assert_allclose(got["nash_average"]["value"], 1 / 3, atol=0.05)
    np.testing.assert_allclose(got["mean"]["value"], 0.5, atol=0.03)
    self.assertIsNone(got["condorcet"])
    self.assertEqual(got["beats"], [[0, 1], [1, 2], [2, 0]])
    counts = [got[x] for x in ("triples", "cyclic", "cyclic_sure", "degrees")]
    self.assertEqual(counts, [1, 1, 1, 1])
    self.assertLess(got["chi_square_p_value"], 0.01)
    for law in (got["nash_average"], got["mean"], got["elo"]):
      self.assertTrue(np.all(np.less_equal(law["low"], law["value"])))
      self.assertTrue(np.all(np.less_equal(law["value"], law["high"])))

  def test_an_order_by_hand(self):
    # 3 votes in 4 for the first: 400 log10(3) points apart.
    pairs = np.array([[1.0, 1.0, 1.0, 0.0] * 100])
    got = found(pairs, 2)
    self.assertEqual(got["nash_average"]["value"], [1.0, 0.0])
    self.assertEqual(got["mean"]["value"], [0.75, 0.25])
    points = 400 * np.log10(3)
    np.testing.assert_allclose(
      got["elo"]["value"], [points / 2, -points / 2], rtol=1e-4
    )
    self.assertEqual((got["condorcet"], got["condorcet_share"]), (0, 1.0))
    self.assertEqual(got["beats"], [[0, 1]])
    self.assertEqual((got["triples"], got["degrees"]), (0, 0))
    self.assertIsNone(got["chi_square_p_value"])
    self.assertIsNone(got["cyclic_p_value"])

  def test_names_of_policies_do_not_matter(self):
    rng = np.random.default_rng(0)
    pairs, order = (
      votes(bradley_terry([0.0, 0.4, 0.9, 0.2]), 50, rng),
      [2, 0, 3, 1],
    )
    table = np.full((4, 4, 50), 0.5)
    i, j = np.triu_indices(4, 1)
    table[i, j], table[j, i] = pairs, 1 - pairs
    got, other = found(pairs, 4), found(table[order][:, order][i, j], 4)
    for name in ("nash_average", "mean", "elo"):
      np.testing.assert_allclose(
        np.array(got[name]["value"])[order], other[name]["value"], atol=1e-6
      )
    for end in ("low", "high"):
      np.testing.assert_allclose(
        np.array(got["mean"][end])[order], other["mean"][end], atol=0.02
      )
    for name in ("cyclic", "chi_square"):
      self.assertAlmostEqual(got[name], other[name])
    for name in ("cyclic_p_value", "chi_square_p_value", "condorcet_share"):
      self.assertAlmostEqual(got[name], other[name], delta=0.05)
    self.assertCountEqual(
      got["beats"], [[order[i], order[j]] for i, j in other["beats"]]
    )

  def test_prompts_that_are_all_alike_leave_doubt(self):
    for value in (0.5, 0.9):
      got = found(np.full((3, 20), value), 3)
      self.assertLess(got["mean"]["low"][1], got["mean"]["high"][1] - 0.01)
      self.assertLess(got["elo"]["low"][1], got["elo"]["high"][1] - 1)

  def test_a_pair_that_was_not_judged_gives_no_standings(self):
    pairs = votes(np.full((3, 3), 0.5), 10, np.random.default_rng(0))
    pairs[1, :9] = np.nan
    self.assertIsNotNone(found(pairs, 3))
    pairs[1] = np.nan
    self.assertIsNone(found(pairs, 3))
    self.assertIsNone(found(np.zeros((0, 10)), 1))


class NoiseTest(absltest.TestCase):
  def test_of_equal_policies_hardly_ever_is_one_said_to_beat_another(self):
    rng, said = np.random.default_rng(0), 0
    for _ in range(200):
      pairs = votes(np.full((6, 6), 0.5), 100, rng)
      ends = np.array(list(itertools.combinations(range(6), 2))).T
      said += bool(standings._beats(pairs, pairs.mean(1), ends, 0.95))
    self.assertLessEqual(said, 18)  # 5 % of 200; so many in 1 of 100

  def test_bradley_terry_policies_are_no_worse_than_their_noise(self):
    self.enter_context(mock.patch.object(standings, "RESAMPLES", 99))
    rng, p_values = np.random.default_rng(0), []
    for _ in range(60):
      matrix = bradley_terry([0.0, 0.1, 0.3, 0.6, 1.0])
      got = found(votes(matrix, 200, rng), 5)
      p_values.append((got["chi_square_p_value"], got["cyclic_p_value"]))
    chi_square, cyclic = np.transpose(p_values)
    self.assertLessEqual(np.sum(chi_square < 0.05), 8)
    self.assertBetween(np.mean(chi_square), 0.35, 0.65)
    self.assertLessEqual(np.sum(cyclic < 0.05), 6)


@absltest.skipUnless(TABLE.exists(), "needs the paper's tables, see README")
class PaperTest(absltest.TestCase):
  def test_table_1(self):
    names = TABLE.read_text().split("\n")[0].strip("# ").split(",")
    matrix = np.loadtxt(TABLE, delimiter=",").T  # a column against a row
    rng = np.random.default_rng(0)
    i, j = np.triu_indices(len(names), 1)
    won = np.arange(2000) < np.rint(2000 * matrix[i, j])[:, None]
    got = found(rng.permuted(won.astype(float), axis=1), len(names))
    self.assertEqual(names[got["condorcet"]], "MD1")
    self.assertEqual(got["nash_average"]["value"][got["condorcet"]], 1.0)
    counts = [got[x] for x in ("triples", "cyclic", "cyclic_sure", "degrees")]
    self.assertEqual(counts, [364, 2, 0, 78])
    self.assertBetween(got["chi_square"], 256, 258)
    self.assertLess(got["chi_square_p_value"], 0.005)
    self.assertGreater(got["cyclic_p_value"], 0.3)
    said = standings.sentences(names, got)
    self.assertStartsWith(said[0], "MD1 wins more often than not against")
    self.assertStartsWith(said[1], "2 of 364 triples go in a ring, 0 of them")
    self.assertStartsWith(said[2], "Bradley-Terry scores do not explain these")


if __name__ == "__main__":
  absltest.main()
