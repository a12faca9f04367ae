"""What the paper's tables in miniature say, in sentences for each verdict."""

from collections.abc import Iterable, Mapping, Sequence

from figures import paper_found, paper_runs, paper_tables
from figures.paper_tables import Comparison, Figure, Point

AGREES, OPPOSITE, OPEN = "agrees", "opposite", "open"
LABELS = {
  "sft": "SFT",
  "rlhf": "RLHF",
  "self_play": "SP",
  "best_response": "BR",
  "ema_999": "EMA .999",
  "ema_9995": "EMA .9995",
  "ema_999_average": "EMA .999*",
  "ema_9995_average": "EMA .9995*",
  **{f"md_{beta}": f"MD .{beta.rstrip('0')}" for beta in
     ("125", "250", "375", "500", "625", "750")},
}  # fmt: skip


TITLES = {
  paper_found.HELD_OUT: "the held-out raters",
  paper_found.SECOND: "raters with other criteria",
}


def label(name: str) -> str:
  """A policy's name as the paper's tables have it."""
  base = name.removesuffix("_mixture")
  told = LABELS.get(base, base)
  return told if base == name else f"{told} mixture"


def labels(names: Sequence[str]) -> str:
  """Several of them, "none" of none."""
  return ", ".join(map(label, names)) or "none"


def number(value: float | None, digits: int = 3) -> str:
  """A number, or a dash for what is not known."""
  return "–" if value is None else f"{value:.{digits}f}"


def figure(one: Sequence[float | None] | None, digits: int = 3) -> str:
  """A number with the ends of its interval, where it has one."""
  if one is None:
    return "–"
  value, low, high = one[:3]
  if low is None or high is None:
    return number(value, digits)
  ends = f"{low:.{digits}f} to {high:.{digits}f}"
  return f"{value:.{digits}f} ({ends})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """A table in Markdown."""
  lines = [head, ["---"] * len(head), *rows]
  return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def listed(lines: Iterable[str]) -> str:
  """A list in Markdown."""
  return "".join(f"- {line}\n" for line in lines)


def verdict(one: Comparison) -> str:
  """Whether a comparison comes out as the paper has it."""
  return {1: AGREES, -1: OPPOSITE, 0: OPEN}[one.decided()]


def compared(pair: tuple[str, str], one: Comparison) -> str:
  """A comparison with its interval and p-value, and nothing of the paper."""
  first, second = map(label, pair)
  odds = f"{figure(one)}, p = {one.p_value:.2g}"
  return f"{first} is preferred to {second} with {odds}"


def said(pair: tuple[str, str], one: Comparison, strict: bool) -> str:
  """The sentence of one comparison of a point.

  Args:
    pair: who wins against whom, as the paper has it.
    one: the comparison.
    strict: see `paper_tables.Point`.
  """
  first, second = map(label, pair)
  rest = {
    (AGREES, True): "as in the paper",
    (AGREES, False): f"{first} is better, so not worse, as in the paper",
    (OPPOSITE, True): f"the opposite of the paper, {second} wins",
    (OPPOSITE, False): f"the opposite of the paper, {first} is worse",
    (OPEN, True): "it cannot be told who wins",
    (OPEN, False): "the two cannot be told apart; at worst, by this interval, "
    f"{first} is preferred with {one.low:.3f}",
  }[verdict(one), strict]
  return f"{compared(pair, one)}: {rest}."


def of_mixture(pair: tuple[str, str], one: Comparison) -> str:
  """The sentence of a deployed mixture against the last policy."""
  rest = {
    AGREES: "the mixture is better",
    OPPOSITE: "the last policy is better",
    OPEN: "the two cannot be told apart",
  }[verdict(one)]
  return f"{compared(pair, one)}: {rest}."


def point(
  one: Point, comparisons: Mapping[tuple[str, str], Comparison]
) -> tuple[str, list[str]]:
  """What a point comes to in all, and a sentence of each of its pairs."""
  known = [pair for pair in one.pairs if pair in comparisons]
  missing = sorted(
    {
      name
      for pair in one.pairs
      for name in pair
      if all(name not in there for there in comparisons)
    }
  )
  found = [verdict(comparisons[pair]) for pair in known]
  lines = [said(pair, comparisons[pair], one.strict) for pair in known]
  if missing:
    lines.append(f"Not every seed has {labels(missing)}.")
  return summary(found, len(one.pairs)), lines


def summary(found: Sequence[str], wanted: int) -> str:
  """What some verdicts come to.

  Args:
    found: of the comparisons that could be made.
    wanted: how many there should be.
  """
  if not found:
    return "cannot be said yet"
  counts = {kind: found.count(kind) for kind in (AGREES, OPPOSITE, OPEN)}
  if counts[AGREES] == wanted:
    return "agrees"
  if counts[OPPOSITE] == wanted:
    return "does not agree, the opposite holds"
  if counts[OPEN] == wanted:
    return "cannot be told apart"
  told = [
    f"{counts[kind]} of {wanted} {words}"
    for kind, words in (
      (AGREES, "agree"),
      (OPPOSITE, "come out the other way"),
      (OPEN, "cannot be told apart"),
    )
    if counts[kind]
  ]
  absent = wanted - len(found)
  return ", ".join(told + ([f"{absent} of {wanted} missing"] if absent else []))


def overrated(name: str, curve: paper_runs.Curve) -> str:
  """Whether the judge that a run learnt from came to overrate it."""
  sign, late = _sign(curve.overrated), _sign(curve.late)
  judged = {
    1: f"the {curve.judge} judge overrates it at the end",
    -1: f"the {curve.judge} judge underrates it at the end",
    0: f"what the {curve.judge} judge makes of it cannot be told from what the "
    "exact raters do",
  }[sign]
  went = {
    1: "the exact win rate still rises in the second half",
    -1: "the exact win rate falls in the second half",
    0: "how the exact win rate goes in the second half cannot be told",
  }[late]
  over = (
    " That is over-optimisation: the more is learnt, the less is gained."
    if (sign, late) == (1, -1)
    else ""
  )
  return (
    f"{label(name)}, at a KL of {curve.kl[-1]:.2f} nats: {judged}, by "
    f"{figure(curve.overrated)}, and {went}, by {figure(curve.late)}.{over}"
  )


def _sign(one: Figure | tuple) -> int:
  """1 or −1 where an interval has 0 outside, 0 where it has not, or is none."""
  _, low, high = one
  if low is None or high is None:
    return 0
  return int(low > 0) - int(high < 0)


def agreed(one: paper_tables.Agreement) -> str:
  """How alike a table is to the paper's."""
  rank = (
    f"The mean win rates of the {one.policies} policies have a rank "
    f"correlation of {figure(one.rank, 2)} with the paper's"
  )
  if not one.pairs:
    return f"{rank}; no pair is decided in both tables."
  return (
    f"{rank}; of {one.pairs} pairs that are decided in both tables, "
    f"{one.agree} have the same winner."
  )
