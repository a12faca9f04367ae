"""What is told of a run besides numbers: which it is, and what it writes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

from nashmd_jax import mistakes

LONGEST = 400  # characters of a text in the log


class Run(NamedTuple):
  """The training of a job, as a writer is told of it.

  Attributes:
    job: its name, such as "nash/nash_md".
    folder: of the job.
    start_step: that it goes on from, 0 for a new one.
    project: that it is filed under where there are projects.
    group: what all jobs of its workdir have in common there.
    settings: the config, by dotted name.
  """

  job: str
  folder: pathlib.Path
  start_step: int
  project: str
  group: str
  settings: Mapping[str, Any]


class Sample(NamedTuple):
  """What was written for one held-out prompt.

  Attributes:
    texts: by name, in order: the prompt, and what each has written.
    scores: what judges say of them, by the name of the metric that is their
      mean; NaN where one could not judge.
  """

  texts: Mapping[str, str]
  scores: Mapping[str, float]


class Evaluation(NamedTuple):
  """What an evaluation gives.

  Attributes:
    scores: scalars on held-out data, by name.
    samples: of what was written for it, where anything was.
  """

  scores: Mapping[str, float]
  samples: Sequence[Sample] = ()

  @classmethod
  def of(cls, found: "Mapping[str, float] | Evaluation") -> "Evaluation":
    """Of what an experiment's evaluation gave; names begin with "eval/"."""
    scores, samples = found if isinstance(found, cls) else (found, ())
    return cls({f"eval/{k}": float(x) for k, x in scores.items()}, samples)


NOTHING = Evaluation({})
# (step, scalars by name, samples of it if any) -> None
Write = Callable[[int, Mapping[str, float], Sequence[Sample]], None]


def as_rows(step: int, samples: Sequence[Sample]) -> list[dict[str, Any]]:
  """Samples as JSON: {"step", "texts", "scores"}."""
  return [{"step": step, **sample._asdict()} for sample in samples]


def lines(job: str, step: int, samples: Sequence[Sample]) -> Iterator[str]:
  """Samples for the log: long texts are cut, and nothing steers a terminal."""
  for number, sample in enumerate(samples, start=1):
    yield f"{job}: step {step}, sample {number} of {len(samples)}"
    for name, text in sample.texts.items():
      yield f"  {name}: {mistakes.bounded(mistakes.plain(text), LONGEST)}"
    yield f"  {_scores(sample)}"


def markdown(samples: Sequence[Sample]) -> str:
  """Samples as Markdown, their texts to the letter and in full."""
  pieces = []
  for number, sample in enumerate(samples, start=1):
    pieces.append(f"### Sample {number}")
    for name, text in sample.texts.items():
      block = "\n".join(f"    {line}" for line in text.splitlines())
      pieces += [f"**{name}**", block]
    pieces.append(_scores(sample))
  return "\n\n".join(pieces)


def _scores(sample: Sample) -> str:
  return ", ".join(f"{name} {x:.3f}" for name, x in sample.scores.items())
