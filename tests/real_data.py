"""Where the public data lies that no test may bring along."""

import os
import pathlib

FOLDER = pathlib.Path(
  os.environ.get("NASHMD_DATA")
  or pathlib.Path(__file__).parent.parent.parent / "shared" / "data"
)
# Of SmolLM2-135M-Instruct and others, in the Hugging Face layout.
MODELS = pathlib.Path(os.environ.get("NASHMD_MODELS") or "out/models")
SMOLLM2 = MODELS / "smollm2"
UKP = FOLDER / "ukpconvarg1.jsonl.xz"
ABSENT = (
  f"{FOLDER} is not there; set NASHMD_DATA to the folder of "
  "ukpconvarg1.jsonl.xz and scitldr_dev.jsonl.xz, or put it at ../shared/data"
)
