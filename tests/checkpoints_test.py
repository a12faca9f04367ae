"""Checkpoints that are cut short, changed or old: named, and never read."""

import contextlib
import io
import json
import pathlib
import shutil

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import mistakes
from nashmd_jax.training import checkpoints, checksums, metrics
from nashmd_jax.training import state as state_lib
from tests import least_squares

# What each process wrote of a tree.
ARRAYS = "ocdbt.process_0/d/*"


def flip(path: pathlib.Path) -> None:
  """Changes one bit in the middle of a file."""
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def cut(path: pathlib.Path) -> None:
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])


def empty(path: pathlib.Path) -> None:
  path.write_bytes(b"")


def remove(path: pathlib.Path) -> None:
  shutil.rmtree(path) if path.is_dir() else path.unlink()


DAMAGES = {
  "a bit of the parameters": (flip, f"params/{ARRAYS}", "params/ocdbt"),
  "a bit of the moments": (flip, f"optimizer/{ARRAYS}", "optimizer/ocdbt"),
  "a bit of an average": (flip, f"ema/{ARRAYS}", "ema/ocdbt"),
  "a bit of the place in the data": (flip, "data/process_0*", "data/process"),
  "a bit of the metadata": (flip, "_CHECKPOINT_METADATA", "_CHECKPOINT_META"),
  "a bit of the tree": (flip, "params/_METADATA", "params/_METADATA"),
  "a bit of the list": (flip, "checksums/process_0*", ""),
  "parameters cut short": (cut, f"params/{ARRAYS}", "bytes and not"),
  "an empty place in the data": (empty, "data/process_0*", "has 0 bytes"),
  "an empty list": (empty, "checksums/process_0*", "checksums is damaged"),
  "no place in the data": (remove, "data/process_0*", "is missing"),
  "no moments": (remove, "optimizer", "is missing"),
  "no list": (remove, "checksums", "was cut off before it was whole"),
}


def first(folder: pathlib.Path, pattern: str) -> pathlib.Path:
  return sorted(folder.glob(pattern))[0]


def as_before(place: pathlib.Path) -> None:
  """Makes of a checkpoint one of a version without checksums."""
  shutil.rmtree(place / "checksums")
  path = place / "_CHECKPOINT_METADATA"
  metadata = json.loads(path.read_text())
  del metadata["custom_metadata"]["checksums"]
  path.write_text(json.dumps(metadata))


class DamageTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    root = pathlib.Path(absltest.TEST_TMPDIR.value) / "checkpoints"
    shutil.rmtree(root, ignore_errors=True)
    cls.cut, cls.whole = root / "cut", root / "whole"
    least_squares.train(cls.cut, 8)
    shutil.copytree(cls.cut, cls.whole)
    least_squares.train(cls.whole, 12)

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path) / "run"
    shutil.copytree(self.cut, self.folder)
    self.place = self.folder / "checkpoints"

  def opened(self) -> tuple[int | None, str]:
    """The step that a run would go on from, and what is said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
      with checkpoints.make_checkpointer(self.folder) as found:
        return found.latest, said.getvalue()

  @parameterized.named_parameters(
    (name.replace(" ", "_"), *damage) for name, damage in DAMAGES.items()
  )
  def test_the_one_before_is_used(self, damage, pattern, expected):
    damage(first(self.place / "8", pattern))
    latest, said = self.opened()
    self.assertEqual(latest, 4)
    self.assertIn(f"{self.place / '8'}: ", said)
    self.assertIn(expected, said)
    self.assertLess(len(said), 500)
    self.assertLen(said.splitlines(), 1)
    self.assertTrue((self.folder / "damaged" / "8-1").is_dir())
    self.assertFalse((self.place / "8").exists())
    self.assertEqual(self.opened(), (4, ""))

  def test_nothing_is_wrong_with_a_whole_one(self):
    self.assertEqual(self.opened(), (8, ""))
    self.assertIsNone(checksums.find_damage(self.place / "8"))

  def test_a_run_ends_as_it_would_have(self):
    flip(first(self.place / "8", f"params/{ARRAYS}"))
    least_squares.train(self.folder, 12)
    rows = [
      (folder / "metrics.jsonl").read_bytes()
      for folder in (self.folder, self.whole)
    ]
    self.assertEqual(*rows)
    ends = [
      checkpoints.load_params(folder, {"w": jnp.zeros(8)})["w"]
      for folder in (self.folder, self.whole)
    ]
    np.testing.assert_array_equal(*ends)

  def test_two_in_a_row(self):
    for step in ("4", "8"):
      flip(first(self.place / step, f"params/{ARRAYS}"))
    with self.assertRaisesRegex(
      mistakes.Mistake, r"8: params/.*4: params/.*; no older whole .* delete"
    ):
      self.opened()

  def test_saves_that_were_cut_off_lose_nothing_that_was_whole(self):
    for step in ("4", "8"):
      remove(self.place / step / "checksums")
    latest, said = self.opened()
    self.assertIsNone(latest)
    self.assertLen(said.splitlines(), 2)

  def test_one_set_aside_twice(self):
    flip(first(self.place / "8", f"params/{ARRAYS}"))
    self.opened()
    least_squares.train(self.folder, 8)
    flip(first(self.place / "8", f"params/{ARRAYS}"))
    self.assertIn("8-2", self.opened()[1])

  def test_readers_of_other_stages_refuse_it_and_move_nothing(self):
    for name, like in (("params", {"w": jnp.zeros(8)}),
                       ("ema", {"w": jnp.zeros(8)})):  # fmt: skip
      self.assertIn("w", checkpoints.load_params(self.folder, like, name=name))
    flip(first(self.place / "8", f"params/{ARRAYS}"))
    with self.assertRaisesRegex(
      mistakes.Mistake, r"/8: params/.* holds other bytes .*done.json and run"
    ):
      checkpoints.load_params(self.folder, {"w": jnp.zeros(8)})
    # What a reader does not read may be damaged.
    checkpoints.load_params(self.folder, {"w": jnp.zeros(8)}, name="ema")
    self.assertTrue((self.place / "8").is_dir())

  def test_one_of_before_is_read_and_that_is_said(self):
    for step in ("4", "8"):
      as_before(self.place / step)
    latest, said = self.opened()
    self.assertEqual(latest, 8)
    self.assertIn("8: is of a version without checksums", said)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
      for _ in range(2):
        checkpoints.load_params(self.folder, {"w": jnp.zeros(8)})
    self.assertEqual(said.getvalue().count("without checksums"), 1)
    empty(first(self.place / "8", "data/process_0*"))
    with self.assertRaisesRegex(mistakes.Mistake, "process_0.* cannot be read"):
      least_squares.train(self.folder, 12)

  def test_one_that_is_not_finite_is_not_gone_on_from(self):
    for step in ("4", "8"):
      as_before(self.place / step)
    state = least_squares.start()
    bad = state._replace(params={"w": jnp.full(8, jnp.nan)})
    with checkpoints.make_checkpointer(self.folder) as made:
      batches = least_squares.make_batches()
      with self.assertRaisesRegex(FloatingPointError, "last good .* step 8"):
        checkpoints.save(made, 12, bad, batches)
      made.begin(12, {
        "params": bad.params, **bad.followers, "data": batches,
        "optimizer": {"step": bad.step, "state": bad.opt_state},
      })  # fmt: skip
    with self.assertRaisesRegex(mistakes.Mistake, "12: holds .* not finite"):
      least_squares.train(self.folder, 16)

  def test_rows_of_metrics_are_those_up_to_the_one_before(self):
    flip(first(self.place / "8", f"params/{ARRAYS}"))
    least_squares.train(self.folder, 4)
    rows = metrics.load_metrics(self.folder / "metrics.jsonl")
    self.assertEqual([row["step"] for row in rows], [2, 4])


class FiniteTest(parameterized.TestCase):
  @parameterized.product(
    value=[jnp.nan, jnp.inf, -jnp.inf, 3e38],
    where=["params", "opt_state", "followers"],
  )
  def test_every_part_counts(self, value, where):
    state = least_squares.start()
    self.assertTrue(state_lib.is_finite(state))
    leaves, tree = jax.tree.flatten(getattr(state, where))
    at = next(i for i, x in enumerate(leaves) if jnp.ndim(x))
    leaves[at] = leaves[at].at[..., -1].set(value)
    state = state._replace(**{where: jax.tree.unflatten(tree, leaves)})
    self.assertEqual(state_lib.is_finite(state), value == 3e38)

  def test_numbers_of_few_bits_and_of_none(self):
    state = least_squares.start()
    for dtype in ("bfloat16", "float16"):
      tree = {"a": jnp.zeros((0, 3), dtype), "b": jnp.ones(3, dtype)}
      self.assertTrue(state_lib.is_finite(state._replace(params=tree)))
      tree["b"] = tree["b"].at[1].set(jnp.nan)
      self.assertFalse(state_lib.is_finite(state._replace(params=tree)))


class ChecksumsTest(parameterized.TestCase):
  def test_each_process_lists_what_it_wrote(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    for name in ("a", "params/d/0", "params/ocdbt.process_0/d/1",
                 "params/ocdbt.process_1/d/2", "data/process_1-of-2.json",
                 "params/array_metadatas/process_1"):  # fmt: skip
      path = folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(name)
    checksums.write(folder, 0, 2)
    self.assertTrue(checksums.find_damage(folder).cut)
    checksums.write(folder, 1, 2)
    self.assertIsNone(checksums.find_damage(folder))
    listed = [
      set(json.loads((folder / f"checksums/process_{n}-of-2.json").read_text()))
      for n in (0, 1)
    ]
    self.assertLen(listed[0], 3)
    self.assertLen(listed[1], 3)
    flip(folder / "params/ocdbt.process_1/d/2")
    self.assertIn("process_1/d/2", checksums.find_damage(folder).what)
    self.assertIsNone(checksums.find_damage(folder, part="data"))


if __name__ == "__main__":
  absltest.main()
