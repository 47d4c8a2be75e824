"""Settings from file, environment and flags: precedence, origins, refusals and masking."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from keytrail.choices import Choice, LogLevel, Output
from keytrail.configuration import RULE_CHOICES
from keytrail.domain.errors import SettingsError
from keytrail.domain.event import EventKind
from keytrail.domain.filters import EventFilter
from keytrail.domain.shape import fields_of
from keytrail.settings import RULE_WORDS, Settings
from keytrail.settings_sources import _SERVICE_LINK, example_settings, load_settings, masked, show, variable_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a settings file's path."""
    return tmp_path / "keytrail.yaml"


def refused(argv: dict[str, object], environ: dict[str, str], file: Path | None = None) -> list[str]:
    """Return the lines of the refusal."""
    with pytest.raises(SettingsError) as caught:
        load_settings(argv, environ, file)
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_defaults() -> None:
    """Nothing given is every default, and says so."""
    settings = load_settings({"pace": None}, {"KEYTRAIL_PACE": "", "PATH": "/bin"})
    assert settings == Settings()
    assert settings.origins == {}
    assert (settings.queue_capacity, settings.process_capacity, settings.duplicates_window_ms) == (65536, 32768, 5)
    assert settings.output == (Output.OTLP,)
    assert not settings.event_filter()


def test_precedence(file: Path) -> None:
    """A flag outranks the environment, which outranks the file; each setting says which it was."""
    file.write_text("# ours\nqueue_capacity: 1\nprocess_capacity: 1\npace: 1\n", encoding="utf-8")
    environ = {"KEYTRAIL_PROCESS_CAPACITY": "2", "KEYTRAIL_PACE": "2", "KEYTRAIL_SETTINGS": str(file)}
    settings = load_settings({"pace": "3.5"}, environ)
    assert (settings.queue_capacity, settings.process_capacity, settings.pace) == (1, 2, 3.5)
    assert settings.origins == {
        "queue_capacity": f"file {file}:2",
        "process_capacity": "environment KEYTRAIL_PROCESS_CAPACITY",
        "pace": "flag --pace",
    }


def test_words_for_rules() -> None:
    """The words that the setting takes beside a folder are those that choose among the shipped rules."""
    assert tuple(RULE_CHOICES) == RULE_WORDS


def test_the_flag_names_the_file(file: Path, tmp_path: Path) -> None:
    """`--settings` outranks KEYTRAIL_SETTINGS, whose file is not even read then."""
    file.write_text("log_level: debug\n", encoding="utf-8")
    settings = load_settings({}, {"KEYTRAIL_SETTINGS": str(tmp_path / "none")}, file)
    assert settings.log_level is LogLevel.DEBUG


def test_text_of_every_type() -> None:
    """Variables and flags are text: each type is read from it."""
    environ = {
        "KEYTRAIL_OUTPUT": "json, line",
        "KEYTRAIL_COLOR": "never",
        "KEYTRAIL_PROC_FALLBACK": "Yes",
        "KEYTRAIL_UNMAPPED_CREDENTIALS": "0",
        "KEYTRAIL_NAMESPACES": "ml,",
        "KEYTRAIL_PODS": "^chat-[a-z]{1,5}$",
        "KEYTRAIL_STATE_DIR": "/var/lib/keytrail",
        "KEYTRAIL_DUPLICATES_WINDOW_MS": "0",
    }
    argv = {"event_kinds": ["exec,connect", "send"], "binaries": ["a,b", "c"], "config": Path("/etc/k")}
    settings = load_settings(argv, environ)
    assert settings.output == (Output.JSON, Output.LINE)
    assert settings.color is Choice.NEVER
    assert (settings.proc_fallback, settings.unmapped_credentials) == (True, False)
    assert (settings.state_dir, settings.config) == (Path("/var/lib/keytrail"), Path("/etc/k"))
    assert settings.duplicates_window_ms == 0
    assert settings.event_filter() == EventFilter(
        kinds=frozenset({EventKind.EXEC, EventKind.CONNECT, EventKind.SEND}),
        namespaces=frozenset({"ml", ""}),
        pods=("^chat-[a-z]{1,5}$",),
        binaries=("a,b", "c"),
    )


