"""The operator's settings: flags before environment before defaults, and all that is wrong said at once."""

from pathlib import Path

import pytest

from keytrail.domain.errors import SettingsError
from keytrail_operator.cli import build_parser, main
from keytrail_operator.settings import HELP, OperatorSettings, load


def test_defaults() -> None:
    """Without anything given, the defaults count, each of which has its words of help."""
    assert load({}, {}) == OperatorSettings()
    assert set(HELP) == set(OperatorSettings.__dataclass_fields__)


def test_flags_outrank_the_environment() -> None:
    """A flag counts before its variable; an empty variable is none."""
    environ = {
        "KEYTRAIL_OPERATOR_NAMESPACE": "env",
        "KEYTRAIL_OPERATOR_LEADER_ELECT": "true",
        "KEYTRAIL_OPERATOR_CLUSTER_CIDRS": "10.0.0.0/8, fd00:1::/48",
        "KEYTRAIL_OPERATOR_HTTP_ADDRESS": "",
    }
    args = build_parser().parse_args(["run", "--namespace=flag", "--kubeconfig=/k", "--gather-seconds=5"])
    settings = load(vars(args), environ)
    assert settings.namespace == "flag"
    assert settings.leader_elect
    assert settings.cluster_cidrs == ("10.0.0.0/8", "fd00:1::/48")
    assert settings.kubeconfig == Path("/k")
    assert settings.gather_seconds == 5
    assert settings.http_address == ":8080"


def test_everything_wrong_is_said() -> None:
    """Each problem with where it came from."""
    environ = {
        "KEYTRAIL_OPERATOR_LEADER_ELECT": "maybe",
        "KEYTRAIL_OPERATOR_CLUSTER_CIDRS": "10.0.0.1/8",
        "KEYTRAIL_OPERATOR_LOG_LEVEL": "loud",
        "KEYTRAIL_OPERATOR_HTTP_ADDRESS": "8080",
    }
    with pytest.raises(SettingsError) as error:
        load({"look_seconds": "0"}, environ)
    text = str(error.value)
    assert "KEYTRAIL_OPERATOR_LEADER_ELECT: expected true or false, found 'maybe'" in text
    assert "KEYTRAIL_OPERATOR_CLUSTER_CIDRS: expected a range such as 10.244.0.0/16, found '10.0.0.1/8'" in text
    assert "KEYTRAIL_OPERATOR_LOG_LEVEL: expected one of debug, info, warning, error, found 'loud'" in text
    assert "KEYTRAIL_OPERATOR_HTTP_ADDRESS: expected host:port" in text
    assert "--look-seconds: expected a number of seconds, found '0'" in text


def test_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """What was asked for wrongly ends with 2 and says why."""
    assert main(["run", "--leader-elect", "--log-format=xml"]) == 2
    assert "--log-format: expected one of text, json" in capsys.readouterr().err


def test_the_nearest_option(capsys: pytest.CaptureFixture[str]) -> None:
    """An option that there is not is answered with the one that was probably meant."""
    with pytest.raises(SystemExit, match="2"):
        main(["run", "--namspace", "keytrail"])
    assert "unknown option --namspace, did you mean --namespace?" in capsys.readouterr().err
