"""Chat templates that cost too much, or reach for more than the messages."""

import time

from absl.testing import absltest, parameterized

from nashmd_jax import mistakes
from nashmd_jax.data import templates

SAID = [{"role": "user", "content": "a river"}]


def render(template, messages=SAID):
  made = templates.make_render(template, tokens={}, where="chat.jinja")
  return made(messages, True)


class TemplatesTest(parameterized.TestCase):
  @parameterized.parameters(
    ("{% for m in messages %}{{ loop.index ~ m.content ~ loop.last }}"
     "{{ loop.length }}{% endfor %}", "1a riverTrue1"),
    ("{% for m in messages if m.role == 'user' %}{{ m.content|trim }}"
     "{% else %}none{% endfor %}", "a river"),
    ("{% set ns = namespace(n=0) %}{% for i in range(3) %}"
     "{% set ns.n = ns.n + i * 2 %}{% endfor %}{{ ns.n }}", "6"),
    ("{{ messages|map(attribute='role')|join(', ') }}"
     "{{ 'aab'.replace('a', 'c') }}{{ '%s!' % 'b' }}", "userccbb!"),
    ("{% macro say(m) %}<{{ m.content }}>{% endmacro %}"
     "{{ say(messages[0]) }}{{ messages|tojson|length }}", "<a river>40"),
    ("{{ messages[1:]|length }}{{ -7 // 2 }}{{ 2 ** 5 }}{{ 7 % 4 }}", "0-4323"),
    ("{% generation %}{{ strftime_now('%Y') }}{% endgeneration %}", "2024"),
  )  # fmt: skip
  def test_honest_ones(self, template, expected):
    self.assertEqual(render(template), expected)

  def test_long_conversations(self):
    said = [{"role": "user", "content": "word " * 2000}] * 500
    text = render("{% for m in messages %}{{ m.content }}{% endfor %}", said)
    self.assertLen(text, 5 * 2000 * 500)

  @parameterized.parameters(
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
    "{% endfor %}",
    "{% for i in range(99999) %}{% if 0 %}{% endif %}{% endfor %}" * 3,
    "{% for i in range(9999) %}" + "long " * 9999 + "{% endfor %}",
    "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}x"
    "{% endmacro %}{{ f(60) }}",
    "{{ 'a' * 999999999 }}", "{{ [1] * 999999999 }}", "{{ 9999999 * 'ab' }}",
    "{{ 9 ** (9 ** 9) }}", "{{ 'a'|center(999999999) }}",
    "{{ 'a'.ljust(999999999) }}", "{{ '%999999999d' % 1 }}",
    "{{ '%*d' % (99999999, 1) }}", "{{ '{:>999999999}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 999999999) }}", "{{ '%999999999d'|format(1) }}",
    "{% set n = namespace(s='a' * 999) %}{% for i in range(99) %}"
    "{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(s='a' * 999) %}{% for i in range(99) %}"
    "{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{% set n = namespace(s=[1]) %}{% for i in range(60) %}"
    "{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s=[1]) %}{% for i in range(60) %}"
    "{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s|tojson }}",
    "{% set n = namespace(s=3) %}{% for i in range(60) %}"
    "{% set n.s = n.s * n.s %}{% endfor %}",
    "{% set s = 'a' * 99999 %}{{ s.replace('a', s) }}",
    "{% set s = 'a' * 99999 %}{{ s|replace('a', s) }}",
    "{% set s = 'a' * 99999 %}{{ range(99999)|join(s) }}",
    "{% set s = 'a' * 99999 %}{{ s.join(s) }}",
    "{{ range(10 ** 9)|list }}",
    "{{ range(10 ** 4)|list|batch(10 ** 9, 'a') }}",
    "{{ lipsum(n=99999) }}", "{{" + "(" * 9999,
    "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{{ ''.__class__.__mro__ }}" + "{{ 1 / 0 }}",
    "{{ messages.append(1) }}", "{{ messages[0].update(role='system') }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{{ self.x }}{{",
    "x" * (templates.MOST_SOURCE + 1),
  )  # fmt: skip
  def test_refused_at_once_in_one_sentence(self, template):
    seconds = []
    for _ in range(2):  # once, the collector may have other work to do
      began = time.process_time()
      with self.assertRaises(mistakes.Mistake) as caught:
        render(template)
      seconds.append(time.process_time() - began)
    self.assertLess(min(seconds), 1.0)
    self.assertStartsWith(str(caught.exception), "chat.jinja: ")
    self.assertLess(len(str(caught.exception)), 500)


if __name__ == "__main__":
  absltest.main()
