"""Conversations of several turns: records, token ids by hand, and a run."""

import contextlib
import io
import json
import pathlib
import sys
import types

from absl.testing import absltest, parameterized
import numpy as np

from nashmd_jax import mistakes, pipeline
from nashmd_jax.data import batches, conversations, records, tldr
from nashmd_jax.stages import nash, sft, text, writing
from nashmd_jax.training import metrics
from tests import (
  extending_page,
  lora_runs,
  main_test,
  messages_test,
  small_talks,
)

user, bot, system = (
  messages_test.user, messages_test.bot, messages_test.system
)  # fmt: skip
SAID = [user("one"), bot("two"), user("three"), bot("four")]
RECORD = {
  "id": "7", "prompt": "one", "messages": SAID[:1], "turns": SAID[1:],
  "response": "two\n\nUser: three\n\nAssistant: four",
}  # fmt: skip
TWO = conversations.Turns(2, 40)


class RecordsTest(parameterized.TestCase):
  def test_answers_of_the_assistant_are_turns(self):
    (schema,) = (tldr.find_schema("conversation"),)
    (found,) = schema.convert({"id": "7", "messages": SAID, "more": 1})
    self.assertEqual(found, RECORD)
    self.assertEqual(records.kind_of(found), "conversation")
    self.assertEqual(schema.convert(found), [found])
    whole = [system("S"), user("a"), bot("b")]
    (found,) = schema.convert({"id": "8", "messages": whole})
    self.assertEqual(found["messages"], whole[:2])
    self.assertEqual((found["turns"], found["response"]), (whole[2:], "b"))

  @parameterized.named_parameters(
    ("none", {}, "needs messages as a list of role and content, got None"),
    ("no_answer", {"messages": SAID[:3]}, "end in one of the assistant"),
    ("no_question", {"messages": SAID[1:]}, "role of message 0 to be one of"),
    (
      "two_answers",
      {"messages": [*SAID, bot("five")]},
      "got two messages of the assistant one after the other, at turn 4; join",
    ),
    (
      "two_questions",
      {"messages": [*SAID[:3], user("now"), SAID[3]]},
      "got two messages of the user one after the other, at turn 3; join",
    ),
    ("system", {"messages": [*SAID[:2], system("S"), SAID[3]]}, "message 2"),
    ("content", {"messages": [*SAID[:3], bot(None)]}, "text field 'content'"),
    (
      "response",
      RECORD | {"response": "four"},
      "a conversation needs the response that its turns say, .*, got 'four'",
    ),
    ("turns", RECORD | {"turns": 5}, "in its turns, needs messages as a list"),
  )
  def test_bad_row_is_named(self, row, message):
    path = pathlib.Path(self.create_tempdir().full_path) / "rows.jsonl"
    path.write_text(json.dumps({"id": "7"} | row) + "\n")
    with self.assertRaisesRegex(
      mistakes.Mistake, f"rows.jsonl, line 1.*{message}"
    ):
      list(tldr.read_records(path, "conversation"))


