"""`make demo`: the main job, then the figures of it in out/demo.json."""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp

from figures import rows
from nashmd_jax import files, policy, sampling
from nashmd_jax.evaluation import win_rates
from nashmd_jax.nash import opponents
from tests import certificate, gradient_oracle, t5_test

CONFIG = "configs/docstrings.py"
OUT = pathlib.Path("out") / "demo.json"


def run_main(*flags: str, config: str = CONFIG, quiet: bool = False):
  """The program in a process of its own, and the seconds that it took."""
  began = time.monotonic()
  out = subprocess.run(
    [sys.executable, "-m", "nashmd_jax.main", f"--config={config}", *flags],
    capture_output=quiet,
    text=True,
  )
  return out, time.monotonic() - began


def win_rows(workdir: pathlib.Path) -> list[rows.Row]:
  """What the tournament and the judges' evaluations say."""
  results = files.load_json(workdir / "tournament" / "results.json")
  judge = next(iter(results["judges"]))
  rate, low, _ = win_rates.against(results, "nash_md", "sft", judge)
  found = [
    rows.row(
      f"Nash-MD beats SFT under the exact judge at {rate:.3f} over "
      f"{results['prompts']} prompts: lower end of the 95 % interval",
      low,
      ">",
      0.5,
    )
  ]
  for kind in ("preference", "reward"):
    scores = files.load_json(workdir / kind / "done.json")["results"]
    accuracy, best = scores["eval/accuracy"], scores["eval/best_accuracy"]
    found.append(
      rows.row(
        f"held-out accuracy of the {kind} model, above chance; the noise "
        f"allows {best:.3f}",
        accuracy,
        ">",
        0.5,
      )
    )
  return found


def gradient_rows() -> list[rows.Row]:
  """The oracle at vocabulary 3, length 6, float64; KL to go."""
  with jax.enable_x64(True):
    world = gradient_oracle.make_world(6)
    return [
      rows.row(
        f"relative error of the Nash gradient against enumeration, opponent "
        f"{case.opponent}",
        case.measure(world),
        "≤",
        certificate.BAR,
      )
      for case in certificate.CASES
      if (case.algorithm, case.form) == ("Nash-PG", certificate.TO_GO)
    ]


def decode_rows() -> list[rows.Row]:
  """Decode-loop log-probs against teacher forcing, float32."""
  model = t5_test.tiny_model()
  params, batch = model.init(jax.random.key(0)), t5_test.tiny_batch(rows=32)
  found = []
  for temperature in (1.0, 0.7):
    out = sampling.rollout(
      model,
      {"policy": params},
      [opponents.LEARNER],
      prompts=batch["prompts"],
      prompt_mask=batch["prompt_mask"],
      keys=sampling.row_keys(jax.random.key(1), jnp.arange(32), 1),
      max_response=24,
      temperature=temperature,
      eos_ids=(1,),
    )
    tokens, mask = out.tokens[:, 0], out.mask[:, 0]
    expected = policy.response_log_probs(
      model,
      params,
      **(batch | {"responses": tokens}),
      temperature=temperature,
    )
    error = jnp.abs(jnp.where(mask, expected - out.log_prob[:, 0], 0)).max()
    found.append(
      rows.row(
        f"largest difference of decode-loop and teacher-forced log-probs, "
        f"nats, temperature {temperature:g}",
        float(error),
        "≤",
        1e-4,
      )
    )
  return found


def mistake_rows(workdir: pathlib.Path) -> list[rows.Row]:
  """Users' mistakes: seconds to one sentence and exit status 2."""
  found = []
  with tempfile.TemporaryDirectory() as folder:
    data = pathlib.Path(folder) / "data"
    data.mkdir()
    whole = '{"id": "1", "prompt": "a", "response": "b"}\n'
    for split, line in {
      "train": '{"id": "1", \n', "validation": whole, "test": whole,
    }.items():  # fmt: skip
      (data / f"{split}.jsonl").write_text(line)
    new, old = f"--workdir={folder}/run", f"--workdir={workdir}"
    cases = {
      "--config.nash.mixtur=0.2": [new, "--config.nash.mixtur=0.2"],
      "a τ below zero": [new, "--config.nash.kl_coef=-0.1"],
      "a workdir of another seed": [old, "--config.seed=9"],
      "a broken JSON line": [new, f"--config.data.records={data}"],
      "a missing config file": [new],
    }
    for name, flags in cases.items():
      config = "absent.py" if "missing" in name else CONFIG
      out, seconds = run_main(*flags, config=config, quiet=True)
      one = len(out.stderr.strip().splitlines()) == 1
      good = out.returncode == 2 and one and "Traceback" not in out.stderr
      found.append(
        rows.row(
          f"seconds to one sentence and exit status 2 for {name}",
          seconds if good else None,
          "≤",
          10,
        )
      )
  return found


def minutes_taken(workdir: pathlib.Path, started: float, fresh: bool) -> float:
  """Wall-clock minutes since make started; of a resumed job, its own time."""
  if fresh:
    return (time.time() - started) / 60
  done = [files.load_json(path) for path in workdir.rglob("done.json")]
  return sum(one["seconds"] for one in done) / 60


def main() -> int:
  """Runs the job; measures and writes the rows unless all hold already."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--started", type=float, required=True)
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  args = parser.parse_args()
  finished = (args.workdir / "report" / "done.json").exists()
  fresh = not args.workdir.exists()
  out, seconds = run_main(f"--workdir={args.workdir}")
  if out.returncode:
    return out.returncode
  if finished and OUT.exists():
    found = files.load_json(OUT)
    if all(one["holds"] for one in found):
      return rows.report(OUT, found)
  minutes = minutes_taken(args.workdir, args.started, fresh)
  if not finished:
    _, seconds = run_main(f"--workdir={args.workdir}")
  return rows.report(OUT, [
    rows.row("minutes from make demo to the report page", minutes, "≤", 20),
    rows.row("seconds of a second run of the job", seconds, "≤", 30),
    *win_rows(args.workdir),
    *gradient_rows(),
    *decode_rows(),
    *mistake_rows(args.workdir),
  ])  # fmt: skip


if __name__ == "__main__":
  sys.exit(main())
