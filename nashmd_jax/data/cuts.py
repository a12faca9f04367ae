"""What is left out of a prompt that is too long for the last bucket.

A record may say by its "slot" which part of the prompt may be shortened; the
text around it, such as a title or an instruction, is never cut.
"""

from collections.abc import Callable

from nashmd_jax import mistakes

Slot = tuple[int, int]


def shorten(
  prompt: str,
  slot: Slot | None,
  encode: Callable[[str], list[int]],
  *,
  room: int,
  name: str,
) -> tuple[list[int], bool]:
  """Token ids of a prompt, cut to the room there is.

  What fits is the encoding of the whole text. Otherwise the end of the slot
  is left out, as few characters as will do; without a slot the start of the
  prompt is, since an instruction usually stands at the end.

  Args:
    prompt: text.
    slot: (start, stop) in characters of what may be shortened, or None.
    encode: text -> token ids.
    room: tokens that fit.
    name: of the record, for the error.
  Returns: at most `room` token ids, and whether something was left out.
  Raises: Mistake if what stands outside of the slot does not fit.
  """
  ids = encode(prompt)
  if len(ids) <= room:
    return ids, False
  if slot is None:
    return ids[len(ids) - room :], True
  start, stop = slot
  tail = prompt[stop:]
  fixed = encode(prompt[:start] + tail)
  if len(fixed) > room:
    raise mistakes.Mistake(
      f"{name}: the text of its prompt outside of the slot takes "
      f"{len(fixed)} tokens, and {room} fit; raise the last of "
      "layout.prompt_buckets or shorten that text"
    )
  if not tail:
    return ids[:room], True

  def kept(size):
    return encode(prompt[: start + size] + tail)

  return longest(kept, stop - start, room=room, fitting=fixed), True


def longest(
  kept: Callable[[int], list[int]],
  size: int,
  *,
  room: int,
  fitting: list[int],
) -> list[int]:
  """The encoding of as much of a text as there is room for, by bisection.

  Args:
    kept: how many characters are kept -> token ids.
    size: characters, of which not all fit.
    room: tokens that fit.
    fitting: the encoding without any.
  """
  low, high = 0, size
  while high - low > 1:
    middle = (low + high) // 2
    ids = kept(middle)
    if len(ids) <= room:
      low, fitting = middle, ids
    else:
      high = middle
  return fitting
