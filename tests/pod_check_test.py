"""The programs of a run from its shapes alone, and the check of a slice."""

import importlib.util
import pathlib
import re
import types
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from configs import tldr_decoder, tldr_t5
from nashmd_jax import mistakes, models
from nashmd_jax import task as task_lib
from nashmd_jax.capacity import compiled, parts, pod_check, programs
from nashmd_jax.stages import comparisons, text
from nashmd_jax.training import sharding
from tests import tiny_runs

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None


def cost(**changes) -> compiled.Cost:
  """A second of work, and nothing else."""
  nothing = dict(
    hbm=0, flops=0, bytes_accessed=0, compute_seconds=0.25,
    transfer_seconds=0.75, collectives=(), kernels=(),
  )  # fmt: skip
  return compiled.Cost(**(nothing | changes))


def made(
  changes: dict | None = None, runs: dict | None = None, policies=("nash_md",)
) -> tuple[ml_collections.ConfigDict, task_lib.Task]:
  """A tiny config, and its task on eight devices."""
  config = tiny_runs.config("t5")
  with config.unlocked():
    config.tokenizer.vocab_size = 264  # bytes and special tokens
  with config.unlocked():
    config.nash.runs.update(runs or {})
    config.tournament.policies = ("sft", *policies)
    config.tournament.judges = ("raters",)
    config.update_from_flattened_dict(changes or {})
  config = pod_check.checked(text.PIPELINE, config)
  devices = tiny_runs.devices(8, model=2, fsdp=True)
  return config, programs.stand_in_task(config, devices)


def traced(program) -> jax.stages.Traced:
  function, *args = program
  return function.trace(*args)


LORA = {"lora.rank": 4}
ON_HOST = {"nash.judge": "raters", "nash.watch": ()}
STEP = ("nash/nash_md", "decode", *parts.ONCE)
TWO = ("nash/nash_md rollout", "nash/nash_md update")


class ProgramsTest(parameterized.TestCase):
  @parameterized.parameters(
    ({}, (*STEP, "preference")),
    (LORA, (*STEP, "preference")),
    ({"nash.train.micro_batches": 2}, (*STEP, "preference")),
    ({"nash.watch": ("reward",)}, (*STEP, "preference", "reward")),
    ({"nash.judge": "reward"}, (*STEP, "reward")),
    (ON_HOST, (*TWO, "prefill", "decode", "reference")),
  )
  def test_every_program_of_a_run_is_there_and_traces(self, changes, names):
    config, task = made(changes)
    runs = programs.distinct_runs(config, task)
    found = programs.all_programs(config, task, runs)
    found |= parts.of_step(config, task, runs[0])
    self.assertEqual(set(found), {"sft", *names})
    for program in found.values():
      flops = compiled.product_flops(traced(program).jaxpr.jaxpr)
      self.assertGreater(flops, 0)

  def test_without_a_run_there_are_sft_and_the_judges_that_are_asked(self):
    config, task = made(policies=())
    with config.unlocked():
      config.tournament.judges = ("raters", "reward")
    self.assertEmpty(programs.distinct_runs(config, task))
    found = programs.all_programs(config, task, [])
    self.assertEqual(list(found), ["reward", "sft"])

  def test_runs_that_differ_in_numbers_alone_are_one_program(self):
    runs = {
      "softer": {
        "kl_coef": 0.3, "mixture": 0.5, "optimizer": {"learning_rate": 1e-3}
      },
      "pure": {"mixture": 0.0},
      "voted": {"judge": "votes"},
      "averaged": {"opponent": "moving_average"},
      "more": {"samples": 2},
    }  # fmt: skip
    config, task = made(runs=runs, policies=("nash_md", *runs))
    found = programs.distinct_runs(config, task)
    self.assertEqual(
      {run.name: run.also for run in found},
      {"nash_md": ["softer"]}
      | {name: [] for name in ("pure", "voted", "averaged", "more")},
    )
    told = {}
    for name in ("nash_md", *runs):
      training = programs.nash_training(config, task, name)
      step = training.compiled.step.trace(training.state, training.batch)
      told[name] = re.sub(r"[\d.e+-]+|0x\w+", "", str(step.jaxpr))
    self.assertEqual(told["nash_md"], told["softer"])
    self.assertLen(set(told.values()), len(found))

  @parameterized.parameters({}, {"lora.rank": 4})
  def test_the_shapes_are_those_that_the_stages_start_with(self, **changes):
    changes |= {"nash.watch": ("reward",), "reward.start_from_sft": False}
    config, task = made(changes)
    trainings = (
      programs.sft_training(config, task),
      programs.judge_training(config, task, "preference"),
      programs.judge_training(config, task, "reward"),
      programs.nash_training(config, task, "nash_md"),
    )

    def whole(task, section):
      return jax.eval_shape(getattr(task, section).init, jax.random.key(0))

    def load(task, section, folder):
      self.assertIsInstance(folder, pathlib.Path)
      return task_lib.trained_shapes(task, section)

    with (
      mock.patch.object(task_lib, "base_params", whole),
      mock.patch.object(task_lib, "load_trained", load),
    ):
      starts = [one.experiment.init(jax.random.key(0)) for one in trainings]
    for start, training in zip(starts, trainings, strict=True):
      state = training.state
      shapes = [
        jax.tree.map(lambda x: (x.shape, x.dtype), tree)
        for tree in (start, (state.params, state.frozen))
      ]
      self.assertEqual(*shapes)

  def test_the_host_gives_the_rows_that_its_update_reads(self):
    config, task = made(ON_HOST)
    (run,) = programs.distinct_runs(config, task)
    rows = programs.rows(run, task.devices)
    zeros = {
      name: np.zeros(rows[name].shape, rows[name].dtype)
      for name in run.training.experiment.host.reads
    }
    host = run.training.experiment.host
    given = host.rows(host.ask(zeros))
    self.assertLen(given, 3)
    for name, array in given.items():
      self.assertEqual(array.shape, rows[name].shape)
      self.assertEqual(array.dtype, rows[name].dtype)

  def test_a_base_that_adapters_share_is_passed_once(self):
    config, task = made(LORA)
    (run,) = programs.distinct_runs(config, task)
    _, arrays, _, _ = parts.of_step(config, task, run)["decode"]
    whole = task_lib.trained_shapes(
      task._replace(lora=task.lora._replace(rank=0)), "model"
    )
    adapters = task_lib.trained_shapes(task, "model")
    count = len(jax.tree.leaves(whole)) + 2 * len(jax.tree.leaves(adapters))
    self.assertLen(arrays, count)

  def test_pmap_is_a_mistake(self):
    config, task = made()
    task = task._replace(devices=tiny_runs.devices(8, mode="pmap"))
    with self.assertRaisesRegex(mistakes.Mistake, "devices.mode: got 'pmap'"):
      programs.all_programs(config, task, [])


