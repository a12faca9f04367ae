"""The page on which people compare two responses, by keys or by touch.

One file that asks nobody but its own server. Texts are set as text, never as
HTML. A vote is sent until it is answered, so that one pressed while the server
was away is stored when it is back.
"""

import base64
import hashlib
import string

from nashmd_jax.annotators import asking
from nashmd_jax.evaluation import style

STYLE = f"""{style.SCHEMES}
* {{ box-sizing: border-box; }}
body {{ font: 17px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0;
  background: var(--ground); }}
main {{ max-width: 66rem; margin: 0 auto; padding: .75rem; }}
h1, h2 {{ font-size: 1rem; margin: 0 0 .25rem; }}
[hidden] {{ display: none !important; }}
:focus-visible {{ outline: 3px solid var(--link); outline-offset: 2px; }}
.text {{ background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; padding: .75rem; white-space: pre-wrap;
  overflow-wrap: anywhere; min-width: 0; }}
#prompt {{ max-height: 40vh; overflow-y: auto; }}
#both {{ display: grid; gap: .75rem; margin: .75rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }}
button, input {{ font: inherit; color: var(--ink); background: var(--raised);
  border: 1px solid var(--muted); border-radius: .4rem; padding: .5rem .75rem;
  max-width: 100%; }}
#keys {{ display: flex; flex-wrap: wrap; gap: .5rem; }}
#keys button {{ flex: 1 1 6rem; }}
#told {{ color: var(--muted); min-height: 1.5em; }}
"""
# Sends a vote again until it is answered. The clock stands while the page is
# not seen.
SCRIPT = """
(() => {
  const at = (id) => document.getElementById(id);
  const link = new URLSearchParams(location.search);
  const token = new URLSearchParams({ token: link.get("token") || "" });
  const choices = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie" };
  const votes = { left: at("left"), right: at("right"), tie: at("tie") };
  let name = link.get("annotator") || "";
  let place = null, since = 0, seen = 0;
  const busy = (is) => at("question").setAttribute("aria-busy", is);
  const tell = (text) => { at("told").textContent = text; };
  const wait = (time) => new Promise((done) => setTimeout(done, time));
  const ask = async (path, what) => {
    const how = { method: "POST", body: JSON.stringify(what),
      headers: { "Content-Type": "application/json" } };
    for (;;) {
      const answer = await fetch(path + "?" + token, how).catch(() => null);
      const told = answer && await answer.json().catch(() => null);
      if (told && answer.ok) return told;
      if (told && answer.status < 500) {
        tell(told.error);
        return null;
      }
      tell("Not stored yet: nobody answers. It is sent until it is.");
      await wait(1000);
    }
  };
  const show = (told) => {
    if (!told) return;
    const over = told.place === told.of;
    at("begin").hidden = true;
    at("question").hidden = over;
    at("thanks").hidden = !over;
    tell(over ? "" : told.place + 1 + " of " + told.of);
    if (over) return;
    at("prompt").textContent = told.prompt;
    at("first").textContent = told.left || "(no text)";
    at("second").textContent = told.right || "(no text)";
    window.scrollTo(0, 0);
    at("prompt").scrollTop = 0;
    requestAnimationFrame(() => {
      seen = 0;
      since = performance.now();
      place = told.place;
      busy(false);
    });
  };
  const vote = async (choice) => {
    if (place === null) return;
    const time = seen + (document.hidden ? 0 : performance.now() - since);
    const what = { annotator: name, place, choice, seconds: time / 1000 };
    place = null;
    busy(true);
    show(await ask("vote", what));
  };
  const begin = async () => {
    const told = await ask("next", { annotator: name });
    if (!told) return;
    link.set("annotator", name);
    history.replaceState(null, "", "?" + link);
    show(told);
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) seen += performance.now() - since;
    since = performance.now();
  });
  document.addEventListener("keydown", (event) => {
    const choice = choices[event.key];
    const held = event.repeat || event.ctrlKey || event.altKey || event.metaKey;
    if (!choice || held || at("question").hidden) return;
    event.preventDefault();
    vote(choice);
  });
  for (const [choice, button] of Object.entries(votes)) {
    button.addEventListener("click", () => vote(choice));
  }
  at("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    name = at("name").value.trim();
    begin();
  });
  const welcome = () => {
    at("begin").hidden = false;
    at("name").focus();
  };
  if (name) begin(); else welcome();
})();
"""
POLICY = (
  "default-src 'none'; connect-src 'self'; img-src data:; style-src "
  "'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors "
  "'none'; script-src 'sha256-"
  + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
  + "'"
)
HTML = string.Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Which is better?</title>
<style>$style</style></head><body><main>
<form id="begin" hidden>
<p><label>Your name <input id="name" autocomplete="off"
maxlength="$longest" pattern="[\\w\\-]+"></label> <button>Begin</button></p>
<p>Letters, digits, _ and -. The same name goes on where it was.</p>
</form>
<div id="question" aria-busy="true" hidden>
<h1>Which response is better?</h1>
<div id="prompt" class="text" tabindex="0" aria-label="Prompt"></div>
<div id="both">
<section><h2>Left</h2><div id="first" class="text"></div></section>
<section><h2>Right</h2><div id="second" class="text"></div></section>
</div>
<div id="keys">
<button id="left">← Left</button>
<button id="tie">↓ Tie</button>
<button id="right">Right →</button>
</div>
</div>
<p id="thanks" hidden>That was all. Thank you.</p>
<p id="told" role="status"></p>
</main><script>$script</script></body></html>
""").substitute(style=STYLE, script=SCRIPT, longest=asking.LONGEST_NAME)
