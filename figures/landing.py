"""Where policies trained by sampling come to rest, against the exact answer.

`make certify` takes these rows and writes their tables, docs/landing.md; on
their own: python -m figures.landing
"""

import pathlib
import sys

import jax
import numpy as np

from figures import demo, rows
from nashmd_jax import asked, files, games
from nashmd_jax.worlds import answer, planted, stage

CONFIG = "configs/worlds.py"
OUT = pathlib.Path("out") / "landing.json"
NASH = {
  "self_play": "self-play (β = 0)",
  "nash_md_eighth": "Nash-MD-PG, β = 1/8",
  "nash_md_half": "Nash-MD-PG, β = 1/2",
  "ipo_md_eighth": "IPO-MD, β = 1/8, at the point of Nash-MD-PG",
}
# They rest away from the equilibrium.
ELSEWHERE = {"best_response": "best response", "online_dpo": "online DPO"}
# KL in nats, or a gap, below which a policy has landed.
LANDED = 2e-3
MIXTURES = (0.125, 0.25, 0.5, 0.75)
PAGE = pathlib.Path("docs") / "landing.md"
HEAD = """# Where training lands

Made by `make certify`; do not edit.

A T5 of two layers each way is trained by sampling, through the whole stack, in
worlds whose every response can be listed: `configs/worlds.py`. The preference
is planted and cyclic, the start μ is random and not uniform, τ = {kl_coef:g}.
Of online DPO τ is {dpo_kl_coef:g}, log-odds being about 4 (P − ½).
The policy's exact distribution is compared with the exact fixed point of the
algorithm: π ∝ μ exp(P m/τ), m being the mixture that is played, token by token;
of online DPO the π whose τ log(π/μ) is the Bradley-Terry fit to P on pairs of
π's own. KL in nats, means over four prompts; the gap is the duality gap.

## Trained

τ′ is τ/(1−β).

| R | run | KL(fixed ‖ π_θ) | KL(π*_τ ‖ π_θ) | gap | KL(π*_τ′ ‖ m) | gap′ |
|---|---|---|---|---|---|---|
{trained}

R is the longest response, tokens. The columns: distance from the exact fixed
point, from the equilibrium, gap of π_θ at τ, distance of the mixture from the
equilibrium at τ′, its gap at τ′.

Nash-MD-PG and IPO-MD land on one point, which is not π*_τ: what solves the
game is the mixture, at the higher temperature τ/(1−β). Best response rests
further from the equilibrium than any of them, and so does online DPO.

## The token-wise mixture, by enumeration

With the sequence-level mixture m is π* at τ/(1−β) exactly, and so it is for
responses of one token. Normalised at each token it is not; how far it lies
from there:

| τ | β | KL(π*_τ/(1−β) ‖ m) | gap of m at τ/(1−β) | largest log-ratio |
|---|---|---|---|---|
{mixtures}
"""


def load_config(variant: str):
  """`configs/worlds.py` of a variant."""
  path = pathlib.Path(__file__).parents[1] / CONFIG
  return asked.load_config(f"{path}:{variant}")


def landed(variant: str) -> dict[str, dict]:
  """Trains what is not trained yet; each run's distances, and its seconds.

  Raises: RuntimeError if the program fails.
  """
  workdir = pathlib.Path("out") / f"worlds-{variant}"
  out, _ = demo.run_main(
    f"--workdir={workdir}", config=f"{CONFIG}:{variant}", quiet=False
  )
  if out.returncode:
    raise RuntimeError(f"{CONFIG}:{variant} ended with {out.returncode}")
  found = {}
  for path in sorted((workdir / "nash").glob("*/done.json")):
    done = files.load_json(path)
    found[path.parent.name] = done["results"] | {"seconds": done["seconds"]}
  return found


def nash_rows(found: dict[str, dict], where: str) -> list[rows.Row]:
  """Runs that should land at their exact point of rest."""
  made = []
  for name, words in NASH.items():
    if name in found:
      one = found[name]
      made += [
        rows.row(
          f"KL(exact ‖ trained), {words}, {where}", one["eval/kl"], "≤", LANDED
        ),
        rows.row(
          f"duality gap of the played mixture at τ/(1−β), {words}, {where}",
          one["eval/mixture_gap"],
          "≤",
          LANDED,
        ),
        rows.row(f"seconds of {words}, {where}", one["seconds"], "≤", 180),
      ]
  return made


