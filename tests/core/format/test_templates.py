"""Parsing of templates: environment variables, arguments, and invalid templates."""

from collections.abc import Callable
from typing import Any

import pytest

from mcp_taskruns.core.format.spec import parse_capability
from mcp_taskruns.core.format.templates import InvalidTemplate, TemplateParser, references_of
from mcp_taskruns.core.model.operation import ArgumentReference, ConstantTemplate, Template, Variable

X = ArgumentReference("x")
KEY = Variable(("REAL_KEY",))


def parser(*environment: str) -> TemplateParser:
    """Those of a capability with two binds, both of which may be called `env`, and adapters on either side."""
    given = {
        "naftiko": "1.0.0-alpha2",
        "binds": [
            {"namespace": "env", "keys": {"KEY": "REAL_KEY", "dotted.key": "DOTTED"}},
            {"namespace": "secrets", "keys": {"TOKEN": ["FIRST", "SECOND"]}},
        ],
        "capability": {
            "consumes": [{"namespace": "provider"}, {}],
            "exposes": [{"type": "mcp", "namespace": "things-mcp"}, {"type": "rest"}],
        },
    }
    return TemplateParser(parse_capability(given, "f.yaml"), environment)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("tools.x", "x"),
        ("rest.x", "x"),
        ("mcp.x", "x"),
        ("things-mcp.x", "x"),
        ("$this.things-mcp.x", "x"),
        ("$this.tools.x", "x"),
        ("{{x}}", "x"),
        (" {{ x }}\n", "x"),
        ("{{tools.x}}", "x"),
        ("{{ $this.things-mcp.x }}", "x"),
        ("{{a.b}}", "a.b"),
        ("tools.a.b", "a.b"),
        ("tools.two words", "two words"),
        ("rest.path.x", "x"),
        ("rest.query.page[size]", "page[size]"),
        ("rest.header.X-A", "X-A"),
        ("rest.cookie.x", "x"),
        ("rest.body.a.b", "a.b"),
        ("tools.body.x", "x"),
        ("mcp.path.x", "x"),
        ("rest.body", "body"),
        ("tools.path", "path"),
        ("rest.path.", "path."),
        ("rest.other.x", "other.x"),
        ("things-mcp.path.x", "path.x"),
        ("tools.a\nb", "a\nb"),
    ],
)
def test_reference_is_the_name_of_an_argument(text: str, name: str) -> None:
    assert parser().reference(text) == name
    if not text.strip().startswith("{{"):
        assert parser().tree(text, references=True) == ArgumentReference(name)
        assert parser().tree(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *(None, 5, True, ["tools.x"], {"a": "tools.x"}),
        *("", "x", "v1.2", "api.example.com", "tools", "tools.", ".x", "$this.x", "$this.", "Tools.x", "unknown.x"),
        *(" tools.x", "the tools.x", "{{}}", "{{ }}", "{{KEY}}", "{{env.KEY}}", "{{ secrets.TOKEN }}", "{{env.OTHER}}"),
        *("{x}", "{{x}} and {{y}}", "a {{x}}"),
    ],
    ids=repr,
)
def test_other_text_is_not_a_reference(text: Any) -> None:
    assert parser().reference(text) is None


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("KEY", ("REAL_KEY",)),
        ("env.KEY", ("REAL_KEY",)),
        ("dotted.key", ("DOTTED",)),
        ("TOKEN", ("FIRST", "SECOND")),
        ("secrets.TOKEN", ("FIRST", "SECOND")),
        # The namespace is a bind's, the key is not among its own.
        ("env.OTHER", ("OTHER",)),
        ("secrets.OTHER", ("OTHER",)),
        # Every name of a parameter that is in the environment
        ("REGION", ("REGION",)),
        ("tools.REGION", None),
        ("OTHER", None),
        ("tools.KEY", None),
        ("env.", None),
        ("env", None),
        ("", None),
    ],
)
def test_name_is_bound_by_key_or_namespace(name: str, names: tuple[str, ...] | None) -> None:
    assert parser("REGION").bound(name) == (Variable(names) if names else None)


def test_env_namespace_needs_no_bind() -> None:
    bare = TemplateParser(parse_capability({"naftiko": "1"}, "f.yaml"))
    assert bare.bound("env.KEY") == Variable(("KEY",))
    assert bare.bound("KEY") is None


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("", ()),
        ("plain", ("plain",)),
        ("{one brace}", ("{one brace}",)),
        ("}} {", ("}} {",)),
        ("{{x}}", (X,)),
        ("{{ x }}", (X,)),
        ("{{tools.x}}", (X,)),
        ("{{rest.query.x}}", (X,)),
        ("{{KEY}}", (KEY,)),
        ("{{ env.KEY }}", (KEY,)),
        ("a{{x}}b{{env.KEY}}c", ("a", X, "b", KEY, "c")),
        ("{{x}}{{x}}", (X, X)),
        ("{{{x}}}", ("{", X, "}")),
        ("{ {{x}} }", ("{ ", X, " }")),
        ("{{two words}}", (ArgumentReference("two words"),)),
        ("{{REGION}}", (Variable(("REGION",)),)),
    ],
)
def test_template_has_literals_and_placeholders(text: str, template: Template) -> None:
    assert parser("REGION").template(text) == template


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("/things/{x}", ("/things/", X)),
        ("/things/{{x}}.json", ("/things/", X, ".json")),
        ("/{{ tools.x }}/{x}", ("/", X, "/", X)),
        ("/{ x }", ("/", X)),
        ("/{a.b}", ("/", ArgumentReference("a.b"))),
        ("/{tools.x}", ("/", ArgumentReference("tools.x"))),
        ("/{KEY}/{{KEY}}", ("/", ArgumentReference("KEY"), "/", KEY)),
        ("/{REGION}/{{REGION}}", ("/", Variable(("REGION",)), "/", Variable(("REGION",)))),
        ("", ()),
        ("/jobs/{x}:run?a=b", ("/jobs/", X, ":run?a=b")),
    ],
)
def test_path_placeholders_may_have_single_braces(text: str, template: Template) -> None:
    assert parser("REGION").path(text) == template


