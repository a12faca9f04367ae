"""The section of a run's page on what was run, where, at what cost."""

from collections.abc import Iterator, Mapping
import html
import json
import pathlib
from typing import Any

from nashmd_jax import asked, files
from nashmd_jax import workdir as workdir_lib
from nashmd_jax.evaluation import sections, sheets
from nashmd_jax.training import metrics

# Of `machine.describe`, what a reader calls it.
MACHINE = {
  "nashmd_jax": "nashmd_jax",
  "python": "Python",
  "jax": "JAX",
  "jaxlib": "jaxlib",
  "device": "Device",
  "devices": "Devices",
  "processes": "Processes",
  "system": "System",
  "cores": "CPU cores of a host",
  "memory_gib": "Memory of a host, GiB",
}
COST, HOUR = "judge_", 3600


def section(workdir: pathlib.Path) -> sections.Section:
  """Settings that differ from the file, the machine, time and costs."""
  done = workdir_lib.finished(workdir)
  settings, machines = _settings(workdir), _machines(done)
  stages, costs = _stages(done), _costs(workdir, done)
  tables = [one for one in (settings, machines, stages, costs) if one.rows]
  body = (
    _settings_told(workdir, settings)
    + _machines_told(machines)
    + "<h3>Stages</h3>"
    + sheets.table(
      ["Stage", "Seconds", "Device hours", "From"],
      ([a, f"{b:,.0f}", _hours(c), d] for a, b, c, d, _ in stages.rows),
    )
    + '<p class="note">Of a stage that was cut off, the time since it last '
    "went on. Device hours: that time on every device of the run.</p>"
    + _costs_told(costs)
    + sheets.links(*tables)
  )
  return sections.Section("run", "What was run", body, tables)


def _settings(workdir: pathlib.Path) -> sheets.Sheet:
  path, rows = workdir / asked.NAME, []
  if path.exists():
    _, changed = asked.load(path)
    rows = [
      (name, *(json.dumps(value, ensure_ascii=False) for value in both))
      for name, both in changed.items()
    ]
  return sheets.Sheet("settings", ("setting", "in_the_file", "here"), rows)


def _settings_told(workdir: pathlib.Path, settings: sheets.Sheet) -> str:
  path, every = workdir / asked.NAME, workdir / workdir_lib.CONFIG
  told = "<p>Which config file it was started from is not known.</p>"
  if path.exists():
    name = html.escape(asked.load(path)[0])
    told = f"<p>Config <code>{name}</code>, with every setting as there.</p>"
    if settings.rows:
      told = (
        f"<p>Config <code>{name}</code>, but for these settings:</p>"
        + sheets.table(["Setting", "In the file", "Here"], settings.rows)
      )
  if every.exists():
    text = json.dumps(files.load_json(every), indent=1, ensure_ascii=False)
    told += sheets.folded("All settings", f"<pre>{html.escape(text)}</pre>")
  return told


def _machines(done: Mapping[str, Any]) -> sheets.Sheet:
  """What stages ran on, those that ran on the same together."""
  found: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
  for name, one in done.items():
    if "machine" in one:
      machine = one["machine"]
      found.setdefault(json.dumps(machine), (machine, []))[1].append(name)
  rows = [
    (fact, machine.get(fact), ", ".join(names))
    for machine, names in found.values()
    for fact in MACHINE
  ]
  return sheets.Sheet("machine", ("fact", "value", "stages"), rows)


def _machines_told(machines: sheets.Sheet) -> str:
  groups: dict[str, list[list[str]]] = {}
  for fact, value, names in machines.rows:
    groups.setdefault(names, []).append([MACHINE[fact], str(value)])
  told = [
    "<h3>Machine</h3>"
    + (f"<p>Of {html.escape(names)}:</p>" if len(groups) > 1 else "")
    + sheets.table(["", "Version or number"], rows)
    for names, rows in groups.items()
  ]
  return "".join(told) or "<p>What it ran on is not known.</p>"


def _stages(done: Mapping[str, Any]) -> sheets.Sheet:
  rows = []
  for name, one in done.items():
    devices = one.get("machine", {}).get("devices")
    hours = None if devices is None else one["seconds"] * devices / HOUR
    rows.append(
      (name, one["seconds"], hours, one.get("reused", "this run"), devices)
    )
  own = [row for row in rows if row[3] == "this run"]
  known = [row[2] for row in own if row[2] is not None]
  if own:
    whole = sum(known) if len(known) == len(own) else None
    seconds = sum(row[1] for row in own)
    rows.append(("all of this run", seconds, whole, "", None))
  head = ("stage", "seconds", "device_hours", "from", "devices")
  return sheets.Sheet("stages", head, rows)


def _hours(hours: float | None) -> str:
  return "–" if hours is None else f"{hours:.3f}"


def _costs(workdir: pathlib.Path, done: Mapping[str, Any]) -> sheets.Sheet:
  """What judges told of the costs of their answers in training, summed."""
  rows = []
  for name in done:
    folder = workdir / name
    key = folder / workdir_lib.KEY
    told = list(_told_costs(metrics.load_metrics(folder / "metrics.jsonl")))
    if told and key.exists():
      settings = workdir_lib.load_key(key)["settings"]
      prompts = settings["nash.data.batch_size"]
      sums: dict[str, float] = {}
      for cost, steps, mean in told:
        sums[cost] = sums.get(cost, 0.0) + steps * mean * prompts
      rows += [(name, cost, round(total)) for cost, total in sums.items()]
  return sheets.Sheet("costs", ("stage", "cost", "total"), rows)


def _told_costs(rows) -> Iterator[tuple[str, int, float]]:
  """Of every row the costs, its number of steps and the mean a prompt."""
  before = 0
  for row in rows:
    for name in row:
      if name.startswith(COST):
        yield name.removeprefix(COST), row["step"] - before, row[name]
    before = row["step"]


def _costs_told(costs: sheets.Sheet) -> str:
  if not costs.rows:
    return ""
  return "<h3>What the judges cost in training</h3>" + sheets.table(
    ["Stage", "Of", "In all"],
    ([name, cost, f"{total:,}"] for name, cost, total in costs.rows),
  )
