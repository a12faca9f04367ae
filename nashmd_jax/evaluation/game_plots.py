"""The figures of stage `games`: paths on the simplex, curves, bounds."""

from collections.abc import Callable, Mapping, Sequence
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nashmd_jax import files, games
from nashmd_jax.evaluation import plots

CORNERS = np.array([[0, 0], [1, 0], [0.5, 3**0.5 / 2]])
COLOURS = {
  "nash_md": "C0",
  "omd": "C1",
  "mmd": "C2",
  "egpo": "C3",
  "nash_mp": "C4",
  "onpo": "C5",
  "mwu": "C6",
}
# The panels of the simplex figure, with steps large enough to show a path.
PATHS = {"nash_md": 0.1, "omd": 1.0, "egpo": 2.0, "onpo": 1.0, "mwu": 0.5}
STEPS = 400


def save(
  played: Mapping[str, games.Game],
  rows: Sequence[Mapping[str, Any]],
  folder: pathlib.Path,
) -> None:
  """Writes `simplex.png`, `convergence.png` and `bounds.png`.

  Args:
    played: games of three responses by name. Call it in float64.
    rows: as `game_study.study` yields them; gives the best constant steps.
    folder: made if absent.
  """
  folder.mkdir(parents=True, exist_ok=True)
  best = {
    (row["game"], row["algorithm"]): row["step_size"]
    for row in rows
    if row["steps"] == "best constant"
  }
  drawn = {
    "simplex": _simplex(played),
    "convergence": _convergence(played, best),
    "bounds": _bounds(played),
  }
  for name, figure in drawn.items():
    with files.whole(folder / f"{name}.png") as partial:
      figure.savefig(partial, dpi=110)


def _target(game: games.Game, algorithm: str) -> jax.Array:
  if games.ALGORITHMS[algorithm].regularised:
    return games.regularised_equilibrium(
      game, tolerance=1e-12, max_iterations=10_000
    ).log_policy
  nash = games.nash_equilibrium(
    np.asarray(game.preference), reference=np.exp(game.log_reference)
  )
  return jnp.log(nash.policy)


@functools.partial(jax.jit, static_argnames="algorithm")
def _curves(
  game: games.Game, target: jax.Array, step_size, *, algorithm: str
) -> dict[str, jax.Array]:
  """KL to the target and the shares of three responses, at each iteration.

  At a constant step size, or at theory's steps if it is None.
  """
  if step_size is None:
    schedule = games.theory_steps(algorithm, game, iterations=STEPS)
  else:
    schedule = games.constant(step_size)
  return games.solve(
    game,
    step=games.ALGORITHMS[algorithm].step,
    step_size=schedule,
    query=games.exact_query,
    logits=game.log_reference,
    iterations=STEPS,
    key=jax.random.key(0),
    measures={"kl": games.kl_to(target)}
    | {f"share_{response}": _share(response) for response in range(3)},
    measure_every=1,
    judged="logits",
  )[1]


def _share(response: int) -> Callable[[games.Game, jax.Array], jax.Array]:
  return lambda game, logits: jax.nn.softmax(logits)[response]


def _simplex(played):
  """One row a game, one column an algorithm: the path of the last policy."""
  figure = plots.new_figure(
    figsize=(2.5 * len(PATHS), 2.7 * len(played)), layout="constrained"
  )
  axes = figure.subplots(len(played), len(PATHS), squeeze=False)
  for row, (name, game) in zip(axes, played.items(), strict=True):
    for axis, (algorithm, step) in zip(row, PATHS.items(), strict=True):
      target = _target(game, algorithm)
      curves = _curves(game, target, step, algorithm=algorithm)
      path = np.stack([curves[f"share_{i}"] for i in range(3)], 1) @ CORNERS
      target = np.asarray(jax.nn.softmax(target)) @ CORNERS
      axis.fill(*CORNERS.T, facecolor="#f0f2f6", edgecolor="#9aa3b2", lw=0.8)
      axis.plot(*path.T, ".-", color=COLOURS[algorithm], lw=0.8, ms=2.5)
      axis.plot(*path[0], "o", mfc="white", mec="black", ms=6, label="μ")
      axis.plot(*target, "*", color="black", ms=9, label="equilibrium")
      zoom = _zoom(axis, np.vstack([path, target]))
      axis.set_title(f"{algorithm}, η = {step:g}, {zoom}", fontsize="small")
    row[0].set_ylabel(name.replace("_", " "))
  axes[0, 0].legend(frameon=False, fontsize="x-small", loc="lower left")
  figure.suptitle(
    f"The policies of {STEPS} iterations, among all mixtures of three "
    "responses; onpo and mwu solve the game without regularisation"
  )
  return figure


