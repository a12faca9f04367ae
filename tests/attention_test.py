"""Attention kernels: each against the einsum, whole and in parts."""

import contextlib
import functools
import io
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import models
from nashmd_jax.models import attention
from nashmd_jax.training import sharding
from tests import decoder_test, t5_test, tiny_runs


class AttentionTest(parameterized.TestCase):
  def arguments(self, length=7, head_dim=8, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    heads = (4, 2, 2)
    return [
      jax.random.normal(key, (2, length, n, head_dim), dtype)
      for key, n in zip(keys, heads, strict=True)
    ]

  @parameterized.product(causal=[False, True], masked=[False, True])
  def test_kernels_agree(self, causal, masked):
    mask = jnp.arange(7)[None, None, None] < jnp.array([7, 4]).reshape(
      2, 1, 1, 1
    )
    bias = jax.random.normal(jax.random.key(1), (1, 4, 7, 7))
    got = [
      attention.attend(
        *self.arguments(),
        scale=0.3,
        causal=causal,
        mask=mask if masked else None,
        bias=bias,
        kernel=kernel,
      )
      for kernel in ("einsum", "xla")
    ]
    np.testing.assert_allclose(*got, atol=2e-6)

  @parameterized.parameters(
    dict(),
    dict(soft_cap=2.0),
    dict(head_dim=64),
    dict(head_dim=80, length=150),
    dict(head_dim=64, window=16),
    dict(length=200, window=130),
    dict(window=16, local=jnp.array(True)),
    dict(window=16, local=jnp.array(False)),
  )
  def test_splash_kernel_agrees(
    self, *, length=128, head_dim=128, soft_cap=None, window=None, local=True
  ):
    given = self.arguments(length=length, head_dim=head_dim)
    said = {"soft_cap": soft_cap, "window": window, "local": local}

    def splash(queries, *others):
      return attention._splash(queries * 0.1, *others, interpret=True, **said)

    def plain(*given):
      return attention.attend(
        *given, scale=0.1, causal=True, kernel="einsum", **said
      )

    np.testing.assert_allclose(splash(*given), plain(*given), atol=1e-5)

  def test_splash_has_the_same_gradient(self):
    given = self.arguments(length=140, head_dim=64)
    said = {"soft_cap": None, "window": 16, "local": jnp.array(True)}
    got, expected = (
      jax.grad(lambda *x, f=f: jnp.sum(jnp.sin(f(*x))), argnums=(0, 1, 2))(
        *given
      )
      for f in (
        lambda q, *x: attention._splash(q * 0.1, *x, interpret=True, **said),
        lambda *x: attention.attend(
          *x, scale=0.1, causal=True, kernel="einsum", **said
        ),
      )
    )
    for a, b in zip(got, expected, strict=True):
      np.testing.assert_allclose(a, b, atol=2e-5)

  @parameterized.parameters("einsum", "xla")
  def test_a_query_sees_the_last_keys_of_its_window(self, kernel):
    queries, keys, _ = self.arguments(length=7)
    values = jnp.tile(jnp.eye(7, 8)[None, :, None], (2, 1, 2, 1))
    seen = attention.attend(
      queries, keys, values, scale=0.1, causal=True, window=3, kernel=kernel
    )
    t, s = np.mgrid[:7, :8]
    np.testing.assert_array_equal(
      np.asarray(seen[0, :, 0]) > 0, (s <= t) & (t - s < 3)
    )

  def test_what_is_used_in_place_of_a_kernel_is_told_once(self):
    attention._tell.cache_clear()
    out = io.StringIO()
    asked = dict(
      shape=(2, 256, 4, 64), dtype=jnp.dtype("float32"), causal=True,
      masked=False, biased=True, soft_cap=None,
    )  # fmt: skip
    with contextlib.redirect_stderr(out):
      for _ in range(3):
        attention.choose_kernel("tpu", **asked)
        attention.choose_kernel("auto", **asked)
        attention.choose_kernel("tpu", **(asked | {"biased": False}))
    self.assertEqual(
      out.getvalue(),
      "attention: xla in place of splash, which does not take a bias\n",
    )

  @parameterized.parameters("llama", "gemma3_text")
  def test_nothing_is_told_of_sequences_that_nobody_has(self, family):
    attention._tell.cache_clear()
    model, out = decoder_test.tiny_model(family, attention="tpu"), io.StringIO()
    with contextlib.redirect_stderr(out):
      params = model.init(jax.random.key(0))
    self.assertEqual(out.getvalue(), "")
    with contextlib.redirect_stderr(out):
      jax.eval_shape(
        model.response_logits, params, *t5_test.tiny_batch().values()
      )
    self.assertIn("fewer than 128 positions", out.getvalue())

  @parameterized.parameters(
    ("auto", {}, "xla"),
    ("auto", {"soft_cap": 3.0}, "einsum"),
    ("tpu", {}, "splash"),
    ("tpu", {"masked": True}, "xla"),
    ("gpu", {"dtype": jnp.dtype("bfloat16")}, "cudnn"),
    ("splash", {}, "splash"),
    ("splash", {"masked": True}, "xla"),
    ("splash", {"shape": (2, 100, 4, 128)}, "xla"),
    ("splash", {"shape": (2, 150, 4, 80)}, "splash"),
    ("splash", {"soft_cap": 3.0}, "splash"),
    ("cudnn", {}, "xla"),
    ("cudnn", {"dtype": jnp.dtype("bfloat16")}, "cudnn"),
    ("cudnn", {"dtype": jnp.dtype("bfloat16"), "biased": True}, "xla"),
    ("einsum", {}, "einsum"),
  )
  def test_choice(self, requested, changes, expected):
    asked = dict(
      shape=(2, 256, 4, 128),
      dtype=jnp.dtype("float32"),
      causal=True,
      masked=False,
      biased=False,
      soft_cap=None,
    )
    got = attention.choose_kernel(requested, **(asked | changes))
    self.assertEqual(got, expected)

  @parameterized.parameters(
    ("auto", "tpu", "tpu"),
    ("auto", "gpu", "gpu"),
    ("auto", "cpu", "auto"),
    ("einsum", "tpu", "einsum"),
    ("splash", "cpu", "splash"),
  )
  def test_what_devices_ask_for(self, requested, platform, expected):
    got = attention.on_devices(requested, platform=platform)
    self.assertEqual(got, expected)

  def test_fully_masked_rows_are_finite(self):
    for kernel in ("einsum", "xla"):
      got = attention.attend(
        *self.arguments(),
        scale=1.0,
        mask=jnp.zeros((1, 1, 1, 7), bool),
        kernel=kernel,
      )
      self.assertTrue(jnp.isfinite(got).all())

  @parameterized.parameters(
    (2, dict(count=8, model=2)),
    (4, dict(count=4)),
    # Two heads of keys cannot be split in four.
    (4, dict(count=8, model=4)),
  )
  def test_splash_is_split_by_rows_and_heads(self, heads, layout):
    devices = tiny_runs.devices(**layout)
    whole, seen = attention._splash_kernel, set()

    def kernel(length, heads, window, soft_cap, interpret):
      seen.add(heads)
      return whole(length, heads, window, soft_cap, True)

    made, batch = self.long_batch(devices)

    def loss(model, params):
      logits = model.response_logits(params, *batch)
      return jnp.sum(jnp.sin(logits)), logits

    def run(model, params):
      step = jax.value_and_grad(functools.partial(loss, model), has_aux=True)
      return jax.jit(step)(params)

    plain = models.make_model(made._replace(attention="einsum"))
    params = plain.init(jax.random.key(0))
    (_, expected), slopes = run(plain, params)
    stored = jax.device_put(params, sharding.shardings(params, devices))
    split = models.make_model(made._replace(attention="splash"))
    mapped = sharding.on_mesh(split.response_states, devices)
    split = split._replace(response_states=mapped)
    with mock.patch.object(attention, "_splash_kernel", kernel):
      (_, got), found = run(split, stored)
    self.assertEqual(seen, {heads})
    np.testing.assert_allclose(got, expected, atol=2e-5)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, atol=2e-3), found, slopes
    )

  def long_batch(self, devices):
    """An architecture, and rows of it that splash takes."""
    sizes = decoder_test.SIZES | decoder_test.CASES["gemma3_text"]
    made = models.make_config(family="gemma3_text", **sizes)
    rows = sharding.shard_batch(
      {
        "prompts": np.arange(8 * 120).reshape(8, 120) % t5_test.VOCAB,
        "mask": np.arange(120) < np.arange(113, 121)[:, None],
        "responses": np.arange(8 * 16).reshape(8, 16) % t5_test.VOCAB,
      },
      devices.mesh,
    )
    return made, rows.values()


if __name__ == "__main__":
  absltest.main()
