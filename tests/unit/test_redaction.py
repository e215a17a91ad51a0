"""Secrets stay out of the log, and everything else goes in as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.redaction import REDACTED, Redactor, find_secret, is_secret_name

# Each is put together here, so that no scanner takes this file for a leak.
LETTERS = "AbCdEfGhIj0123456789"
KEYS = {
    "Anthropic": "sk-ant-" + "api03-" + LETTERS,
    "OpenAI": "sk-" + "proj-" + LETTERS + LETTERS,
    "OpenAI, old": "sk-" + LETTERS + LETTERS,
    "OpenRouter": "sk-" + "or-v1-" + LETTERS,
    "GitHub": "ghp_" + LETTERS + LETTERS,
    "GitHub app": "ghs_" + LETTERS + LETTERS,
    "GitHub, fine-grained": "github_" + "pat_" + LETTERS + "_" + LETTERS,
    "GitLab": "glpat-" + LETTERS,
    "AWS": "AKIA" + "ABCDEFGH01234567",
    "Google": "AIza" + LETTERS + LETTERS,
    "Slack": "xoxb-" + "123456789012-" + LETTERS,
    "Hugging Face": "hf_" + LETTERS + LETTERS,
    "Stripe": "sk_" + "live_" + LETTERS,
    "npm": "npm_" + LETTERS + LETTERS,
    "Groq": "gsk_" + LETTERS + LETTERS,
    "xAI": "xai-" + LETTERS + LETTERS,
    "JSON web token": "eyJ" + LETTERS + ".eyJ" + LETTERS + "." + LETTERS,
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----\n" + LETTERS + "\n-----END RSA " + "PRIVATE KEY-----",
}
HARMLESS = [
    "",
    "task-force-one-and-two-and-three-and-four",
    "risk-assessment-of-the-new-checkout-flow",
    "the tests of the token parser passed",
    "https://example.com/path?page=2",
    "d41d8cd98f00b204e9800998ecf8427e",
    "asiapacificsoutheast1 is slow today",
]


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("frame", ["{}", "key={} end", 'export KEY="{}"', "[{}]", "first\n{}\nlast", "k:{},x"])
def test_a_providers_key_is_taken_out_wherever_it_stands(key: str, frame: str) -> None:
    """Every character of it, and nothing around it."""
    assert Redactor({}).text(frame.format(key)) == frame.format(REDACTED)
    assert find_secret(frame.format(key)) is not None


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_text_is_left_alone(text: str) -> None:
    """Ids, hashes, prose and addresses."""
    assert Redactor({}).text(text) == text
    assert find_secret(text) is None


@pytest.mark.parametrize(
    "header",
    [
        "Authorization: Bearer s3cr3t-value",
        "authorization: bearer s3cr3t-value",
        "AUTHORIZATION: BEARER s3cr3t-value",
        "Proxy-Authorization: Basic s3cr3t-value",
        "Authorization: token s3cr3t-value",
        "Authorization: ApiKey s3cr3t-value",
        "Authorization: s3cr3t-value",
        "Authorization=s3cr3t-value",
        "{'Authorization': 'Bearer s3cr3t-value'}",
        '{"Authorization": "s3cr3t-value"}',
        r"{\"Authorization\": \"Bearer s3cr3t-value\"}",
        "curl -H 'Authorization: Bearer s3cr3t-value' https://example.com",
    ],
)
def test_the_value_of_an_authorization_header_is_taken_out(header: str) -> None:
    """Whatever the scheme, the case and the quotes; what follows it stays."""
    redacted = Redactor({}).text(f"> {header}\n> Accept: */*")
    assert "s3cr3t" not in redacted
    assert redacted.startswith("> ")
    assert redacted.endswith("\n> Accept: */*")
    assert REDACTED in redacted


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("curl -H 'Authorization: Bearer " + LETTERS + "' https://example.com", True),
        ("Authorization: Basic " + "dXNlcjpwYXNz", True),
        ("curl -H 'Authorization: Bearer $API_TOKEN' https://example.com", False),
        ('curl -H "Authorization: Bearer ${API_TOKEN}" https://example.com', False),
        ("Authorization: Bearer <token>", False),
        ("Add authorization: roles and permissions for every endpoint", False),
        ("Add authorization: basic authentication and sessions", False),
    ],
)
def test_a_plan_may_speak_of_authorization_and_name_a_variable(text: str, secret: bool) -> None:
    """Only a literal value is refused; the variable is what the refusal asks for."""
    assert (find_secret(text) is not None) == secret


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("DB_PASSWORD", True), ("db_passwd", True), ("API_TOKEN", True), ("GITHUB_TOKEN", True), ("APIKEY", True),
        ("OPENAI_API_KEY", True), ("KEY", True), ("SSH_KEY_FILE", True), ("CLIENT_SECRET", True), ("SECRETS", True),
        ("PATH", False), ("HOME", False), ("KEYBOARD", False), ("MONKEY", False), ("LANG", False), ("TURKEY_SIZE", False),
    ],
)  # fmt: skip
def test_a_variable_is_secret_by_its_name(name: str, secret: bool) -> None:
    """Secret, password, token or key, in any case, as a word of the name."""
    assert is_secret_name(name) == secret


def test_the_value_of_a_secret_variable_is_taken_out_and_others_are_not() -> None:
    """By its value, wherever it is printed."""
    redactor = Redactor({"DB_PASSWORD": "correct horse", "GREETING": "hello world"})
    assert redactor.text("hello world: correct horse, correct") == f"hello world: {REDACTED}, correct"


@pytest.mark.parametrize(("value", "redacted"), [("1234567", False), ("12345678", True), ("       a", False)])
def test_a_value_of_fewer_than_eight_characters_is_no_secret(value: str, redacted: bool) -> None:
    """Or ordinary words would vanish."""
    assert (Redactor({"API_KEY": value}).text(f"<{value}>") == f"<{REDACTED}>") == redacted


def test_blanks_around_a_variables_value_do_not_save_it() -> None:
    """A file that ends in a newline is a common way to get there."""
    redactor = Redactor({"API_KEY": " hunter2-hunter2\n"})
    assert redactor.text("got hunter2-hunter2.") == f"got {REDACTED}."


def test_a_secret_inside_a_longer_one_leaves_nothing_of_it() -> None:
    """The longer one goes first; signs that mean something to a pattern mean nothing here."""
    redactor = Redactor({"A_KEY": "abc.*+?d", "B_KEY": "abc.*+?d-and-more(", "C_KEY": "more(((("})
    assert redactor.text("1 abc.*+?d-and-more( 2 abc.*+?d 3 abcXd") == f"1 {REDACTED} 2 {REDACTED} 3 abcXd"


@given(st.text(), st.text(min_size=8).filter(lambda text: len(text.strip()) >= 8), st.text())
def test_no_text_keeps_the_value_of_a_secret_variable(before: str, secret: str, after: str) -> None:
    """Whatever stands around it."""
    secret = secret.strip()
    redacted = Redactor({"MY_TOKEN": secret}).text(before + secret + after)
    assert secret not in redacted or secret in REDACTED


def test_every_text_inside_a_value_is_redacted_and_the_rest_is_kept() -> None:
    """Lists, objects and their keys."""
    key = KEYS["GitHub"]
    value = {"a": [1, None, {"b": f"x {key}", key: True}], "c": 2.5, "d": "fine"}
    assert Redactor({}).value(value) == {"a": [1, None, {"b": f"x {REDACTED}", REDACTED: True}], "c": 2.5, "d": "fine"}


def test_ids_are_never_touched_even_if_they_read_like_a_secret() -> None:
    """Or the log could not be folded."""
    redactor = Redactor({"MY_TOKEN": "build-and-test"})
    event = ev.TaskFailed(
        task_id="build-and-test", attempt_id="abcdefghij", duration_s=1.0, error="build-and-test said " + KEYS["npm"]
    )
    assert redactor.event(event) == event.model_copy(update={"error": f"{REDACTED} said {REDACTED}"})


def test_the_files_of_a_store_hold_no_byte_of_a_secret(tmp_path: Path) -> None:
    """Neither the database nor what lies beside it, before and after it is closed."""
    secrets = ["correct-horse-battery", KEYS["Anthropic"], KEYS["AWS"], "s3cr3t-value"]
    said = f"{secrets[0]} {secrets[1]} {secrets[2]} Authorization: Bearer {secrets[3]}"
    task: dict[str, Any] = {"task_id": "a", "attempt_id": "b"}
    events: list[ev.Event] = [
        ev.RunPaused(reason=said),
        ev.TaskCompleted(**task, duration_s=1.0, output={"said": [said]}),
        ev.TaskFailed(**task, duration_s=1.0, error=said, output=said),
        ev.TaskTimedOut(**task, duration_s=1.0, timeout_s=1.0, error=said),
        ev.AttemptLost(**task, error=said),
        ev.TaskBlocked(task_id="a", reason=said, output={"said": [said]}),
        ev.CheckpointCreated(checkpoint_id="c", kind="manual", label=said),
        ev.RunForked(parent="beta", seq=1, overrides={"a.description": said}),
    ]

    def leaks() -> list[tuple[str, str]]:
        files = [path for path in tmp_path.iterdir() if path.is_file()]
        return [(path.name, secret) for path in files for secret in secrets if secret.encode() in path.read_bytes()]

    with Log(tmp_path / "events.db", environ={"DB_PASSWORD": secrets[0]}) as log:
        appended = log.append("alpha", 0, events)
        assert leaks() == []
        assert all(REDACTED in record.event.model_dump_json() for record in appended)
        assert list(log.read()) == appended
    assert leaks() == []
