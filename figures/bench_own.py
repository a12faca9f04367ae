"""Rows of `make bench` of ours alone, against the machine and ourselves."""

from collections.abc import Iterator, Mapping
import statistics
from typing import Any

from figures import bench_limits, bench_peers, bench_sizes, bench_turns, rows

Crews = Mapping[int, bench_turns.Crew]
Work = bench_sizes.Work
SHORT = 16


def token_rows(crews: Crews) -> Iterator[rows.Row]:
  """One token of decode against what the machine can do."""
  limits = bench_limits.measure(crews[1])
  for batch in bench_limits.BATCHES:
    yield token_row(crews[1], batch, limits)


def token_row(
  crew: bench_turns.Crew, batch: int, limits: bench_limits.Limits
) -> rows.Row:
  """One token of decode, the difference of two lengths, and its products."""
  work = Work("30M", 64, batch)
  sizes = {**bench_peers.given(work), "lanes": ["policy"]}
  turns = crew.turns(
    {
      **token_works(sizes, "float32"),
      "products": bench_limits.products("30M", batch),
    }
  )
  token = token_seconds(turns, "float32")
  alone = turns.median("products") / bench_limits.TIMES
  matrices = bench_sizes.matrices(bench_sizes.SIZES["30M"])
  weights = sum(a * b for a, b in matrices)
  bound = max(4 * weights / limits.read, 2 * weights * batch / limits.flops)
  claim = (
    f"one decode token, {work}: {token * 1e3:.1f} ms / the same products alone "
    f"in NumPy, {alone * 1e3:.1f} ms (to read their weights, or to multiply, "
    f"takes {bound * 1e3:.1f} ms, {bound / token:.0%} of it)"
  )
  return rows.row(claim, token / alone, "≤", 1.5)


def token_works(sizes: Mapping[str, Any], dtype: str) -> bench_turns.Works:
  """Decodes of two lengths, of which the difference is some tokens."""
  lengths = {"long": bench_sizes.NEW_TOKENS, "short": SHORT}
  return {
    f"{name} {dtype}": (
      "ours",
      "decode",
      {**sizes, "new_tokens": length, "run_dtype": dtype},
    )
    for name, length in lengths.items()
  }


def token_seconds(turns: bench_turns.Turns, dtype: str) -> float:
  """CPU seconds of one token, from the works of `token_works`."""
  pairs = (turns.took["cpu"][f"{name} {dtype}"] for name in ("long", "short"))
  count = bench_sizes.NEW_TOKENS - SHORT
  return statistics.median(
    (long - short) / count for long, short in zip(*pairs, strict=True)
  )


def dtype_rows(crews: Crews) -> Iterator[rows.Row]:
  """A token of decode with matrices of half the bytes."""
  work = Work("30M", 64, 8)
  sizes = {**bench_peers.given(work), "lanes": ["policy"]}
  names = ("float32", "bfloat16")
  works = [token_works(sizes, name) for name in names]
  turns = crews[1].turns(works[0] | works[1])
  whole, half = (token_seconds(turns, name) for name in names)
  claim = (
    f"one decode token, {work}: with devices.run_dtype=bfloat16, "
    f"{half * 1e3:.1f} ms / float32, {whole * 1e3:.1f} ms"
  )
  yield rows.row(claim, half / whole, "≤", 1.3)


def rollout_rows(crews: Crews) -> Iterator[rows.Row]:
  """y and y′ in one loop, against apart and against plain sampling."""
  crew = crews[1]
  work = Work("30M", 64, 8)
  given = bench_peers.given(work)
  sizes = {**given, "new_tokens": bench_sizes.NEW_TOKENS}
  turns = crew.turns(
    {
      "fused": ("ours", "decode", {**sizes, "lanes": ["policy", "mixture"]}),
      "separate": ("alone", "separate", given),
      "plain": ("ours", "decode", {**sizes, "lanes": ["policy", "policy"]}),
    }
  )
  seconds = {name: f"{turns.median(name):.3g}" for name in turns.took["cpu"]}
  fused = f"{seconds['fused']} CPU s"
  yield rows.row(
    f"rollout, {work}: y, then y′ by policy and reference, three decodes, "
    f"{seconds['separate']} / all in one loop, {fused}",
    turns.ratio("separate", "fused"),
    "≥",
    1.3,
  )
  yield rows.row(
    f"rollout, {work}: y and y′ of the mixture, {fused} / plain sampling of "
    f"2B rows, {seconds['plain']}",
    turns.ratio("fused", "plain"),
    "≤",
    1.7,
  )


def ends_rows(crews: Crews) -> Iterator[rows.Row]:
  """Responses that end early, against those that do not."""
  crew = crews[1]
  work = Work("30M", 64, 32)
  given = bench_peers.given(work)
  turns = crew.turns(
    {
      "full": ("alone", "ends", {**given, "planted": False}),
      "ended": ("alone", "ends", {**given, "planted": True}),
    }
  )
  share = turns.gave["ended"] / turns.gave["full"]
  claim = (
    f"decode, {work}: every row to the end of the bucket, "
    f"{turns.median('full'):.3g} CPU s / responses that fill {share:.0%} of "
    f"it on average, {turns.median('ended'):.3g}"
  )
  yield rows.row(claim, turns.ratio("full", "ended"), "≥", 1.8)


def gradient_rows(crews: Crews) -> Iterator[rows.Row]:
  """Forward and backward, beside NumPy's product in turn with it."""
  crew = crews[1]
  work = Work("30M", 128, 8)
  turns = crew.turns(
    {
      "gradient": ("alone", "gradient", bench_peers.given(work)),
      "product": ("numpy", "product", {"times": 4}),
    }
  )
  pace = {
    name: turns.gave[name] / turns.median(name) / 1e9 for name in turns.gave
  }
  claim = (
    f"forward and backward, 30M, B 8, 128 tokens: {pace['gradient']:.0f} "
    f"GFLOP/s of its products, counted in the traced program / NumPy's product "
    f"in turn, {pace['product']:.0f}"
  )
  yield rows.row(claim, pace["gradient"] / pace["product"], "≥", 0.7)


def memory_rows(crews: Crews) -> Iterator[rows.Row]:
  """What the compiler sets aside for the update."""
  crew = crews[1]
  gave = crew.ask("alone", "memory", batch=32)["gave"]
  crew.forget()
  chunked, whole = gave["chunked"], gave["whole"]
  claim = (
    "peak memory of the update, V 256,000, B 32, R 64, 256 wide, by the "
    f"compiler: {chunked / 2**30:.2f} GiB / with all logits at once, "
    f"{whole / 2**30:.2f}"
  )
  yield rows.row(claim, chunked / whole, "≤", 0.25)
