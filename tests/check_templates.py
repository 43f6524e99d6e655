#!/usr/bin/env python3
"""Compares chat templates with jinja2, set up as `transformers` does it.

Usage: python tests/check_templates.py [--tool build/release/tests/zo/render_chat] [FOLDER with .jinja files]
Needs the PyPI package jinja2.  Exit code 0: all equal, or skipped (no library); 1: not.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError as e:
    own = pathlib.Path(__file__).resolve().parent.parent / "build/venv/bin/python"
    if own.exists() and pathlib.Path(sys.prefix) != own.parent.parent:  # the test runner's Python is the system's
        os.execv(own, [str(own), *sys.argv])
    print(f"skip check_templates: needs the PyPI packages of tests/reference/requirements.txt: {e}")
    sys.exit(0)

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' "
          "+ '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
OWN = {
    "chatml": CHATML,
    "white space": "  {% if true %}\n   a\n  {%- if 1 %} b {%- endif -%}  \n c {{- ' d ' -}} \n\n {#- note -#} e\n{# x #}\n  f {% endif %}\n\n",
    "plus": "a\n   {%+ if true +%}\n b {% endif %}\n",
    "scopes": "{% set x = 1 %}{% set ns = namespace(x=1, y='') %}{% for m in messages %}{% set x = x + 1 %}{{ x }}"
              "{% set ns.x = ns.x + 1 %}{% if m.role == 'user' %}{% set z = 3 %}{{ z }}{% endif %}{% endfor %}{{ x }} {{ ns.x }}",
    "loop": "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}"
            "{{ loop.revindex }}{{ loop.previtem.role if loop.previtem is defined else '-' }}"
            "{{ loop.nextitem.role if loop.nextitem is defined }};{% endfor %}",
    "else and if": "{% for m in messages if m['role'] == 'nobody' %}x{% else %}none{% endfor %}"
                   "{% for m in messages if m.role != 'user' %}{{ loop.index }}{{ m.role }}{% endfor %}",
    "break": "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "slices": "{% for m in messages[::-1] %}{{ m.content[1:4] }}|{{ m.content[-2:] }}|{{ m['content'][::2] }}|{{ m.content[0] }};{% endfor %}"
              "{{ messages[1:]|length }} {{ messages[-1].role }} {{ messages[:-1]|length }} {{ messages[5:]|length }} {{ range(9)[7:2:-2]|join(',') }}",
    "numbers": "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 * 3 + 4 - 1 }} {{ 1.5 + 1 }} {{ 6 / 2 }} {{ 0.1 + 0.2 }} {{ -(3) }} {{ 10 % 3 == 1 }}",
    "logic": "{{ 1 if none else 2 }} {{ '' or 'x' }} {{ 'a' and 'b' }} {{ not '' }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' in 'cat' }}"
             " {{ 'z' not in ['a', 'b'] }} {{ 'k' in {'k': 1} }} {{ 1 == 1.0 }} {{ 'a' ~ 1 ~ none ~ true }} {{ x is defined }} {{ none == x }}"
             " {{ not x is defined and 1 }} {{ 2 is odd }} {{ 3 is not even }} {{ true and not false }}",
    "tests": "{% for v in [none, 1, 1.5, 'a', [], {}, true] %}{{ v is none }}{{ v is string }}{{ v is number }}{{ v is mapping }}"
             "{{ v is iterable }}{{ v is sequence }}{{ v is boolean }}{{ v is integer }}{{ v is float }};{% endfor %}{{ 3 is eq 3 }}{{ 'a' is in ['a'] }}",
    "methods": "{% for m in messages %}[{{ m.content.strip() }}|{{ m.content.lstrip() }}|{{ m.content.rstrip('.!') }}|{{ m.role.upper() }}|"
               "{{ m.role.title() }}|{{ m.role.capitalize() }}|{{ m.content.split(' ')[0] }}|{{ m.content.split()[-1] }}|"
               "{{ m.content.replace('e', '3') }}|{{ m.content.startswith('H') }}|{{ m.content.endswith('?') }}|{{ m.get('x', 'dflt') }}]{% endfor %}",
    "filters": "{% for m in messages %}{{ m.content | trim }}|{{ m.role | upper }}|{{ m.role | capitalize | lower }}|{{ m.content | length }}|{{ m | length }}|"
               "{{ m.content | replace('a', 'b') }}|{{ m.nothing | default('d') }}|{{ '' | default('e', true) }};{% endfor %}"
               "{{ messages | map(attribute='role') | join(', ') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
               " {{ messages | rejectattr('role', 'eq', 'user') | list | length }} {{ messages | first | tojson }} {{ (messages | last).role }}"
               " {{ [3, 'x', none, true, 1.5] | tojson }} {{ '12' | int + 1 }} {{ 5 | string + 'a' }} {{ [1, 2] | reverse | join }}",
    "items": "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{% for k in messages[0] %}{{ k }}{% endfor %}{% for k, v in {'a': 1, 'b': 2} | items %}{{ k }}{{ v }}{% endfor %}",
    "dict": "{% set d = {'a': {'b': [1, 2, {'c': 'deep'}]}} %}{{ d.a.b[2].c }}{{ d['a']['b'][0] }}{{ {'x': {'y': 1}}['x']['y'] }}{{ ('a', 'b')[1] }}",
    "strings": "{{ 'it\\'s' }}{{ \"tab\\tnew\\nline \\\\ \\d\" }}{{ 'a' 'b' }}{{ '{{ not a tag }}' }}",
    "date": "{% if strftime_now is defined and false %}{{ strftime_now('%d') }}{% else %}26 Jul 2024{% endif %}",
    "macro for tools": "{% macro show(t) %}{{ t }}{% endmacro %}{% if tools %}{{ show(tools) }}{% endif %}{{ messages[0].content }}",
    "alternate": "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must alternate') }}"
                 "{% endif %}{{ m.content }}{% endfor %}",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
                  "{% else %}{{ bos_token }}{{ m.content }}{% endif %}{% endfor %}",
    "thinking": "{%- set ns = namespace(last=messages|length - 1, open=true) %}\n{%- for m in messages[::-1] %}\n    {%- set i = (messages|length - 1) - loop.index0 %}\n"
                "    {%- if ns.open and m.role == \"user\" and not(m.content.startswith('<r>') and m.content.endswith('</r>')) %}\n"
                "        {%- set ns.open = false %}\n        {%- set ns.last = i %}\n    {%- endif %}\n{%- endfor %}\n{%- for m in messages %}\n"
                "    {%- set content = m.content %}\n    {%- if '</think>' in content %}\n        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n"
                "    {%- endif %}\n    {%- if loop.index0 > ns.last and (loop.last or not m.x) %}\n        {{- '<think></think>' + content.strip('\\n') }}\n"
                "    {%- else %}\n        {{- content }}\n    {%- endif %}\n    {{- '<|end|>\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|go|>' }}\n{%- endif %}",
}
CHATS = [
    [{"role": "user", "content": "Hello there."}],
    [{"role": "user", "content": "  Hi! \n"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nWhat is it?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "日本語 naïve 😀?"}, {"role": "assistant", "content": "A 'quoted' \"answer\"."},
     {"role": "user", "content": "more"}, {"role": "assistant", "content": "end."}],
    [{"role": "assistant", "content": "first"}, {"role": "user", "content": "{{ x }} {% y %}"}],
]
# Template -> what the refusal must say: these need code, or the world outside.
REFUSED = {
    "{{ strftime_now('%Y') }}": "clock", "{% include 'x' %}": "include", "{% import 'x' as y %}": "import", "{{ foo() }}": "foo",
    "{% macro a() %}{{ 1 }}{% endmacro %}{{ a() }}": "\"a\"", "{{ ''.__class__.mro() }}": "line 1", "{{ 'a'.format(1) }}": "format",
    "{{ messages | sort }}": "sort", "{% for": "does not end", "{{ x": "does not end", "{% if x %}": "endif", "{{ 1 + }}": "expression", "{{ x.y.z }}": "undefined",
    "{% for i in range(1000000) %}{% for j in range(1000000) %}x{% endfor %}{% endfor %}": "too long", "{{ " + "(" * 500 + " }}": "deep",
    "{% set ns = namespace(s='aaaaaaaaaa') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}": "too long",
    "{{ 1" + " + 1" * 5000 + " }}": "deep", "{{ 1 // 0 }}": "zero", "{% call x() %}{% endcall %}": "call", "{{ raise_exception('no') }}": "no",
    "{{ messages }}": "tojson", "{% extends 'a' %}": "extends", "{% for a recursive %}": "in",
}


def environment():
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_keep"), [], [], body).set_lineno(line)

        def _keep(self, caller):
            return caller()

    def raise_exception(message):
        raise TemplateError(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None: json.dumps(x, ensure_ascii=ensure_ascii, indent=indent)
    env.globals["raise_exception"] = raise_exception
    return env


def run(tool, template, lines):
    with tempfile.TemporaryDirectory() as tmp:
        (pathlib.Path(tmp) / "tokenizer_config.json").write_text(json.dumps(TOKENS))
        (pathlib.Path(tmp) / "chat_template.jinja").write_text(template)
        p = subprocess.run([str(tool), tmp], input="\n".join(map(json.dumps, lines)).encode(), capture_output=True)
    if p.returncode:
        return [f"exit code {p.returncode}: {p.stderr.decode()[:300]}"] * len(lines)
    return [x if x.startswith("error") else bytes.fromhex(x).decode() for x in p.stdout.decode().split("\n")[:-1]]


def render(env, text, line):
    return env.from_string(text).render(messages=line["messages"], add_generation_prompt=line["prompt"], tools=None,
                                        documents=None, **TOKENS)


def write_vectors(env, lines, path):
    """jinja2's answers to the templates above (null: it refuses), for the C tests."""
    cases = []
    for name, text in OWN.items():
        wants = []
        for line in lines:
            try:
                wants.append(render(env, text, line))
            except Exception:
                wants.append(None)
        cases.append({"name": name, "template": text, "texts": wants})
    out = {"tokens": TOKENS, "lines": lines, "cases": cases, "refused": REFUSED}
    path.write_text(json.dumps(out, indent=0) + "\n")
    return 0


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--tool", default=ROOT / "build/release/tests/zo/render_chat")
    ap.add_argument("folder", nargs="?")
    ap.add_argument("--all", action="store_true", help="everything is compared in any case")
    ap.add_argument("--write-vectors", metavar="FILE", help="write tests/vectors/templates.json anew")
    args = ap.parse_args()
    templates = dict(OWN)
    if args.folder:
        templates.update({p.name: p.read_text() for p in sorted(pathlib.Path(args.folder).glob("*.jinja"))})
    lines = [{"messages": m, "prompt": prompt} for m in CHATS for prompt in (False, True)]
    env, bad = environment(), 0
    if args.write_vectors:
        return write_vectors(env, lines, pathlib.Path(args.write_vectors))
    for name, text in templates.items():
        got = run(args.tool, text, lines)
        for line, have in zip(lines, got):
            try:
                want = render(env, text, line)
            except Exception as e:
                want = e
            same = have.startswith("error") if isinstance(want, Exception) else have == want
            if not same:
                bad += 1
                print(f"FAIL {name}: {json.dumps(line)[:100]}\n  want {want!r}\n  got  {have!r}")
    for text, word in REFUSED.items():
        have = run(args.tool, text, lines[:1])[0]
        if not have.startswith("error") or word not in have:
            bad += 1
            print(f"FAIL refusal of {text[:60]!r}: wanted {word!r}, got {have[:200]!r}")
    print(f"{'FAIL' if bad else 'ok'} check_templates {len(templates)} templates x {len(lines)} conversations, {len(REFUSED)} refusals: "
          f"{bad} differ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