QUOTES = 'YAML does not take the unquoted word on as text, write "on"'


def test_all_problems_with_their_origin(file: Path) -> None:
    """Each origin's problems are shown at once, with line, variable or flag, even where another outranks it."""
    file.write_text("queue_capacity: 0\nlog_levle: debug\ncolor: on\npods: ['(']\n", encoding="utf-8")
    environ = {"KEYTRAIL_QUEUE_CAPACITY": "many", "KEYTRAIL_OUPUT": "json", "KEYTRAIL_LOG_FORMAT": "xml"}
    assert refused({"pace": "fast", "binaries": ["(?P<x)"], "queue_capacity": 5, "kinds": "exec"}, environ, file) == [
        f"{file}:1: queue_capacity: expected a whole number of events from 1 to 10000000, found the number 0",
        f"{file}:2: log_levle: unknown field, did you mean log_level?",
        f"{file}:3: color: unknown value the boolean true, expected one of auto, always, never; {QUOTES}",
        f"{file}:4: pods[0]: expected a regular expression in RE2's syntax, found '(': missing ) '('",
        "KEYTRAIL_QUEUE_CAPACITY: expected a whole number of events from 1 to 10000000, found text 'many'",
        "KEYTRAIL_LOG_FORMAT: unknown value 'xml', expected one of text, json",
        "KEYTRAIL_OUPUT: unknown setting, did you mean KEYTRAIL_OUTPUT?",
        "--pace: expected a number of times real time from 0.001 to 10000000, found text 'fast'",
        "--binary: expected a regular expression in RE2's syntax, found '(?P<x)': invalid named capture group '(?P<x)'",
        "--kinds: unknown setting, did you mean --kind?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n", ":1: expected a mapping, found a list"),
        ("color: auto\n---\ncolor: auto\n", ":3: expected one YAML document"),
        ("color: auto\ncolor: never\n", ":2: color: is given twice, first on line 1"),
        ("color: [auto\n", ":2: not YAML: expected ',' or ']', but got '<stream end>'"),
        (None, ": cannot be read: No such file or directory"),
    ],
)
def test_wrong_file(file: Path, text: str | None, expected: str) -> None:
    """A file that is no settings file is refused with its line."""
    if text is not None:
        file.write_text(text, encoding="utf-8")
    assert refused({}, {}, file) == [f"{file}{expected}"]


def test_service_links_are_no_settings() -> None:
    """The variables that a Pod gets for a Service called keytrail are not taken for misspelled settings."""
    environ = {
        "KEYTRAIL_SERVICE_HOST": "10.96.0.7",
        "KEYTRAIL_SERVICE_PORT_HTTP": "9090",
        "KEYTRAIL_PORT": "tcp://10.96.0.7:9090",
        "KEYTRAIL_PORT_9090_TCP_ADDR": "10.96.0.7",
        "KEYTRAIL_OPERATOR_PORT_443_TCP": "tcp://10.96.0.8:443",
    }
    assert load_settings({}, environ) == Settings()
    # So no setting may ever have a name of that form.
    assert not [field.name for field in fields_of(Settings) if _SERVICE_LINK.fullmatch(variable_of(field.name))]
    assert refused({}, {"KEYTRAIL_REPORT": "x"})[0].startswith("KEYTRAIL_REPORT: unknown setting")


def test_tls_options_fit_together(tmp_path: Path) -> None:
    """A certificate needs its key, the files must be there, and a socket has no TLS."""
    certificate = tmp_path / "tls.crt"
    certificate.touch()
    environ = {"KEYTRAIL_AGENT_ADDRESS": "unix:///run/t.sock", "KEYTRAIL_AGENT_TLS_CA": str(tmp_path / "none")}
    assert refused({"agent_tls_cert": str(certificate)}, environ) == [
        "KEYTRAIL_AGENT_TLS_CA: there is no such file",
        "--agent-tls-cert: needs agent_tls_key too",
        "KEYTRAIL_AGENT_TLS_CA: TLS is for an agent at host:port, and agent_address is a socket",
    ]
    argv = {"agent_tls_ca": certificate, "agent_tls_cert": certificate, "agent_tls_key": certificate}
    assert load_settings({**argv, "agent_address": "node:54321"}, {}).agent_tls_key == certificate


