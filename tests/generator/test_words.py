"""Words of names, and short descriptions."""

import pytest

from mcp_taskruns.generator.words import (
    clean_text,
    first_sentence,
    label_of,
    name_provider,
    short_name,
    singular,
    split_words,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jobRun_id", ("job", "run", "id")),
        ("TIMED-OUT", ("timed", "out")),
        ("getHTTPResponse2", ("get", "http", "response", "2")),
        ("", ()),
    ],
)
def test_words_of_identifiers(text: str, words: tuple[str, ...]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("runs", "run"),
        ("batches", "batch"),
        ("activities", "activity"),
        ("status", "status"),
        ("analysis", "analysis"),
        ("process", "process"),
        ("processes", "process"),
        ("has", "has"),
    ],
)
def test_singular(word: str, expected: str) -> None:
    assert singular(word) == expected


def test_markdown_is_removed() -> None:
    text = "# Get\n**the** `job` [here](https://a.example) <b>now</b>\u2028```x```\ufeff"
    assert clean_text(text) == "Get the job here now"
    assert clean_text(None) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Gets a job. And more.", "Gets a job."),
        ("Gets version 1.2 of e.g. a job", "Gets version 1.2 of e.g. a job"),
        ("word " * 100, ("word " * 59).strip() + "..."),
        ("", ""),
    ],
)
def test_first_sentence(text: str, expected: str) -> None:
    assert first_sentence(text) == expected
    assert len(first_sentence(text)) <= 300


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Cancel a run", "Cancel an Acme run"),
        ("Cancels the run.", "Cancels the Acme run."),
        ("List runs", "List Acme runs"),
        ("Fetches runs", "Fetches Acme runs"),
        ("Get an Acme run", "Get an Acme run"),
        ("Acme Get runs", "Get Acme runs"),
        ("Runs of a job", "Runs Acme of a job"),
        ("The runs", "Acme: The runs"),
        ("", "Acme"),
    ],
)
def test_descriptions_name_the_provider_first(sentence: str, expected: str) -> None:
    assert name_provider(sentence, "Acme") == expected
    assert name_provider("Stop an item", "Buildkite") == "Stop a Buildkite item"


def test_label_has_the_spelling_of_the_document() -> None:
    info = {"title": "The openai API", "description": "OpenAI's REST API. openai"}
    assert label_of("openai-batches", info) == "OpenAI Batches"


def test_tool_names_have_no_articles_and_no_provider() -> None:
    assert short_name("GitHub Get a Workflow Run", "GitHub Actions") == "get-workflow-run"
    assert short_name("Trigger a task", "Trigger Dev") == "trigger-task"
    assert short_name("GitHub", "GitHub Actions") == "git-hub"