LONG = "/" + "n" * 100 + "{{x"


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (TemplateParser.template, "{{x", "an unclosed placeholder in '{{x'"),
        (TemplateParser.template, "a {{x} b", "an unclosed placeholder in 'a {{x} b'"),
        (TemplateParser.template, "{{x}} {{y", "an unclosed placeholder in ' {{y'"),
        (TemplateParser.template, "{{a{{x}}", "an unclosed placeholder in '{{a'"),
        (TemplateParser.template, "{{}}", "a placeholder without a name in '{{}}'"),
        (TemplateParser.template, "a {{  }}", "a placeholder without a name in 'a {{  }}'"),
        (TemplateParser.template, LONG, f"an unclosed placeholder in '{LONG[:60]}…'"),
        (TemplateParser.constant, "Bearer {{KEY", "an unclosed placeholder in 'Bearer {{KEY'"),
        (TemplateParser.tree, {"a": ["{{x"]}, "an unclosed placeholder in '{{x'"),
        (TemplateParser.json_text, '{"a": "{{"}', "an unclosed placeholder in '{{'"),
        (TemplateParser.tree, {"{{x}}": 1}, "a placeholder in a key, '{{x}}'"),
        (TemplateParser.tree, {"a": [{"b {{x": 1}]}, "a placeholder in a key, 'b {{x'"),
        (TemplateParser.json_text, '{"{{x}}": 1}', "a placeholder in a key, '{{x}}'"),
        (TemplateParser.credential, "Bearer {{KEY", "an unclosed placeholder in 'Bearer {{KEY'"),
        (TemplateParser.path, "/{}", "a placeholder without a name in '/{}'"),
        (TemplateParser.path, "/{ }", "a placeholder without a name in '/{ }'"),
        (TemplateParser.path, "/{x", "an unmatched brace in '/{x'"),
        (TemplateParser.path, "/x}", "an unmatched brace in '/x}'"),
        (TemplateParser.path, "/{{x}", "an unmatched brace in '/{{x}'"),
        (TemplateParser.path, "/{x}}", "an unmatched brace in '/{x}}'"),
        (TemplateParser.path, "/{{x", "an unclosed placeholder in '/{{x'"),
    ],
)
def test_invalid_template_is_rejected_with_its_text(read: Callable[..., Any], text: Any, message: str) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        read(parser(), text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "tree"),
    [
        (None, None),
        (5, 5),
        (True, True),
        ("", ""),
        ("plain", "plain"),
        ("{{x}}", X),
        ("{{KEY}}", KEY),
        ("a {{x}}", ("a ", X)),
        ({"a": ["{{x}}", {"b": "<{{x}}>"}], "{x}": 1, 5: "{{x}}"}, {"a": [X, {"b": ("<", X, ">")}], "{x}": 1, 5: X}),
        ("tools.x", "tools.x"),
    ],
)
def test_placeholder_that_is_a_whole_text_keeps_its_type(value: Any, tree: Any) -> None:
    assert parser().tree(value) == tree


@pytest.mark.parametrize(
    ("value", "tree"),
    [
        ({"a": ["tools.x", {"b": "things-mcp.x"}]}, {"a": [X, {"b": X}]}),
        ("{{x}}", X),
        ("v1.2", "v1.2"),
        ("see tools.x", "see tools.x"),
        ("", ""),
    ],
)
def test_references_without_braces_are_parsed(value: Any, tree: Any) -> None:
    assert parser().tree(value, references=True) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ('{"a": "{{x}}"}', {"a": X}),
        ('{"a": {{x}}}', {"a": X}),
        ('{"a": {{ tools.x }}, "b": [{{x}}, "{{x}}"]}', {"a": X, "b": [X, X]}),
        ('{"a": "n={{x}}"}', {"a": ("n=", X)}),
        ('{"a": "\\"{{x}}\\""}', {"a": ('"', X, '"')}),
        ('{"a": "{{KEY}}", "n": 1.5, "t": true, "z": null}', {"a": KEY, "n": 1.5, "t": True, "z": None}),
        ("{{x}}", X),
        (' ["a", 5] ', ["a", 5]),
        ('{"a": "two\nlines {{x}}"}', {"a": ("two\nlines ", X)}),
        ("5", 5),
        ('"{{x}}"', X),
    ],
)
def test_json_text_with_placeholders_is_parsed(text: str, tree: Any) -> None:
    assert parser().json_text(text) == tree


