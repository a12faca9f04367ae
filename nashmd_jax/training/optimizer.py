"""The optax chain, from keyword arguments, and what these may be."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from nashmd_jax import declare, mistakes

# Subtrees whose leaves hold all layers along their first axis.
STACKED = ("encoder", "decoder", "layers")


def make_optimizer(
  *,
  name: str,
  learning_rate: float,
  warmup_steps: int,
  decay_steps: int,
  max_grad_norm: float,
  **kwargs,
) -> optax.GradientTransformation:
  """Clipping by global norm, then the named optimizer on a schedule.

  Args:
    name: a key of `OPTIMIZERS`.
    learning_rate: peak, reached after the warm-up.
    warmup_steps: of linear growth from 0; 0 starts at the peak.
    decay_steps: updates after which a cosine has brought the rate to 0,
      warm-up included; 0 keeps the peak.
    max_grad_norm: global norm at which the gradient is clipped.
    **kwargs: the further arguments of that optimizer, all of them.
  Raises: ValueError for an unknown name or a number that makes no sense.
  """
  shape = {"warmup_steps": warmup_steps, "decay_steps": decay_steps}
  given = {"learning_rate": learning_rate, "max_grad_norm": max_grad_norm}
  check(name=name, **shape, **given, **kwargs)
  start = 0.0 if warmup_steps else learning_rate
  if decay_steps:
    schedule = optax.warmup_cosine_decay_schedule(
      start, learning_rate, warmup_steps, decay_steps
    )
  else:
    schedule = optax.warmup_constant_schedule(
      start, learning_rate, warmup_steps
    )
  update = OPTIMIZERS[name](schedule, **kwargs)
  return optax.chain(optax.clip_by_global_norm(max_grad_norm), update)


def check(**section: Any) -> None:
  """Raises Mistake for a section `optimizer` that cannot be."""
  declare.check(SETTINGS, section, "optimizer")
  check_own(section)
  check_warmup(section)


def check_own(section: Mapping[str, Any]) -> None:
  """Raises Mistake unless the settings that differ are the optimizer's own."""
  name = section["name"]
  given = {key for key in section if SETTINGS[key].absent}
  own = set(OWN[name])
  if given != own:
    raise mistakes.Mistake(
      f"optimizer: {name} is given {sorted(given)}, expected {sorted(own)} "
      "beside what every optimizer has"
    )


def check_warmup(section: Mapping[str, Any]) -> None:
  """Raises Mistake for a schedule that ends before its warm-up does."""
  warmup, decay = section["warmup_steps"], section["decay_steps"]
  if decay and decay <= warmup:
    raise mistakes.Mistake(
      f"optimizer.decay_steps: got {decay}, expected 0 or more than "
      f"warmup_steps ({warmup})"
    )


def check_schedule(section: Mapping[str, Any], updates: int) -> None:
  """Raises Mistake for a schedule that ends before the updates do.

  Args:
    section: `optimizer`.
    updates: that will be made: steps, times the updates of a rollout.
  """
  decay = section["decay_steps"]
  if decay and updates > decay:
    raise mistakes.Mistake(
      f"optimizer.decay_steps: got {decay} for {updates} updates, the last "
      f"{updates - decay} of them at a rate of 0; set it to {updates}, or to 0 "
      "to keep the rate"
    )


def _adamw(schedule, *, b1, b2, weight_decay):
  return optax.adamw(
    schedule, b1=b1, b2=b2, weight_decay=weight_decay, mask=_decays
  )


def _adafactor(schedule, *, decay_rate):
  return _by_layer(optax.adafactor(schedule, decay_rate=decay_rate))


def _by_layer(
  update: optax.GradientTransformation,
) -> optax.GradientTransformation:
  """The transformation of each layer by itself, where layers are stacked.

  Adafactor scales an update by the size of the whole array; for a stack that
  would be one size for all layers, though they differ by orders of magnitude.
  """

  def mapped(function):
    def over_layers(tree, *rest):
      if not jax.tree.leaves(tree):  # a model without that stack
        return function(tree, *rest)
      return jax.vmap(function)(tree, *rest)

    return over_layers

  layers = optax.GradientTransformation(
    init=mapped(update.init), update=mapped(update.update)
  )
  return optax.partition(
    {name: layers for name in STACKED} | {"": update},
    lambda params: {
      name: jax.tree.map(lambda _, name=name: _stack(name), tree)
      for name, tree in params.items()
    },
  )


def _stack(name: str) -> str:
  return name if name in STACKED else ""


def _decays(params):
  """Whether a leaf decays: no bias and no scale of a norm, by their names.

  Their axes do not tell: a stack of biases has as many as a matrix.
  """

  def leaf(path, x):
    del x
    names = [jax.tree_util.keystr((key,), simple=True) for key in path]
    # A bias may be a table of its own, as T5's of relative positions is.
    return names[-1] != "scale" and not any(n.endswith("bias") for n in names)

  return jax.tree.map_with_path(leaf, params)


OPTIMIZERS = {"adamw": _adamw, "adafactor": _adafactor}
# What each has of its own, besides what all have.
OWN = {
  "adamw": {
    "b1": declare.number(
      "Decay of the mean of gradients; of adamw.",
      least=0,
      below=1,
      absent=True,
    ),
    "b2": declare.number(
      "Decay of the mean of squared gradients; of adamw.",
      least=0,
      below=1,
      absent=True,
    ),
    "weight_decay": declare.number(
      "Share of each matrix that is taken off at a rate of 1; of adamw.",
      least=0,
      most=1000,
      absent=True,
    ),
  },
  "adafactor": {
    "decay_rate": declare.number(
      "Power of the step in the decay of the second moment; of adafactor.",
      above=0,
      most=1,
      absent=True,
    ),
  },
}
SETTINGS = {
  "name": declare.text("The optimizer.", one_of=tuple(OPTIMIZERS)),
  "learning_rate": declare.number(
    "The rate after the warm-up, the highest of all.", above=0, most=1
  ),
  "warmup_steps": declare.whole(
    "Updates in which the rate grows from 0; 0 begins with the highest.",
    least=0,
    unit="updates",
  ),
  "decay_steps": declare.whole(
    "Updates after which a cosine has brought the rate to 0, the warm-up "
    "included; 0 keeps it. As many as will be made, or more.",
    least=0,
    unit="updates",
  ),
  "max_grad_norm": declare.number(
    "Norm of the whole gradient above which it is scaled down to it.", above=0
  ),
  **OWN["adamw"],
  **OWN["adafactor"],
}