class KernelTest(parameterized.TestCase):
  @parameterized.parameters(
    ("tpu", 1, "jit", True),
    ("tpu", 4, "jit", True),
    ("tpu", 4, "pmap", True),
    ("cpu", 1, "jit", False),
  )
  def test_a_model_asks_for_the_kernel_of_its_devices(
    self, platform, count, mode, splash
  ):
    places = np.array([types.SimpleNamespace(platform=platform)])
    abstract = tiny_runs.devices(count).mesh.abstract_mesh
    mesh = types.SimpleNamespace(
      devices=places, size=count, abstract_mesh=abstract, shape=abstract.shape
    )
    devices = types.SimpleNamespace(mesh=mesh, mode=mode)
    config = models.make_config(
      family="llama", vocab_size=64, width=16, num_layers=1, num_heads=1,
      num_kv_heads=1, head_dim=128, mlp_dim=16, rope_base=1e4,
    )  # fmt: skip
    model = task_lib.make_models({"model": config}, devices)["model"]
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jnp.zeros((1, 64), jnp.int32)
    program = jax.make_jaxpr(model.response_logits)(
      params, tokens, tokens == 0, tokens
    )
    self.assertEqual("pallas_call" in str(program), splash)
    split = splash and mode == "jit" and count > 1
    self.assertEqual("shard_map" in str(program), split)


class CheckTest(parameterized.TestCase):
  def check(self, topology, *, fits=lambda chips: True, **changes):
    """The check with eight devices of this machine for every slice."""
    lines = []

    def measure(name, function, chip, *args):
      del name, function, args
      if not fits(chip):
        raise compiled.DoesNotFit("too large")
      return cost()

    config, _ = made(**changes)
    with (
      mock.patch.object(compiled, "topology_devices", lambda _: jax.devices()),
      mock.patch.object(compiled, "measure", measure),
    ):
      found = pod_check.check_config(
        text.PIPELINE, config, topology, lines.append
      )
    return found, "\n".join(lines)

  def test_every_run_and_judge_is_named(self):
    runs = {"softer": {"kl_coef": 0.3}}
    found, told = self.check(
      "v5e:2x4",
      changes={"nash.watch": ("reward",)},
      runs=runs,
      policies=("nash_md", "self_play", "softer"),
    )
    self.assertIn("nash/nash_md: also the program of softer", told)
    self.assertIn(
      "fits: nash/nash_md, nash/self_play, preference, reward, sft", told
    )
    self.assertEqual(
      found.step_seconds, dict.fromkeys(("nash_md", "softer", "self_play"), 1)
    )
    # Prefill, judge, reference, update, and eight tokens.
    self.assertEqual(found.parts_seconds, 4 + 8)

  def test_a_step_around_the_host_is_two_programs(self):
    found, told = self.check("v5e:2x4", changes=ON_HOST)
    self.assertEqual(found.step_seconds, {"nash_md": 2})
    self.assertIsNone(found.parts_seconds)
    self.assertIn("fits: nash/nash_md rollout, nash/nash_md update, sft", told)

  def test_sft_alone(self):
    found, told = self.check("v5e:2x4", policies=())
    self.assertRegex(told, "every training program fits: sft$")
    self.assertIsNone(found.exchanged)

  def test_the_smallest_slice_that_fits(self):
    tried = []

    def fits(chip):
      del chip
      tried.append(1)
      return len(tried) > 2

    found, told = self.check("v5e", fits=fits, policies=())
    self.assertEqual(found.topology, "v5e:4x4")
    self.assertIn("v5e:2x4: too large", told)

  def test_no_slice_that_fits(self):
    with self.assertRaisesRegex(mistakes.Mistake, "too large"):
      self.check("v5e", fits=lambda chip: False, policies=())

  @parameterized.parameters(
    (tldr_t5.get_config(),), (tldr_decoder.get_config("9b"),)
  )
  def test_what_a_user_gives_may_be_absent(self, config):
    found = pod_check.checked(text.PIPELINE, config)
    # The comparisons would be the user's: none are drawn.
    self.assertEmpty(comparisons.STAGE.jobs(found))
    self.assertIsNone(config.data.records)

  def test_mistakes_in_the_config_are_told_first(self):
    config = tldr_t5.get_config().unlock()
    config.nash.kl_coef = -1.0
    config.sft.data.batch_size = 0
    with self.assertRaises(mistakes.Mistake) as raised:
      pod_check.check_config(text.PIPELINE, config.lock(), "v5e", print)
    self.assertRegex(
      str(raised.exception), "(?s)kl_coef: got -1.*batch_size: got 0"
    )

  def test_rows_that_a_slice_cannot_share(self):
    with self.assertRaisesRegex(compiled.DoesNotFit, "sft.data.batch_size"):
      self.check("v5e:2x4", changes={"sft.data.batch_size": 4})


