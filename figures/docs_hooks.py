"""What mkdocs adds to docs/: the README as front page, code behind formulas.

Pages of the repository that stand elsewhere become pages of the site, links
that lead out of docs/ lead to them, and every file of code that a page links to
is shown, at the line that defines what the link names.
"""

import pathlib

from mkdocs.structure import files as mkdocs_files

from figures import docs_links

ROOT = docs_links.ROOT
LINE = "line"  # as line_anchors in mkdocs.yml
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n"


def texts() -> dict[str, str]:
  """The pages of the site that are not in docs/, by their name there."""
  found = {
    page: (ROOT / path).read_text("utf-8")
    for path, page in docs_links.ELSEWHERE.items()
  }
  front, _, rest = found["index.md"].partition(docs_links.MAP)
  return found | {"index.md": front, docs_links.MAP_PAGE: f"# Files\n{rest}"}


def origin(page: str) -> str:
  """Where the text of a page of the site stands in the repository."""
  elsewhere = {page: path for path, page in docs_links.ELSEWHERE.items()}
  elsewhere[docs_links.MAP_PAGE] = "README.md"
  return elsewhere.get(page, f"{docs_links.DOCS}{page}")


def _source(path: str) -> str:
  """A page of code, which the search passes over."""
  code = (ROOT / path).read_text("utf-8").rstrip()
  title = f"# {pathlib.Path(path).name}\n\n`{path}`"
  return f"{UNSEARCHED}\n{title}\n\n````python\n{code}\n````\n"


def on_config(config):
  """Leaves out the page of servers, whose links are none from disk."""
  config.theme.static_templates.discard("404.html")
  return config


def on_files(files, config):
  """Adds the pages that docs/ does not hold."""
  added = texts()
  all_texts = dict(added)
  for file in files.documentation_pages():
    all_texts[file.src_uri] = pathlib.Path(file.abs_src_path).read_text("utf-8")
  code = {
    link.target
    for page, text in all_texts.items()
    for link in docs_links.links(origin(page), text)
    if link.target.endswith(".py")
  }
  added |= {docs_links.source_page(path): _source(path) for path in code}
  for page, text in sorted(added.items()):
    files.append(mkdocs_files.File.generated(config, page, content=text))
  return files


def on_page_markdown(markdown, page, config, files):
  """Leads the links of a page to the pages of the site."""
  name = page.file.src_uri
  if name.startswith("source/"):
    return markdown
  return docs_links.moved(origin(name), markdown, _anchor)


def _anchor(path: str, symbol: str) -> str:
  source = (ROOT / path).read_text("utf-8")
  return f"{LINE}-0-{docs_links.line_of(source, symbol)}"
