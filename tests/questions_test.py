"""What a served judge asks about a pair, and how it reads what is answered."""

import json
import math

from absl.testing import absltest, parameterized

from nashmd_jax.judges import questions

WORDING = questions.Wording(
  model="judge", form="chat", system=None, prompt="{prompt}|{first}|{second}",
  answers=("1", "2"), max_tokens=4, top_logprobs=5, orders="both",
)  # fmt: skip
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def logs(**probs):
  return {token: math.log(p) for token, p in probs.items()}


def chat(text, *places):
  """A chat's answer; places are (token, {token: log-probability})."""
  content = [
    {
      "token": token,
      "logprob": top.get(token, -9.0),
      "top_logprobs": [{"token": t, "logprob": p} for t, p in top.items()],
    }
    for token, top in places
  ]
  message = {"role": "assistant", "content": text}
  logprobs = {"content": content} if places else None
  return {"choices": [{"message": message, "logprobs": logprobs}]}


def completion(text, *places):
  """A completion's answer, likewise."""
  logprobs = {
    "tokens": [token for token, _ in places],
    "token_logprobs": [top.get(token) for token, top in places],
    "top_logprobs": [top for _, top in places],
  }
  return {"choices": [{"text": text, "logprobs": logprobs if places else None}]}


def says(value, **changes):
  return questions.read_reply(value, WORDING._replace(**changes)).win_prob


class AskTest(parameterized.TestCase):
  def sent(self, **changes):
    wording = WORDING._replace(**changes)
    pair = questions.ask(wording, "p", "y", "z")
    return [json.loads(question.body) for question in pair.questions]

  def test_texts_with_braces_are_only_texts(self):
    wording = WORDING._replace(prompt="{ {prompt} {0} {first} {{second}} }")
    texts = ("{first} {second}", "{prompt}{}", "{second!r} \\1 \\g<0> %s")
    bodies = [
      json.loads(question.body)["messages"][0]["content"]
      for question in questions.ask(wording, *texts).questions
    ]
    prompt, y, z = texts
    self.assertCountEqual(
      bodies, [f"{{ {prompt} {{0}} {a} {{{b}}} }}" for a, b in ((y, z), (z, y))]
    )

  def test_a_chat_and_a_completion_as_the_api_has_them(self):
    first, second = self.sent(system="You judge.")
    self.assertEqual(
      first["messages"][0], {"role": "system", "content": "You judge."}
    )
    self.assertCountEqual(
      [body["messages"][1]["content"] for body in (first, second)],
      ["p|y|z", "p|z|y"],
    )
    rest = {k: v for k, v in first.items() if k != "messages"}
    self.assertEqual(
      rest,
      {"model": "judge", "max_tokens": 4, "temperature": 0, "logprobs": True,
       "top_logprobs": 5},
    )  # fmt: skip
    first, _ = self.sent(form="completion")
    self.assertIn(first.pop("prompt"), ("p|y|z", "p|z|y"))
    self.assertEqual(
      first,
      {"model": "judge", "max_tokens": 4, "temperature": 0, "logprobs": 5},
    )
    for form in questions.FORMS:
      self.assertNotIn("logprobs", self.sent(form=form, top_logprobs=0)[0])

  def test_the_same_questions_whichever_text_comes_first(self):
    one, other = (questions.ask(WORDING, "p", *t) for t in ("yz", "zy"))
    self.assertEqual(one.questions, other.questions)
    self.assertEqual({one.swapped, other.swapped}, {False, True})
    only = WORDING._replace(orders="one")
    self.assertEqual(
      questions.ask(only, "p", "y", "z").questions, one.questions[:1]
    )

  def test_one_order_favours_neither_the_longer_nor_the_lower_text(self):
    only = WORDING._replace(orders="one")
    swapped = sum(
      questions.ask(only, "p", str(n), str(n) + "!").swapped for n in range(400)
    )
    self.assertBetween(swapped, 150, 250)  # five standard deviations

  def test_a_key_is_of_all_that_an_answer_depends_on(self):
    changes = (
      {}, {"model": "other"}, {"form": "completion"}, {"system": ""},
      {"system": "s"}, {"prompt": "{prompt}|{second}|{first}!"},
      {"answers": ("A", "B")}, {"answers": ("2", "1")}, {"max_tokens": 5},
      {"top_logprobs": 4}, {"top_logprobs": 0},
    )  # fmt: skip
    keys = [
      question.key
      for change in changes
      for question in questions.ask(
        WORDING._replace(**change), "p", "y", "z"
      ).questions
    ]
    self.assertLen({*keys}, 2 * len(changes))
    self.assertRegex(keys[0], r"\A[0-9a-f]{64}\Z")

  def test_half_a_surrogate_pair_can_be_asked_about(self):
    pair = questions.ask(WORDING, "\ud83d", "\udc00", "y")
    self.assertLen(pair.questions, 2)


