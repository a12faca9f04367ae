"""One step of training as two pure programs: a rollout, and its updates.

rollout → host → loss and gradient → reduce → optax → followers → metrics

What stands on the host, such as a judge of text, runs between the two; where
nothing does they are one program.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import grain
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax

from nashmd_jax import arrays
from nashmd_jax.training import dumps, telling, warned
from nashmd_jax.training import followers as followers_lib
from nashmd_jax.training import state as state_lib

Batch = Mapping[str, jax.Array]
Params = Any
Sets = Mapping[str, Params]
Mean = arrays.Mean
# The metric that counts the updates that changed nothing.
LEFT_OUT = "left_out"
Metrics = Mapping[str, Mean]


class Host(NamedTuple):
  """What stands on the host between rollout and loss; a judge of text for one.

  Attributes:
    reads: names of the rows that it is handed, as NumPy arrays.
    ask: (those rows) -> what was answered, for JSON. Called in process 0 alone,
      perhaps in a thread of its own.
    rows: (answered) -> further rows, in every process.
    tells: names of those of one number a prompt, such as what it took.
    ahead: 0, or 1 where the rows of a step are asked about while those of the
      next are written, by the policy from before the step's update.
  """

  reads: Sequence[str]
  ask: Callable[[Mapping[str, np.ndarray]], Any]
  rows: Callable[[Any], Mapping[str, np.ndarray]]
  tells: Sequence[str]
  ahead: int


class Experiment(NamedTuple):
  """What one stage trains, as pure functions; the loop does the rest.

  Attributes:
    init: (rng) -> (params, frozen): the parameters to train, and the further
      sets by name.
    rollout: (sets, batch, rng, step) -> rows for the loss. No gradient flows
      through it. Every array of them has a multiple of the batch's rows along
      its first axis, prompt by prompt. Supervised stages return the batch.
    host: what stands on the host between rollout and loss; None for nothing.
    loss: (params, sets, rows, rng) -> (Mean, {name: Mean}), see `arrays.Mean`.
      Gradient flows to params alone.
    batches: () -> endless training batches whose place can be saved.
    evaluate: (sets) -> scalars on held-out data; or an Evaluation, which has
      samples too.
    followers: sets that follow the policy, by name.
    rules: of what is warned of, by name; see `warned`.
    optimizer: (the optimizer of its section) -> the one that it trains with.

  `sets` holds the followers and the frozen sets by name; for rollout and
  evaluation also the parameters in training, as "policy".
  """

  init: Callable[[jax.Array], tuple[Params, Sets]]
  rollout: Callable[[Sets, Batch, jax.Array, jax.Array], Batch]
  host: Host | None
  loss: Callable[[Params, Sets, Batch, jax.Array], tuple[Mean, Metrics]]
  batches: Callable[[], grain.DatasetIterator]
  evaluate: Callable[[Sets], Mapping[str, float] | telling.Evaluation]
  followers: Mapping[str, followers_lib.Follower]
  rules: Mapping[str, warned.Rule] = {}
  optimizer: Callable[
    [optax.GradientTransformation], optax.GradientTransformation
  ] = lambda inner: inner


class Programs(NamedTuple):
  """The two pure halves of a step.

  Attributes:
    rollout: (state, batch) -> rows.
    update: (state, rows) -> (state, metrics).
  """

  rollout: Callable[[state_lib.TrainState, Batch], Batch]
  update: Callable[
    [state_lib.TrainState, Batch], tuple[state_lib.TrainState, Metrics]
  ]

  def step(self, state, batch):
    """Both as one program; the barrier keeps them the same as two."""
    return self.step_on(state, batch)[:2]

  def step_on(self, state, batch):
    """The same, and the rows that were learnt from; see `dumps.small`."""
    rows = lax.optimization_barrier(self.rollout(state, batch))
    return *self.update(state, rows), dumps.small(rows)


def make_programs(
  experiment: Experiment,
  optimizer: optax.GradientTransformation,
  *,
  seed: int,
  updates_per_rollout: int,
  micro_batches: int,
  reduce: Callable[[Any], Any] = lambda tree: tree,
) -> Programs:
  """The step of an experiment: one rollout, its updates, its followers.

  An update whose loss or gradient is not finite changes nothing; a step of
  none but such updates leaves the followers too.

  Args:
    experiment: gives rollout and loss.
    optimizer: of the trained parameters.
    seed: randomness of a step is fold_in(key(seed), step).
    updates_per_rollout: updates on one rollout; metrics are over all of them.
    micro_batches: parts of the rows that the gradient of an update is summed
      over, one after another.
    reduce: sums over the devices where each sees its own part of the batch
      (`lax.psum` under pmap); the global view of jit needs nothing.
  """
  update = functools.partial(
    _update,
    make_gradient(experiment.loss, micro_batches=micro_batches, reduce=reduce),
    optax.with_extra_args_support(optimizer),
  )

  def rollout(state, batch):
    sets = state_lib.params_by_name(state)
    rng, _, _ = rngs(seed, state.step)
    return experiment.rollout(sets, batch, rng, state.step)

  def updates(state, rows):
    _, loss_rng, follow_rng = rngs(seed, state.step)
    one = functools.partial(
      update, state_lib.other_sets(state), rows, state.step
    )
    trained = (state.params, state.opt_state)
    if updates_per_rollout == 1:
      trained, metrics = one(trained, loss_rng)
    else:
      keys = jax.random.split(loss_rng, updates_per_rollout)
      trained, metrics = lax.scan(one, trained, keys)
      metrics = jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)
    params, opt_state = trained
    moved = state._replace(
      step=state.step + 1, params=params, opt_state=opt_state
    )
    followers = lax.cond(
      metrics[LEFT_OUT].total < metrics[LEFT_OUT].count,
      lambda moved: _follow(experiment.followers, moved, follow_rng),
      lambda moved: moved.followers,
      moved._replace(frozen={}),
    )
    return moved._replace(followers=followers), metrics

  return Programs(rollout, updates)


def rngs(seed: int, step: jax.Array) -> jax.Array:
  """The keys of rollout, loss and followers, once `step` steps are done."""
  return jax.random.split(jax.random.fold_in(jax.random.key(seed), step), 3)


def _follow(followers, state, rng) -> dict[str, Any]:
  """The sets that follow a state whose policy has moved."""
  return {
    name: one.update(state.followers[name], state.params, state.step, rng)
    for name, one in followers.items()
  }


def _update(gradient, optimizer, sets, rows, step, trained, rng):
  """One optimizer step of (params, opt_state), and its metrics.

  Where loss or gradient is not finite nothing changes, and the metrics are of
  nothing but `LEFT_OUT`, the updates left out of all.
  """
  grads, loss, metrics = gradient(trained[0], sets, rows, rng)
  norm = optax.tree.norm(grads)
  one = jnp.ones_like(norm)
  metrics = {"loss": loss, **metrics, "grad_norm": Mean(norm, one)}
  finite = jnp.isfinite(loss.total) & jnp.isfinite(norm)

  def updated(grads, trained):
    params, opt_state = trained
    updates, opt_state = optimizer.update(grads, opt_state, params, step=step)
    return optax.apply_updates(params, updates), opt_state

  # A choice of branches: choosing number by number would read and write all
  # of the state once more.
  trained = lax.cond(finite, updated, lambda _, old: old, grads, trained)
  metrics = jax.tree.map(lambda x: jnp.where(finite, x, 0), metrics)
  left_out = Mean(1 - finite.astype(one.dtype), one)
  return trained, {**metrics, LEFT_OUT: left_out}


def make_gradient(loss, *, micro_batches: int, reduce: Callable[[Any], Any]):
  """(params, sets, rows, rng) -> (gradient of the mean, loss, metrics).

  Parts of the rows, each with as many whole prompts, are summed: their sums and
  counts add up to those of the whole. The rows in one piece need no division of
  every parameter.

  Args:
    loss: of an Experiment.
    micro_batches: M, parts; divides the number of prompts.
    reduce: see `make_programs`.
  """

  def mean(params, sets, rows, rng):
    found, metrics = loss(params, sets, rows, rng)
    every = found._replace(count=reduce(found.count))
    return found.total / lax.stop_gradient(every.divisor), (found, metrics)

  def total(params, sets, rows, rng):
    found, metrics = loss(params, sets, rows, rng)
    return found.total, (found, metrics)

  def whole(params, sets, rows, rng):
    grads, aux = jax.grad(mean, has_aux=True)(params, sets, rows, rng)
    return reduce((grads, *aux))

  def summed(params, sets, rows, rng):
    def add(sums, part):
      found = jax.grad(total, has_aux=True)(params, sets, part, rng)
      return jax.tree.map(jnp.add, sums, found), None

    parts = _parts(rows, micro_batches)
    first = jax.tree.map(lambda x: x[0], parts)
    slope = jax.grad(total, has_aux=True)
    shapes = jax.eval_shape(slope, params, sets, first, rng)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    (grads, aux), _ = lax.scan(add, nothing, parts)
    grads, found, metrics = reduce((grads, *aux))
    return jax.tree.map(lambda g: g / found.divisor, grads), found, metrics

  return whole if micro_batches == 1 else summed


def _parts(rows: Batch, count: int) -> Batch:
  """[n, …] -> [M, n / M, …], each part with every M-th prompt.

  Taken that way a part lies on all devices that share the rows.
  """
  prompts = len(rows["example_ids"])

  def parts(x):
    # No -1 in the shapes: an array of nothing, such as weights [B, 0], has
    # many of them.
    of_prompt = len(x) // prompts
    rest = x.shape[1:]
    split = x.reshape(prompts // count, count, of_prompt, *rest)
    return jnp.moveaxis(split, 1, 0).reshape(count, len(x) // count, *rest)

  return jax.tree.map(parts, rows)
