"""A served judge says what the served model itself thinks."""

import functools
import pathlib
import tempfile

from absl.testing import absltest, parameterized
import jax
import numpy as np

from nashmd_jax.data import tokenizer
from nashmd_jax.judges import questions, served_settings
from tests import decoder_test, judge_client, model_server

TEXTS = [f"answer {n} is 1 or 2: {n % 7} 1 2 1 2" for n in range(200)]
PROMPT = "{prompt}\n1) {first}\n2) {second}\nanswer:"
VOCAB = 320


@functools.cache
def speaker() -> model_server.Speaker:
  """A random decoder; wide weights, so that it has opinions."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "tokenizer.json"
    tokenizer.train_tokenizer(
      TEXTS, path, vocab_size=VOCAB, eos_token="</s>", special_tokens=()
    )
    loaded = tokenizer.load_tokenizer(path, eos_token="</s>", bos_token=None)
    model = decoder_test.tiny_model("llama", vocab_size=loaded.vocab_size)
    params = jax.tree.map(lambda x: 2.5 * x, model.init(jax.random.key(0)))
    return model_server.make_speaker(model, params, path)


def own_prob(asked: str) -> float:
  """p1 / (p1 + p2) over all tokens that spell an answer, of the model."""
  own = speaker()
  probs = np.exp(own.log_probs(own.encode(asked), []))
  spelt = [own.decode([i]).strip() for i in range(len(probs))]
  first, second = (
    sum(p for p, text in zip(probs, spelt, strict=True) if text == answer)
    for answer in ("1", "2")
  )
  return first / (first + second)


class ServedModelTest(parameterized.TestCase):
  @parameterized.product(form=("chat", "completion"), orders=("one", "both"))
  def test_the_probability_is_the_models_own(self, form, orders):
    changes = dict(
      form=form, orders=orders, prompt=PROMPT, max_tokens=1, top_logprobs=VOCAB
    )
    rows, ys, others = judge_client.pairs(12)
    cache = pathlib.Path(self.create_tempdir().full_path) / "answers.sqlite"
    with model_server.serve(speaker()) as url:
      judge = judge_client.make(url, cache, connections=2, **changes)
      said = judge(rows, ys, others)
    settings = served_settings.Settings(
      **judge_client.SETTINGS | changes | {"url": url}
    )
    wording, expected = served_settings.wording(settings), []
    for row, y, other in zip(rows, ys, others, strict=True):
      pair = questions.ask(wording, row["prompt"], y, other)
      first, second = (other, y) if pair.swapped else (y, other)
      probs = []
      for a, b in ((first, second), (second, first))[: len(pair.questions)]:
        asked = f"{row['prompt']}\n1) {a}\n2) {b}\nanswer:"
        if form == "chat":
          asked = f"user: {asked}"
        probs.append(own_prob(asked))
      p = probs[0] if orders == "one" else (probs[0] + 1 - probs[1]) / 2
      expected.append(1 - p if pair.swapped else p)
    np.testing.assert_allclose(said, expected, atol=1e-5)
    self.assertGreater(np.ptp(said), 0.05)

  def test_several_tokens_spell_an_answer(self):
    own = speaker()
    spelt = [own.decode([i]).strip() for i in range(VOCAB)]
    self.assertGreater(spelt.count("1"), 1)
    self.assertGreater(spelt.count("2"), 1)

  def test_what_it_writes_is_read_without_probabilities(self):
    changes = dict(prompt=PROMPT, max_tokens=8, top_logprobs=0, most_failed=1.0)
    cache = pathlib.Path(self.create_tempdir().full_path) / "answers.sqlite"
    asked = judge_client.pairs(8)
    with model_server.serve(speaker()) as url:
      judge = judge_client.make(url, cache, form="completion", **changes)
      said, costs = judge(*asked), judge.costs(*asked)
    self.assertLessEqual({*said[~np.isnan(said)]}, {0.0, 1.0})
    self.assertGreater(costs["judge_tokens"].min(), 20)
    np.testing.assert_array_equal(costs["judge_calls"], 1.0)


if __name__ == "__main__":
  absltest.main()