def _zoom(axis, points: np.ndarray) -> str:
  """Sets the limits around the points, at most the triangle; says how far."""
  low, high = points.min(0), points.max(0)
  width = min(1.05, 1.3 * (high - low).max())
  middle = CORNERS.max(0) / 2 if width == 1.05 else (low + high) / 2
  axis.set(
    aspect="equal", xticks=[], yticks=[],
    xlim=middle[0] + width * np.array([-0.5, 0.5]),
    ylim=middle[1] + width * np.array([-0.5, 0.5]),
  )  # fmt: skip
  axis.spines[:].set_color("#d5dae3")
  return f"×{1.05 / width:.2g}"


def _convergence(played, best):
  """One panel a game: KL to equilibrium by preference queries."""
  figure = plots.new_figure(
    figsize=(4.4 * len(played), 4), layout="constrained"
  )
  axes = figure.subplots(1, len(played), squeeze=False)[0]
  for axis, (name, game) in zip(axes, played.items(), strict=True):
    for algorithm, facts in games.ALGORITHMS.items():
      if not facts.regularised:
        continue
      target = _target(game, algorithm)
      for style, step in (("-", best[name, algorithm]), ("--", None)):
        kl = _curves(game, target, step, algorithm=algorithm)["kl"]
        queries = facts.queries * np.arange(len(kl))
        label = algorithm if style == "-" else None
        colour = COLOURS[algorithm]
        axis.plot(queries, kl, style, color=colour, label=label, lw=1.2)
    axis.axhline(1e-6, color="grey", lw=0.8, ls=":")
    axis.set(
      title=name.replace("_", " "), yscale="log", xscale="symlog",
      ylim=(1e-12, 10), xlim=(0, STEPS), xlabel="preference queries",
    )  # fmt: skip
    _plain(axis)
  axes[0].set_ylabel("KL(π*, π), nats")
  figure.legend(
    *axes[0].get_legend_handles_labels(),
    frameon=False,
    loc="outside right upper",
    title="best constant step\n(theory's dashed)",
  )
  return figure


def _bounds(played):
  """One row a game, one column a theorem: measured KL and its bound."""
  columns = ("nash_md", "omd", "mmd", "egpo", "nash_mp")
  figure = plots.new_figure(
    figsize=(2.7 * len(columns), 2.6 * len(played)), layout="constrained"
  )
  axes = figure.subplots(len(played), len(columns), squeeze=False)
  time = np.arange(1, STEPS + 1)
  for axis, algorithm in zip(axes[0], columns, strict=True):
    axis.set_title(f"{algorithm}, theory's step", fontsize="medium")
  for row, (name, game) in zip(axes, played.items(), strict=True):
    for axis, algorithm in zip(row, columns, strict=True):
      target = _target(game, algorithm)
      kl = _curves(game, target, None, algorithm=algorithm)["kl"]
      if algorithm in ("nash_md", "omd"):
        bound = games.decreasing_step_bound(game.kl_coef, time)
      else:
        schedule = games.theory_steps(algorithm, game, iterations=STEPS)
        bound = games.linear_bound(
          kl[0],
          name=algorithm,
          step_size=schedule(0),
          kl_coef=game.kl_coef,
          iteration=time,
        )
      axis.plot(time, bound, "--", color="black", lw=1, label="bound")
      axis.plot(time, kl[1:], color=COLOURS[algorithm], label="measured")
      axis.set(xscale="log", yscale="log", ylim=(1e-16, 1e4))
      _plain(axis)
    row[0].set_ylabel(f"{name.replace('_', ' ')}\nKL, nats")
  for axis in axes[-1]:
    axis.set_xlabel("iteration")
  axes[0, 0].legend(frameon=False, fontsize="small", loc="lower left")
  return figure


def _plain(axis) -> None:
  axis.grid(alpha=0.25)
  axis.spines[["top", "right"]].set_visible(False)
