"""What --stage=inspect shows of checkpoints and folders."""

import os
import pathlib
import shutil
import sys
from unittest import mock

from absl.testing import absltest, parameterized
from etils import epath
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
from orbax.checkpoint import v1 as ocp

from nashmd_jax import inspection, mistakes, workdir
from nashmd_jax.hub import safetensors
from nashmd_jax.training import checkpoints, stored
from tests import least_squares, processes


def shown(folder, what, jobs=("sft", "nash/a")) -> list[str]:
  return list(inspection.lines(pathlib.Path(folder), jobs, what))


def cells(lines: list[str]) -> dict[str, list[str]]:
  """Cells of the rows of a table by name, without its indentation."""
  return {line.split()[0]: line.split()[1:] for line in lines[2:]}


def write(folder: pathlib.Path, tensors, name="model.safetensors") -> str:
  folder.mkdir(parents=True, exist_ok=True)
  safetensors.save_file(
    epath.Path(folder) / name,
    {key: (x.shape, x.dtype) for key, x in tensors.items()},
    lambda key: tensors[key],
  )
  return str(folder)


class CheckpointTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(absltest.TEST_TMPDIR.value) / cls.__name__
    shutil.rmtree(cls.folder, ignore_errors=True)
    state, batches = least_squares.start(), least_squares.make_batches()
    with checkpoints.make_checkpointer(cls.folder / "sft") as checkpointer:
      for step in (4, 8):
        params = {"w": jnp.arange(8.0) - step}
        checkpoints.save(
          checkpointer, step, state._replace(params=params), batches
        )

  def test_the_newest_and_an_older_one(self):
    lines = shown(self.folder, "sft")
    self.assertEndsWith(lines[0], "sft/checkpoints/8:")
    found = cells(lines)
    self.assertEqual(found["params.w"][:2], ["f32[8]", "8"])
    names = list(found)
    self.assertLess(names.index("params.w"), names.index("ema.w"))
    self.assertLess(names.index("past"), names.index("optimizer"))
    (w,) = [
      one.load()
      for one in stored.arrays((self.folder / "sft/checkpoints/8").absolute())
      if one.path == ("params", "w")
    ]
    norm, largest = np.linalg.norm(w), np.max(np.abs(w))
    self.assertEqual(found["params.w"][2:], [f"{norm:.3g}", f"{largest:.3g}"])
    other = cells(shown(self.folder, "sft:4"))
    self.assertNotEqual(other["params.w"], found["params.w"])

  def test_of_what_there_is_none(self):
    for what in (None, "nash/a", "sft:5", "absent", "sft:"):
      with self.assertRaisesRegex(
        mistakes.Mistake, "--what: got .*; there is sft:4, sft:8"
      ):
        shown(self.folder, what)
    with self.assertRaisesRegex(mistakes.Mistake, "there is no checkpoint"):
      shown(self.folder / "absent", "sft")

  def test_one_that_is_damaged(self):
    copy = pathlib.Path(self.create_tempdir().full_path)
    shutil.copytree(self.folder / "sft", copy / "sft")
    part = max(
      (copy / "sft/checkpoints/8/params").rglob("d/*"),
      key=lambda path: path.stat().st_size,
    )
    part.write_bytes(part.read_bytes()[:-1])
    with self.assertRaisesRegex(mistakes.Mistake, "/8: params/.* bytes"):
      shown(copy, "sft")

  def test_it_is_a_stage_of_the_program(self):
    folder = pathlib.Path(self.create_tempdir().full_path) / "run"
    workdir.claim(folder, {})
    flags = ["--config=configs/worlds.py:tiny", f"--workdir={folder}"]
    command = ["nashmd_jax.main", "--stage=inspect", *flags]
    weights = write(folder.parent / "model", {"w": np.ones((2, 3), np.float32)})
    (code,), (out,), (error,) = processes.run([*command, f"--what={weights}"])
    self.assertEqual(code, 0, error)
    self.assertIn("f32[2,3]", out)
    self.assertEqual([one.name for one in folder.iterdir()], ["config.json"])


