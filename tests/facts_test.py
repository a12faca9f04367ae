"""Every row of docs/facts.md: a planted contradiction ends as the row says."""

import contextlib
import functools
import io
import json
import pathlib
import shutil
import sys

from absl.testing import absltest, parameterized
from etils import epath
import tokenizers

from nashmd_jax import files, jobs, mistakes, tokenization
from nashmd_jax import task as task_lib
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.hub import folders, pretrained, safetensors, token_files
from nashmd_jax.nash import settings
from nashmd_jax.stages import beside_weights, export, text
from tests import extending_page as page
from tests import fact_folders, hub_test, lora_runs, small_records

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "facts.md"


def rows_of_page() -> dict[str, str]:
  """How each fact of the page ends."""
  lines = PAGE.read_text(encoding="utf-8").splitlines()
  table = [line.strip("| ").split(" | ") for line in lines if "| " in line]
  return {cells[0]: cells[-1] for cells in table[1:]}


class FactsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.workdir = self.folder / "run"
    self.records = small_records.write(self.folder / "records")
    self.config = page.tiny_config(self.records, {})
    self.config.unlock()
    self.config.data.comparisons = None
    self.config.tokenizer.eos_token = "</s>"

  def model(self, family="llama") -> pathlib.Path:
    """A folder with a tokenizer, in which both models start."""
    place = self.folder / "model"
    shutil.copytree(hub_test.GOLDEN / family, place)
    fact_folders.write_tokenizer(place / "tokenizer.json")
    fact_folders.write_names(place, "</s>")
    self.config.model = {"pretrained": str(place)}
    self.config.judge_model = {}
    for name in ("preference", "reward"):
      self.config[name].start_from_sft = False
      self.config[name].template.answers = ("w1", "w2")
    return place

  def prepare(self):
    with lora_runs.on_one_device():
      return text.PIPELINE.prepare(self.config, self.workdir)

  def start(self):
    """The config is checked and its start loaded, as a run does."""
    text.PIPELINE.check(self.config, findings := mistakes.Findings())
    findings.tell()
    self.prepare()
    pretrained.load_start(self.config, self.workdir, "model", vocab_size=5)

  def keys(self):
    return jobs.make_keys(text.PIPELINE, self.config, self.prepare())

  def restart(self, edit):
    """A job is done; what it was made of is edited; the command is repeated."""
    for job, key in self.keys().items():
      workdir_lib.begin(self.workdir, job, key)
    workdir_lib.check_keys(self.workdir, self.keys())  # alike: silence
    edit()
    workdir_lib.check_keys(self.workdir, self.keys())

  def sizes_of_a_model(self):
    fact_folders.edit_json(self.model() / "config.json", intermediate_size=45)
    place = self.folder / "model"
    folders.load_pretrained(place, hub_test.one_device)

  def where_a_tensor_is(self):
    place = self.model()
    shutil.copy(place / "model.safetensors", place / "other.safetensors")
    names = safetensors.load_header(epath.Path(place / "other.safetensors"))
    fact_folders.rewrite(
      place / "model.safetensors",
      lambda all: {name: all[name] for name in list(all)[1:]},
    )
    index = {"weight_map": dict.fromkeys(names, "model.safetensors")}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    folders.load_pretrained(place, hub_test.one_device)

  def output_head(self):
    fact_folders.edit_json(
      self.model() / "config.json", tie_word_embeddings=True
    )
    folders.load_pretrained(self.folder / "model", hub_test.one_device)

  def embedding_of_t5(self):
    place = self.model("t5")
    fact_folders.rewrite(
      place / "model.safetensors",
      lambda all: (
        all | {"encoder.embed_tokens.weight": all["shared.weight"] + 1}
      ),
    )
    folders.load_pretrained(place, hub_test.one_device)

  def architecture(self):
    self.model()
    self.config.model.width = 37
    self.start()

  def positions(self):
    self.model()
    self.config.layout.prompt_buckets = (256,)
    self.start()

  def ids_of_tokens(self):
    self.model()
    self.config.tokenizer.file = str(
      fact_folders.write_tokenizer(self.folder / "mine.json", turn=1)
    )
    self.start()

  def ids_of_a_judge(self):
    self.model()
    judge = self.folder / "judge"
    shutil.copytree(self.folder / "model", judge)
    fact_folders.write_tokenizer(judge / "tokenizer.json", turn=1)
    self.config.judge_model.pretrained = str(judge)
    self.start()

  def lowercase(self, place):
    """The same ids; text is parted otherwise."""
    made = tokenizers.Tokenizer.from_file(str(place / "tokenizer.json"))
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.save(str(self.folder / "mine.json"))
    self.config.tokenizer.file = str(self.folder / "mine.json")

  def how_text_is_parted(self):
    self.lowercase(self.model())
    self.start()

  def end_of_a_response(self):
    self.model()
    self.config.tokenizer.eos_token = "<s>"
    self.start()

  def number_of_tokens(self):
    fact_folders.write_tokenizer(self.model() / "tokenizer.json", words=200)
    self.prepare()
    task_lib.load_task(self.config, self.workdir)

  def change_records(self, name="records", split="train"):
    path = self.folder / name / f"{split}.jsonl"
    path.write_text(path.read_text().replace("river", "RIVER"))

  def records_before_a_job(self):
    before = self.prepare()
    self.change_records()
    after = self.prepare()
    self.assertNotEqual(before["records"], after["records"])
    with lora_runs.on_one_device():
      rows = task_lib.load_task(self.config, self.workdir).splits["train"]
    self.assertTrue(any("RIVER" in row["prompt"] for row in rows))
    return "made anew"

  def records_of_jobs(self):
    self.restart(self.change_records)

  def comparisons_of_jobs(self):
    place = self.folder / "comparisons"
    page.write_comparisons(place)
    self.config.data.comparisons = str(place)

    def edit():
      path = place / "train.jsonl"
      first, *rest = path.read_text().splitlines()
      first = json.dumps(json.loads(first) | {"response_a": "another"})
      path.write_text("\n".join([first, *rest]) + "\n")

    self.restart(edit)

  def recorded_choices(self):
    path = self.folder / "choices.jsonl"
    row = {
      "id": "1", "prompt": "p", "response_a": "a", "response_b": "b",
      "prob_a": 1.0,
    }  # fmt: skip
    path.write_text(json.dumps(row) + "\n")
    self.config.judges.recorded.update(
      {"file": str(path), "schema": "comparison"}
    )
    self.config.tournament.judges = ("recorded",)
    self.restart(
      lambda: path.write_text(json.dumps(row | {"prob_a": 0.0}) + "\n")
    )

  def tokenizer_of_jobs(self):
    path = self.model() / "tokenizer.json"
    self.restart(lambda: fact_folders.write_tokenizer(path, turn=1))

  def chat_template(self):
    path = self.folder / "chat.jinja"
    told = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    path.write_text(told)
    self.config.chat.template = str(path)
    self.restart(lambda: path.write_text(told.replace("{{", "so: {{")))

  def weights_of_jobs(self):
    path = self.model() / "model.safetensors"

    def further():
      data = bytearray(path.read_bytes())
      data[-2] ^= 1
      path.write_bytes(data)

    self.restart(further)

  def source_of_a_function(self):
    path = self.folder / "my_facts_opponent.py"
    path.write_text(fact_folders.OWN)
    sys.path.insert(0, str(self.folder))
    self.addCleanup(sys.path.remove, str(self.folder))
    self.addCleanup(sys.modules.pop, path.stem, None)
    self.config.nash.opponent = "my_facts_opponent:opponent"
    self.restart(lambda: path.write_text(path.read_text() + "\n# 0.5\n"))

  def settings_of_jobs(self):
    def edit():
      self.config.sft.optimizer.learning_rate = 0.5

    self.restart(edit)

  def records_of_this_run(self):
    def run(config, workdir, job):
      del config, workdir
      if job == "sft":
        self.change_records()
      return {}

    quick = text.PIPELINE._replace(
      stages=[one._replace(run=run) for one in text.PIPELINE.stages]
    )
    with lora_runs.on_one_device():
      jobs.run(quick, self.config, jobs.Place(self.workdir), None)

  def exported(self, name="sft"):
    """The files beside the weights of a policy, read back from a folder."""
    self.prepare()
    with lora_runs.on_one_device():
      task = task_lib.load_task(self.config, self.workdir)
    path, _ = tokenization.load_tokenizer(
      self.config, self.workdir, task.splits
    )
    lane = settings.policy_lane(self.config, name)
    others, said = beside_weights.make_files(
      self.config, task, path, name, lane=lane, origin={}
    )
    place, start = self.folder / "out", task.starts["model"]
    loaded = folders.load_pretrained(start.folder, hub_test.one_device)
    export.save_deployed(
      place,
      lane,
      dict.fromkeys(lane, loaded.params),
      functools.partial(fact_folders.save_whole, start=start),
      others,
    )
    for phrase in said:
      print(phrase)
    return place

  def exported_tokenizer(self):
    self.lowercase(self.model())
    (self.folder / "model" / "vocab.json").write_text("{}")
    place = self.exported()
    mine = pathlib.Path(self.config.tokenizer.file).read_bytes()
    self.assertEqual((place / "tokenizer.json").read_bytes(), mine)
    self.assertFalse((place / "vocab.json").exists())

  def exported_end(self):
    self.model()
    self.config.tokenizer.eos_token = "<s>"
    place = self.exported()
    for file in (token_files.SETTINGS, token_files.NAMES):
      self.assertEqual(files.load_json(place / file)["eos_token"], "<s>")
    for file in (folders.CONFIG, folders.GENERATION):
      self.assertEqual(files.load_json(place / file)["eos_token_id"], [2, 1])
    self.assertIn("| '<s>' '</s>' (ids 2, 1) |", fact_folders.card(place))

  def exported_temperature(self):
    fact_folders.edit_json(
      self.model() / folders.GENERATION, temperature=0.2, top_k=5, num_beams=4
    )
    self.config.nash.temperature = 0.7
    place = self.exported(next(iter(self.config.nash.runs)))
    told = files.load_json(place / folders.GENERATION)
    self.assertEqual((told["temperature"], told["top_k"]), (0.7, 0))
    self.assertEqual((told["do_sample"], told["top_p"]), (True, 1.0))
    self.assertNotIn("num_beams", told)
    self.assertIn("| Temperature | 0.7 |", fact_folders.card(place))

  def exported_beta(self):
    self.model()
    self.config.nash.runs = {
      "mixed": {
        "opponent": "mixture", "mixture": 0.5, "mixture_end": 0.0,
        "mixture_steps": 2 * self.config.nash.train.steps,
        "deploy": "mixture",
      }
    }  # fmt: skip
    self.config.tournament.policies = ("sft", "mixed")
    place = self.exported("mixed")
    self.assertEqual(
      files.load_json(place / export.MIXTURE),
      {"policy": 0.75, "reference": 0.25},
    )
    self.assertIn("0.75 policy, 0.25 reference", fact_folders.card(place))
    self.assertIn("| 0.5 to 0.25 in", fact_folders.card(place))
    print(settings.cut_off(settings.run_section(self.config, "mixed")))

  PLANTED = {
    "sizes of a model": (sizes_of_a_model, "mlp.*shape|shape"),
    "where a tensor is": (where_a_tensor_is, "not in the file that"),
    "output head": (output_head, "set tie_word_embeddings to false"),
    "T5's embedding": (embedding_of_t5, "encoder.embed_tokens.weight"),
    "architecture": (architecture, "has width 36, not 37"),
    "positions": (positions, "knows 256 positions"),
    "ids of tokens": (ids_of_tokens, "config.model.pretrained: .*another voc"),
    "ids a judge reads": (ids_of_a_judge, "config.judge_model.pretrained: "),
    "how text is parted": (how_text_is_parted, "mine.json .*parts it otherw"),
    "end of a response": (end_of_a_response, "eos_token is '<s>', and .*'</s>"),
    "number of tokens": (number_of_tokens, "knows the tokens of ids below 101"),
    "records before a job has begun": (records_before_a_job, ""),
    "records of jobs that are done": (records_of_jobs, "records was "),
    "comparisons of jobs that are done": (
      comparisons_of_jobs,
      "comparisons was ",
    ),
    "recorded choices of a judge": (recorded_choices, "judges.recorded was "),
    "tokenizer of jobs that are done": (tokenizer_of_jobs, "tokenizer was "),
    "chat template of jobs that are done": (chat_template, "tokenizer was "),
    "weights that jobs started from": (weights_of_jobs, "model was "),
    "your function's source": (source_of_a_function, "source was "),
    "settings of jobs that are done": (
      settings_of_jobs,
      "learning_rate was .* is now 0.5",
    ),
    "records of the jobs before": (
      records_of_this_run,
      ": records.* changed while the jobs before it ran",
    ),
    "exported tokenizer": (exported_tokenizer, "tokenizer.json is .*mine.json"),
    "exported end of a response": (exported_end, "end in '<s>', not '</s>'"),
    "exported temperature": (exported_temperature, "temperature is 0.7, not 0"),
    "exported β": (exported_beta, "β goes from 0.5 to 0.25, not to 0"),
  }

  def test_every_row_is_planted(self):
    self.assertEqual(list(rows_of_page()), list(self.PLANTED))

  @parameterized.named_parameters(
    (f"_{fact.replace(' ', '_')}", fact) for fact in PLANTED
  )
  def test_row(self, fact):
    plant, told = self.PLANTED[fact]
    ends, out = rows_of_page()[fact], io.StringIO()
    with contextlib.redirect_stdout(out):
      if ends == "refused":
        with self.assertRaisesRegex(mistakes.Mistake, told):
          plant(self)
        return
      found = plant(self)
    if ends == "said":
      self.assertRegex(out.getvalue(), told)
    else:
      self.assertEqual(found, ends)

  def test_what_agrees_is_not_spoken_of(self):
    self.model()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
      self.start()
      place = self.exported()
    self.assertNotRegex(out.getvalue(), "otherwise|, not |and .* says")
    self.assertIn("| Temperature | 1 |", fact_folders.card(place))


if __name__ == "__main__":
  absltest.main()
