"""Links of the documentation: between its pages, to code, and in the site.

A page links to code by the name of what it speaks of, `[`f`](../file.py)`; the
line is found in the source when the site is built, so that it cannot be wrong.
Nothing here asks a network.
"""

import ast
from collections.abc import Callable, Iterator
import html.parser
import pathlib
import re
from typing import NamedTuple
import unicodedata
import urllib.parse

ROOT = pathlib.Path(__file__).parent.parent
DOCS = "docs/"
# Pages of the site that stand elsewhere in the repository, or are a part of it.
MAP = "\n## Files\n"  # where the front page ends and the map begins
ELSEWHERE = {
  "README.md": "index.md",
  "CHANGELOG.md": "changelog.md",
  "launch/README.md": "launch.md",
}
MAP_PAGE = "files.md"
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[([^]\[]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
SCHEMES = ("https:", "mailto:")
LOADED = ("src", "data", "poster")  # attributes that a page loads by itself


class Link(NamedTuple):
  """A link of a page.

  Attributes:
    text: that is shown.
    target: path in the repository, or an address.
    anchor: after the #; empty for none.
  """

  text: str
  target: str
  anchor: str

  @property
  def symbol(self) -> str:
    """The name in the code that a link to code is about; empty for none."""
    named = re.fullmatch(r"`(?:[\w.]+\.)?(\w+)`", self.text)
    return named[1] if named and self.target.endswith(".py") else ""


def source_page(path: str) -> str:
  """The page of the site that shows a file of the repository."""
  return f"source/{path.removesuffix('.py')}.md"


def site_page(path: str) -> str:
  """The page of the site for a file of the repository, relative to its root."""
  if path in ELSEWHERE:
    return ELSEWHERE[path]
  return source_page(path) if path.endswith(".py") else path.removeprefix(DOCS)


def resolve(where: str, target: str) -> str:
  """The path in the repository of what a page there links to."""
  if not target:
    return where
  return urllib.parse.urljoin(where, target)


def _spans(text: str) -> Iterator[tuple[bool, str]]:
  """The text in turn outside of fences and inside."""
  at = 0
  for fence in FENCE.finditer(text):
    yield False, text[at : fence.start()]
    yield True, fence[0]
    at = fence.end()
  yield False, text[at:]


def links(where: str, text: str) -> list[Link]:
  """All links of a page, outside of fences."""
  found = []
  for fenced, span in _spans(text):
    for _, shown, target, anchor in [] if fenced else LINK.findall(span):
      if not target.startswith(SCHEMES):
        target = resolve(where, target)
      found.append(Link(shown, target, anchor.removeprefix("#")))
  return found


def line_of(source: str, symbol: str) -> int:
  """The line where a name is defined at the top of a module.

  Raises: LookupError if it is not.
  """
  for node in ast.parse(source).body:
    names = {getattr(node, "name", None)}
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    names |= {getattr(target, "id", None) for target in targets}
    if symbol in names:
      return node.lineno
  raise LookupError(f"{symbol} is not defined")


def slug(heading: str) -> str:
  """The anchor of a heading, as Python-Markdown makes it."""
  plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
  plain = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore")
  kept = re.sub(r"[^\w\s-]", "", plain.decode()).strip().lower()
  return re.sub(r"[-\s]+", "-", kept)


def anchors(text: str) -> set[str]:
  """The anchors of a page's headings."""
  plain = "".join(span for fenced, span in _spans(text) if not fenced)
  return {slug(one) for one in re.findall(r"^#+ (.*)$", plain, re.MULTILINE)}


def wrong(where: str, text: str, root: pathlib.Path = ROOT) -> list[str]:
  """What is wrong with the links of a page of the repository."""
  found = []
  for link in links(where, text):
    path = root / link.target
    if link.target.startswith(SCHEMES):
      problem = _address(link.target)
    elif not path.exists():
      problem = "is not there"
    elif link.symbol:
      problem = _defined(path, link.symbol)
    elif link.anchor and link.anchor not in anchors(path.read_text("utf-8")):
      problem = f"has no heading #{link.anchor}"
    else:
      problem = ""
    if problem:
      found.append(f"{where}: {link.target} {problem}")
  return found


def _address(address: str) -> str:
  """What is wrong with an address of the network, as far as it shows."""
  parts = urllib.parse.urlsplit(address)
  right = parts.scheme == "mailto" or "." in parts.netloc.strip(".")
  return "" if right else "is no address"


def _defined(path: pathlib.Path, symbol: str) -> str:
  try:
    line_of(path.read_text("utf-8"), symbol)
  except LookupError:
    return f"does not define {symbol}"
  return ""


def moved(where: str, text: str, line: Callable[[str, str], str]) -> str:
  """A page's text with its links as the site has them.

  Args:
    where: its path in the repository.
    text: its text.
    line: (path, symbol) -> the anchor of a line in the page of a source.
  """
  page = site_page(where)
  up = "../" * page.count("/")

  def put(match: re.Match) -> str:
    mark, shown, target, anchor = match.groups()
    if not target or target.startswith(SCHEMES):
      return match[0]
    link = Link(shown, resolve(where, target), "")
    if link.symbol:
      anchor = f"#{line(link.target, link.symbol)}"
    return f"{mark}[{shown}]({up}{site_page(link.target)}{anchor or ''})"

  return "".join(
    span if fenced else LINK.sub(put, span) for fenced, span in _spans(text)
  )


class _Page(html.parser.HTMLParser):
  """What a page of the site can be linked by, links to, and loads."""

  def __init__(self, text: str):
    super().__init__()
    self.anchors: set[str] = set()
    self.links: list[str] = []
    self.loaded: list[str] = []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    given = dict(attrs)
    self.anchors |= {given[one] for one in ("id", "name") if given.get(one)}
    self.loaded += [given[one] for one in LOADED if given.get(one)]
    if given.get("href"):
      follows = tag == "a"
      (self.links if follows else self.loaded).append(given["href"])


def broken(site: pathlib.Path) -> list[str]:
  """What is wrong with the links of a built site, and what it would fetch.

  Links to other pages, to anchors and pictures are followed on disk; addresses
  of the network are looked at and not asked. No page and no style sheet may
  load anything from the network.
  """
  pages = {
    path.resolve(): _Page(path.read_text("utf-8"))
    for path in sorted(site.rglob("*.html"))
  }
  found = []
  for path, page in pages.items():
    for target in page.links + page.loaded:
      loads = target in page.loaded
      problem = _followed(path, target, pages, loads)
      if problem:
        found.append(f"{path.relative_to(site.resolve())}: {target} {problem}")
  for path in sorted(site.rglob("*.css")):
    if re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text()):
      found.append(f"{path.relative_to(site)}: loads from the network")
  return found


def _followed(path, target: str, pages, loads: bool) -> str:
  """What is wrong with a link of a page of the site; empty for nothing."""
  parts = urllib.parse.urlsplit(target)
  if parts.scheme or parts.netloc:
    if parts.scheme in ("data", "javascript"):
      return ""
    if loads:
      return "is loaded from the network"
    return _address(target) if target.startswith(SCHEMES) else "is not https"
  there = path
  if parts.path:
    there = (path.parent / urllib.parse.unquote(parts.path)).resolve()
  if there.is_dir():
    there /= "index.html"
  if not there.exists():
    return "is not there"
  anchor = urllib.parse.unquote(parts.fragment)
  if anchor and there in pages and anchor not in pages[there].anchors:
    return "has no such anchor"
  return ""
