"""A model folder whose second write was cut off is refused by its reader."""

import errno
import itertools
import pathlib
from unittest import mock

from absl.testing import absltest
import jax

from nashmd_jax import mistakes, models
from nashmd_jax.hub import folders, peft, pretrained, safetensors
from nashmd_jax.models import lora
from nashmd_jax.stages import export
from tests.pretrained_test import on_one_device, tiny_config


class CutTest(absltest.TestCase):
  def test_a_second_write_that_is_cut_off_is_refused(self):
    made = pretrained.architecture(tiny_config(), "model", vocab_size=30)
    made = made._replace(dtype="float32")
    base = models.make_model(made).init(jax.random.key(0))
    adapters = lora.init_lora(
      jax.random.key(1), base, rank=2, targets=("query",)
    )
    root = pathlib.Path(self.create_tempdir().full_path)

    def whole(place, params, others):
      folders.save_pretrained(
        place, params, made, settings={}, beside=None,
        max_file_bytes=10_000, others=others,
      )  # fmt: skip

    def peft_folder(place, params, others):
      peft.save_adapter(
        place, params, made, alpha=4.0, base=str(root / "base"), others=others
      )

    whole(root / "base", base, {})
    both = {"policy": 0.75, "reference": 0.25}
    kinds = {
      "one": ({"policy": 1.0}, base, whole),
      "two": (both, base, whole),
      "adapters": (both, adapters, peft_folder),
    }
    for first, second in itertools.product(kinds, kinds):
      self.cut_off(root / f"{first} {second}", kinds[first], kinds[second])

  def cut_off(self, place, first, second):
    """Writes a folder twice, the second time cut at each of its files."""

    def write(lane, params, save):
      others = {"README.md": b"of a policy"}
      export.save_deployed(
        place, lane, dict.fromkeys(lane, params), save, others
      )

    def full_at(number):
      counted = itertools.count()

      def save_bytes(path, pieces):
        if next(counted) == number:
          raise OSError(errno.ENOSPC, "No space left on device")
        return kept(path, pieces)

      return save_bytes

    kept, cuts = safetensors.save_bytes, 0
    while True:
      write(*first)
      self.assertEqual(
        export.load_deployed(place, on_one_device).lane, first[0]
      )
      with mock.patch.object(safetensors, "save_bytes", full_at(cuts)):
        try:
          write(*second)
          break
        except OSError:
          cuts += 1
      with self.assertRaises(mistakes.Mistake):
        export.load_deployed(place, on_one_device)
    self.assertGreater(cuts, 2)
    self.assertEqual(export.load_deployed(place, on_one_device).lane, second[0])


if __name__ == "__main__":
  absltest.main()
