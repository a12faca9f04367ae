"""Policies that answer as one, by enumeration; parts of records."""

import itertools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from nashmd_jax import lanes, mistakes, rejection, sampling
from nashmd_jax.data import parts
from tests import enumeration

LENGTH, TEMPERATURE, PROMPT = 3, 0.8, 1
NAMES = ("member_0", "member_1", "member_2")
EOS = enumeration.EOS


def members(count: int = 3):
  """A table model, and so many sets of its parameters."""
  model = enumeration.table_model(LENGTH)
  keys = jax.random.split(jax.random.key(5), count)
  return model, {
    name: model.init(key) for name, key in zip(NAMES[:count], keys, strict=True)
  }


def prefix_number(prefix) -> int:
  number = 0
  for token in prefix:
    number = number * enumeration.VOCAB + token + 1
  return number


def stated(sets, combined) -> dict[tuple[int, ...], float]:
  """π(y) of every response to `PROMPT`, by walking down all prefixes.

  Args:
    combined: (probabilities of the members [L, V]) -> weights [V].
  """
  tables = [
    np.asarray(one["logits"], np.float64)[PROMPT] / TEMPERATURE
    for one in sets.values()
  ]
  found, open_ones = {}, {(): 1.0}
  for size in range(1, LENGTH + 1):
    longer = {}
    for prefix, mass in open_ones.items():
      place = prefix_number(prefix)
      weight = combined(
        np.array([special.softmax(table[place]) for table in tables])
      )
      for token, share in enumerate(weight / weight.sum()):
        ends = token == EOS or size == LENGTH
        (found if ends else longer)[(*prefix, token)] = mass * share
    open_ones = longer
  return found


def alone(sets) -> list[dict[tuple[int, ...], float]]:
  """π_l(y) of every response, of each set."""
  return [
    stated({name: one}, lambda probs: probs[0]) for name, one in sets.items()
  ]


def roll(model, sets, lane, count: int):
  prompts = jnp.full((count, 1), PROMPT, jnp.int32)
  return jax.jit(
    lambda sets: sampling.rollout(
      model, sets, [lane], prompts=prompts, prompt_mask=prompts == PROMPT,
      keys=sampling.row_keys(jax.random.key(2), jnp.arange(count), 1),
      max_response=LENGTH, temperature=TEMPERATURE, eos_ids=(EOS,),
    )
  )(sets)  # fmt: skip


def reject(model, sets, count: int, proposals: int, samples: int = 1):
  prompts = jnp.full((count, 1), PROMPT, jnp.int32)
  return jax.jit(
    lambda sets: rejection.rollout(
      model, sets, lanes.Rejection(tuple(sets), proposals), samples=samples,
      prompts=prompts, prompt_mask=prompts == PROMPT, rng=jax.random.key(4),
      example_ids=jnp.arange(count), max_response=LENGTH,
      temperature=TEMPERATURE, eos_ids=(EOS,),
    )
  )(sets)  # fmt: skip


def written(out) -> list[tuple[int, ...]]:
  """Responses of a rollout, as `stated` names them."""
  tokens, mask = (np.asarray(x).reshape(-1, LENGTH) for x in out[:2])
  return [
    tuple(row[kept].tolist()) for row, kept in zip(tokens, mask, strict=True)
  ]


def misfit(rows, expected) -> float:
  """The p-value of χ² of the rows under probabilities by response."""
  names = [name for name in expected if expected[name] > 0]
  observed = [rows.count(name) for name in names]
  assert sum(observed) == len(rows)
  wanted = np.array([expected[name] for name in names]) * len(rows)
  return stats.chisquare(observed, wanted).pvalue


LEAST = lanes.Ensemble(NAMES, "minimum", 0.0)
RULES = (
  (LEAST, lambda p: p.min(0)),
  (lanes.Ensemble(NAMES, "lower", 0.5), lambda p: p.mean(0) - p.std(0) / 2),
  # Here some tokens are lost, of which the plain difference is below 0.
  (
    lanes.Ensemble(NAMES, "lower", 1.2),
    lambda p: np.maximum(p.mean(0) - 1.2 * p.std(0), 0),
  ),
)


