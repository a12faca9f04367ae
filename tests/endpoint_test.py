"""One request to a model server."""

import datetime
import email.utils
import ssl

from absl.testing import absltest, parameterized

from nashmd_jax.judges import endpoint, served_settings
from tests import judge_client


class EndpointTest(parameterized.TestCase):
  @parameterized.parameters(
    (None, 0), ("", 0), ("0", 0), ("7", 7), ("0.25", 0.25), ("-3", 0),
    ("soon", 0), ("nan", 0), ("inf", 600), ("86400", 600),
    ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Wed, 99 Oct 2015", 0),
    ("Fri, 31 Dec 9999 23:59:59 GMT", 600),
  )  # fmt: skip
  def test_how_long_to_wait(self, header, expected):
    self.assertEqual(endpoint.retry_after(header), expected)

  def test_how_long_to_wait_until_a_time(self):
    now = datetime.datetime.now(datetime.UTC)
    header = email.utils.format_datetime(
      now + datetime.timedelta(seconds=30), usegmt=True
    )
    self.assertBetween(endpoint.retry_after(header), 28, 30)

  @parameterized.parameters("http://a:1/v1", "http://a:1/v1/")
  def test_where_it_goes_and_that_certificates_are_checked(self, url):
    settings = served_settings.Settings(**judge_client.SETTINGS | {"url": url})
    for form, path in (
      ("chat", "chat/completions"),
      ("completion", "completions"),
    ):
      made = endpoint.make_endpoint(settings._replace(form=form))
      self.assertEqual(str(made.url), f"http://a:1/v1/{path}")
    self.assertLen(made.clients, settings.connections)
    for client in made.clients:
      self.assertFalse(client.follow_redirects)
      context = client._transport._pool._ssl_context
      self.assertEqual(context.verify_mode, ssl.CERT_REQUIRED)
      self.assertTrue(context.check_hostname)


if __name__ == "__main__":
  absltest.main()
