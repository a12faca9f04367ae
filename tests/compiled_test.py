"""What is read out of compiled programs."""

import importlib.util
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp

from nashmd_jax import mistakes
from nashmd_jax.capacity import compiled

# A loop of 3 turns: per turn one fusion of 10 cycles, a gather of 4 x 2 bytes
# spread over two fusions of channel 5, and an all-reduce of 2 floats; behind
# the loop a reduce-scatter over 4 chips into 6 bytes and the end of channel 5.
MODULE = """
HloModule test

%fused_a (p: bf16[2]) -> bf16[4] {
  %p = bf16[2]{0} parameter(0)
  ROOT %g.1 = bf16[4]{0} all-gather(%p), channel_id=5, dimensions={0}
}

%body (s: (s32[], f32[2])) -> (s32[], f32[2]) {
  %a = bf16[4]{0} fusion(%x), calls=%fused_a, CYCLES10
  %r = f32[2]{0} all-reduce(%y), channel_id=6, to_apply=%add
  ROOT %t = (s32[], f32[2]) tuple(%i, %r)
}

%add (l: f32[], r: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%l, %r), CYCLES1
}

%condition (s: (s32[], f32[2])) -> pred[] {
  %limit = s32[]{:T(128)} constant(3)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (p: bf16[2]) -> f32[2] {
  %w = (s32[], f32[2]) while(%t), condition=%condition, body=%body
  %b = bf16[4]{0} fusion(%w), calls=%fused_a, CYCLES7
  ROOT %c = bf16[3]{0} reduce-scatter(%b), channel_id=7, GROUPS, to_apply=%add
}
"""
MODULE = MODULE.replace("GROUPS", "replica_groups=[2,4]<=[8]")
for cycles in ("10", "7", "1"):
  MODULE = MODULE.replace(
    f"CYCLES{cycles}\n", f'backend_config={{"estimated_cycles":"{cycles}"}}\n'
  )


class ReadingTest(parameterized.TestCase):
  def test_collectives_by_hand(self):
    found = {
      one.kind: (one.size, one.count, one.in_loop, one.shape)
      for one in compiled.find_collectives(MODULE)
    }
    self.assertEqual(
      found,
      {
        "all-gather": (8, 1, False, (4,)),
        "all-reduce": (8, 3, True, (2,)),
        "reduce-scatter": (24, 1, False, (3,)),
      },
    )

  def test_cycles_by_hand(self):
    # 3 turns of 10, one of 7; the three uses of `add` are 1 cycle each turn.
    self.assertEqual(compiled.count_cycles(MODULE), 3 * (10 + 1) + 7 + 1)

  def test_kernels_by_their_scope(self):
    names = ("jit(f)/attention=xla/dot", "attention=splash/x", "attend_cached")
    text = "\n".join(f'%x = f32[] op(), op_name="{name}"' for name in names)
    self.assertEqual(compiled.find_kernels(text), ["splash", "xla"])

  def test_products_of_a_scan_count_every_turn(self):
    def function(matrices, x):
      x, _ = jax.lax.scan(lambda x, m: (x @ m, None), x, matrices)
      return jax.jit(jnp.dot)(x.T, x)

    traced = jax.jit(function).trace(jnp.ones((5, 4, 4)), jnp.ones((3, 4)))
    # 5 products 3·4·4, one 4·3·4, two operations each.
    flops = compiled.product_flops(traced.jaxpr.jaxpr)
    self.assertEqual(flops, 2 * (5 * 48 + 48))

  @parameterized.parameters(
    (
      "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 18.20G "
      "of 15.75G hbm. Exceeded hbm capacity by 2.45G.",
      ("18.20G", "15.75G"),
    ),
    (
      "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
      "for HLO temporaries (23.08G) exceeds available HBM (15.75G).",
      ("23.08G", "15.75G"),
    ),
    ("INTERNAL: something else (of HBM).", None),
  )
  def test_what_the_compiler_says_of_memory(self, error, expected):
    self.assertEqual(compiled.too_large(error), expected)

  @parameterized.parameters("v4:2x2", "4x4", "")
  def test_slices_that_are_none(self, topology):
    with self.assertRaisesRegex(mistakes.Mistake, "--topology: got .* v5e"):
      compiled.topology_devices(topology)

  def test_without_the_compiler(self):
    with (
      mock.patch.object(importlib.util, "find_spec", return_value=None),
      self.assertRaisesRegex(mistakes.Mistake, r"install the extra \[tpu\]"),
    ):
      compiled.topology_devices("v5e:4x4")


if __name__ == "__main__":
  absltest.main()