class TokensTest(parameterized.TestCase):
  """Pessimistic decoding, token by token."""

  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))
    self.model, self.sets = members()

  @parameterized.parameters(*RULES)
  def test_what_is_sampled_is_what_is_stated(self, lane, combined):
    expected = stated(self.sets, combined)
    self.assertAlmostEqual(sum(expected.values()), 1, places=12)
    out = roll(self.model, self.sets, lane, 20_000)
    rows = written(out)
    np.testing.assert_allclose(
      np.asarray(out.log_prob)[:, 0].sum(-1),
      np.log([expected[row] for row in rows]),
      rtol=1e-5,
      atol=1e-6,  # a rollout keeps float32
    )
    self.assertGreater(misfit(rows, expected), 1e-3)
    plain = stated(self.sets, lambda p: p.mean(0))
    self.assertLess(misfit(rows, plain), 1e-9)

  def test_a_large_deviation_loses_tokens(self):
    lost = [stated(self.sets, combined) for _, combined in RULES]
    self.assertEqual([min(one.values()) > 0 for one in lost], [1, 1, 0])

  def test_where_nothing_is_left_the_minimum_stands(self):
    probs = np.array(
      [[0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.01, 0.01, 0.98]]
    )
    found = lanes.lower(jnp.log(probs), 5.0)
    np.testing.assert_allclose(np.exp(found), probs.min(0), rtol=1e-12)

  def test_an_ensemble_and_a_mixture_write_side_by_side(self):
    prompts = jnp.full((50, 1), PROMPT, jnp.int32)
    both = [{"member_0": 0.5, "member_2": 0.5}, LEAST]
    out = sampling.rollout(
      self.model, self.sets, both, prompts=prompts,
      prompt_mask=prompts == PROMPT,
      keys=sampling.row_keys(jax.random.key(2), jnp.arange(50), 2),
      max_response=LENGTH, temperature=TEMPERATURE, eos_ids=(EOS,),
    )  # fmt: skip
    geometric = stated(self.sets, lambda p: np.sqrt(p[0] * p[2]))
    for number, expected in enumerate(
      (geometric, stated(self.sets, RULES[0][1]))
    ):
      part = jax.tree.map(lambda x, n=number: x[:, n], out)
      np.testing.assert_allclose(
        np.asarray(part.log_prob).sum(-1),
        np.log([expected[row] for row in written(part)]),
        rtol=1e-5,
        atol=1e-6,
      )


class AloneTest(parameterized.TestCase):
  @parameterized.parameters("minimum", "lower")
  def test_one_member_is_that_policy_bit_for_bit(self, rule):
    model, sets = members(1)
    one = {"policy": sets["member_0"]}
    plain = roll(model, one, {"policy": 1.0}, 300)
    lane = lanes.Ensemble(("policy",), rule, 1.0)
    jax.tree.map(
      np.testing.assert_array_equal, plain, roll(model, one, lane, 300)
    )


