"""The optax chain, from keyword arguments."""

import jax
import optax

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
  if name not in OPTIMIZERS:
    raise ValueError(
      f"optimizer.name: got {name!r}, expected one of {sorted(OPTIMIZERS)}"
    )
  positive = {"learning_rate": learning_rate, "max_grad_norm": max_grad_norm}
  for key, value in positive.items():
    if not value > 0:
      raise ValueError(f"optimizer.{key}: got {value}, expected more than 0")
  if decay_steps and decay_steps <= warmup_steps:
    raise ValueError(
      f"optimizer.decay_steps: got {decay_steps}, expected 0 or more than "
      f"warmup_steps ({warmup_steps})"
    )
  start = 0.0 if warmup_steps else learning_rate
  if decay_steps:
    schedule = optax.warmup_cosine_decay_schedule(
      start, learning_rate, warmup_steps, decay_steps
    )
  else:
    schedule = optax.warmup_constant_schedule(
      start, learning_rate, warmup_steps
    )
  try:
    update = OPTIMIZERS[name](schedule, **kwargs)
  except TypeError as error:
    raise ValueError(f"optimizer: {error}") from None
  return optax.chain(optax.clip_by_global_norm(max_grad_norm), update)


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
