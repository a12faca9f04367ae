"""README and docs: each snippet runs, each command is run, each link leads."""

import contextlib
import pathlib
import shutil

from absl.testing import absltest, parameterized
import jax
import yaml

from figures import docs, docs_links
from tests import hub_test, pages

MODEL = "gemma-2-2b-it"  # what a snippet calls the folder that it reads
SITE = '<html><body><h1 id="one">One</h1><a href="{}">x</a></body></html>'


class RunTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (f"{fence.where}_{number}", fence)
    for number, fence in enumerate(pages.snippets())
  )
  def test_snippet(self, fence):
    folder = pathlib.Path(self.create_tempdir().full_path)
    shutil.copytree(hub_test.GOLDEN / "gemma2", folder / MODEL)
    precision = jax.config.jax_enable_x64
    self.addCleanup(jax.config.update, "jax_enable_x64", precision)
    with contextlib.chdir(folder):
      exec(compile(fence.text, fence.where, "exec"), {"__name__": "snippet"})

  def test_there_are_snippets(self):
    self.assertGreaterEqual(len(pages.snippets()), 4)

  def test_every_command_is_run_or_has_a_reason(self):
    self.assertGreater(len(pages.commands()), 25)
    self.assertEqual(pages.not_run(), [])

  def test_every_reason_is_of_a_command(self):
    given = [command for _, command in pages.commands()]
    for start in pages.APART:
      self.assertTrue(any(one.startswith(start) for one in given), msg=start)


class ExplainedTest(absltest.TestCase):
  def test_every_setting_of_every_config(self):
    self.assertEqual(docs.unexplained(), [])


class LinksTest(parameterized.TestCase):
  @parameterized.parameters(
    where for where, _ in pages.texts() if where.endswith(".md")
  )
  def test_every_link_leads(self, where):
    text = dict(pages.texts())[where]
    self.assertEqual(docs_links.wrong(where, text), [])

  @parameterized.parameters(
    ("[a](docs/absent.md)", "is not there"),
    ("[a](docs/games.md#absent)", "has no heading #absent"),
    ("[a](https://nowhere)", "is no address"),
    ("![a](docs/absent.svg)", "is not there"),
    ("[`absent`](figures/rows.py)", "does not define absent"),
    ("[`rows.row`](figures/rows.py)", None),
    ("[a](docs/games.md#what-may-be-claimed)", None),
    ("[a](https://example.org/b#c)", None),
    ("```\n[a](docs/absent.md)\n```", None),
  )
  def test_one_that_does_not_is_found(self, text, problem):
    found = docs_links.wrong("README.md", text)
    self.assertLen(found, 0 if problem is None else 1)
    if problem:
      self.assertEndsWith(found[0], problem)

  def test_they_lead_to_pages_and_lines_of_the_site(self):
    text = "[a](docs/b.md#c) [`f`](d/e.py) [g](d/e.py) [h](https://i.org)"
    said = docs_links.moved("README.md", text, lambda path, name: f"at-{name}")
    self.assertEqual(
      said,
      "[a](b.md#c) [`f`](source/d/e.md#at-f) [g](source/d/e.md) "
      "[h](https://i.org)",
    )
    back = docs_links.moved("launch/README.md", "[a](../README.md)", str)
    self.assertEqual(back, "[a](index.md)")

  @parameterized.parameters(
    ("one.html#one", None),
    ("two.html", "is not there"),
    ("#two", "has no such anchor"),
    ("http://example.org", "is not https"),
    ("https://example.org", None),
    ('#one"><img src="https://example.org/a.png', "is loaded from the network"),
    ('#one"><img src="a.png', "is not there"),
  )
  def test_a_link_of_the_site(self, target, problem):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / "one.html").write_text(SITE.format(target))
    found = docs_links.broken(folder)
    self.assertLen(found, 0 if problem is None else 1)
    if problem:
      self.assertEndsWith(found[0], problem)

  def test_the_navigation_names_every_page(self):
    given = yaml.safe_load((pages.ROOT / "mkdocs.yml").read_text())
    named = []
    for entry in given["nav"]:
      (below,) = entry.values()
      named += below if isinstance(below, list) else [below]
    docs = [path.name for path in (pages.ROOT / "docs").glob("*.md")]
    further = [*docs_links.ELSEWHERE.values(), docs_links.MAP_PAGE]
    self.assertCountEqual(named, [*docs, *further])


if __name__ == "__main__":
  absltest.main()
