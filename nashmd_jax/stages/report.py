"""Stage `report`: one self-contained HTML page, and its plots as PNGs.

Reads only what the other stages left in the workdir; computes no result.
"""

import pathlib

from nashmd_jax import files, pipeline
from nashmd_jax.evaluation import page, plots
from nashmd_jax.stages import exploit, judge_report, tournament

NAME = "report"


def run(
  config: pipeline.Config, workdir: pathlib.Path, job: str
) -> dict[str, str]:
  """Writes `report/index.html`, `report/curves.png`, `report/win_rates.png`."""
  del config
  results = files.load_object(
    workdir / tournament.NAME / "results.json", *tournament.RESULTS
  )
  folder = workdir / job
  folder.mkdir(parents=True, exist_ok=True)
  curves = folder / "curves.png"
  plots.save_curves(workdir, results["policies"], curves)
  plots.save_win_rates(results, folder / "win_rates.png")
  files.save_text(
    folder / "index.html", page.make_page(workdir, results, curves)
  )
  return {"page": str(folder / "index.html")}


STAGE = pipeline.Stage(
  name=NAME,
  settings={},
  check=lambda config, findings: None,
  jobs=lambda config: [NAME],
  needs=lambda config, job: [
    tournament.NAME,
    *judge_report.STAGE.jobs(config),
    *exploit.STAGE.jobs(config),
  ],
  reads=lambda config, job: {},
  run=run,
  alone=True,
)
