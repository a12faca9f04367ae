"""Charts: where points lie, what they say, what their sheets hold."""

import re

from absl.testing import absltest, parameterized
import numpy as np

from nashmd_jax.evaluation import chart, sheets, style

LINES = [
  chart.Line(
    "a <b>", [chart.Point(0, 1, 0.5, 1.5), chart.Point(10, 2, 1, 3)], 0
  ),
  chart.Line("mark", [chart.Point(5.0, 1.25, 1.0, 1.5)], 1, chart.MARKS),
]


class ChartTest(parameterized.TestCase):
  def made(self, lines=LINES, **more):
    return chart.Chart("it", "Title & more", "step", "nats", lines, **more)

  def test_points_lie_where_they_should(self):
    drawn = chart.svg(self.made())
    at = [
      tuple(map(float, pair))
      for pair in re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="(?:2|5)', drawn)
    ]
    first, last, mark = at[:3]
    # The mark is midway in x; in y a quarter of the way from 1 to 2.
    self.assertAlmostEqual(mark[0], (first[0] + last[0]) / 2, delta=0.1)
    share = (mark[1] - first[1]) / (last[1] - first[1])
    self.assertAlmostEqual(share, 0.25, delta=0.01)
    self.assertLess(last[1], first[1])

  def test_points_say_their_numbers_and_names_are_text(self):
    drawn = chart.figure(self.made(levels=[0.5]))
    self.assertIn("<title>a &lt;b&gt;: step 10, nats 2 (1 to 3)</title>", drawn)
    self.assertIn("<title>mark: step 5, nats 1.25 (1 to 1.5)</title>", drawn)
    self.assertEqual(drawn.count('class="band s0"'), 1)
    self.assertEqual(drawn.count('class="bar"'), 1)
    self.assertNotIn("<b>", drawn)

  def test_sheet_holds_what_is_drawn(self):
    table = chart.sheet(self.made(levels=[0.5]))
    self.assertEqual(table.head, ("line", "step", "nats", "low", "high"))
    self.assertEqual(
      sheets.csv_text(table).splitlines()[1:],
      ["a <b>,0,1,0.5,1.5", "a <b>,10,2,1,3", "mark,5.0,1.25,1.0,1.5",
       "rule,,0.5,,"],
    )  # fmt: skip

  def test_what_is_not_finite_is_not_drawn(self):
    points = [chart.Point(0, np.nan), chart.Point(1, 2), chart.Point(2, np.inf)]
    one = self.made([chart.Line("a", points, 0)])
    self.assertEqual(chart.sheet(one).rows, [("a", 1, 2, None, None)])
    self.assertNotRegex(chart.svg(one), "nan|inf")
    none = self.made([], levels=[0.5])
    self.assertEqual((chart.figure(none), chart.sheet(none).rows), ("", []))

  def test_long_lines_are_thinned_and_keep_their_ends(self):
    points = [chart.Point(i, i) for i in range(100_001)]
    rows = chart.sheet(self.made([chart.Line("a", points, 0)])).rows
    self.assertLessEqual(len(rows), chart.MOST + 1)
    self.assertEqual((rows[0][1], rows[-1][1]), (0, 100_000))

  def test_lines_without_a_colour_of_their_own_are_dashed(self):
    lines = [
      chart.Line(str(n), [chart.Point(0, n), chart.Point(1, n)], n)
      for n in range(style.COLOURS + 1)
    ]
    self.assertNotIn("dashed", chart.svg(self.made(lines[:-1])))
    # In the chart and in its legend.
    self.assertEqual(chart.svg(self.made(lines)).count("dashed"), 2)

  def test_a_file_brings_its_colours(self):
    text = chart.alone(self.made())
    self.assertStartsWith(text, "<svg xmlns=")
    self.assertIn("prefers-color-scheme: dark", text)

  @parameterized.parameters(
    (0, 10, ["0", "2", "4", "6", "8", "10"]),
    (0.48, 0.61, ["0.48", "0.50", "0.52", "0.54", "0.56", "0.58", "0.60"]),
    (-1, 1, ["−1.0", "−0.5", "0.0", "0.5", "1.0"]),
    (0, 70_000, [f"{n}0k" if n else "0" for n in range(8)]),
  )
  def test_ticks_are_round_and_few(self, low, high, expected):
    found = [said for _, said in chart.ticks(low, high)]
    self.assertEqual(found, expected)


if __name__ == "__main__":
  absltest.main()
