"""What folders say of tokens, in whichever file they say it."""

import json
import pathlib

from absl.testing import absltest, parameterized
import ml_collections
import tokenizers

from configs import docstrings
from nashmd_jax import mistakes, tokenization
from nashmd_jax.data import batches, messages
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import token_files

placeholder = ml_collections.config_dict.placeholder
SPECIAL = ["<pad>", "<s>", "</s>", "<turn>"]
TEMPLATE = (
  "{{ bos_token }}{% for m in messages %}{{ m.content }}<turn>{% endfor %}"
)


class FolderTest(parameterized.TestCase):
  def folder(self, **contents):
    """A folder of files by the stem of their names."""
    folder = pathlib.Path(self.create_tempdir().full_path)
    for name, content in contents.items():
      text = content if isinstance(content, str) else json.dumps(content)
      suffix = "jinja" if isinstance(content, str) else "json"
      (folder / f"{name}.{suffix}").write_text(text)
    return folder

  def tokenizer(self, around=None):
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
      add_prefix_space=False
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    made.train_from_iterator(
      ["river lamp"],
      tokenizers.trainers.BpeTrainer(
        vocab_size=280, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
      ),
    )  # fmt: skip
    if around:
      made.post_processor = tokenizers.processors.TemplateProcessing(
        single=around,
        special_tokens=[(name, i) for i, name in enumerate(SPECIAL)],
      )
    return json.loads(made.to_str())

  def load(self, folder, **settings):
    config = docstrings.get_config("tiny").unlock()
    config.model = {"pretrained": str(folder)}
    config.tokenizer.eos_token = placeholder(str)
    for name, value in settings.items():
      config.update_from_flattened_dict({name.replace("__", "."): value})
    return tokenization.load_tokenizer(config, pathlib.Path(), {})[1], config

  @parameterized.parameters(
    ({}, {}, []),
    ({"eos_token_id": 3}, {}, [3]),
    ({"eos_token_id": [3, 2]}, {"eos_token_id": 1}, [3, 2]),
    ({"eos_token_id": None}, {"eos_token_id": 1}, [1]),
    (
      {},
      {
        "model_type": "gemma3",
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": {"eos_token_id": [1, 3]},
      },
      [1, 3],
    ),
  )
  def test_ends(self, generation, config, expected):
    folder = self.folder(generation_config=generation, config=config)
    self.assertEqual(token_files.end_ids(folder), expected)

  def test_ends_that_are_none(self):
    for bad in ("2", [1, "2"], [-1], True):
      folder = self.folder(generation_config={"eos_token_id": bad})
      with self.assertRaisesRegex(
        mistakes.Mistake, "generation_config.json: eos_token_id is"
      ):
        token_files.end_ids(folder)

  @parameterized.parameters(
    ({"tokenizer_config": {"chat_template": "one"}}, "one"),
    (
      {
        "tokenizer_config": {
          "chat_template": [
            {"name": "tools", "template": "no"},
            {"name": "default", "template": "two"},
          ]
        }
      },
      "two",
    ),
    ({"chat_template": {"chat_template": "three"}}, "three"),
    ({"chat_template": "four", "tokenizer_config": {"chat_template": "x"}},
     "four"),
    ({"tokenizer_config": {}}, None),
    ({}, None),
  )  # fmt: skip
  def test_templates(self, contents, expected):
    found = token_files.chat_template(self.folder(**contents))
    self.assertEqual(found and found[0], expected)

  def test_names(self):
    folder = self.folder(
      tokenizer_config={"eos_token": {"content": "</s>"}, "pad_token": None},
      special_tokens_map={"eos_token": "old", "bos_token": "<s>"},
    )
    self.assertEqual(
      token_files.names(folder), {"eos_token": "</s>", "bos_token": "<s>"}
    )
    with self.assertRaisesRegex(mistakes.Mistake, "expected a JSON object"):
      token_files.names(self.folder(tokenizer_config=[]))

  def test_a_prompt_stands_where_the_post_processor_puts_it(self):
    for around, start, close in (
      (None, (), ()),
      ("<s> $A", (1,), ()),
      ("$A </s>", (), (2,)),
      ("<s> $A </s>", (1,), (2,)),
    ):
      folder = self.folder(
        tokenizer=self.tokenizer(around),
        tokenizer_config={"eos_token": "</s>"},
      )
      found, _ = self.load(folder)
      self.assertEqual((found.start_ids, found.close_ids), (start, close))
      example = batches.encode_record(
        {"prompt": "abcdef", "response": "lamp"},
        found,
        max_prompt=5,
        max_response=9,
      )
      self.assertLen(example["prompts"], 5)
      inner = [i for i in example["prompts"] if i > 3]
      self.assertEqual(example["prompts"], [*start, *inner, *close])
      self.assertEqual(found.decode(inner), "abcdef"[-len(inner) :])
      self.assertEqual(example["responses"][-1], 2)

  def test_bos_that_the_folder_asks_for(self):
    contents = {"tokenizer": self.tokenizer()}
    names = {"eos_token": "</s>", "bos_token": "<s>"}
    for asked, start in ((True, (1,)), (False, ()), (None, ())):
      told = names | ({} if asked is None else {"add_bos_token": asked})
      folder = self.folder(**contents, tokenizer_config=told)
      self.assertEqual(self.load(folder)[0].start_ids, start)

  def test_the_end_of_the_chat_comes_first(self):
    folder = self.folder(
      tokenizer=self.tokenizer(),
      tokenizer_config={"eos_token": "</s>", "bos_token": "<s>"},
      generation_config={"eos_token_id": [1, 2]},
      chat_template=TEMPLATE,
    )
    for settings, expected in (
      ({}, (2, 1)),
      ({"chat__template": "folder"}, (3, 2, 1)),
      ({"chat__template": "auto"}, (3, 2, 1)),
      ({"chat__template": "auto", "tokenizer__eos_token": "<s>"}, (1, 2)),
    ):
      found, config = self.load(folder, **settings)
      self.assertEqual(found.eos_ids, expected)
    chat = tokenization.load_chat(config, "model")
    ids = messages.encode_messages(
      [{"role": "user", "content": "lamp"}], chat, found
    )
    self.assertEqual((ids[0], ids[-1]), (1, 3))

  def test_a_template_that_is_not_there(self):
    folder = self.folder(
      tokenizer=self.tokenizer(), tokenizer_config={"eos_token": "</s>"}
    )
    _, config = self.load(folder, chat__template="auto")
    self.assertIsNone(tokenization.load_chat(config, "model"))
    with self.assertRaisesRegex(mistakes.Mistake, "chat.template: got 'folder"):
      self.load(folder, chat__template="folder")
    with self.assertRaisesRegex(mistakes.Mistake, "x.jinja: cannot be read"):
      self.load(folder, chat__template="x.jinja")
    config.chat.system = "S"
    with self.assertRaisesRegex(mistakes.Mistake, "chat.system: got 'S', whic"):
      tokenization.check_chat(config)
    for text in ("no place", "{prompt}{prompt}"):
      config.chat.user = text
      with self.assertRaisesRegex(mistakes.Mistake, "chat.user"):
        tokenization.check_chat(config)

  def test_no_end(self):
    folder = self.folder(tokenizer=self.tokenizer())
    with self.assertRaisesRegex(
      mistakes.Mistake, "tokenizer.eos_token: not given"
    ):
      self.load(folder)


