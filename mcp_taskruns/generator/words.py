"""The words of names and texts."""

import re
from collections.abc import Iterator, Mapping

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_ARTICLES = frozenset({"a", "an", "the", "your", "this"})
_MAX_SENTENCE = 300
"""The length limit of a description, in characters."""

_VERBS = (
    "abort add archive call cancel check clear complete create delete describe dispatch download execute export fetch "
    "find force get import invoke kill launch list monitor pause poll post queue query read rebuild repair replay "
    "replace reschedule rerun reset restart resubmit resume resurrect retrieve retry return run schedule search send "
    "set show signal start stop stream submit suspend terminate trigger update upload view wait"
)


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text that are separated by spaces."""
    return frozenset(text.split())


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of an identifier or a text, in lower case: `jobRun_id` has the words job, run and id."""
    return tuple(word.lower() for word in _WORDS.findall(text))


def singular(word: str) -> str:
    """Return the singular of an English noun, as far as its spelling shows it."""
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3 else word


def without_code(text: str) -> str:
    """Return a Markdown text without its code blocks."""
    return re.sub(r"```.*?(?:```|$)", " ", text, flags=re.DOTALL)


def clean_text(text: object) -> str:
    """Return a Markdown text on one line, without links, emphasis and characters that YAML forbids."""
    plain = without_code(str(text or ""))
    plain = re.sub(r"<[^>]{1,200}>", " ", plain)
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", plain)
    plain = re.sub(r"[*`]+|^#+ ", "", plain, flags=re.MULTILINE)
    plain = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]", " ", plain)
    return " ".join(plain.split())


def first_sentence(text: object) -> str:
    """Return the first sentence of a Markdown text, at most 300 characters long."""
    plain = clean_text(text)
    match = re.match(r".+?[.!?](?=\s+[^a-z\s]|$)", plain)
    sentence = match.group() if match else plain
    if len(sentence) <= _MAX_SENTENCE:
        return sentence
    return sentence[: _MAX_SENTENCE - 3].rsplit(" ", 1)[0].rstrip(",;:") + "..."


def name_provider(sentence: str, label: str) -> str:
    """Return a sentence that names the provider in its first words: `Cancel a Render run` for `Cancel a run`."""
    words = sentence.split()
    if len(words) > 2 and words[0] in label.split() and _is_verb(words[1]):
        words, sentence = words[1:], " ".join(words[1:])
    if label.lower() in " ".join(words[:5]).lower():
        return sentence
    if not words or not _is_verb(words[0]):
        return f"{label}: {sentence}" if sentence else label
    has_article = len(words) > 1 and words[1].lower() in _ARTICLES
    head, rest = words[: 1 + has_article], words[1 + has_article :]
    if has_article and head[1].lower() in {"a", "an"}:
        head[1] = "an" if label[:1].lower() in "aeio" else "a"
    return " ".join([*head, label, *rest])


def _is_verb(word: str) -> bool:
    lowered, verbs = word.lower(), words_of(_VERBS)
    return bool({lowered, singular(lowered), lowered.removesuffix("es")} & verbs)


def label_of(name: str, info: Mapping[str, object]) -> str:
    """Return the provider's name in the spelling of the document: `OpenAI Batches` for `openai-batches`."""
    text = clean_text(f"{info.get('title', '')} {info.get('description', '')}")
    spellings = {word.lower(): word for word in reversed(re.findall(r"\w+", text)) if word != word.lower()}
    return " ".join(spellings.get(word, word.capitalize()) for word in name.split("-"))


def short_name(text: str, label: str) -> str:
    """Return a name for a tool made of the words of a title, without articles and the provider's name."""
    words = [word for word in split_words(text) if word not in _ARTICLES]
    parts = label.split()
    for count in range(len(parts), 0, -1):
        prefix = list(split_words(" ".join(parts[:count])))
        if words[: len(prefix)] == prefix and len(words) > len(prefix) and not _is_verb(words[0]):
            words = words[len(prefix) :]
            break
    return "-".join(words)


def code_words(text: object) -> Iterator[str]:
    """Yield the texts in backticks or quotes."""
    for match in re.finditer(r"`([^`\n]{1,60})`|\"([^\"\n]{1,60})\"|'([\w -]{2,60})'", str(text or "")):
        yield next(part for part in match.groups() if part)