class WholeTest(parameterized.TestCase):
  """The least probability of whole responses, by rejection."""

  def setUp(self):
    super().setUp()
    self.model, self.sets = members()
    self.each = alone(self.sets)
    least = {y: min(one[y] for one in self.each) for y in self.each[0]}
    self.acceptance = sum(least.values())
    self.expected = {y: p / self.acceptance for y, p in least.items()}

  def test_acceptance_and_what_is_taken_are_exact(self):
    count, proposals = 8_000, 4
    drawn = reject(self.model, self.sets, count, proposals)
    shares = np.asarray(drawn.accepted)[:, 0]
    taken = round(float(shares.sum()) * proposals)
    low, high = stats.binomtest(taken, count * proposals).proportion_ci(0.999)
    self.assertBetween(self.acceptance, low, high)
    self.assertBetween(self.acceptance, 0.2, 0.8)
    none = round(float((shares == 0).sum()))
    low, high = stats.binomtest(none, count).proportion_ci(0.999)
    self.assertBetween((1 - self.acceptance) ** proposals, low, high)
    some = np.flatnonzero(shares > 0)
    rows = written(drawn.rollout)
    rows = [rows[i] for i in some]
    self.assertGreater(misfit(rows, self.expected), 1e-3)
    # Not what is least at each token, nor what was proposed.
    by_token = stated(self.sets, lambda p: p.min(0))
    for other in (by_token, self.each[0]):
      self.assertLess(misfit(rows, other), 1e-6)

  def test_one_member_takes_its_first_proposal(self):
    one = {"member_0": self.sets["member_0"]}
    drawn = reject(self.model, one, 100, 3)
    np.testing.assert_array_equal(drawn.accepted, 1)
    wrote = roll_lanes(self.model, one, 100, 3)
    np.testing.assert_array_equal(drawn.rollout.tokens[:, 0], wrote[:, 0])

  def test_several_responses_have_proposals_of_their_own(self):
    drawn = reject(self.model, self.sets, 40, 2, samples=3)
    self.assertEqual(drawn.rollout.tokens.shape, (40, 3, LENGTH))
    wrote = roll_lanes(self.model, self.sets, 40, 6)
    for row, sample in itertools.product(range(40), range(3)):
      own = np.asarray(wrote[row, 2 * sample : 2 * sample + 2]).tolist()
      got = np.asarray(drawn.rollout.tokens[row, sample]).tolist()
      self.assertIn(got, own)

  def test_the_first_that_is_taken_or_one_by_its_weight(self):
    weight = np.log([0.1, 0.5, 0.4])
    for uniform, expected in (
      ((0.2, 0.4, 0.1, 0.0), 1),
      ((0.05, 0.4, 0.1, 0.9), 0),
      ((0.9, 0.9, 0.9, 0.05), 0),
      ((0.9, 0.9, 0.9, 0.55), 1),
      ((0.9, 0.9, 0.9, 0.65), 2),
      ((0.9, 0.9, 0.9, 0.9999999), 2),
    ):
      found = rejection.take(jnp.array(weight), jnp.array(uniform))
      self.assertEqual(int(found), expected, uniform)


def roll_lanes(model, sets, count: int, proposals: int):
  """What the first member writes with the keys of `reject`."""
  prompts = jnp.full((count, 1), PROMPT, jnp.int32)
  return sampling.rollout(
    model, sets, [{"member_0": 1.0}] * proposals, prompts=prompts,
    prompt_mask=prompts == PROMPT,
    keys=sampling.row_keys(jax.random.key(4), jnp.arange(count), proposals),
    max_response=LENGTH, temperature=TEMPERATURE, eos_ids=(EOS,),
  ).tokens  # fmt: skip


class PartsTest(parameterized.TestCase):
  @parameterized.parameters((12, 3), (14, 4), (5, 5))
  def test_parts_are_disjoint_and_all_there_is(self, count, size):
    found = [
      parts.numbers(count, parts=size, part=part, overlap=0.0, seed=7)
      for part in range(size)
    ]
    self.assertCountEqual(np.concatenate(found), range(count))
    self.assertLessEqual(max(map(len, found)) - min(map(len, found)), 1)
    self.assertNotEqual(np.concatenate(found).tolist(), [*range(count)])

  def test_a_quarter_is_the_next_one_s(self):
    at = dict(parts=3, seed=7)
    own = [parts.numbers(24, part=k, overlap=0.0, **at) for k in range(3)]
    for k in range(3):
      more = set(parts.numbers(24, part=k, overlap=0.25, **at)) - {*own[k]}
      self.assertLen(more, 2)
      self.assertLess(more, {*own[(k + 1) % 3]})

  def test_the_seed_deals(self):
    at = dict(parts=3, part=0, overlap=0.0)
    one, other = (parts.numbers(30, seed=s, **at).tolist() for s in (0, 1))
    self.assertNotEqual(one, other)
    self.assertEqual(one, sorted(one))

  def test_one_part_is_the_records_as_they_are(self):
    rows = [{"id": "1"}, {"id": "2"}]
    at = dict(part=0, overlap=0.5, seed=0)
    self.assertIs(parts.take(rows, parts=1, **at), rows)
    with self.assertRaisesRegex(mistakes.Mistake, "got 3 parts of 2 training"):
      parts.take(rows, parts=3, **at)


if __name__ == "__main__":
  absltest.main()
