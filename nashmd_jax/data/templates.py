"""Chat templates in jinja's sandbox, at a bounded cost.

A template is code that somebody wrote. In the sandbox it reaches nothing but
the messages; here it also cannot loop, call or grow text without end: what it
does is counted, and what is beyond any honest template is refused.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import datetime
import functools
import inspect
import json
import re
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox
import jinja2.visitor

from nashmd_jax import mistakes

# What a template gets that asks for today: the same prompts every day.
TODAY = datetime.datetime(2024, 7, 26)
MOST_SOURCE = 2**18  # characters
MOST_STEPS = 50_000  # iterations and calls of a rendering
MOST_TEXT = 2**20  # characters that it may make, beside what it is given
MOST_TIMES = 30  # what it is given may be in so many texts
MOST_POWER, MOST_BITS = 64, 2**12


class TooMuch(ValueError):
  """A template did more than any honest one does."""


class _Generation(jinja2.ext.Extension):
  """The tag that marks what an assistant says, which is said all the same."""

  tags = {"generation"}

  def parse(self, parser):
    next(parser.stream)
    return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Counted(jinja2.sandbox.ImmutableSandboxedEnvironment):
  """The sandbox, in which iterations, calls and characters are counted."""

  intercepted_binops = frozenset(("+", "*", "**", "%"))

  def __init__(self):
    self.steps = self.room = 0
    super().__init__(
      trim_blocks=True,
      lstrip_blocks=True,
      extensions=[_Generation, jinja2.ext.loopcontrols],
      finalize=self.taken,
    )
    self.filters["tojson"] = _to_json
    self.filters = {
      name: self._counted_filter(name, one)
      for name, one in self.filters.items()
    }
    del self.globals["lipsum"]
    self.globals |= {
      "raise_exception": _refuse,
      "strftime_now": TODAY.strftime,
    }

  def begin(self, given: int) -> None:
    """Starts to count, for a rendering of so many characters."""
    self.steps, self.room = MOST_STEPS, MOST_TEXT + MOST_TIMES * given

  def step(self, weight: int = 0) -> None:
    self.steps -= 1
    if self.steps < 0:
      raise TooMuch(f"it goes on after {MOST_STEPS:,} steps")
    self.take(weight)

  def take(self, size: int) -> None:
    self.room -= size
    if self.room < 0:
      raise TooMuch("it makes texts without end")

  def taken(self, value: Any) -> Any:
    """A value that was made or is written, what it holds counted."""
    level = [value]
    while level:
      self.take(sum(len(one) for one in level if isinstance(one, str)))
      lists = [one for one in level if isinstance(one, list | tuple | dict)]
      self.take(sum(map(len, lists)))
      level = [
        one
        for held in lists
        for one in (held.values() if isinstance(held, dict) else held)
      ]
    return value

  def each(self, values: Iterable[Any], weight: int) -> Iterator[Any]:
    for value in values:
      self.step(weight)
      yield value

  def joined(self, *values: Any) -> str:
    return "".join(str(self.taken(value)) for value in values)

  def call(self, context, target, *args, **kwargs):
    name = getattr(target, "__name__", "")
    method = inspect.unwrap(target)  # the sandbox fills in texts by its own
    args = self._checked(name, getattr(method, "__self__", None), args, kwargs)
    return self.taken(super().call(context, target, *args, **kwargs))

  def call_binop(self, context, operator, left, right):
    self.step()
    if operator == "**" and abs(right) > MOST_POWER:
      raise TooMuch(f"a power of {mistakes.quote(right)}")
    if operator == "%" and isinstance(left, str):
      _check_format(left)
    for one, times in ((left, right), (right, left)):
      sized = isinstance(one, str | list | tuple)
      if operator == "*" and sized and isinstance(times, int):
        self.take(len(one) * max(0, times))
    found = super().call_binop(context, operator, left, right)
    if isinstance(found, int) and found.bit_length() > MOST_BITS:
      raise TooMuch("it makes numbers without end")
    return self.taken(found)

  def _checked(self, name: str, own: Any, args, kwargs) -> list[Any]:
    """The arguments of a call or filter, refused if it would take too much."""
    self.step()
    args = list(args)
    for value in (*args, *kwargs.values()):
      if isinstance(value, int) and abs(value) > MOST_STEPS:
        raise TooMuch(f"the number {mistakes.quote(value)} in a call")
    texts = [one for one in (own, *args) if isinstance(one, str)]
    if name == "replace" and len(texts) > 2:
      self.take(len(texts[2]) * texts[0].count(texts[1]))
    elif name in ("format", "format_map") and texts:
      _check_format(texts[0])
    elif name == "join":
      for place, value in enumerate(args):
        if isinstance(value, Iterable):
          args[place] = self.taken(list(value))
          self.take(len(args[place]) * sum(map(len, texts)))
    return args

  def _counted_filter(self, name: str, one: Callable) -> Callable:
    @functools.wraps(one)  # which also keeps that it takes the context first
    def counted(*args, **kwargs):
      args = self._checked(name, None, args, kwargs)
      for value in args:
        if not isinstance(value, str):
          self.taken(value)
      return self.taken(one(*args, **kwargs))

    return counted

  def _parse(self, source, name, filename):
    """Puts what counts into the loops and where texts are joined."""
    tree = super()._parse(source, name, filename)
    for loop in tree.find_all(jinja2.nodes.For):
      if loop.recursive:
        raise jinja2.TemplateSyntaxError("a loop is recursive", loop.lineno)
      texts = loop.find_all(jinja2.nodes.TemplateData)
      weight = jinja2.nodes.Const(sum(len(text.data) for text in texts))
      loop.iter = _called("each", [loop.iter, weight], loop.lineno)
    return _Joined().visit(tree)


class _Joined(jinja2.visitor.NodeTransformer):
  """Makes a ~ b a call, so that its text is counted."""

  def visit_Concat(self, node):
    self.generic_visit(node)
    return _called("joined", node.nodes, node.lineno)


def _called(name: str, args: list, line: int) -> jinja2.nodes.Call:
  target = jinja2.nodes.EnvironmentAttribute(name, lineno=line)
  return jinja2.nodes.Call(target, args, [], None, None, lineno=line)


def _check_format(text: str) -> None:
  """Refuses a text to be filled whose fields may be of any width."""
  if re.search(r"\d{5}|%[^a-zA-Z%]*\*|{[^}]*{", text):
    raise TooMuch("it fills in a field without end")


def _to_json(value: Any, indent: int | None = None) -> str:
  return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
  raise jinja2.TemplateError(message)


def make_render(
  template: str, *, tokens: Mapping[str, str], where: str
) -> Callable[[Sequence[Mapping[str, str]], bool], str]:
  """What renders messages: (messages, begun) -> text.

  Args:
    template: jinja, as chat_template.jinja holds it.
    tokens: names of special tokens by what they are: "bos_token".
    where: the template is from, for errors.
  Raises: Mistake for a template that is none; what is returned raises one for
    messages that the template does not take, or not at a bounded cost.
  """
  environment = _Counted()
  environment.begin(0)
  try:
    if len(template) > MOST_SOURCE:
      raise TooMuch(f"more than {MOST_SOURCE:,} characters")
    compiled = environment.from_string(template)
  except Exception as error:  # the compiler fails in ways of its own, too
    raise mistakes.Mistake(
      f"{where}: not a chat template ({mistakes.brief(error)})"
    ) from None

  def render(messages: Sequence[Mapping[str, str]], begun: bool) -> str:
    environment.begin(sum(len(one["content"]) for one in messages))
    try:
      return compiled.render(
        **tokens, messages=messages, add_generation_prompt=begun
      )
    except Exception as error:  # a template can do anything
      roles = mistakes.quote([message["role"] for message in messages])
      raise mistakes.Mistake(
        f"{where}: does not take messages of {roles} ({mistakes.brief(error)})"
      ) from None

  return render
