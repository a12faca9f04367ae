"""The judges: antisymmetry, padding, template, and learning a preference."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax.judges import preference_model, scorers
from tests import decoder_test, t5_test

IN_RESPONSE = {"prompt": "{prompt}", "response": "2{first}3{second}4"}
IN_PROMPT = {"prompt": "5{prompt}2{first}3{second}4", "response": ""}


def encode(text):
  return [int(character) for character in text]


def make_template(**kwargs):
  slots = preference_model.PREFERENCE_SLOTS
  if "{second}" not in kwargs["prompt"] + kwargs["response"]:
    slots = preference_model.REWARD_SLOTS
  return preference_model.make_template(
    encode, slots, barred=(2, 3), answers=("6", "7"), **kwargs
  )


class PreferenceModelTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.model = t5_test.tiny_model()
    self.params = self.model.init(jax.random.key(0))
    batch = t5_test.tiny_batch()
    other = t5_test.tiny_batch(response=5)["responses"]
    width = jnp.arange(6)[None, :]
    self.slots = dict(
      prompts=(batch["prompts"], batch["prompt_mask"]),
      responses=(batch["responses"], width < jnp.array([[3], [6], [1], [4]])),
      opponents=(
        other + 1,
        width[:, :5] < jnp.array([[5], [2], [4], [3]]),
      ),
    )

  def logit(self, template, **changes):
    return preference_model.win_logit(
      self.model, self.params, make_template(**template), **self.slots
      | changes,
    )  # fmt: skip

  @parameterized.parameters(IN_RESPONSE, IN_PROMPT)
  def test_antisymmetric_to_the_last_bit(self, **template):
    forward = self.logit(template)
    backward = self.logit(
      template,
      responses=self.slots["opponents"],
      opponents=self.slots["responses"],
    )
    np.testing.assert_array_equal(forward, -backward)
    self.assertGreater(float(jnp.abs(forward).max()), 1e-4)
    same = self.logit(template, opponents=self.slots["responses"])
    np.testing.assert_array_equal(same, jnp.zeros(4))

  @parameterized.parameters(IN_RESPONSE, IN_PROMPT)
  def test_both_orders_make_the_judgement(self, **template):
    forward, backward = preference_model.both_orders(
      self.model, self.params, make_template(**template), **self.slots
    )
    np.testing.assert_array_equal(forward - backward, self.logit(template))
    # Untrained, it minds the place and not the response alone.
    self.assertGreater(float(jnp.abs(forward + backward).max()), 1e-4)

  @parameterized.parameters(IN_RESPONSE, IN_PROMPT)
  def test_padding_does_not_matter(self, **template):
    padded = {
      name: (
        jnp.pad(tokens, ((0, 0), (0, 3)), constant_values=9),
        jnp.pad(mask, ((0, 0), (0, 3))),
      )
      for name, (tokens, mask) in self.slots.items()
    }
    np.testing.assert_allclose(
      self.logit(template, **padded), self.logit(template), atol=2e-6
    )

  def test_template_is_read_in_order(self):
    template = make_template(prompt="5{prompt}", response="2{first}3{second}4")
    self.assertEqual(template.prompt, ((5,), "prompt"))
    self.assertEqual(template.response, ((2,), "first", (3,), "second", (4,)))

  def test_reward_depends_on_its_own_response_alone(self):
    template = make_template(prompt="{prompt}", response="{first}4")
    tokens, mask = self.slots["responses"]

    def reward(tokens):
      return preference_model.reward(
        self.model,
        self.params,
        template,
        prompts=self.slots["prompts"],
        responses=(tokens, mask),
      )

    changed = reward(tokens.at[1].add(1))
    same = np.array([True, False, True, True])
    np.testing.assert_allclose(changed[same], reward(tokens)[same], atol=1e-6)
    self.assertGreater(float(jnp.abs(changed - reward(tokens))[1]), 1e-5)

  def test_what_both_answers_begin_with_is_read_before_them(self):
    template = preference_model.make_template(
      encode,
      preference_model.REWARD_SLOTS,
      barred=(),
      prompt="{prompt}",
      response="{first}4",
      answers=("516", "517"),
    )
    self.assertEqual(template.response, ("first", (4,), (5, 1)))
    self.assertEqual(template.answers, (6, 7))

  @parameterized.parameters((("6", "6"),), (("66", "7"),), (("7", "78"),))
  def test_answers_must_differ_in_their_last_token_alone(self, answers):
    with self.assertRaisesRegex(ValueError, "template.answers"):
      preference_model.make_template(
        encode,
        preference_model.REWARD_SLOTS,
        barred=(),
        prompt="{prompt}",
        response="{first}",
        answers=answers,
      )

  @parameterized.parameters("{frist}", "{first}{first}", "")
  def test_slots_must_be_the_known_ones(self, response):
    with self.assertRaisesRegex(ValueError, "template: has the slots"):
      preference_model.make_template(
        encode,
        preference_model.REWARD_SLOTS,
        barred=(),
        prompt="{prompt}",
        response=response,
        answers=("6", "7"),
      )

  @parameterized.parameters(IN_RESPONSE, IN_PROMPT)
  def test_a_response_cannot_write_the_markers(self, **template):
    tokens, mask = self.slots["responses"]
    tokens = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=3)
    mask = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
    np.testing.assert_allclose(
      self.logit(template, responses=(tokens, mask)),
      self.logit(template),
      atol=2e-6,
    )

  def test_token_and_text_judge_agree(self):
    template = make_template(**IN_RESPONSE)

    def make_judge(params):
      return scorers.make_preference_judge(self.model, params, template)

    rows = [{"prompt": "3579"}, {"prompt": "86"}, {"prompt": "5"}]
    first, second = ["22", "8", "999"], ["34", "56", "2"]

    def example(record):
      return {
        "prompts": encode(record["prompt"]),
        "responses_a": encode(record["response_a"]),
        "responses_b": encode(record["response_b"]),
      }

    def pad(examples):
      batch = {}
      for name in ("prompts", "responses_a", "responses_b"):
        tokens = np.zeros((len(examples), 5), np.int32)
        for row, one in zip(tokens, examples, strict=True):
          row[: len(one[name])] = one[name]
        batch[name], batch[name + "_mask"] = tokens, tokens > 0
      return batch

    text_judge = scorers.make_text_judge(
      make_judge,
      self.params,
      jit=jax.jit,
      encode=example,
      pad=pad,
      batch_size=2,
    )
    got = text_judge(rows, first, second)
    batch = pad(
      [
        example(row | {"response_a": a, "response_b": b})
        for row, a, b in zip(rows, first, second, strict=True)
      ]
    )
    expected = make_judge(self.params)(
      jax.random.key(0),
      *(
        (batch[name], batch[name + "_mask"])
        for name in ("prompts", "responses_a", "responses_b")
      ),
    )
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(got + text_judge(rows, second, first), 1.0)


class SharedPromptTest(parameterized.TestCase):
  """What all rows of a prompt begin with is read once."""

  def setUp(self):
    super().setUp()
    few, many = t5_test.tiny_batch(), t5_test.tiny_batch(rows=8)
    mask = jnp.arange(6)[None] < (jnp.arange(8) % 5 + 2)[:, None]
    # A prompt of no token at all, and one that is full.
    kept = few["prompt_mask"].at[1].set(False).at[2].set(True)
    self.slots = {
      "prompts": (few["prompts"], kept),
      "responses": (many["responses"], mask),
      "opponents": (many["responses"][::-1], mask[::-1]),
    }

  @parameterized.product(
    family=("llama", "gemma3_text"),
    prompt=(
      "5{prompt}3{first}4{second}",
      "{prompt}{first}4{second}",
      "{first}3{prompt}4{second}",
    ),
  )
  def test_it_judges_as_one_that_reads_all_of_them(self, family, prompt):
    model = decoder_test.tiny_model(family)
    params = model.init(jax.random.key(0))
    template = make_template(prompt=prompt, response="2")
    rows = []

    def counted(params, prompts, *rest):
      rows.append(len(prompts))
      return model.next_states(params, prompts, *rest)

    got, expected = (
      preference_model.win_logit(one, params, template, **self.slots)
      for one in (
        model._replace(next_states=counted),
        model._replace(one_sequence=False),
      )
    )
    self.assertEqual(rows, [4 if "3{first}" in prompt else 16])
    np.testing.assert_allclose(got, expected, atol=1e-5)
    self.assertGreater(float(jnp.abs(got).max()), 1e-2)

  @parameterized.parameters((IN_RESPONSE, 4), (IN_PROMPT, 16))
  def test_an_encoder_reads_a_prompt_of_no_row_alone_once(self, texts, count):
    model = t5_test.tiny_model()
    params = model.init(jax.random.key(0))
    template, read = make_template(**texts), []

    def counted(params, prompts, *rest):
      read.append(len(prompts))
      return model.next_states(params, prompts, *rest)

    def one_by_one(params, prompts, mask, responses, lengths):
      prompts, mask = preference_model.each((prompts, mask), len(responses))
      return model.next_states(params, prompts, mask, responses, lengths)

    got, expected = (
      preference_model.win_logit(
        model._replace(next_states=states), params, template, **self.slots
      )
      for states in (counted, one_by_one)
    )
    self.assertEqual(read, [count])
    np.testing.assert_allclose(got, expected, atol=1e-5)
    self.assertGreater(float(jnp.abs(got).max()), 1e-2)


if __name__ == "__main__":
  absltest.main()