class EncodeTest(messages_test.Tokens):
  """Token ids of rows, with the tokenizer and template of messages_test."""

  def encode(self, record=RECORD, chat=None, turns=TWO, most=30):
    return batches.encode_record(
      record,
      self.tokenizer,
      max_prompt=99,
      max_response=most,
      chat=chat,
      turns=turns,
    )

  def row(self, example, *pieces):
    """Checks a row against texts of the assistant and of others in turn."""
    ids = [self.ids(piece) for piece in pieces]
    own = [n % 2 == 0 for n, piece in enumerate(ids) for _ in piece]
    whole = [one for piece in ids for one in piece]
    size = len(whole)
    np.testing.assert_array_equal(example["responses"][:size], whole)
    np.testing.assert_array_equal(example["responses"][size:], 0)
    np.testing.assert_array_equal(example["responses_mask"][:size], own)
    self.assertFalse(example["responses_mask"][size:].any())

  def test_as_text(self):
    example = self.encode()
    asks = "\n\nUser: three\n\nAssistant: "
    self.row(example, "two<|end|>", asks, "four<|end|>")
    self.assertLen(example["responses"], 2 * 30 + 40)
    kept = example["between"][example["between_mask"]]
    np.testing.assert_array_equal(kept, self.ids(asks))
    self.assertEqual((example["closing"].tolist(), example["turns"]), ([0], 2))
    self.assertNotIn("between_questions", example)
    self.assertFalse(example["responses_cut"])

  def test_in_a_template(self):
    """The template ends a turn that is cut, the assistant any other."""
    example = self.encode(chat=self.chat())
    asks = "<|user|>three<|end|><|bot|>"
    self.row(example, "two<|end|>", asks, "four<|end|>")
    kept = example["between"][example["between_mask"]]
    np.testing.assert_array_equal(kept, self.ids(f"<|end|>{asks}"))
    self.assertEqual(example["closing"].tolist(), [1])
    read = example["between_questions"][example["between_questions_mask"]]
    plain = "\n\nUser: three\n\nAssistant: "
    np.testing.assert_array_equal(read, self.ids(plain))
    cut = self.encode(chat=self.chat(), most=2)
    self.assertTrue(cut["responses_cut"])
    self.row(cut, "tw", f"<|end|>{asks}", "fo")

  def test_rows_are_read_as_the_text_of_their_record(self):
    task = types.SimpleNamespace(tokenizer=self.tokenizer)
    for chat, most in ((None, 30), (self.chat(), 30), (self.chat(), 2)):
      example = self.encode(chat=chat, most=most)
      row = [
        example[name][None, None] for name in ("responses", "responses_mask")
      ]
      said = RECORD["response"]
      if most == 2:
        said = said.replace("two", "tw").replace("four", "fo")
      self.assertEqual(writing.texts_of(task, [RECORD], *row), [[said]])

  def test_names_of_special_tokens_are_text(self):
    turns = [bot("two"), user("<|end|>"), bot("four")]
    record = RECORD | {"turns": turns, "response": records.answered(turns)}
    kept = self.encode(record, chat=self.chat())
    (end,) = self.ids("<|end|>")
    ids = kept["between"][kept["between_mask"]].tolist()
    self.assertEqual(ids.count(end), 2)  # those of the template

  def test_a_response_alone_is_one_turn(self):
    alone = {"id": "1", "prompt": "one", "response": "two"}
    example = self.encode(alone)
    self.row(example, "two<|end|>")
    self.assertEqual(example["turns"], 1)
    self.assertFalse(example["between_mask"].any())
    example = self.encode(alone, turns=conversations.ALONE)
    self.assertEqual(example["responses"], self.ids("two<|end|>"))
    pair = {"prompt": "one", "response_a": "a" * 200, "response_b": "b"}
    self.assertLen(self.encode(pair)["responses_a"], 2 * 30 + 40)

  @parameterized.parameters(
    (conversations.ALONE, None, "has 2 turns of the assistant, and turns.most"),
    (
      conversations.Turns(2, 5),
      None,
      r"before turn 2 of the assistant takes \d+ tokens, and turns.between",
    ),
    (TWO, "{{ messages[-1].content }}", "does not give each turn"),
    (
      TWO,
      "{% for m in messages %}{{ m.content if m.role == 'assistant' or "
      "loop.first else '' }}{% endfor %}",
      "does not give each turn",
    ),
  )
  def test_what_cannot_be(self, turns, template, message):
    chat = template and self.chat(template)
    with self.assertRaisesRegex(mistakes.Mistake, f"record '7'.* {message}"):
      self.encode(chat=chat, turns=turns)

  def test_there_is_room_between(self):
    with self.assertRaisesRegex(mistakes.Mistake, "turns.between: got 0"):
      conversations.check({"most": 2, "between": 0})
    conversations.check({"most": 1, "between": 0})


