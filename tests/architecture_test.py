"""The shape of the house: layers, sizes, the README's map, no TensorFlow."""

import ast
import pathlib
import re
import subprocess
import sys

from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "nashmd_jax"
LAYERS = {
  "arrays": 0,
  "machine": 0,
  "mistakes": 0,
  "none_flags": 0,
  "databases": 1,
  "declare": 1,
  "outside": 1,
  "repetition": 1,
  "turns": 1,
  "owner": 1,
  "files": 1,
  "games": 1,
  "lanes": 1,
  "losses": 1,
  "pipeline": 2,
  "explain": 2,
  "workdir": 2,
  "data": 2,
  "training": 2,
  "asked": 3,
  "changes": 3,
  "logs": 3,
  "status": 3,
  "jobs": 4,
  "models": 3,
  "hub": 4,
  "inspection": 5,
  "sampling": 4,
  "policy": 4,
  "rejection": 5,
  "texts": 5,
  "tokenization": 5,
  "judges": 5,
  "task": 6,
  "nash": 6,
  "evaluation": 6,
  "annotators": 7,
  "stages": 8,
  "worlds": 8,
  "capacity": 9,
  "sweeps": 9,
  "main": 10,
  "sweeps.run": 11,
}
LINEN = {"models"}
FORBIDDEN = {"tensorflow", "pickle", "dill", "cloudpickle", "torch"}


def modules() -> list[pathlib.Path]:
  return sorted(PACKAGE.rglob("*.py"))


def unit_of(path: pathlib.Path) -> str:
  name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
  return name if name in LAYERS else name.split(".")[0]


def imports(path: pathlib.Path) -> set[str]:
  """Dotted names of the modules that a file imports."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found |= {f"{node.module}.{alias.name}" for alias in node.names}
  return found


def own_imports(path: pathlib.Path) -> set[str]:
  return {
    name.removeprefix("nashmd_jax.")
    for name in imports(path)
    if name.startswith("nashmd_jax.")
  }


class LayersTest(parameterized.TestCase):
  def test_every_folder_is_installed(self):
    folders = {path.parent for path in modules()}
    self.assertEqual(
      [f for f in folders if not (f / "__init__.py").exists()], []
    )

  def test_every_unit_has_a_layer(self):
    units = {unit_of(path) for path in modules()} - {"__init__"}
    self.assertEqual(units, set(LAYERS))

  def test_imports_go_strictly_down(self):
    for path in modules():
      unit = unit_of(path)
      for name in own_imports(path):
        other = name if name in LAYERS else name.split(".")[0]
        if other.split(".")[0] != unit:
          self.assertLess(
            LAYERS[other], LAYERS[unit], msg=f"{path} imports {name}"
          )

  def test_no_cycle_inside_a_package(self):
    edges = {}
    for path in modules():
      if path.name != "__init__.py" and path.parent != PACKAGE:
        unit = unit_of(path)
        edges[f"{unit}.{path.stem}"] = {
          ".".join(name.split(".")[:2])
          for name in own_imports(path)
          if name.split(".")[0] == unit
        }
    done = set()
    while edges:
      ready = {name for name, below in edges.items() if not below - done}
      self.assertNotEmpty(ready, msg=f"a cycle among {sorted(edges)}")
      done |= ready
      edges = {name: e for name, e in edges.items() if name not in ready}

  def test_forbidden_imports(self):
    for path in [*modules(), *(ROOT / "configs").glob("*.py")]:
      tops = {name.split(".")[0] for name in imports(path)}
      self.assertEmpty(tops & FORBIDDEN, msg=str(path))
      if any(name.startswith("flax") for name in imports(path)):
        self.assertIn(unit_of(path), LINEN)

  def test_configs_import_nothing_of_the_library(self):
    for path in (ROOT / "configs").glob("*.py"):
      # A sweep reads the config that it is over, by its path.
      allowed = {"ml_collections", "importlib.util", "pathlib"}
      self.assertLessEqual(imports(path), allowed, msg=str(path))

  def test_models_and_losses_know_no_device(self):
    for path in modules():
      if unit_of(path) in ("losses", "models"):
        self.assertNotRegex(path.read_text(), r"psum|pmean|device_put|Mesh")


class SizesTest(absltest.TestCase):
  def test_files_and_functions_stay_small(self):
    for path in [*modules(), *(ROOT / "tests").rglob("*.py")]:
      text = path.read_text()
      self.assertLessEqual(text.count("\n"), 400, msg=str(path))
      for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and PACKAGE in path.parents:
          limit = 150 if path.stem == "loop" else 60
          lines = node.end_lineno - node.lineno + 1
          self.assertLessEqual(lines, limit, msg=f"{path} {node.name}")


class ReadmeTest(absltest.TestCase):
  def test_map_names_every_file_once_and_no_other(self):
    text = (ROOT / "README.md").read_text()
    block = re.search(r"```text\n(setup\.py.*?)```", text, re.DOTALL).group(1)
    listed, folder = [], ""
    for line in block.splitlines():
      name = line.split()[0]
      if not line.startswith(" "):
        folder = ""
      if name.endswith("/"):
        folder = name
        continue
      listed.append(folder + name if line.startswith(" ") else name)
    tracked = subprocess.run(
      ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
      cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    expected = [
      name
      for name in tracked
      if (ROOT / name).exists()
      and not name.startswith(("tests/", "figures/found/"))
      and not name.endswith("__init__.py")
    ]
    self.assertCountEqual(listed, expected)


class LoadedTest(absltest.TestCase):
  def test_what_a_step_does_not_need_is_not_loaded_before_it(self):
    late = ("matplotlib", "scipy.optimize", "scipy.stats", "tensorflow")
    program = (
      "import sys, nashmd_jax.main\n"
      f"print([name for name in {late} if name in sys.modules])"
    )
    run = subprocess.run(
      [sys.executable, "-c", program], cwd=ROOT,
      capture_output=True, text=True, check=True,
    )  # fmt: skip
    self.assertEqual(run.stdout.strip(), "[]")


if __name__ == "__main__":
  absltest.main()