class TableTest(parameterized.TestCase):
  def folder(self, tensors, **how) -> str:
    place = pathlib.Path(self.create_tempdir().full_path) / "model"
    return write(place, tensors, **how)

  def test_a_tree_of_a_folder(self):
    ones = np.ones((2, 2), np.float32)
    what = self.folder({
      "model.layers.10.q.weight": 2 * ones,
      "model.layers.2.q.weight": ones.astype(jnp.bfloat16),
      "model.layers.2.k.weight": -3 * ones,
      "lm_head.weight": np.zeros((3, 1), np.float16),
    })  # fmt: skip
    lines = shown("absent", what)
    self.assertEqual(
      [line.rstrip() for line in lines[1:]],
      [
        "                array      numbers  norm  largest",
        "lm_head.weight  f16[3,1]         3     0        0",
        "model.layers                    12  7.48        3",
        "  2                              8  6.32        3",
        "    k.weight    f32[2,2]         4     6        3",
        "    q.weight    bf16[2,2]        4     2        1",
        "  10.q.weight   f32[2,2]         4     4        2",
        "in all 15 numbers in 4 arrays, 46 B; norm 7.483, largest 3",
      ],
    )

  def test_adapters(self):
    what = self.folder(
      {"base_model.model.q.lora_A.weight": np.ones((1, 4), np.float32)},
      name="adapter_model.safetensors",
    )
    self.assertIn("lora_A.weight  f32[1,4]", "\n".join(shown("absent", what)))

  def test_a_folder_of_no_weights(self):
    with self.assertRaisesRegex(mistakes.Mistake, "holds neither"):
      shown("absent", self.create_tempdir().full_path)

  @parameterized.parameters((np.nan, "nan"), (-np.inf, "inf"))
  def test_what_is_not_finite_is_named(self, value, told):
    lines = shown(
      "absent",
      self.folder({
        "a.b": np.array([1, value, 2], np.float32),
        "a.c": np.ones(1, np.float32),
      }),
    )  # fmt: skip
    self.assertEqual(cells(lines)["b"][2:], [told, told])
    self.assertEqual(lines[-1], "not finite: a.b")

  def test_it_is_no_wider_than_a_terminal(self):
    what = self.folder({
      f"{'a' * 40}.{'b' * 60}.{n}": np.ones((1000, 1)) for n in "cd"
    })  # fmt: skip
    size = os.terminal_size((80, 24))
    with (
      mock.patch.object(sys.stdout, "isatty", return_value=True, create=True),
      mock.patch.object(shutil, "get_terminal_size", return_value=size),
    ):
      lines = shown("absent", what)[1:-1]
    self.assertLess(max(map(len, lines)), 80)
    self.assertIn("…", lines[1])
    self.assertIn("b" * 60, "".join(shown("absent", what)))

  def test_how_arrays_were_split_when_they_were_saved(self):
    places = np.array(jax.devices()).reshape(4, 2)
    mesh = jax.sharding.Mesh(places, ("data", "model"))
    specs = {
      "a": PartitionSpec("data", None), "b": PartitionSpec(("data", "model")),
      "c": PartitionSpec(),
    }  # fmt: skip
    place = pathlib.Path(self.create_tempdir().full_path) / "1"
    tree = {
      name: jax.device_put(jnp.ones((8, 4)), NamedSharding(mesh, spec))
      for name, spec in specs.items()
    }
    ocp.save_checkpointables(place, {"params": tree})
    with mock.patch.object(stored.checksums, "find_damage", return_value=None):
      found = {one.path[1]: one for one in stored.arrays(place)}
    self.assertEqual(
      {name: inspection.notation(one) for name, one in found.items()},
      {"a": "f32[8@data,4]", "b": "f32[8@(data,model),4]", "c": "f32[8,4]"},
    )
    np.testing.assert_array_equal(found["a"].load(), np.ones((8, 4)))

  def test_blocks_add_up(self):
    array = np.random.default_rng(0).normal(size=(37, 11)).astype(np.float32)
    with mock.patch.object(inspection, "BLOCK", 16):
      found = inspection.measure(array)
    self.assertAlmostEqual(found.norm, float(np.linalg.norm(array)), places=4)
    self.assertEqual(found.largest, float(np.max(np.abs(array))))
    self.assertEqual((found.count, found.size), (407, 1628))
    self.assertEqual(inspection.measure(np.zeros((0, 3))).norm, 0)


if __name__ == "__main__":
  absltest.main()
