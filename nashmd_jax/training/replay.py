"""A step whose numbers were not finite, computed again and looked into."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import functools
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nashmd_jax.training import (
  checkpoints,
  distributed,
  dumps,
  loop,
  sharding,
)
from nashmd_jax.training import state as state_lib
from nashmd_jax.training import step as step_lib

SHOWN = 8  # examples, or places in an array
Found = Mapping[str, Any]


def replay(
  experiment: step_lib.Experiment,
  *,
  devices: sharding.Devices,
  name: str,
  folder: pathlib.Path,
  seed: int,
  step: int,
  updates_per_rollout: int,
) -> list[str]:
  """Computes a step that was kept again, from the checkpoint before it.

  Args:
    experiment: of the stage.
    devices: of the run.
    name: of the job, for the head.
    folder: of the stage.
    seed: of the run.
    step: see `dumps.load`.
    updates_per_rollout: the first of them is computed.
  Returns: a small table, line by line: loss, norms of the gradient by the
    modules of the model, which metrics are not finite, which examples make it
    so, and where rows are not finite.
  Raises: Mistake for a step that is not kept, or is damaged.
  """
  dump = dumps.load(folder, step)
  make = loop.make_first_state(experiment, optax.identity(), devices=devices)
  state = sharding.store(devices, make, *experiment.init(jax.random.key(seed)))
  state = state._replace(step=state.step + (step - 1))
  at = checkpoints.newest(folder, step)
  if at is not None:
    load = functools.partial(checkpoints.load_params, folder, before=step)
    state = state._replace(
      params=load(state.params),
      followers={k: load(x, name=k) for k, x in state.followers.items()},
    )
  rows, again = _rows(experiment, devices, state, dump)
  compute = _computing(experiment, devices, state, seed, updates_per_rollout)
  found = compute(rows)
  began = f"step {at}" if at else "the start"
  lines = [
    f"{name}: step {step} on {len(rows['example_ids'])} examples, with the "
    f"parameters of {began}"
  ]
  lines += [*again, *_told(found)]
  if _is_finite(found):
    lines.append(f"  all of it is finite now: what broke it came after {began}")
  else:
    bad = _bad_examples(compute, rows)
    ids = rows.get("record_ids", rows["example_ids"])
    shown = [int(ids[one]) for one in itertools.islice(bad, SHOWN)]
    told = ", ".join(map(str, shown)) or "none by itself"
    lines.append(f"  examples not finite  {told}")
  return [*lines, *_damage(rows)]


def _rows(experiment, devices, state, dump) -> tuple[dict, list[str]]:
  """The rows of a step on the host, and what is said of those made again."""

  def rollout(state, batch):
    rng, _, _ = step_lib.rngs(dump.seed, state.step)
    sets = state_lib.params_by_name(state)
    return experiment.rollout(sets, batch, rng, state.step)

  batch = sharding.shard_batch(dict(dump.rows), devices.mesh)
  lacks = set(jax.eval_shape(rollout, state, batch)) - set(dump.rows)
  if not lacks:
    return dict(dump.rows), []
  made = jax.jit(rollout)(state, batch)
  names = lacks | ({"responses"} & set(made))
  made = {name: distributed.to_host(made[name]) for name in sorted(names)}
  same = "responses" not in made or np.array_equal(
    made["responses"], dump.rows["responses"]
  )
  said = (
    f"  made again, being too large to keep  {', '.join(sorted(lacks))}, of "
    f"{'the same' if same else 'OTHER'} responses"
  )
  return {**dump.rows, **{name: made[name] for name in lacks}}, [said]


def _computing(
  experiment, devices, state, seed: int, updates: int
) -> Callable[[Mapping[str, np.ndarray]], Found]:
  """(rows on the host) -> loss, metrics and norms of the gradient."""
  gradient = step_lib.make_gradient(
    experiment.loss, micro_batches=1, reduce=lambda tree: tree
  )

  @jax.jit
  def compute(state, rows):
    rng = step_lib.rngs(seed, state.step)[1]
    rng = rng if updates == 1 else jax.random.split(rng, updates)[0]
    sets = state_lib.other_sets(state)
    grads, loss, metrics = gradient(state.params, sets, rows, rng)
    modules = grads if isinstance(grads, Mapping) else {"all": grads}
    return {
      "loss": loss.value,
      "metrics": {one: mean.value for one, mean in metrics.items()},
      "norms": {one: optax.tree.norm(x) for one, x in modules.items()},
      "parts": {
        one: (
          sum(jnp.sum(~jnp.isfinite(x)) for x in jax.tree.leaves(tree)),
          sum(x.size for x in jax.tree.leaves(tree)),
        )
        for one, tree in modules.items()
      },
    }

  def on_host(rows):
    batch = sharding.shard_batch(dict(rows), devices.mesh)
    return jax.tree.map(
      lambda x: np.asarray(distributed.to_host(x)), compute(state, batch)
    )

  return on_host


def _is_finite(found: Found) -> bool:
  return bool(
    np.isfinite(found["loss"])
    and all(np.isfinite(x) for x in found["norms"].values())
  )


def _told(found: Found) -> Iterator[str]:
  yield f"  loss  {found['loss']:.6g}"
  for name, norm in sorted(found["norms"].items()):
    bad, count = found["parts"][name]
    more = f", {bad} of {count} numbers are not finite" if bad else ""
    yield f"  gradient of {name}  {norm:.6g}{more}"
  bad = [k for k, x in sorted(found["metrics"].items()) if not np.isfinite(x)]
  yield f"  metrics not finite  {', '.join(bad) or 'none'}"


def _bad_examples(compute, rows) -> Iterator[int]:
  """The examples that make the step not finite, found by halves."""
  count = len(rows["example_ids"])

  def search(some: Sequence[int]) -> Iterator[int]:
    if _is_finite(compute(_only(rows, np.resize(some, count)))):
      return
    if len(some) == 1:
      yield some[0]
      return
    half = len(some) // 2
    yield from search(some[:half])
    yield from search(some[half:])

  return search(range(count))


def _only(rows, chosen: np.ndarray) -> dict[str, np.ndarray]:
  """As many rows, of the chosen examples alone."""

  def of(x):
    parts = x.reshape(len(chosen), len(x) // len(chosen), *x.shape[1:])
    return parts[chosen].reshape(x.shape)

  return {name: of(np.asarray(x)) for name, x in rows.items()}


def _damage(rows) -> Iterator[str]:
  """Where rows are not finite: of which example, at which places."""
  ids = rows.get("record_ids", rows["example_ids"])
  for name, x in sorted(rows.items()):
    if not np.issubdtype(x.dtype, np.floating):
      continue
    places = np.argwhere(~np.isfinite(x))
    if not len(places):
      continue
    each = len(x) // len(ids)
    shown = [
      f"{ids[row // each]} at {[row % each, *at]}"
      for row, *at in places[:SHOWN].tolist()
    ]
    more = ", …" if len(places) > SHOWN else ""
    yield (
      f"  {name} not finite  {len(places)} of {x.size}: example "
      f"{', '.join(shown)}{more}"
    )