@pytest.mark.parametrize("text", ["", "plain", "<x/>", "{{x}} {{x}}", "a={{x}}", '{"a": {{x}', "{'a': 1}", '{"a": 1,}'])
def test_invalid_json_text_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(Expecting|Extra data|Illegal trailing comma|an unclosed placeholder)"):
        parser().json_text(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 5_000 + "]" * 5_000])
def test_deeply_nested_json_text_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"^nested too deeply$"):
        parser().json_text(text)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (None, None),
        (5, 5),
        ("plain", ("plain",)),
        ("", ()),
        ("{{KEY}}", (KEY,)),
        ("{{env.OTHER}}", (Variable(("OTHER",)),)),
        ("{{OTHER}}", (Variable(("OTHER",)),)),
        ("{{some.OTHER}}", (Variable(("OTHER",)),)),
        ("{{some.}}", (Variable(("some.",)),)),
        ("a{{x}}b{{OTHER}}", ("a", X, "b", Variable(("OTHER",)))),
        ("{{tools.y}}", (ArgumentReference("y"),)),
        (
            {"a": ["{{OTHER}}", 5], "b": {"c": "{{x}}"}},
            {"a": [(Variable(("OTHER",)),), 5], "b": {"c": (X,)}},
        ),
    ],
)
def test_constant_refers_to_the_environment_except_for_known_arguments(value: Any, read: Any) -> None:
    assert parser().value(value, {"x"}) == read


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("Bearer {{x}}", ("Bearer ", Variable(("x",)))),
        ("{{secrets.TOKEN}}", (Variable(("FIRST", "SECOND")),)),
        ("https://{{env.HOST}}/{{ v }}", ("https://", Variable(("HOST",)), "/", Variable(("v",)))),
    ],
)
def test_constant_has_no_arguments(text: str, template: ConstantTemplate) -> None:
    assert parser().constant(text) == template


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("env.KEY", (KEY,)),
        (" env.KEY\n", (KEY,)),
        ("env.OTHER", (Variable(("OTHER",)),)),
        ("secrets.TOKEN", (Variable(("FIRST", "SECOND")),)),
        ("secrets.OTHER", (Variable(("OTHER",)),)),
        ("${KEY}", (KEY,)),
        ("${ OTHER }", (Variable(("OTHER",)),)),
        ("Bearer ${OTHER}-x", ("Bearer ", Variable(("OTHER",)), "-x")),
        ("{{env.KEY}}", (KEY,)),
        ("{{KEY}}", (KEY,)),
        ("Token {{x}}", ("Token ", Variable(("x",)))),
        # These are the secrets themselves.
        ("plain", ("plain",)),
        ("other.KEY", ("other.KEY",)),
        ("env.two words", ("env.two words",)),
        ("env.a-b", ("env.a-b",)),
        ("env.", ("env.",)),
        ("Bearer env.KEY", ("Bearer env.KEY",)),
        ("pa$$word", ("pa$$word",)),
        ("$KEY", ("$KEY",)),
        ("${1}", ("${1}",)),
        ("", ()),
    ],
)
def test_credential_may_name_its_variable_without_braces(text: str, template: ConstantTemplate) -> None:
    assert parser().credential(text) == template


@pytest.mark.parametrize(
    "placeholder",
    ["{?q}", "{?q,limit}", "{&q}", "{+path}", "{#part}", "{.format}", "{/id}", "{;a}", "{id*}", "{id:3}", "{{?q}}"],
)
def test_rfc_6570_expression_is_rejected(placeholder: str) -> None:
    # https://www.rfc-editor.org/rfc/rfc6570#section-1.2
    with pytest.raises(InvalidTemplate) as caught:
        parser().path(f"/things{placeholder}")
    inner = placeholder.strip("{}")
    assert str(caught.value) == f"the RFC 6570 expression {{{inner}}} in '/things{placeholder}', which is not supported"


@pytest.mark.parametrize("path", ["/{id}:run", "/{a.b}", "/{a-b}", "/{page[size]}", "/*/{x}", "/+{x}?q={q}"])
def test_rfc_6570_characters_outside_placeholders_are_accepted(path: str) -> None:
    assert "".join(part if isinstance(part, str) else f"{{{part.name}}}" for part in told_parts(path)) == path


def told_parts(path: str) -> list[str | ArgumentReference]:
    return [part for part in parser().path(path) if isinstance(part, str | ArgumentReference)]


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        (None, []),
        ("text", []),
        (5, []),
        (KEY, []),
        (X, ["x"]),
        (("a", X, KEY, ArgumentReference("y")), ["x", "y"]),
        ({"a": [X, {"b": ("<", X)}], "c": ArgumentReference("z")}, ["x", "x", "z"]),
    ],
)
def test_references_of_a_tree_are_in_order(tree: Any, names: list[str]) -> None:
    assert list(references_of(tree)) == names