JUDGE = """
import jax
import jax.numpy as jnp


def longer(keys, prompts, responses, opponents):
  more = jnp.sum(responses[1], axis=1) - jnp.sum(opponents[1], axis=1)
  return jax.nn.sigmoid(0.1 * more)


READ = []


def reads(records, responses, opponents):
  READ.extend(zip(records, responses, opponents))
  return [0.5 for _ in records]
"""


class RunTest(absltest.TestCase):
  """The tiny run on conversations of one to three turns."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = main_test.made_folder(cls)
    extending_page.write_module(cls.folder, "talk_judges", JUDGE)
    sys.path.insert(0, str(cls.folder))
    cls.addClassCleanup(sys.path.remove, str(cls.folder))
    cls.enterClassContext(lora_runs.on_one_device())
    cls.config = extending_page.tiny_config(
      small_talks.write(cls.folder / "records"), {}
    )
    cls.config.data.update({"schema": "conversation", "comparisons": None})
    cls.config.turns.update({"most": 3, "between": 24})
    cls.config.sft.train.update(
      {"steps": 2, "eval_every": 2, "save_every": 2, "log_every": 1}
    )
    cls.config.nash.judge = "talk_judges:longer"
    cls.config.nash.watch = ("talk_judges:reads",)
    cls.config.tournament.judges = ("raters",)
    cls.config.log.samples = 0
    cls.workdir = cls.folder / "run"
    pipeline.check(text.PIPELINE, cls.config)
    with contextlib.redirect_stdout(io.StringIO()):
      text.prepare(cls.config, cls.workdir)
      sft.run(cls.config, cls.workdir, "sft")

  def test_the_policy_learns_from_whole_conversations(self):
    import talk_judges

    with contextlib.redirect_stdout(io.StringIO()):
      nash.run(self.config, self.workdir, "nash/nash_md")
    path = self.workdir / "nash" / "nash_md" / "metrics.jsonl"
    rows = metrics.load_metrics(path)
    self.assertEqual([row["step"] for row in rows], [1, 2])
    self.assertTrue(all(np.isfinite([*row.values()]).all() for row in rows))
    # Eight tokens a turn, one to three turns, none of the user's.
    self.assertBetween(rows[0]["response_tokens"], 8, 3 * 8)
    self.assertTrue(talk_judges.READ)
    for row, *said in talk_judges.READ:
      for one in said:
        parts = one.split("\n\nUser: ")
        self.assertLen(parts, (len(row["turns"]) + 1) // 2)
        asked = [turn["content"] for turn in row["turns"][1::2]]
        for part, question in zip(parts[1:], asked, strict=True):
          self.assertStartsWith(part, f"{question}\n\nAssistant: ")

  def test_what_cannot_be_is_told_before_anything_runs(self):
    config = self.config.copy_and_resolve_references()
    config.nash.update({"design": "records", "loss": "dpo"})
    config.turns.between = 0
    with self.assertRaises(mistakes.Mistake) as caught:
      pipeline.check(text.PIPELINE, config)
    told = "\n".join(caught.exception.sentences)
    self.assertIn("comparisons hold no turns", told)
    self.assertIn("turns.between: got 0 with turns.most 3", told)
    config = self.config.copy_and_resolve_references()
    config.nash.update({"loss": "stackelberg", "opponent": "self"})
    config.nash.ensembles.pepo.proposals = 8
    with self.assertRaises(mistakes.Mistake) as caught:
      pipeline.check(text.PIPELINE, config)
    told = "\n".join(caught.exception.sentences)
    self.assertIn("its own second turn is the last", told)
    self.assertIn("nash.ensembles.pepo.proposals: got 8 with turns.most", told)

  def test_too_many_turns_of_any_record_are_told(self):
    config = self.config.copy_and_resolve_references()
    config.turns.most = 2
    with self.assertRaises(mistakes.Mistake) as caught:
      text.prepare(config, self.workdir)
    self.assertLen(caught.exception.sentences, 3)  # one of each split
    for told in caught.exception.sentences:
      self.assertRegex(told, r"record '\d+': has 3 turns .* turns.most is 2; ")


if __name__ == "__main__":
  absltest.main()
