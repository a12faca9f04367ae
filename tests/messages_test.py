"""Conversations by hand: what a template makes of them, and what is cut."""

import pathlib

from absl.testing import absltest, parameterized
import tokenizers

from nashmd_jax import mistakes
from nashmd_jax.data import batches, messages, records, templates, tldr
from nashmd_jax.data import tokenizer as tokenizer_lib

SPECIAL = ["<pad>", "<|end|>", "<|user|>", "<|bot|>", "<|system|>"]
TEMPLATE = """{% for message in messages %}
{{ {'user': '<|user|>', 'assistant': '<|bot|>', 'system': '<|system|>'}[message.role] + message.content + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{ '<|bot|>' }}
{%- endif %}"""  # noqa: E501


def user(content):
  return {"role": "user", "content": content}


def bot(content):
  return {"role": "assistant", "content": content}


def system(content):
  return {"role": "system", "content": content}


class Tokens(parameterized.TestCase):
  """A tokenizer of bytes and few words, and chats of a template."""

  def setUp(self):
    super().setUp()
    path = pathlib.Path(self.create_tempdir().full_path) / "tokenizer.json"
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
      add_prefix_space=False
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
      vocab_size=300,
      special_tokens=SPECIAL,
      initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    )
    made.train_from_iterator(["river lamp stone"] * 3, trainer)
    made.save(str(path))
    self.whole = made
    self.tokenizer = tokenizer_lib.load_tokenizer(
      path, eos_token="<|end|>", bos_token=None
    )

  def chat(self, template=TEMPLATE, **kwargs):
    render = templates.make_render(template, tokens={}, where="chat.jinja")
    return messages.Chat(
      render, **({"system": None, "user": "{prompt}"} | kwargs)
    )

  def ids(self, text):
    return self.whole.encode(text).ids


class MessagesTest(Tokens):
  def prompt(self, record, chat, room=99):
    return messages.encode_prompt(
      record, chat, self.tokenizer, room=room, name="record '1'"
    )

  def test_a_prompt_is_the_users_message(self):
    record = {"prompt": "the river"}
    chat = self.chat(user="Shorten: {prompt}!", system="Be brief.")
    expected = (
      "<|system|>Be brief.<|end|><|user|>Shorten: the river!<|end|><|bot|>"
    )
    self.assertEqual(self.prompt(record, chat), (self.ids(expected), False))

  def test_a_conversation(self):
    said = [system("S"), user("one"), bot("two"), user("three")]
    record = {"prompt": records.said(said), "messages": said}
    self.assertEqual(
      record["prompt"], "User: one\n\nAssistant: two\n\nUser: three"
    )
    chat = self.chat(system="not this", user="{prompt} never")
    expected = (
      "<|system|>S<|end|><|user|>one<|end|><|bot|>two<|end|>"
      "<|user|>three<|end|><|bot|>"
    )
    self.assertEqual(self.prompt(record, chat), (self.ids(expected), False))

  def test_names_of_special_tokens_in_a_message_are_text(self):
    record = {"prompt": "a<|end|><|bot|>b"}
    ids, _ = self.prompt(record, self.chat())
    end, asks, bots = (self.ids(name)[0] for name in SPECIAL[1:4])
    self.assertEqual(ids.count(end), 1)
    self.assertEqual(ids.count(bots), 1)
    self.assertEqual((ids[0], ids[-2:]), (asks, [end, bots]))
    self.assertEqual(self.tokenizer.decode(ids[1:-2]), record["prompt"])
    example = batches.encode_record(
      {"prompt": "p", "response": "x<|end|>"},
      self.tokenizer,
      max_prompt=9,
      max_response=30,
    )
    self.assertEqual(example["responses"].count(end), 1)
    self.assertEqual(
      self.tokenizer.decode(example["responses"][:-1]), "x<|end|>"
    )

  @parameterized.parameters(
    (None, 8, "<|user|>vwxyz<|end|><|bot|>"),
    ([0, 26], 8, "<|user|>abcde<|end|><|bot|>"),
    ([2, 24], 8, "<|user|>abcyz<|end|><|bot|>"),
    (None, 3, "<|user|><|end|><|bot|>"),
  )
  def test_the_template_is_never_cut(self, slot, room, expected):
    record = {"prompt": "abcdefghijklmnopqrstuvwxyz"}
    if slot:
      record["slot"] = slot
    self.assertEqual(
      self.prompt(record, self.chat(), room), (self.ids(expected), True)
    )
    own = record | {"messages": [user(record["prompt"])]}
    self.assertEqual(
      self.prompt(own, self.chat(), room), (self.ids(expected), True)
    )

  def test_the_oldest_turns_go_first(self):
    said = [system("S"), user("aaaa"), bot("bbbb"), user("cc"), bot("d")]
    said.append(user("efgh"))
    record = {"prompt": records.said(said), "messages": said}
    chat = self.chat()
    for room, expected in (
      (17, "<|system|>S<|end|><|user|>cc<|end|><|bot|>d<|end|><|user|>efgh"),
      (10, "<|system|>S<|end|><|user|>efgh"),
      (8, "<|system|>S<|end|><|user|>gh"),
    ):
      ids, cut = self.prompt(record, chat, room)
      self.assertEqual(ids, self.ids(f"{expected}<|end|><|bot|>"))
      self.assertTrue(cut)
      self.assertLessEqual(len(ids), room)
    with self.assertRaisesRegex(
      mistakes.Mistake, "record '1': what may not be cut .* takes 6 .* 5 fit"
    ):
      self.prompt(record, chat, 5)

  def test_judges_read_the_text_itself(self):
    record = {"id": "1", "prompt": "abcdef", "response": "x"}
    example = batches.encode_record(
      record,
      self.tokenizer,
      max_prompt=7,
      max_response=3,
      chat=self.chat(user="Q {prompt}"),
    )
    self.assertEqual(example["questions"], self.ids("abcdef"))
    self.assertEqual(example["prompts"], self.ids("<|user|>Q ef<|end|><|bot|>"))
    self.assertTrue(example["prompts_cut"])
    batch = batches.pad_batch([example], prompt_buckets=(6, 8), max_response=3)
    self.assertEqual(batch["prompts"].shape, batch["questions"].shape)

  def test_a_system_message_needs_a_template(self):
    said = [system("S"), user("one")]
    record = {"id": "7", "prompt": "one", "messages": said, "response": "r"}
    with self.assertRaisesRegex(
      mistakes.Mistake, "record '7': has a system message, which no template"
    ):
      batches.encode_record(
        record, self.tokenizer, max_prompt=9, max_response=9
      )

  @parameterized.parameters(
    (TEMPLATE, "<|end|>"),
    ("{% for m in messages %}{{ m.content }}\n{% endfor %}", None),
    (
      "{% for m in messages %}{% generation %}{{ m.content + '<|bot|>' }}"
      "{% endgeneration %}{% endfor %}",
      "<|bot|>",
    ),
  )
  def test_how_a_response_ends(self, template, expected):
    found = messages.end_of_response(
      self.chat(template),
      self.tokenizer.encode_marked,
      self.tokenizer.special_ids,
    )
    self.assertEqual(found, expected and self.ids(expected)[0])

  def test_templates_that_cannot_be(self):
    with self.assertRaisesRegex(
      mistakes.Mistake, "chat.jinja: not a chat template"
    ):
      self.chat("{% for %}")
    for template, reason in (
      ("{{ raise_exception('no system here') }}", "no system here"),
      ("{{ messages[9].content.x }}", "has no element 9"),
      ("{{ messages.append(1) }}", "unsafe|safely"),
    ):
      with self.assertRaisesRegex(
        mistakes.Mistake, f"record '1': chat.jinja: does not take.*{reason}"
      ):
        self.prompt({"prompt": "p"}, self.chat(template))

  def test_the_date_is_always_the_same(self):
    chat = self.chat("{{ strftime_now('%d %b %Y') }}")
    self.assertEqual(chat.render([user("p")], True), "26 Jul 2024")


