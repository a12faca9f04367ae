"""The torch side of `make bench`: transformers, and a Nash-MD step by hand.

The step keeps two caches, one for each set of parameters, and runs no token
twice. Needs the `models` extra; nothing of ours but the sizes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import transformers

from figures import bench_sizes

START = 0  # what the decoder of an encoder is fed first
Tensor = torch.Tensor
Model = transformers.PreTrainedModel


class Written(NamedTuple):
  """One response to each prompt, long[B, R]: the policy's and the mixture's."""

  own: Tensor
  other: Tensor


def load(place: str) -> Model:
  """A folder in float32, with attention as transformers chooses it."""
  config = transformers.AutoConfig.from_pretrained(place)
  auto = transformers.AutoModelForCausalLM
  if config.is_encoder_decoder:
    auto = transformers.AutoModelForSeq2SeqLM
  made = auto.from_pretrained(place, dtype=torch.float32)
  # What is None in a call is taken from here.
  made.generation_config.eos_token_id = None
  return made.eval()


def decode(
  policy: str,
  reference: str,
  prompts: list[list[int]],
  new_tokens: int,
  greedy: bool = False,
) -> Callable[[], Any]:
  """`generate` as it comes, one response to each prompt; no token ends it.

  Returns: () -> the tokens [B, R] if greedy, else how many.
  """
  del reference
  model, prompts = load(policy), torch.tensor(prompts)
  settings = transformers.GenerationConfig(
    do_sample=not greedy,
    temperature=None if greedy else bench_sizes.TEMPERATURE,
    top_k=None if greedy else 0,
    top_p=None if greedy else 1.0,
    max_new_tokens=new_tokens,
    eos_token_id=None,
    pad_token_id=0,
    decoder_start_token_id=START,
  )

  @torch.inference_mode()
  def run():
    out = model.generate(
      input_ids=prompts,
      attention_mask=torch.ones_like(prompts),
      generation_config=settings,
    )
    out = out[:, -new_tokens:]
    return out.tolist() if greedy else out.numel()

  return run


def sample(log_probs: Tensor) -> Tensor:
  """One token of each row."""
  return torch.multinomial(log_probs.exp(), 1)


def most_probable(log_probs: Tensor) -> Tensor:
  """The same without a draw."""
  return log_probs.argmax(-1, keepdim=True)


class Reader:
  """One set of parameters, and its cache of the rows that it has read."""

  def __init__(self, model: Model, prompts: Tensor):
    self._model, self._encoded = model, None
    self._cache = transformers.DynamicCache(config=model.config)
    if model.config.is_encoder_decoder:
      self._cache = transformers.EncoderDecoderCache(
        self._cache, transformers.DynamicCache(config=model.config)
      )
      self._encoded = model.get_encoder()(prompts)
      prompts = torch.full((len(prompts), 1), START)
    self.log_probs = self.read(prompts)

  def read(self, tokens: Tensor) -> Tensor:
    """log π(· | all that was read), [rows, V], after further tokens."""
    fed = {"input_ids": tokens, "logits_to_keep": 1}
    if self._encoded is not None:
      fed = {"decoder_input_ids": tokens, "encoder_outputs": self._encoded}
    logits = self._model(
      **fed, past_key_values=self._cache, use_cache=True
    ).logits[:, -1]
    return (logits / bench_sizes.TEMPERATURE).log_softmax(-1)

  def repeat(self, times: int) -> None:
    """As many rows of each."""
    self._cache.batch_repeat_interleave(times)
    self.log_probs = self.log_probs.repeat_interleave(times, 0)
    if self._encoded is not None:
      states = self._encoded.last_hidden_state.repeat_interleave(times, 0)
      self._encoded = type(self._encoded)(last_hidden_state=states)


@torch.inference_mode()
def apart(
  policy: Model, reference: Model, prompts: Tensor, choose=sample
) -> Written:
  """y of π, then y′ of the geometric mixture at each prefix, a loop each."""
  ours, own = Reader(policy, prompts), []
  for number in range(bench_sizes.NEW_TOKENS):
    own.append(choose(ours.read(own[-1]) if number else ours.log_probs))
  ours, theirs, other = Reader(policy, prompts), Reader(reference, prompts), []
  for number in range(bench_sizes.NEW_TOKENS):
    log_probs, ref_log_probs = (
      one.read(other[-1]) if number else one.log_probs for one in (ours, theirs)
    )
    other.append(choose(mixed(log_probs, ref_log_probs)))
  return Written(torch.cat(own, 1), torch.cat(other, 1))


@torch.inference_mode()
def together(
  policy: Model, reference: Model, prompts: Tensor, choose=sample
) -> Written:
  """The same in one loop, as ours is.

  The policy reads each prompt once, and then the tokens of both responses in
  one batch; the reference reads those of y′.
  """
  ours, theirs = Reader(policy, prompts), Reader(reference, prompts)
  ours.repeat(2)
  log_probs, ref_log_probs, written = ours.log_probs, theirs.log_probs, []
  for number in range(bench_sizes.NEW_TOKENS):
    if number:
      log_probs = ours.read(written[-1])
      ref_log_probs = theirs.read(written[-1][1::2])
    log_probs[1::2] = mixed(log_probs[1::2], ref_log_probs)
    written.append(choose(log_probs))
  tokens = torch.cat(written, 1)
  return Written(tokens[::2], tokens[1::2])


def mixed(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
  """log-probs of the geometric mixture."""
  weight = bench_sizes.MIXTURE
  return ((1 - weight) * log_probs + weight * ref_log_probs).log_softmax(-1)


ROLLOUTS = {"apart": apart, "together": together}


def judge(own: Tensor, other: Tensor) -> Tensor:
  """P(y ≻ y′), [B]; see `bench_sizes.SPREAD`."""
  apart = own.float().mean(1) - other.float().mean(1)
  return torch.sigmoid(apart / bench_sizes.SPREAD)


def response_log_probs(
  model: Model, prompts: Tensor, responses: Tensor
) -> Tensor:
  """log π(y_n | x, y_<n), [B, R]; logits of no other place."""
  fed, length = responses[:, :-1], responses.shape[1]
  if model.config.is_encoder_decoder:
    fed = torch.nn.functional.pad(fed, (1, 0), value=START)
    logits = model(prompts, decoder_input_ids=fed, use_cache=False).logits
  else:
    fed = torch.cat([prompts, fed], 1)
    logits = model(fed, use_cache=False, logits_to_keep=length).logits
  logits = logits / bench_sizes.TEMPERATURE
  return -torch.nn.functional.cross_entropy(
    logits.flatten(0, 1), responses.flatten(), reduction="none"
  ).view(responses.shape)


def nash_loss(
  log_prob: Tensor, ref_log_prob: Tensor, win_prob: Tensor
) -> Tensor:
  """Nash-MD-PG with the KL to go; see PAPER: −mean_B Σ_n log π · sg[…]."""
  ratio = (log_prob - ref_log_prob).detach()
  to_go = ratio.flip(1).cumsum(1).flip(1)
  bracket = win_prob[:, None] - 0.5 - bench_sizes.KL_COEF * to_go
  return -(log_prob * bracket).sum(1).mean()


class Learner:
  """The policy in training, its optimizer, and the frozen reference."""

  def __init__(self, policy: str, reference: str):
    self.policy, self.reference = load(policy), load(reference)
    self.reference.requires_grad_(False)
    decays = [p for p in self.policy.parameters() if p.ndim > 1]
    scales = [p for p in self.policy.parameters() if p.ndim == 1]
    self._optimizer = torch.optim.AdamW(
      [{"params": decays}, {"params": scales, "weight_decay": 0.0}],
      lr=bench_sizes.LEARNING_RATE,
      betas=bench_sizes.BETAS,
      weight_decay=bench_sizes.WEIGHT_DECAY,
      fused=True,
    )

  def gradient(
    self, prompts: Tensor, responses: Tensor, win_prob: Tensor
  ) -> float:
    """Leaves the gradient on the parameters; returns the loss."""
    with torch.no_grad():
      ref_log_prob = response_log_probs(self.reference, prompts, responses)
    log_prob = response_log_probs(self.policy, prompts, responses)
    loss = nash_loss(log_prob, ref_log_prob, win_prob)
    self._optimizer.zero_grad()
    loss.backward()
    return loss.item()

  def update(self) -> float:
    """Clips the gradient and takes a step; returns its norm."""
    norm = torch.nn.utils.clip_grad_norm_(
      self.policy.parameters(), bench_sizes.MAX_NORM
    )
    self._optimizer.step()
    return norm.item()


def step(
  policy: str, reference: str, prompts: list[list[int]], how: str
) -> Callable[[], dict[str, float]]:
  """A step of Nash-MD-PG: rollout, judge, update.

  Args:
    how: a key of `ROLLOUTS`.
  """
  learner, prompts = Learner(policy, reference), torch.tensor(prompts)

  def run():
    written = ROLLOUTS[how](learner.policy, learner.reference, prompts)
    win_prob = judge(*written)
    loss = learner.gradient(prompts, written.own.clone(), win_prob.clone())
    return {"loss": loss, "grad_norm": learner.update()}

  return run


def learn(
  policy: str,
  reference: str,
  prompts: list[list[int]],
  responses: list[list[int]],
  win_prob: Sequence[float],
) -> Callable[[], dict[str, float]]:
  """Loss and norm of its gradient on what another side has written."""
  learner = Learner(policy, reference)

  def run():
    loss = learner.gradient(*map(torch.tensor, (prompts, responses, win_prob)))
    # The norm that clipping computes in float32 is 2e-4 off.
    norms = [p.grad.double().norm() for p in learner.policy.parameters()]
    return {"loss": loss, "grad_norm": torch.stack(norms).norm().item()}

  return run


def write(
  policy: str, reference: str, prompts: list[list[int]], how: str
) -> Callable[[], dict[str, Any]]:
  """The most probable y and y′, and what the judge says of them."""
  sets = load(policy), load(reference)

  def run():
    found = ROLLOUTS[how](*sets, torch.tensor(prompts), most_probable)
    return {
      "own": found.own.tolist(),
      "other": found.other.tolist(),
      "win_prob": judge(*found).tolist(),
    }

  return run


transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
PIECES = {"decode": decode, "step": step, "learn": learn, "write": write}
