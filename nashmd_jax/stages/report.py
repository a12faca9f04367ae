"""Stage `report`: one HTML page by itself, and its plots and numbers.

Reads only what the other stages left in the workdir; computes no result.
"""

import pathlib

from nashmd_jax import files, pipeline
from nashmd_jax.evaluation import page, sections
from nashmd_jax.stages import exploit, judge_report, tournament

NAME, PAGE = "report", "index.html"


def run(
  config: pipeline.Config, workdir: pathlib.Path, job: str
) -> dict[str, str]:
  """Writes `report/index.html`, and the SVG and CSV files of what it shows."""
  del config
  results = files.load_object(
    workdir / tournament.NAME / "results.json", *tournament.RESULTS
  )
  folder, parts = workdir / job, page.parts(workdir, results)
  for name, text in sections.beside(parts).items():
    files.save_text(folder / name, text)
  path = folder / PAGE
  files.save_text(path, page.make_page(results, parts))
  return {"page": str(path)}


def renew(workdir: pathlib.Path) -> None:
  """Writes the page of a run again, where there is one."""
  if (workdir / NAME / PAGE).exists():
    run(pipeline.Config(), workdir, NAME)


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