def elsewhere_rows(found: dict[str, dict], where: str) -> list[rows.Row]:
  """These rest at points of their own, by the same bar not at π*_τ."""
  made = []
  for name, words in ELSEWHERE.items():
    one = found[name]
    made += [
      rows.row(
        f"KL(exact ‖ trained), {words}, {where}", one["eval/kl"], "≤", LANDED
      ),
      rows.row(
        f"KL(equilibrium ‖ trained), {words} (duality gap "
        f"{one['eval/gap']:.2g}), {where}",
        one["eval/equilibrium_kl"],
        ">",
        LANDED,
      ),
    ]
  return made


def mixture_rows(variant: str, where: str) -> list[rows.Row]:
  """The token-wise mixture against π*_τ′, τ′ = τ/(1−β), by enumeration."""
  config = load_config(variant)
  made = []
  for beta in MIXTURES:
    distance = exact_distances(config, config.nash.kl_coef, beta)
    one_token = config.world.max_response == 1
    figure = distance["log" if one_token else "kl"]
    claim = (
      f"largest |log m − log π*_τ′|, β = {beta:g}, {where}"
      if one_token
      else f"KL(π*_τ′ ‖ m) of the token-wise mixture m (duality gap "
      f"{distance['gap']:.2g}), β = {beta:g}, {where}"
    )
    relation, bar = ("≤", 1e-9) if one_token else (">", 1e-9)
    made.append(rows.row(claim, figure, relation, bar))
  return made


def exact_distances(config, kl_coef: float, beta: float) -> dict[str, float]:
  """How far m lies from π*_τ′: "log" at most, mean "kl" and "gap"."""
  section = config.nash.copy_and_resolve_references()
  section.update({"opponent": "mixture", "mixture": beta, "kl_coef": kl_coef})
  world, exact = stage.solve(config, section)
  with jax.enable_x64(True):
    found = answer.distances(world, exact, jax.numpy.asarray(exact.policy))
  difference = np.abs(exact.mixture - exact.hot_equilibrium).max()
  return {
    "log": float(difference),
    "kl": float(found["mixture_kl"]),
    "gap": float(found["mixture_gap"]),
  }


def cycle_rows() -> list[rows.Row]:
  """The planted preference is cyclic; at random one triple in four is."""
  world = planted.make_world(**load_config("neural").world)
  share = games.cyclic_share(world.preference).min()
  return [
    rows.row(
      "least share of cyclic triples of a prompt", float(share), ">", 0.2
    )
  ]


def write_page(found: dict[str, dict[str, dict]]) -> None:
  """docs/landing.md from the distances of the runs of each world."""
  keys = ("kl", "equilibrium_kl", "gap", "mixture_kl", "mixture_gap")
  names = NASH | ELSEWHERE
  trained = [
    f"| {world} | {names[run].split(', at')[0]} | "
    + " | ".join(f"{one[f'eval/{key}']:.1e}" for key in keys)
    + " |"
    for world, runs in found.items()
    for run, one in runs.items()
  ]
  config = load_config("neural")
  mixtures = []
  for kl_coef in (0.1, config.nash.kl_coef):
    for beta in MIXTURES:
      distance = exact_distances(config, kl_coef, beta)
      cells = (f"{distance[key]:.1e}" for key in ("kl", "gap", "log"))
      mixtures.append(f"| {kl_coef:g} | {beta:g} | {' | '.join(cells)} |")
  text = HEAD.format(
    kl_coef=config.nash.kl_coef,
    dpo_kl_coef=config.nash.runs.online_dpo.kl_coef,
    trained="\n".join(trained),
    mixtures="\n".join(mixtures),
  )
  files.save_text(PAGE, text)


def landing_rows() -> list[rows.Row]:
  """All rows of this file; minutes, unless the runs are there already."""
  long, short = "31 responses of up to 4 tokens", "5 responses of one token"
  neural, one_token = landed("neural"), landed("one_token")
  write_page({"4": neural, "1": one_token})
  return [
    *cycle_rows(),
    *nash_rows(neural, long),
    *elsewhere_rows(neural, long),
    *nash_rows(one_token, short),
    *mixture_rows("one_token", short),
    *mixture_rows("neural", long),
  ]


if __name__ == "__main__":
  sys.exit(rows.report(OUT, landing_rows()))
