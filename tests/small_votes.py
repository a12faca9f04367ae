"""A tournament to annotate, and a client that votes as the page does."""

from collections.abc import Callable, Iterator
import contextlib
import http.client
import json
import pathlib
import threading
from typing import Any
from unittest import mock
from urllib import parse

import ml_collections
import numpy as np

from configs import docstrings
from nashmd_jax import files
from nashmd_jax.annotators import asking, server
from nashmd_jax.data import records
from nashmd_jax.evaluation import judged
from nashmd_jax.stages import annotate, tournament
from tests import small_records

POLICIES = ("sft", "nash_md")
HOSTILE = "</p><script>alert(1)</script><img src=x onerror='a()'>${title}"


def write(
  workdir: pathlib.Path, *, count: int = 24, certain: int = 6
) -> pathlib.Path:
  """What the stage reads of a tournament of two policies.

  Args:
    count: records; the first has texts that mean harm, the last two the same
      response of both policies.
    certain: records of which the judge is certain to 0.95, of all but one as
      `by_text` is.
  """
  folder = workdir / tournament.NAME
  rows = [small_records.record(i) for i in range(count)]
  rows[0]["prompt"] = HOSTILE
  wrote = {
    name: [f"{name} says {i} of it" for i in range(count)] for name in POLICIES
  }
  wrote["sft"][0], wrote["nash_md"][0] = HOSTILE, f"nash_md {HOSTILE}"
  wrote["nash_md"][-2:] = wrote["sft"][-2:]
  for name, texts in wrote.items():
    answered = [
      row | {"response": text} for row, text in zip(rows, texts, strict=True)
    ]
    records.save_records(folder / "responses" / f"{name}.jsonl", answered)
  records.save_records(folder / "responses" / "written.jsonl", rows)
  results = dict.fromkeys(tournament.RESULTS)
  results |= {"policies": list(POLICIES), "judges": {"preference": {}}}
  files.save_json(folder / "results.json", results)
  prob = np.where(np.arange(count) < certain, 0.05, 0.3)
  prob[1] = 0.95
  said = {"preference": [prob]}
  ids = [row["id"] for row in rows]
  judged.save(folder / judged.NAME, ids, POLICIES, said)
  return workdir


def config(**section: Any) -> ml_collections.ConfigDict:
  """A config that asks about that tournament, at any port that is free."""
  made = docstrings.get_config("tiny").unlock()
  made.annotate.update(
    {"policies": POLICIES, "port": 0, "repeats": 0.2, "golden": 0.25, **section}
  )
  return made.lock()


class Client:
  """Votes over one connection, as the page does.

  Attributes:
    shown: what was answered last.
  """

  def __init__(self, link: str, annotator: str):
    """Begins where the annotator left off."""
    url = parse.urlsplit(link)
    self._connection = http.client.HTTPConnection(url.netloc, timeout=30)
    self._query, self._annotator = url.query, annotator
    self.shown = self.post("next", annotator=annotator)

  def post(self, path: str, **what: Any) -> dict[str, Any]:
    """What is answered; raises RuntimeError for what is refused."""
    self._connection.request(
      "POST",
      f"/{path}?{self._query}",
      json.dumps(what),
      {"Content-Type": server.JSON},
    )
    answer = self._connection.getresponse()
    told = json.loads(answer.read())
    if answer.status != 200:
      raise RuntimeError(f"{answer.status}: {told['error']}")
    return told

  def vote(self, choice: str, seconds: float = 1.5) -> dict[str, Any]:
    """Answers what is shown."""
    self.shown = self.post(
      "vote",
      annotator=self._annotator,
      place=self.shown["place"],
      choice=choice,
      seconds=seconds,
    )
    return self.shown

  def is_done(self) -> bool:
    """Whether all is answered."""
    return self.shown["place"] == self.shown["of"]

  def close(self) -> None:
    """Ends the connection."""
    self._connection.close()


def is_shown(place: int) -> str:
  """Of the page, JavaScript: whether a question, from 1, can be answered."""
  return (
    f"document.getElementById('told').textContent.startsWith('{place} ') && "
    "document.querySelector('[aria-busy=false]') !== null"
  )


def link(line: str) -> str:
  """The link in what the stage prints first."""
  return next(word for word in line.split() if "http://" in word).rstrip(";")


def by_text(shown: dict[str, Any]) -> str:
  """Prefers what nash_md wrote, wherever it stands."""
  left = shown[asking.LEFT].startswith("nash_md")
  return asking.LEFT if left else asking.RIGHT


@contextlib.contextmanager
def running(
  made: ml_collections.ConfigDict, workdir: pathlib.Path
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
  """The stage in a thread: its link, and how to wait for its results."""
  ready, found = threading.Event(), {}

  def tell(link, *rest):
    del rest
    found["link"] = link
    ready.set()

  def work():
    try:
      found["results"] = annotate.run(made, workdir, annotate.NAME)
    except BaseException as error:
      found["error"] = error
      ready.set()

  def wait():
    thread.join(30)
    if "error" in found:
      raise found["error"]
    return found["results"]

  with mock.patch.object(annotate, "tell", tell):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ready.wait(30)
    if "error" in found:
      raise found["error"]
    yield found["link"], wait