class DecodeTest(parameterized.TestCase):
  @parameterized.parameters(
    # Two bytes an element: 128 bytes are as many as a split parameter has.
    (1, [("all-reduce", 4, 1)], "replicas: .* 0 all-to-all, 1 all-reduce"),
    (2, [("all-reduce", 4, 8)], "tensor-parallel: .* 8 all-reduce"),
    (1, [("all-gather", 127, 9)], "replicas: a token costs 0 all-gather"),
  )
  def test_what_a_token_may_cost(self, model, collectives, told):
    self.assertRegex(self.decode(model, collectives), told)

  @parameterized.parameters(
    (1, [("all-reduce", 4, 2)], "2 all-reduce"),
    (2, [("all-gather", 128, 3)], "3 all-gather of parameters"),
    (2, [("all-to-all", 4, 1)], "1 all-to-all"),
  )
  def test_what_it_must_not(self, model, collectives, told):
    with self.assertRaisesRegex(mistakes.Mistake, f"decode exchanges .*{told}"):
      self.decode(model, collectives)

  def decode(self, model, collectives):
    devices = tiny_runs.devices(
      8, model=model, fsdp=True, smallest=64, run_dtype="bfloat16"
    )
    found = [
      compiled.Collective(kind, size, count, False, "", ())
      for kind, size, count in collectives
    ]
    counts = pod_check.exchanged(cost(collectives=found), devices)
    return pod_check.check_decode(counts, devices)


@absltest.skipUnless(HAS_LIBTPU, "libtpu, the TPU compiler, is not installed")
class SliceTest(absltest.TestCase):
  def test_a_decode_step_fits_and_exchanges_nothing(self):
    devices = compiled.topology_devices("v5e:2x2")
    places = sharding.make_devices(
      devices, mode="jit", model=1, fsdp=True, smallest=64,
      run_dtype="float32", frozen_dtype="float32",
    )  # fmt: skip
    config, _ = made()
    task = programs.stand_in_task(config, places)
    (run,) = programs.distinct_runs(config, task)
    function, *args = parts.of_step(config, task, run)["decode"]
    chip = compiled.CHIPS["v5e"]
    found = compiled.measure("decode", function, chip, *args)
    self.assertEqual(found.collectives, [])
    self.assertGreater(found.compute_seconds, 0)
    self.assertLess(found.hbm, chip.hbm)

  def test_auto_compiles_on_one_chip_and_on_several(self):
    devices = compiled.topology_devices("v5e:2x2")
    kernels = []
    for count in (1, 4):
      places = sharding.make_devices(
        devices[:count], mode="jit", model=1, fsdp=False, smallest=64,
        run_dtype="float32", frozen_dtype="float32",
      )  # fmt: skip
      config = models.make_config(
        family="llama", vocab_size=64, width=16, num_layers=1, num_heads=1,
        num_kv_heads=1, head_dim=128, mlp_dim=16, rope_base=1e4,
      )  # fmt: skip
      model = task_lib.make_models({"model": config}, places)["model"]
      params = jax.eval_shape(model.init, jax.random.key(0))
      tokens = jax.ShapeDtypeStruct((4, 64), jnp.int32)
      mask = jax.ShapeDtypeStruct((4, 64), bool)
      found = compiled.measure(
        "logits", jax.jit(model.response_logits), compiled.CHIPS["v5e"],
        sharding.stored_shapes(params, places),
        *programs.by_rows((tokens, mask, tokens), places),
      )  # fmt: skip
      kernels += found.kernels
    self.assertEqual(kernels, ["splash", "xla"])


if __name__ == "__main__":
  absltest.main()