class ReadTest(parameterized.TestCase):
  @parameterized.parameters(
    ("1", 1.0), (" 2\n", 0.0), ("The answer is 2.", 0.0), ("**1**", 1.0),
    ('{"answer": 2}', 0.0), ("(1)", 1.0), ("Response 1, clearly.", 1.0),
    ("1, it is. 1!", 1.0), ("12", None), ("21", None), ("1.5", None),
    ("3,2", None), ("a1", None), ("", None), ("neither", None),
    ("1 or 2", None), ("2, since 1 is long", None), (None, None),
  )  # fmt: skip
  def test_a_text_names_one_answer_or_says_nothing(self, text, expected):
    for changes in ({}, {"top_logprobs": 0}):
      self.assertEqual(says(chat(text), **changes), expected)
      self.assertEqual(says(completion(text), **changes), expected)

  @parameterized.parameters(
    ("A better one is A", ("A", "B"), 1.0), ("ab", ("a", "b"), None),
    ("The second.", ("first", "second"), 0.0), ("b)", ("a)", "b)"), 0.0),
    ("SECOND", ("first", "second"), None), ("né", ("n", "b"), None),
  )  # fmt: skip
  def test_answers_of_any_kind(self, text, answers, expected):
    self.assertEqual(says(chat(text), answers=answers), expected)

  @parameterized.parameters(chat, completion)
  def test_probabilities_are_summed_over_the_spellings(self, form):
    top = logs(**{"1": 0.3, " 1": 0.1, "2": 0.05, "\n2": 0.05, "12": 0.4})
    # 0.4 against 0.1, where "12" is neither.
    self.assertAlmostEqual(says(form("1", ("1", top))), 0.8, places=12)
    self.assertEqual(says(form("1", ("1", top)), top_logprobs=0), 1.0)

  @parameterized.parameters(chat, completion)
  def test_probabilities_are_those_where_the_answer_is_written(self, form):
    early = logs(**{"The": 0.9, "1": 0.05, "2": 0.05})
    late = logs(**{" 2": 0.75, " 1": 0.25})
    places = (("The", early), (" answer", logs(x=1.0)), (" 2", late))
    said = says(form("The answer 2", *places))
    self.assertAlmostEqual(said, 0.25, places=12)

  @parameterized.parameters(chat, completion)
  def test_without_a_written_answer_the_first_token_decides(self, form):
    both = logs(**{"The": 0.5, "1": 0.03, " 2": 0.01})
    self.assertAlmostEqual(says(form("The", ("The", both))), 0.75, places=12)
    one = logs(**{"The": 0.5, "1": 0.03})
    self.assertIsNone(says(form("The", ("The", one))))
    self.assertIsNone(says(form("1 or 2", ("1", both))))

  @parameterized.parameters(chat, completion)
  def test_an_answer_that_is_not_among_the_probable_has_none(self, form):
    self.assertEqual(says(form("2", ("2", logs(**{"2": 0.9})))), 0.0)

  @parameterized.parameters(
    [[None]], [[1]], [["x"]], [[{}]], [[{"token": "1"}]],
    [[{"token": "1", "top_logprobs": None}]],
    [[{"token": "1", "top_logprobs": [{"token": "1", "logprob": None}]}]],
    [[{"token": "1", "top_logprobs": [{"token": "1", "logprob": math.nan}]}]],
    [[{"token": "1", "top_logprobs": [{"token": "1", "logprob": -math.inf}]}]],
    [[{"token": "1", "top_logprobs": [{"token": "1", "logprob": -9999.0}]}]],
    [[{"token": "1", "top_logprobs": [{"token": "1", "logprob": -(10**400)}]}]],
    [[{"token": "1", "top_logprobs": [{"token": 1, "logprob": 700.0}]}]],
  )  # fmt: skip
  def test_probabilities_that_are_none_leave_the_text(self, content):
    value = chat("1")
    value["choices"][0]["logprobs"] = {"content": content}
    self.assertEqual(says(value), 1.0)
    value["choices"][0]["logprobs"] = content
    self.assertEqual(says(value), 1.0)

  def test_a_completion_in_the_form_of_a_chat(self):
    # As llama.cpp answers.
    value = completion("1")
    places = chat("1", ("1", logs(**{"1": 0.6, "2": 0.2})))
    value["choices"][0]["logprobs"] = places["choices"][0]["logprobs"]
    self.assertAlmostEqual(says(value), 0.75, places=12)

  def test_what_is_no_answer_is_an_error(self):
    for value in (
      None, 1, "1", [], {}, {"choices": []}, {"choices": None},
      {"choices": [None]}, {"choices": [{"message": None}]},
      {"choices": [{"text": 1}]},
      {"choices": [{"message": {"content": ["1"]}}]},
      {"error": {"message": "1"}},
    ):  # fmt: skip
      with self.assertRaises(ValueError, msg=value):
        questions.read_reply(value, WORDING)

  @parameterized.parameters(
    (USAGE, 9), (None, None), ({}, None), ({"total_tokens": "9"}, None),
    ({"total_tokens": -1}, None), ({"total_tokens": 10**30}, None), ([], None),
  )  # fmt: skip
  def test_the_tokens_are_those_that_the_server_counts(self, usage, expected):
    reply = questions.read_reply(chat("1") | {"usage": usage}, WORDING)
    self.assertEqual(reply.tokens, expected)

  def test_the_text_can_be_kept(self):
    reply = questions.read_reply(chat("1 \ud83d"), WORDING)
    self.assertEqual((reply.text, reply.win_prob), ("1 ?", 1.0))


class WinProbTest(parameterized.TestCase):
  def test_of_both_orders_and_of_one(self):
    asked = (questions.Question("", b""),) * 2
    for probs, expected in (
      # The first order says 0.9 of y; the other 0.4 of y′, so 0.6 of y.
      ((0.9, 0.4), 0.75), ((1.0, 1.0), 0.5), ((0.7,), 0.7),
      ((None, 0.4), math.nan), ((0.4, None), math.nan), ((None,), math.nan),
    ):  # fmt: skip
      for swapped in (False, True):
        pair = questions.Pair(swapped, asked[: len(probs)])
        got = questions.win_prob(pair, probs)
        if math.isnan(expected):
          self.assertTrue(math.isnan(got))
        else:
          wanted = 1 - expected if swapped else expected
          self.assertAlmostEqual(got, wanted, places=15)


if __name__ == "__main__":
  absltest.main()