class RoundTripTest(parameterized.TestCase):
  """Text and tokens are one round trip, whatever stands in the text."""

  def load(self, made, eos_token="</s>"):
    path = pathlib.Path(self.create_tempdir().full_path) / "tokenizer.json"
    made.save(str(path))
    return tokenizer_lib.load_tokenizer(
      path, eos_token=eos_token, bos_token=None
    )

  def byte_level(self, prefix):
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
      add_prefix_space=prefix
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    made.train_from_iterator(
      ["river lamp"] * 3,
      tokenizers.trainers.BpeTrainer(
        vocab_size=290, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
      ),
    )  # fmt: skip
    return made

  def unigram(self):
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    made.train_from_iterator(
      ["river lamp </s>"] * 9,
      tokenizers.trainers.UnigramTrainer(
        vocab_size=40, special_tokens=[*SPECIAL, "<unk>"],
        unk_token="<unk>", show_progress=False,
        initial_alphabet=list("river lamp</s>"),
      ),
    )  # fmt: skip
    return made

  @parameterized.parameters(
    "river", " river", "river ", "river\n", "  river", "a </s> b", "</s>",
    "<s>river<turn>", "\n\nriver",
  )  # fmt: skip
  def test_tokens_come_back(self, text):
    for prefix in (True, False):
      loaded = self.load(self.byte_level(prefix))
      ids = loaded.encode(text)
      self.assertNoCommonElements(ids, loaded.special_ids)
      self.assertEqual(loaded.encode(loaded.decode(ids)), ids)
      if not prefix:
        self.assertEqual(loaded.decode(ids), text)

  def test_pieces_of_a_unigram_model_are_no_marks(self):
    loaded = self.load(self.unigram())
    end = loaded.eos_id
    self.assertEqual(loaded.encode_marked("lamp</s>")[-1], end)
    ids = loaded.encode("lamp</s> river")
    self.assertNotIn(end, ids)
    self.assertEqual(loaded.decode(ids), "lamp</s> river")
    self.assertEqual(
      loaded.encode("river lamp"), loaded.encode_marked("river lamp")
    )


if __name__ == "__main__":
  absltest.main()