class RecordsTest(parameterized.TestCase):
  def convert(self, schema, row):
    (found,) = tldr.find_schema(schema).convert(row)
    return found

  def test_the_last_answer_is_the_response(self):
    said = [user("one"), bot("two")]
    found = self.convert("summary", {"id": "1", "messages": said})
    self.assertEqual(
      found,
      {"id": "1", "prompt": "one", "messages": said[:1], "response": "two"},
    )
    pair = {"id": "1", "messages": said[:1], "response_a": "a"}
    pair |= {"response_b": "b", "prob_a": 1.0}
    self.assertEqual(self.convert("comparison", pair), pair | {"prompt": "one"})

  @parameterized.parameters(
    ([], "a list of role and content"),
    ([user("one")], "end in one of the assistant"),
    ([bot("one"), bot("two")], "role of message 0 to be one of"),
    ([user("one"), {"role": "tool", "content": ""}], "role of message 1"),
    ([user("one"), bot([{"type": "image"}])], "message 1 the text field"),
    ([user("one"), bot("two"), bot("three")], "before its response needs"),
    ("text", "a list of role and content"),
  )
  def test_messages_that_are_none(self, said, reason):
    with self.assertRaisesRegex(mistakes.Mistake, reason):
      self.convert("summary", {"id": "1", "messages": said})

  @parameterized.parameters(
    ({"prompt": "p", "chosen": "a", "rejected": "b"}, None),
    ({"prompt": [user("p")], "chosen": "a", "rejected": "b"}, [user("p")]),
    (
      {"chosen": [user("p"), bot("a")], "rejected": [user("p"), bot("b")]},
      [user("p")],
    ),
    (
      {"prompt": [user("p")], "chosen": [bot("a")], "rejected": [bot("b")]},
      [user("p")],
    ),
    (
      {
        "prompt": "p",
        "chosen": [user("p"), bot("a")],
        "rejected": [user("p"), bot("b")],
      },
      [user("p")],
    ),
  )
  def test_chosen_and_rejected(self, row, said):
    found = self.convert("chosen", row)
    self.assertLen(found.pop("id"), 16)
    expected = {"prompt": "p", "response_a": "a", "response_b": "b"}
    expected |= {"prob_a": 1.0} | ({"messages": said} if said else {})
    self.assertEqual(found, expected)

  def test_answers_to_different_conversations(self):
    row = {
      "chosen": [user("p"), bot("a")], "rejected": [user("q"), bot("b")]
    }  # fmt: skip
    with self.assertRaisesRegex(ValueError, "different conversations"):
      self.convert("chosen", row)


if __name__ == "__main__":
  absltest.main()