SECRET = "Zq81mXv20PqLw93n"  # noqa: S105 - made up, to be looked for in output


def test_show_masks_and_loads_again(file: Path) -> None:
    """What is shown names every setting and its origin, holds no secret, and is a settings file again."""
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{SECRET},x-tenant={SECRET}, {SECRET}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://user:{SECRET}@backend:4317",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
        "OTEL_SERVICE_NAME": "keytrail",
        "OTEL_RESOURCE_ATTRIBUTES": f"team=ml,api_key={SECRET}",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"https://backend/v1/logs?token={SECRET}",
        "OTHER_TOKEN": SECRET,
    }
    settings = load_settings(
        {"pace": 2, "output": ["json"]}, {"KEYTRAIL_NAMESPACES": "ml,no", "KEYTRAIL_PROC_ROOT": "/host"}
    )
    export = [("otlp.headers", f"api-key={SECRET}", "environment"), ("otlp.timeout", "10 s", "default")]
    text = show(settings, environ, export)
    assert SECRET not in text
    lines = text.splitlines()
    assert '# OTEL_EXPORTER_OTLP_HEADERS = "authorization=[masked],x-tenant=[masked],[masked]"  (environment)' in lines
    assert '# OTEL_EXPORTER_OTLP_ENDPOINT = "https://[masked]@backend:4317"  (environment)' in lines
    assert '# otlp.headers = "api-key=[masked]"  (environment)' in lines
    assert '# otlp.timeout = "10 s"  (default)' in lines
    assert [line.split("#")[1].strip() for line in lines if line.startswith(("pace:", "color:", "proc_root:"))] == [
        "default", "environment KEYTRAIL_PROC_ROOT", "flag --pace",
    ]  # fmt: skip
    file.write_text(text, encoding="utf-8")
    assert load_settings({}, {}, file) == settings


def test_nothing_secret_in_refusals() -> None:
    """A key that landed in the wrong variable is not printed back."""
    key = f"sk-proj-{SECRET}{SECRET}"
    for variable in ("KEYTRAIL_LOG_LEVEL", "KEYTRAIL_API_KEY", "KEYTRAIL_QUEUE_CAPACITY", "KEYTRAIL_OUTPUT"):
        assert SECRET[:8] not in "".join(refused({}, {variable: key}))
    assert masked("agent_address", "tcp://a:b@c/d@e") == "tcp://[masked]@c/d@e"


def test_example_names_every_setting(file: Path) -> None:
    """The example documents each setting with its variable; as it stands and uncommented it is all defaults."""
    text = example_settings()
    file.write_text(text, encoding="utf-8")
    assert load_settings({}, {}, file) == Settings()
    uncommented = "".join(line[1:] + "\n" for line in text.splitlines() if line.startswith("#") and line[1:2] != " ")
    file.write_text(uncommented, encoding="utf-8")
    assert load_settings({}, {}, file) == Settings()
    declared = [field.name for field in dataclasses.fields(Settings) if field.name != "origins"]
    assert list(yaml.safe_load(uncommented)) == declared
    assert all(f"Variable: {variable_of(name)}." in text.replace("\n# ", " ") for name in declared)


def test_every_example_is_a_setting(file: Path) -> None:
    """The example that documents a setting is itself accepted."""
    for field in fields_of(Settings):
        if not field.name.startswith(("agent_tls_", "kubeconfig")):  # those name files that must exist
            file.write_text(yaml.safe_dump({field.name: field.doc.example}), encoding="utf-8")
            assert load_settings({}, {}, file) != Settings() or field.doc.example == field.default, field.name
