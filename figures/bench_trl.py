"""TRL's side of `make bench`: its trainer of Nash-MD as it is shipped.

Needs an environment of requirements-trl.lock; nothing of ours but the sizes.
"""

from collections.abc import Callable
import threading
import types

import datasets
import tokenizers
import torch
import transformers
from trl.experimental import nash_md

from figures import bench_sizes


class Judge(torch.nn.Module):
  """The judge of `bench_sizes.SPREAD` as a reward model, which TRL asks for."""

  base_model_prefix = "read"
  config = transformers.PreTrainedConfig(name_or_path="mean id")

  def __init__(self, prompt: int):
    super().__init__()
    self._prompt = prompt

  def read(self, input_ids, **rest):
    """Hidden states [B, T, 1], the mean id of the response at each place."""
    del rest
    mean = input_ids[:, self._prompt :].float().mean(1) / bench_sizes.SPREAD
    states = mean[:, None, None].expand(*input_ids.shape, 1)
    return types.SimpleNamespace(last_hidden_state=states)

  def score(self, states):
    return states


class Turn(transformers.TrainerCallback):
  """Lets the trainer take one step at a time."""

  def __init__(self):
    self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
    self._over = False

  def on_step_begin(self, *state, **rest):
    self._go.acquire()

  def on_step_end(self, *state, **rest):
    self._done.release()

  def run(self, trainer: transformers.Trainer):
    """Trains in a thread."""

    def train():
      try:
        trainer.train()
      finally:
        self._over = True
        self._done.release()

    threading.Thread(target=train, daemon=True).start()

  def take(self):
    """Waits for the next step.

    Raises: RuntimeError if training is over.
    """
    self._go.release()
    self._done.acquire()
    if self._over:
      raise RuntimeError("TRL's trainer has stopped before its last step")


def words(vocab_size: int) -> transformers.PreTrainedTokenizerFast:
  """A tokenizer whose words are ids; the model knows none that ends."""
  made = tokenizers.Tokenizer(
    tokenizers.models.WordLevel(
      {str(number): number for number in range(vocab_size)}, unk_token="0"
    )
  )
  made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=made, eos_token="</s>", pad_token="</s>"
  )


def step(
  policy: str, reference: str, prompts: list[list[int]]
) -> Callable[[], dict[str, float]]:
  """A step of `train`, with the defaults but where the work says otherwise."""
  sets = [
    transformers.AutoModelForCausalLM.from_pretrained(
      place, dtype=torch.float32
    )
    for place in (policy, reference)
  ]
  turn = Turn()
  b1, b2 = bench_sizes.BETAS
  trainer = nash_md.NashMDTrainer(
    model=sets[0],
    ref_model=sets[1],
    reward_funcs=Judge(len(prompts[0])),
    args=nash_md.NashMDConfig(
      output_dir=str(bench_sizes.MODELS.parent / "trl"),
      per_device_train_batch_size=len(prompts),
      max_steps=10**6,
      max_new_tokens=bench_sizes.NEW_TOKENS,
      max_length=len(prompts[0]) + bench_sizes.NEW_TOKENS,
      temperature=bench_sizes.TEMPERATURE,
      mixture_coef=bench_sizes.MIXTURE,
      beta=bench_sizes.KL_COEF,
      learning_rate=bench_sizes.LEARNING_RATE,
      weight_decay=bench_sizes.WEIGHT_DECAY,
      adam_beta1=b1,
      adam_beta2=b2,
      max_grad_norm=bench_sizes.MAX_NORM,
      lr_scheduler_type="constant",
      bf16=False,
      use_cpu=True,
      save_strategy="no",
      logging_strategy="no",
      report_to="none",
      disable_tqdm=True,
    ),
    train_dataset=datasets.Dataset.from_list(
      [{"prompt": " ".join(map(str, ids))} for ids in prompts]
    ),
    processing_class=words(sets[0].config.vocab_size),
    callbacks=[turn],
  )
  turn.run(trainer)

  def run():
    turn.take()
    stats = trainer.stats
    return {
      "ended": stats["val/model_contain_eos_token"][-1],
      "kl": stats["loss/kl"][-1],
      "win_prob": stats["rewards/probabilities"][-1],
    }

  return run


transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
datasets.disable_progress_bars()
PIECES = {"step": step}
