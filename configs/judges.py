"""The section `judges` of a run on text: of judges that are not trained.

Each is read where it is named alone, as in

  python -m nashmd_jax.main --config=configs/docstrings.py \
    --config.nash.judge=ensemble

and docs/judges.md says what they are.
"""

import ml_collections

placeholder = ml_collections.config_dict.placeholder

# Of the preference model and the judge of Munos et al., ICML 2024.
PAIR = (
  "You are an expert summary rater. Given a piece of text and two of its "
  "possible summaries, output 1 or 2 to indicate which summary is better. "
  "Text - {prompt}, Summary 1 - {first}, Summary 2 - {second}. "
  "Preferred Summary -"
)
# Of the reward model.
SINGLE = "Context - {prompt}, Summary - {first}"


def get_config() -> ml_collections.ConfigDict:
  """The section."""
  config = ml_collections.ConfigDict()
  # "preference-1" is the preference model trained once more.
  config.ensemble = {
    "members": ("preference", "preference-1"),
    "rule": "mean",
    "deviations": 1.0,
  }
  config.penalised = {"judge": "preference", "log_odds": 0.02}
  config.recorded = {"file": placeholder(str), "schema": "comparison"}
  config.served = {
    "url": placeholder(str),
    "model": placeholder(str),
    "form": "chat",
    "system": placeholder(str),
    "prompt": PAIR,
    "answers": ("1", "2"),
    "top_logprobs": 5,
    "max_tokens": 8,
    "orders": "both",
    "timeout_seconds": 60.0,
    "retries": 5,
    "connections": 16,
    "per_minute": 0.0,
    "budget_calls": 0,
    "budget_tokens": 0,
    "most_failed": 0.1,
    "key_variable": "OPENAI_API_KEY",
    # None keeps the answers in the workdir.
    "cache": placeholder(str),
  }
  return config
