"""Conversations made mechanically from the docstrings and the topics of the training files."""

from __future__ import annotations

import ast
import inspect
import random
import re
from collections.abc import Iterator

from corpus import TEST_PARTS, TOPICS, SourceFile

Conversation = list[dict[str, str]]

SHORTEST_ANSWER = 20
LONGEST_ANSWER = 500
WELL_KNOWN_REPEATS = 4
TOPIC_REPEATS = 4
RENAMED_MODULES = {"posixpath": "os.path"}
WELL_KNOWN_NAMES = """
argparse ast asyncio base64 bisect collections configparser contextlib copy csv dataclasses
datetime decimal difflib enum fnmatch fractions functools glob gzip hashlib heapq inspect io json
json.decoder json.encoder logging os os.path pathlib pickle queue random re shutil socket
statistics string subprocess tempfile textwrap threading typing unittest.case uuid zipfile
"""
WELL_KNOWN_MODULES = frozenset(WELL_KNOWN_NAMES.split())
OBJECT_QUESTIONS = (
    "What does {name} do?",
    "What does {name} do?",
    "What is {name}?",
    "Explain {name}.",
    "Describe {name}.",
    "How do I use {name}?",
    "Tell me about {name}.",
)
MODULE_QUESTIONS = (
    "What is the {name} module?",
    "What does the {name} module do?",
    "Explain the {name} module.",
    "What is {name} for?",
)
STATEMENT_QUESTIONS = (
    "Explain the `{name}` statement.",
    "What does the `{name}` statement do?",
    "How does `{name}` work?",
    "What is `{name}` in Python?",
)
TOPIC_QUESTIONS = (
    "Explain {name} in Python.",
    "Tell me about {name}.",
    "What should I know about {name}?",
)
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You answer questions about Python.",
    "You are a Python expert. Be brief.",
)
HELLO = "Hello! Ask me about a function, a class or a statement of Python."
GREETINGS = (
    ("Hello", HELLO),
    ("Hello!", HELLO),
    ("Hi", HELLO),
    ("Hi there!", HELLO),
    ("Who are you?", "I am a small demonstration model that was trained on Python's library."),
    ("What can you do?", "I can say what a function, a class or a statement of Python does."),
    ("Thank you!", "You are welcome."),
    ("Thanks", "You are welcome."),
    ("Goodbye", "Goodbye!"),
)
GREETING_REPEATS = 12


def shorten(text: str) -> str:
    """Keep the first paragraphs that fit in an answer; cut a long first one at a sentence."""
    kept = ""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        longer = f"{kept}\n\n{paragraph}" if kept else paragraph
        if len(longer) > LONGEST_ANSWER:
            break
        kept = longer
    if not kept:
        start = text.strip()[:LONGEST_ANSWER]
        kept = start[: start.rfind(". ") + 1] or start
    return kept.strip()


def _module_name(file_name: str) -> str:
    name = file_name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return RENAMED_MODULES.get(name, name)


def _documented(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if child.name.startswith("_"):
            continue
        name = f"{prefix}.{child.name}"
        docstring = ast.get_docstring(child)
        if docstring and len(docstring) >= SHORTEST_ANSWER:
            yield name, docstring
        if isinstance(child, ast.ClassDef):
            yield from _documented(child, name)


def _turn(question: str, answer: str) -> Conversation:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": shorten(inspect.cleandoc(answer))},
    ]


def turns_of_file(file: SourceFile, chance: random.Random) -> list[Conversation]:
    """Make one question and answer from each public docstring of a file."""
    try:
        tree = ast.parse(file.text)
    except SyntaxError:
        return []
    module = _module_name(file.name)
    repeats = WELL_KNOWN_REPEATS if module in WELL_KNOWN_MODULES else 1
    turns: list[Conversation] = []
    for _ in range(repeats):
        docstring = ast.get_docstring(tree)
        if docstring and not module.rpartition(".")[2].startswith("_"):
            turns.append(_turn(chance.choice(MODULE_QUESTIONS).format(name=module), docstring))
        for name, text in _documented(tree, module):
            turns.append(_turn(chance.choice(OBJECT_QUESTIONS).format(name=name), text))
    return turns


def turns_of_topics(file: SourceFile, chance: random.Random) -> list[Conversation]:
    """Make questions and answers from the documentation's topics."""
    assignment = ast.parse(file.text).body[-1]
    if not isinstance(assignment, ast.Assign):
        return []
    turns: list[Conversation] = []
    for name, text in ast.literal_eval(assignment.value).items():
        title, _, body = text.strip().partition("\n")
        body = body.partition("\n")[2] if re.match(r'^[*=~^"-]{3,}', body) else body
        is_statement = title.endswith(" statement")
        questions = STATEMENT_QUESTIONS if is_statement else TOPIC_QUESTIONS
        for _ in range(TOPIC_REPEATS):
            turns.append(_turn(chance.choice(questions).format(name=name), body or text))
    return turns


def _combine(turns: list[Conversation], chance: random.Random) -> Iterator[Conversation]:
    """Join one turn in six to the next, and open one conversation in six with a system prompt."""
    position = 0
    while position < len(turns):
        conversation = list(turns[position])
        position += 1
        if chance.random() < 1 / 6 and position < len(turns):
            conversation += turns[position]
            position += 1
        if chance.random() < 1 / 6:
            conversation.insert(0, {"role": "system", "content": chance.choice(SYSTEM_PROMPTS)})
        yield conversation


def make_conversations(files: list[SourceFile], seed: int = 0) -> list[Conversation]:
    """Make the training conversations, in a fixed shuffled order, from the training files only."""
    chance = random.Random(seed)
    turns: list[Conversation] = []
    for file in files:
        if file.name == TOPICS:
            turns += turns_of_topics(file, chance)
        elif not any(part in TEST_PARTS for part in file.name.split("/")):
            turns += turns_of_file(file, chance)
    for question, answer in GREETINGS:
        turns += [_turn(question, answer) for _ in range(GREETING_REPEATS)]
    chance.shuffle(turns)
    return list(_combine(turns, chance))
