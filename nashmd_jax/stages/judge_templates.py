"""What the judges that a run trains read, in the run's tokens."""

import ml_collections

from nashmd_jax import mistakes, tokenization
from nashmd_jax.data import tokenizer as tokenizer_lib
from nashmd_jax.hub import pretrained
from nashmd_jax.judges import preference_model, table

Config = ml_collections.ConfigDict
SLOTS = {
  "preference": preference_model.PREFERENCE_SLOTS,
  "reward": preference_model.REWARD_SLOTS,
}


def make_template(
  config: Config, tokenizer: tokenizer_lib.Tokenizer, stage: str
) -> preference_model.Template:
  """What the judge of a stage reads, in the run's tokens.

  Raises: Mistake for a template that cannot be.
  """
  kind, _ = table.kind_of(stage)
  section = config[kind].template.to_dict()
  chat = None
  if section.pop("chat"):
    chat = tokenization.load_chat(config, base_section(config, kind))
  around = tokenizer.start_ids, tokenizer.close_ids
  if chat is not None:
    asked = {"role": "user", "content": section["prompt"]}
    section["prompt"], around = chat.render([asked], True), ((), ())
  section["answers"] = answers_of(config, tokenizer, kind)
  try:
    return preference_model.make_template(
      tokenizer.encode_marked,
      SLOTS[kind],
      barred=tokenizer.special_ids,
      around=around,
      **section,
    )
  except ValueError as error:
    raise mistakes.Mistake(f"{kind}.{error}") from None


def answers_of(
  config: Config, tokenizer: tokenizer_lib.Tokenizer, kind: str
) -> tuple[str, ...]:
  """The two answers of a judge: the template's, or what stands for them."""
  return preference_model.fitting_answers(
    tokenizer.encode_marked, config[kind].template.answers
  )


def base_section(config: Config, stage: str) -> str:
  """The model whose adapters the judge of a stage is.

  The policy's where both start alike, so that one base serves both.
  """
  kind, _ = table.kind_of(stage)
  alike = config[kind].start_from_sft or pretrained.same_start(config)
  return "model" if alike else "judge_model"
